"""A portion of the journal on its way into the database: one transaction, or as many as it takes to find the item that is refused.

Rule 1: all of a portion may be written again: lines that are there are left alone, facts are written over by their key.
Rule 2: an item that the database refuses for what it is (not for the moment) is taken out, counted and logged without its
content; it holds nobody else up.
Rule 3: a call's row is there before what belongs to it, and is finished behind it, in a transaction of its own.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import logs
from app.call.agent import ToolKind
from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.journal import Line as JournalLine
from app.errors import StoreUnavailable
from app.store import late
from app.store.changes import Pricing
from app.store.engine import Database
from app.store.facts import NewCall, memory_columns, newborn_columns, turn_columns, utterance_columns
from app.store.late import CHANGES, ORDER, Fact, Finished, Kept, Line
from app.store.tables import RowState, ToolStatus, call_events, calls, tool_invocations, turns, utterances

log = logs.logger("store")

ROWS_A_STATEMENT = 500


class Portions:
    """Commits portions to one database. `pricing` is for calls that are finished late."""

    def __init__(self, database: Database, pricing: Pricing) -> None:
        self._database, self._pricing = database, pricing
        self._statements = _statements(database)
        self.names: dict[str, str] = {}
        """Calls that were named twice: the name that does not stand, and the one that does."""
        self.refused = 0
        """Items that the database refused for what they are."""

    async def commit(self, lines: list[Line], facts: list[Kept]) -> None:
        """Have all of these in the database.

        Raises:
            StoreUnavailable: it is away; some of them may be there.
        """
        await self._write(lines, [fact for fact in facts if type(fact[4]) is not Finished])
        for fact in facts:
            if type(fact[4]) is Finished:  # rule 3
                await self._write([], [fact])

    async def ask(self) -> None:
        """See whether the database is there. Raises StoreUnavailable."""
        async with self._database.write("see whether it is back") as connection:
            await connection.execute(sa.select(sa.literal(1)))

    async def _write(self, lines: list[Line], facts: list[Kept]) -> None:
        """Rule 2: halve what was refused until the item that is to blame stands alone."""
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
        newborn = [fact for fact in facts if type(fact[4]) is NewCall]
        changed = {fact[0] for fact in facts if type(fact[4]) in CHANGES}
        async with self._database.write("write the journal") as connection:
            if newborn:
                await self._bear(connection, newborn)
            rows: dict[type, list[dict[str, Any]]] = {kind: [] for kind in self._statements}  # in the order of the statements
            in_turn = []
            for kept in facts:
                kind = type(kept[4])
                if kind in CHANGES or (kind is KeepMemory and kept[0] in changed):
                    in_turn.append(kept)
                elif kind is not NewCall:
                    rows[kind].append(_fact_columns(self._name(kept[0]), *kept[1:]))
            rows[JournalLine] = [_line_columns(self._name(line[0]), *line[1:]) for line in lines]
            for call_id, epoch, _, at, change in sorted(in_turn, key=lambda kept: (kept[1], ORDER[type(kept[4])], kept[2])):
                if isinstance(change, KeepMemory):
                    columns = _fact_columns(self._name(call_id), epoch, 0, at, change)
                    await connection.execute(self._statements[KeepMemory], [columns])
                elif isinstance(change, CHANGES):
                    await late.make(connection, self._name(call_id), epoch, at, change, self._pricing)
            for kind, statement in self._statements.items():
                for start in range(0, len(rows[kind]), ROWS_A_STATEMENT):
                    await connection.execute(statement, rows[kind][start : start + ROWS_A_STATEMENT])

    async def _bear(self, connection: AsyncConnection, newborn: list[Kept]) -> None:
        """Rows that are made late. One that is there under another name was made by who could see the database, and keeps it."""
        index = self._database.blind_index
        rows = [newborn_columns(call_id, new, at, index) for call_id, _, _, at, new in newborn if isinstance(new, NewCall)]
        await connection.execute(self._database.insert(calls).on_conflict_do_nothing(), rows)
        sids = {row["carrier_call_sid"]: row["call_id"] for row in rows if row["carrier_call_sid"] is not None}
        there = sa.select(calls.c.carrier_call_sid, calls.c.call_id).where(calls.c.carrier_call_sid.in_(list(sids)))
        for sid, name in (await connection.execute(there)).all():
            if name != sids[sid]:
                self.names[sids[sid]] = name
                log.warning("a call was named twice", call_id=sids[sid], stands_as=name)

    def _name(self, call_id: str) -> str:
        return self.names.get(call_id, call_id)


def latest(facts: Iterable[Kept]) -> list[Kept]:
    """Of facts with the same key the last, as if they had waited in memory together."""
    return list({late.key(fact[0], fact[1], fact[4]): fact for fact in facts}.values())


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


def _fact_columns(call_id: str, epoch: int, position: int, at: datetime, item: Fact) -> dict[str, Any]:
    match item:
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
    raise TypeError(type(item).__name__)


def _statements(database: Database) -> dict[type, sa.Insert | sa.Update]:
    """What writes each kind of item, in the order in which they are written: the call before what belongs to it."""

    def upsert(table: sa.Table, *keep: str, where: sa.ColumnElement[bool] | None = None) -> sa.Insert:
        insert = database.insert(table)
        key = [table.c.call_id, table.c.tool_call] if table is tool_invocations else list(table.primary_key)
        new = {column.name: insert.excluded[column.name] for column in table.c if column not in key and column.name not in keep}
        return insert.on_conflict_do_update(index_elements=key, set_=new, where=where)

    return {
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
