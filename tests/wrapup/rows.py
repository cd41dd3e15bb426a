"""Finished calls in a real store, and rows as `Calls.row()` gives them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from app.call.disposition import Utterance
from app.settings import Settings
from app.store.after_tables import AFTER_CALL
from app.store.calls import Calls
from app.store.deliveries import NewDelivery
from app.store.engine import Database
from app.store.facts import utterance_columns
from app.store.judgements import Judgements, NewJudgement, NewReading, no_outbox
from app.store.tables import utterances
from tests.store.shelf import PRICED, Clock, filed, new_call, utterance

SECRETS = ("whsec_" + "QUFB" * 8, "whsec_" + "QkJC" * 8)
NEEDED = {
    "PUBLIC_URL": "https://calls.example.com",
    "TWILIO_ACCOUNT_SID": "AC" + "1" * 32,
    "TWILIO_AUTH_TOKEN": "token",
    "OPENAI_API_KEY": "key",
}
SPOKEN = (
    utterance("a1", 0, speaker="agent", agent="front-desk", heard="Good morning, who is calling?"),
    utterance("u1", 2_000, heard="Maria Lopez. Our whole garden needs doing, this month."),
    utterance("a2", 6_000, speaker="agent", agent="front-desk", heard="How can we"),
    utterance("u2", 9_000, heard=None, untranscribed=True),
)


def settings(**env: str) -> Settings:
    """Settings with these beside what is needed."""
    return Settings.from_env(NEEDED | env)


def all_destinations(webhook: str = "https://crm.example.com/hook", chat: str = "https://chat.example.com/hook") -> dict[str, str]:
    """Everywhere something can be sent to."""
    return {
        "WEBHOOK_URL": webhook,
        "WEBHOOK_SECRET": ",".join(SECRETS),
        "CHAT_WEBHOOK_URL": chat,
        "SMTP_URL": "smtps://mail.example.com",
        "MAIL_FROM": "callrow@example.com",
        "MAIL_TO": "sales@example.com,owner@example.com",
    }


def judgement(field: str, value: Any, *evidence: str, **other: Any) -> NewJudgement:
    """A judgement of the model's."""
    known = {"confidence": 0.8, "analyzer": "openai", "model": "test-model", "prompt_version": "analysis-1@0"}
    return NewJudgement(field=field, value=value, evidence=evidence, **(known | other))


READ = (
    judgement("summary", "Maria wants her garden done.", "1.u1"),
    judgement("sentiment", "positive", "1.u1"),
    judgement("sentiment_course", ["positive"], "1.u1"),
    judgement("intent", "buy", "1.u1"),
    judgement("lead_score", 40, "1.u1", reasons=[{"name": "wants_work", "because": "the whole garden", "evidence": ["1.u1"]}]),
    judgement("urgency", None, confidence=0.0, dropped="no_evidence"),
    judgement("escalation", True, "1.u1", reasons=[{"name": "wants_a_person", "because": "", "evidence": ["1.u1"]}]),
    judgement("disposition", "callback_requested", "1.u1", "1.a2"),
    judgement("next_action", "Call Maria back.", "1.u1"),
    judgement("name", "Maria Lopez", "1.u1"),
    judgement("reason", "Our whole garden needs doing", "1.u1"),
)


async def finished(
    database: Database, *, sid: str = "CA1", clock: Clock | None = None, spoken: Sequence[Utterance] = SPOKEN, **other: Any
) -> str:
    """A call that has ended and waits for its reading. `other` goes into what was filed."""
    clock = clock or Clock()
    calls = Calls(database, clock=clock)
    state, _ = await calls.born(new_call(sid))
    await calls.claim(state.call_id, 1, worker="w", stream_sid="MZ1")
    async with database.write() as connection:
        for position, said in enumerate(spoken):
            await connection.execute(sa.insert(utterances).values(utterance_columns(state.call_id, 1, position, said)))
    clock.now += timedelta(seconds=61.5)
    assert await calls.finish(state.call_id, filed(**other), epoch=1, **PRICED)
    return state.call_id


async def read(
    database: Database,
    call_id: str,
    judged: Sequence[NewJudgement] = READ,
    *,
    outbox: Callable[[Mapping[str, Any], str], Sequence[NewDelivery]] = no_outbox,
    clock: Clock | None = None,
) -> Judgements:
    """Have the call read."""
    judgements = Judgements(database, outbox, clock=clock or Clock())
    reading = NewReading(
        call_id=call_id,
        batch=AFTER_CALL,
        analyzer="openai",
        model="test-model",
        prompt_version="analysis-1@0",
        rubric="rubric-1@0",
        tokens_in=100,
        tokens_out=10,
        judgements=judged,
        review_reasons={"name": "values_differ"},
    )
    assert await judgements.settle(call_id, await judgements.keep(reading))
    return judgements


async def row_of(database: Database, call_id: str) -> dict[str, Any]:
    """The row as the store gives it."""
    row = await Calls(database).row(call_id)
    assert row is not None
    return row
