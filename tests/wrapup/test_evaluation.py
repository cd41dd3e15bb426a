"""The written calls, and how an analyzer is measured by them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from app.call.disposition import Outcome
from app.settings import Settings
from app.wrapup.admission import analysis
from app.wrapup.cases import COLUMNS, BadCase, Case, read_cases
from app.wrapup.evaluation import MATRICES, PARTS, Verdict, evaluate
from app.wrapup.facts import Analysis, Field, Judgement, Transcript
from app.wrapup.faults import QuotaExhausted
from app.wrapup.rules import RulesAnalyzer
from app.wrapup.spoken import e164
from tests.wrapup.scenery import CALLS, LISTS

CASES = read_cases(CALLS)
CASE = next(case for case in CASES if case.name == "booking-hedge")


class Scripted:
    """Says the same of every call, or fails."""

    name = "scripted"

    def __init__(self, *said: tuple[Field, object, str], fault: Exception | None = None) -> None:
        self._said, self._fault = said, fault

    async def analyze(self, transcript: Transcript) -> Analysis:
        if self._fault:
            raise self._fault
        proposed = [
            Judgement(field=field, value=value, evidence=(key,), analyzer=self.name, prompt_version="s-1")  # type: ignore[arg-type]
            for field, value, key in self._said
        ]
        return analysis(proposed, transcript, LISTS, analyzer=self.name, prompt_version="s-1", tokens_in=10, tokens_out=2)


# ---- the calls


def test_there_are_enough_calls_and_a_third_is_held_out():
    held_out = sum(case.held_out for case in CASES)
    assert len(CASES) >= 60 and 0.3 <= held_out / len(CASES) <= 0.4


@pytest.mark.parametrize("part", [True, False], ids=["held out", "tuned"])
def test_both_parts_have_most_of_what_can_happen(part: bool):
    calls = [case for case in CASES if case.held_out is part]
    assert {case.expected.disposition for case in calls} >= {
        *(
            "appointment_booked",
            "message_taken",
            "information_given",
            "callback_requested",
            "transferred",
            "wrong_number",
            "other",
            "",
        )
    }
    assert {case.expected.intent for case in calls} >= {*LISTS.intents, ""}
    assert {case.expected.sentiment for case in calls} == {"negative", "neutral", "positive", ""}
    assert {case.expected.lead for case in calls} >= {"hot", "warm", "cold", ""}


def test_all_outcomes_and_dispositions_are_there():
    assert {case.outcome for case in CASES} == set(Outcome)
    assert {case.expected.disposition for case in CASES} == {*LISTS.dispositions, ""}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call_expects_only_words_of_the_lists_that_a_house_begins_with(case: Case):
    lists = Settings.model_fields
    assert case.expected.intent in {*lists["intents"].default, ""}
    assert case.expected.disposition in {*lists["dispositions"].default, ""}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_number_is_one_that_is_kept_for_fiction(case: Case):
    number = case.expected.callback_number
    assert number == "" or number.startswith("+44207946") or number[5:10] == "55501"
    assert number == "" or e164(number, "US") == number


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_expected_of_a_call_could_be_admitted(case: Case):
    """A label that the admission could never let through would be no label."""
    transcript = Transcript.of(case.utterances)
    keys = tuple(line.key for line in transcript.lines if line.text)
    wanted = {
        Field.NAME: case.expected.name,
        Field.CALLBACK_NUMBER: case.expected.callback_number,
        Field.INTENT: case.expected.intent,
        Field.DISPOSITION: case.expected.disposition,
        Field.SENTIMENT: case.expected.sentiment,
        Field.URGENCY: case.expected.urgency,
    }
    proposed = [
        Judgement(field=field, value=value, evidence=keys, analyzer="label", prompt_version="l-1")
        for field, value in wanted.items()
        if value
    ]
    read = analysis(proposed, transcript, LISTS, analyzer="label", prompt_version="l-1")
    assert {judgement.field: judgement.dropped for judgement in read.dropped} == {}


def write(folder: Path, text: str) -> Path:
    (folder / "one.toml").write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("held_out = false", "held_out = 3"), "held_out"),
        (('urgency = "normal"', 'urgency = "soon"'), "expect.urgency"),
        (('urgency = "normal"', ""), "expect.urgency"),
        (('name = "Anna Miller"', 'nme = "Anna Miller"'), "expect"),
        (('callback_number = "+12125550142"', 'callback_number = "2125550142"'), "expect.callback_number"),
        (("caller: Anna Miller.", "Anna Miller."), "line 4 of the talk"),
        (("agent: Gladly. May I have your first and last name?", "agent: ~"), "line 3 of the talk"),
        (("[expect]", "[expect"), "Expected"),
    ],
)
def test_a_call_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path: Path, change: tuple[str, str], complaint: str):
    text = (CALLS / "booking-hedge.toml").read_text("utf-8")
    assert change[0] in text
    with pytest.raises(BadCase, match=f"^one.toml: .*{complaint}"):
        read_cases(write(tmp_path, text.replace(*change)))


def test_a_folder_without_calls_is_no_measure(tmp_path: Path):
    with pytest.raises(BadCase, match="holds no written call"):
        read_cases(tmp_path)


# ---- the measure


async def test_right_wrong_missed_and_invented_are_told_apart():
    silence = next(case for case in CASES if case.name == "info-where")
    said = [(Field.INTENT, "book_appointment", "c2"), (Field.URGENCY, "high", "c2"), (Field.REASON, "I", "c2")]
    report = await evaluate(Scripted(*said), [CASE, silence])
    first, second = report.results
    assert {column: first.answers[column].verdict for column in ("intent", "urgency", "name", "reason")} == {
        "intent": Verdict.RIGHT,
        "urgency": Verdict.WRONG,
        "name": Verdict.MISSED,
        "reason": Verdict.WRONG,
    }
    assert second.answers["intent"].verdict is Verdict.WRONG
    assert second.answers["lead"].verdict is Verdict.RIGHT  # NULL, as it should be


async def test_a_value_where_nothing_was_said_is_invented():
    nothing = next(case for case in CASES if case.name == "wrong-number-pizza")
    report = await evaluate(Scripted((Field.URGENCY, "high", "c2")), [nothing])
    assert report.results[0].answers["urgency"].verdict is Verdict.INVENTED
    assert report.confusion("urgency", "all") == {"NULL": {"high": 1}}


async def test_a_text_is_right_if_it_mentions_what_it_should():
    for text, verdict in (
        ("A hedge is trimmed on Tuesday.", Verdict.RIGHT),
        ("A hedge.", Verdict.WRONG),
        ("Tuesday, the sledge.", Verdict.WRONG),
    ):
        report = await evaluate(Scripted((Field.SUMMARY, text, "c2")), [CASE])
        assert report.results[0].answers["summary"].verdict is verdict


async def test_a_call_that_could_not_be_read_counts_as_wrong_and_says_why():
    report = await evaluate(Scripted(fault=QuotaExhausted("the quota is used up")), CASES[:5])
    assert report.as_json()["not_read"] == {case.name: "QuotaExhausted" for case in CASES[:5]}
    assert all(report.accuracy(column, "all") == 0 for column in COLUMNS)
    assert "not read: 5 by QuotaExhausted" in report.text()


async def test_an_analyzer_that_is_broken_is_not_measured():
    with pytest.raises(ExceptionGroup):
        await evaluate(Scripted(fault=ZeroDivisionError()), CASES[:2])


async def test_the_parts_are_counted_apart_and_add_up():
    report = await evaluate(RulesAnalyzer(LISTS), CASES)
    for column in COLUMNS:
        tuned, held_out, both = (report.tally(column, part) for part in PARTS)
        assert tuned + held_out == both and both.total() == len(CASES)
    for column in MATRICES:
        cells = Counter({want: sum(row.values()) for want, row in report.confusion(column, "all").items()})
        assert cells == Counter(getattr(case.expected, column) or "NULL" for case in CASES)


async def test_the_report_can_be_read_by_people_and_by_machines():
    report = await evaluate(RulesAnalyzer(LISTS), CASES)
    text, told = report.text(), json.loads(json.dumps(report.as_json()))
    assert text.startswith("analyzer rules (rules-1@") and "held out" in text
    assert all(f"\n{column} " in text for column in COLUMNS)
    right = told["parts"]["held out"]["columns"]["disposition"]
    assert right["accuracy"] == round(right["right"] / told["parts"]["held out"]["calls"], 4)
    assert len(told["mistakes"]) == sum(
        told["parts"]["all"]["columns"][column][verdict] for column in COLUMNS for verdict in ("wrong", "missed", "invented")
    )


async def test_the_rules_are_better_than_always_giving_the_commonest_answer():
    """Not their exact figures, which stand in the README, but that they are worth having."""
    report = await evaluate(RulesAnalyzer(LISTS), CASES)
    for column in MATRICES:
        commonest = Counter(getattr(case.expected, column) for case in CASES).most_common(1)[0][1]
        assert report.tally(column, "all")[Verdict.RIGHT] > commonest, column


async def test_tokens_are_added_up():
    report = await evaluate(Scripted(), CASES[:3], at_once=1)
    assert (report.tokens_in, report.tokens_out) == (30, 6)
