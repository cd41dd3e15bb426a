"""The call list: whatever arrives meanwhile, paging loses no row and shows none twice; every filter, on both databases."""

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.call.disposition import EndReason, Outcome
from app.store.engine import Database
from app.store.filters import Filters
from app.store.listing import ROW, BadCursor, Count, Listing, Page, Sort, SortBy
from tests.store.listed import NOON, errand, put, row
from tests.store.shelf import CALLED, CALLER, KEY

ALL = Filters()
SORTS = [Sort(by, descending) for by in SortBy for descending in (True, False)]


@pytest.fixture
def listing(database):
    return Listing(database)


def names(page: Page) -> list[str]:
    return [found["call_id"] for found in page.rows]


async def walk(listing, sort, limit, filters=ALL, cursor=None, meanwhile=None):
    """Every page from a place to the end."""
    pages = []
    while True:
        page = await listing.page(filters, sort, cursor, limit)
        pages.append(page)
        if page.next is None:
            return pages
        cursor = page.next
        if meanwhile is not None:
            await meanwhile()


async def walk_back(listing, sort, limit, page, filters=ALL):
    pages = [page]
    while page.previous is not None:
        page = await listing.page(filters, sort, page.previous, limit)
        pages.append(page)
    return pages[::-1]


def some_rows(database, dice, number):
    """Few different values, so that there are ties, and many unknown ones."""
    for _ in range(number):
        at = NOON - timedelta(minutes=dice.randrange(8))
        live = dice.random() < 0.1
        values = {
            "lead_score": dice.choice([None, 0, 50, 100]),
            "duration_ms": None if live else dice.choice([0, 1_000, 1_001]),
            "latency_p95_ms": dice.choice([None, None, 700]),
        }
        yield row(database, at, live=live, **values)


def in_order(rows, sort):
    """What the list must be, worked out without it: what is not known last, ties by name."""

    def key(found):
        value = found[sort.by.value]
        return value.timestamp() if isinstance(value, datetime) else value

    known = sorted((r for r in rows if key(r) is not None), key=lambda r: (key(r), r["call_id"]), reverse=sort.descending)
    unknown = sorted((r for r in rows if key(r) is None), key=lambda r: r["call_id"], reverse=sort.descending)
    return [found["call_id"] for found in (*known, *unknown)]


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: f"{sort.by}-{'down' if sort.descending else 'up'}")
async def test_pages_put_together_are_the_list_whatever_their_size(database, listing, sort):
    dice = random.Random(sort.by)
    rows = list(some_rows(database, dice, 60))
    await put(database, *rows)
    expected = in_order(rows, sort)
    for limit in (1, 7, 59, 60, 61):
        pages = await walk(listing, sort, limit)
        assert [name for page in pages for name in names(page)] == expected
        assert all(len(page.rows) == limit for page in pages[:-1])
        assert not pages[0].has_previous and not pages[-1].has_next
        back = await walk_back(listing, sort, limit, pages[-1])
        assert [names(page) for page in back] == [names(page) for page in pages]


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: f"{sort.by}-{'down' if sort.descending else 'up'}")
async def test_no_row_is_lost_or_shown_twice_while_others_arrive(database, listing, sort):
    """New calls are born on every side of the place where somebody reads; those that were there before are all read, once."""
    dice = random.Random(f"{sort}")
    rows = list(some_rows(database, dice, 40))
    await put(database, *rows)
    arrived = []

    async def others_arrive():
        arrived.extend(await put(database, *some_rows(database, dice, 3)))

    seen = [name for page in await walk(listing, sort, 6, meanwhile=others_arrive) for name in names(page)]
    assert len(seen) == len(set(seen))
    assert [name for name in seen if name not in arrived] == in_order(rows, sort)


async def test_the_newest_call_appears_on_the_first_page_and_not_on_the_one_that_is_read(database, listing):
    await put(database, *(row(database, NOON + timedelta(minutes=minute)) for minute in range(10)))
    first = await listing.page(Filters(), Sort(), None, 4)
    (newest,) = await put(database, row(database, NOON + timedelta(hours=1)))
    second = await listing.page(Filters(), Sort(), first.next, 4)
    assert not set(names(first)) & set(names(second))
    again = await listing.page(Filters(), Sort(), second.previous, 4)
    assert names(again) == names(first) and again.has_previous, "the new one is before it"
    assert names(await listing.page(Filters(), Sort(), again.previous, 4)) == [newest]


async def test_a_place_whose_rows_are_gone_still_leads_somewhere(database, listing):
    ids = await put(database, *(row(database, NOON + timedelta(minutes=minute), agent="a") for minute in range(6)))
    only = Filters(agent=("a",))
    middle = await listing.page(only, Sort(), (await listing.page(only, Sort(), None, 2)).next, 2)
    nobody = Filters(agent=("b",))
    behind = await listing.page(nobody, Sort(), middle.next, 2)
    assert behind.rows == [] and not behind.has_next and behind.has_previous
    assert names(await listing.page(only, Sort(), behind.previous, 2)) == names(middle)
    before = await listing.page(nobody, Sort(), middle.previous, 2)
    assert before == Page(rows=[], previous=None, next=None)
    assert names(await listing.page(only, Sort(), middle.previous, 2)) == ids[:3:-1]


async def test_neighbours_are_those_beside_it_in_the_same_list(database, listing):
    dice = random.Random(5)
    rows = list(some_rows(database, dice, 25))
    await put(database, *rows)
    for sort in SORTS:
        order = [None, *in_order(rows, sort), None]
        for before, name, behind in zip(order, order[1:], order[2:], strict=False):
            assert await listing.neighbours(Filters(), sort, name) == (before, behind)
    assert await listing.neighbours(Filters(), Sort(), "nobody") == (None, None)


async def test_a_call_that_is_not_in_the_list_has_neighbours_in_it(database, listing):
    before, mine, behind = await put(
        database, *(row(database, NOON - timedelta(minutes=minute), agent=agent) for minute, agent in enumerate("aba"))
    )
    assert await listing.neighbours(Filters(agent=("a",)), Sort(), mine) == (before, behind)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "AAAA", "é", base64.urlsafe_b64encode(b'["started_at",true,null,"x",true,false]').decode(), "a" * 5_000],
)
async def test_a_cursor_that_is_none_is_refused(listing, cursor):
    with pytest.raises(BadCursor):
        await listing.page(Filters(), Sort(), cursor)


@pytest.mark.parametrize("value", ["yesterday", "2026-11-20T12:00:00", 5, None, True, 1.5])
async def test_a_cursor_with_another_value_is_refused(listing, value):
    forged = json.dumps(["started_at", True, value, "01M7", True, False]).encode()
    with pytest.raises(BadCursor):
        await listing.page(Filters(), Sort(), base64.urlsafe_b64encode(forged).decode())


@pytest.mark.parametrize("value", ["5", 2**63, -(2**63), True])
async def test_a_cursor_with_no_number_is_refused(listing, value):
    forged = json.dumps(["lead_score", True, value, "01M7", True, False]).encode()
    with pytest.raises(BadCursor):
        await listing.page(Filters(), Sort(SortBy.LEAD_SCORE), base64.urlsafe_b64encode(forged).decode())


async def test_a_cursor_of_another_order_is_refused(database, listing):
    await put(database, row(database), row(database))
    cursor = (await listing.page(Filters(), Sort(), None, 1)).next
    for other in (Sort(descending=False), Sort(SortBy.LEAD_SCORE)):
        with pytest.raises(BadCursor):
            await listing.page(Filters(), other, cursor)


@pytest.mark.parametrize("name", ["\x00", "'; DROP TABLE calls; --", "9" * 400, ""])
async def test_a_cursor_with_a_name_of_no_call_is_a_place_all_the_same(database, listing, name):
    await put(database, row(database, lead_score=9))
    forged = json.dumps(["lead_score", True, 10, name, True, False]).encode()
    page = await listing.page(Filters(), Sort(SortBy.LEAD_SCORE), base64.urlsafe_b64encode(forged).decode())
    assert [found["lead_score"] for found in page.rows] == [9]


@pytest.mark.parametrize("value", [-(2**62), -1, 101, 2**31, 2**62])
async def test_a_cursor_with_a_number_that_no_column_holds_is_a_place_all_the_same(database, listing, value):
    await put(database, row(database, lead_score=50))
    forged = json.dumps(["lead_score", False, value, "01M7", True, False]).encode()
    page = await listing.page(Filters(), Sort(SortBy.LEAD_SCORE, False), base64.urlsafe_b64encode(forged).decode())
    assert len(page.rows) == (value < 50)


WORDS = {
    "outcome": (Outcome.COMPLETED, Outcome.FAILED),
    "end_reason": (EndReason.AGENT_ENDED, EndReason.SILENCE),
    "disposition": ("sales_lead", "other"),
    "intent": ("buy", "support"),
    "sentiment": ("negative", "positive"),
    "urgency": ("low", "high"),
    "agent": ("sales", "support"),
    "analysis": ("done", "failed"),
}


@pytest.mark.parametrize("column", WORDS)
async def test_a_list_of_words_finds_any_of_them(database, listing, column):
    one, two = WORDS[column]
    first, second = await put(database, row(database, **{column: one}), row(database, **{column: two}))

    async def found(*words):
        return set(names(await listing.page(Filters(**{column: words}))))

    assert await found(one) == {first}
    assert await found(one, two) == await found(one, two, "never heard of") == {first, second}
    assert await found() == {first, second}
    assert await found("never heard of") == await found("x" * 50_000) == await found("\x00") == set()


@pytest.mark.parametrize("column", ["disposition", "intent", "sentiment", "urgency"])
async def test_what_is_not_known_can_be_asked_for(database, listing, column):
    unknown, known = await put(database, row(database), row(database, **{column: WORDS[column][0]}))
    assert names(await listing.page(Filters(**{column: (None,)}))) == [unknown]
    assert set(names(await listing.page(Filters(**{column: (None, WORDS[column][0])})))) == {unknown, known}


@pytest.mark.parametrize(
    ("column", "name"), [("lead_score", "lead_score_{}"), ("latency_p95_ms", "latency_{}_ms"), ("duration_ms", "duration_{}_ms")]
)
async def test_a_range_has_both_its_ends_and_nothing_unknown(database, listing, column, name):
    lowest, highest = name.format("from"), name.format("to")
    unknown, low, middle, high = await put(database, *(row(database, **{column: value}) for value in (None, 10, 50, 90)))

    async def found(**bounds):
        return set(names(await listing.page(Filters(**bounds))))

    assert await found(**{lowest: 50}) == {middle, high}
    assert await found(**{highest: 50}) == {low, middle}
    assert await found(**{lowest: 50, highest: 50}) == {middle}
    assert await found(**{lowest: 51, highest: 49}) == set()
    assert await found(**{lowest: -(10**30), highest: 10**30}) == {low, middle, high}
    assert unknown in await found()


async def test_flags_are_three_valued_questions(database, listing):
    plain, escalated, review, barged = await put(
        database,
        *(row(database), row(database, escalated=True), row(database, needs_review=True), row(database, barge_ins=2)),
    )

    async def found(**flags):
        return set(names(await listing.page(Filters(**flags))))

    assert await found(escalated=True) == {escalated}
    assert await found(escalated=False) == {plain, review, barged}
    assert await found(needs_review=True) == {review}
    assert await found(needs_review=False, escalated=False, barged_in=False) == {plain}
    assert await found(barged_in=True) == {barged}


async def test_a_window_begins_with_its_first_moment_and_ends_before_its_last(database, listing):
    before, first, inside, last = await put(
        database, *(row(database, NOON + timedelta(seconds=second)) for second in (-1, 0, 59, 60))
    )
    window = Filters(since=NOON, until=NOON + timedelta(minutes=1))
    assert names(await listing.page(window)) == [inside, first]
    assert names(await listing.page(Filters(until=NOON))) == [before]
    assert names(await listing.page(Filters(since=NOON + timedelta(minutes=1)))) == [last]


async def test_a_window_may_be_said_in_any_time_zone(database, listing):
    (found,) = await put(database, row(database, NOON))
    berlin = NOON.astimezone(ZoneInfo("Europe/Berlin"))
    assert names(await listing.page(Filters(since=berlin, until=berlin + timedelta(microseconds=1)))) == [found]


@pytest.mark.parametrize("key", [None, "with a key"])
async def test_a_number_is_found_on_either_side_however_it_is_written(database_url, key):
    database = Database(database_url, KEY if key else None)
    listing = Listing(database)
    inbound, outbound, other = await put(
        database,
        row(database, NOON, from_number=CALLER, to_number=CALLED),
        row(database, NOON - timedelta(minutes=1), from_number=CALLED, to_number=CALLER, direction="outbound"),
        row(database, NOON - timedelta(minutes=2), from_number="+15550100077", to_number=CALLED),
    )
    page = await listing.page(Filters(number=f"{CALLER[:2]} ({CALLER[2:5]}) {CALLER[5:8]}-{CALLER[8:]}"))
    assert names(page) == [inbound, outbound]
    assert [found["number"] for found in page.rows] == [CALLER, CALLER]
    assert names(await listing.page(Filters(number=CALLED))) == [inbound, outbound, other]
    assert names(await listing.page(Filters(number=""))) == names(await listing.page(Filters(number="+4930"))) == []
    await database.close()


async def test_a_number_withheld_is_none(database, listing):
    await put(database, row(database, from_number=None, to_number=CALLED))
    (found,) = (await listing.page(Filters())).rows
    assert found["number"] is None and found["to_number"] == CALLED


async def test_calls_are_found_by_what_became_of_a_tool(database, listing):
    done, failed, control, none = await put(database, *(row(database, NOON + timedelta(seconds=s)) for s in range(4)))
    await errand(database, done, "book_appointment", "done")
    await errand(database, done, "book_appointment", "done")
    await errand(database, failed, "book_appointment", "failed")
    await errand(database, control, "book_appointment", "failed", kind="control")

    async def found(**asked):
        return names(await listing.page(Filters(**asked)))

    assert await found(tool="book_appointment") == [failed, done]
    assert await found(tool="book_appointment", tool_status=("failed",)) == [failed]
    assert await found(tool_status=("done", "unknown")) == [done]
    assert await found(tool="nothing") == await found(tool_status=("nothing",)) == []
    assert await found(tool="book_appointment", since=NOON + timedelta(days=1)) == []
    assert none not in await found(tool="book_appointment")


async def test_calls_in_progress_are_asked_for_by_their_state(database, listing):
    live, final = await put(database, row(database, live=True), row(database))
    assert names(await listing.page(Filters(state=("live",)))) == [live]
    assert names(await listing.page(Filters(state=("final",), outcome=("completed",)))) == [final]
    assert names(await listing.page(Filters(outcome=(None,)))) == [live]


async def test_some_calls_are_asked_for_by_name(database, listing):
    one, _two, three = await put(database, *(row(database, NOON + timedelta(seconds=s)) for s in range(3)))
    assert names(await listing.page(Filters(call_ids=(one, three, "nobody", "x" * 99)))) == [three, one]


async def test_filters_hold_together(database, listing):
    both, _one, _other = await put(
        database,
        row(database, agent="sales", sentiment="negative"),
        row(database, agent="sales"),
        row(database, sentiment="negative"),
    )
    assert names(await listing.page(Filters(agent=("sales",), sentiment=("negative",)))) == [both]


async def test_a_row_is_as_json_can_say_it(database, listing):
    await put(
        database,
        row(
            database, sentiment="negative", review_reasons={"name": "values_differ"}, summary="Señora 'x' \"y\"", cost_usd=0.123456
        ),
    )
    (found,) = (await listing.page(Filters())).rows
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {column.name for column in ROW} | {"number"}
    assert found["started_at"] == NOON.isoformat() and found["review_reasons"] == {"name": "values_differ"}
    assert (found["state"], found["outcome"], found["sentiment"], found["analysis"]) == ("final", "completed", "negative", "done")
    assert found["escalated"] is False and found["cost_usd"] == 0.123456 and found["summary"] == "Señora 'x' \"y\""


async def test_what_is_private_is_sealed_below_and_open_in_the_list(database_url):
    database = Database(database_url, KEY)
    await put(database, row(database, summary="Maria wants a garden."))
    (found,) = (await Listing(database).page(Filters(number=CALLER))).rows
    assert found["summary"] == "Maria wants a garden." and found["number"] == CALLER
    await database.close()


async def test_calls_are_counted_as_far_as_one_asks(database, listing):
    await put(database, *(row(database, agent="sales" if number % 2 else "support") for number in range(10)))
    assert await listing.count(Filters()) == Count(10, False)
    assert await listing.count(Filters(agent=("sales",))) == Count(5, False)
    assert await listing.count(Filters(), up_to=9) == Count(9, True)
    assert await listing.count(Filters(), up_to=10) == Count(10, False)
    assert await listing.count(Filters(agent=("nobody",))) == Count(0, False)


async def test_an_export_names_every_call_once_in_its_order_over_many_batches(database, listing, monkeypatch):
    monkeypatch.setattr("app.store.listing.AT_ONCE", 7)
    dice = random.Random(9)
    rows = list(some_rows(database, dice, 50))
    await put(database, *rows)
    for sort in (Sort(), Sort(SortBy.LEAD_SCORE, descending=False)):
        found, arrived = [], []
        async for name in listing.ids(Filters(state=("final",)), sort):
            found.append(name)
            if len(found) == 10:
                arrived = await put(database, *(row(database, NOON - timedelta(hours=hour)) for hour in (-1, 1)))
        expected = in_order([made for made in rows if made["state"] == "final"], sort)
        assert [name for name in found if name not in arrived] == expected
        rows += [row(database, NOON - timedelta(hours=hour), call_id=name) for name, hour in zip(arrived, (-1, 1), strict=True)]


@pytest.mark.parametrize("limit", [-5, 0, 1, 10_000])
async def test_a_page_is_never_empty_nor_without_end(database, listing, limit):
    await put(database, *(row(database) for _ in range(3)))
    assert len((await listing.page(Filters(), limit=limit)).rows) == max(1, min(3, limit))


def test_what_was_asked_for_does_not_stand_in_what_filters_print():
    assert CALLER not in repr(Filters(number=CALLER)) and "garden" not in repr(Filters(text="garden"))


async def test_moments_keep_their_microseconds_over_pages(database, listing):
    rows = [row(database, datetime(2026, 11, 20, 12, 0, 0, micro, tzinfo=UTC)) for micro in (0, 1, 999_999, 1, 500_000)]
    await put(database, *rows)
    pages = await walk(listing, Sort(), 1)
    assert [name for page in pages for name in names(page)] == in_order(rows, Sort())
