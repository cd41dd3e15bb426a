"""Readings made anew: their differences, applied and taken back; on both databases."""

from dataclasses import replace

from tests.store.afterwards import finished, reading, settled


async def test_a_rescoring_shows_its_differences_is_applied_and_taken_back(judgements, database, clock, row, told, audited):
    first, second = await finished(database, clock), await finished(database, clock, "CA2")
    for call_id in (first, second):
        await settled(judgements, call_id, reviews={})
    await judgements.correct(second, "lead_score", 90, by="ann")
    kept = {call_id: await judgements.keep(reading(call_id, "warmer", reviews={}, lead_score=80)) for call_id in (first, second)}
    before = {call_id: await row(call_id) for call_id in (first, second)}
    found = [each async for each in judgements.differences("warmer")]
    assert {each.call_id: each.changes for each in found} == {first: {"lead_score": (65, 80)}, second: {}}
    assert "lead_score" not in repr(found)  # the values of private fields would be beside it

    assert await judgements.apply("warmer", by="ann") == 2
    assert await judgements.apply("warmer", by="ann") == 0
    assert [each async for each in judgements.differences("warmer")] == []
    assert ((await row(first))["lead_score"], (await row(second))["lead_score"]) == (80, 90)
    assert await told(first) == [(2, "call.finished"), (3, "call.changed")]
    assert await told(second) == [(2, "call.finished"), (3, "call.changed")]  # of the correction; the rescoring changed nothing
    summary = {name: (await judgements.batches())[0][name] for name in ("batch", "calls", "applied", "withdrawn")}
    assert summary == {"batch": "warmer", "calls": 2, "applied": 2, "withdrawn": 0}

    assert await judgements.withdraw("warmer", by="ben") == 2
    assert await judgements.withdraw("warmer", by="ben") == 0
    for call_id in (first, second):
        changed = {"revision", "updated_at"}
        after = await row(call_id)
        assert {name for name in after if after[name] != before[call_id][name]} <= changed
    assert [line[1:3] for line in await audited()][1:] == [
        *(("apply", call_id) for call_id in sorted((first, second))),
        *(("withdraw", call_id) for call_id in sorted((first, second))),
    ]
    assert (await judgements.batches())[0]["withdrawn"] == 2
    for call_id, reading_id in kept.items():
        assert not await judgements.settle(call_id, reading_id)
    assert await judgements.apply("warmer", by="ann", call_ids=[first]) == 1
    assert (await row(first))["lead_score"] == 80


async def test_each_call_of_a_batch_is_compared_once_however_many_there_are(judgements, database, clock, monkeypatch):
    monkeypatch.setattr("app.store.rescoring.A_LOOK", 2)
    call_ids = [await finished(database, clock, f"CA{number}") for number in range(5)]
    for call_id in call_ids:
        await settled(judgements, call_id)
        await judgements.keep(reading(call_id, "warmer"))
    compared = [each.call_id async for each in judgements.differences("warmer")]
    assert compared == sorted(call_ids)


async def test_of_two_rescorings_the_one_applied_last_stands(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    for batch, score in (("one", 10), ("two", 20)):
        await judgements.keep(reading(call_id, batch, lead_score=score))
    await judgements.apply("two", by="ann")
    await judgements.apply("one", by="ann")
    assert (await row(call_id))["lead_score"] == 10
    await judgements.withdraw("one", by="ann")
    assert (await row(call_id))["lead_score"] == 20
    await judgements.withdraw("two", by="ann")
    assert (await row(call_id))["lead_score"] == 65


async def test_a_rescoring_that_judges_one_field_leaves_the_others_as_they_were_read(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await settled(judgements, call_id)
    whole = reading(call_id, "only the score", lead_score=80)
    score = [each for each in whole.judgements if each.field == "lead_score"]
    await judgements.keep(replace(whole, judgements=score, review_reasons=None))
    await judgements.apply("only the score", by="ann")
    found = await row(call_id)
    assert (found["lead_score"], found["summary"], found["intent"]) == (80, "She wants a garden.", "buy")
    assert found["review_reasons"] == {"callback_number": "values_differ"}


async def test_a_call_that_was_never_read_is_not_scored_anew(judgements, database, clock, row):
    call_id = await finished(database, clock)
    await judgements.keep(reading(call_id, "warmer"))
    assert await judgements.apply("warmer", by="ann") == 0
    assert (await row(call_id))["lead_score"] is None
