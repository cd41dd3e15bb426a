"""A session with the model is lost: what the caller hears, what the next session is told, and what is never done twice."""

from dataclasses import replace
from itertools import pairwise

import pytest

from app.call import commands as c
from app.call import events as e
from app.call.agent import FloorPolicy
from app.call.conversation import Said, Used
from app.call.disposition import EndReason, Intent, Memory, Outcome, Slot
from app.call.journal import replay
from app.call.machine import Phase
from app.call.sentences import (
    CALL_BACK_NEXT,
    CALLING_BACK,
    CANNOT_GO_ON,
    GO_ON,
    GOODBYE,
    ONE_MOMENT,
    PUTTING_THROUGH,
    SAY_AGAIN,
    STILL_HERE,
)
from tests.call.scene import Scene, house, kinds, talking
from tests.call.test_machine import ending, filed


def only[T](commands: list[c.Command], kind: type[T]) -> T:
    (found,) = [command for command in commands if isinstance(command, kind)]
    return found


def lines(scene: Scene) -> list[str]:
    return [command.line for command in scene.all_of(c.SayLine)]


def lose(scene: Scene, *, at: int | None = None) -> list[c.Command]:
    return scene.tell(e.ModelLost("dropped"), at=at)


def answering(text: str = "We open at nine and we close at five.", *, generated_ms: int = 1_000, heard: int = 3) -> Scene:
    """The agent is in the middle of an answer: so much was generated, and the caller has heard 20 ms and so many 100 ms more."""
    scene = talking()
    scene.caller_says("u1", "When do you open?")
    response = scene.begin_response()
    scene.tell(e.AgentWords(response, "answer", text))
    scene.tell(e.AgentAudio(response, "answer", generated_ms * 8, b"\x7f" * generated_ms * 8))
    began = scene.at
    for number in range(heard):
        scene.hear(1, at=began + 20 + number * 100)
    return scene


# ---- in the middle of what the agent says


def test_what_is_queued_plays_on_and_a_line_of_the_house_follows_without_a_gap():
    scene = answering(generated_ms=1_050, heard=3)
    lost_at = scene.at
    assert kinds(lose(scene)) == ["SendMark", "KeepMemory", "OpenModel"], "nothing is cleared, and nothing said over it"
    scene.tell(e.DeadlinePassed(), at=scene.call.deadline)
    assert lines(scene) == [ONE_MOMENT]
    assert lost_at + 500 < scene.at < lost_at + 800, "in time, before the 750 ms that were queued have been played"


def test_the_next_session_is_told_what_was_heard_and_goes_on_from_there_without_a_greeting():
    scene = answering("We open at nine and we close at five.", generated_ms=1_000)
    lose(scene)
    ordered = scene.tell(e.ModelReady(), at=scene.at + 300)
    recall = only(ordered, c.Recall)
    assert recall.said[:2] == (Said(False, "Hello, how can I help?"), Said(True, "When do you open?"))
    heard = recall.said[2].text
    assert heard and "We open at nine and we close at five.".startswith(heard) and not heard.endswith("five.")
    assert kinds(ordered).index("Recall") < kinds(ordered).index("Speak")
    assert only(ordered, c.Speak).instructions == GO_ON


def test_words_without_sound_are_kept_as_unheard_and_those_with_sound_as_heard():
    scene = answering("We open at nine and we close at five.", generated_ms=1_000)
    lose(scene)
    scene.hear_all(at=scene.at + 900)
    kept = [order.utterance for order in scene.all_of(c.KeepUtterance) if order.utterance.key == "answer"][-1]
    assert kept.heard and kept.unheard and f"{kept.heard} {kept.unheard}" == "We open at nine and we close at five."
    assert not kept.interrupted and kept.heard_ms == kept.generated_ms == 1_000


def test_a_caller_who_interrupts_what_an_earlier_session_had_said_is_told_to_the_present_one_in_words():
    scene = answering(generated_ms=2_000, heard=2)
    lose(scene)
    scene.tell(e.ModelReady(), at=scene.at + 100)
    ordered = scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 200)
    assert not any(isinstance(order, c.StopSpeaking) for order in ordered), "it does not know the utterance by its name"
    assert only(ordered, c.Brief).text.startswith("The caller interrupted")


def test_a_greeting_that_was_not_heard_is_still_said_and_one_that_was_is_not_said_again():
    scene = Scene().open()
    lose(scene, at=400)
    assert c.Speak("Greet the caller.") in scene.tell(e.ModelReady(), at=800)
    scene = Scene().open()
    response = scene.begin_response()
    scene.tell(e.AgentWords(response, "greeting", "Hello, how can I help?"))
    scene.tell(e.AgentAudio(response, "greeting", 4_000, b"\x7f" * 4_000))
    lose(scene, at=400)
    assert only(scene.tell(e.ModelReady(), at=800), c.Speak) == c.Speak(GO_ON)


def test_of_a_greeting_only_a_breath_was_heard_and_it_is_said_once_more():
    scene = Scene().open()
    response = scene.begin_response()
    scene.tell(e.AgentWords(response, "greeting", "Hello, how can I help?"))
    scene.tell(e.AgentAudio(response, "greeting", 400, b"\x7f" * 400))
    lose(scene, at=400)
    assert c.Speak("Greet the caller.") in scene.tell(e.ModelReady(), at=800)


def test_late_words_of_the_house_itself_are_no_part_of_what_the_model_is_told():
    scene = talking()
    scene.caller_says("u1")
    lose(scene)
    assert lines(scene) == [ONE_MOMENT], "nothing else can be heard: so it is said at once"
    recall = only(scene.tell(e.ModelReady(), at=scene.at + 300), c.Recall)
    assert recall.said == (Said(False, "Hello, how can I help?"), Said(True, "hello"))


def test_a_line_is_an_utterance_like_any_other_heard_to_the_word():
    scene = talking()
    scene.caller_says("u1")
    lose(scene)
    scene.tell(e.ModelReady(), at=scene.at + 100)
    ordered = scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 400)
    assert kinds(ordered)[0] == "ClearPlayout" and not any(isinstance(order, c.StopSpeaking) for order in ordered)
    kept = only(ordered, c.KeepUtterance).utterance
    assert (kept.key, kept.speaker, kept.agent, kept.interrupted) == ("line-1", "agent", "desk", True)
    assert 0 < kept.heard_ms < 1_000


# ---- nobody waits


def test_a_session_that_is_lost_while_the_line_is_quiet_is_replaced_without_a_word():
    scene = talking()
    assert kinds(lose(scene)) == ["KeepMemory", "OpenModel"]
    ordered = scene.tell(e.ModelReady(), at=scene.at + 400)
    assert kinds(ordered) == ["Recall"] and not lines(scene)
    (speak,) = [order for order in scene.wait() if isinstance(order, c.Speak)]
    assert "still there" in speak.instructions, "and the caller's silence is minded again"


def test_an_outage_that_lasts_is_not_kept_from_a_caller_who_was_only_thinking():
    scene = talking()
    lose(scene)
    lost_at = scene.at
    while not lines(scene):
        scene.wait()
    assert scene.at == lost_at + 2_500


# ---- in the middle of what the caller says


def test_words_spoken_to_a_lost_session_are_heard_by_the_next_and_stand_in_the_transcript_once():
    scene = talking()
    scene.tell(e.CallerSpeechStarted("u1", ago_ms=60), at=3_000)
    opened = only(lose(scene, at=4_500), c.OpenModel)
    assert opened.hear_again_ms == 4_500 - 2_940 + 300 and opened.hold_ms == 30_000
    assert not lines(scene), "nobody speaks over a caller who speaks"
    assert not any(isinstance(order, c.Speak) for order in scene.tell(e.ModelReady(), at=4_900))
    # The new session hears it all again, and calls it by another name.
    scene.tell(e.CallerSpeechStarted("new-1", ago_ms=1_900), at=5_000)
    scene.tell(e.CallerSpeechStopped("new-1", ago_ms=500), at=6_200)
    assert c.Speak() in scene.tell(e.CallerTurnCommitted("new-1"))
    scene.tell(e.CallerTranscribed("new-1", "My tap drips."), at=6_400)
    kept = {order.utterance.key: order.utterance for order in scene.all_of(c.KeepUtterance) if order.utterance.speaker == "caller"}
    assert list(kept) == ["u1"] and kept["u1"].heard == "My tap drips." and kept["u1"].started_at == 3_100
    assert scene.call.memory.caller_turns == 1


def test_a_turn_that_was_committed_and_not_written_down_is_heard_again_and_is_one_turn():
    scene = talking()
    scene.caller_says("u1", None, at=3_000)
    scene.begin_response()
    opened = only(lose(scene), c.OpenModel)
    assert opened.hear_again_ms >= scene.at - 3_000
    assert lines(scene) == [ONE_MOMENT]
    assert not any(isinstance(order, c.Speak) for order in scene.tell(e.ModelReady(), at=scene.at + 300))
    scene.tell(e.CallerSpeechStarted("new-1", ago_ms=1_500), at=scene.at + 50)
    assert not any(isinstance(order, c.ClearPlayout) for order in scene.ordered), "old words interrupt nobody"
    scene.tell(e.CallerSpeechStopped("new-1", ago_ms=700), at=scene.at + 10)
    assert c.Speak() in scene.tell(e.CallerTurnCommitted("new-1"))
    assert scene.call.memory.caller_turns == 1 and scene.call.memory.barge_ins == 0


def test_a_turn_that_was_written_down_is_answered_by_the_next_session_from_its_words():
    scene = talking()
    scene.caller_says("u1", "When do you open?")
    lose(scene)
    ordered = scene.tell(e.ModelReady(), at=scene.at + 300)
    assert only(ordered, c.Recall).said[-1] == Said(True, "When do you open?") and c.Speak() in ordered


def test_words_that_the_next_session_does_not_notice_are_asked_for_again():
    scene = talking()
    scene.caller_says("u1", None)
    lose(scene)
    scene.tell(e.ModelReady(), at=scene.at + 300)
    ordered = scene.until(c.Speak)
    assert only(ordered, c.Speak).instructions == SAY_AGAIN
    assert [order.utterance.untranscribed for order in ordered if isinstance(order, c.KeepUtterance)] == [True]


def test_a_caller_who_hangs_up_while_nobody_hears_them_has_spoken_all_the_same():
    scene = talking()
    scene.tell(e.CallerSpeechStarted("u1"), at=3_000)
    lose(scene, at=4_000)
    scene.tell(e.StreamEnded(clean=True), at=5_000)
    scene.tell(e.CarrierEnded("completed"))
    assert filed(scene) == (Outcome.COMPLETED, EndReason.CALLER_HUNG_UP)
    kept = scene.all_of(c.KeepUtterance)[-1].utterance
    assert (kept.key, kept.untranscribed) == ("u1", True)


def test_sound_is_kept_only_as_long_as_it_may_be_needed_and_never_longer_than_half_a_minute():
    scene = talking()
    call = scene.call
    assert 5_000 - call.kept_since(5_000) == 700
    scene.tell(e.CallerSpeechStarted("u1"), at=6_000)
    assert call.kept_since(9_000) == 5_300
    scene.tell(e.CallerSpeechStopped("u1", 500), at=9_500)
    scene.tell(e.CallerTurnCommitted("u1"))
    assert call.kept_since(9_600) == 5_300, "not written down yet, nor answered"
    scene.answer(at=10_000)
    assert call.kept_since(10_100) == 9_400
    scene.tell(e.CallerSpeechStarted("u2"), at=12_000)
    assert call.kept_since(60_000) == 30_000
    lose(scene, at=60_000)
    assert call.kept_since(95_000) == 65_000


# ---- tools


def test_an_errand_goes_on_without_a_session_and_its_result_is_told_to_the_next_one_once():
    scene = talking()
    scene.caller_says("u1", "Book it.")
    scene.begin_response()
    scene.tool("book", "t1", day="Monday")
    lose(scene)
    assert scene.tell(e.ErrandReturned("t1", '{"booked": true}'), at=scene.at + 200) == [c.GiveResult("t1", '{"booked": true}')]
    ordered = scene.tell(e.ModelReady(), at=scene.at + 300)
    assert only(ordered, c.Recall).said[-1] == Used("t1", "book", '{"day": "Monday"}', '{"booked": true}')
    assert c.Speak() in ordered and len(scene.all_of(c.RunErrand)) == 1


def test_an_errand_that_comes_back_after_the_next_session_is_ready_is_answered_there():
    scene = talking()
    scene.caller_says("u1", "Book it.")
    scene.begin_response()
    scene.tool("book", "t1", day="Monday")
    lose(scene)
    ordered = scene.tell(e.ModelReady(), at=scene.at + 300)
    assert only(ordered, c.Recall).said[-1] == Used("t1", "book", '{"day": "Monday"}', None)
    assert not any(isinstance(order, c.Speak) for order in ordered), "its answer is waited for"
    assert kinds(scene.tell(e.ErrandReturned("t1", "{}"), at=scene.at + 900)) == ["GiveResult", "Speak"]


@pytest.mark.parametrize("back_first", [True, False])
def test_what_the_next_session_calls_again_for_the_same_turn_is_not_done_again(back_first):
    scene = talking()
    scene.caller_says("u1", "Book it.")
    scene.begin_response()
    scene.tool("book", "t1", day="Monday", hour=9)
    lose(scene)
    if back_first:
        scene.tell(e.ErrandReturned("t1", '{"booked": true}'))
    scene.tell(e.ModelReady(), at=scene.at + 300)
    response = scene.begin_response()
    ordered = scene.tell(e.ToolCalled(response, "t2", "book", '{"hour": 9, "day": "Monday"}'))
    if not back_first:
        ordered += scene.tell(e.ErrandReturned("t1", '{"booked": true}'))
    assert c.GiveResult("t2", '{"booked": true}') in ordered
    assert len(scene.all_of(c.RunErrand)) == 1


def test_another_wish_of_the_callers_is_another_errand_though_it_reads_the_same():
    scene = talking()
    scene.caller_says("u1", "Book it.")
    response = scene.begin_response()
    scene.tool("book", "t1", day="Monday")
    scene.tell(e.ErrandReturned("t1", "{}"))
    scene.tell(e.ResponseEnded(response))
    lose(scene)
    scene.tell(e.ModelReady(), at=scene.at + 300)
    scene.tell(e.ResponseEnded(scene.begin_response()))
    scene.caller_says("u2", "And another one.")
    scene.begin_response()
    scene.tool("book", "t2", day="Monday")
    assert len(scene.all_of(c.RunErrand)) == 2


def test_slots_keys_and_the_agent_go_along():
    scene = talking()
    scene.caller_says("u1", "I am Ann.")
    response = scene.begin_response()
    scene.tool("note_slot", "t1", slot="name", value="Ann")
    scene.tool("hand_off", "t2", to="sales", reason="buys")
    scene.tell(e.ResponseEnded(response))
    scene.answer("Sales here.")
    scene.hear_all(at=scene.at + 1_000)
    for key in "421#":
        scene.tell(e.DigitPressed(key))
    lose(scene)
    recall = only(scene.tell(e.ModelReady(), at=scene.at + 300), c.Recall)
    assert [slot.value for slot in recall.slots] == ["Ann"]
    assert recall.said[-1] == Said(True, "(The caller typed on the keypad: 421)"), "unmasked, as the model had it"
    assert scene.call.agent.name == "sales"


# ---- tries, and their end


def test_further_tries_come_after_growing_pauses_and_end_after_fifteen_seconds():
    scene = talking()
    scene.caller_says("u1")
    lost_at = scene.at
    lose(scene)
    tried = [lost_at]
    while scene.call.phase is Phase.TALKING:
        if tried[-1] == scene.at:
            scene.tell(e.ModelLost("unreachable"), at=scene.at + 20)
        if any(isinstance(order, c.OpenModel) for order in scene.wait()):
            tried.append(scene.at)
    assert [b - a - 20 for a, b in pairwise(tried)] == [150, 500, 1_000, *[2_000] * (len(tried) - 4)]
    assert [order.tries for order in scene.all_of(c.OpenModel)][1:] == list(range(1, len(tried) + 1))
    assert scene.at == lost_at + 15_000 and lines(scene) == [ONE_MOMENT, STILL_HERE, STILL_HERE, PUTTING_THROUGH]


def test_a_refusal_that_would_be_repeated_is_not_asked_for_twice():
    scene = Scene()
    scene.tell(e.StreamStarted())
    scene.tell(e.ModelLost("refused", fatal=True), at=200)
    assert len(scene.all_of(c.OpenModel)) == 1 and lines(scene) == [PUTTING_THROUGH]


def test_a_caller_is_put_through_to_a_person_when_there_is_no_agent():
    scene = Scene()
    scene.tell(e.StreamStarted())
    scene.tell(e.ModelLost("refused", fatal=True), at=200)
    assert not scene.all_of(c.LeaveStream), "the sentence is heard first"
    scene.hear_all(at=1_300)
    assert scene.ordered[-1] == c.LeaveStream(Intent.TRANSFER, "manager")
    assert scene.call.memory.escalated and scene.call.memory.transfer_to == "manager"


def without_people(**more) -> Scene:
    scene = Scene(memory=Memory(agent="desk", agent_path=("desk",)))
    scene.call.house = replace(house(), directory=(), **more)
    return scene


@pytest.mark.parametrize("known", [True, False])
def test_without_a_person_the_caller_is_told_what_follows_and_the_row_says_it_failed(known):
    scene = without_people(can_be_called_back=known)
    scene.tell(e.StreamStarted())
    scene.tell(e.ModelLost("refused", fatal=True), at=200)
    assert lines(scene) == [CALLING_BACK if known else CANNOT_GO_ON]
    scene.hear_all(at=1_300)
    assert scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)
    scene.tell(e.StreamEnded(clean=True))
    assert filed(scene) == (Outcome.FAILED, EndReason.MODEL_UNAVAILABLE)
    assert scene.call.memory.next_action == (CALL_BACK_NEXT if known else None)


def test_a_caller_who_left_a_number_is_called_back_although_theirs_was_withheld():
    scene = without_people(can_be_called_back=False)
    slots = (Slot(name="callback_number", value="+15550100199"),)
    scene = Scene(memory=Memory(agent="desk", agent_path=("desk",), slots=slots))
    scene.call.house = replace(house(), directory=(), can_be_called_back=False)
    scene.tell(e.StreamStarted())
    scene.tell(e.ModelLost("refused", fatal=True), at=200)
    assert lines(scene) == [CALLING_BACK]


def test_a_person_who_did_not_take_the_call_is_not_tried_again():
    scene = Scene(resumed=True, memory=Memory(agent="desk", agent_path=("desk",), transfer_to="manager", escalated=True))
    scene.tell(e.StreamStarted())
    scene.tell(e.ModelLost("refused", fatal=True), at=200)
    assert lines(scene) == [CALLING_BACK]


def test_an_ending_without_an_agent_is_not_taken_back_by_a_key_nor_held_up_by_a_lost_mark():
    scene = Scene()
    scene.tell(e.StreamStarted())
    scene.tell(e.ModelLost("refused", fatal=True), at=200)
    scene.tell(e.DigitPressed("1"), at=400)
    scene.tell(e.DigitPressed("#"), at=500)
    while scene.call.phase is Phase.ENDING:
        assert scene.call.deadline <= 200 + 1_000 + 2_500
        scene.wait()
    assert scene.ordered[-1] == c.LeaveStream(Intent.TRANSFER, "manager")


def test_a_session_that_is_lost_again_and_again_is_not_tried_for_ever():
    scene = talking(FloorPolicy(silence_ms=60_000))
    for _ in range(7):
        lose(scene)
        if scene.call.phase is Phase.TALKING:
            scene.tell(e.ModelReady(), at=scene.at + 300)
    assert scene.call.phase is Phase.ENDING and scene.call.memory.reconnects == 7


def test_a_first_session_that_takes_long_is_bridged_and_then_greets():
    scene = Scene()
    scene.tell(e.StreamStarted())
    while not lines(scene):
        scene.wait()
    assert scene.at == 2_500 and lines(scene) == [ONE_MOMENT]
    scene.hear_all(at=3_500)
    assert c.Speak("Greet the caller.") in scene.tell(e.ModelReady(), at=3_900)


def test_a_caller_whom_nobody_answers_at_first_hears_soon_that_somebody_is_there():
    scene = Scene()
    scene.tell(e.StreamStarted())
    scene.tell(e.ModelLost("refused"), at=30)
    assert not lines(scene), "a second try may be quicker than a sentence"
    scene.until(c.OpenModel)
    scene.tell(e.ModelLost("refused"), at=scene.at + 30)
    assert lines(scene) == [ONE_MOMENT] and scene.at == 210


# ---- goodbyes


def test_a_goodbye_that_was_not_said_yet_is_the_houses_own_and_the_outcome_stands():
    scene = ending(talking(), goodbye=None)
    lose(scene)
    assert lines(scene) == [GOODBYE] and len(scene.all_of(c.OpenModel)) == 1
    scene.hear_all(at=scene.at + 1_000)
    assert scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)
    scene.tell(e.StreamEnded(clean=True))
    assert filed(scene) == (Outcome.COMPLETED, EndReason.AGENT_ENDED)


def test_a_goodbye_that_is_on_its_way_needs_no_other():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.say("Goodbye!", ms=900, response=response)
    scene.tool("end_call", disposition="booked", summary="Booked.")
    lose(scene)
    assert not lines(scene)
    scene.hear_all(at=scene.at + 900)
    assert scene.ordered[-1] == c.LeaveStream(Intent.HANG_UP)


def test_a_transfer_goes_through_without_a_session():
    scene = talking()
    scene.caller_says("u1")
    response = scene.begin_response()
    scene.tool("transfer_to_human", to="manager", reason="angry")
    scene.tell(e.ResponseEnded(response))
    lose(scene)
    assert lines(scene) == [PUTTING_THROUGH]
    scene.hear_all(at=scene.at + 1_000)
    assert scene.ordered[-1] == c.LeaveStream(Intent.TRANSFER, "manager")


def test_a_call_with_lost_sessions_replays_to_the_same_commands():
    scene = answering()
    lose(scene)
    scene.tell(e.ModelReady(), at=scene.at + 700)
    scene.answer("at five.")
    scene.hear_all(at=scene.at + 3_000)
    scene.tell(e.CallerSpeechStarted("u2"), at=scene.at + 100)
    lose(scene, at=scene.at + 300)
    scene.until(c.SayLine)
    assert lines(scene) == [ONE_MOMENT]
    assert list(replay(scene.journal())) == []
