"""What is private, as it lies in the database: with a key and without, on both databases."""

import base64
import json

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadSetting
from app.store.calls import Calls
from app.store.engine import Database
from app.store.private import SEALED, Seal, to_json
from tests.store.shelf import CALLER, KEY, OTHER_KEY, PRICED, filed, new_call

RAW = sa.text("SELECT from_number, to_number, slots, memory, summary, next_action FROM calls")


def test_a_sealed_value_opens_to_what_was_sealed():
    seal = Seal(KEY)
    kept = seal.close("Maria Lopez", "calls.summary")
    assert "Maria" not in kept and kept.startswith(SEALED)
    assert seal.open(kept, "calls.summary") == "Maria Lopez"


def test_the_same_text_is_never_sealed_alike():
    seal = Seal(KEY)
    assert seal.close("yes", "a.b") != seal.close("yes", "a.b")


def test_a_value_moved_to_another_column_does_not_open():
    seal = Seal(KEY)
    with pytest.raises(BadSetting, match="altered or moved"):
        seal.open(seal.close("yes", "calls.summary"), "calls.next_action")


def test_an_altered_value_does_not_open():
    seal = Seal(KEY)
    body = bytearray(base64.b64decode(seal.close("yes", "a.b").removeprefix(SEALED)))
    body[-1] ^= 1
    with pytest.raises(BadSetting, match="altered or moved"):
        seal.open(SEALED + base64.b64encode(body).decode(), "a.b")


@pytest.mark.parametrize("key", [OTHER_KEY, None])
def test_a_sealed_value_without_its_key_is_an_error_and_never_a_value(key):
    with pytest.raises(BadSetting, match="not the key"):
        Seal(key).open(Seal(KEY).close("yes", "a.b"), "a.b")


def test_text_kept_before_there_was_a_key_stays_readable():
    assert Seal(KEY).open(Seal().close("an old note", "a.b"), "a.b") == "an old note"


@pytest.mark.parametrize("said", ["sealed:AAAA", "plain:hello", "sealed:"])
@pytest.mark.parametrize("key", [None, KEY])
def test_nobody_can_say_a_sealed_value_into_the_telephone(said, key):
    seal = Seal(key)
    assert seal.open(seal.close(said, "a.b"), "a.b") == said


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_any_text_comes_back(text):
    for seal in (Seal(), Seal(KEY)):
        assert seal.open(seal.close(text, "a.b"), "a.b") == text


def test_what_no_database_keeps_is_taken_out_and_the_rest_stays():
    assert Seal().close("a\x00b", "a.b") == "ab"
    assert Seal().close("é\ud800b", "a.b") == "é?b"
    assert json.loads(to_json({"k\x00": ["a\x00b", "\ud800", r"\u0000", 7, None]})) == {"k": ["ab", "?", r"\u0000", 7, None]}


@pytest.mark.parametrize("key", ["short", base64.b64encode(b"x" * 31).decode(), "", "nö"])
def test_a_key_that_is_none_is_named_as_a_setting(key):
    with pytest.raises(BadSetting, match="DATA_KEY"):
        Seal(key)


def test_a_blind_index_is_the_number_however_it_is_punctuated_and_is_keyed():
    assert Seal(KEY).blind_index("+15550100001") == Seal(KEY).blind_index("+1 (555) 010-0001")
    assert Seal(KEY).blind_index("+15550100001") != Seal(KEY).blind_index("+15550100002")
    assert (
        Seal(KEY).blind_index("+15550100001") != Seal(OTHER_KEY).blind_index("+15550100001") != Seal().blind_index("+15550100001")
    )
    assert Seal(KEY).blind_index("anonymous") != Seal(KEY).blind_index("restricted")


async def _one_finished_call(url: str, key: str | None) -> tuple[list[str], dict[str, object] | None]:
    """What lies in the private columns, and what the store reads from them."""
    database = Database(url, key)
    calls = Calls(database)
    state, _ = await calls.born(new_call())
    assert await calls.finish(state.call_id, filed(), epoch=1, **PRICED)
    async with database.read() as connection:
        raw = list((await connection.execute(RAW)).one())
    row = await calls.row("CA1")
    await database.close()
    return raw, row


async def test_without_a_key_private_columns_hold_text(database_url):
    raw, row = await _one_finished_call(database_url, None)
    assert raw[0] == CALLER
    assert raw[4] == row["summary"] == "Maria wants a larger garden."


async def test_with_a_key_no_private_column_holds_a_word_of_it(database_url):
    raw, row = await _one_finished_call(database_url, KEY)
    assert all(value.startswith(SEALED) for value in raw)
    assert row["from_number"] == CALLER
    assert row["slots"]["name"]["value"] == "Maria Lopez"
    assert row["summary"] == "Maria wants a larger garden."


async def test_a_key_can_be_set_later_and_old_rows_stay_readable(database_url):
    await _one_finished_call(database_url, None)
    later = Database(database_url, KEY)
    calls = Calls(later)
    assert (await calls.row("CA1"))["summary"] == "Maria wants a larger garden."
    await calls.born(new_call("CA2"))
    assert {row["from_number"] for row in await calls.latest(10)} == {CALLER}
    await later.close()
