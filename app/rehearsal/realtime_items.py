"""The conversation of a session: its items in order, as they stand on the wire and as the brain reads them.

Rule 1: an id has at most 32 characters and stands once; an output needs its call; an assistant's audio cannot be brought along.
Rule 2: what a truncation cut is cut here too: the audio's length, and the words that began after it.
"""

import copy
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.rehearsal.brain_memory import Answered, Called, Heard, Line, Said, Told
from app.rehearsal.realtime_faults import Refused

LONGEST_ID = 32
_PARTS = {"system": ("input_text",), "user": ("input_text", "input_audio", "input_image"), "assistant": ("output_text",)}
_ITEM_KEYS = {"id", "object", "type", "status"}


@dataclass(eq=False, slots=True)
class Part:
    """One stretch of the agent's speech: a content part of an item. `sent_ms` has been sent, `cut_ms` is where it was truncated."""

    text: str
    starts: list[tuple[str, int]] = field(default_factory=list)
    """Each word and the millisecond at which it begins."""
    sent_ms: float = 0.0
    cut_ms: int | None = None

    @property
    def length_ms(self) -> int:
        """How much of it there is for the conversation."""
        return int(self.sent_ms) if self.cut_ms is None else self.cut_ms

    @property
    def words(self) -> str:
        """The words that there is sound of."""
        return " ".join(word for word, at in self.starts if at < self.length_ms)


@dataclass(eq=False, slots=True)
class Item:
    """One item. `wire` is what the client is shown; `heard` is what the caller said in it, `speech` what the agent said."""

    wire: dict[str, Any]
    heard: str | None = None
    heard_ms: int = 0
    speech: Part | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.wire["id"])

    def shown(self) -> dict[str, Any]:
        """A copy for an event."""
        return copy.deepcopy(self.wire)

    def lines(self) -> Iterator[Line]:
        """What it says to the brain."""
        match self.wire:
            case {"type": "message", "role": "user"}:
                yield Heard(self.heard if self.heard is not None else _text(self.wire))
            case {"type": "message", "role": "system"}:
                yield Told(_text(self.wire))
            case {"type": "message", "role": "assistant"}:
                if self.speech is not None:
                    yield Said(self.speech.text, was_cut=self.speech.words != " ".join(self.speech.text.split()))
                else:
                    text = _text(self.wire)
                    yield Said(text.replace("[interrupted by caller]", "").strip(), was_cut="[interrupted by caller]" in text)
            case {"type": "function_call", "status": "completed"}:
                yield Called(self.wire["call_id"], self.wire["name"], _arguments(self.wire["arguments"]))
            case {"type": "function_call_output"}:
                yield Answered(self.wire["call_id"], self.wire["output"])

    def tokens(self) -> tuple[int, int]:
        """(text, audio) tokens as input: a token of text is four characters, one of caller audio 100 ms, of agent audio 50 ms."""
        if self.heard is not None:
            return 0, -(-self.heard_ms // 100)
        if self.speech is not None:
            return -(-len(self.speech.words) // 4), -(-self.speech.length_ms // 50)
        text = _text(self.wire) + str(self.wire.get("arguments", "")) + str(self.wire.get("output", ""))
        return -(-len(text) // 4), 0


def _text(wire: Mapping[str, Any]) -> str:
    return " ".join(str(part.get("text") or part.get("transcript") or "") for part in wire.get("content", ())).strip()


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


class Conversation:
    """The items, in order."""

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.items: list[Item] = []

    def __contains__(self, item_id: str) -> bool:
        return any(item.id == item_id for item in self.items)

    def find(self, item_id: Any, param: str = "item_id") -> Item:
        """An item by its id. Raises Refused."""
        for item in self.items:
            if item.id == item_id:
                return item
        raise Refused("invalid_value", f"Item with {param} not found: {item_id}.", param)

    def add(self, item: Item, *, previous: str | None = None) -> str | None:
        """Put it at the end, or behind another (`root`: at the beginning). The id of the one before it, None if there is none."""
        at = len(self.items)
        if previous == "root":
            at = 0
        elif previous is not None:
            at = self.items.index(self.find(previous, "previous_item_id")) + 1
        self.items.insert(at, item)
        return self.before(item)

    def before(self, item: Item) -> str | None:
        """The id of the item before this one."""
        at = self.items.index(item)
        return self.items[at - 1].id if at else None

    def remove(self, item: Item) -> None:
        """Take it out."""
        self.items.remove(item)

    def lines(self) -> list[Line]:
        """The whole of it, for the brain."""
        return [line for item in self.items for line in item.lines()]

    def tokens(self) -> tuple[int, int]:
        """(text, audio) tokens of all items."""
        counts = [item.tokens() for item in self.items]
        return sum(text for text, _ in counts), sum(audio for _, audio in counts)

    def has_call(self, call_id: str) -> bool:
        """Whether there is a function call of this id."""
        return any(item.wire["type"] == "function_call" and item.wire["call_id"] == call_id for item in self.items)

    def truncate(self, item_id: Any, content_index: Any, end_ms: Any) -> None:
        """Cut what was not heard of the agent's audio. Raises Refused, with the texts that public clients have met."""
        if isinstance(end_ms, bool) or not isinstance(end_ms, int) or end_ms < 0:
            raise Refused("invalid_value", "Invalid value for 'audio_end_ms': expected an integer of at least 0.", "audio_end_ms")
        item = self.find(item_id)
        if item.speech is None or item.speech.sent_ms <= 0:
            raise Refused("unsupported_content_type", "Only model output audio messages can be truncated.", "item_id")
        if content_index != 0:
            raise Refused("invalid_value", f"Content index {content_index} does not exist.", "content_index")
        if end_ms > item.speech.length_ms:
            message = f"Audio content of {item.speech.length_ms} ms is already shorter than {end_ms} ms"
            raise Refused("invalid_value", message, "audio_end_ms")
        item.speech.cut_ms = end_ms
        # The text of what was cut is gone, so the model cannot believe that it was heard.
        item.wire["content"] = [{"type": "output_audio"}]

    def made(self, item: Any, new_id: str) -> Item:
        """An item of the client's, checked (rule 1). Raises Refused."""
        if not isinstance(item, dict):
            raise Refused("missing_required_parameter", "Missing required parameter: 'item'.", "item")
        for name in ("id", "call_id"):
            if isinstance(item.get(name), str) and len(item[name]) > LONGEST_ID:
                raise Refused(
                    "string_above_max_length",
                    f"Invalid 'item.{name}': string too long. Expected a string with maximum length {LONGEST_ID}, "
                    f"but got a string with length {len(item[name])} instead.",
                    f"item.{name}",
                )
        if isinstance(item.get("id"), str) and item["id"] in self:
            raise Refused("invalid_value", f"Item with id {item['id']} already exists.", "item.id")
        wire: dict[str, Any] = {
            "id": item.get("id") or new_id,
            "object": "realtime.item",
            "type": item.get("type"),
            "status": "completed",
        }
        match item.get("type"):
            case "message":
                _only(item, "role", "content", "phase")
                wire |= {"role": item.get("role"), "content": _content(item)}
            case "function_call":
                _only(item, "name", "arguments", "call_id")
                wire |= {name: _required(item, name) for name in ("name", "arguments")}
                wire["call_id"] = item.get("call_id") or new_id.replace("item", "call")
            case "function_call_output":
                _only(item, "call_id", "output")
                wire |= {name: _required(item, name) for name in ("call_id", "output")}
                if not self.has_call(wire["call_id"]):
                    message = f"Tool call ID '{wire['call_id']}' not found in conversation."
                    raise Refused("invalid_tool_call_id", message, "item.call_id")
            case other:
                raise Refused("invalid_value", f"Invalid value for 'item.type': {other!r}.", "item.type")
        return Item(wire)


def _only(item: Mapping[str, Any], *names: str) -> None:
    for name in item:
        if name not in _ITEM_KEYS and name not in names:
            raise Refused("unknown_parameter", f"Unknown parameter: 'item.{name}'.", f"item.{name}")


def _required(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise Refused("missing_required_parameter", f"Missing required parameter: 'item.{name}'.", f"item.{name}")
    return value


def _content(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    role, content = item.get("role"), item.get("content")
    if role not in _PARTS:
        raise Refused("invalid_value", f"Invalid value for 'item.role': {role!r}.", "item.role")
    if not isinstance(content, list) or not content:
        raise Refused("missing_required_parameter", "Missing required parameter: 'item.content'.", "item.content")
    for number, part in enumerate(content):
        place = f"item.content[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if role == "assistant" and kind == "output_audio":
            raise Refused("missing_required_parameter", f"Missing required parameter: '{place}.text'.", f"{place}.text")
        if kind not in _PARTS[role]:
            raise Refused(
                "invalid_value", f"Invalid value: {kind!r}. Supported values are: {', '.join(_PARTS[role])}.", f"{place}.type"
            )
        needed = {"input_audio": "audio", "input_image": "image_url"}.get(str(kind), "text")
        if not isinstance(part.get(needed), str):
            raise Refused("missing_required_parameter", f"Missing required parameter: '{place}.{needed}'.", f"{place}.{needed}")
    return copy.deepcopy(content)


def words_before(starts: list[tuple[str, int]], ms: float) -> int:
    """How many words have begun by then."""
    return bisect_right([at for _, at in starts], ms)
