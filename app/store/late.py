"""What happened to a call while its row could not be changed; and what is put to the writer at all.

A process that cannot reach the database goes on from what it knows (`daybook.py`). What it would have changed in the row is put
down as one of the changes here, waits with the rest of the journal (`writer.py`, on disk: `spool.py`), and is made late.

Rule 1: a late change relies on what the change itself would have relied on (`changes.py`). If another worker has moved the call on
meanwhile, it changes nothing.
Rule 2: `after` says of a state in memory what the row would be; the two must agree (a test compares them, change by change).
Rule 3: of one epoch, changes are made in the order of `ORDER`: a stream is taken before it is remembered, and left at last.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.disposition import Filed, Intent, Utterance
from app.call.journal import Line as JournalLine
from app.store import changes
from app.store.changes import Pricing
from app.store.facts import CallState, NewCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The stream of this epoch came, and was taken here."""

    worker: str
    stream_sid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is to follow this stream."""

    next_step: Intent
    transfer_to: str | None


@dataclass(frozen=True, slots=True)
class Advanced:
    """The next epoch was opened."""


@dataclass(frozen=True, slots=True)
class Healthy:
    """The stream of this epoch carried sound for long enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierSaid:
    """A status of the carrier's, of a call that we may not know."""

    sid: str
    status: str
    sequence: int | None
    duration_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The call's end, as a filed fact."""

    filed: Filed = field(repr=False)
    fenced: bool
    """Only while the epoch is current; else by who stands outside every stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A live call as this process knew it when the database went away. Changes nothing; it is for whoever finds the spool."""

    state: CallState = field(repr=False)
    said: tuple[Utterance, ...] = field(repr=False)


type Change = Claimed | Planned | Advanced | Healthy | CarrierSaid | Finished | Known
type Fact = NewCall | KeepUtterance | KeepTurn | KeepTool | KeepMemory | Change
"""A `NewCall` is put by who had to answer a call while the database was away: its row is made late, and all else waits with it."""
type Item = JournalLine | Fact
type Line = tuple[str, int, JournalLine]
"""Call, epoch, the line."""
type Kept = tuple[str, int, int, datetime, Fact]
"""Call, epoch, position, when it was put, the fact."""
type Key = tuple[type, str, int, str | int]

CHANGES = Change.__value__.__args__
ORDER: dict[type, int] = {Claimed: 0, KeepMemory: 1, Healthy: 2, Planned: 2, CarrierSaid: 2, Advanced: 3, Known: 4, Finished: 5}
"""Rule 3."""


def key(call_id: str, epoch: int, item: Fact) -> Key:
    """Of two facts with the same key the later stands."""
    match item:
        case KeepUtterance():
            return (KeepUtterance, call_id, epoch, item.utterance.key)
        case KeepTurn():
            return (KeepTurn, call_id, epoch, item.turn.number)
        case KeepTool():
            return (KeepTool, call_id, epoch, item.tool_call)
        case CarrierSaid():
            return (CarrierSaid, item.sid, epoch, f"{item.status} {item.sequence}")
        case _:
            return (type(item), call_id, epoch, 0)


def newborn(call_id: str, new: NewCall, at: datetime) -> CallState:
    """The state of a call that has just been born."""
    return CallState(
        call_id=call_id,
        carrier_call_sid=new.carrier_call_sid,
        account_sid=new.account_sid,
        epoch=1,
        claimed_epoch=0,
        next_step=Intent.TALK,
        transfer_to=None,
        resume_attempts=0,
        final=False,
        agent=new.agent,
        from_number=new.from_number,
        to_number=new.to_number,
        started_at=at,
        memory=None,
        carrier_status=None,
        channel=new.channel,
        direction=new.direction,
        worker=None,
        updated_at=at,
    )


def after(state: CallState, epoch: int, change: Fact, at: datetime) -> CallState | None:
    """The state after a change; None if it relies on what is not so, and changes nothing (rule 2)."""
    now: dict[str, Any]
    match change:
        case CarrierSaid():
            said, known = change.status, state.carrier_status
            if said == known or said not in changes.RANK or not changes.is_news(said, change.sequence, known, None):
                return None
            return replace(state, carrier_status=change.status, updated_at=at)
        case Finished() if not state.final and (not change.fenced or state.epoch == epoch):
            memory = change.filed.memory
            return replace(
                state,
                final=True,
                memory=memory,
                agent=memory.agent,
                transfer_to=memory.transfer_to or state.transfer_to,
                updated_at=at,
            )
        case _ if state.final or state.epoch != epoch:
            return None
        case Claimed() if state.claimed_epoch < epoch:
            now = {"claimed_epoch": epoch, "worker": change.worker}
        case Planned():
            now = {"next_step": change.next_step, "transfer_to": change.transfer_to}
        case Advanced():
            attempts = state.resume_attempts + 1
            now = {"epoch": epoch + 1, "resume_attempts": attempts, "next_step": Intent.TALK, "transfer_to": None}
        case Healthy() if state.resume_attempts:
            now = {"resume_attempts": 0}
        case KeepMemory():
            now = {"memory": change.memory, "agent": change.memory.agent}
        case _:
            return None
    return replace(state, updated_at=at, **now)


async def make(connection: AsyncConnection, call_id: str, epoch: int, at: datetime, change: Change, pricing: Pricing) -> None:
    """Make a change late (rule 1)."""
    match change:
        case Claimed():
            await connection.execute(
                changes.claim(call_id, epoch, worker=change.worker, stream_sid=change.stream_sid, at=at)
            )  # fmt: skip
        case Planned():
            await connection.execute(changes.plan(call_id, epoch, change.next_step, change.transfer_to, at=at))
        case Advanced():
            await connection.execute(changes.advance(call_id, epoch, at=at))
        case Healthy():
            await connection.execute(changes.healthy(call_id, epoch, at=at))
        case CarrierSaid():
            sequence, duration_s = change.sequence, change.duration_s
            await changes.take_in_status(connection, change.sid, change.status, sequence=sequence, duration_s=duration_s, at=at)
        case Finished():
            fence = epoch if change.fenced else None
            await changes.finish(connection, call_id, change.filed, epoch=fence, pricing=pricing, at=at)
        case Known():
            pass
