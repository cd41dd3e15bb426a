"""What is in force of all that was said about a call: an operator's word, the reading that stands, what the agent noted.

Rule 1: for each field the newest word of an operator stands, unless it takes an earlier one back; then the judgement of the
reading applied last and not withdrawn; and only where no reading stands, what the agent noted during the call.
Rule 2: what the reading could not find is NULL, also if the agent had noted it. Slots are the exception: there the agent's
value stands, the second reading lies beside it, and where they differ a person is asked.
Rule 3: nothing is computed from the columns that are written here. The agent's notes are taken from `calls.memory`.
Here is arithmetic over rows; `load` alone asks the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.call.disposition import Memory
from app.store.after_tables import Source, judgements, readings
from app.store.facts import slot_entry, stored_memory

COLUMNS = ("summary", "sentiment", "sentiment_course", "intent", "lead_score", "urgency", "disposition", "next_action")
"""Fields that are a column of the same name."""
ESCALATION = "escalation"
SLOTS = ("name", "callback_number", "reason")
FIELDS = (*COLUMNS, ESCALATION, *SLOTS)

PROVENANCE = ("confidence", "evidence", "analyzer", "model", "prompt_version", "reasons", "dropped", "said_by")
CARRIER = "carrier"
"""Under which name `review_reasons` has what the comparison with the carrier found (app/store/reconciling.py)."""
SHOWN = ("value", "source", *PROVENANCE, "at")

type Row = Mapping[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that a projection is made of."""

    memory: Memory | None = field(repr=False)
    reading: Row | None
    """The reading that stands; None while there is none."""
    review_reasons: Mapping[str, str]
    read: Mapping[str, Row] = field(repr=False)
    """What it judged, by field. A field that it says nothing of is taken from the reading before it."""
    said: Mapping[str, Row] = field(repr=False)
    """What operators say, by field."""
    applied_at: datetime | None
    """When that reading was applied; None while it is only looked at as if."""
    reviewed_at: datetime | None
    of_the_carrier: Mapping[str, str] = field(default_factory=dict)
    """What the comparison with the carrier's call log found; no reading knows of that."""

    def standing(self, which: str) -> Row | None:
        """The judgement that is in force, of an operator or a reading."""
        return self.said.get(which) or self.read.get(which)


async def load(connection: AsyncConnection, call: Row, *, as_if: str | None = None) -> Known:
    """What is known of a call (a row of `calls`). `as_if` is the id of a reading to be taken as the one applied last."""
    mine = readings.c.call_id == call["call_id"]
    stands = mine & readings.c.applied_at.is_not(None) & readings.c.withdrawn_at.is_(None)
    which = stands if as_if is None else (stands & (readings.c.id != as_if)) | (mine & (readings.c.id == as_if))
    order = (*((sa.case((readings.c.id == as_if, 1), else_=0),) if as_if else ()), readings.c.applied_at, readings.c.id)
    applied = (await connection.execute(sa.select(readings).where(which).order_by(*order))).mappings().all()
    found = await connection.execute(
        sa.select(judgements)
        .where(
            judgements.c.call_id == call["call_id"],
            (judgements.c.source == Source.OPERATOR) | judgements.c.reading_id.in_([reading["id"] for reading in applied]),
        )
        .order_by(judgements.c.id)
    )
    by_reading: dict[str, dict[str, Row]] = {}
    said: dict[str, Row] = {}
    for row in found.mappings():
        if row["source"] is not Source.OPERATOR:
            by_reading.setdefault(row["reading_id"], {})[row["field"]] = row
        elif row["retracts"]:
            said.pop(row["field"], None)
        else:
            said[row["field"]] = row
    read: dict[str, Row] = {}
    reasons: Mapping[str, str] = {}
    for reading in applied:
        read |= by_reading.get(reading["id"], {})
        reasons = reading["review_reasons"] if reading["review_reasons"] is not None else reasons
    return Known(
        memory=stored_memory(call["memory"]),
        reading=applied[-1] if applied else None,
        review_reasons=reasons,
        read=read,
        said=said,
        applied_at=applied[-1]["applied_at"] if applied and applied[-1]["id"] != as_if else None,
        reviewed_at=call["reviewed_at"],
        of_the_carrier={name: why for name, why in (call["review_reasons"] or {}).items() if name == CARRIER},
    )


def filed(memory: Memory | None) -> dict[str, Any]:
    """The agent's own judgements, as noted during the call; None where it noted nothing."""
    if memory is None:
        return dict.fromkeys(("disposition", "intent", "summary", "next_action", "urgency")) | {"escalated": False}
    return {
        "disposition": memory.disposition,
        "intent": memory.intent,
        "summary": memory.summary,
        "next_action": memory.next_action,
        "urgency": next((slot.value for slot in memory.slots if slot.name == "urgency"), None),
        "escalated": memory.escalated,
    }


def columns(known: Known) -> dict[str, Any]:
    """The judged columns of `calls`."""
    by_agent = filed(known.memory)
    stands = known.reading is not None
    values: dict[str, Any] = {}
    for name in COLUMNS:
        judgement = known.standing(name)
        values[name] = judgement["value"] if judgement is not None else None if stands else by_agent.get(name)
    escalation = known.standing(ESCALATION)
    values["escalated"] = bool(escalation["value"]) if escalation is not None else not stands and by_agent["escalated"]
    values["escalation_reason"] = _escalation_reason(escalation)
    values["slots"] = _slots(known)
    reasons = {name: why for name, why in known.review_reasons.items() if name not in known.said} if stands else {}
    reasons |= known.of_the_carrier
    values["review_reasons"] = reasons or None
    values["needs_review"] = bool(reasons) and not _reviewed(known)
    values["analyzer"] = known.reading["analyzer"] if known.reading is not None else None
    return values


def values(known: Known) -> dict[str, Any]:
    """The value in force of every field, and whether a person should look at the row."""
    row = columns(known)
    slots = {name: row["slots"].get(name, {}).get("value") for name in SLOTS}
    return {name: row[name] for name in COLUMNS} | {ESCALATION: row["escalated"], **slots, "needs_review": row["needs_review"]}


def judged(known: Known, refs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """For each field what is in force and what it rests on, as JSON can say it. `refs` are the utterances of the agent's slots."""
    found = {which: _agents_judgement(which, known, refs) or _judgement(known.standing(which)) for which in FIELDS}
    return {which: judgement for which, judgement in found.items() if judgement is not None}


def _reviewed(known: Known) -> bool:
    """Whether a person has looked at the row since its reading was applied; or at all, if it was never read."""
    if known.reviewed_at is None or known.reading is None:
        return known.reviewed_at is not None
    return known.applied_at is not None and known.reviewed_at >= known.applied_at


def _escalation_reason(judgement: Row | None) -> str | None:
    if judgement is None or not judgement["value"]:
        return None
    if judgement["source"] is Source.OPERATOR:
        return Source.OPERATOR.value
    return ", ".join(dict.fromkeys(reason["name"] for reason in judgement["reasons"] or ())) or None


def _slots(known: Known) -> dict[str, dict[str, Any]]:
    noted = {slot.name: slot_entry(slot) for slot in known.memory.slots} if known.memory is not None else {}
    entries = {}
    for name in dict.fromkeys((*noted, *SLOTS)):
        agents, read, said = noted.get(name), known.read.get(name), known.said.get(name)
        has_second = read is not None and read["value"] is not None
        if agents is None and (name not in SLOTS or (not has_second and said is None)):
            continue
        entry = agents or {"value": None, "confirmed": False, "utterance": None, "agent": None, "at": None}
        entry = entry | {"second_reading": _second_reading(read) if read is not None and has_second else None}
        if said is not None and name in SLOTS:
            same = agents is not None and agents["value"] == said["value"]
            told = {} if same else {"confirmed": False, "utterance": None, "agent": None, "at": None}
            entry |= {**told, "value": said["value"], "source": Source.OPERATOR.value, "noted": agents}
        elif agents is None and read is not None:
            entry |= {"value": read["value"], "source": Source.MACHINE.value}
        else:
            entry |= {"source": Source.AGENT.value}
        entries[name] = entry
    return entries


def _second_reading(judgement: Row) -> dict[str, Any]:
    return {name: judgement[name] for name in ("value", "evidence", "confidence")}


def _agents_judgement(which: str, known: Known, refs: Mapping[str, str]) -> dict[str, Any] | None:
    """Where the agent's word is in force (rules 1 and 2): what it noted."""
    if which in known.said or known.memory is None or (which not in SLOTS and known.reading is not None):
        return None
    value: Any
    if which == ESCALATION:
        value = known.memory.escalated or None
    elif which in SLOTS:
        value = next((slot.value for slot in known.memory.slots if slot.name == which), None)
    else:
        value = filed(known.memory).get(which)
    if value is None:
        return None
    return _shown(value=value, source=Source.AGENT.value, evidence=[refs[which]] if which in refs else [])


def _judgement(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return _shown(
        value=row["value"],
        source=row["source"].value,
        **{name: row[name] for name in PROVENANCE},
        at=row["at"].isoformat(),
    )


def _shown(**known: Any) -> dict[str, Any]:
    return {name: known.get(name) for name in SHOWN}
