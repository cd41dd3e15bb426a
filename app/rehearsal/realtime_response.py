"""One response on its way out: its events in the server's order, paced faster than they play.

Rule 1: a response is a generator of waits (seconds). Whoever runs it keeps the clock, and may stop it between two of them.
Rule 2: however it ends, everything that was begun gets its `.done`, and `response.done` is the last.
"""

import base64
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from app.rehearsal import ulaw
from app.rehearsal.brain import Act, Call, Say
from app.rehearsal.realtime_config import FORMATS, VOICES
from app.rehearsal.realtime_faults import Misbehaviour
from app.rehearsal.realtime_items import Conversation, Item, Part, words_before
from app.rehearsal.voice import WORDS_PER_MINUTE, say_with_words

THINKING_S = 0.06
DELTA_MS = (100, 200)
TRAILING_MS = 80
"""A breath of silence after each message, as real voices have."""

RATE_LIMITED = {
    "type": "tokens",
    "code": "rate_limit_exceeded",
    "message": "Rate limit reached for gpt-realtime on tokens per min (TPM): Limit 40000, Used 39669, Requested 800. "
    "Please try again in 1.2s.",
}


class Response:
    """`conversation` is None for one that stays outside of it. `emit` sends an event, `new_id` makes an id of a kind."""

    def __init__(
        self,
        number: int,
        settings: dict[str, Any],
        acts: Sequence[Act],
        *,
        conversation: Conversation | None,
        emit: Callable[[dict[str, Any]], None],
        new_id: Callable[[str], str],
        misbehaviour: Misbehaviour,
        dice: random.Random,
        speed: float,
        input_tokens: tuple[int, int],
        cached_tokens: tuple[int, int],
    ) -> None:
        self.id = new_id("resp")
        self.status = "in_progress"
        self.output: list[Item] = []
        self.audio_ms = 0.0
        """How much audio has been sent."""
        self._number, self._settings, self._acts = number, settings, acts
        self._conversation, self._emit, self._new_id = conversation, emit, new_id
        self._misbehaviour, self._dice = misbehaviour, dice
        self._speed = misbehaviour.speed or speed
        self._input, self._cached = input_tokens, cached_tokens
        self._text_tokens = 0
        self._open: tuple[Item, int] | None = None
        """The item that was begun and not ended, and its index."""
        self._arguments = ""
        self._rest = b""
        """Sound of the open item that was not sent."""
        self._details: dict[str, Any] | None = None

    # ---- its course

    def run(self) -> Iterator[float]:
        """Send everything; yields how long to wait before going on (rule 1)."""
        self._send("response.created", response=self._shown())
        limit = {"name": "tokens", "limit": 800_000, "remaining": 800_000 - sum(self._input), "reset_seconds": 0.4}
        self._emit({"type": "rate_limits.updated", "rate_limits": [limit]})
        while self._number in self._misbehaviour.silent:
            yield 60.0
        yield THINKING_S
        if self._number in self._misbehaviour.fail:
            self.finish("failed", {"type": "failed", "error": RATE_LIMITED})
            return
        calls = any(isinstance(act, Call) for act in self._acts)
        for act in self._acts:
            if isinstance(act, Call):
                yield from self._call(act)
            else:
                parts = self._parts(act.text)
                for number, text in enumerate(parts, start=1):
                    yield from self._say(Say(text), "commentary" if calls or number < len(parts) else "final_answer")
            if self.status != "in_progress":
                return
        self.finish("completed")

    def finish(self, status: str, details: dict[str, Any] | None = None) -> None:
        """The end, in whatever way (rule 2). Once."""
        if self.status != "in_progress":
            return
        if self._open is not None:
            self._close("completed" if status == "completed" else "incomplete")
        self.status, self._details = status, details
        self._send("response.done", response=self._shown())

    def late_delta(self) -> None:
        """One more delta of what was being said, although it is over. Nothing if there is nothing left."""
        if self._rest and self.output and self.output[-1].speech is not None:
            item = self.output[-1]
            self._send_audio(item, len(self.output) - 1, self._take(DELTA_MS[0]))

    @property
    def is_over(self) -> bool:
        """It has been `response.done`."""
        return self.status != "in_progress"

    @property
    def in_conversation(self) -> bool:
        """It writes to the default conversation."""
        return self._conversation is not None

    # ---- a message

    def _parts(self, text: str) -> list[str]:
        first, stop, rest = text.partition(". ")
        if self._number in self._misbehaviour.two_messages and rest:
            return [first + stop.strip(), rest]
        return [text]

    def _say(self, act: Say, phase: str) -> Iterator[float]:
        item = Item({"id": self._new_id("item"), "object": "realtime.item", "type": "message", "status": "in_progress",
                     "role": "assistant", "phase": phase, "content": []})  # fmt: skip
        if self._settings["output_modalities"] == ["text"]:
            yield from self._write(item, act.text)
            return
        output = self._settings["audio"]["output"]
        kind = output["format"]["type"]
        rate = 8_000 if kind == "audio/pcmu" else 24_000
        voice = output["voice"] if output["voice"] in VOICES else "alloy"
        pace = round(WORDS_PER_MINUTE * output.get("speed", 1.0))
        samples, starts = say_with_words(act.text, voice=voice, rate=rate, words_per_minute=pace)
        samples = np.concatenate([samples, np.zeros(rate * TRAILING_MS // 1_000, np.int16)])
        if self._number in self._misbehaviour.hush:
            samples = np.zeros_like(samples)
        self._rest = ulaw.to_ulaw(samples) if kind == "audio/pcmu" else samples.astype("<i2").tobytes()
        item.speech = Part(act.text, starts)
        index = self._begin(item)
        self._part_event("response.content_part.added", item, index, part={"type": "audio", "transcript": ""})
        sent = 0
        while self._rest:
            sound = self._take(self._dice.randint(*DELTA_MS))
            until = words_before(starts, item.speech.sent_ms + len(sound) / self._bytes_per_ms)
            if until > sent:
                words = " ".join(word for word, _ in starts[sent:until])
                self._part_event("response.output_audio_transcript.delta", item, index, delta=f" {words}" if sent else words)
                sent = until
            self._send_audio(item, index, sound)
            if self._is_cut_short(item):
                self.finish("incomplete", {"type": "incomplete", "reason": "max_output_tokens"})
                return
            yield len(sound) / self._bytes_per_ms / 1_000 / self._speed
        self._close("completed")

    def _write(self, item: Item, text: str) -> Iterator[float]:
        index = self._begin(item)
        self._part_event("response.content_part.added", item, index, part={"type": "text", "text": ""})
        words = text.split(" ")
        for at, word in enumerate(words):
            self._part_event("response.output_text.delta", item, index, delta=word if at == 0 else f" {word}")
            item.wire["content"] = [{"type": "output_text", "text": " ".join(words[: at + 1])}]
            yield 0.0
        self._close("completed")

    def _take(self, ms: int) -> bytes:
        size = ms * self._bytes_per_ms
        sound, self._rest = self._rest[:size], self._rest[size:]
        return sound

    def _send_audio(self, item: Item, index: int, sound: bytes) -> None:
        assert item.speech is not None
        ms = len(sound) / self._bytes_per_ms
        item.speech.sent_ms += ms
        self.audio_ms += ms
        self._part_event("response.output_audio.delta", item, index, delta=base64.b64encode(sound).decode())

    def _is_cut_short(self, item: Item) -> bool:
        limit = self._settings["max_output_tokens"]
        if limit != "inf" and self._output_tokens()[1] > limit:
            return True
        return self._number in self._misbehaviour.incomplete and item.speech is not None and item.speech.sent_ms > 600

    @property
    def _bytes_per_ms(self) -> int:
        return FORMATS[self._settings["audio"]["output"]["format"]["type"]]

    # ---- a function call

    def _call(self, act: Call) -> Iterator[float]:
        arguments = json.dumps(dict(act.arguments))
        if self._number in self._misbehaviour.broken_arguments:
            arguments = arguments[:-1] + ', "'
        item = Item({"id": self._new_id("item"), "object": "realtime.item", "type": "function_call", "status": "in_progress",
                     "name": act.name, "call_id": self._new_id("call"), "arguments": ""})  # fmt: skip
        index = self._begin(item)
        self._arguments = ""
        call = {"item_id": item.id, "output_index": index, "call_id": item.wire["call_id"]}
        for at in range(0, len(arguments), 24):
            self._arguments += arguments[at : at + 24]
            self._send("response.function_call_arguments.delta", delta=arguments[at : at + 24], response_id=self.id, **call)
            yield 0.002
        self._close("completed")

    # ---- items

    def _begin(self, item: Item) -> int:
        self.output.append(item)
        index = len(self.output) - 1
        self._open = item, index
        self._send("response.output_item.added", response_id=self.id, output_index=index, item=item.shown())
        if self._conversation is not None:
            previous = self._conversation.add(item)
            self._send("conversation.item.added", previous_item_id=previous, item=item.shown())
        return index

    def _close(self, status: str) -> None:
        """The `.done` of everything that the open item has begun."""
        assert self._open is not None
        item, index = self._open
        self._open = None
        item.wire["status"] = status
        if item.wire["type"] == "function_call":
            item.wire["arguments"] = self._arguments
            self._text_tokens += -(-len(self._arguments) // 4)
            call = {"item_id": item.id, "output_index": index, "call_id": item.wire["call_id"], "name": item.wire["name"]}
            self._send("response.function_call_arguments.done", response_id=self.id, arguments=self._arguments, **call)
        elif item.speech is not None:
            words = item.speech.text if status == "completed" else item.speech.words
            self._text_tokens += -(-len(words) // 4)
            item.wire["content"] = [{"type": "output_audio", "transcript": words}]
            self._part_event("response.output_audio.done", item, index)
            self._part_event("response.output_audio_transcript.done", item, index, transcript=words)
            self._part_event("response.content_part.done", item, index, part={"type": "audio", "transcript": words})
        else:
            text = item.wire["content"][0]["text"] if item.wire["content"] else ""
            self._text_tokens += -(-len(text) // 4)
            self._part_event("response.output_text.done", item, index, text=text)
            self._part_event("response.content_part.done", item, index, part={"type": "text", "text": text})
        self._send("response.output_item.done", response_id=self.id, output_index=index, item=item.shown())
        if self._conversation is not None and item.id in self._conversation:
            self._send("conversation.item.done", previous_item_id=self._conversation.before(item), item=item.shown())

    # ---- events

    def _send(self, kind: str, **content: Any) -> None:
        self._emit({"type": kind, **content})

    def _part_event(self, kind: str, item: Item, index: int, **content: Any) -> None:
        self._send(kind, response_id=self.id, item_id=item.id, output_index=index, content_index=0, **content)

    def _output_tokens(self) -> tuple[int, int]:
        return self._text_tokens, -(-int(self.audio_ms) // 50)

    def _shown(self) -> dict[str, Any]:
        over = self.is_over
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": self._details,
            "output": [item.shown() for item in self.output],
            "conversation_id": self._conversation.id if self._conversation is not None else None,
            "output_modalities": self._settings["output_modalities"],
            "max_output_tokens": self._settings["max_output_tokens"],
            "audio": {"output": {name: self._settings["audio"]["output"][name] for name in ("format", "voice")}},
            "usage": self._usage() if over and self.status != "failed" else None,
            "metadata": self._settings["metadata"],
        }

    def _usage(self) -> dict[str, Any]:
        text, audio = self._output_tokens()
        return {
            "total_tokens": sum(self._input) + text + audio,
            "input_tokens": sum(self._input),
            "output_tokens": text + audio,
            "input_token_details": {
                "text_tokens": self._input[0],
                "audio_tokens": self._input[1],
                "image_tokens": 0,
                "cached_tokens": sum(self._cached),
                "cached_tokens_details": {"text_tokens": self._cached[0], "audio_tokens": self._cached[1], "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": text, "audio_tokens": audio},
        }
