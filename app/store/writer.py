"""The batch writer: what happens on a call reaches the database a few milliseconds later, and the audio never waits for it.

Rule 1: `put` only remembers. Rows are made, encoded and sealed in the flush.
Rule 2: nothing is lost to an outage. What could not be committed goes to the spool, a file on local disk, and comes back from there
in order; it survives this process as well. Where there is no spool, or no room in it, it stays in memory and is tried again. Only
when more than `limit` items wait there is the oldest journal line dropped, and counted; a fact only when no line is left.
Rule 3: a flush may be repeated: journal lines that are there are left alone, facts are written over by their key (later wins). So
nothing newer is written past what waits in the spool.
Rule 4: an item that the database refuses for what it is (not for the moment) is taken out, counted and logged without its
content; it holds nobody else up.
Rule 5: the epoch fences: what changes `calls` does so only while its epoch is current. Lines and facts of an old epoch bear their
epoch in their key and are kept as evidence.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from app import logs
from app.call.journal import Line as JournalLine
from app.errors import StoreUnavailable
from app.store import late
from app.store.changes import Pricing
from app.store.engine import Database
from app.store.facts import NewCall, utc_now
from app.store.late import CHANGES, Fact, Item, Kept, Key, Line
from app.store.portion import Portions, latest
from app.store.spool import Spool

log = logs.logger("store")

__all__ = ["JournalLine", "Writer"]

LINES_A_TRANSACTION = 1_000
"""After an outage the backlog is written in portions: each keeps the loop for a few milliseconds, then others have a turn."""
LONGEST_BACKOFF_S = 5.0
REST = 20
LONGEST_INTERVAL_S = 0.25
"""A flush that took long is followed by a rest twenty times as long, up to this: with many calls the lines go in larger
batches, and the journal never takes more than about a twentieth of the time. Measured at 50 calls: 14 % of the service's CPU."""
PATIENCE_S = 2.0
"""A transaction of the journal that takes longer is taken for an outage: what waits goes to the spool."""
LOOK_S = 0.2
ADOPT_EVERY_S = 5.0
OPEN_WITHIN_S = 5.0
OPEN_PATIENCE_S = 0.5
"""Callers of a process that died wait for the one that takes its place: a database that hangs must not keep them waiting long."""
LATE = (NewCall, *CHANGES)


class Writer:
    """Writes for all calls of one process.

    Args:
        spool: where what cannot be written waits, and outlives this process; None: in memory alone.
        pricing: what a call costs that is finished late.
        interval_ms: how long lines are gathered before they are written. 1 to 1,000.
        limit: how many items are kept in memory while the database is away; a line is about 0.5 kB.
    """

    def __init__(
        self,
        database: Database,
        *,
        spool: Spool | None = None,
        pricing: Pricing | None = None,
        interval_ms: int = 50,
        limit: int = 100_000,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._portions = Portions(database, pricing or Pricing())
        self._spool = spool
        self._interval_s = interval_ms / 1_000
        self._limit = limit
        self._clock = clock
        self._lines: deque[Line] = deque()
        self._facts: dict[Key, Kept] = {}
        self._position = 0
        self._under_way = 0
        self._something = asyncio.Event()
        self._closing = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stuck: set[asyncio.Task[Any]] = set()
        self._backoff = self._try_at = 0.0
        self._adopt_at = 0.0
        self._pending: dict[str, int] = {}
        self._shelved: set[str] = set()
        self._found: set[str] = set()
        self.on_away: list[Callable[[], None]] = []
        """Told when the database goes away."""
        self.on_found: list[Callable[[Kept], None]] = []
        """Given the facts of other processes, in the order of each, while the database is away."""
        self.on_fact: list[Callable[[str, int, Fact], None]] = []
        """Told of every fact that is put: call, epoch, fact."""
        self.dropped_lines = 0
        """Journal lines given up because too much was waiting."""
        self.dropped_facts = 0
        self._unsayable = 0

    @property
    def waiting(self) -> int:
        """How many items are in memory and not yet committed."""
        return len(self._lines) + len(self._facts) + self._under_way

    @property
    def refused(self) -> int:
        """Items that the database refused for what they are, or that could not be put into words."""
        return self._portions.refused + self._unsayable

    @property
    def is_away(self) -> bool:
        """The database could not be had when it was last asked. It is asked again and again."""
        return self._backoff > 0

    @property
    def is_overwhelmed(self) -> bool:
        """What happens now may be lost: it waits for the database in memory, and most of that is taken, or the disk is full."""
        full = self._spool is not None and self._spool.is_full
        return self.is_away and (full or self.waiting > self._limit * 4 // 5)

    def is_behind(self, call_id: str) -> bool:
        """Something of this call may be waiting for the database still: changes of its row must wait behind it."""
        return self.is_away or call_id in self._pending or call_id in self._shelved or call_id in self._found

    def real_name(self, call_id: str) -> str:
        """The name of a call's row, where the call was named twice: by who could not see the row, and by who had made it."""
        return self._portions.names.get(call_id, call_id)

    def put(self, call_id: str, epoch: int, item: Item, *, at: datetime | None = None) -> None:
        """Remember to write this, as of now or of a moment before. Never waits, never fails."""
        if isinstance(item, JournalLine):
            self._lines.append((call_id, epoch, item))
        else:
            self._position += 1
            self._facts[late.key(call_id, epoch, item)] = (call_id, epoch, self._position, at or self._clock(), item)
            if isinstance(item, LATE):
                self._pending[call_id] = self._position
            for told in self.on_fact:
                told(call_id, epoch, item)
        if not self._something.is_set():
            self._something.set()
        if len(self._lines) + len(self._facts) + self._under_way > self._limit:
            self._make_room()

    def went_away(self, stuck: asyncio.Task[Any] | None = None) -> None:
        """Somebody else found that the database cannot be had, with a transaction that may still hang there."""
        if stuck is not None:
            self._leave(stuck)
        self._failed(StoreUnavailable("reach it"))
        self._something.set()

    async def open(self) -> None:
        """Before the first call: make the spool, and write what dead processes have left, if that can be done soon."""
        if self._spool is None:
            return
        if not await self._spool.open():
            self._spool = None
            return
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(OPEN_WITHIN_S):
                if self._spool.holds_found:
                    await self._try(self._portions.ask(), OPEN_PATIENCE_S)
                while self._spool.holds_found and not self.is_away:
                    await self._replay(self._spool, own=False)
        await self._learn()

    async def flush(self, call_id: str | None = None) -> None:
        """Have everything that was put before in the database, or, while that is away, in the spool. `call_id` says who waits.

        Raises:
            StoreUnavailable: neither can be had; nothing is lost, the loop tries again.
        """
        # a task of its own: who waits may be cancelled, and drivers do not take it well in the midst of a batch
        task = asyncio.create_task(self._flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _flush(self) -> None:
        async with self._flushing:
            if self._spool is None:
                await self._write_what_waits()
            elif self._spool.holds_own or self._found or self.is_away:  # rule 3
                await self._shelve(self._spool)
            else:
                try:
                    await self._write_what_waits()
                except StoreUnavailable:
                    await self._shelve(self._spool)

    async def _write_what_waits(self) -> None:
        portions = -(-len(self._lines) // LINES_A_TRANSACTION) or min(1, len(self._facts))
        for _ in range(portions):  # what is put meanwhile is for the next flush
            with self._taken() as (lines, facts):
                await self._try(self._portions.commit(lines, facts))
            self._no_more_pending(facts)

    def _no_more_pending(self, facts: list[Kept]) -> None:
        for call_id, _, position, _, _ in facts:
            if self._pending.get(call_id) == position:
                del self._pending[call_id]

    @contextmanager
    def _taken(self) -> Iterator[tuple[list[Line], list[Kept]]]:
        """A portion of what waits. If the block fails, it waits again."""
        lines = [self._lines.popleft() for _ in range(min(len(self._lines), LINES_A_TRANSACTION))]
        facts, self._facts = self._facts, {}
        self._under_way = len(lines) + len(facts)
        try:
            yield lines, list(facts.values())
        except BaseException:  # also when cancelled: what is not known to be committed waits again (rule 3)
            self._lines.extendleft(reversed(lines))
            self._facts, self._under_way = facts | self._facts, 0
            self._something.set()
            self._make_room()
            raise
        self._under_way = 0

    # ---- an outage

    @property
    def _may_try(self) -> bool:
        return time.monotonic() >= self._try_at and not self._stuck

    async def _try(self, work: Coroutine[Any, Any, None], patience_s: float | None = None) -> None:
        """Ask the database for something, and learn from it whether it is there.

        Raises:
            StoreUnavailable: it is not, or it has not answered in time. What it is doing then is left to end by itself.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task}, timeout=None if self._spool is None else patience_s or PATIENCE_S)
            if not task.done():
                self._leave(task)
                raise StoreUnavailable("write the journal")
            task.result()
        except asyncio.CancelledError:
            task.cancel()
            raise
        except Exception as fault:  # whatever it is: nothing is lost, and the calls go on
            self._failed(fault)
            raise
        if self._backoff:
            log.info("the database is back", dropped_lines=self.dropped_lines, dropped_facts=self.dropped_facts)
        self._backoff = self._try_at = 0.0

    def _leave(self, stuck: asyncio.Task[Any]) -> None:
        """A transaction that hangs: nothing else is tried until it has ended, so that it cannot come after what is newer."""

        def ended(task: asyncio.Task[Any]) -> None:
            self._stuck.discard(task)
            self._something.set()
            if not task.cancelled():
                task.exception()

        self._stuck.add(stuck)
        stuck.add_done_callback(ended)

    def _failed(self, fault: Exception) -> None:
        before = self._backoff
        self._backoff = min(LONGEST_BACKOFF_S, before * 2 or max(0.2, self._interval_s))
        self._try_at = time.monotonic() + self._backoff
        if not before:
            log.warning("the journal waits for the database", waiting=self.waiting, fault=type(fault).__name__)
            for told in self.on_away:
                told()

    async def _shelve(self, spool: Spool) -> None:
        """Move what waits to the spool."""
        while self._lines or self._facts:
            with self._taken() as (lines, facts):
                try:
                    given_up, unsayable = await spool.append(lines, facts)
                except OSError:
                    raise StoreUnavailable("keep the journal on the disk") from None
            self._shelved.update(line[0] for line in lines)
            self._shelved.update(fact[0] for fact in facts)
            self._no_more_pending(facts)
            self.dropped_lines += given_up
            self._unsayable += unsayable

    async def _replay(self, spool: Spool, *, own: bool) -> None:
        """Write a portion of a spool file; let go of the file behind its last one.

        Raises:
            StoreUnavailable: the database is away again; the portion will be given out again.
        """
        async with self._flushing:
            portion = await spool.next(LINES_A_TRANSACTION, own=own)
            if portion:
                try:
                    await self._try(self._portions.commit(portion.lines, latest(portion.facts)))
                except BaseException:
                    await spool.again(own=own)
                    raise
            if len(portion) < LINES_A_TRANSACTION:  # and so the last; nothing can have been added meanwhile
                await spool.committed(own=own)
                if own:
                    self._shelved.clear()
                elif not spool.holds_found:
                    self._found.clear()
                log.info("a spool has been written", own=own)

    async def look_around(self) -> None:
        """What other processes of this machine know, while the database cannot be asked: it is on the disk."""
        if self._spool is not None and self.is_away:
            for fact in await self._spool.news():
                for told in self.on_found:
                    told(fact)

    async def _learn(self) -> None:
        """What dead processes knew, while the database cannot be asked."""
        if self._spool is None or not self._spool.holds_found or not self.is_away:
            return
        for fact in await self._spool.facts():
            self._found.add(fact[0])
            for told in self.on_found:
                told(fact)

    async def run(self) -> None:
        """Two loops: what happens is written, or kept; what was kept is written when the database is back. Ends after `close`."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._gather())
            loops.create_task(self._look_after())

    async def _gather(self) -> None:
        """Gather, flush, again."""
        took_s = 0.0
        while not self._closing.is_set():
            await self._something.wait()
            await self._pause(max(self._interval_s, min(LONGEST_INTERVAL_S, took_s * REST)))
            self._something.clear()
            began = time.monotonic()
            try:
                await self.flush()
                took_s = 0.0 if self.is_away else time.monotonic() - began  # the disk's time is not the processor's
            except Exception as fault:
                _say_unless_away(fault)
                await self._pause(max(self._backoff, self._interval_s) if self._spool is None else LONGEST_INTERVAL_S)

    async def _look_after(self) -> None:
        """See whether the database is back, write from the spools, look for those of the dead."""
        while not self._closing.is_set():
            await self._pause(LOOK_S)
            try:
                await self._catch_up()
            except Exception as fault:
                _say_unless_away(fault)

    async def _catch_up(self) -> None:
        spool = self._spool
        if spool is not None and time.monotonic() >= self._adopt_at:
            self._adopt_at = time.monotonic() + ADOPT_EVERY_S
            if await spool.adopt():
                await self._learn()
        if self.is_away and self._may_try:
            await self._try(self._portions.ask())
        while spool is not None and not self.is_away and not self._closing.is_set() and (spool.holds_own or spool.holds_found):
            await self._replay(spool, own=not spool.holds_found)  # ours may go on where theirs ended

    async def close(self) -> None:
        """Have what waits in the database or in the spool, and let `run` end.

        Raises:
            StoreUnavailable: neither can be had; what waits is lost if the process ends now.
        """
        self._closing.set()
        self._something.set()
        try:
            await self.flush()
        finally:
            if self._spool is not None:
                await self._spool.close()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _make_room(self) -> None:
        while self.waiting > self._limit:
            if self._lines:
                self._lines.popleft()
                self.dropped_lines += 1
            elif self._facts:
                del self._facts[next(iter(self._facts))]
                self.dropped_facts += 1
            else:
                return  # all of it is under way


def _say_unless_away(fault: Exception) -> None:
    """Of an outage the first word is enough, and has been said."""
    if not isinstance(fault, StoreUnavailable):
        log.error("a flush failed", fault=type(fault).__name__, at=logs.where(fault))
