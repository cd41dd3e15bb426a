"""The call from its opening to its end."""

import json

import pytest

from app.call import commands as c
from app.call import events as e
from app.call.agent import FloorPolicy
from app.call.disposition import EndReason, Intent, Memory, Outcome, Slot, Usage
from app.call.machine import Phase
from tests.call.scene import Scene, agent_speaking, kinds, talking


def filed(scene: Scene) -> tuple[Outcome, EndReason]:
    (order,) = scene.all_of(c.FileCall)
    return order.filed.outcome, order.filed.end_reason


# ---- the opening


@pytest.mark.parametrize("order", [(e.StreamStarted(), e.ModelReady()), (e.ModelReady(), e.StreamStarted())])
def test_the_agent_greets_when_both_legs_stand(order):
    scene = Scene()
    assert scene.tell(order[0]) == []
    assert c.Speak("Greet the caller.") in scene.tell(order[1])


def test_a_call_that_goes_on_from_an_earlier_stream_apologises_instead_of_greeting():
    scene = Scene(resumed=True)
    scene.tell(e.StreamStarted())
    (speak,) = [order for order in scene.tell(e.ModelReady()) if isinstance(order, c.Speak)]
    assert "interrupted" in speak.instructions


def test_a_model_that_refuses_us_is_no_dead_line():
    scene = Scene()
    scene.tell(e.StreamStarted())
    assert c.LeaveStream(Intent.APOLOGISE) in scene.tell(e.ModelLost("refused", fatal=True))
    scene.tell(e.StreamEnded(clean=False))
    assert filed(scene) == (Outcome.FAILED, EndReason.MODEL_UNAVAILABLE)


def test_a_model_that_is_lost_is_looked_for_again_on_another_stream():
    scene = talking()
    assert c.LeaveStream(Intent.TALK) in scene.tell(e.ModelLost("closed"))
    scene.tell(e.StreamMovedOn())
    assert scene.call.over and not scene.all_of(c.FileCall)


def test_a_lost_model_and_no_other_stream_is_a_failed_call():
    scene = talking()
    scene.tell(e.ModelLost("closed"))
    scene.tell(e.StreamEnded(clean=False))
    assert not scene.call.over
    scene.wait()
    assert filed(scene) == (Outcome.FAILED, EndReason.MODEL_UNAVAILABLE)


# ---- turns


def test_the_one_response_follows_the_commit_and_not_the_transcript():
    scene = talking()
    scene.tell(e.CallerSpeechStarted("u1"), at=2_000)
    assert scene.tell(e.CallerSpeechStopped("u1", 500), at=3_000) == []
    assert c.Speak() in scene.tell(e.CallerTurnCommitted("u1"))
    assert kinds(scene.tell(e.CallerTranscribed("u1", "hello"))) == ["KeepUtterance"]


def test_a_response_waits_for_the_end_of_the_running_one():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    assert not any(isinstance(order, c.Speak) for order in scene.tell(e.CallerTurnCommitted("u2")))
    assert c.Speak() in scene.tell(e.ResponseEnded(response))


def test_latency_runs_from_the_end_of_speech_by_media_time_to_the_first_acknowledged_frame():
    scene = talking()
    scene.caller_says("u1", at=2_000, ms=760)
    committed = scene.at - 200  # the transcript came 200 ms later
    scene.answer(at=committed + 350)
    scene.hear(1, at=committed + 400)
    turn = scene.all_of(c.KeepTurn)[-1].turn
    assert (turn.number, turn.utterance) == (2, "u1")
    assert turn.speech_ended_at == committed - 500
    assert turn.latency_ms == 900


def test_a_failed_response_is_asked_for_again_after_the_time_the_provider_names():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tell(e.ResponseEnded(response, "failed", "rate_limit_exceeded", retry_ms=1_200))
    assert scene.call.deadline == scene.at + 1_200
    assert c.Speak() in scene.wait()


def test_a_model_that_keeps_failing_ends_in_an_apology_and_not_in_silence():
    scene = talking()
    scene.caller_says("u1")
    for _ in range(3):
        scene.tell(e.ResponseEnded(scene.begin_response(), "failed", "server_error"))
        if scene.call.phase is Phase.TALKING:
            scene.wait()
    assert scene.ordered[-1] == c.LeaveStream(Intent.APOLOGISE)


def test_a_model_that_was_asked_and_does_nothing_is_given_up():
    scene = talking()
    scene.caller_says("u1")
    assert c.LeaveStream(Intent.TALK) in scene.wait()


def test_a_refused_response_is_asked_for_again():
    scene = talking()
    scene.caller_says("u1")
    scene.tell(e.ModelComplained("conversation_already_has_active_response"))
    assert c.Speak() in scene.wait()


def test_usage_adds_up_over_responses_and_transcripts():
    scene = talking()
    scene.tell(e.ResponseEnded(scene.begin_response(), usage=Usage(text_in=10, audio_out=5, responses=1)))
    scene.tell(e.ResponseEnded(scene.begin_response(), usage=Usage(text_in=7, audio_out=1, responses=1)))
    scene.tell(e.CallerTranscribed("u1", "hm", Usage(transcription_seconds=1.5)))
    assert scene.call.memory.usage == Usage(text_in=17, audio_out=6, responses=2, transcription_seconds=1.5)


# ---- tools


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
    _, given = scene.tell(e.ToolCalled("r2", "t1", "note_slot", arguments))
    assert json.loads(given.result) == {"error": "the arguments are not a JSON object"}


def test_a_control_of_another_agent_is_refused_at_execution():
    scene = talking()
    scene.begin_response()
    scene.tool("hand_off", "t1", to="sales", reason="buys")
    kept, *_ = scene.tool("look_up", "t2")  # the desk's, not the sales agent's
    assert isinstance(kept, c.KeepTool) and kept.refused and kept.agent == "sales"


def test_waiting_for_the_caller_is_a_silent_choice():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("wait_for_caller")
    assert not any(isinstance(order, c.Speak) for order in scene.tell(e.ResponseEnded(response)))


# ---- slots and hand-off


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


# ---- keys


def test_keys_are_gathered_and_given_to_the_model_after_the_pause():
    scene = talking()
    for key in "5550100":
        assert scene.tell(e.DigitPressed(key), at=scene.at + 200) == []
    kept, brief, speak = scene.wait()
    assert brief == c.Brief("(The caller typed on the keypad: 5550100)", from_caller=True) and speak == c.Speak()
    assert kept.utterance.heard == "[keys *****00]"


def test_the_hash_key_ends_the_entry_at_once():
    scene = talking()
    scene.tell(e.DigitPressed("7"))
    assert "Brief" in kinds(scene.tell(e.DigitPressed("#")))


def test_a_key_interrupts_the_agent():
    scene = agent_speaking()
    assert c.ClearPlayout() in scene.tell(e.DigitPressed("1"), at=900)


# ---- goodbye


def ending(scene: Scene, *, goodbye: str | None = "Goodbye!") -> Scene:
    """The agent ends the call, with a goodbye in the same response or without."""
    scene.caller_says("u1")
    response = scene.begin_response()
    if goodbye:
        scene.say(goodbye, ms=900, response=response)
    scene.tool("end_call", disposition="booked", summary="Booked for Tuesday.", next_action="Send a reminder.")
    scene.tell(e.ResponseEnded(response))
    return scene


def test_the_last_sentence_is_heard_before_the_line_is_closed():
    scene = ending(talking())
    assert not scene.all_of(c.LeaveStream)
    scene.hear_all(at=scene.at + 900)
    assert scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)
    scene.tell(e.StreamEnded(clean=True))
    scene.listened_on()
    assert filed(scene) == (Outcome.COMPLETED, EndReason.AGENT_ENDED)
    memory = scene.all_of(c.FileCall)[0].filed.memory
    assert (memory.disposition, memory.summary, memory.next_action) == ("booked", "Booked for Tuesday.", "Send a reminder.")


def test_an_agent_that_ends_without_a_word_is_asked_for_a_goodbye():
    scene = ending(talking(), goodbye=None)
    (*_, speak) = scene.ordered
    assert isinstance(speak, c.Speak) and "goodbye" in speak.instructions and not speak.may_use_tools
    scene.answer("Bye.", ms=400)
    scene.hear_all(at=scene.at + 400)
    assert scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)


def test_a_mark_that_never_comes_does_not_hold_the_line_for_ever():
    scene = ending(talking())
    assert scene.call.deadline == scene.at + 900 + 2_000
    assert c.LeaveStream(Intent.HANG_UP) in scene.wait()


def test_a_goodbye_that_is_never_generated_does_not_hold_the_line_for_ever():
    scene = ending(talking(), goodbye=None)
    while scene.call.phase is Phase.ENDING:
        scene.wait()
    assert isinstance(scene.ordered[-1], c.LeaveStream)


def test_a_caller_who_speaks_on_cancels_the_goodbye():
    scene = ending(talking())
    ordered = scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 300)
    assert kinds(ordered)[:4] == ["ClearPlayout", "StopSpeaking", "KeepUtterance", "Brief"]
    assert scene.call.phase is Phase.TALKING
    scene.tell(e.CallerSpeechStopped("u2", 500), at=scene.at + 1_500)
    assert c.Speak() in scene.tell(e.CallerTurnCommitted("u2"))
    scene.answer("Of course.", ms=300)
    scene.hear_all(at=scene.at + 300)
    assert not scene.all_of(c.LeaveStream)


# ---- transfer


def test_a_transfer_is_announced_and_then_carried_out_by_the_directorys_name():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("transfer_to_human", to="manager", reason="angry")
    scene.tell(e.ResponseEnded(response))
    scene.answer("One moment.", ms=500)
    scene.hear_all(at=scene.at + 500)
    assert scene.ordered[-1] == c.LeaveStream(Intent.TRANSFER, "manager")
    scene.tell(e.StreamEnded(clean=False))
    scene.listened_on()
    assert scene.call.over and not scene.all_of(c.FileCall)
    assert scene.call.memory.escalated and scene.call.memory.transfer_to == "manager"


def test_a_caller_whom_nobody_took_is_told_so_by_the_agent():
    scene = Scene(resumed=True, memory=Memory(agent="desk", agent_path=("desk",), transfer_to="manager", escalated=True))
    scene.tell(e.StreamStarted())
    (speak,) = [order for order in scene.tell(e.ModelReady()) if isinstance(order, c.Speak)]
    assert "Nobody could be reached" in speak.instructions
    assert scene.call.memory.transfer_to is None and scene.call.memory.escalated


# ---- silence


def test_a_silent_caller_is_asked_twice_and_then_bid_goodbye():
    scene = talking(FloorPolicy(silence_ms=4_000, silence_prompts=2))
    for _ in range(2):
        (speak,) = [order for order in scene.wait() if isinstance(order, c.Speak)]
        assert "still there" in speak.instructions
        scene.answer("Are you still there?", ms=800)
        scene.hear_all(at=scene.at + 800)
    scene.wait()
    scene.answer("Goodbye.", ms=500)
    scene.hear_all(at=scene.at + 500)
    assert scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)
    scene.tell(e.StreamEnded(clean=True))
    scene.listened_on()
    assert filed(scene) == (Outcome.NO_SPEECH, EndReason.SILENCE)


def test_silence_is_counted_from_when_the_agent_was_last_heard():
    scene = Scene(FloorPolicy(silence_ms=4_000)).open()
    scene.answer(ms=1_000, at=100)
    scene.hear_all(at=1_200)
    assert scene.call.deadline == 1_200 + 4_000


def test_a_call_that_lasts_too_long_is_ended_with_a_goodbye():
    scene = talking(max_ms=60_000, floor=FloorPolicy(silence_ms=60_000))
    (speak,) = [order for order in scene.tell(e.DeadlinePassed(), at=60_000) if isinstance(order, c.Speak)]
    assert "has to end" in speak.instructions


# ---- the caller hangs up


def test_a_stream_that_stops_is_the_calls_end_only_by_the_carriers_word():
    scene = talking()
    scene.caller_says("u1")
    scene.tell(e.StreamEnded(clean=True))
    assert not scene.all_of(c.FileCall)
    scene.tell(e.CarrierEnded("completed"))
    scene.listened_on()
    assert filed(scene) == (Outcome.COMPLETED, EndReason.CALLER_HUNG_UP)


def test_five_seconds_without_a_stream_are_the_calls_end():
    scene = talking()
    scene.tell(e.StreamEnded(clean=False), at=2_000)
    scene.listened_on()
    assert scene.call.deadline == 7_000
    scene.wait()
    assert filed(scene) == (Outcome.ABANDONED, EndReason.CALLER_HUNG_UP)


def test_a_stream_that_follows_takes_the_call_and_nothing_is_filed_here():
    scene = talking()
    scene.tell(e.StreamEnded(clean=False))
    scene.tell(e.StreamMovedOn())
    scene.listened_on()
    assert scene.call.over and not scene.all_of(c.FileCall)


def test_the_last_words_are_heard_before_the_session_is_closed():
    scene = talking()
    scene.tell(e.CallerSpeechStarted("u1"), at=3_000)
    scene.tell(e.CarrierEnded("completed"), at=3_100)
    assert scene.ordered[-1] == c.FinishHearing()
    scene.tell(e.CallerSpeechStopped("u1", 500), at=3_800)
    assert kinds(scene.tell(e.CallerTurnCommitted("u1"))) == ["KeepUtterance"]
    assert not scene.all_of(c.CloseModel)
    ordered = scene.tell(e.CallerTranscribed("u1", "no, the other"), at=4_000)
    assert kinds(ordered) == ["KeepUtterance", "CloseModel", "KeepMemory", "FileCall"]
    assert filed(scene) == (Outcome.COMPLETED, EndReason.CALLER_HUNG_UP)


def test_last_words_that_never_come_are_marked_untranscribed_after_two_seconds():
    scene = talking()
    scene.caller_says("u1", text=None)
    scene.tell(e.StreamEnded(clean=True))
    scene.tell(e.CarrierEnded("completed"))
    gone = scene.at
    scene.listened_on()
    assert scene.call.deadline == gone + 2_000
    ordered = scene.wait()
    assert ordered[0].utterance.untranscribed and isinstance(ordered[-1], c.FileCall)


def test_what_was_queued_when_the_caller_hung_up_is_kept_as_unheard():
    scene = agent_speaking(ms=5_000)
    scene.hear(6, at=500)
    ordered = scene.tell(e.StreamEnded(clean=True), at=540)
    (kept,) = [order.utterance for order in ordered if isinstance(order, c.KeepUtterance)]
    assert kept.heard_ms == 540 and kept.unheard
    assert not any(isinstance(order, c.StopSpeaking | c.ClearPlayout) for order in ordered)


@pytest.mark.parametrize("status", ["busy", "failed", "no-answer", "canceled"])
def test_a_call_that_the_carrier_failed_is_filed_as_such(status):
    scene = talking()
    scene.tell(e.CarrierEnded(status))
    scene.listened_on()
    assert filed(scene) == (Outcome.FAILED, EndReason.CARRIER_ENDED)


def test_the_row_is_filed_once_whatever_comes_afterwards():
    scene = talking()
    scene.tell(e.CarrierEnded("completed"))
    scene.listened_on()
    for event in (
        e.StreamEnded(True),
        e.CarrierEnded("failed"),
        e.ModelLost("closed"),
        e.DeadlinePassed(),
        e.CallerTurnCommitted("u"),
    ):
        assert scene.tell(event, at=scene.at + 10_000) == []
    assert len(scene.all_of(c.FileCall)) == 1


def test_a_call_goes_on_with_what_the_stream_before_knew():
    memory = Memory(agent="sales", agent_path=("desk", "sales"), turns=4, slots=(Slot(name="name", value="Ann"),), barge_ins=2)
    scene = Scene(resumed=True, memory=memory).open()
    assert scene.call.agent.name == "sales" and scene.call.slots.values == {"name": "Ann"}
    scene.answer()
    scene.hear_all(at=900)
    assert scene.all_of(c.KeepTurn)[0].turn.number == 5


# ---- what a review found, and what must not come back


def test_a_word_that_was_only_just_begun_when_the_caller_hung_up_is_still_heard():
    scene = talking()
    scene.tell(e.StreamEnded(clean=True), at=3_000)
    scene.tell(e.CarrierEnded("completed"))
    scene.tell(e.CallerSpeechStarted("u1", 200), at=3_100)
    scene.tell(e.CallerTurnCommitted("u1"), at=3_500)
    scene.tell(e.CallerTranscribed("u1", "no"), at=3_700)
    assert scene.call.over and filed(scene) == (Outcome.COMPLETED, EndReason.CALLER_HUNG_UP)


def test_a_model_that_stalls_in_the_middle_of_a_response_is_given_up():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tell(e.AgentAudio(response, "i1", 4_000, bytes(4_000)))
    scene.hear_all(at=scene.at + 500)
    while scene.call.phase is Phase.TALKING:
        assert scene.call.deadline <= scene.at + 11_000
        scene.wait()
    assert scene.ordered[-1] == c.LeaveStream(Intent.TALK)


def test_a_cancelled_response_that_never_ends_is_given_up():
    scene = talking()
    scene.caller_says("u1")
    scene.begin_response()
    scene.caller_says("u2")
    while scene.call.phase is Phase.TALKING:
        assert scene.call.deadline <= scene.at + 60_000
        scene.wait()
    assert scene.ordered[-1] == c.LeaveStream(Intent.TALK)


def test_a_mark_that_is_lost_does_not_leave_the_line_audible_for_ever():
    scene = talking()
    scene.caller_says("u1")
    scene.answer(ms=500)
    scene.marks.clear()  # the carrier never gives them back
    scene.wait()
    assert not scene.call.playout.is_audible
    (speak,) = [order for order in scene.wait() if isinstance(order, c.Speak)]
    assert "still there" in speak.instructions


def test_a_provider_that_wants_minutes_is_not_waited_for():
    scene = talking()
    scene.caller_says("u1")
    scene.tell(e.ResponseEnded(scene.begin_response(), "failed", "rate_limit_exceeded", retry_ms=864_000))
    assert scene.ordered[-1] == c.LeaveStream(Intent.APOLOGISE)


def test_a_failed_response_is_asked_for_again_with_its_own_instructions():
    scene = Scene().open()
    scene.tell(e.ResponseEnded(scene.begin_response(), "failed", "server_error"))
    assert c.Speak("Greet the caller.") in scene.wait()


def test_a_call_is_not_ended_by_a_response_that_the_caller_cut():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 100)
    kept, *_ = scene.tool("end_call", "t1", response=response, disposition="other", summary="s")
    assert kept.refused and scene.call.phase is Phase.TALKING


def test_a_caller_who_may_not_interrupt_the_goodbye_and_speaks_on_is_not_hung_up_on():
    scene = talking(FloorPolicy(interruptible=False))
    ending(scene)
    scene.caller_says("u2", at=scene.at + 100)
    assert scene.call.phase is Phase.TALKING
    scene.answer("Of course.")
    scene.hear_all(at=scene.at + 3_000)
    assert not scene.all_of(c.LeaveStream)


def test_words_that_came_too_late_to_be_played_leave_the_models_memory_and_stand_as_unheard():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 50)
    scene.say("Certainly, one moment.", ms=500, response=response, utterance="late")
    ordered = scene.tell(e.ResponseEnded(response, "cancelled", "client_cancelled"))
    assert c.StopSpeaking("late", 0) in ordered
    kept = [order.utterance for order in ordered if isinstance(order, c.KeepUtterance)][-1]
    assert (kept.heard, kept.unheard, kept.interrupted) == ("", "Certainly, one moment.", True)


def test_a_number_noted_before_the_stream_broke_can_be_confirmed_after_it():
    slot = Slot(name="callback_number", value="+15550100199")
    scene = Scene(resumed=True, memory=Memory(agent="desk", agent_path=("desk",), slots=(slot,), turns=3, caller_turns=2)).open()
    for turn in ("u1", "u2"):
        scene.caller_says(turn)
        scene.begin_response()
        scene.tool("note_slot", f"t-{turn}", slot="callback_number", value="5550100199", confirmed=True)
    assert scene.call.memory.slots[0].confirmed


def test_nothing_is_confirmed_by_a_caller_who_said_nothing():
    scene = talking(FloorPolicy(silence_ms=3_000))
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("note_slot", "t1", slot="callback_number", value="5550100199")
    scene.tell(e.ResponseEnded(response))
    scene.answer("Is that right?")
    scene.hear_all(at=scene.at + 1_000)
    scene.wait()  # the agent asks whether the caller is still there: a turn, but not the caller's
    scene.begin_response()
    scene.tool("note_slot", "t2", slot="callback_number", value="5550100199", confirmed=True)
    assert not scene.call.memory.slots[0].confirmed


def test_a_transfer_taken_back_is_not_remembered_as_made():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("transfer_to_human", to="manager", reason="angry")
    scene.tell(e.ResponseEnded(response))
    scene.answer("One moment.", ms=500)
    scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 200)
    assert scene.call.memory.transfer_to is None and scene.call.phase is Phase.TALKING


def test_a_refused_order_leaves_no_cancel_and_no_watch_behind():
    scene = talking()
    scene.caller_says("u1")
    scene.tell(e.CallerSpeechStarted("u2"))
    scene.tell(e.ModelComplained("conversation_already_has_active_response"))
    scene.tell(e.CallerSpeechStopped("u2", 500), at=scene.at + 1_000)
    scene.tell(e.CallerTurnCommitted("u2"))
    assert c.Speak() in scene.wait()
    assert scene.tell(e.ResponseStarted("again")) == []


def test_audio_of_the_answer_before_is_no_answer_to_the_turn_after():
    scene = talking(FloorPolicy(interruptible=False))
    scene.caller_says("u1")
    first = scene.begin_response()
    scene.tell(e.AgentAudio(first, "a", 800, bytes(800)))
    scene.caller_says("u2")
    scene.tell(e.AgentAudio(first, "b", 800, bytes(800)))
    before = len(scene.all_of(c.KeepTurn))
    scene.hear_all(at=scene.at + 300)
    assert all(order.turn.utterance != "u2" for order in scene.all_of(c.KeepTurn)[before:])


def test_the_time_limit_is_announced_also_when_it_falls_into_an_answer():
    scene = talking(max_ms=60_000, floor=FloorPolicy(silence_ms=60_000))
    scene.caller_says("u1", at=57_000)
    response = scene.begin_response(at=59_500)
    scene.say("As I was saying.", ms=700, response=response)
    scene.tell(e.DeadlinePassed(), at=60_000)
    ordered = scene.tell(e.ResponseEnded(response), at=60_300)
    assert any(isinstance(order, c.Speak) and "has to end" in order.instructions for order in ordered)


def test_a_model_that_is_lost_after_its_goodbye_changes_nothing():
    scene = ending(talking())
    assert scene.tell(e.ModelLost("closed"), at=scene.at + 200) == []
    scene.hear_all(at=scene.at + 900)
    assert scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)
