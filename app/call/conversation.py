"""What has been said and done in a stream, in order, as another session with the model is to be told it.

Rule 1: what the caller did not hear was not said. What is queued for them counts as heard: they will have heard it by the time it
matters, and if they interrupt it, the model is told so.
Rule 2: the house's own lines are no part of it, nor are words that were never written down.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.call.transcript import Transcript

PRIVATE = {"private": True}


@dataclass(frozen=True, slots=True)
class Said:
    """Words: the agent's as far as they were heard, or the caller's. `interrupted`: the caller cut them off."""

    by_caller: bool
    text: str = field(metadata=PRIVATE, repr=False)
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """A tool call, with its result if that is there already."""

    tool_call: str
    name: str
    arguments: str = field(metadata=PRIVATE, repr=False)
    result: str | None = field(metadata=PRIVATE, repr=False)


type Remembered = Said | Used


@dataclass(slots=True)
class _Typed:
    text: str


class Conversation:
    """The order of things. Words are the transcript's; tools and keys are kept here."""

    __slots__ = ("_order", "_transcript", "_used")

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._order: dict[str, _Typed | None] = {}
        self._used: dict[str, Used] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._order

    def speech(self, utterance: str) -> None:
        """An utterance, the first time it is heard of."""
        self._order.setdefault(utterance)

    def typed(self, name: str, text: str) -> None:
        """What the caller typed, as the model was told it."""
        self._order[name] = _Typed(text)

    def used(self, tool_call: str, name: str, arguments: str) -> None:
        """A tool was called."""
        self._order.setdefault(tool_call)
        self._used[tool_call] = Used(tool_call, name, arguments, None)

    def answered(self, tool_call: str, result: str) -> None:
        """A tool call was answered."""
        if (used := self._used.get(tool_call)) is not None:
            self._used[tool_call] = Used(tool_call, used.name, used.arguments, result)

    def result_of(self, tool_call: str) -> str | None:
        """What a tool call was answered with."""
        used = self._used.get(tool_call)
        return used.result if used is not None else None

    def all(self) -> Iterator[Remembered]:
        """Everything, in order."""
        for key, entry in self._order.items():
            if key in self._used:
                yield self._used[key]
            elif entry is not None:
                yield Said(by_caller=True, text=entry.text)
            elif (said := self._transcript.said(key)) is not None:
                by_caller, text, interrupted = said
                yield Said(by_caller, text, interrupted)
