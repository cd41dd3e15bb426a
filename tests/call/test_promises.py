"""What must not come back: waits without an end, words after their time, things remembered that never were."""

from app.call import commands as c
from app.call import events as e
from app.call.agent import FloorPolicy
from app.call.disposition import EndReason, Intent, Memory, Outcome, Slot
from app.call.machine import Phase
from app.call.sentences import PUTTING_THROUGH
from tests.call.scene import Scene, talking
from tests.call.test_machine import ending, filed


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
    while not any(isinstance(order, c.OpenModel) for order in scene.wait()):
        assert scene.call.deadline <= scene.at + 11_000


def test_a_cancelled_response_that_never_ends_is_given_up():
    scene = talking()
    scene.caller_says("u1")
    scene.begin_response()
    scene.caller_says("u2")
    while not any(isinstance(order, c.OpenModel) for order in scene.wait()):
        assert scene.call.deadline <= scene.at + 60_000
    assert scene.at < 15_000


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
    assert c.SayLine(PUTTING_THROUGH) in scene.ordered


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


def test_a_turn_counts_its_tools_also_those_after_its_first_sound():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.say("One moment.", ms=400, response=response)
    scene.hear_all(at=scene.at + 400)
    scene.tool("look_up", "t1")
    assert scene.all_of(c.KeepTurn)[-1].turn.tools == 1


def test_a_sentence_begins_when_it_is_heard_and_not_when_it_is_generated():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    began = scene.at
    scene.say("First.", ms=1_000, response=response, utterance="a")
    scene.say("Second.", ms=1_000, response=response, utterance="b")
    scene.hear(11, at=began + 1_000)
    scene.hear(1, at=began + 1_020)
    scene.hear_all(at=began + 2_000)
    a, b = [order.utterance for order in scene.all_of(c.KeepUtterance) if order.utterance.key in "ab"]
    assert a.ended_at <= b.started_at == began + 1_000


def test_a_caller_whose_last_words_were_never_committed_has_spoken_all_the_same():
    scene = talking()
    scene.tell(e.CallerSpeechStarted("u1"), at=3_000)
    scene.tell(e.CarrierEnded("completed"), at=5_000)
    scene.wait()
    ordered = scene.wait()
    (kept,) = [order.utterance for order in ordered if isinstance(order, c.KeepUtterance)]
    assert (kept.key, kept.untranscribed, kept.started_at) == ("u1", True, 3_000)
    assert filed(scene) == (Outcome.COMPLETED, EndReason.CALLER_HUNG_UP)
