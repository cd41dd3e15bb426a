"""The batch writer: what happens on a call reaches the database a few milliseconds later, and the audio never waits for it.

Rule 1: `put` only remembers. Rows are made, encoded and sealed in the flush.
Rule 2: nothing is lost to an outage: what was not committed stays in memory, in order, and is tried again. Only when more than
`limit` items wait is the oldest journal line dropped, and counted; a fact of the row is dropped only when no line is left.
Rule 3: a flush may be repeated: journal lines that are there are left alone, facts are written over by their key (later wins).
Rule 4: an item that the database refuses for what it is (not for the moment) is taken out, counted and logged without its
content; it holds nobody else up.
Rule 5: the epoch fences: what changes `calls` does so only while its epoch is current. Lines and facts of an old epoch bear their
epoch in their key and are kept as evidence.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app import logs
from app.call.agent import ToolKind
from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.journal import Line as JournalLine
from app.errors import StoreUnavailable
from app.store.engine import Database
from app.store.facts import NewCall, memory_columns, newborn_columns, turn_columns, utc_now, utterance_columns
from app.store.tables import RowState, ToolStatus, call_events, calls, tool_invocations, turns, utterances

log = logs.logger("store")

__all__ = ["JournalLine", "Writer"]

ROWS_A_STATEMENT = 500
LINES_A_TRANSACTION = 1_000
"""After an outage the backlog is written in portions: each keeps the loop for a few milliseconds, then others have a turn."""
LONGEST_BACKOFF_S = 5.0
REST = 20
LONGEST_INTERVAL_S = 0.25
"""A flush that took long is followed by a rest twenty times as long, up to this: with many calls the lines go in larger
batches, and the journal never takes more than about a twentieth of the time. Measured at 50 calls: 14 % of the service's CPU."""


type Fact = NewCall | KeepUtterance | KeepTurn | KeepTool | KeepMemory
"""A `NewCall` is put by who had to answer a call while the database was away: its row is made late, and all else waits with it."""
type Item = JournalLine | Fact
type Line = tuple[str, int, JournalLine]
type Key = tuple[type, str, int, str | int]
type Kept = tuple[str, int, int, datetime, Fact]
"""Call, epoch, position, when it was put, the fact."""


class Writer:
    """Writes for all calls of one process.

    Args:
        interval_ms: how long lines are gathered before they are written. 1 to 1,000.
        limit: how many items are kept in memory while the database is away; a line is about 0.5 kB.
    """

    def __init__(
        self, database: Database, *, interval_ms: int = 50, limit: int = 100_000, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
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
        self._statements = _statements(database)
        self.dropped_lines = 0
        """Journal lines given up because too much was waiting."""
        self.dropped_facts = 0
        self.refused = 0
        """Items that the database refused for what they are."""

    @property
    def waiting(self) -> int:
        """How many items are not yet committed."""
        return len(self._lines) + len(self._facts) + self._under_way

    def put(self, call_id: str, epoch: int, item: Item) -> None:
        """Remember to write this. Never waits, never fails."""
        if isinstance(item, JournalLine):
            self._lines.append((call_id, epoch, item))
        else:
            self._position += 1
            self._facts[_key(call_id, epoch, item)] = (call_id, epoch, self._position, self._clock(), item)
        if not self._something.is_set():
            self._something.set()
        if len(self._lines) + len(self._facts) + self._under_way > self._limit:
            self._make_room()

    async def flush(self, call_id: str | None = None) -> None:
        """Commit everything that was put before, of all calls: a transaction costs the same. `call_id` says who waits for it.

        Raises:
            StoreUnavailable: the database is away; nothing is lost, the loop tries again.
        """
        # a task of its own: who waits may be cancelled, and drivers do not take it well in the midst of a batch
        task = asyncio.create_task(self._flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _flush(self) -> None:
        async with self._flushing:
            for _ in range(-(-len(self._lines) // LINES_A_TRANSACTION) or 1):  # what is put meanwhile is for the next flush
                lines = [self._lines.popleft() for _ in range(min(len(self._lines), LINES_A_TRANSACTION))]
                facts, self._facts = self._facts, {}
                self._under_way = len(lines) + len(facts)
                try:
                    await self._write(lines, list(facts.values()))
                except BaseException:  # also when cancelled: what is not known to be committed waits again (rule 3)
                    self._lines.extendleft(reversed(lines))
                    self._facts, self._under_way = facts | self._facts, 0
                    self._something.set()
                    self._make_room()
                    raise
                self._under_way = 0

    async def run(self) -> None:
        """The loop: gather, flush, again; patient while the database is away. Ends after `close`."""
        backoff = took_s = 0.0
        while not self._closing.is_set():
            await self._something.wait()
            await self._pause(max(self._interval_s, min(LONGEST_INTERVAL_S, took_s * REST)))
            self._something.clear()
            began = time.monotonic()
            try:
                await self.flush()
                took_s = time.monotonic() - began
            except Exception as fault:  # whatever it is: nothing is lost, and the calls go on
                if not backoff:
                    log.warning("the journal waits for the database", waiting=self.waiting, fault=type(fault).__name__)
                backoff = min(LONGEST_BACKOFF_S, backoff * 2 or max(0.2, self._interval_s))
                await self._pause(backoff)
            else:
                if backoff:
                    log.info("the journal is written again", dropped_lines=self.dropped_lines, dropped_facts=self.dropped_facts)
                backoff = 0.0

    async def close(self) -> None:
        """Commit what waits and let `run` end.

        Raises:
            StoreUnavailable: the database is away; what waits is lost if the process ends now.
        """
        self._closing.set()
        self._something.set()
        await self.flush()

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

    async def _write(self, lines: list[Line], facts: list[Kept]) -> None:
        """Rule 4: halve what was refused until the item that is to blame stands alone."""
        if not lines and not facts:
            return
        try:
            await self._commit(lines, facts)
        except (sa.exc.IntegrityError, sa.exc.DataError, sa.exc.StatementError, TypeError, ValueError, OverflowError) as fault:
            if isinstance(fault, sa.exc.DBAPIError) and not isinstance(fault, sa.exc.IntegrityError | sa.exc.DataError):
                raise StoreUnavailable("write the journal") from fault  # a table is missing, say: no item is to blame
            if len(lines) + len(facts) == 1:
                self.refused += 1
                call_id, epoch = (lines or facts)[0][:2]
                kind = type(lines[0][2] if lines else facts[0][4]).__name__
                log.error("the database refused an item", call_id=call_id, epoch=epoch, item=kind, cause=_cause(fault))
                return
            middle_line, middle_fact = (len(lines) + 1) // 2, len(facts) // 2
            await self._write([], facts[:middle_fact])
            await self._write(lines[:middle_line], [])
            await self._write(lines[middle_line:], facts[middle_fact:])

    async def _commit(self, lines: list[Line], facts: list[Kept]) -> None:
        rows: dict[type, list[dict[str, Any]]] = {kind: [] for kind in self._statements}  # in the order of the statements
        for kept in facts:
            rows[type(kept[4])].append(_fact_columns(self._database, *kept))
        rows[JournalLine] = [_line_columns(*line) for line in lines]
        async with self._database.write("write the journal") as connection:
            for kind, statement in self._statements.items():
                for start in range(0, len(rows[kind]), ROWS_A_STATEMENT):
                    await connection.execute(statement, rows[kind][start : start + ROWS_A_STATEMENT])


def _key(call_id: str, epoch: int, item: Fact) -> Key:
    match item:
        case KeepUtterance():
            return (KeepUtterance, call_id, epoch, item.utterance.key)
        case KeepTurn():
            return (KeepTurn, call_id, epoch, item.turn.number)
        case KeepTool():
            return (KeepTool, call_id, epoch, item.tool_call)
        case KeepMemory() | NewCall():
            return (type(item), call_id, epoch, 0)


def _line_columns(call_id: str, epoch: int, line: JournalLine) -> dict[str, Any]:
    return {
        "call_id": call_id,
        "epoch": epoch,
        "seq": line.seq,
        "at_ms": line.at,
        "name": line.name,
        "data": line.data,
        "private": line.private,
        "commands": line.commands,
    }


def _fact_columns(database: Database, call_id: str, epoch: int, position: int, at: datetime, item: Fact) -> dict[str, Any]:
    match item:
        case NewCall():
            return newborn_columns(call_id, item, at, database.blind_index)
        case KeepUtterance():
            return utterance_columns(call_id, epoch, position, item.utterance)
        case KeepTurn():
            return turn_columns(call_id, epoch, item.turn)
        case KeepTool():
            return {
                "call_id": call_id,
                "epoch": epoch,
                "tool_call": item.tool_call,
                "name": item.name,
                "agent": item.agent,
                "kind": ToolKind.CONTROL,
                "effect": False,
                "arguments": item.arguments,
                "result": item.result,
                "status": ToolStatus.REFUSED if item.refused else ToolStatus.DONE,
                "started_at": at,
                "finished_at": at,
                "duration_ms": 0,
                "attempts": 1,
            }
        case KeepMemory():
            return {"of_call": call_id, "of_epoch": epoch, "updated_at": at, **memory_columns(item.memory)}


def _statements(database: Database) -> dict[type, sa.Insert | sa.Update]:
    """What writes each kind of item, in the order in which they are written: the call before what belongs to it."""

    def upsert(table: sa.Table, *keep: str, where: sa.ColumnElement[bool] | None = None) -> sa.Insert:
        insert = database.insert(table)
        key = [table.c.call_id, table.c.tool_call] if table is tool_invocations else list(table.primary_key)
        new = {column.name: insert.excluded[column.name] for column in table.c if column not in key and column.name not in keep}
        return insert.on_conflict_do_update(index_elements=key, set_=new, where=where)

    return {
        NewCall: database.insert(calls).on_conflict_do_nothing(),
        KeepMemory: sa.update(calls).where(  # rule 5
            calls.c.call_id == sa.bindparam("of_call"),
            calls.c.epoch == sa.bindparam("of_epoch"),
            calls.c.state == RowState.LIVE,
        ),
        KeepUtterance: upsert(utterances, "position"),
        KeepTurn: upsert(turns),
        # an errand's row is the ledger's: a control never writes over it
        KeepTool: upsert(tool_invocations, "id", "started_at", where=tool_invocations.c.kind == ToolKind.CONTROL),
        JournalLine: database.insert(call_events).on_conflict_do_nothing(),
    }


def _cause(fault: Exception) -> str:
    """The kind of a fault, never its words: they may quote the item."""
    return type(getattr(fault, "orig", None) or fault).__name__
