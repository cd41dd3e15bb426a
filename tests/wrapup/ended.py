"""Finished calls with a talk, an agent's notes and a ledger, in a database."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from app.call.commands import KeepUtterance
from app.call.disposition import EndReason, Outcome, Slot, Utterance
from app.store.calls import Calls
from app.store.engine import Database
from app.store.ledger import Ledger
from app.store.writer import Writer
from app.wrapup.cases import Case
from tests.store.shelf import PRICED, Clock, context, filed, memory, new_call, utterance

BOOKED = ("book_appointment", {"booked": True, "spoken": "Tuesday at 10 in the morning"})
TAKEN = ("book_appointment", {"booked": False, "why": "taken"})
MESSAGE = ("take_message", {"taken": True})
TALK = (
    "ivy: Linden Gardens, hello! How can I help you?",
    "caller: I would like to book an appointment to have my hedge trimmed.",
    "ivy: May I have your first and last name?",
    "caller: Anna Miller.",
    "ivy: Under which number can we reach you?",
    "caller: Two one two, five five five, zero one four two.",
    "ivy: Two one two, five five five, zero one four two. Is that right?",
    "caller: Yes, that's right.",
    "ivy: Tuesday at ten o'clock. Shall I book that?",
    "caller: Yes, please.",
    "ivy: It is booked: Tuesday at ten o'clock. Is there anything else?",
    "caller: No, that's all. Thank you.",
)
SLOTS = {"name": "Anna Miller", "callback_number": "+12125550142", "reason": "trim the hedge"}
FILED = {"disposition": "appointment_booked", "intent": "book_appointment", "summary": "A hedge.", "next_action": None}
NOTHING_FILED = dict.fromkeys(("disposition", "intent", "summary", "next_action"))


async def ended(
    database: Database,
    clock: Clock,
    *lines: str | Utterance,
    sid: str = "CA1",
    slots: Mapping[str, str] = SLOTS,
    tools: Iterable[tuple[str, Any]] = (BOOKED,),
    filed_as: Mapping[str, Any] = FILED,
    outcome: Outcome = Outcome.COMPLETED,
    end_reason: EndReason = EndReason.AGENT_ENDED,
) -> str:
    """A finished call. Lines are `caller: words`, or an agent's name and words; their refs are `1.u1`, `1.u2` and so on."""
    calls = Calls(database, clock=clock)
    state, _ = await calls.born(new_call(sid))
    writer = Writer(database, clock=clock)
    for number, line in enumerate(lines or TALK, start=1):
        writer.put(state.call_id, 1, KeepUtterance(line if isinstance(line, Utterance) else _said(number, line)))
    await writer.flush()
    ledger = Ledger(database, clock=clock)
    for number, (name, result) in enumerate(tools, start=1):
        await ledger.intend(context(state.call_id), f"t{number}", name, "{}", True)
        await ledger.done(context(state.call_id), f"t{number}", json.dumps(result))
    notes = tuple(Slot(name=name, value=value, agent="ivy", at=20_000) for name, value in slots.items())
    known = filed(outcome=outcome, end_reason=end_reason, memory=memory(slots=notes, **filed_as))
    assert await calls.finish(state.call_id, known, epoch=None, **PRICED)
    return state.call_id


def _said(number: int, line: str) -> Utterance:
    who, _, text = line.partition(": ")
    agent = None if who == "caller" else who
    return utterance(f"u{number}", number * 1_000, speaker="agent" if agent else "caller", agent=agent, heard=text)


async def as_written(database: Database, clock: Clock, case: Case, **more: Any) -> str:
    """A written call as it would stand in the database, with nothing noted, filed or done."""
    said = [replace(each, agent="ivy" if each.speaker == "agent" else None) for each in case.utterances]
    return await ended(database, clock, *said, **{"sid": case.name, "slots": {}, "tools": (), "filed_as": NOTHING_FILED, **more})
