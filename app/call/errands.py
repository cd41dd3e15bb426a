"""Tool calls out and back: which are out, which have been seen, and whether the model is owed an answer.

Rule 1: a tool call is acted on once, however often it is announced.
Rule 2: every tool call is answered, also when it was refused, failed or came late.
Rule 3: several calls of one response are answered one by one and spoken about once, when the last is back.
Rule 4: a model in a new session that calls again, for the same turn of the caller, what was called in the session before, is given
the answer of the first call. Nothing is done twice because a session was lost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrandContext:
    """What an errand may know of the call it runs for: the server's state, never the model's word."""

    call_id: str
    epoch: int
    agent: str
    caller_number: str | None = field(repr=False)
    slots: Mapping[str, str] = field(repr=False)


class Errands:
    """The tool calls of one stream."""

    __slots__ = ("_asked", "_out", "_seen", "_twins")

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._out: set[str] = set()
        self._asked: dict[tuple[str, str, int], tuple[str, int]] = {}
        self._twins: dict[str, list[str]] = {}

    @property
    def out(self) -> int:
        """How many errands are not back yet."""
        return len(self._out)

    def is_new(self, tool_call: str) -> bool:
        """The call was not announced before (rule 1); from now on it was."""
        if tool_call in self._seen:
            return False
        self._seen.add(tool_call)
        return True

    def sent(self, tool_call: str) -> None:
        """The errand has left."""
        self._out.add(tool_call)

    def twin(self, tool_call: str, name: str, arguments: str, *, turn: int, session: int) -> str | None:
        """The call of an earlier session that this one repeats (rule 4); else this one is remembered."""
        told = read_arguments(arguments)
        key = (name, arguments if told is None else json.dumps(told, sort_keys=True), turn)
        first, asked_in = self._asked.setdefault(key, (tool_call, session))
        if asked_in == session:
            return None
        if first in self._out:
            self._twins.setdefault(first, []).append(tool_call)
        return first

    def twins(self, tool_call: str) -> list[str]:
        """The calls that wait for the same answer."""
        return self._twins.pop(tool_call, [])

    def back(self, tool_call: str) -> bool:
        """The errand is back; False for one that is not out."""
        if tool_call not in self._out:
            return False
        self._out.discard(tool_call)
        return True


def read_arguments(text: str) -> dict[str, Any] | None:
    """The arguments as an object; None if they are not one."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def error(sentence: str) -> str:
    """A refusal as the model is told it."""
    return json.dumps({"error": sentence})
