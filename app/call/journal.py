"""Event to line, line to event, replay. The journal is a microscope: any call can be watched again, order by order.

Rule 1: a line holds one event, when it was seen, and a digest of the commands that the call gave for it.
Rule 2: the first line of a stream, `opened`, holds what the call was built from.
Rule 3: what is private is kept in a part of its own. Payloads of audio are never kept.
Rule 4: of a run of marks that ordered nothing, only the last is kept; replaying it alone leaves the call in the same state.
Replay needs the code that wrote the line: a journal of an older version may differ, and replay then says where.
"""

import dataclasses
import enum
import types
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.call.commands import Command, PlayAudio, SendMark
from app.call.disposition import Memory
from app.call.events import EVENTS, AgentAudio, AgentSilence, AgentWords, Event, MarkReturned
from app.call.machine import Call
from app.call.talk import House

OPENED = "opened"


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `at` in ms since the call's birth; `commands` is the digest, empty when nothing was ordered."""

    seq: int
    at: int
    name: str
    data: dict[str, Any]
    private: dict[str, Any] | None
    commands: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A line whose replay gave other commands than were recorded."""

    seq: int
    name: str
    recorded: str
    replayed: str


_OPEN = {cls: tuple(f.name for f in dataclasses.fields(cls) if f.compare and not f.metadata.get("private")) for cls in EVENTS}
_FLAT = (AgentAudio, AgentSilence, AgentWords)
"""The most frequent events, whose fields are plain as they are."""
_PRIVATE = {cls: tuple(f.name for f in dataclasses.fields(cls) if f.metadata.get("private")) for cls in EVENTS}
_BY_NAME = {cls.__name__: cls for cls in EVENTS}


class Recorder:
    """Turns what a call sees into lines, folding runs of marks (rule 4). `keep` takes the finished lines."""

    __slots__ = ("_held", "_keep", "_seq")

    def __init__(self, keep: typing.Callable[[Line], None]) -> None:
        self._keep = keep
        self._seq = 0
        self._held: tuple[MarkReturned, int] | None = None

    def opened(self, call: Call, *, at: int) -> None:
        """The stream's first line."""
        setup = {"house": plain(call.house), "resumed": call.resumed}
        self._keep(Line(self._next(), at, OPENED, setup, {"memory": plain(call.memory)}, ""))

    def saw(self, event: Event, commands: list[Command], *, at: int) -> None:
        """The call was given an event and ordered these commands."""
        if type(event) is MarkReturned and not commands:
            self._held = (event, at)
            return
        self.flush()
        self._line(event, commands, at)

    def flush(self) -> None:
        """Keep the mark that ends a run."""
        if self._held is not None:
            (mark, at), self._held = self._held, None
            self._line(mark, [], at)

    def _line(self, event: Event, commands: list[Command], at: int) -> None:
        cls = type(event)
        data = {name: getattr(event, name) for name in _OPEN[cls]}
        if cls not in _FLAT:
            data = {name: plain(value) for name, value in data.items()}
        private = {name: getattr(event, name) for name in _PRIVATE[cls]} or None
        self._keep(Line(self._next(), at, cls.__name__, data, private, digest(commands)))

    def _next(self) -> int:
        self._seq += 1
        return self._seq


def digest(commands: list[Command]) -> str:
    """A short fingerprint of what was ordered: eight hexadecimal digits, or nothing for no order."""
    if not commands:
        return ""
    return f"{zlib.crc32('|'.join([_fingerprint(command) for command in commands]).encode()):08x}"


def _fingerprint(command: Command) -> str:
    if type(command) is SendMark:
        return command.mark
    if type(command) is PlayAudio:
        return str(command.size)
    return f"{type(command).__name__}{plain(command, compared_only=True)}"


def replay(lines: Iterable[Line]) -> Iterator[Difference]:
    """Play a stream's journal through a new machine; yields every line whose commands differ.

    Raises:
        ValueError: the journal does not begin with `opened`, or names an event that this version does not know.
    """
    call: Call | None = None
    for line in lines:
        if line.name == OPENED:
            house = build(House, line.data["house"])
            call = Call(house, build(Memory, (line.private or {})["memory"]), resumed=line.data["resumed"])
            continue
        if call is None:
            raise ValueError("the journal does not begin with its opening line")
        if line.name not in _BY_NAME:
            raise ValueError(f"the journal names an event that this version does not know: {line.name}")
        event = build(_BY_NAME[line.name], {**line.data, **(line.private or {})})
        replayed = digest(call.handle(event, at=line.at))
        if replayed != line.commands:
            yield Difference(line.seq, line.name, line.commands, replayed)


def plain(value: Any, *, compared_only: bool = False) -> Any:
    """A value as JSON can hold it. An agent's instructions are left out: they are the model's, and order nothing here."""
    if value is None or isinstance(value, str | int | float):
        return value.value if isinstance(value, enum.Enum) else value
    if dataclasses.is_dataclass(value):
        return {
            f.name: plain(getattr(value, f.name), compared_only=compared_only)
            for f in dataclasses.fields(value)
            if f.name != "instructions" and (f.compare or not compared_only)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item, compared_only=compared_only) for key, item in value.items()}
    return [plain(item, compared_only=compared_only) for item in value]


def build(kind: Any, data: Any) -> Any:
    """The inverse of `plain`, guided by type hints."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if data is None or kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return build(next(arg for arg in args if arg is not type(None)), data)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {f.name: build(hints[f.name], data[f.name]) for f in dataclasses.fields(kind) if f.name in data}
        if "instructions" in hints:
            known.setdefault("instructions", "")
        return kind(**known)  # type: ignore[operator]
    if origin is tuple:
        return tuple(build(args[0], item) for item in data)
    if origin is not None and issubclass(origin, Mapping):
        return {key: build(args[1], item) for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(data)
    return data
