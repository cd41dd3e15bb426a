"""Numbers and names, as people say them."""

import pytest

from app.wrapup.spoken import digits, e164, name_is_said, number_is_said, quote_is_said, runs


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("Two one two, five five five, zero one four two.", ["2125550142"]),
        ("Four one five, five fifty-five, oh one seventeen.", ["4155550117"]),
        ("six one seven, double five five, oh one nine one", ["6175550191"]),
        ("It's 303-555-0128.", ["3035550128"]),
        ("(303) 555 0128, ask for Joe", ["3035550128"]),
        ("Plus four four, two zero, seven nine four six", ["+44207946"]),
        ("+44 20 7946 0123", ["+442079460123"]),
        ("five hundred, and then twenty", ["50020"]),
        ("twenty one, thirty oh two", ["213002"]),
        ("my office is 555 0102 but use 555 0103", ["5550102", "5550103"]),
        ("five five five, zero o--", ["5550"]),
        ("none of it, plus nothing", []),
    ],
)
def test_digits_are_heard_in_runs(text: str, heard: list[str]):
    assert runs(text) == heard


def test_a_word_that_only_begins_like_a_number_is_none():
    assert digits("The onerous tension of sevenfold weights") == ""


@pytest.mark.parametrize(
    ("number", "region", "whole"),
    [
        ("2125550142", "US", "+12125550142"),
        ("12125550142", "US", "+12125550142"),
        ("+442079460123", "US", "+442079460123"),
        ("020 7946 0123", "GB", "+442079460123"),
        ("5550142", "US", None),  # an area code would be invented
        ("911", "US", None),
        ("", "US", None),
        ("not a number", "US", None),
        ("9" * 40, "US", None),
    ],
)
def test_only_a_whole_number_has_an_e164(number: str, region: str, whole: str | None):
    assert e164(number, region) == whole


def test_a_number_is_said_with_or_without_the_digits_of_its_country():
    assert number_is_said("+442079460123", "plus four four, two zero, seven nine four six, zero one two three")
    assert number_is_said("+442079460123", "oh two oh, seven nine four six, oh one two three")
    assert not number_is_said("+442079460123", "two zero, seven nine four six, zero one two four")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Anna Miller", "Miller, Anna Miller."),
        ("Martin Maier", "No, Martin. M A I E R."),
        ("O'Brien", "It’s Sean O’Brien's garden"),
        ("Jürgen", "ju\u0308rgen speaking"),
        ("Mrs. Castellano", "Castellano."),
        ("Ann-Marie", "this is Ann-Marie"),
        ("Siobhan", "It's S-I-O-B-H-A-N"),
    ],
)
def test_a_name_is_said_as_words_or_letter_by_letter(name: str, text: str):
    assert name_is_said(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Anna Miller", "Anna"),
        ("Ann", "Anna"),
        ("Montgomery", "My name is Mont-- "),
        ("Mont", "My name is Teresa Mont--"),
        ("Mr.", "Mr. Smith"),
        ("", "anything"),
        ("100", "one hundred"),
    ],
)
def test_a_name_that_was_not_said_is_not(name: str, text: str):
    assert not name_is_said(name, text)


def test_a_quote_is_word_for_word_but_for_case_and_punctuation():
    text = "Well, I'd like to have my hedge trimmed. It's for Saturday."
    assert quote_is_said("i'd like to have my hedge trimmed", text)
    assert quote_is_said("I'd like ... my hedge trimmed", text)
    assert not quote_is_said("I would like to have my hedge trimmed", text)
    assert not quote_is_said("my hedge trim", text)
    assert not quote_is_said("...", text)
