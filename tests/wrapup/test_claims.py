"""What the agent claims, held against the ledger."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.call.disposition import Utterance
from app.store.business import Business
from app.store.engine import Database
from app.tools.business import business_tools
from app.wrapup.cases import Case, read_cases
from app.wrapup.claims import CLAIMS, PROVES, SAYS_NO, TAKEN_BACK, Claim, Errand, Mismatch, claimed, held, mismatches, proven
from app.wrapup.facts import Dropped, Field, Transcript
from app.wrapup.rules import RulesAnalyzer
from tests.store.shelf import Clock
from tests.wrapup.scenery import CALLS, LISTS, said

CASES = read_cases(CALLS)
BOOKED = Errand(name="book_appointment", effect=True, status="done", result={"booked": True, "spoken": "Tuesday at 10"})
TAKEN = Errand(name="take_message", effect=True, status="done", result={"taken": True})
LEDGERS = {
    "appointment_booked": [BOOKED],
    **{word: [TAKEN] for word in ("message_taken", "callback_requested", "sales_lead")},
}


def talk(*lines: str, **agents: str) -> list[Utterance]:
    """`caller: words`, `ivy: words`: whoever is not the caller is an agent of that name."""
    made = []
    for number, line in enumerate(lines, start=1):
        who, _, text = line.partition(": ")
        is_caller = who == "caller"
        made.append(said("caller" if is_caller else "agent", text, key=f"1.u{number}", at=number, agent=None if is_caller else who))
    return made


def found(*lines: str, ledger: list[Errand] | None = None, **ending: Any) -> dict[Claim, tuple[str, ...]]:
    how = {"outcome": "completed", "end_reason": "agent_ended", **ending}
    return {each.claim: each.evidence for each in mismatches(talk(*lines), ledger or [], **how)}


# ---- words


@pytest.mark.parametrize(
    "text",
    [
        "It is booked: Tuesday at ten o'clock. Is there anything else?",
        "Done, you are booked for Thursday at two. Anything else?",
        "Booked, Monday at nine. Anything",
        "That's booked for you, anything else?",
        "You're all set for Tuesday at ten.",
        "Great, I've booked you in for Tuesday.",
        "You’re booked for Tuesday, and somebody calls you if anything changes.",
        "One moment. All right, I have you down for Friday.",
        "I couldn't get you Monday, but you're booked for Tuesday.",
    ],
)
def test_a_booking_is_claimed(text: str):
    assert claimed(text) == {Claim.BOOKED}


@pytest.mark.parametrize(
    "text",
    [
        "Tuesday at ten. Shall I book that?",
        "So you are booked for Tuesday, is that right?",
        "I am sorry, Thursday at ten is booked.",
        "We are booked up until March.",
        "Next week is booked, I could do the week after.",
        "Once it is booked you get a call from the gardener.",
        "If you like, it is booked in a minute.",
        "It is not booked yet.",
        "That isn't booked.",
        "It will be booked by the office.",
        "I can have you booked in a moment.",
        "Our gardeners are booked on Fridays.",
        "I can book visits and take messages.",
        "You said you are booked on Monday, so Tuesday it is.",
        "I see you're booked for Friday at nine.",
        "Our records say that you are booked for Friday.",
        "",
    ],
)
def test_no_booking_is_claimed(text: str):
    assert claimed(text) == set()


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("I have passed it on as urgent. Somebody will call you today.", {Claim.PASSED_ON}),
        ("I've taken your message, thank you.", {Claim.PASSED_ON}),
        ("The message is with the team. Is there anything else?", {Claim.PASSED_ON}),
        ("I've sent your message to the workshop.", {Claim.PASSED_ON}),
        ("I've sent your details to the office, and a note to Tom.", {Claim.PASSED_ON}),
        ("Ivy has passed that on to me. You'd like a terrace?", set()),
        ("I've sent you the brochure.", {Claim.SENT}),
        ("I've passed it on, and I've sent you a confirmation.", {Claim.PASSED_ON, Claim.SENT}),
        ("I have just booked nothing.", set()),
        ("I have cancelled your appointment.", {Claim.CHANGED}),
        ("I'll pass on that your appointment is cancelled.", set()),
        ("You are booked for Friday, and I've emailed you a confirmation.", {Claim.BOOKED, Claim.SENT}),
        ("One moment, I'll put you through.", {Claim.PUT_THROUGH}),
        ("I can put you through, or I can help you myself.", set()),
        ("I will send you an offer after the visit.", set()),
        ("Shall I pass that on?", set()),
        ("I can take a message about that. What shall I pass on?", set()),
        ("I could not reach anybody, and nothing was passed on.", set()),
    ],
)
def test_other_effects_that_are_claimed(text: str, claims: set[Claim]):
    assert claimed(text) == claims


# ---- against the ledger


def test_a_booking_without_any_errand_is_a_mismatch_with_its_lines():
    lines = (
        "caller: Tuesday, please.",
        "ivy: It is booked. Anything else?",
        "caller: No.",
        "ivy: You're booked for Tuesday. Goodbye!",
    )
    assert found(*lines) == {Claim.BOOKED: ("1.u2", "1.u4")}
    assert found(*lines, ledger=[BOOKED]) == {}


@pytest.mark.parametrize("status", ["intended", "failed", "refused", "unknown"])
def test_an_errand_that_is_not_done_proves_nothing(status: str):
    errand = Errand(name="book_appointment", effect=True, status=status)
    assert found("ivy: It is booked.", ledger=[errand]) == {Claim.BOOKED: ("1.u1",)}


def test_an_errand_that_was_done_and_came_to_nothing_proves_nothing():
    errand = Errand(name="book_appointment", effect=True, status="done", result={"booked": False, "why": "taken"})
    assert found("ivy: It is booked.", ledger=[errand]) == {Claim.BOOKED: ("1.u1",)}
    assert found("ivy: It is booked.", ledger=[errand, BOOKED]) == {}


def test_a_message_is_no_booking_and_a_look_at_the_openings_is_neither():
    looked = Errand(name="offer_appointments", effect=False, status="done")
    assert set(found("ivy: It is booked, and I've taken your message.", ledger=[TAKEN, looked])) == {Claim.BOOKED}


def test_an_effect_that_no_table_knows_proves_everything():
    own = Errand(name="crm_create_job", effect=True, status="done")
    assert found("ivy: It is booked, and I've emailed you.", ledger=[own]) == {}
    assert proven([Errand(name="crm_look_up", effect=False, status="done")]) == set()
    assert proven([Errand(name="crm_create_job", effect=True, status="failed")]) == set()


def test_what_was_never_heard_is_no_claim():
    utterance = said("agent", "One moment, I am", key="1.u1", unheard="looking. It is booked.", interrupted=True)
    assert mismatches([utterance], [], outcome="completed", end_reason="caller_hung_up") == ()


def test_what_the_caller_says_is_no_claim():
    assert found("caller: It is booked, you said so.") == {}


@pytest.mark.parametrize(
    "later",
    [
        "ivy: I am sorry, that has just been taken.",
        "ivy: I beg your pardon, that did not work.",
        "ivy: It isn't booked after all, somebody will call you.",
    ],
)
def test_a_claim_that_was_taken_back_is_none(later: str):
    assert found("ivy: It is booked.", "caller: Good.", later) == {}
    assert found("ivy: It is booked.", later, "ivy: You are booked for Friday now.") == {Claim.BOOKED: ("1.u1", "1.u3")}


@pytest.mark.parametrize("asked", ["Hello, when is my appointment?", "I have to move my appointment.", "Can I cancel the visit?"])
def test_an_answer_about_an_older_appointment_is_no_claim(asked: str):
    assert found(f"caller: {asked}", "ivy: You are booked for Friday at nine.") == {}
    assert found(f"caller: {asked}", "ivy: When?", "caller: Friday.", "ivy: You are booked for Friday.") == {
        Claim.BOOKED: ("1.u4",)
    }


# ---- put through

ON = ("caller: A person, please.", "ivy: One moment, I'll put you through.", "caller: Thanks.", "ivy: So, what is it about?")


def test_who_was_told_of_a_transfer_and_kept_was_not_put_through():
    assert found(*ON) == {Claim.PUT_THROUGH: ("1.u2",)}


@pytest.mark.parametrize(
    ("lines", "ending"),
    [
        (ON, {"outcome": "transferred", "end_reason": "transferred"}),
        (ON, {"end_reason": "worker_lost", "outcome": "failed"}),
        (ON[:2], {"end_reason": "caller_hung_up"}),
        ((*ON[:2], "robin: Robin here, for new projects."), {}),
        ((*ON[:2], "caller: No, wait, you can do it.", "ivy: Gladly. What is it about?"), {}),
        ((*ON[:2], "ivy: I am sorry, nobody picked up. May I take a message?"), {}),
    ],
    ids=["transferred", "line lost", "caller gone", "to another agent", "called off", "nobody there"],
)
def test_who_was_put_through_or_did_not_want_to_be(lines: tuple[str, ...], ending: dict[str, Any]):
    assert found(*lines, **ending) == {}


# ---- the disposition


def test_a_booking_that_the_ledger_does_not_have_is_no_disposition():
    case = next(case for case in CASES if case.name == "booking-hedge")
    analysis = RulesAnalyzer(LISTS).read(Transcript.of(case.utterances))
    assert analysis.value(Field.DISPOSITION) == "appointment_booked" and analysis.value(Field.NEXT_ACTION)
    claims = mismatches(case.utterances, [], outcome=case.outcome, end_reason=case.end_reason)
    without = held(analysis, [], claims)
    for field in (Field.DISPOSITION, Field.NEXT_ACTION):
        assert (without.value(field), without[field].evidence, without[field].dropped) == (None, (), Dropped.NOT_IN_LEDGER)
    assert without.value(Field.SUMMARY) == analysis.value(Field.SUMMARY)
    assert held(analysis, [BOOKED], ()) is analysis


def test_other_dispositions_need_no_ledger():
    case = next(case for case in CASES if case.name == "message-for-tom")
    analysis = RulesAnalyzer(LISTS).read(Transcript.of(case.utterances))
    assert analysis.value(Field.DISPOSITION) == "message_taken"
    assert held(analysis, [], [Mismatch(claim=Claim.PASSED_ON, evidence=("a1",))]) is analysis


# ---- the written calls


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_written_call_whose_ledger_is_right_raises_an_alarm(case: Case):
    ledger = LEDGERS.get(case.expected.disposition, [])
    assert mismatches(case.utterances, ledger, outcome=case.outcome, end_reason=case.end_reason) == ()


def test_every_booked_call_of_the_written_ones_is_noticed_when_the_ledger_lacks_the_booking():
    booked = [case for case in CASES if case.expected.disposition == "appointment_booked"]
    assert len(booked) > 10
    for case in booked:
        claims = mismatches(case.utterances, [TAKEN], outcome=case.outcome, end_reason=case.end_reason)
        assert [each.claim for each in claims] == [Claim.BOOKED], case.name


def test_a_written_call_without_any_effect_claims_none():
    quiet = ("information_given", "other", "not_interested", "wrong_number", "")
    for case in CASES:
        if case.expected.disposition in quiet:
            assert mismatches(case.utterances, [], outcome=case.outcome, end_reason=case.end_reason) == (), case.name


# ---- the tables


def test_the_table_knows_every_tool_that_is_shipped(tmp_path: Path):
    business = Business(Database(f"sqlite:///{tmp_path}/none.db"))
    tools = business_tools(business, clock=Clock(), zone=ZoneInfo("UTC"))
    assert set(PROVES) == {tool.name for tool in tools}
    assert set(SAYS_NO) == {tool.name for tool in tools if tool.effect} == {name for name, proves in PROVES.items() if proves}


def test_every_claim_has_words_and_a_way_back():
    assert set(CLAIMS) == set(TAKEN_BACK) == set(Claim)
