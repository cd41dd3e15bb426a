"""Finished calls, readings of them and an outbox, for tests of what comes after a call."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.call.commands import KeepUtterance
from app.call.disposition import Memory, Slot
from app.store.after_tables import AFTER_CALL, DeliveryKind
from app.store.calls import Calls
from app.store.deliveries import NewDelivery
from app.store.engine import Database
from app.store.judgements import Judgements, NewJudgement, NewReading
from app.store.ledger import Ledger
from app.store.writer import Writer
from tests.store.shelf import PRICED, Clock, context, filed, memory, new_call, utterance

NAME, NUMBER, REASON = "Maria Lopez", "+15550100001", "a larger garden"


def noted(**other: Any) -> Memory:
    """What the agent noted: three slots (the number's utterance is of the second stream), and its own judgements."""
    slots = (
        Slot(name="name", value=NAME, utterance="u1", agent="front-desk", confirmed=True, at=4_000),
        Slot(name="callback_number", value=NUMBER, utterance="u1", agent="sales", confirmed=True, at=40_000),
        Slot(name="urgency", value="high", agent="front-desk", at=5_000),
    )
    return memory(**({"slots": slots, "escalated": True} | other))


async def finished(database: Database, clock: Clock, sid: str | None = "CA1", *, known: Memory | None = None) -> str:
    """A finished call of two streams whose utterances bear the same keys, with an errand that was done."""
    calls = Calls(database, clock=clock)
    state, _ = await calls.born(new_call(sid))
    call_id = state.call_id
    writer = Writer(database, clock=clock)
    writer.put(call_id, 1, KeepUtterance(utterance("u1", 1_000, heard="This is Maria Lopez.")))
    writer.put(call_id, 1, KeepUtterance(utterance("u2", 3_000, speaker="agent", agent="front-desk", heard="Hello Maria.")))
    writer.put(call_id, 2, KeepUtterance(utterance("u1", 30_000, heard="My number is 555 010 0001.")))
    await writer.flush()
    ledger = Ledger(database, clock=clock)
    await ledger.intend(context(call_id), "t1", "take_message", "{}", True)
    await ledger.done(context(call_id), "t1", '{"taken": true}')
    assert await calls.finish(call_id, filed(memory=known or noted()), epoch=None, **PRICED)
    return call_id


def judgement(field: str, value: Any, evidence: Sequence[str] = ("1.u1",), **other: Any) -> NewJudgement:
    provenance = {"confidence": 0.8, "analyzer": "rules", "model": None, "prompt_version": "rules-1"}
    if value is None:
        evidence, provenance["confidence"] = (), 0.0
    return NewJudgement(field=field, value=value, evidence=evidence, **(provenance | other))


def reading(call_id: str, batch: str = AFTER_CALL, *, reviews: Mapping[str, str] | None = None, **values: Any) -> NewReading:
    """A reading that judges everything, and says what it is not told otherwise."""
    known = {
        "summary": "She wants a garden.",
        "sentiment": "positive",
        "sentiment_course": ["neutral", "positive"],
        "intent": "buy",
        "lead_score": 65,
        "urgency": None,
        "escalation": None,
        "disposition": "callback_requested",
        "next_action": None,
        "name": NAME,
        "callback_number": "+15550100002",
        "reason": REASON,
    } | values
    reasons = {"lead_score": [{"name": "wants_work", "because": "a garden", "evidence": ["1.u1"]}]}
    return NewReading(
        call_id=call_id,
        batch=batch,
        analyzer="rules",
        prompt_version="rules-1",
        rubric="rubric-1@0",
        judgements=[judgement(field, value, reasons=reasons.get(field)) for field, value in known.items()],
        review_reasons={"callback_number": "values_differ"} if reviews is None else reviews,
    )


async def settled(judgements: Judgements, call_id: str, **values: Any) -> str:
    """Read a call and put the reading in force; its id."""
    reading_id = await judgements.keep(reading(call_id, **values))
    assert await judgements.settle(call_id, reading_id)
    return reading_id


def tell_crm(row: Mapping[str, Any], event: str) -> list[NewDelivery]:
    """One webhook for each piece of news, with the whole row in it; and an alarm, once a call."""
    body = json.dumps({"type": event, "data": row})
    news = [NewDelivery(kind=DeliveryKind.WEBHOOK, destination="crm", event=event, revision=row["revision"], body=body)]
    if row["needs_review"]:
        news.append(NewDelivery(kind=DeliveryKind.MAIL, destination="mail", event="alarm", revision=0, body="Look at it."))
    return news


TOOL = ("take_message", "front-desk", True, "done")
