"""What a caller's words mean."""

import pytest

from app.rehearsal import brain_words as words
from app.rehearsal.brain_words import Opening


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("hello i would like to book an appointment please", "book"),
        ("could someone come and cut my hedge", "book"),
        ("i need somebody to trim our trees", "book"),
        ("i would like a price for a new fence please", "buy"),
        ("i'm interested in a new terrace", "buy"),
        ("how much is a new pond", "buy"),
        ("i want to talk to sales please", "buy"),
        ("i would like to leave a message for the manager", "message"),
        ("can somebody call me back please", "message"),
        ("i want to cancel my appointment", "message"),
        ("i have a complaint", "message"),
        ("oh sorry i have the wrong number", "wrong"),
        ("is this the pizza place", "wrong"),
        ("this is ridiculous i want to speak to a human now", "person"),
        ("i am very angry", "person"),
        ("put me through to the manager please", "person"),
        ("are you a robot", "person"),
        ("it is about the garden", None),
        ("tuesday please", None),
    ],
)
def test_a_goal_is_found_in_the_words(text, goal):
    assert words.goal_of(text) == goal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("i would like to book an appointment please", None),
        ("i would like to book an appointment for tuesday morning please", None),
        ("i would like to book an appointment for the garden", "the garden"),
        ("hello this is david clark i would like to book an appointment for the garden on tuesday", "the garden"),
        ("it is about a broken fence please", "a broken fence"),
        ("my hedge is too high it is urgent", "my hedge is too high"),
        ("i would like a price for a new fence please", "a new fence"),
        ("i'd like to make a complaint", "a complaint"),
        ("please call me back", "please call me back"),
        ("i would like to leave a message please", None),
        ("i want to speak to a person", None),
        ("sorry what was that", None),
        ("yes please", None),
        ("hello", None),
    ],
)
def test_a_reason_is_what_is_left_of_the_words_when_manners_are_taken_away(text, reason):
    assert words.reason_of(text) == reason


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my name is anna miller", "Anna Miller"),
        ("yes this is mister brown", "Brown"),
        ("emma", "Emma"),
        ("yes", None),
        ("hello", None),
    ],
)
def test_a_name_that_was_asked_for(text, name):
    assert words.name_of(text, asked=True) == name


def test_a_name_nobody_asked_for_needs_an_introduction():
    assert words.name_of("hello this is david clark i would like to book a visit", asked=False) == "David Clark"
    assert words.name_of("this is ridiculous i want to speak to a human", asked=False) is None
    assert words.name_of("it is about the garden", asked=False) is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("my number is five five five oh one two three four five six", "5550123456"),
        ("no it is five five five one two", "55512"),
        ("(the caller typed on the keypad: 5557890123)", "5557890123"),
        ("(the caller typed on the keypad: *12#)", "12"),
        ("yes please", ""),
    ],
)
def test_digits_are_read_whether_said_or_typed(text, digits):
    assert words.digits_of(text) == digits


@pytest.mark.parametrize(
    ("number", "spoken"),
    [
        ("+15551234567", "five five five, one two three, four five six seven"),
        ("5551234", "five five five, one two three four"),
        ("4915112345678", "four nine one, five one one, two three four, five six seven eight"),
    ],
)
def test_a_number_is_read_back_in_groups(number, spoken):
    assert words.in_groups(number) == spoken


def test_a_number_that_is_read_back_is_the_number_that_was_heard():
    for number in ("5551234567", "5550123", "15551234567"):
        assert words.digits_of(words.in_groups(number).replace(",", "")) == number[-10:]


@pytest.mark.parametrize(
    ("text", "answer"),
    [("yes that is right", "yes"), ("mm-hm", "yes"), ("no that is wrong", "no"), ("that's not right", "no"), ("tuesday", None)],
)
def test_yes_and_no(text, answer):
    assert words.answer_of(text) == answer


@pytest.mark.parametrize(
    ("text", "urgency"),
    [
        ("it is very urgent", "high"),
        ("no it can wait", "low"),
        ("it is not urgent", "low"),
        ("next week is fine", "normal"),
        ("hm", None),
    ],
)
def test_urgency(text, urgency):
    assert words.urgency_of(text) == urgency


OFFERED = (
    Opening("a", "Tuesday at 9 in the morning"),
    Opening("b", "Tuesday at 10 in the morning"),
    Opening("c", "Wednesday at 1 in the afternoon"),
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("the first one please", "a"),
        ("i'll take the second one", "b"),
        ("the last one", "c"),
        ("tuesday at ten", "b"),
        ("the one at ten", "b"),
        ("at one o'clock", "c"),
        ("wednesday please", "c"),
        ("ten o'clock in the morning", "b"),
        ("yes please", None),
        ("that one", None),
        ("no none of these", None),
        ("friday", None),
    ],
)
def test_an_opening_is_chosen_by_place_day_or_hour(text, key):
    chosen = words.choice_of(text, OFFERED)
    assert (chosen.key if chosen else None) == key


def test_yes_chooses_when_there_is_one_opening_only():
    assert words.choice_of("yes please", OFFERED[:1]) == OFFERED[0]


@pytest.mark.parametrize(
    ("text", "day"), [("on friday please", "friday"), ("tomorrow", "tomorrow"), ("any day is fine", "any"), ("yes", None)]
)
def test_a_day(text, day):
    assert words.day_of(text) == day
