"""A finished call is read: what stands in the row afterwards, and what follows from everything that may go wrong."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.call.disposition import EndReason, Outcome
from app.errors import StoreUnavailable
from app.store.calls import Calls
from app.store.engine import Database
from app.store.judgements import Judgements, NewReading
from app.wrapup import faults
from app.wrapup.cases import read_cases
from app.wrapup.facts import Analysis, Transcript
from app.wrapup.faults import AnalysisFault, AnalyzerBusy, AnalyzerRejected, AnswerRefused, QuotaExhausted
from app.wrapup.model import ModelAnalyzer, ModelOptions
from app.wrapup.reading import DAY_S, HOUR_S, Reading, verdict_on
from app.wrapup.rules import RulesAnalyzer
from tests.store.afterwards import tell_crm
from tests.store.shelf import Clock, new_call
from tests.wrapup import provider as p
from tests.wrapup.ended import BOOKED, FILED, MESSAGE, NOTHING_FILED, SLOTS, TAKEN, TALK, as_written, ended
from tests.wrapup.provider import Provider, whole
from tests.wrapup.scenery import CALLS, LISTS

SECRET = "zanzibar"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What is here about the analysis, and not about the store, which has tests of its own on both."""


class Failing:
    """An analyzer that does what it is told to do next; the last is repeated."""

    name = "failing"

    def __init__(self, *faults: Exception | None) -> None:
        self.faults = list(faults)
        self.asked = 0

    async def analyze(self, transcript: Transcript) -> Analysis:
        self.asked += 1
        fault = self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]
        if fault is not None:
            raise fault
        return RulesAnalyzer(LISTS).read(transcript)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def judgements(database: Database, clock: Clock) -> Judgements:
    return Judgements(database, tell_crm, clock=clock)


@pytest.fixture
def row(database: Database):
    async def _row(call_id: str) -> dict[str, Any]:
        found = await Calls(database).row(call_id)
        assert found is not None
        return found

    return _row


@pytest.fixture
def reading(judgements: Judgements, clock: Clock):
    def _reading(analyzer: Any = None) -> Reading:
        return Reading(judgements, analyzer or RulesAnalyzer(LISTS), LISTS, clock=clock, dice=lambda: 0.5)

    return _reading


async def read(reading: Reading, judgements: Judgements) -> dict[str, Any]:
    """What a job does, with everything that is due."""
    verdict: dict[str, Any] = {}
    for call_id, attempt in await judgements.due(10):
        verdict = json.loads(json.dumps(await reading.ask(call_id)))  # as the engine keeps it
        await reading.settle(call_id, attempt, verdict)
    return verdict


# ---- the good case


async def test_a_call_is_read_and_every_value_shows_its_lines(database, clock, judgements, reading, row):
    call_id = await ended(database, clock)
    verdict = await read(reading(), judgements)
    found = await row(call_id)
    assert set(verdict) == {"reading"} and await judgements.due(10) == []
    assert (found["analysis"], found["analyzer"], found["revision"]) == ("done", "rules", 2)
    assert (found["disposition"], found["intent"]) == ("appointment_booked", "book_appointment")
    assert found["judged"]["disposition"]["evidence"] == ["1.u11"]
    assert (
        found["judged"]["lead_score"]["reasons"][0]["evidence"] and "+rubric-1@" in found["judged"]["lead_score"]["prompt_version"]
    )
    assert found["slots"]["name"]["second_reading"]["value"] == "Anna Miller"
    assert (found["needs_review"], found["review_reasons"]) == (False, None)


@on_sqlite
async def test_what_was_not_said_is_null_with_why_and_without_a_confidence(database, clock, judgements, reading):
    call_id = await ended(database, clock, "ivy: Hello!", "caller: I need somebody for my hedge.", slots={}, filed_as=NOTHING_FILED)
    await read(reading(), judgements)
    number = next(each for each in await judgements.of_call(call_id) if each["field"] == "callback_number")
    assert (number["value"], number["confidence"], number["evidence"]) == (None, None, [])


@on_sqlite
async def test_every_written_call_is_read_and_settled(database, clock, judgements, reading, row):
    cases = read_cases(CALLS)[::6]
    for case in cases:
        await as_written(database, clock, case, outcome=case.outcome, end_reason=case.end_reason)
    while await judgements.due(1):
        await read(reading(), judgements)
    assert {(await row(case.name))["analysis"] for case in cases} == {"done"}


async def test_nothing_is_read_that_is_not_finished_not_there_or_read_already(database, clock, judgements, reading):
    live, _ = await Calls(database, clock=clock).born(new_call("CA-live"))
    call_id = await ended(database, clock)
    await read(reading(), judgements)
    for each in (live.call_id, call_id, "nobody"):
        assert await reading().ask(each) == {"nothing": True}
        await reading().settle(each, 1, {"nothing": True})


async def test_asked_twice_it_is_kept_once_and_settled_twice_it_is_told_once(database, clock, judgements, reading, row):
    call_id = await ended(database, clock)
    one, other = await reading().ask(call_id), await reading().ask(call_id)
    assert one == other
    await reading().settle(call_id, 1, one)
    await reading().settle(call_id, 1, one)
    assert (await row(call_id))["revision"] == 2


# ---- what a person should look at


async def test_a_booking_that_is_not_in_the_ledger_does_not_stand_and_the_row_is_flagged(database, clock, judgements, reading, row):
    call_id = await ended(database, clock, tools=[MESSAGE])
    await read(reading(), judgements)
    found = await row(call_id)
    assert (found["disposition"], found["next_action"], found["needs_review"]) == (None, None, True)
    assert found["review_reasons"] == {"disposition": "not_in_ledger", "claims": "claim_mismatch"}
    of_call = await judgements.of_call(call_id)
    assert [(each["value"], each["evidence"]) for each in of_call if each["field"] == "claims"] == [(["booked"], ["1.u11"])]
    assert [each["dropped"] for each in of_call if each["field"] == "disposition" and each["source"] == "machine"] == [
        "not_in_ledger"
    ]


async def test_a_booking_that_was_tried_and_taken_by_another_does_not_stand(database, clock, judgements, reading, row):
    call_id = await ended(database, clock, tools=[TAKEN])
    await read(reading(), judgements)
    assert (await row(call_id))["review_reasons"]["disposition"] == "not_in_ledger"
    again = await ended(database, clock, sid="CA2", tools=[TAKEN, BOOKED])
    await read(reading(), judgements)
    assert (await row(again))["disposition"] == "appointment_booked"


@on_sqlite
async def test_a_claimed_message_that_nobody_took_is_flagged(database, clock, judgements, reading, row):
    lines = ("caller: Please tell Tom that the gate stays open.", "ivy: I have passed it on. Anything else?", "caller: No.")
    call_id = await ended(database, clock, *lines, tools=[], slots={}, filed_as=NOTHING_FILED)
    await read(reading(), judgements)
    assert (await row(call_id))["review_reasons"]["claims"] == "claim_mismatch"


@on_sqlite
@pytest.mark.parametrize(
    ("filed", "lines", "why"),
    [
        ("sales_lead", TALK, "values_differ"),
        ("appointment_booked", TALK, None),
        (None, TALK, None),
        ("message_taken", ("ivy: Hello?", "caller: I dialled the wrong number, sorry.", "ivy: Goodbye!"), "values_differ"),
        ("other", ("ivy: Hello? Is anybody there?", "ivy: Goodbye!"), None),
    ],
    ids=["differs", "the same", "nothing filed", "a wrong number", "nobody spoke"],
)
async def test_a_disposition_that_the_agent_filed_otherwise_is_flagged(
    filed, lines, why, database, clock, judgements, reading, row
):
    call_id = await ended(database, clock, *lines, slots={}, filed_as=FILED | {"disposition": filed})
    await read(reading(), judgements)
    assert ((await row(call_id))["review_reasons"] or {}).get("disposition") == why


@on_sqlite
async def test_a_slot_that_was_noted_and_never_said_is_flagged_and_both_are_kept(database, clock, judgements, reading, row):
    call_id = await ended(database, clock, slots=SLOTS | {"name": "Anna Müller", "callback_number": "+12125550143"})
    await read(reading(), judgements)
    found = await row(call_id)
    assert found["review_reasons"] == {"name": "values_differ", "callback_number": "values_differ"}
    assert (found["slots"]["name"]["value"], found["slots"]["name"]["second_reading"]["value"]) == ("Anna Müller", "Anna Miller")


# ---- what may go wrong


@pytest.mark.parametrize(
    "kind", [each for each in vars(faults).values() if isinstance(each, type) and issubclass(each, AnalysisFault)]
)
async def test_every_fault_becomes_a_verdict_and_ends_some_day(kind, sqlite_url, clock):
    database = Database(sqlite_url)
    judgements = Judgements(database, tell_crm, clock=clock)
    call_id = await ended(database, clock, f"caller: My garden is in {SECRET}.")
    failing = Failing(kind("no", "a_code", 400))
    reader = Reading(judgements, failing, LISTS, clock=clock, dice=lambda: 1.0)
    asked_at = []
    while due := await judgements.due(1):
        assert len(asked_at) < 100
        asked_at.append(clock.now)
        verdict = await reader.ask(call_id)
        assert verdict["fault"] == kind.__name__ and verdict["code"] == "a_code" and SECRET not in json.dumps(verdict)
        await reader.settle(call_id, due[0][1], json.loads(json.dumps(verdict)))
        clock.pass_(days=1)
    found = await Calls(database).row(call_id)
    assert found is not None
    assert (found["analysis"], found["analysis_fault"], found["analysis_attempts"]) == ("failed", kind.__name__, len(asked_at))
    assert found["disposition"] == FILED["disposition"] and found["analyzed_at"] is not None
    await database.close()


class Shelf:
    """Only remembers what is filed."""

    def __init__(self) -> None:
        self.filed: list[tuple[Any, ...]] = []

    async def later(self, call_id: str, attempt: int, due_at: Any, fault: str) -> bool:
        self.filed.append(("later", attempt, due_at, fault))
        return True

    async def give_up(self, call_id: str, attempt: int, fault: str) -> bool:
        self.filed.append(("give_up", attempt, fault))
        return True


async def pauses(fault: AnalysisFault, clock: Clock, dice: float, most: int = 40) -> list[float]:
    """The pauses in seconds until it is given up."""
    shelf, found = Shelf(), []
    reader = Reading(shelf, Failing(fault), LISTS, clock=clock, dice=lambda: dice)  # type: ignore[arg-type]
    for attempt in range(1, most):
        await reader.settle("c", attempt, verdict_on(fault))
        if shelf.filed[-1][0] == "give_up":
            break
        found.append((shelf.filed[-1][2] - clock.now) / timedelta(seconds=1))
    return found


async def test_what_passes_is_tried_ten_times_after_pauses_that_double(clock):
    fault = AnalyzerBusy("busy")
    assert await pauses(fault, clock, 0.5) == [30 * 2**n for n in range(9)]
    shortest, longest = await pauses(fault, clock, 0.0), await pauses(fault, clock, 1.0)
    assert all(low < 30 * 2**n < high <= 5 * HOUR_S for n, (low, high) in enumerate(zip(shortest, longest, strict=True)))


async def test_a_longer_pause_that_the_provider_asks_for_is_kept_but_no_longer_than_a_day(clock):
    assert (await pauses(AnalyzerBusy("busy", retry_after_s=600), clock, 0.0))[:6] == [600, 600, 600, 600, 600, 720]
    assert set(await pauses(AnalyzerBusy("busy", retry_after_s=1e9), clock, 0.0)) == {DAY_S}
    assert (await pauses(AnalyzerBusy("busy", retry_after_s=1), clock, 0.5))[0] == 30


@pytest.mark.parametrize(
    "fault", [QuotaExhausted("quota", "insufficient_quota", 429), AnalyzerRejected("no", "invalid_api_key", 401)]
)
async def test_what_a_person_must_see_to_is_tried_every_hour_for_a_day(fault, clock):
    assert await pauses(fault, clock, 0.5) == [HOUR_S] * 23


@pytest.mark.parametrize(
    "fault", [AnswerRefused("declined"), faults.AnswerCutOff("long"), AnalyzerRejected("no", "context_length_exceeded", 400)]
)
async def test_what_the_same_question_will_not_answer_is_not_asked_again(fault, clock):
    assert await pauses(fault, clock, 0.5) == []


async def test_whoever_has_it_read_again_gets_a_new_round_of_attempts(clock):
    shelf = Shelf()
    reader = Reading(shelf, Failing(None), LISTS, clock=clock, dice=lambda: 0.5)  # type: ignore[arg-type]
    await reader.settle("c", 11, verdict_on(AnalyzerBusy("busy")))
    assert shelf.filed == [("later", 11, clock.now + timedelta(seconds=30), "AnalyzerBusy")]


@on_sqlite
async def test_a_mistake_in_an_analyzer_is_given_up_at_once_and_logged_without_words(database, clock, judgements, reading, row):
    call_id = await ended(database, clock, f"caller: My garden is in {SECRET}.")
    with capture_logs() as logged:
        verdict = await read(reading(Failing(KeyError(SECRET))), judgements)
    assert verdict == {"fault": "KeyError", "code": None, "retryable": False, "retry_after_s": None}
    assert ((await row(call_id))["analysis"], (await row(call_id))["analysis_fault"]) == ("failed", "KeyError")
    assert any("test_reading.py:" in line.get("at", "") for line in logged) and SECRET not in repr(logged)


async def test_after_a_fault_it_is_read_when_it_is_due_again(database, clock, judgements, reading, row):
    call_id = await ended(database, clock)
    reader = reading(Failing(AnalyzerBusy("busy"), None))
    await read(reader, judgements)
    assert await judgements.due(1) == [] and (await row(call_id))["analysis"] == "waiting"
    clock.pass_(seconds=31)
    assert await judgements.due(1) == [(call_id, 2)]
    await read(reader, judgements)
    assert ((await row(call_id))["analysis"], (await row(call_id))["analysis_fault"]) == ("done", None)


class Away:
    """The database goes away when a reading is to be kept, once."""

    def __init__(self, judgements: Judgements) -> None:
        self._judgements, self.was_away = judgements, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judgements, name)

    async def keep(self, new: NewReading) -> str:
        if not self.was_away:
            self.was_away = True
            raise StoreUnavailable("keep a reading")
        return await self._judgements.keep(new)


async def test_a_reading_that_was_paid_for_outlives_an_outage_of_the_database(database, clock, judgements):
    call_id = await ended(database, clock)
    analyzer = Failing(None)
    reader = Reading(Away(judgements), analyzer, LISTS, clock=clock, dice=lambda: 0.5)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        await reader.ask(call_id)
    assert "reading" in await reader.ask(call_id)
    assert analyzer.asked == 1


# ---- by a model, against a real server


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with p.serving() as running:
        yield running


@pytest.fixture
async def by_model(provider: Provider, reading):
    options = ModelOptions(
        model="test-model", base_url=provider.base_url, api_key="sk-test-0000", first_pause_s=0.001, request_s=p.WIDE_S, attempts=1
    )
    async with ModelAnalyzer(options, LISTS) as analyzer:
        yield reading(analyzer)


async def test_a_model_reads_the_call_and_the_row_says_which(database, clock, judgements, provider, by_model, row):
    provider.will(p.says(whole(disposition=p.judged("appointment_booked", 11), name=p.judged("Anna Miller", 4))))
    call_id = await ended(database, clock)
    await read(by_model, judgements)
    found = await row(call_id)
    judged = found["judged"]["disposition"]
    assert (found["disposition"], judged["evidence"], judged["model"]) == ("appointment_booked", ["1.u11"], "test-model")
    assert judged["prompt_version"].startswith("analysis-1@")


@on_sqlite
@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (p.error(429, "rate_limit_exceeded", {"retry-after": "900"}), ("AnalyzerBusy", "rate_limit_exceeded", True, 900.0)),
        (p.error(429, "insufficient_quota"), ("QuotaExhausted", "insufficient_quota", True, None)),
        (p.error(401, "invalid_api_key"), ("AnalyzerRejected", "invalid_api_key", True, None)),
        (p.error(400, "context_length_exceeded"), ("AnalyzerRejected", "context_length_exceeded", False, None)),
        (p.error(503), ("AnalyzerBusy", "error", True, None)),
        (p.says("no JSON"), ("AnswerUnreadable", None, True, None)),
        (p.body(p.response_object([{"type": "refusal", "refusal": "no"}])), ("AnswerRefused", None, False, None)),
    ],
    ids=["busy", "no quota", "wrong key", "too long", "down", "unreadable", "refused"],
)
async def test_what_a_provider_says_becomes_a_verdict(reply, verdict, database, clock, judgements, provider, by_model, row):
    provider.will(reply)
    call_id = await ended(database, clock)
    assert tuple((await read(by_model, judgements)).values()) == verdict
    found = await row(call_id)
    assert (found["analysis"], found["analysis_fault"]) == ("waiting" if verdict[2] else "failed", verdict[0])
    assert found["disposition"] == "appointment_booked", "what the agent noted stands meanwhile"
    if verdict[3]:
        clock.pass_(seconds=verdict[3] - 1)
        assert await judgements.due(1) == []


@on_sqlite
async def test_a_call_in_which_nobody_spoke_is_sent_to_nobody(database, clock, judgements, provider, by_model, row):
    lines = ("ivy: Hello? Is anybody there?", "ivy: Goodbye!")
    call_id = await ended(
        database, clock, *lines, slots={}, tools=(), outcome=Outcome.NO_SPEECH, end_reason=EndReason.SILENCE, filed_as=NOTHING_FILED
    )
    await read(by_model, judgements)
    assert (await row(call_id))["analysis"] == "done" and provider.requests == []
