"""Spoken dialogues end to end, faster than real time: a caller's voice, mu-law, ears, brain, tools, the agent's voice."""

import numpy as np
import pytest

from tests.rehearsal.model_house import Call

BOOKING = (
    "hello, i would like to book an appointment please",
    "it is about the garden",
    "my name is anna miller",
    "my number is five five five, one two three, four five six seven",
    "yes, that is right",
    "tuesday please",
    "the first one please",
    "yes please",
    "no thank you, that is all",
)


def test_a_plain_booking_is_spoken_to_its_end(recognisers):
    call = Call(recognisers)
    call.greet()
    assert call.listen() == "Linden Gardens, hello! How can I help you?"
    answers = [call.say(line) for line in BOOKING]
    assert call.heard == [line.replace(",", "") for line in BOOKING]
    assert call.errors == []
    assert {slot: noted["value"] for slot, noted in call.house.slots.items()} == {
        "reason": "the garden",
        "urgency": "normal",
        "name": "Anna Miller",
        "callback_number": "5551234567",
    }
    assert [name for name, _ in call.house.calls].count("book_appointment") == 1
    assert call.house.calls[-1][0] == "end_call" and answers[-1] == "Thank you for calling Linden. Goodbye!"
    transcripts = [event["transcript"].lower() for event in call.of("conversation.item.input_audio_transcription.completed")]
    assert transcripts == call.heard


@pytest.mark.parametrize(("voice", "pace", "wide"), [("klatt4", 150, True), ("klatt6", 165, False)])
def test_other_voices_and_wide_band_do_as_well(recognisers, voice, pace, wide):
    call = Call(recognisers, wide=wide)
    call.greet()
    call.listen()
    for line in BOOKING:
        call.say(line, voice=voice, pace=pace)
    assert call.house.slots["callback_number"] == {"value": "5551234567", "confirmed": True}
    assert call.house.calls[-1][1]["disposition"] == "appointment_booked"


def test_in_noise_what_was_not_understood_is_asked_again_until_the_number_is_right(recognisers):
    dice = np.random.default_rng(3)
    call = Call(recognisers)
    call.greet()
    call.listen()
    answers = {
        "How can I help": "i would like to leave a message please",
        "name": "peter smith",
        "phone number": "five five five, three four five, six seven eight nine",
        "rest of the number": "five five five, three four five, six seven eight nine",
        "right number": "five five five, three four five, six seven eight nine",
        "message?": "please call me back",
        "pass on": "yes that is right",
        "anything else": "no thank you",
    }
    said = "How can I help you?"
    for _ in range(25):
        if "Is that right" in said and "Your number" in said:
            answer = "yes that is right" if "five five five, three four five, six seven eight nine" in said else "no that is wrong"
        else:
            answer = next(text for cue, text in answers.items() if cue in said)
        said = call.say(answer, noise=lambda size: dice.normal(0, 200, size))
        if "Goodbye" in said:
            break
    assert call.house.slots["callback_number"] == {"value": "5553456789", "confirmed": True}
    assert "take_message" in [name for name, _ in call.house.calls]


def test_who_interrupts_is_answered_and_what_was_not_heard_is_cut(recognisers):
    call = Call(recognisers)
    call.greet("Linden Gardens, hello! This is Ivy, the assistant of the whole house and garden. How can I help you?")
    call.run(1_500)
    heard_ms = int(len(call.audio()) / 8 - call.queued_ms)
    item = call.of("response.output_item.added")[0]["item"]["id"]
    call.send("response.cancel") if call.active else None
    call.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=heard_ms)
    call.queued_ms = 0.0
    assert call.say("i would like to leave a message please", voice="klatt6").endswith(
        "How can I help you? May I have your name, please?"
    )
    assert set(call.errors) <= {"response_cancel_not_active"}


def test_a_hum_that_cuts_the_greeting_has_the_question_repeated(recognisers):
    call = Call(recognisers)
    call.greet()
    call.run(1_200)
    call.send(
        "conversation.item.truncate",
        item_id=call.of("response.output_item.added")[0]["item"]["id"],
        content_index=0,
        audio_end_ms=900,
    )
    call.queued_ms = 0.0
    assert call.say("mm-hm").endswith("How can I help you?")
    assert call.heard == ["mm-hm"]


def test_a_new_session_with_the_history_goes_on_where_the_old_one_was(recognisers):
    call = Call(recognisers)
    call.open()
    history = [
        ("system", 'Learnt so far in this call:\n- name: "Laura Davis"\n- callback_number: "+15559876543"'),
        ("assistant", "Linden Gardens, hello! How can I help you?"),
        ("user", "I would like to leave a message please"),
        ("assistant", "Your number is five five five, nine eight seven, [interrupted by caller]"),
    ]
    for role, text in history:
        kind = "output_text" if role == "assistant" else "input_text"
        call.send("conversation.item.create", item={"type": "message", "role": role, "content": [{"type": kind, "text": text}]})
    call.speak("The line was interrupted. Apologise in a few words for being cut off, and go on where you were.")
    assert (
        call.listen()
        == "I am sorry, we were cut off. Your number is five five five, nine eight seven, six five four three. Is that right?"
    )
    assert call.say("yes that is right") == "What is the message?"


class LeftToTheModel(Call):
    """The model takes the turns by itself; the client only answers tools, and asks for a response after their results."""

    def open(self, **turn):
        super().open(create_response=True, interrupt_response=True)

    def see(self, event):
        if event["type"] != "input_audio_buffer.committed":
            super().see(event)


def test_the_model_takes_the_turns_itself_where_it_is_left_to_it(recognisers):
    call = LeftToTheModel(recognisers)
    call.greet("Linden Gardens, hello! This is a long greeting, so that there is time enough to interrupt it. How can I help you?")
    call.run(300)
    assert call.say("i would like to leave a message please").endswith("May I have your name, please?")
    first = call.of("response.done")[0]["response"]
    assert (first["status"], first["status_details"]["reason"]) == ("cancelled", "turn_detected")
    assert call.say("my name is laura davis") == "What is your phone number?"
    assert call.house.slots["name"]["value"] == "Laura Davis"
    assert call.errors == []
