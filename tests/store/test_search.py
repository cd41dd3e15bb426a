"""Words are found, whole and in any writing, and nothing else is; the same with a key and without, on both databases."""

import random
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.store import search
from app.store.engine import Database
from app.store.filters import Filters, ask
from app.store.listing import Listing, Sort, SortBy
from app.store.search import index_again, index_call, words
from app.store.tables import calls, search_tokens
from tests.store.listed import NOON, put, row, say
from tests.store.shelf import KEY, OTHER_KEY


async def index(database, call_id, *texts):
    async with database.write() as connection:
        await index_call(connection, call_id, texts or None)


async def found(database, text, sort=Sort(), **filters):  # noqa: B008
    return [one["call_id"] for one in (await Listing(database).page(Filters(text=text, **filters), sort)).rows]


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
async def shelf(request, database_url):
    opened = Database(database_url, request.param)
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The garden, the Garden; and a GARDEN!", ("garden",)),
        ("Don't worry: O'Brien's cat", ("dont", "worry", "obrien", "cat")),
        ("don’t", ("dont",)),
        ("Müller, José and Ångström", ("muller", "jose", "angstrom")),
        ("Straße", ("strasse",)),
        ("room 12b at 555-0100", ("room", "12b", "555", "0100")),
        ("snake_case_words", ("snake", "case", "words")),
        ("ﬁne ½ Ⅳ", ("fine", "1", "2", "iv")),
        ("Привет мир", ("привет", "мир")),
        ("東京に行く", ("東京", "京に", "に行", "行く")),
        ("水", ("水",)),
        ("iPhone買う", ("iphone", "買う")),
        ("나는 간다", ("나는", "간다")),
        ("the and of", ()),
        ("?!. ''", ()),
        ("", ()),
        ("\x00\ud800 garden", ("garden",)),
    ],
)
def test_a_text_is_known_by_its_words(text, expected):
    assert words(text) == expected


async def test_a_call_is_found_by_what_was_heard_and_by_its_summary(shelf):
    heard, summed_up, neither = await put(
        shelf, row(shelf), row(shelf, NOON - timedelta(minutes=1), summary="She wants a garden."), row(shelf)
    )
    await say(shelf, heard, "I want a garden.", None, "Soon, please.")
    await say(shelf, neither, "Wrong number.")
    for name in (heard, summed_up, neither):
        await index(shelf, name)
    assert await found(shelf, "garden") == [heard, summed_up]
    assert await found(shelf, "Gärden SOON") == [heard]
    assert await found(shelf, "gard") == await found(shelf, "gardens") == []
    assert await found(shelf, "wrong") == [neither]


async def test_all_words_must_be_in_the_call_and_their_order_does_not_count(shelf):
    both, one, other = await put(shelf, row(shelf), row(shelf), row(shelf))
    await index(shelf, both, "a red", "garden")
    await index(shelf, one, "a red roof")
    await index(shelf, other, "a green garden")
    assert await found(shelf, "garden red") == await found(shelf, "red, garden") == [both]
    assert await found(shelf, "red zeppelin") == []


@pytest.mark.parametrize("text", ["the", "?", "the of and"])
async def test_words_that_are_not_kept_find_nothing_alone_and_are_no_hindrance_beside_others(shelf, text):
    (call,) = await put(shelf, row(shelf))
    await index(shelf, call, "the garden of the house")
    assert await found(shelf, text) == []
    assert await found(shelf, f"{text} garden") == [call]


@pytest.mark.parametrize("text", ["", "   "])
async def test_no_text_is_no_question(shelf, text):
    (call,) = await put(shelf, row(shelf))
    assert await found(shelf, text) == [call]


async def test_indexing_again_leaves_what_the_texts_say_now(shelf):
    (call,) = await put(shelf, row(shelf))
    await index(shelf, call, "garden roof")
    await index(shelf, call, "roof cellar")
    assert await found(shelf, "garden") == []
    assert await found(shelf, "roof") == await found(shelf, "cellar") == [call]
    await index(shelf, call, None, "")
    assert await found(shelf, "roof") == []


async def test_an_index_that_is_rolled_back_was_never_written(shelf):
    (call,) = await put(shelf, row(shelf))
    with pytest.raises(RuntimeError):
        async with shelf.write() as connection:
            await index_call(connection, call, ["garden"])
            raise RuntimeError
    assert await found(shelf, "garden") == []


async def test_the_words_of_a_call_go_with_it(shelf):
    (call,) = await put(shelf, row(shelf))
    await index(shelf, call, "garden")
    async with shelf.write() as connection:
        await connection.execute(sa.delete(calls))
        assert (await connection.execute(sa.select(sa.func.count()).select_from(search_tokens))).scalar_one() == 0


async def test_no_word_stands_in_the_database(shelf):
    (call,) = await put(shelf, row(shelf))
    await index(shelf, call, "garden")
    async with shelf.read() as connection:
        kept = (await connection.execute(sa.text("SELECT * FROM search_tokens"))).all()
    assert len(kept) == 1 and "garden" not in repr(kept)


async def test_another_key_makes_other_numbers_of_the_same_word(database_url):
    numbers = {Database(database_url, key).seal.blind_word("garden") for key in (None, KEY, OTHER_KEY)}
    assert len(numbers) == 3
    assert all(-(2**63) <= number < 2**63 for number in numbers)


async def test_after_a_key_was_set_the_old_calls_are_indexed_again(database_url):
    plain, sealed = Database(database_url), Database(database_url, KEY)
    ids = await put(plain, *(row(plain, NOON + timedelta(seconds=second), summary=f"garden number{second}") for second in range(5)))
    (live,) = await put(plain, row(plain, live=True, summary="garden"))
    for name in ids:
        await index(plain, name)
    assert await found(sealed, "garden") == []
    batches = [counted async for _, counted in index_again(sealed, batch=2)]
    assert batches == [2, 2, 1]
    assert sorted(await found(sealed, "garden")) == sorted(ids) and live not in ids
    assert await found(sealed, "number3") == [ids[3]]
    assert await found(plain, "garden") == [], "of the old numbers none is left"
    await plain.close()
    await sealed.close()


async def test_indexing_again_goes_on_where_it_was_stopped(database):
    ids = sorted(await put(database, *(row(database, NOON + timedelta(seconds=second), summary="garden") for second in range(4))))
    async for after, _ in index_again(database, batch=1):
        if after == ids[1]:
            break
    assert sorted(await found(database, "garden")) == ids[:2]
    assert [name async for name, _ in index_again(database, after=ids[1], batch=1)] == ids[2:]
    assert sorted(await found(database, "garden")) == ids


@pytest.mark.parametrize("few", [0, 3, 10_000], ids=["many", "some", "few"])
@pytest.mark.parametrize("by", [SortBy.STARTED_AT, SortBy.LEAD_SCORE])
async def test_rare_and_frequent_words_are_found_alike_in_every_order_and_beside_every_filter(database, monkeypatch, few, by):
    """However it goes about it (`search.matching`), the list is the one that was worked out without it."""
    monkeypatch.setattr(search, "FEW", few)
    dice = random.Random(11)
    vocabulary = ["garden", "roof", "cellar", "tower"]
    made = []
    for number in range(40):
        said = {word for place, word in enumerate(vocabulary) if dice.random() < (0.9, 0.4, 0.2, 0.05)[place]}
        values = {
            "lead_score": dice.choice([None, 10, 20]),
            "duration_ms": dice.choice([5, 6]),
            "latency_p95_ms": number % 3 or None,
        }
        made.append((row(database, NOON - timedelta(minutes=number % 9), agent=dice.choice("ab"), **values), said))
    await put(database, *(one for one, _ in made))
    for one, said in made:
        await index(database, one["call_id"], " ".join(said))
    listing = Listing(database)
    for text in ("garden", "tower", "cellar garden roof", "garden zeppelin"):
        for filters in ({}, {"agent": ("a",), "since": NOON - timedelta(minutes=5), "until": NOON}):
            expected = {
                one["call_id"]
                for one, said in made
                if set(text.split()) <= said
                and one["agent"] in filters.get("agent", "ab")
                and filters.get("since", NOON - timedelta(days=1))
                <= one["started_at"]
                < filters.get("until", NOON + timedelta(days=1))
            }
            asked = Filters(text=text, **filters)
            everything = [name async for name in listing.ids(Filters(), Sort(by))]
            assert [name async for name in listing.ids(asked, Sort(by))] == [name for name in everything if name in expected]
            assert (await listing.count(asked)).calls == len(expected)
            paged, cursor = [], None
            while True:
                page = await listing.page(asked, Sort(by), cursor, 11)
                paged += [one["call_id"] for one in page.rows]
                if (cursor := page.next) is None:
                    break
            assert set(paged) == expected and len(paged) == len(expected)


async def test_of_a_very_long_question_the_first_words_count(database):
    (call,) = await put(database, row(database))
    await index(database, call, " ".join(f"word{number}" for number in range(search.MOST_WORDS)))
    assert await found(database, " ".join(f"word{number}" for number in range(500))) == [call]


async def test_a_long_talk_is_indexed_whole(database):
    (call,) = await put(database, row(database))
    await index(database, call, " ".join(f"word{number}" for number in range(5_000)))
    assert await found(database, "word4999 word0") == [call]


async def test_every_question_gets_a_plan_of_its_own_and_none_is_compiled(postgres_url):
    """A plan for any word is a bad one for nearly each: by it three words in a million calls took minutes, after ten times."""
    database = Database(postgres_url)
    async with database.read() as connection:
        await ask(connection, database, Filters(text="garden"))
        said = {name: (await connection.execute(sa.text(f"SHOW {name}"))).scalar_one() for name in ("plan_cache_mode", "jit")}
    assert said == {"plan_cache_mode": "force_custom_plan", "jit": "off"}
    async with database.read() as connection:
        assert (await connection.execute(sa.text("SHOW plan_cache_mode"))).scalar_one() == "auto", (
            "what is written goes by the usual"
        )
    await database.close()
