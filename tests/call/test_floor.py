"""Who holds the floor."""

from app.call import events as e
from app.call.agent import FloorPolicy, TurnTaking
from app.call.commands import CancelSpeech, ClearPlayout, KeepTurn, KeepUtterance, Speak, StopSpeaking
from app.call.floor import barge_in_at
from tests.call.scene import agent_speaking, kinds, talking


def test_barge_in_stops_the_agent_where_the_caller_stopped_hearing():
    scene = agent_speaking(ms=5_000)
    scene.hear(13, at=1_200)  # at 20 ms, then at each 100 ms
    ordered = scene.tell(e.CallerSpeechStarted("u1"), at=1_250)
    assert ordered[:2] == [ClearPlayout(), StopSpeaking("r1-i", 1_250)]
    assert kinds(ordered[2:]) == ["KeepUtterance", "KeepTurn"]
    assert scene.call.memory.barge_ins == 1


def test_heard_and_unheard_words_are_kept_apart():
    scene = agent_speaking(ms=5_000)
    scene.hear(26, at=2_500)
    ordered = scene.tell(e.CallerSpeechStarted("u1"), at=2_520)
    kept = next(command.utterance for command in ordered if isinstance(command, KeepUtterance))
    assert kept.interrupted and kept.heard_ms == 2_520 and kept.generated_ms == 5_000
    assert kept.heard.startswith("one two three") and kept.unheard.endswith("nine ten")
    assert f"{kept.heard} {kept.unheard}" == "one two three four five six seven eight nine ten"


def test_a_response_still_running_is_cancelled_and_its_late_audio_dropped():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tell(e.AgentAudio(response, "i2", 8_000, bytes(8_000)))
    ordered = scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 300)
    assert CancelSpeech(response) in ordered and ClearPlayout() in ordered
    assert scene.tell(e.AgentAudio(response, "i2", 800, bytes(800))) == []
    assert scene.tell(e.AgentAudio(response, "i3", 800, bytes(800))) == []


def test_items_queued_but_never_heard_are_truncated_at_nothing():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.say("Let me see.", ms=600, response=response, utterance="a")
    scene.say("There it is.", ms=900, response=response, utterance="b")
    scene.tell(e.ResponseEnded(response))
    scene.hear(1, at=scene.at + 20)
    ordered = scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 40)
    assert [c for c in ordered if isinstance(c, StopSpeaking)] == [StopSpeaking("a", 60), StopSpeaking("b", 0)]


def test_the_agent_is_cut_while_it_is_heard_even_when_generation_ended_long_ago():
    scene = agent_speaking(ms=8_000)
    ordered = scene.tell(e.CallerSpeechStarted("u1"), at=400)
    assert ClearPlayout() in ordered and not any(isinstance(command, CancelSpeech) for command in ordered)


def test_a_caller_who_speaks_in_silence_clears_nothing():
    scene = talking()
    assert scene.tell(e.CallerSpeechStarted("u1"), at=3_000) == []
    assert scene.call.memory.barge_ins == 0


def test_a_response_asked_for_and_not_begun_is_cancelled_when_it_begins():
    scene = talking()
    scene.caller_says("u1")
    scene.tell(e.CallerSpeechStarted("u2"))
    assert scene.tell(e.ResponseStarted("late")) == [CancelSpeech("late")]


def test_an_agent_that_may_not_be_interrupted_speaks_on():
    scene = agent_speaking(floor=FloorPolicy(interruptible=False))
    assert scene.tell(e.CallerSpeechStarted("u1"), at=500) == []
    assert scene.call.playout.is_audible


def test_a_protected_beginning_is_cut_when_the_protection_ends_and_the_caller_still_speaks():
    scene = agent_speaking(floor=FloorPolicy(protected_ms=1_000))
    assert scene.tell(e.CallerSpeechStarted("u1"), at=400) == []
    assert scene.call.deadline == 1_000
    assert ClearPlayout() in scene.wait()


def test_speech_that_ends_within_the_protection_interrupts_nobody():
    scene = agent_speaking(floor=FloorPolicy(protected_ms=1_000))
    scene.tell(e.CallerSpeechStarted("u1"), at=300)
    scene.tell(e.CallerSpeechStopped("u1", ago_ms=500), at=900)
    assert scene.call.deadline > 1_000
    assert scene.call.playout.is_audible


def test_a_click_in_silence_is_no_turn_and_gets_no_answer():
    scene = talking()
    ordered = scene.caller_says("u1", text="", ms=40)
    assert not any(isinstance(command, Speak) for command in ordered)
    assert any(isinstance(command, KeepUtterance) for command in ordered)


def test_a_click_that_cut_the_agent_off_is_answered_for_somebody_has_to_speak():
    scene = agent_speaking()
    ordered = scene.caller_says("u1", text="", ms=40, at=500)
    assert any(isinstance(command, Speak) for command in ordered)


def test_where_the_provider_takes_the_turns_we_only_clear_and_truncate():
    scene = agent_speaking(floor=FloorPolicy(turn_taking=TurnTaking.PROVIDER))
    scene.hear(3, at=200)
    ordered = scene.caller_says("u1", at=300)
    assert StopSpeaking("r1-i", 300) in scene.ordered and ClearPlayout() in scene.ordered
    assert not any(isinstance(command, Speak | CancelSpeech) for command in ordered)


def test_every_barge_in_marks_its_turn_once():
    scene = agent_speaking()
    scene.tell(e.CallerSpeechStarted("u1"), at=500)
    interrupted = [command for command in scene.all_of(KeepTurn) if command.turn.interrupted]
    assert len(interrupted) == 1 and interrupted[0].turn.number == 1


def test_when_speech_may_take_the_floor():
    free, guarded = FloorPolicy(), FloorPolicy(protected_ms=700)
    assert barge_in_at(free, speech_began=50, audible_since=10) == 50
    assert barge_in_at(guarded, speech_began=50, audible_since=10) == 710
    assert barge_in_at(guarded, speech_began=50, audible_since=None) == 50
    assert barge_in_at(FloorPolicy(interruptible=False), speech_began=50, audible_since=10) is None


def test_a_noise_that_never_ends_does_not_hold_the_floor_for_ever():
    scene = talking()
    scene.tell(e.CallerSpeechStarted("u1"), at=5_000)
    assert scene.call.deadline == 65_000
    (speak,) = [order for order in scene.wait() if isinstance(order, Speak)]
    assert "noise" in speak.instructions
