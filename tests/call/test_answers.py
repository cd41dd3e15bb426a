"""An agent that is asked and not heard: what the caller hears meanwhile, and when it is given up."""

from app.call import commands as c
from app.call import events as e
from app.call.agent import FloorPolicy, TurnTaking
from app.call.conversation import Said
from app.call.disposition import EndReason, Intent, Outcome
from app.call.journal import replay
from app.call.machine import Phase
from app.call.sentences import GOODBYE, ONE_MOMENT, PUTTING_THROUGH, STILL_HERE
from tests.call.scene import Scene, talking
from tests.call.test_lifeline import lines, only
from tests.call.test_machine import ending, filed


def asked(text: str = "When do you open?") -> Scene:
    """The caller has asked something, and the model was asked for an answer."""
    scene = talking()
    scene.caller_says("u1", text)
    assert c.Speak() in scene.ordered
    return scene


def silence(scene: Scene, response: str, *, ms: int, utterance: str = "hush") -> None:
    scene.tell(e.AgentWords(response, utterance, "We open at nine."))
    scene.tell(e.AgentSilence(response, utterance, ms * 8, b"\xff" * ms * 8))
    scene.tell(e.AgentUtteranceEnded(response, utterance))


def test_an_answer_that_does_not_come_is_bridged_then_asked_of_another_session_then_given_up():
    scene = asked()
    asked_at = scene.at - 200  # the transcript came 200 ms later
    scene.until(c.SayLine)
    assert (scene.at - asked_at, lines(scene)) == (2_500, [ONE_MOMENT])
    scene.until(c.OpenModel)
    assert scene.at - asked_at == 8_000
    scene.tell(e.ModelReady(), at=scene.at + 300)
    assert len(scene.all_of(c.Speak)) == 3, "the greeting, the answer, and the answer once more"
    while scene.call.phase is Phase.TALKING:
        scene.wait()
    assert scene.at - asked_at == 15_000
    assert lines(scene)[-1] == PUTTING_THROUGH and set(lines(scene)[1:-1]) == {STILL_HERE}
    assert list(replay(scene.journal())) == []


def test_events_without_a_sound_are_no_answer():
    scene = asked()
    asked_at = scene.at - 200
    response = scene.begin_response()
    silence(scene, response, ms=9_000)
    scene.until(c.SayLine)
    assert scene.at - asked_at == 2_500
    order = [type(command).__name__ for command in scene.ordered]
    assert order.index("ClearPlayout") < order.index("SayLine"), "nine seconds of silence need not be played first"


def test_a_response_that_was_only_silence_is_asked_for_again_and_then_of_another_session():
    scene = asked()
    for again in range(2):
        response = scene.begin_response()
        silence(scene, response, ms=300, utterance=f"hush-{again}")
        ordered = scene.tell(e.ResponseEnded(response), at=scene.at + 200)
        if not again:
            assert c.Speak() in ordered
    assert any(isinstance(order, c.OpenModel) for order in ordered)
    ordered = scene.tell(e.ModelReady(), at=scene.at + 300)
    assert only(ordered, c.Recall).said[-1] == Said(True, "When do you open?"), "what nobody heard was not said"
    assert c.Speak() in ordered
    kept = [order.utterance for order in scene.all_of(c.KeepUtterance) if order.utterance.key.startswith("hush")]
    assert kept and all(not utterance.heard and utterance.unheard == "We open at nine." for utterance in kept)


def test_one_silent_response_after_the_other_is_not_asked_for_for_ever():
    scene = asked()
    began = scene.at
    while scene.call.phase is Phase.TALKING:
        if scene.call.asking.asked:
            response = scene.begin_response()
            silence(scene, response, ms=200, utterance=f"hush-{scene.at}")
            scene.tell(e.ResponseEnded(response), at=scene.at + 250)
        elif scene.all_of(c.OpenModel)[-1].tries and not scene.call.asking.is_busy:
            scene.tell(e.ModelReady(), at=scene.at + 200)
    assert scene.at - began <= 16_000 and lines(scene)[-1] == PUTTING_THROUGH


def test_a_breath_before_the_first_word_is_not_taken_for_silence():
    scene = asked()
    response = scene.begin_response()
    scene.tell(e.AgentSilence(response, "i", 1_600, b"\xff" * 1_600))
    scene.tell(e.AgentAudio(response, "i", 8_000, b"\x33" * 8_000))
    scene.tell(e.AgentWords(response, "i", "At nine."))
    scene.tell(e.AgentUtteranceEnded(response, "i"))
    scene.tell(e.ResponseEnded(response), at=scene.at + 900)
    scene.hear_all(at=scene.at + 1_200)
    assert [order.utterance.heard for order in scene.all_of(c.KeepUtterance)][-1] == "At nine." and lines(scene) == []


def test_a_long_answer_that_is_still_being_heard_is_no_silence():
    scene = asked()
    response = scene.begin_response()
    scene.say("A long story.", ms=12_000, response=response)  # and the response goes on
    for _ in range(4):
        scene.hear(20, at=scene.at + 2_000)
        while scene.call.deadline is not None and scene.call.deadline <= scene.at:
            scene.wait()
    assert lines(scene) == [] and len(scene.all_of(c.OpenModel)) == 1


def test_a_caller_who_speaks_on_is_not_told_to_wait():
    scene = asked()
    scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 1_000)
    for _ in range(4):
        scene.wait()
    assert lines(scene) == []


def test_tools_and_a_chosen_silence_are_something():
    scene = asked()
    response = scene.begin_response()
    scene.tool("wait_for_caller")
    assert not any(isinstance(order, c.Speak) for order in scene.tell(e.ResponseEnded(response)))


def test_the_trouble_ends_with_the_first_sound_of_the_agents_voice():
    scene = asked()
    scene.until(c.SayLine)
    scene.answer("At nine.", ms=800, at=scene.at + 300)
    scene.hear_all(at=scene.at + 2_000)
    scene.caller_says("u2", at=scene.at + 500)
    before = scene.at - 200
    scene.until(c.SayLine)
    assert (scene.at - before, lines(scene)) == (2_500, [ONE_MOMENT, ONE_MOMENT]), "a new trouble, counted anew"


def test_a_model_that_takes_the_turns_itself_is_asked_when_it_does_not():
    scene = talking(FloorPolicy(turn_taking=TurnTaking.PROVIDER))
    scene.caller_says("u1", "When do you open?")
    assert len(scene.all_of(c.Speak)) == 1, "the greeting"
    scene.until(c.SayLine)
    scene.until(c.OpenModel)
    ordered = scene.tell(e.ModelReady(), at=scene.at + 300)
    assert only(ordered, c.Recall).said[-1] == Said(True, "When do you open?") and c.Speak() in ordered


def test_a_caller_who_waits_for_a_tool_is_told_that_we_are_still_there():
    scene = asked("Book it.")
    response = scene.begin_response()
    scene.tool("book", "t1", day="Monday")
    sent_at = scene.at
    scene.tell(e.ResponseEnded(response))
    scene.until(c.SayLine)
    assert (scene.at - sent_at, lines(scene)) == (4_000, [ONE_MOMENT])
    scene.hear_all(at=scene.at + 1_000)
    assert c.Speak() in scene.tell(e.ErrandReturned("t1", "{}"), at=scene.at + 200)
    scene.answer("It is booked.")
    assert len(scene.all_of(c.OpenModel)) == 1 and scene.call._trouble is None


def test_a_goodbye_that_the_model_does_not_manage_is_still_the_goodbye_that_was_meant():
    scene = ending(talking(), goodbye=None)
    for _ in range(3):
        if scene.call.asking.asked:
            scene.tell(e.ResponseEnded(scene.begin_response(), "failed", "server_error"))
        if scene.call.phase is Phase.ENDING and not scene.all_of(c.SayLine):
            scene.wait()
    scene.hear_all(at=scene.at + 1_000)
    assert lines(scene) == [GOODBYE] and scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)
    scene.tell(e.StreamEnded(clean=True))
    assert filed(scene) == (Outcome.COMPLETED, EndReason.AGENT_ENDED)
