"""The agent's slots beside the second reading: both are kept, and a person is asked where they differ."""

import pytest

from app.call.disposition import Slot
from app.wrapup.admission import analysis
from app.wrapup.cases import read_cases
from app.wrapup.compare import Comparison, Review, compare, review_reasons
from app.wrapup.facts import SLOTS, Field, Transcript
from app.wrapup.rules import RulesAnalyzer
from tests.wrapup.scenery import CALLS, LISTS, judged, talk

CALL = talk("caller: I'd like to have my hedges trimmed. Zoë Müller, two one two, five five five, zero one four two. No hurry.")
READ = {
    Field.NAME: "Zoë Müller",
    Field.CALLBACK_NUMBER: "+12125550142",
    Field.REASON: "I'd like to have my hedges trimmed",
    Field.URGENCY: "low",
}


def comparisons(noted: dict[str, str], read: dict[Field, str] = READ) -> dict[Field, Comparison]:
    reading = analysis(
        [judged(field, value, "u1") for field, value in read.items()], CALL, LISTS, analyzer="test", prompt_version="t"
    )
    slots = [Slot(name=name, value=value) for name, value in noted.items()]
    return {each.field: each for each in compare(slots, reading, LISTS)}


def reviews(noted: dict[str, str], read: dict[Field, str] = READ) -> dict[str, str]:
    return review_reasons(comparisons(noted, read).values())


SAME = {"name": "Zoë Müller", "callback_number": "+12125550142", "reason": "hedge trimming, wants hedges cut", "urgency": "low"}


def test_two_readings_that_agree_need_nobody():
    assert reviews(SAME) == {}


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        ("name", "zoe muller"),
        ("name", "Müller"),
        ("name", "Mrs. Zoë Müller"),
        ("callback_number", "(212) 555-0142"),
        ("callback_number", "12125550142"),
        ("reason", "Hedge trimmed"),
    ],
)
def test_what_is_only_written_in_another_way_does_not_differ(slot: str, value: str):
    assert reviews(SAME | {slot: value}) == {}


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        ("name", "Zoë Miller"),
        ("callback_number", "+12125550143"),
        ("callback_number", "+442125550142"),
        ("reason", "A leaking pond"),
        ("urgency", "high"),
    ],
)
def test_where_they_differ_both_are_kept_and_a_person_is_asked(slot: str, value: str):
    found = comparisons(SAME | {slot: value})[Field(slot)]
    assert found.review is Review.VALUES_DIFFER
    assert found.noted is not None and (found.noted.value, found.read.value) == (value, READ[Field(slot)])


def test_a_number_of_the_agents_that_cannot_be_dialled_wants_a_look():
    assert reviews(SAME | {"callback_number": "5550142"}) == {"callback_number": "no_whole_number"}


def test_what_the_agent_noted_and_nobody_said_wants_a_look():
    assert reviews(SAME, {**READ, Field.NAME: "Somebody Else"}) == {"name": "not_in_transcript"}


def test_what_was_said_and_not_noted_wants_a_look_but_for_the_urgency_which_is_judged():
    assert reviews({}) == {"name": "not_noted", "callback_number": "not_noted", "reason": "not_noted"}


def test_an_urgency_that_the_second_reading_does_not_see_is_nobodys_gap():
    assert reviews(SAME, {field: value for field, value in READ.items() if field is not Field.URGENCY}) == {}


def test_nothing_noted_and_nothing_read_needs_nobody():
    assert reviews({}, {}) == {}
    assert tuple(comparisons({}, {})) == SLOTS


@pytest.mark.parametrize(
    ("name", "flagged"),
    [
        ("booking-number-corrected", {"callback_number"}),
        ("booking-name-corrected", {"name"}),
        ("odd-change-of-mind", {"callback_number"}),
    ],
)
def test_a_correction_that_the_agent_missed_is_flagged_in_a_written_call(name: str, flagged: set[str]):
    case = next(case for case in read_cases(CALLS) if case.name == name)
    reading = RulesAnalyzer(LISTS).read(Transcript.of(case.utterances))
    noted = {slot.name for slot in case.noted}
    found = review_reasons(compare(case.noted, reading, LISTS))
    assert {slot for slot in found if slot in noted} == flagged
    assert {found[slot] for slot in flagged} == {"values_differ"}


def test_a_value_does_not_show_when_a_comparison_is_printed():
    assert "Müller" not in repr(comparisons(SAME)[Field.NAME])
