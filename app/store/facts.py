"""Rows become facts here, and facts rows; nowhere else. What leaves the store is a dataclass or JSON-ready."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import msgspec
import sqlalchemy as sa

from app.call.disposition import Intent, Memory, Slot, Turn, Utterance
from app.store.tables import RowState


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCall:
    """What is known of a call when it is born."""

    carrier_call_sid: str | None
    account_sid: str | None
    from_number: str | None = field(repr=False)
    to_number: str | None = field(repr=False)
    direction: str = "inbound"
    channel: str = "phone"
    agent: str
    forwarded_from: str | None = field(default=None, repr=False)
    attestation: str | None = None
    """The carrier's word on whether the caller's number is the caller's own (STIR/SHAKEN)."""
    audio_path: str | None = None
    model: str | None = None
    prompt_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallState:
    """A call as the store knows it now."""

    call_id: str
    carrier_call_sid: str | None
    account_sid: str | None
    epoch: int
    claimed_epoch: int
    """The last epoch whose stream came; 0 before the first."""
    next_step: Intent
    """What is to follow when the stream ends."""
    transfer_to: str | None
    resume_attempts: int
    final: bool
    agent: str
    from_number: str | None = field(repr=False)
    to_number: str | None = field(repr=False)
    started_at: datetime
    """The birth, in UTC: the zero of every time in milliseconds."""
    memory: Memory | None = field(repr=False)
    carrier_status: str | None
    channel: str
    direction: str
    worker: str | None
    """Who claimed the last stream."""
    updated_at: datetime


STATE_COLUMNS = (
    *("call_id", "carrier_call_sid", "account_sid", "epoch", "claimed_epoch", "next_step", "transfer_to", "resume_attempts"),
    *("state", "agent", "from_number", "to_number", "started_at", "memory", "carrier_status", "channel", "direction", "worker"),
    "updated_at",
)


def call_state(row: sa.RowMapping) -> CallState:
    """The fact of a row that has STATE_COLUMNS."""
    values = {name: row[name] for name in STATE_COLUMNS}
    values["final"] = values.pop("state") is RowState.FINAL
    values["channel"], values["direction"] = values["channel"].value, values["direction"].value
    values["memory"] = stored_memory(row["memory"])
    return CallState(**values)


def newborn_columns(call_id: str, new: NewCall, at: datetime, blind_index: Callable[[str | None], str | None]) -> dict[str, Any]:
    """The row of a call as it is born: epoch 1, nothing claimed, to talk."""
    return {
        "call_id": call_id,
        "carrier_call_sid": new.carrier_call_sid,
        "account_sid": new.account_sid,
        "channel": new.channel,
        "direction": new.direction,
        "from_number": new.from_number,
        "from_index": blind_index(new.from_number),
        "to_number": new.to_number,
        "to_index": blind_index(new.to_number),
        "forwarded_from": new.forwarded_from,
        "caller_attestation": new.attestation,
        "agent": new.agent,
        "agent_path": [new.agent],
        "epoch": 1,
        "claimed_epoch": 0,
        "next_step": Intent.TALK,
        "resume_attempts": 0,
        "state": RowState.LIVE,
        "started_at": at,
        "escalated": False,
        "turns": 0,
        "barge_ins": 0,
        "model": new.model,
        "prompt_version": new.prompt_version,
        "audio_path": new.audio_path,
        "created_at": at,
        "updated_at": at,
    }


def memory_columns(memory: Memory) -> dict[str, Any]:
    """The columns of `calls` that say what the call knows of itself."""
    return {
        "memory": msgspec.to_builtins(memory),
        "agent": memory.agent,
        "agent_path": list(memory.agent_path),
        "slots": {slot.name: slot_entry(slot) for slot in memory.slots},
        "urgency": next((slot.value for slot in memory.slots if slot.name == "urgency"), None),
        "disposition": memory.disposition,
        "intent": memory.intent,
        "summary": memory.summary,
        "next_action": memory.next_action,
        "escalated": memory.escalated,
        "turns": memory.caller_turns,
        "barge_ins": memory.barge_ins,
    }


def slot_entry(slot: Slot) -> dict[str, Any]:
    """A slot as the agent noted it, in `calls.slots`."""
    return {
        "value": slot.value,
        "confirmed": slot.confirmed,
        "utterance": slot.utterance,
        "agent": slot.agent,
        "at": slot.at,
    }


def stored_memory(value: Any) -> Memory | None:
    """What a call knows of itself, from its column."""
    return None if value is None else msgspec.convert(value, Memory)


def ref(epoch: int, key: str) -> str:
    """The name of an utterance within its call: its key alone may come again in another epoch."""
    return f"{epoch}.{key}"


def slot_refs(slots: Iterable[Slot], spoken: Iterable[tuple[int, str, int]]) -> dict[str, str]:
    """The utterance each slot was heard in, by the slot's name, where it is known.

    `spoken` is (epoch, key, began at) of the call's utterances. A slot knows its utterance by the key alone: of several it is the
    last that had begun when the slot was noted.
    """
    by_key: dict[str, list[tuple[int, int]]] = {}
    for epoch, key, began in spoken:
        by_key.setdefault(key, []).append((began, epoch))
    found = {}
    for slot in slots:
        candidates = sorted(by_key.get(slot.utterance or "", ()))
        if candidates:
            before = [candidate for candidate in candidates if candidate[0] <= slot.at]
            found[slot.name] = ref((before or candidates[:1])[-1][1], slot.utterance or "")
    return found


def utterance_columns(call_id: str, epoch: int, position: int, said: Utterance) -> dict[str, Any]:
    """The row of an utterance."""
    return {
        "call_id": call_id,
        "epoch": epoch,
        "key": said.key,
        "position": position,
        "speaker": said.speaker,
        "agent": said.agent,
        "started_at_ms": said.started_at,
        "ended_at_ms": said.ended_at,
        "heard": said.heard,
        "unheard": said.unheard,
        "heard_ms": said.heard_ms,
        "generated_ms": said.generated_ms,
        "interrupted": said.interrupted,
        "untranscribed": said.untranscribed,
    }


def utterance(row: sa.RowMapping) -> Utterance:
    """The fact of an utterance's row."""
    return Utterance(
        key=row["key"],
        speaker=row["speaker"].value,
        agent=row["agent"],
        started_at=row["started_at_ms"],
        ended_at=row["ended_at_ms"],
        heard=row["heard"],
        unheard=row["unheard"],
        heard_ms=row["heard_ms"],
        generated_ms=row["generated_ms"],
        interrupted=row["interrupted"],
        untranscribed=row["untranscribed"],
    )


def turn_columns(call_id: str, epoch: int, turn: Turn) -> dict[str, Any]:
    """The row of a turn."""
    return {
        "call_id": call_id,
        "epoch": epoch,
        "number": turn.number,
        "agent": turn.agent,
        "utterance": turn.utterance,
        "speech_ended_at_ms": turn.speech_ended_at,
        "committed_at_ms": turn.committed_at,
        "requested_at_ms": turn.requested_at,
        "first_audio_at_ms": turn.first_audio_at,
        "audible_at_ms": turn.audible_at,
        "latency_ms": turn.latency_ms,
        "tools": turn.tools,
        "interrupted": turn.interrupted,
    }


def plain(row: sa.RowMapping | Mapping[str, Any], *leave_out: str) -> dict[str, Any]:
    """A row as JSON can say it: moments in ISO 8601, closed lists by their words."""
    return {str(name): _plain(value) for name, value in row.items() if name not in leave_out}


def from_json(text: str | None) -> Any:
    """JSON text as its value; text that is no JSON stays as it is (a model's arguments are kept as they came)."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value
