"""What is in force of all that was said about a call; on both databases, repeated and by many at once."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.call.disposition import EndReason, Outcome, Slot
from app.store.calls import Calls
from app.store.engine import Database
from app.store.filters import Filters
from app.store.judgements import Judgements, NotFinished
from app.store.listing import Listing
from app.store.projection import FIELDS
from app.store.tables import AnalysisState
from app.wrapup.facts import Field
from tests.store.afterwards import NAME, NUMBER, REASON, TOOL, finished, noted, reading, settled, tell_crm
from tests.store.shelf import KEY, new_call


def test_the_store_and_the_analysis_know_the_same_fields():
    assert set(FIELDS) == set(Field)


# ---- what is to be read


async def test_a_finished_call_is_due_for_its_first_reading_and_a_live_one_is_not(judgements, database, clock):
    await Calls(database, clock=clock).born(new_call("CA-live"))
    first = await finished(database, clock)
    clock.pass_(seconds=1)
    second = await finished(database, clock, "CA2")
    assert await judgements.due(10) == [(first, 1), (second, 1)]
    assert await judgements.due(1) == [(first, 1)]
    await settled(judgements, first)
    assert await judgements.due(10) == [(second, 1)]


async def test_an_analyzer_is_given_the_call_with_utterances_that_have_one_name_each(judgements, database, clock):
    call_id = await finished(database, clock)
    found = await judgements.for_reading(call_id)
    assert (found.final, found.analysis, found.attempts) == (True, AnalysisState.WAITING, 0)
    assert [(said.key, said.heard) for said in found.utterances] == [
        ("1.u1", "This is Maria Lopez."),
        ("1.u2", "Hello Maria."),
        ("2.u1", "My number is 555 010 0001."),
    ]
    assert {slot.name: slot.utterance for slot in found.slots} == {"name": "1.u1", "callback_number": "2.u1", "urgency": None}
    assert found.filed == {
        "disposition": "sales_lead",
        "intent": "buy",
        "summary": "Maria wants a larger garden.",
        "next_action": "Call Maria back.",
        "urgency": "high",
        "escalated": True,
    }
    assert (found.tools, found.results) == ((TOOL,), ({"taken": True},))
    assert (found.outcome, found.end_reason) == (Outcome.COMPLETED, EndReason.AGENT_ENDED)
    assert "Maria" not in repr(found)
    assert await judgements.for_reading("nobody") is None


async def test_only_a_finished_call_is_judged(judgements, database, clock, row):
    state, _ = await Calls(database, clock=clock).born(new_call())
    with pytest.raises(NotFinished):
        await judgements.keep(reading(state.call_id))
    assert not await judgements.settle(state.call_id, "nothing")
    assert not await judgements.correct(state.call_id, "intent", "buy", by="ann")
    assert not await judgements.reviewed(state.call_id, by="ann")
    assert not await judgements.again(state.call_id, "ann")
    assert not await judgements.later(state.call_id, 1, clock.now, "busy")
    assert not await judgements.give_up(state.call_id, 1, "refused")
    assert await judgements.of_call(state.call_id) == []
    assert (await row(state.call_id))["revision"] == 0


# ---- the reading


async def test_a_reading_stands_in_the_row_with_what_it_rests_on(judgements, database, clock, row, told):
    call_id = await finished(database, clock)
    clock.pass_(seconds=5)
    await settled(judgements, call_id)
    found = await row(call_id)
    assert (found["summary"], found["sentiment"], found["sentiment_course"]) == (
        "She wants a garden.",
        "positive",
        ["neutral", "positive"],
    )
    assert (found["intent"], found["lead_score"], found["disposition"]) == ("buy", 65, "callback_requested")
    assert (found["analysis"], found["analyzer"], found["analyzed_at"]) == ("done", "rules", clock.now.isoformat())
    assert (found["analysis_due_at"], found["analysis_fault"], found["revision"]) == (None, None, 2)
    assert found["judged"]["lead_score"] == {
        "value": 65,
        "source": "machine",
        "confidence": 0.8,
        "evidence": ["1.u1"],
        "analyzer": "rules",
        "model": None,
        "prompt_version": "rules-1",
        "reasons": [{"name": "wants_work", "because": "a garden", "evidence": ["1.u1"]}],
        "dropped": None,
        "said_by": None,
        "at": clock.now.isoformat(),
    }
    assert {said["ref"] for said in found["utterances"]} == {"1.u1", "1.u2", "2.u1"}
    assert await told(call_id) == [(2, "call.finished")]


async def test_a_call_that_was_read_is_found_by_its_words(judgements, database, clock):
    call_id = await finished(database, clock)
    page = Listing(database)

    async def found(words: str) -> list[str]:
        return [row["call_id"] for row in (await page.page(Filters(text=words))).rows]

    assert await found("Maria Lopez") == []
    await settled(judgements, call_id)
    assert await found("maria lopez") == await found("wants a garden") == [call_id]
    assert await judgements.correct(call_id, "summary", "She wants a pond.", by="ann")
    assert (await found("pond"), await found("garden")) == ([call_id], [])


async def test_a_value_without_evidence_does_not_stand_also_if_the_agent_noted_it(judgements, database, clock, row):
    call_id = await finished(database, clock)
    before = await row(call_id)
    assert (before["next_action"], before["urgency"], before["escalated"]) == ("Call Maria back.", "high", True)
    assert before["judged"]["next_action"]["source"] == "agent"
    await settled(judgements, call_id)
    found = await row(call_id)
    assert (found["next_action"], found["urgency"], found["escalated"], found["escalation_reason"]) == (None, None, False, None)
    assert found["judged"]["next_action"]["value"] is None
    kept = {each["field"]: each["value"] for each in await judgements.of_call(call_id) if each["source"] == "agent"}
    assert kept == {
        "name": NAME,
        "callback_number": NUMBER,
        "urgency": "high",
        "disposition": "sales_lead",
        "intent": "buy",
        "summary": "Maria wants a larger garden.",
        "next_action": "Call Maria back.",
        "escalation": True,
    }


async def test_the_concerns_are_the_reason_of_an_escalation(judgements, database, clock, row):
    call_id = await finished(database, clock)
    new = reading(call_id)
    flagged = [each for each in new.judgements if each.field != "escalation"]
    concerns = [{"name": name, "because": "", "evidence": []} for name in ("threat", "left_angry", "threat")]
    judged = type(flagged[0])(field="escalation", value=True, evidence=["1.u1"], analyzer="rules", reasons=concerns)
    await judgements.settle(call_id, await judgements.keep(replace(new, judgements=[*flagged, judged])))
    found = await row(call_id)
    assert (found["escalated"], found["escalation_reason"]) == (True, "threat, left_angry")


async def test_slots_are_kept_twice_and_the_agents_value_stands(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    found = await row(call_id)
    assert found["slots"]["callback_number"] == {
        "value": NUMBER,
        "confirmed": True,
        "utterance": "u1",
        "agent": "sales",
        "at": 40_000,
        "second_reading": {"value": "+15550100002", "evidence": ["1.u1"], "confidence": 0.8},
        "source": "agent",
    }
    assert found["slots"]["reason"] == {
        "value": REASON,
        "confirmed": False,
        "utterance": None,
        "agent": None,
        "at": None,
        "second_reading": {"value": REASON, "evidence": ["1.u1"], "confidence": 0.8},
        "source": "machine",
    }
    assert found["slots"]["urgency"]["second_reading"] is None
    assert (found["needs_review"], found["review_reasons"]) == (True, {"callback_number": "values_differ"})
    assert (found["judged"]["callback_number"]["source"], found["judged"]["callback_number"]["evidence"]) == ("agent", ["2.u1"])
    assert found["judged"]["reason"]["source"] == "machine"


async def test_a_slot_of_which_nobody_knows_is_not_there(judgements, database, clock, row):
    call_id = await finished(database, clock, known=noted(slots=(Slot(name="budget", value="5000", agent="sales"),)))
    await settled(judgements, call_id, name=None, callback_number=None, reason=None, reviews={})
    found = await row(call_id)
    assert {name: slot["source"] for name, slot in found["slots"].items()} == {"budget": "agent"}
    assert (found["needs_review"], found["review_reasons"]) == (False, None)


async def test_a_reading_is_kept_and_settled_once_however_often_it_is_asked_for(judgements, database, clock, row, told):
    call_id = await finished(database, clock)
    first = await judgements.keep(reading(call_id))
    assert await judgements.keep(reading(call_id, intent="support")) == first
    assert [await judgements.settle(call_id, first) for _ in range(3)] == [True, False, False]
    found = await row(call_id)
    assert (found["intent"], found["revision"]) == ("buy", 2)
    assert await told(call_id) == [(2, "call.finished")]
    assert len(await judgements.of_call(call_id)) == 12 + 8


async def test_one_of_many_who_read_and_settle_a_call_at_once_does_it(database, database_url, clock, row, told):
    call_id = await finished(database, clock)
    others = [Database(database_url) for _ in range(2)]
    workers = [Judgements(each, tell_crm, clock=clock) for each in (database, *others)]

    async def read(worker: Judgements) -> tuple[str, bool]:
        kept = await worker.keep(reading(call_id))
        return kept, await worker.settle(call_id, kept)

    came = await asyncio.gather(*(read(workers[number % 3]) for number in range(8)))
    for other in others:
        await other.close()
    assert len({kept for kept, _ in came}) == 1
    assert sum(did for _, did in came) == 1
    assert (await row(call_id))["revision"] == 2
    assert await told(call_id) == [(2, "call.finished")]
    assert await told(call_id, "mail") == [(0, "alarm")]


async def test_what_cannot_be_told_does_not_happen(database, clock, row, told):
    call_id = await finished(database, clock)
    before = await row(call_id)

    def broken(found, event):
        assert (found["analysis"], found["revision"], event) == ("done", 2, "call.finished")
        raise RuntimeError("the outbox is broken")

    judgements = Judgements(database, broken, clock=clock)
    kept = await judgements.keep(reading(call_id))
    with pytest.raises(RuntimeError, match="broken"):
        await judgements.settle(call_id, kept)
    assert await row(call_id) == before
    assert await told(call_id) == []
    assert await judgements.due(10) == [(call_id, 1)]
    assert await Judgements(database, tell_crm, clock=clock).settle(call_id, kept)
    assert await told(call_id) == [(2, "call.finished")]


async def test_the_row_that_is_told_is_the_row_that_is_read(database, clock, row):
    call_id = await finished(database, clock)
    shown = []
    judgements = Judgements(database, lambda found, event: shown.append((event, found)) or (), clock=clock)
    await settled(judgements, call_id)
    assert shown == [("call.finished", await row(call_id))]
    await judgements.correct(call_id, "intent", "support", by="ann")
    assert shown[1:] == [("call.changed", await row(call_id))]
    assert json.loads(json.dumps(shown[1][1])) == shown[1][1]


# ---- when it cannot be read


async def test_an_attempt_in_vain_is_counted_once_and_the_next_comes_later(judgements, database, clock, row, told):
    call_id = await finished(database, clock)
    due_at = clock.now + timedelta(minutes=2)
    assert await judgements.later(call_id, 1, due_at, "busy")
    assert not await judgements.later(call_id, 1, due_at + timedelta(hours=1), "busy")
    assert not await judgements.give_up(call_id, 1, "busy")
    assert await judgements.due(10) == []
    clock.pass_(minutes=2)
    assert await judgements.due(10) == [(call_id, 2)]
    found = await row(call_id)
    assert (found["analysis"], found["analysis_attempts"], found["analysis_fault"]) == ("waiting", 1, "busy")
    await settled(judgements, call_id)
    assert not await judgements.later(call_id, 2, due_at, "busy")
    assert (await row(call_id))["analysis_fault"] is None
    assert await told(call_id) == [(2, "call.finished")]


async def test_a_reading_given_up_leaves_what_the_agent_noted_and_is_told_once(judgements, database, clock, row, told, audited):
    call_id = await finished(database, clock)
    assert await judgements.give_up(call_id, 1, "quota")
    assert not await judgements.give_up(call_id, 1, "quota")
    found = await row(call_id)
    assert (found["analysis"], found["analysis_fault"], found["analyzed_at"]) == ("failed", "quota", clock.now.isoformat())
    assert (found["disposition"], found["summary"], found["escalated"]) == ("sales_lead", "Maria wants a larger garden.", True)
    assert (found["analyzer"], found["needs_review"], found["lead_score"]) == (None, False, None)
    assert found["slots"]["name"] == {
        **{"value": NAME, "confirmed": True, "utterance": "u1", "agent": "front-desk", "at": 4_000},
        **{"second_reading": None, "source": "agent"},
    }
    assert {judged["source"] for judged in found["judged"].values()} == {"agent"}
    assert await judgements.failed(10) == [call_id]
    assert await told(call_id) == [(2, "call.finished")]

    assert await judgements.again(call_id, "ann")
    assert not await judgements.again(call_id, "ann")
    assert await judgements.due(10) == [(call_id, 2)]
    assert await judgements.give_up(call_id, 2, "quota")  # nothing of the row has changed
    assert await told(call_id) == [(2, "call.finished")]
    assert await judgements.again(call_id, "ben")
    await settled(judgements, call_id)
    assert await told(call_id) == [(2, "call.finished"), (3, "call.changed")]
    assert [line[:3] for line in await audited()] == [("operator:ann", "again", call_id), ("operator:ben", "again", call_id)]
    assert not await judgements.again(call_id, "ann")


# ---- private


async def test_with_a_key_no_word_of_a_judgement_lies_in_the_file(sqlite_url, clock):
    database = Database(sqlite_url, KEY)
    judgements = Judgements(database, tell_crm, clock=clock)
    call_id = await finished(database, clock, known=noted(summary="CANARY one"))
    await settled(judgements, call_id, summary="CANARY two", name="CANARY three")
    await judgements.correct(call_id, "next_action", "CANARY four", by="ann", note="CANARY five")
    found = await Calls(database).row(call_id)
    assert (found["summary"], found["next_action"]) == ("CANARY two", "CANARY four")
    assert "CANARY five" in json.dumps(await judgements.of_call(call_id))
    await database.close()
    path = Path(make_url(sqlite_url).database)
    written = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    assert call_id.encode() in written
    assert b"CANARY" not in written and b"Maria" not in written
