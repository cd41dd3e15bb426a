"""The checker of expectations: each thing that does not hold is one sentence, and what holds is none."""

from typing import Any

import pytest

from app.rehearsal.scenes import EXPECTATIONS, Scene
from app.rehearsal.scenes_check import check

ROW: dict[str, Any] = {
    "finished_at": "2026-11-20T10:00:00Z",
    "outcome": "completed",
    "end_reason": "agent_ended",
    "disposition": "appointment_booked",
    "intent": "book",
    "urgency": "normal",
    "escalated": False,
    "agent_path": ["front-desk", "sales"],
    "slots": {
        "name": {"value": "Anna Miller", "confirmed": False},
        "callback_number": {"value": "+15551234567", "confirmed": True},
    },
    "turns": 5,
    "barge_ins": 1,
    "utterances": [
        {"speaker": "agent", "heard": "Linden Gardens, hello!", "unheard": "How can I", "heard_ms": 1_500, "interrupted": True},
        {"speaker": "caller", "heard": "i would like to book an appointment"},
        {"speaker": "agent", "heard": "What is your name?", "unheard": None, "heard_ms": 1_000, "interrupted": False},
    ],
    "tool_invocations": [
        {"name": "note_slot", "status": "done"},
        {"name": "find_customer", "status": "done"},
        {"name": "book_appointment", "status": "done"},
    ],
}
FACTS: dict[str, Any] = {
    "violations": [], "troubles": [], "heard_ms": 2_520, "dialed": [{"number": "+15550001111"}], "by": "account", "streams": 1,
}  # fmt: skip


def failures(expect: dict[str, Any], row: dict[str, Any] | None = ROW, **facts: Any) -> list[str]:
    return check(Scene(name="x", title="x", expect=expect), row, FACTS | facts)


@pytest.mark.parametrize(
    ("good", "bad", "word"),
    [
        ({"outcome": "completed"}, {"outcome": "failed"}, "expected 'failed'"),
        ({"end_reason": ["silence", "agent_ended"]}, {"end_reason": ["silence"]}, "end_reason is 'agent_ended'"),
        ({"disposition": "appointment_booked"}, {"disposition": "lead"}, "disposition"),
        ({"intent": "book"}, {"intent": "buy"}, "intent"),
        ({"urgency": "normal"}, {"urgency": "high"}, "urgency"),
        ({"escalated": False}, {"escalated": True}, "escalated"),
        ({"agent_path": ["front-desk", "sales"]}, {"agent_path": ["front-desk"]}, "the agents were front-desk, sales"),
        ({"slots": {"name": "anna miller"}}, {"slots": {"name": "anna"}}, "the slot name is 'Anna Miller', expected 'anna'"),
        ({"slots": {"name": "/mill/"}}, {"slots": {"name": "/smith/"}}, "the slot name"),
        ({"slots": {"reason": False}}, {"slots": {"name": False}}, "should not be there"),
        ({"slots": {}}, {"slots": {"reason": "x"}}, "the slot reason was not filled"),
        ({"confirmed": ["callback_number"]}, {"confirmed": ["name"]}, "the slot name was not confirmed"),
        ({"tools": ["note_slot", "book_appointment"]}, {"tools": ["book_appointment", "note_slot"]}, "in this order"),
        ({"no_tools": ["take_message"]}, {"no_tools": ["find_customer"]}, "find_customer was called"),
        ({"turns": {"min": 5, "max": 6}}, {"turns": {"min": 6}}, "turns is 5, expected 6 or more"),
        ({"barge_ins": 1}, {"barge_ins": 0}, "barge_ins is 1, expected 0"),
        ({"streams": 1}, {"streams": {"min": 2, "max": 3}}, "streams is 1, expected 2 to 3"),
        ({"heard": ["hello", "your name"]}, {"heard": ["your name", "hello"]}, "the caller did not hear 'hello' after"),
        ({"not_heard": ["goodbye"]}, {"not_heard": ["linden"]}, "the caller heard 'linden'"),
        ({"caller_said": ["book"]}, {"caller_said": ["buy"]}, "not understood to say 'buy'"),
        ({"unheard": True}, {"unheard": False}, "something was left unheard: 'How can I'"),
        ({"dialed": ["/^.1555/"]}, {"dialed": []}, "the numbers dialed were +15550001111, expected none"),
        ({"hung_up_by": "account"}, {"hung_up_by": "caller"}, "the call was ended by 'account'"),
        ({"heard_tolerance_ms": 20}, {"heard_tolerance_ms": 19}, "the line played 2520 ms"),
        ({"failed_tools": 0}, {}, ""),
    ],
)
def test_what_holds_is_silent_and_what_does_not_is_one_sentence(good, bad, word):
    assert failures(good) == []
    if bad:
        [sentence] = failures(bad)
        assert word in sentence


def test_every_expectation_that_a_file_may_have_is_checked():
    assert not any("is not known" in sentence for name in EXPECTATIONS for sentence in failures({name: WRONG.get(name, "nothing")}))


WRONG = {"slots": {}, "confirmed": [], "tools": [], "no_tools": [], "failed_tools": 0, "turns": 5, "barge_ins": 1, "streams": 1,
         "heard": [], "not_heard": [], "caller_said": [], "dialed": [], "agent_path": [], "heard_tolerance_ms": 500}  # fmt: skip


def test_no_row_and_an_unfinished_row_are_failures():
    assert failures({}, None) == ["the call left no row"]
    assert failures({}, ROW | {"finished_at": None}) == ["the row was not finished"]


def test_complaints_of_the_carrier_and_troubles_of_the_caller_fail_every_scene():
    sentences = failures({}, violations=["31951: bad base64"], troubles=["the agent was not heard"])
    assert sentences == ["the agent was not heard", "the carrier complained: 31951: bad base64"]


def test_a_tool_that_failed_fails_the_scene_unless_it_says_otherwise():
    row = ROW | {"tool_invocations": [{"name": "book_appointment", "status": "unknown", "reason": "late"}]}
    assert len(failures({}, row)) == 1
    assert failures({"failed_tools": 1}, row) == []


def test_the_row_may_not_claim_that_more_or_less_was_heard_than_the_line_played():
    assert failures({}) == []
    [more] = failures({}, heard_ms=1_500)
    [less] = failures({}, heard_ms=4_000)
    assert "2500 ms were heard, the line played 1500 ms" in more
    assert "the line played 4000 ms" in less
