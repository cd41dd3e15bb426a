"""Old calls read anew: in batches, resumable, in force only after a word, and to be taken back. On both databases."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from app.errors import StoreUnavailable
from app.store.calls import Calls
from app.store.engine import Database
from app.store.judgements import Judgements
from app.store.rescoring import not_read
from app.wrapup.facts import Analysis, Lists, Transcript
from app.wrapup.faults import AnalysisFault, AnalyzerBusy, AnswerRefused, QuotaExhausted
from app.wrapup.reading import Reading
from app.wrapup.rescoring import IN_VAIN_AT_MOST, BadBatch, Progress, Rescoring, RescoringStopped
from app.wrapup.rubric import Criterion, Rubric
from app.wrapup.rules import RulesAnalyzer
from tests.store.afterwards import tell_crm
from tests.store.shelf import Clock, new_call
from tests.wrapup.ended import ended
from tests.wrapup.scenery import LISTS

RICHER = Lists(
    dispositions=LISTS.dispositions,
    intents=LISTS.intents,
    rubric=Rubric("rubric-2", (Criterion("wants_work", 70, "wants work"), Criterion("reachable", 20, "leaves a number"))),
)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Counting:
    """The rules, with a rubric; counts, and may fail."""

    name = "rules"

    def __init__(self, lists: Lists = RICHER, faults: Sequence[Exception | None] = ()) -> None:
        self._rules, self._faults = RulesAnalyzer(lists), list(faults)
        self.asked = self.at_once = self.most_at_once = 0

    async def analyze(self, transcript: Transcript) -> Analysis:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self._faults and (fault := self._faults.pop(0)):
            raise fault
        return self._rules.read(transcript)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def judgements(database: Database, clock: Clock) -> Judgements:
    return Judgements(database, tell_crm, clock=clock)


@pytest.fixture
async def old(database: Database, clock: Clock, judgements: Judgements) -> list[str]:
    """Three calls, an hour apart, read when they ended; the newest first."""
    reader = Reading(judgements, RulesAnalyzer(LISTS), LISTS, clock=clock, dice=lambda: 0.5)
    made = []
    for sid in ("CA1", "CA2", "CA3"):
        call_id = await ended(database, clock, sid=sid)
        await reader.settle(call_id, 1, await reader.ask(call_id))
        made.insert(0, call_id)
        clock.pass_(hours=1)
    return made


def rescoring(judgements: Judgements, analyzer: Any, lists: Lists = RICHER, **more: Any) -> Rescoring:
    return Rescoring(judgements, analyzer, lists, **more)


async def changes(judgements: Judgements, batch: str) -> dict[str, dict[str, Any]]:
    return {each.call_id: dict(each.changes) async for each in judgements.differences(batch)}


async def score(database: Database, call_id: str) -> int:
    row = await Calls(database).row(call_id)
    assert row is not None
    return int(row["lead_score"])


async def test_a_new_rubric_is_shown_applied_and_taken_back(old, judgements, database):
    progress = await rescoring(judgements, Counting()).read("b1", old)
    assert (progress.read, progress.total, progress.faults.total()) == (3, 3, 0)
    assert [await score(database, each) for each in old] == [60, 60, 60], "nothing is in force yet"
    assert await changes(judgements, "b1") == {call_id: {"lead_score": (60, 90)} for call_id in old}
    assert await judgements.apply("b1", by="ada") == 3
    assert [await score(database, each) for each in old] == [90, 90, 90] and await changes(judgements, "b1") == {}
    assert await judgements.withdraw("b1", by="ada") == 3
    assert [await score(database, each) for each in old] == [60, 60, 60]


async def test_what_a_batch_has_read_is_not_read_again(old, judgements, database):
    first = Counting()
    await rescoring(judgements, first).read("b1", old[:2])
    assert await not_read(database, "b1") == old[2:]
    second = Counting()
    await rescoring(judgements, second).read("b1", await not_read(database, "b1"))
    assert (first.asked, second.asked, await not_read(database, "b1")) == (2, 1, [])
    assert await not_read(database, "b2") == old


async def test_calls_are_chosen_by_the_day_they_began_the_newest_first(old, judgements, database, clock):
    began = clock.now - timedelta(hours=3)  # of the oldest
    hour = timedelta(hours=1)
    assert await not_read(database, "b", limit=2) == old[:2]
    assert await not_read(database, "b", since=began + hour) == old[:2]
    assert await not_read(database, "b", until=began + hour) == old[2:]
    assert await not_read(database, "b", since=began + hour, until=began + 2 * hour) == [old[1]]


async def test_a_call_that_has_no_first_reading_is_not_chosen(old, judgements, database, clock):
    await Calls(database, clock=clock).born(new_call("CA-live"))
    await ended(database, clock, sid="CA-waiting")
    failed = await ended(database, clock, sid="CA-failed")
    await judgements.give_up(failed, 1, "AnswerRefused")
    assert await not_read(database, "b") == old


@on_sqlite
async def test_an_operator_who_said_otherwise_is_not_overruled(old, judgements, database):
    await judgements.correct(old[0], "lead_score", 5, by="ada")
    await rescoring(judgements, Counting()).read("b1", old)
    assert old[0] in (found := await changes(judgements, "b1")) and "lead_score" not in found[old[0]]
    await judgements.apply("b1", by="ada")
    assert [await score(database, each) for each in old] == [5, 90, 90]


@on_sqlite
async def test_a_batch_is_of_one_analyzer_and_one_rubric(old, judgements):
    await rescoring(judgements, Counting()).read("b1", old[:1])
    other = Counting(LISTS)
    with pytest.raises(BadBatch, match=r"was made by another \(rubric rubric-2@\w+, now rubric-1@\w+\)"):
        await rescoring(judgements, other, LISTS).read("b1", old[1:])
    assert other.asked == 0, "nothing is paid for"


@on_sqlite
async def test_a_batch_is_of_one_version_of_the_prompt(old, judgements, monkeypatch):
    await rescoring(judgements, Counting()).read("b1", old[:1])
    changed = Counting()
    monkeypatch.setattr(changed._rules, "version", "rules-2@0")
    with pytest.raises(BadBatch, match="prompt version rules-1"):
        await rescoring(judgements, changed).read("b1", old[1:])
    assert (await judgements.batches())[0]["calls"] == 1


@pytest.mark.parametrize("name", ["call", "", "Büro", "a b", "x" * 65, "-a", "../a"])
async def test_a_name_that_a_batch_cannot_have(name: str):
    with pytest.raises(BadBatch):
        await rescoring(None, Counting()).read(name, [])  # type: ignore[arg-type]


@on_sqlite
async def test_a_call_that_cannot_be_read_is_left_for_another_run(old, judgements, database):
    analyzer = Counting(faults=[None, AnswerRefused("declined"), KeyError("zanzibar")])
    progress = await rescoring(judgements, analyzer, at_once=1).read("b1", old)
    assert (progress.read, dict(progress.faults), progress.done) == (1, {"AnswerRefused": 1, "KeyError": 1}, 3)
    assert await not_read(database, "b1") == old[1:]


@on_sqlite
async def test_without_a_quota_nobody_goes_on_and_what_was_read_is_kept(old, judgements, database):
    analyzer = Counting(faults=[None, QuotaExhausted("the quota is used up", "insufficient_quota", 429)])
    with pytest.raises(RescoringStopped, match="the quota is used up"):
        await rescoring(judgements, analyzer, at_once=1).read("b1", old)
    assert analyzer.asked == 2 and await not_read(database, "b1") == old[1:]


@on_sqlite
@pytest.mark.parametrize(("faults", "stops"), [(IN_VAIN_AT_MOST, True), (IN_VAIN_AT_MOST - 1, False)])
async def test_a_provider_that_is_away_ends_it(faults: int, stops: bool, old, judgements):
    away: list[AnalysisFault | None] = [AnalyzerBusy("busy")] * faults
    analyzer = Counting(faults=[*away, None, *away])
    calls = [*old, *old, *old]  # nine readings, of which some are the same
    run = rescoring(judgements, analyzer, at_once=1).read("b1", calls)
    if stops:
        with pytest.raises(RescoringStopped):
            await run
    else:
        assert (await run).faults == {"AnalyzerBusy": 2 * faults}


@on_sqlite
async def test_only_a_few_are_read_at_once_and_everyone_is_told_of(old, judgements):
    analyzer, told = Counting(), []

    def tell(progress: Progress) -> None:
        told.append(progress.done)

    await rescoring(judgements, analyzer, at_once=2, told=tell).read("b1", old)
    assert analyzer.most_at_once <= 2 and told == [1, 2, 3]


@on_sqlite
async def test_a_call_that_is_gone_meanwhile_is_passed_over(old, judgements):
    progress = await rescoring(judgements, Counting()).read("b1", ["nobody", *old])
    assert progress.read == 3


@on_sqlite
async def test_with_the_database_away_it_ends_and_nobody_goes_on(old, judgements, monkeypatch):
    async def away(_: Any) -> str:
        raise StoreUnavailable("keep a reading")

    monkeypatch.setattr(judgements, "keep", away)
    analyzer = Counting()
    with pytest.raises(StoreUnavailable):
        await rescoring(judgements, analyzer, at_once=1).read("b1", old)
    assert analyzer.asked == 1
