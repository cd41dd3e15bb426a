"""The agent's tools: controls and errands, slots, the hand-off."""

import json

import pytest

from app.call import commands as c
from app.call import events as e
from app.call.disposition import Slot
from app.call.machine import Phase
from tests.call.scene import kinds, talking


def test_an_errand_leaves_and_its_result_is_spoken_about_when_the_response_is_done():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    assert scene.tool("look_up", "t1") == [c.RunErrand("t1", "look_up", "desk", "{}", 5_000)]
    assert scene.tell(e.ErrandReturned("t1", '{"found": true}')) == [c.GiveResult("t1", '{"found": true}')]
    assert c.Speak() in scene.tell(e.ResponseEnded(response))


def test_two_tools_at_once_are_answered_one_by_one_and_spoken_about_once():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("look_up", "t1")
    scene.tool("book", "t2")
    scene.tell(e.ResponseEnded(response))
    assert scene.tell(e.ErrandReturned("t2", "{}")) == [c.GiveResult("t2", "{}")]
    assert scene.tell(e.ErrandReturned("t1", "{}")) == [c.GiveResult("t1", "{}"), c.Speak()]


def test_a_caller_who_speaks_while_an_errand_is_out_is_answered_at_once():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("look_up", "t1")
    scene.tell(e.ResponseEnded(response))
    assert c.Speak() in scene.caller_says("u2")


def test_a_tool_that_fails_is_an_answer_to_the_model_and_not_the_calls_end():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("look_up", "t1")
    scene.tell(e.ResponseEnded(response))
    assert scene.tell(e.ErrandFailed("t1", "it hung")) == [c.GiveResult("t1", '{"error": "it hung"}'), c.Speak()]


def test_a_tool_call_announced_twice_is_run_once():
    scene = talking()
    scene.caller_says("u1")
    scene.begin_response()
    assert kinds(scene.tool("look_up", "t1")) == ["RunErrand"]
    assert scene.tool("look_up", "t1") == []
    scene.tell(e.ErrandReturned("t1", "{}"))
    assert scene.tell(e.ErrandReturned("t1", "{}")) == []


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("rm_rf", {}, "this agent has no such tool"),
        ("note_slot", {"slot": "shoe_size", "value": "44"}, "slot is one of: name, callback_number, urgency"),
        ("note_slot", {"slot": "name", "value": 7}, "value is a string and confirmed is true or false"),
        ("note_slot", {"slot": "urgency", "value": "extreme"}, "urgency is one of: low, normal, high"),
        (
            "note_slot",
            {"slot": "callback_number", "value": "12"},
            "callback_number needs a telephone number of 7 to 15 digits; ask for it again",
        ),
        ("hand_off", {"to": "mars"}, "to is one of: sales"),
        ("transfer_to_human", {"to": "+19005550100"}, "to is one of: manager"),
        ("end_call", {"disposition": "free money"}, "disposition is one of: booked, other"),
    ],
)
def test_a_control_that_cannot_be_carried_out_is_answered_with_a_sentence(name, arguments, complaint):
    scene = talking()
    scene.caller_says("u1")
    scene.begin_response()
    kept, given, *rest = scene.tool(name, **arguments)
    assert kept.refused and json.loads(given.result) == {"error": complaint}
    assert rest == [] and scene.call.phase is Phase.TALKING


@pytest.mark.parametrize("arguments", ["{", "[]", '"x"', "[" * 100_000])
def test_arguments_that_are_no_object_are_answered_with_a_sentence(arguments):
    scene = talking()
    scene.begin_response()
    *_, given = scene.tell(e.ToolCalled("r2", "t1", "note_slot", arguments))
    assert json.loads(given.result) == {"error": "the arguments are not a JSON object"}


def test_a_control_of_another_agent_is_refused_at_execution():
    scene = talking()
    scene.begin_response()
    scene.tool("hand_off", "t1", to="sales", reason="buys")
    (kept,) = [order for order in scene.tool("look_up", "t2") if isinstance(order, c.KeepTool)]  # the desk's, not the sales agent's
    assert kept.refused and kept.agent == "sales"


def test_waiting_for_the_caller_is_a_silent_choice():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("wait_for_caller")
    assert not any(isinstance(order, c.Speak) for order in scene.tell(e.ResponseEnded(response)))


def test_a_number_counts_as_confirmed_only_after_the_caller_has_spoken_again():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("note_slot", "t1", slot="callback_number", value="555 010 0199", confirmed=True)
    (slot,) = scene.call.memory.slots
    assert slot == Slot(name="callback_number", value="+15550100199", utterance="u1", agent="desk", confirmed=False, at=scene.at)
    scene.tell(e.ResponseEnded(response))
    scene.tell(e.ResponseEnded(scene.begin_response()))
    scene.caller_says("u2")
    scene.begin_response()
    scene.tool("note_slot", "t2", slot="callback_number", value="5550100199", confirmed=True)
    assert scene.call.memory.slots[0].confirmed and scene.call.memory.slots[0].utterance == "u1"


def test_a_corrected_number_must_be_confirmed_anew():
    scene = talking()
    scene.caller_says("u1")
    scene.begin_response()
    scene.tool("note_slot", "t1", slot="callback_number", value="5550100199")
    scene.caller_says("u2")
    scene.tool("note_slot", "t2", slot="callback_number", value="5550100198", confirmed=True)
    (slot,) = scene.call.memory.slots
    assert (slot.value, slot.confirmed, slot.utterance) == ("+15550100198", False, "u2")


def test_slots_survive_the_hand_off():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("note_slot", "t1", slot="name", value="  Maria   Lopez ")
    ordered = scene.tool("hand_off", "t2", to="sales", reason="wants to buy")
    assert c.TakeOver("sales") in ordered
    assert scene.call.memory.agent_path == ("desk", "sales")
    assert scene.call.slots.values == {"name": "Maria Lopez"}
    (speak,) = [order for order in scene.tell(e.ResponseEnded(response)) if isinstance(order, c.Speak)]
    assert "taken over" in speak.instructions
