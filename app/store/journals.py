"""The journals of calls, a piece at a time: for who reads one, and to be played through the machine again.

Rule 1: a journal may be long, and the loop that reads it carries calls: it is never read in one piece.
Rule 2: a replay changes nothing, neither here nor anywhere.
A journal written by an older version of the code may differ where the rules have changed since; a replay says where.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from app.call.journal import OPENED, Difference, Line, replay
from app.errors import CallrowError
from app.store.engine import Database
from app.store.tables import call_events

__all__ = ["FIRST", "Journals", "NotReplayable", "Place", "Replayed", "Stream", "compare", "streams"]

type Place = tuple[int, int]
"""Epoch and number of a line."""
FIRST: Place = (0, 0)
"""Before every line."""
AT_ONCE = 500


class NotReplayable(CallrowError):
    """A journal that cannot be played: it has no beginning, or an event that this version does not know."""

    def __init__(self, epoch: int, reason: str) -> None:
        self.epoch, self.reason = epoch, reason
        super().__init__(epoch, reason)

    def __str__(self) -> str:
        return f"stream {self.epoch} cannot be replayed: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of a call, as its journal shows it."""

    epoch: int
    lines: int
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of playing one stream again."""

    epoch: int
    lines: int
    from_ms: int
    until_ms: int
    differences: tuple[Difference, ...] = ()
    """Every line whose orders differ, in order."""
    at_ms: int | None = None
    """When the first of them was."""
    fault: NotReplayable | None = None
    """It could not be played at all."""

    @property
    def same(self) -> bool:
        """The machine orders today what it ordered then."""
        return not self.differences and self.fault is None


class Journals:
    """The journals of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def streams(self, call_id: str) -> list[Stream]:
        """The streams that have a journal, in order."""
        which = sa.select(
            call_events.c.epoch, sa.func.count(), sa.func.min(call_events.c.at_ms), sa.func.max(call_events.c.at_ms)
        ).where(call_events.c.call_id == call_id)
        async with self._database.read("look for the streams of a journal") as connection:
            rows = await connection.execute(which.group_by(call_events.c.epoch).order_by(call_events.c.epoch))
            return [Stream(epoch=epoch, lines=lines, from_ms=first, until_ms=last) for epoch, lines, first, last in rows]

    async def opened(self, call_id: str) -> dict[int, int]:
        """When each stream was opened, in milliseconds since the call's birth, by its epoch."""
        first = (call_events.c.call_id == call_id, call_events.c.seq == 1, call_events.c.name == OPENED)
        async with self._database.read("look for the streams of a call") as connection:
            rows = await connection.execute(sa.select(call_events.c.epoch, call_events.c.at_ms).where(*first))
            return {epoch: at_ms for epoch, at_ms in rows}

    async def page(self, call_id: str, after: Place = FIRST, limit: int = 200) -> list[dict[str, Any]]:
        """Lines behind a place, as `Calls.events` gives them."""
        return [_event(row) for row in await self._rows(call_id, after, limit)]

    async def before(self, call_id: str, place: Place, limit: int = 200) -> Place:
        """Behind which line a page begins that ends right before this one."""
        keys = (call_events.c.epoch, call_events.c.seq)
        earlier = (
            sa.select(*keys)
            .where(call_events.c.call_id == call_id, _key() < _as_key(place))
            .order_by(*(key.desc() for key in keys))
            .offset(limit)
            .limit(1)
        )
        async with self._database.read("look for a page of a journal") as connection:
            found = (await connection.execute(earlier)).one_or_none()
        return FIRST if found is None else (found.epoch, found.seq)

    async def lines(self, call_id: str) -> AsyncIterator[tuple[int, Line]]:
        """All lines in order, each with its epoch (rule 1)."""
        place = FIRST
        while rows := await self._rows(call_id, place, AT_ONCE):
            for row in rows:
                yield row["epoch"], _line(_event(row))
            place = rows[-1]["epoch"], rows[-1]["seq"]

    async def replayed(self, call_id: str) -> list[Replayed]:
        """Play every stream of a call again, in a thread; nothing if the call has no journal."""
        by_epoch: dict[int, list[Line]] = {}
        async for epoch, line in self.lines(call_id):
            by_epoch.setdefault(epoch, []).append(line)
        return [await asyncio.to_thread(_replayed, epoch, lines) for epoch, lines in by_epoch.items()]

    async def _rows(self, call_id: str, after: Place, limit: int) -> list[sa.RowMapping]:
        query = (
            sa.select(call_events)
            .where(call_events.c.call_id == call_id, _key() > _as_key(after))
            .order_by(call_events.c.epoch, call_events.c.seq)
            .limit(limit)
        )
        async with self._database.read("read the journal") as connection:
            return list((await connection.execute(query)).mappings())


def streams(events: list[dict[str, Any]]) -> dict[int, list[Line]]:
    """The journal's lines by stream, of what `Calls.events` gives; each stream has its own beginning."""
    return {epoch: [_line(event) for event in group] for epoch, group in groupby(events, key=lambda event: int(event["epoch"]))}


def compare(epoch: int, lines: list[Line]) -> list[Difference]:
    """Every line whose orders differ. Raises `NotReplayable`."""
    try:
        return list(replay(lines))
    except ValueError as fault:
        raise NotReplayable(epoch, str(fault)) from None
    except (AttributeError, KeyError, TypeError):
        raise NotReplayable(epoch, "a line does not have the shape that this version reads") from None


def _replayed(epoch: int, lines: list[Line]) -> Replayed:
    differences: list[Difference] = []
    fault = None
    try:
        differences = compare(epoch, lines)
    except NotReplayable as found:
        fault = found
    times = {line.seq: line.at for line in lines}
    return Replayed(
        epoch=epoch,
        lines=len(lines),
        from_ms=lines[0].at,
        until_ms=lines[-1].at,
        differences=tuple(differences),
        at_ms=times[differences[0].seq] if differences else None,
        fault=fault,
    )


def _event(row: sa.RowMapping) -> dict[str, Any]:
    event = {name: row[name] for name in ("epoch", "seq", "name", "data", "private", "commands")}
    return event | {"at": row["at_ms"]}


def _line(event: dict[str, Any]) -> Line:
    return Line(event["seq"], event["at"], event["name"], event["data"] or {}, event["private"], event["commands"] or "")


def _key() -> sa.ColumnElement[Any]:
    return sa.tuple_(call_events.c.epoch, call_events.c.seq)


def _as_key(place: Place) -> sa.ColumnElement[Any]:
    return sa.tuple_(*(sa.bindparam(None, number, type_=sa.Integer) for number in place))
