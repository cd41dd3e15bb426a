"""The calls in progress and those that have just ended, as they change: looked up once a second for everybody who looks on.

Rule 1: one look a second in a process, however many look on, and none while nobody does.
Rule 2: who looks on is told of what changed since they were last told, once, however slow they are.
Rule 3: there is a limit to how many look on; it ends for all of them when the worker drains.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app import logs
from app.errors import StoreUnavailable
from app.store.filters import Filters
from app.store.listing import Listing
from app.store.tables import RowState
from app.web.console.stream import QUIET, QUIET_S, event

log = logs.logger("console")

EVERY_S = 1.0
MOST_LISTENERS = 200
MOST_OF_ONE = 8
"""Tabs of one session."""
MOST_LIVE = 60
"""Calls in progress that stand on top; for more there is the live wall."""
FRESH = timedelta(seconds=90)
"""So long after its end a call is still looked at: its reading changes it."""
AGAIN_MS, LATER_MS = 1_000, 15_000

type Row = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Listener:
    """Somebody who looks on. `changed` is what they have not been told of yet, by call, the oldest change first."""

    session_id: str
    changed: dict[str, Row] = field(default_factory=dict)
    told: bool = False
    """Of what there is: the first time that may be nothing."""
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """The feed of one process.

    Args:
        draining: whether this worker is to end.
        every_s: how often is looked.
    """

    def __init__(
        self,
        listing: Listing,
        *,
        clock: Callable[[], datetime],
        draining: Callable[[], bool],
        every_s: float,
        most: int = MOST_LISTENERS,
    ) -> None:
        self._listing, self._clock, self._draining = listing, clock, draining
        self._every_s, self._most = every_s, most
        self._listeners: set[Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        self._rows: dict[str, Row] = {}
        """As they were last seen: those in progress and those that ended within `FRESH`, the oldest first."""
        self._ended: dict[str, datetime] = {}
        """When was first seen that a call of `_rows` had ended."""
        self._looked_at: datetime | None = None
        self.away = False
        """The database could not be asked, the last time."""
        self.looks = 0

    @property
    def listeners(self) -> int:
        """How many look on."""
        return len(self._listeners)

    def listen(self, session_id: str) -> Listener | None:
        """Look on; None if too many do, or the worker drains. Whoever looks on calls `leave` in the end."""
        mine = sum(listener.session_id == session_id for listener in self._listeners)
        if self._draining() or len(self._listeners) >= self._most or mine >= MOST_OF_ONE:
            return None
        listener = Listener(session_id)
        self._listeners.add(listener)
        if self._looking is None or self._looking.done():
            self._rows, self._ended, self._looked_at = {}, {}, None
            self._looking = asyncio.create_task(self._look())
        elif self._looked_at is not None:
            listener.changed |= self._rows
            listener.news.set()
        return listener

    def leave(self, listener: Listener) -> None:
        """Look on no more."""
        self._listeners.discard(listener)

    async def pieces(
        self, listener: Listener, write: Callable[[list[Row]], Awaitable[str]], may_stay: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[str]:
        """What a listener is sent: an event `rows` with what `write` makes of the changed rows, the oldest call first, and an event
        `live` with the names of all calls in progress; `away` and `back` as the database goes and comes; `over` at the end.

        `may_stay` is asked every `QUIET_S`, or a little later.
        """
        asked_at = asyncio.get_running_loop().time()
        told_away = False
        while listener in self._listeners:
            try:
                async with asyncio.timeout(QUIET_S):
                    await listener.news.wait()
            except TimeoutError:
                yield QUIET
            if asyncio.get_running_loop().time() - asked_at >= QUIET_S:
                asked_at = asyncio.get_running_loop().time()
                if not await may_stay():
                    break
            if not listener.news.is_set():
                continue
            listener.news.clear()
            changed, listener.changed = list(listener.changed.values()), {}
            if self.away is not told_away:
                told_away = self.away
                yield event("away" if told_away else "back")
            if not told_away:
                listener.told = True
                yield event("rows", await write(changed)) + event("live", " ".join(self._live()))
        yield event("over", retry_ms=LATER_MS if self._draining() else AGAIN_MS)

    # ---- looking

    async def _look(self) -> None:
        """Look again and again, as long as somebody looks on."""
        while self._listeners and not self._draining():
            was_away, self.away, changed = self.away, False, {}
            try:
                changed = await self._changes()
            except StoreUnavailable:
                self.away = True
            except Exception as fault:
                self.away = True
                if not was_away:
                    log.error("the live calls could not be read", fault=type(fault).__name__, at=logs.where(fault))
            self.looks += 1
            for listener in self._listeners:
                listener.changed |= changed
                if changed or not listener.told or was_away is not self.away:
                    listener.news.set()
            await asyncio.sleep(self._every_s)
        for listener in tuple(self._listeners):  # the worker drains
            self._listeners.discard(listener)
            listener.news.set()

    async def _changes(self) -> dict[str, Row]:
        """The rows that are not as they were."""
        now = self._clock()
        live = (await self._listing.page(Filters(state=(RowState.LIVE.value,)), limit=MOST_LIVE)).rows
        found: dict[str, Row] = {row["call_id"]: row for row in reversed(live)}
        # what was in progress or fresh and is not among them, and what has begun and ended between two looks
        watched = tuple(name for name in self._rows if name not in found)
        if watched:
            found |= {row["call_id"]: row for row in (await self._listing.page(Filters(call_ids=watched), limit=500)).rows}
        begun = Filters(since=(self._looked_at or now) - 2 * FRESH, state=(RowState.FINAL.value,))
        for row in reversed((await self._listing.page(begun, limit=MOST_LIVE)).rows):
            if row["ended_at"] is not None and now - datetime.fromisoformat(row["ended_at"]) < FRESH:
                found.setdefault(row["call_id"], row)
        for name, row in list(found.items()):
            if row["state"] == RowState.LIVE.value:
                continue
            if now - self._ended.setdefault(name, now) > FRESH:
                del found[name]
        changed = {name: row for name, row in found.items() if self._rows.get(name) != row}
        self._looked_at = now
        self._rows = dict(sorted(found.items(), key=lambda item: (item[1]["started_at"], item[0])))
        self._ended = {name: at for name, at in self._ended.items() if name in found}
        return {name: self._rows[name] for name in self._rows if name in changed}

    def _live(self) -> list[str]:
        return [name for name, row in self._rows.items() if row["state"] == RowState.LIVE.value]
