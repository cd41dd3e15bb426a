"""The operator's word beside the machine's, and above it; on both databases."""

import asyncio

import pytest

from app.store.audit import AuditLog
from app.store.engine import Database
from app.store.judgements import Judgements
from app.store.reconciling import Reconciling
from tests.store.afterwards import NUMBER, finished, reading, settled, tell_crm


async def test_an_operators_word_stands_above_the_machines_and_beside_it(judgements, database, clock, row, told, audited):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    clock.pass_(minutes=3)
    assert await judgements.correct(call_id, "disposition", "sales_lead", by="ann", note="She called back.", evidence=["2.u1"])
    assert not await judgements.correct(call_id, "disposition", "sales_lead", by="ben")
    found = await row(call_id)
    assert found["disposition"] == "sales_lead"
    in_force = found["judged"]["disposition"]
    assert (in_force["source"], in_force["said_by"], in_force["evidence"]) == ("operator", "ann", ["2.u1"])
    assert in_force["at"] == clock.now.isoformat()
    kept = [each for each in await judgements.of_call(call_id) if each["field"] == "disposition"]
    assert [(each["source"], each["value"], each["said_by"], each["note"]) for each in kept] == [
        ("agent", "sales_lead", None, None),
        ("machine", "callback_requested", None, None),
        ("operator", "sales_lead", "ann", "She called back."),
    ]
    assert await told(call_id) == [(2, "call.finished"), (3, "call.changed")]
    assert await audited() == [("operator:ann", "correct", call_id, {"field": "disposition"})]


async def test_a_word_taken_back_lets_the_machines_stand_again(judgements, database, clock, row, told, audited):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    assert not await judgements.retract(call_id, "intent", by="ann")
    await judgements.correct(call_id, "intent", "support", by="ann")
    await judgements.correct(call_id, "intent", "complaint", by="ben")
    assert (await row(call_id))["intent"] == "complaint"
    assert await judgements.retract(call_id, "intent", by="ann")
    assert not await judgements.retract(call_id, "intent", by="ann")
    assert (await row(call_id))["intent"] == "buy"
    assert [revision for revision, _ in await told(call_id)] == [2, 3, 4, 5]
    assert [(line[1], line[3]) for line in await audited()] == [
        ("correct", {"field": "intent"}),
        ("correct", {"field": "intent"}),
        ("retract", {"field": "intent"}),
    ]
    assert (await AuditLog(database).verify()).broken_at is None


async def test_that_there_is_nothing_is_an_operators_word_too(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    assert await judgements.correct(call_id, "lead_score", None, by="ann")
    assert await judgements.correct(call_id, "name", None, by="ann")
    found = await row(call_id)
    assert (found["lead_score"], found["slots"]["name"]["value"]) == (None, None)
    assert found["judged"]["lead_score"]["said_by"] == "ann"


async def test_an_escalation_is_the_operators_to_set_and_to_clear(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    await judgements.correct(call_id, "escalation", True, by="ann")
    found = await row(call_id)
    assert (found["escalated"], found["escalation_reason"]) == (True, "operator")
    await judgements.correct(call_id, "escalation", False, by="ann")
    found = await row(call_id)
    assert (found["escalated"], found["escalation_reason"]) == (False, None)


async def test_a_corrected_slot_keeps_what_the_agent_noted_and_needs_no_more_look(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await settled(judgements, call_id, reviews={"callback_number": "values_differ", "disposition": "values_differ"})
    await judgements.correct(call_id, "callback_number", "+15550100003", by="ann")
    found = await row(call_id)
    slot = found["slots"]["callback_number"]
    assert (slot["value"], slot["source"], slot["confirmed"], slot["second_reading"]["value"]) == (
        "+15550100003",
        "operator",
        False,
        "+15550100002",
    )
    assert slot["noted"] == {"value": NUMBER, "confirmed": True, "utterance": "u1", "agent": "sales", "at": 40_000}
    assert (found["needs_review"], found["review_reasons"]) == (True, {"disposition": "values_differ"})
    await judgements.correct(call_id, "disposition", "other", by="ann")
    found = await row(call_id)
    assert (found["needs_review"], found["review_reasons"]) == (False, None)
    await judgements.retract(call_id, "callback_number", by="ann")
    found = await row(call_id)
    assert (found["needs_review"], found["slots"]["callback_number"]["value"]) == (True, NUMBER)
    assert "noted" not in found["slots"]["callback_number"]


async def test_a_row_that_a_person_has_looked_at_needs_no_look_until_it_is_read_anew(judgements, database, clock, row, told):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    assert await judgements.reviewed(call_id, by="ann")
    assert not await judgements.reviewed(call_id, by="ben")
    found = await row(call_id)
    assert (found["needs_review"], found["reviewed_by"], found["reviewed_at"]) == (False, "ann", clock.now.isoformat())
    assert found["review_reasons"] == {"callback_number": "values_differ"}
    await judgements.keep(reading(call_id, "rescore-1", reviews={"name": "values_differ"}))
    assert await judgements.apply("rescore-1", by="ann") == 1
    found = await row(call_id)
    assert (found["needs_review"], found["review_reasons"]) == (True, {"name": "values_differ"})
    assert [event for _, event in await told(call_id)] == ["call.finished", "call.changed", "call.changed"]


async def test_a_review_counts_also_where_the_wall_clock_was_set_back(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    clock.pass_(hours=-1)
    assert await judgements.reviewed(call_id, by="ann")
    assert (await row(call_id))["needs_review"] is False
    await judgements.keep(reading(call_id, "rescore-1"))
    await judgements.apply("rescore-1", by="ann")
    assert (await row(call_id))["needs_review"] is True


async def test_what_is_corrected_before_the_row_is_told_of_is_in_what_is_told(judgements, database, clock, row, told):
    call_id = await finished(database, clock)
    await judgements.correct(call_id, "intent", "support", by="ann")
    assert ((await row(call_id))["intent"], await told(call_id)) == ("support", [])
    await settled(judgements, call_id)
    found = await row(call_id)
    assert (found["intent"], found["judged"]["intent"]["source"]) == ("support", "operator")
    assert await told(call_id) == [(3, "call.finished")]


async def test_many_who_correct_at_once_each_step_the_revision(database, database_url, clock, row, told, audited):
    call_id = await finished(database, clock)
    other = Database(database_url)
    desks = [Judgements(each, tell_crm, clock=clock) for each in (database, other)]
    await settled(desks[0], call_id)
    came = await asyncio.gather(
        *(desks[number % 2].correct(call_id, "lead_score", number // 2, by=f"desk{number}") for number in range(8))
    )
    await other.close()
    found = await row(call_id)
    assert found["revision"] == 2 + sum(came) == 2 + len(await audited())
    assert len(await told(call_id)) == 1 + sum(came)
    said = [each["value"] for each in await desks[0].of_call(call_id) if each["source"] == "operator"]
    assert found["lead_score"] == said[-1]


async def test_a_field_that_is_none_and_a_batch_that_is_no_rescoring_are_refused(judgements, database, clock):
    call_id = await finished(database, clock)
    with pytest.raises(ValueError, match="no judged field"):
        await judgements.correct(call_id, "outcome", "failed", by="ann")
    with pytest.raises(ValueError, match="no rescoring"):
        await judgements.withdraw("call", by="ann")


async def test_what_the_carriers_books_say_outlives_a_reading_and_a_correction(judgements, database, clock, row):
    call_id = await finished(database, clock)
    assert await Reconciling(database, clock=clock).flag(call_id)
    await settled(judgements, call_id)
    assert await judgements.correct(call_id, "intent", "support", by="ann")
    found = await row(call_id)
    assert (found["review_reasons"]["carrier"], found["needs_review"]) == ("unknown_to_carrier", True)
    clock.pass_(seconds=1)
    assert await judgements.reviewed(call_id, by="ann")
    assert not (await row(call_id))["needs_review"]
    assert not await Reconciling(database, clock=clock).flag(call_id)
