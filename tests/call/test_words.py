"""Which words were heard."""

from hypothesis import given
from hypothesis import strategies as st

from app.call.words import split_heard

TEXT = "Thank you, Maria. Your appointment is on Tuesday at ten in the morning."


def test_nothing_heard_is_all_unheard():
    assert split_heard(TEXT, heard_ms=0, generated_ms=4_000, complete=True) == ("", TEXT)


def test_all_heard_is_nothing_unheard():
    assert split_heard(TEXT, heard_ms=4_000, generated_ms=4_000, complete=True) == (TEXT, "")


def test_half_of_the_time_is_about_half_of_the_words():
    heard, unheard = split_heard(TEXT, heard_ms=2_000, generated_ms=4_000, complete=True)
    assert heard in (
        "Thank you, Maria. Your appointment is",
        "Thank you, Maria. Your appointment",
        "Thank you, Maria. Your appointment is on",
    )
    assert unheard.startswith((" is", " on", " Tuesday"))


def test_text_that_runs_ahead_of_its_audio_is_not_taken_for_heard():
    heard, _ = split_heard(TEXT, heard_ms=500, generated_ms=500, complete=False)
    assert heard in ("Thank you,", "Thank")


@given(st.text(max_size=200), st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_heard_and_unheard_together_are_the_text(text, heard_ms, generated_ms, complete):
    heard, unheard = split_heard(text, heard_ms=heard_ms, generated_ms=generated_ms, complete=complete)
    assert heard + unheard == text


@given(st.integers(0, 5_000), st.integers(0, 5_000))
def test_more_time_never_means_fewer_words(first, second):
    early, late = sorted((first, second))
    one, _ = split_heard(TEXT, heard_ms=early, generated_ms=5_000, complete=True)
    two, _ = split_heard(TEXT, heard_ms=late, generated_ms=5_000, complete=True)
    assert two.startswith(one)
