"""Rows of calls for the tests of what reads them: whatever a test does not say is as usual."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.call.agent import ToolKind
from app.call.disposition import EndReason, Outcome
from app.store.engine import Database
from app.store.facts import newborn_columns, turn_columns, utterance_columns
from app.store.identity import new_call_id
from app.store.tables import RowState, ToolStatus, calls, tool_invocations, turns, utterances
from tests.store.shelf import new_call, turn, utterance

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def row(database: Database, at: datetime = NOON, *, live: bool = False, **columns: Any) -> dict[str, Any]:
    """The columns of a finished call, or of one in progress."""
    sent = {name: columns.pop(name) for name in ("from_number", "to_number", "direction") if name in columns}
    call_id = columns.pop("call_id", None) or new_call_id(at)
    made = newborn_columns(call_id, new_call(f"CA{call_id}", **sent), at, database.blind_index)
    ending: dict[str, Any] = {"state": RowState.LIVE, "outcome": None, "end_reason": None, "ended_at": None, "finished_at": None}
    if not live:
        ended = at + timedelta(minutes=1)
        ending = {"state": RowState.FINAL, "outcome": Outcome.COMPLETED, "end_reason": EndReason.AGENT_ENDED}
        ending |= {"ended_at": ended, "finished_at": ended}
    judged = (
        "disposition",
        "intent",
        "sentiment",
        "lead_score",
        "urgency",
        "summary",
        "duration_ms",
        "latency_p50_ms",
        "latency_p95_ms",
    )
    usual = dict.fromkeys((*judged, "cost_usd", "review_reasons")) | {"analysis": "done", "needs_review": False}
    return made | usual | ending | columns


async def put(database: Database, *rows: dict[str, Any]) -> list[str]:
    """Write them down; give their names."""
    async with database.write() as connection:
        await connection.execute(sa.insert(calls), list(rows))
    return [str(made["call_id"]) for made in rows]


async def say(database: Database, call_id: str, *heard: str | None) -> None:
    """What was said in a call, the caller first."""
    speakers = ("caller", "agent")
    rows = [
        utterance_columns(call_id, 1, number, utterance(f"u{number}", number, speaker=speakers[number % 2], heard=text))
        for number, text in enumerate(heard)
    ]
    async with database.write() as connection:
        await connection.execute(sa.insert(utterances), rows)


async def wait(database: Database, call_id: str, *latencies: int | None) -> None:
    """The turns of a call, by how long the caller waited."""
    rows = [turn_columns(call_id, 1, turn(number, latency)) for number, latency in enumerate(latencies)]
    async with database.write() as connection:
        await connection.execute(sa.insert(turns), rows)


async def errand(database: Database, call_id: str, name: str, status: str, at: datetime = NOON, kind: str = "errand") -> None:
    """A line of the ledger."""
    async with database.write() as connection:
        number = (await connection.execute(sa.select(sa.func.count()).select_from(tool_invocations))).scalar_one()
        await connection.execute(
            sa.insert(tool_invocations).values(
                call_id=call_id,
                epoch=1,
                tool_call=f"t{number}",
                name=name,
                agent="front-desk",
                kind=ToolKind(kind),
                effect=False,
                status=ToolStatus(status),
                started_at=at,
                finished_at=None if status == "intended" else at,
                attempts=1,
            )
        )
