"""The stream's token: for one call, one epoch, one minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.twilio.token import LIFE_MS, StreamTokens

NOW = 1_795_000_000_000


def test_a_token_is_good_for_its_own_stream_until_it_expires():
    tokens = StreamTokens("secret")
    token = tokens.make("01J", 1, NOW)
    assert tokens.check(token, "01J", 1, NOW)
    assert tokens.check(token, "01J", 1, NOW + LIFE_MS - 1)
    assert not tokens.check(token, "01J", 1, NOW + LIFE_MS)


def test_a_token_is_repeatable_by_any_worker_with_the_same_secret():
    assert StreamTokens("secret").make("01J", 3, NOW) == StreamTokens("secret").make("01J", 3, NOW)
    assert StreamTokens("secret").check(StreamTokens("secret").make("01J", 3, NOW), "01J", 3, NOW)


def test_a_token_of_another_call_or_another_epoch_is_refused():
    tokens = StreamTokens("secret")
    token = tokens.make("01J", 1, NOW)
    assert not tokens.check(token, "01K", 1, NOW)
    assert not tokens.check(token, "01J", 2, NOW)
    assert not StreamTokens("other").check(token, "01J", 1, NOW)


def test_the_expiry_cannot_be_moved():
    tokens = StreamTokens("secret")
    expiry, mac = tokens.make("01J", 1, NOW).split(".")
    assert not tokens.check(f"{int(expiry) + 1}.{mac}", "01J", 1, NOW)


def test_during_a_rotation_a_token_of_the_old_secret_is_still_good_and_new_ones_are_of_the_new():
    tokens = StreamTokens("new", "old")
    assert tokens.check(StreamTokens("old").make("01J", 1, NOW), "01J", 1, NOW)
    assert StreamTokens("new").check(tokens.make("01J", 1, NOW), "01J", 1, NOW)


def test_the_token_fits_a_parameter_and_shows_nothing():
    token = StreamTokens("secret").make("01J" * 12, 1_000_000, NOW)
    assert len("token") + len(token) < 500
    assert "secret" not in token
    assert "01J" not in token


def test_no_token_without_a_secret():
    with pytest.raises(ValueError, match="auth token"):
        StreamTokens("")


@pytest.mark.parametrize(
    "token", ["", ".", "1.", "1." + "A" * 42, "1." + "A" * 44, "١." + "A" * 43, "9" * 16 + "." + "A" * 43, "\ud800"]
)
def test_what_has_not_the_shape_of_a_token_is_refused(token):
    assert not StreamTokens("secret").check(token, "01J", 1, NOW)


@given(
    st.text(max_size=100) | st.from_regex(r"\d{1,15}\.[A-Za-z0-9_-]{43}", fullmatch=True),
    st.text(st.characters(), max_size=20),
    st.integers(),
)
def test_whatever_arrives_nothing_is_raised_and_nothing_is_let_in(token, call_id, epoch):
    assert StreamTokens("secret").check(token, call_id, epoch, NOW) is False


@given(
    st.tuples(st.text(st.characters(), max_size=8), st.integers(0, 200)),
    st.tuples(st.text(st.characters(), max_size=8), st.integers(0, 200)),
)
def test_no_two_streams_share_a_token(one, other):
    tokens = StreamTokens("secret")
    assert tokens.check(tokens.make(*one, NOW), *other, NOW) is (one == other)
