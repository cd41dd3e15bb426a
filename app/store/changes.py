"""Every change of a call's row, as it is said to a database. Who makes it now and who makes it late say the same.

Rule 1: a change is one UPDATE that says in its WHERE what it relies on (the epoch, that the row is live). Who changes no row has
lost. Where two must be weighed against each other, the row is locked first.
Rule 2: made twice, a change is made once: the second time it relies on what is not so any more, or it says the same again.
Rule 3: a moment comes with the change. One that is made late bears the moment at which it was so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.call.disposition import Filed, Intent
from app.settings import TRANSCRIPTION_PER_MINUTE, Price
from app.store import finishing
from app.store.facts import STATE_COLUMNS, CallState, call_state, memory_columns
from app.store.tables import RowState, calls, turns

TERMINAL = frozenset(("completed", "busy", "failed", "no-answer", "canceled"))
RANK = {"queued": 0, "initiated": 1, "ringing": 2, "in-progress": 3, **dict.fromkeys(TERMINAL, 4)}
"""Statuses never go back (Twilio's documentation)."""

STATE = [calls.c[name] for name in STATE_COLUMNS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """What a call costs."""

    prices: Mapping[str, Price] = field(default_factory=dict)
    prices_date: date | None = None
    per_transcription_minute: float | None = TRANSCRIPTION_PER_MINUTE["gpt-transcribe"]
    provider: str = "openai"


def claim(call_id: str, epoch: int, *, worker: str, stream_sid: str | None, at: datetime) -> sa.Update:
    """Take the stream of this epoch."""
    return _change(
        *_of(call_id, epoch),
        calls.c.claimed_epoch < epoch,
        at=at,
        claimed_epoch=epoch,
        worker=worker,
        stream_sid=stream_sid,
        answered_at=sa.func.coalesce(calls.c.answered_at, sa.bindparam("now", at, type_=calls.c.answered_at.type)),
    )


def plan(call_id: str, epoch: int, next_step: Intent, transfer_to: str | None, *, at: datetime) -> sa.Update:
    """Store what is to follow when this stream ends."""
    return _change(*_of(call_id, epoch), at=at, next_step=next_step, transfer_to=transfer_to)


def advance(call_id: str, epoch: int, *, at: datetime) -> sa.Update:
    """Open the next epoch, to talk on a new stream."""
    return _change(
        *_of(call_id, epoch),
        at=at,
        epoch=epoch + 1,
        resume_attempts=calls.c.resume_attempts + 1,
        next_step=Intent.TALK,
        transfer_to=None,
    )


def healthy(call_id: str, epoch: int, *, at: datetime) -> sa.Update:
    """Earlier attempts count no more."""
    return _change(*_of(call_id, epoch), calls.c.resume_attempts > 0, at=at, resume_attempts=0)


async def take_in_status(
    connection: AsyncConnection, sid: str, status: str, *, sequence: int | None, duration_s: int | None, at: datetime
) -> CallState | None:
    """Take in a status of the carrier's; see `Calls.carrier_status`. None: there is no such call."""
    sequence, duration_s = _countable(sequence), _countable(duration_s)
    locked = sa.select(calls.c.carrier_sequence, calls.c.carrier_duration_s, *STATE).where(calls.c.carrier_call_sid == sid)
    row = (await connection.execute(locked.with_for_update())).mappings().one_or_none()
    if row is None:
        return None
    changes: dict[str, Any] = {}
    if status in RANK and is_news(status, sequence, row["carrier_status"], row["carrier_sequence"]):
        changes |= {"carrier_status": status, "carrier_sequence": sequence}
    if duration_s is not None and duration_s > (row["carrier_duration_s"] or -1):
        changes["carrier_duration_s"] = duration_s
    if not changes:
        return call_state(row)
    update = sa.update(calls).where(calls.c.call_id == row["call_id"]).values(updated_at=at, **changes)
    return call_state((await connection.execute(update.returning(*STATE))).mappings().one())


def is_news(status: str, sequence: int | None, known: str | None, known_sequence: int | None) -> bool:
    """Whether a status stands above the one that is known: by rank, then by sequence, then, so that it is settled, by its word."""
    if known is None:
        return True
    return (RANK[status], -1 if sequence is None else sequence, status) > (
        RANK[known],
        -1 if known_sequence is None else known_sequence,
        known,
    )


async def finish(
    connection: AsyncConnection, call_id: str, filed: Filed, *, epoch: int | None, pricing: Pricing, at: datetime
) -> bool:
    """Finish the row; see `Calls.finish`."""
    memory, ended_at = filed.memory, max(0, filed.ended_at)
    known = sa.select(calls.c.epoch, calls.c.state, calls.c.started_at, calls.c.model, calls.c.transfer_to)
    row = (await connection.execute(known.where(calls.c.call_id == call_id).with_for_update())).mappings().one_or_none()
    if row is None or row["state"] is RowState.FINAL or epoch not in (None, row["epoch"]):
        return False
    price = finishing.price_of(row["model"], pricing.prices)
    cost = finishing.cost(memory.usage, price, pricing.per_transcription_minute)
    changed = await connection.execute(
        sa.update(calls)
        .where(calls.c.call_id == call_id, calls.c.state == RowState.LIVE, calls.c.epoch == row["epoch"])
        .values(
            {
                **memory_columns(memory),
                **await _measured(connection, call_id, filed),
                "state": RowState.FINAL,
                "outcome": filed.outcome,
                "end_reason": filed.end_reason,
                "ended_at": row["started_at"] + timedelta(milliseconds=ended_at),
                "finished_at": at,
                "analysis_due_at": at,
                "revision": 1,
                "duration_ms": ended_at,
                "transfer_to": memory.transfer_to or row["transfer_to"],
                "usage": {pricing.provider: msgspec.to_builtins(memory.usage)},
                "tokens_in": finishing.tokens_in(memory.usage),
                "tokens_out": finishing.tokens_out(memory.usage),
                "cost_usd": None if cost is None else float(cost),
                "prices_date": pricing.prices_date,
                "updated_at": at,
            }
        )
    )
    return changed.rowcount == 1


async def _measured(connection: AsyncConnection, call_id: str, filed: Filed) -> dict[str, Any]:
    """Counts and latencies. Memory and stored turns may each lack the last of a lost worker: the larger count stands."""
    query = sa.select(turns.c.latency_ms, turns.c.utterance, turns.c.interrupted).where(turns.c.call_id == call_id)
    stored = (await connection.execute(query)).all()
    latencies = [turn.latency_ms for turn in stored if turn.latency_ms is not None]
    return {
        "turns": max(filed.memory.caller_turns, sum(turn.utterance is not None for turn in stored)),
        "barge_ins": max(filed.memory.barge_ins, sum(turn.interrupted for turn in stored)),
        "latency_p50_ms": finishing.nearest_rank(latencies, 50),
        "latency_p95_ms": finishing.nearest_rank(latencies, 95),
    }


def _of(call_id: str, epoch: int) -> tuple[sa.ColumnElement[bool], ...]:
    return calls.c.call_id == call_id, calls.c.epoch == epoch


def _change(*relies_on: sa.ColumnElement[bool], at: datetime, **values: Any) -> sa.Update:
    """Rule 1, for a live row."""
    return sa.update(calls).where(*relies_on, calls.c.state == RowState.LIVE).values(updated_at=at, **values)


def _countable(number: int | None) -> int | None:
    """A number of the carrier's, if a column can hold it."""
    return number if number is not None and 0 <= number < 2**31 else None
