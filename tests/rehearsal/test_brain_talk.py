"""The brain's dialogues in text: the road, the detours, and any subset of the tools."""

import itertools
import json
import re

import pytest

from app.rehearsal.brain import KEYPAD, Order, Say, respond, state_of
from app.rehearsal.brain_memory import Answered, Called, Heard, Said, remember, topic_of
from tests.rehearsal.brain_house import TOOLS, House

GREETING = 'Say exactly: "Linden Gardens, hello! How can I help you?"'


NUMBER = "five five five one two three four five six seven"
TO_THE_OFFER = ("i would like to book an appointment for the garden on tuesday", "anna miller", NUMBER, "yes")
"""A booking until the openings are offered."""


def called(house):
    return [name for name, _ in house.calls]


def talk(house, *lines):
    return [house.hear(line) for line in lines]


@pytest.fixture
def house():
    house = House()
    assert house.tell(GREETING) == "Linden Gardens, hello! How can I help you?"
    return house


def test_a_plain_booking(house):
    states = []
    for line in (
        "hello i would like to book an appointment please",
        "it is about the garden",
        "my name is anna miller",
        f"my number is {NUMBER}",
        "yes that is right",
        "tuesday please",
        "the first one please",
        "yes please",
        "no thank you that is all",
    ):
        states.append(house.state)
        house.hear(line)
    assert states == ["request", "reason", "name", "number", "readback", "day", "choice", "yesno", "more"]
    assert house.slots == {
        "reason": {"value": "the garden", "confirmed": False},
        "urgency": {"value": "normal", "confirmed": False},
        "name": {"value": "Anna Miller", "confirmed": False},
        "callback_number": {"value": "5551234567", "confirmed": True},
    }
    assert ("offer_appointments", {"day": "tuesday"}) in house.calls
    assert ("book_appointment", {"opening": "2026-11-24T09:00"}) in house.calls
    assert house.says[-2:] == [
        "Tuesday at 9 in the morning is booked. Is there anything else?",
        "Thank you for calling Linden. Goodbye!",
    ]
    name, arguments = house.calls[-1]
    assert (name, arguments["disposition"], arguments["intent"]) == ("end_call", "appointment_booked", "book_appointment")
    assert "Anna Miller" in arguments["summary"] and "next_action" not in arguments


def test_what_was_said_in_one_breath_is_not_asked_again_and_goes_into_one_response(house):
    answer = house.hear("hello this is david clark i would like to book an appointment for the garden on tuesday")
    assert house.together[0] == ["note_slot", "note_slot", "note_slot", "find_customer", "offer_appointments"]
    assert answer.endswith("What is your phone number?")
    assert {slot: noted["value"] for slot, noted in house.slots.items()} == {
        "name": "David Clark",
        "reason": "the garden",
        "urgency": "normal",
    }


def test_a_number_that_was_wrong_is_asked_for_again_and_only_the_right_one_is_confirmed(house):
    answers = talk(
        house,
        "i would like to leave a message please",
        "laura davis",
        "five five five nine eight seven six five four two",
        "no that is wrong",
        "the right number is five five five nine eight seven six five four three",
        "yes that is right",
    )
    assert "five four two. Is that right?" in answers[2]
    assert answers[3] == "I am sorry. What is the right number?"
    assert "five four three. Is that right?" in answers[4]
    assert house.slots["callback_number"] == {"value": "5559876543", "confirmed": True}


def test_a_number_corrected_in_the_same_breath_is_read_back_again(house):
    talk(house, "i would like to leave a message", "laura davis", "five five five nine eight seven six five four two")
    answer = house.hear("no it is five five five nine eight seven six five four three")
    assert "six five four three. Is that right?" in answer
    assert house.slots["callback_number"] == {"value": "5559876543", "confirmed": False}


def test_a_number_in_two_breaths_is_one_number(house):
    talk(house, "i would like to leave a message", "laura davis")
    assert house.hear("five five five") == "What is the rest of the number?"
    assert "five five five, one two three, four five six seven" in house.hear("one two three four five six seven")


def test_a_number_that_fails_twice_is_asked_for_on_the_keypad_and_typed_digits_are_read_back(house):
    talk(house, "i would like to leave a message", "laura davis", "")
    assert house.hear("") == f"I am sorry, I did not understand that. {KEYPAD}"
    assert house.state == "number"
    assert "five five five, seven eight nine, zero one two three" in house.hear("(The caller typed on the keypad: 5557890123)")


def test_what_was_not_understood_is_asked_again(house):
    assert house.hear("") == "I am sorry, I did not understand that. How can I help you?"
    house.hear("i would like to book an appointment")
    assert house.hear("") == "I am sorry, I did not understand that. What is it about?"
    assert house.state == "reason"


def test_who_did_not_hear_is_told_again(house):
    house.hear("i would like to leave a message")
    assert house.hear("sorry what was that") == "May I have your name, please?"


def test_an_angry_caller_is_put_through_without_questions(house):
    answer = house.hear("this is ridiculous i want to speak to a human now")
    assert answer == "I am sorry about that. I will put you through to a person."
    assert called(house) == ["transfer_to_human"]
    assert house.calls[0][1]["to"] in ("manager", "office")


def test_without_somebody_to_be_had_a_message_is_offered_and_taken():
    for house in (House("transfer_to_human"), House()):
        house.answers["transfer_to_human"] = {"error": "nobody can be reached"}
        house.tell(GREETING)
        assert house.hear("i want to speak to a person").endswith("May I take a message?")
        talk(
            house,
            "yes please",
            "emma brown",
            "five five five four five six seven eight nine zero",
            "yes",
            "please call me back",
            "yes",
        )
        assert house.calls[-1] == ("take_message", {"message": "please call me back"})


def test_a_wrong_number_is_let_go_kindly(house):
    assert house.hear("oh sorry i have the wrong number") == "No problem. Goodbye!"
    assert [(name, arguments["disposition"]) for name, arguments in house.calls] == [("end_call", "wrong_number")]


def test_who_wants_something_new_is_handed_to_sales_which_does_not_ask_again(house):
    acts_before = len(house.says)
    house.answers["hand_off"] = {"handed_to": "sales"}
    house.lines.append(Heard("i would like a price for a new fence please"))
    acts = respond(house.lines, Order(house.instructions, "", house.tools))
    assert [type(act).__name__ for act in acts] == ["Say", "Call"]
    assert acts[1].arguments["to"] == "sales" and "a new fence" in acts[1].arguments["reason"]
    house.lines += [Said(acts[0].text), Called("c1", "hand_off", acts[1].arguments), Answered("c1", '{"handed_to": "sales"}')]
    del house.tools["hand_off"]
    house.instructions = "You are Robin. You look after people who want something new."
    assert (
        house.tell("You have just taken over this call. Introduce yourself and go on.")
        == "Hello, this is Robin. May I have your name, please?"
    )
    answers = talk(
        house,
        "michael taylor",
        "five five five eight nine zero one two three four",
        "yes",
        "monday",
        "the first one",
        "yes",
        "no thanks",
    )
    assert house.slots["reason"]["value"] == "a new fence"
    assert answers[-2].startswith("One moment, please. Tuesday at 9 in the morning is booked.")
    assert house.calls[-1][1]["disposition"] == "appointment_booked"
    assert len(house.says) > acts_before


def test_an_opening_that_is_gone_is_said_to_be_gone_and_another_day_is_asked_for(house):
    house.answers["book_appointment"] = [{"booked": False, "why": "taken"}, {"booked": True, "spoken": "Friday at 9"}]
    talk(house, *TO_THE_OFFER, "the first one")
    answer = house.hear("yes")
    assert "that one is gone" in answer and "is booked" not in answer


def test_nothing_is_said_to_be_booked_before_the_result_is_in(house):
    talk(house, *TO_THE_OFFER, "the first one")
    house.lines.append(Heard("yes"))
    acts = respond(house.lines, Order(house.instructions, "", house.tools))
    assert [act.text for act in acts if isinstance(act, Say)] == ["One moment, please."]
    house.lines += [Said("One moment, please."), Called("b1", "book_appointment", {"opening": "2026-11-24T09:00"}), Heard("hello")]
    assert respond(house.lines, Order(house.instructions, "", house.tools)) == [Say("One moment, I am still looking.")]


def test_no_openings_that_day_is_said_and_another_day_asked_for(house):
    house.openings = []
    talk(
        house,
        "i would like to book an appointment for the garden",
        "anna miller",
        NUMBER,
        "yes",
    )
    assert house.hear("sunday please").endswith("there is nothing free then. Which other day suits you?")
    house.openings = ["Monday at 9 in the morning"]
    assert house.hear("monday").endswith("I can offer Monday at 9 in the morning. Shall I book that?")
    assert "is booked" in house.hear("yes please")


def test_another_wish_after_the_first_is_taken_up(house):
    talk(house, *TO_THE_OFFER, "the first one", "yes")
    assert house.hear("i would like to leave a message for the manager please") == "What is the message?"
    assert house.hear("my bill is too high") == "I will pass on: my bill is too high. Is that right?"


def test_in_the_middle_only_a_goodbye_ends_the_call(house):
    house.hear("i would like to leave a message")
    assert house.hear("that is all") == "I am sorry, I did not understand that. May I have your name, please?"
    assert house.hear("no thank you goodbye") == "Thank you for calling Linden. Goodbye!"
    assert called(house) == ["end_call"]


def test_a_hum_after_a_cut_has_the_question_repeated_and_otherwise_nothing_is_said():
    house = House()
    house.lines += [Said("Linden Gardens, hello! How can I help you?", was_cut=True), Heard("mm-hm")]
    assert house.tell() == "How can I help you?"
    house.lines.append(Heard("mm-hm"))
    assert house.tell() == "" and called(house) == ["wait_for_caller"]


def test_a_hum_is_a_yes_where_yes_or_no_was_asked(house):
    talk(house, "i would like to leave a message", "laura davis", NUMBER, "mm-hm")
    assert house.slots["callback_number"]["confirmed"]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ('Say exactly: "Good morning, this is the office."', "Good morning, this is the office."),
        ("Greet the caller: “Hello there, how may I help?”", "Hello there, how may I help?"),
        ("The caller has been silent. Ask in one short sentence whether they are still there.", "Are you still there?"),
        ("The caller says nothing. Say goodbye in one short sentence.", "I cannot hear you, so I will hang up now. Goodbye!"),
        ("Say goodbye to the caller in one short sentence.", "Thank you for calling Linden. Goodbye!"),
        ("Tell the caller in one short sentence that you are putting them through now.", "I am putting you through now."),
        ("The line was interrupted. Apologise for being cut off, and go on.", "I am sorry, we were cut off. How can I help you?"),
    ],
)
def test_one_response_does_what_it_is_told(now, said):
    assert House().tell(now, may_call=False) == said


def test_after_still_there_the_question_from_before_is_asked_again(house):
    house.hear("i would like to leave a message")
    house.tell("Ask whether they are still there.")
    assert house.state == "name"
    assert house.hear("yes") == "May I have your name, please?"
    house.tell("Ask whether they are still there.")
    assert house.hear("my name is emma brown") == "What is your phone number?"


def test_where_no_tool_may_be_called_something_is_said(house):
    house.lines.append(Heard("i would like to book an appointment for the garden on tuesday"))
    assert house.tell(may_call=False) == "May I have your name, please?"
    assert house.calls == []


def test_history_and_what_is_known_are_enough_to_go_on(house):
    other = House()
    other.told(
        'Learnt so far in this call, in the caller\'s words:\n- name: "Anna Miller"\n- callback_number: "+15551234567" (confirmed)'
    )
    other.lines += [
        Said("Hello! How can I help you?"),
        Heard("i would like to book an appointment for the garden"),
        Said("Your number is five five five, one two three, four five six seven. Is that right?"),
        Heard("yes"),
    ]
    assert (
        other.tell("The line was interrupted. Apologise for being cut off.") == "I am sorry, we were cut off. Which day suits you?"
    )


def test_what_was_replayed_as_booked_is_not_booked_again():
    house = House("note_slot")
    house.lines += [
        Heard("i would like to book an appointment"),
        Said("Tuesday at 9 in the morning is booked. Is there anything else?"),
    ]
    assert house.tell("You were cut off.").startswith("I am sorry, we were cut off. Tuesday at 9 in the morning is booked.")
    assert house.hear("no thank you") == "Thank you for calling Linden. Goodbye!"
    assert called(house) == ["end_call"]


def test_a_slot_that_is_refused_is_asked_for_again(house):
    talk(house, "i would like to leave a message", "laura davis")
    house.answers["note_slot"] = {"error": "a telephone number has 7 to 15 digits"}
    assert house.hear("five five five one two three four") == "What is your phone number?"


def test_a_required_urgency_is_asked_for(house):
    house.answers["note_slot"] = {"noted": "reason", "value": "the garden", "confirmed": False, "missing": ["urgency"]}
    talk(house, "i would like to book an appointment for the garden")
    memory = remember(house.lines)
    memory.slots["name"] = memory.slots["reason"]
    assert "urgency" in (memory.missing or ())


WISHES = (
    "i would like to book an appointment for the garden on tuesday",
    "i would like to leave a message",
    "i would like a price for a new fence",
    "i want to speak to a person",
    "oh sorry i have the wrong number",
    "",
)
ANSWERS = {
    "request": "i would like to book an appointment",
    "name": "anna miller",
    "number": NUMBER,
    "readback": "yes",
    "reason": "it is about the garden",
    "message": "please call me back",
    "urgency": "no it can wait",
    "day": "tuesday",
    "choice": "the first one",
    "yesno": "yes",
    "more": "no thank you",
}


@pytest.mark.parametrize("wish", WISHES)
def test_every_conversation_comes_to_an_end_whatever_tools_there_are(wish):
    names = sorted(TOOLS)
    for count in (0, 1, 2, 5, 8):
        for without in itertools.islice(itertools.combinations(names, count), 40):
            house = House(*without)
            house.tell(GREETING)
            house.hear(wish)
            for _ in range(20):
                if "Goodbye" in " ".join(house.says) or set(called(house)) & {"transfer_to_human", "hand_off"}:
                    break
                house.hear(ANSWERS[house.state])
            else:
                pytest.fail(f"no end without {without}: {house.says[-4:]}")
            assert set(called(house)) <= set(house.tools)


def test_every_call_fits_its_tools_schema(house):
    talk(
        house,
        *WISHES[:1],
        "anna miller",
        NUMBER,
        "yes",
        "the first one",
        "yes",
        "no thanks",
    )
    for name, arguments in house.calls:
        schema = TOOLS[name]
        assert set(schema["required"]) <= set(arguments) <= set(schema["properties"]), name
        for key, value in arguments.items():
            assert value in schema["properties"][key].get("enum", [value]), (name, key)
        json.dumps(arguments)


def test_each_question_of_the_agents_is_recognised_by_its_own_words(house):
    talk(house, *TO_THE_OFFER, "the first one", "yes")
    for line in house.lines:
        if isinstance(line, Said) and "?" in line.text:
            assert topic_of(line.text) is not None, line.text
    assert re.search("anything else", house.says[-1])
    assert state_of(house.lines) == "more"
