"""The call from its opening to its end."""

import pytest

from app.call import commands as c
from app.call import events as e
from app.call.agent import FloorPolicy
from app.call.disposition import EndReason, Intent, Memory, Outcome, Slot, Usage
from app.call.machine import Phase
from app.call.sentences import PUTTING_THROUGH
from tests.call.scene import Scene, agent_speaking, kinds, talking


def filed(scene: Scene) -> tuple[Outcome, EndReason]:
    (order,) = scene.all_of(c.FileCall)
    return order.filed.outcome, order.filed.end_reason


# ---- the opening


@pytest.mark.parametrize("order", [(e.StreamStarted(), e.ModelReady()), (e.ModelReady(), e.StreamStarted())])
def test_the_agent_greets_when_both_legs_stand(order):
    scene = Scene()
    assert c.Speak("Greet the caller.") not in scene.tell(order[0])
    assert c.Speak("Greet the caller.") in scene.tell(order[1])


def test_a_session_is_asked_for_when_the_caller_is_there():
    scene = Scene()
    assert scene.tell(e.StreamStarted()) == [c.OpenModel(hold_ms=1_000)]


def test_a_call_that_goes_on_from_an_earlier_stream_apologises_instead_of_greeting():
    scene = Scene(resumed=True)
    scene.tell(e.StreamStarted())
    (speak,) = [order for order in scene.tell(e.ModelReady()) if isinstance(order, c.Speak)]
    assert "interrupted" in speak.instructions


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


def test_a_model_that_keeps_failing_ends_in_a_sentence_and_a_person_and_not_in_silence():
    scene = talking()
    scene.caller_says("u1")
    for _ in range(3):
        scene.tell(e.ResponseEnded(scene.begin_response(), "failed", "server_error"))
        if scene.call.phase is Phase.TALKING:
            scene.wait()
    assert scene.all_of(c.SayLine) == [c.SayLine(PUTTING_THROUGH)]


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
