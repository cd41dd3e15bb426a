"""Readings made anew over old calls, in batches: what a batch would change, before anybody applies it.

Here it is only looked at. `Judgements.apply` and `Judgements.withdraw` change the rows.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.store import projection
from app.store.after_tables import AFTER_CALL, readings
from app.store.engine import Database
from app.store.facts import plain
from app.store.tables import AnalysisState, RowState, calls

IN_FORCE = readings.c.applied_at.is_not(None) & readings.c.withdrawn_at.is_(None)
A_LOOK = 100
"""So many calls are compared in one transaction; the consumer takes its time between two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What applying a batch would change in one call."""

    call_id: str
    changes: Mapping[str, tuple[Any, Any]] = field(repr=False)
    """Field: before, after. Empty: nothing would be different."""


async def batches(database: Database) -> list[dict[str, Any]]:
    """Every batch but the reading that each call gets when it ends, the oldest first, as JSON can say it."""

    def count(which: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((which, 1), else_=0))

    query = (
        sa.select(
            readings.c.batch,
            *(sa.func.max(readings.c[name]).label(name) for name in ("analyzer", "model", "prompt_version", "rubric")),
            sa.func.count().label("calls"),
            count(IN_FORCE).label("applied"),
            count(readings.c.withdrawn_at.is_not(None)).label("withdrawn"),
            sa.cast(sa.func.sum(readings.c.tokens_in), sa.BigInteger).label("tokens_in"),
            sa.cast(sa.func.sum(readings.c.tokens_out), sa.BigInteger).label("tokens_out"),
            sa.func.min(readings.c.created_at).label("created_at"),
            sa.func.max(readings.c.applied_at).label("applied_at"),
        )
        .where(readings.c.batch != AFTER_CALL)
        .group_by(readings.c.batch)
        .order_by(sa.func.min(readings.c.created_at), readings.c.batch)
    )
    async with database.read("list the rescorings") as connection:
        return [plain(row) for row in (await connection.execute(query)).mappings()]


def not_in_force(batch: str) -> sa.Select[Any]:
    """Call and reading of what could be applied of a batch, also once more after it was withdrawn, in the order of the calls.

    A call that has no first reading yet has nothing that could be scored anew.
    """
    return (
        sa.select(readings.c.call_id, readings.c.id)
        .join_from(readings, calls)
        .where(
            readings.c.batch == batch,
            ~IN_FORCE,
            calls.c.state == RowState.FINAL,
            calls.c.analysis == AnalysisState.DONE,
        )
        .order_by(readings.c.call_id)
    )


async def not_read(
    database: Database, batch: str, *, since: datetime | None = None, until: datetime | None = None, limit: int | None = None
) -> list[str]:
    """Calls that began from `since` to before `until` and that this batch has not read yet, the newest first, at most `limit`.

    Of calls whose first reading is still to come, or was given up, there is nothing to score anew.
    """
    known = sa.select(readings.c.id).where(readings.c.call_id == calls.c.call_id, readings.c.batch == batch)
    query = sa.select(calls.c.call_id).where(
        calls.c.state == RowState.FINAL, calls.c.analysis == AnalysisState.DONE, ~known.exists()
    )
    if since is not None:
        query = query.where(calls.c.started_at >= since)
    if until is not None:
        query = query.where(calls.c.started_at < until)
    query = query.order_by(calls.c.started_at.desc(), calls.c.call_id.desc()).limit(limit)
    async with database.read("look for calls to be scored anew") as connection:
        return list((await connection.execute(query)).scalars())


async def differences(database: Database, batch: str) -> AsyncIterator[Difference]:
    """For each call of the batch that is not in force: what would be different if it were."""
    last = ""
    while True:
        async with database.read("compare a rescoring") as connection:
            ahead = not_in_force(batch).where(readings.c.call_id > last).limit(A_LOOK)
            found = []
            for row in (await connection.execute(ahead)).all():
                call = (await connection.execute(sa.select(calls).where(calls.c.call_id == row.call_id))).mappings().one()
                before = projection.values(await projection.load(connection, call))
                after = projection.values(await projection.load(connection, call, as_if=row.id))
                changes = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
                found.append(Difference(call_id=row.call_id, changes=changes))
        for difference in found:
            yield difference
        if len(found) < A_LOOK:
            return
        last = found[-1].call_id
