"""The reports: days and hours of the business's own time, what is not known counted as such, operators' corrections in force."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app.call.disposition import Outcome
from app.store import finishing, reports
from app.store.facts import turn_columns
from app.store.filters import Filters
from app.store.judgements import Judgements
from app.store.listing import Listing
from app.store.reports import Bin, Cell, Group, Reports, Tool, last_days, nearest_rank, start_of
from app.store.search import index_call
from app.store.tables import turns
from tests.store.listed import NOON, errand, put, row, wait
from tests.store.shelf import turn

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana")
"""With whole hours, a quarter of one, half an hour of summer time, clocks changed at midnight, and changed back at one."""
WIDE = Filters(since=NOON - timedelta(days=300), until=NOON + timedelta(days=1))


@pytest.fixture
def made(database):
    return Reports(database, BERLIN)


@pytest.mark.parametrize("zone", [ZoneInfo(name) for name in ZONES], ids=str)
@pytest.mark.parametrize("spring", [True, False], ids=["spring", "autumn"])
async def test_every_call_is_counted_on_its_own_day_and_hour(database, zone, spring):
    """Against the calendar of Python, over the weeks in which the clocks are changed."""
    dice = random.Random(f"{zone}{spring}")
    first = datetime(2026, 3, 5, tzinfo=UTC) if spring else datetime(2026, 9, 28, tzinfo=UTC)
    if zone.key == "Africa/Cairo":  # changes in the last weeks of April and October
        first += timedelta(days=28)
    window = Filters(since=first + timedelta(hours=7), until=first + timedelta(days=40, hours=5, minutes=7))
    moments = [first + timedelta(seconds=dice.randrange(41 * 86_400), microseconds=dice.randrange(10**6)) for _ in range(300)]
    midnights = [start_of(day.date(), zone) for day in moments[:40]]
    moments += [midnight + timedelta(microseconds=micro) for midnight in midnights for micro in (-1, 0)]
    await put(database, *(row(database, moment, cost_usd=0.01) for moment in moments))
    inside = [moment.astimezone(zone) for moment in moments if window.since <= moment < window.until]

    found = await Reports(database, zone).activity(window)

    assert found.calls == len(inside) == sum(day.calls for day in found.days) == found.costed
    assert {day.start.date(): day.calls for day in found.days if day.calls} == Counter(moment.date() for moment in inside)
    assert Counter({(d, h): n for d, hours in enumerate(found.by_hour) for h, n in enumerate(hours) if n}) == Counter(
        (moment.weekday(), moment.hour) for moment in inside
    )
    days = [day.start.date() for day in found.days]
    last = (window.until - timedelta(microseconds=1)).astimezone(zone).date()
    assert days == [window.since.astimezone(zone).date() + timedelta(days=n) for n in range(len(days))] and days[-1] == last
    assert {day.start.fold for day in found.days} <= {0}
    assert found.hours == []


async def test_a_day_of_23_and_a_day_of_25_hours_have_as_many_hours(database, made):
    for day, hours in ((date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 11, 20), 24)):
        start, end = start_of(day, BERLIN), start_of(day + timedelta(days=1), BERLIN)
        await put(database, *(row(database, start + timedelta(hours=hour, minutes=59)) for hour in range(hours)))
        found = await made.activity(Filters(since=start, until=end))
        assert [hour.calls for hour in found.hours] == [1] * hours
        assert [(one.start.date(), one.calls) for one in found.days] == [(day, hours)]


async def test_an_empty_window_has_its_days_all_the_same(made):
    found = await made.activity(last_days(NOON, BERLIN))
    assert (found.calls, found.cost_usd, found.costed, found.cost_per_call, found.barge_ins) == (0, 0, 0, None, 0)
    assert len(found.days) == 30 and {day.calls for day in found.days} == {0}
    assert found.days[0].start == datetime(2026, 10, 22, tzinfo=BERLIN) and found.days[-1].start == datetime(
        2026, 11, 20, tzinfo=BERLIN
    )


async def test_a_report_by_day_needs_a_window(made):
    for filters in (Filters(), Filters(since=NOON), Filters(until=NOON)):
        with pytest.raises(ValueError, match="window"):
            await made.activity(filters)


def test_a_day_begins_when_the_clocks_say_so_also_where_midnight_is_left_out_or_comes_twice():
    assert start_of(date(2026, 4, 24), ZoneInfo("Africa/Cairo")) == datetime(2026, 4, 23, 22, tzinfo=UTC)  # 00:00 does not exist
    assert start_of(date(2026, 11, 1), ZoneInfo("America/Havana")) == datetime(2026, 11, 1, 4, tzinfo=UTC)  # 00:00 comes twice
    assert start_of(date(2026, 7, 1), BERLIN) == datetime(2026, 6, 30, 22, tzinfo=UTC)


async def test_cost_is_of_the_calls_whose_cost_is_known(database, made):
    await put(
        database, row(database, cost_usd=0.10), row(database, cost_usd=0.30), row(database, cost_usd=None), row(database, live=True)
    )
    found = await made.activity(WIDE)
    assert (found.calls, found.costed, found.cost_usd, found.cost_per_call) == (4, 2, 0.4, 0.2)
    assert [(day.calls, day.cost_usd, day.costed) for day in found.days if day.calls] == [(4, 0.4, 2)]


async def test_barge_ins_are_summed(database, made):
    await put(database, row(database, barge_ins=2), row(database, barge_ins=3), row(database))
    assert (await made.activity(WIDE)).barge_ins == 5


async def test_groups_count_what_is_not_known_too_and_lead_to_their_calls(database, made):
    listing = Listing(database)
    await put(
        database,
        *(row(database, disposition="sales_lead", agent="sales") for _ in range(3)),
        *(row(database, disposition="other", outcome=Outcome.FAILED) for _ in range(2)),
        *(row(database) for _ in range(2)),
        row(database, live=True),
    )
    assert await made.outcomes(WIDE) == [
        Group(value="completed", calls=5),
        Group(value="failed", calls=2),
        Group(value=None, calls=1),
    ]
    by_disposition = await made.dispositions(WIDE)
    assert by_disposition == [Group(value=None, calls=3), Group(value="sales_lead", calls=3), Group(value="other", calls=2)]
    assert await made.agents(WIDE) == [Group(value="front-desk", calls=5), Group(value="sales", calls=3)]
    for group in by_disposition:
        assert (await listing.count(Filters(disposition=(group.value,)))).calls == group.calls


async def test_intents_are_crossed_with_sentiments(database, made):
    await put(
        database,
        *(row(database, intent="buy", sentiment="positive") for _ in range(2)),
        row(database, intent="buy", sentiment="negative"),
        row(database, intent="buy"),
        row(database),
    )
    assert await made.intents(WIDE) == [
        Cell(intent="buy", sentiment="positive", calls=2),
        Cell(intent=None, sentiment=None, calls=1),
        Cell(intent="buy", sentiment=None, calls=1),
        Cell(intent="buy", sentiment="negative", calls=1),
    ]


async def test_lead_scores_fall_into_ten_bins_the_last_with_the_hundred(database, made):
    scores = [0, 9, 10, 45, 89, 90, 99, 100, 100, None, None]
    await put(database, *(row(database, lead_score=score) for score in scores))
    found = await made.lead_scores(WIDE)
    assert [one.calls for one in found] == [2, 1, 0, 0, 1, 0, 0, 0, 1, 4, 2]
    assert found[0] == Bin(lowest=0, highest=9, calls=2) and found[9] == Bin(lowest=90, highest=100, calls=4)
    assert found[10] == Bin(lowest=None, highest=None, calls=2)
    listing = Listing(database)
    for one in found[:10]:
        counted = await listing.count(Filters(lead_score_from=one.lowest, lead_score_to=one.highest))
        assert counted.calls == one.calls


async def test_latencies_are_of_turns_and_not_of_calls(database, made):
    short, long, none = await put(
        database, row(database, latency_p95_ms=5_000), row(database, latency_p95_ms=600), row(database, latency_p95_ms=None)
    )
    await wait(database, short, 5_000)
    await wait(database, long, *([600] * 97), 1_000, 1_001, None)
    await wait(database, none, None)
    found = await made.latency(WIDE)
    assert (found.sampled, found.calls, found.turns) == (False, 2, 100)
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (600, 600, 1_001)
    assert found.within == 98 and found.reached == 0.98, "a second is within the second"
    assert found.budget_spent == pytest.approx(0.02 / 0.05)


async def test_a_missed_target_has_spent_more_than_its_budget(database):
    (call,) = await put(database, row(database, latency_p95_ms=900))
    await wait(database, call, 100, 900)
    found = await Reports(database, BERLIN, objective_ms=500, target=0.9).latency(WIDE)
    assert found.budget_spent == pytest.approx(5) and found.reached == 0.5


async def test_of_no_turns_there_is_no_percentile(made):
    found = await made.latency(WIDE)
    assert (found.calls, found.turns, found.p50_ms, found.p99_ms, found.reached, found.budget_spent) == (
        0,
        0,
        None,
        None,
        None,
        None,
    )


async def test_of_many_calls_a_fair_sample_is_looked_at_and_said_to_be_one(database, made, monkeypatch):
    monkeypatch.setattr(reports, "SAMPLE", 100)
    ids = await put(database, *(row(database, NOON - timedelta(minutes=n), latency_p95_ms=500) for n in range(400)))
    async with database.write() as connection:
        await connection.execute(sa.insert(turns), [turn_columns(name, 1, turn(0, n)) for n, name in enumerate(ids)])
    found = await made.latency(WIDE)
    assert (found.sampled, found.calls, found.turns) == (True, 100, 100)
    assert found.p50_ms is not None and 100 < found.p50_ms < 300, "neither the oldest nor the newest"
    assert found == await made.latency(WIDE), "the same calls each time"


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 100))
def test_percentiles_are_those_of_the_row(values, percent):
    assert nearest_rank(dict(Counter(values)), percent) == finishing.nearest_rank(values, percent)


async def test_tools_are_counted_by_what_became_of_them(database, made):
    one, two, before = await put(database, row(database), row(database), row(database, NOON - timedelta(days=400)))
    for status in ("done", "done", "done", "failed", "refused", "unknown", "intended"):
        await errand(database, one, "book_appointment", status)
    await errand(database, two, "find_customer", "done")
    await errand(database, two, "find_customer", "failed", kind="control")
    await errand(database, before, "find_customer", "failed", NOON - timedelta(days=400))
    booking, finding = await made.tools(WIDE)
    assert booking == Tool(name="book_appointment", done=3, failed=1, refused=1, unknown=1, open=1)
    assert booking.success == 0.6 and finding.success == 1.0
    assert finding == Tool(name="find_customer", done=1, failed=0, refused=0, unknown=0, open=0)
    assert Tool(name="x", done=0, failed=0, refused=3, unknown=0, open=0).success is None


async def test_an_errand_counts_for_the_day_of_its_call_and_not_for_its_own(database, made):
    start, end = NOON - timedelta(days=2), NOON
    long, soon = timedelta(minutes=55), timedelta(seconds=5)
    begun = {start - soon: "before", start: "first", start + timedelta(days=1): "midst", end - soon: "last", end: "after"}
    for moment, name in begun.items():
        (call,) = await put(database, row(database, moment))
        await errand(database, call, name, "done", moment)
        await errand(database, call, name, "failed", moment + long)
    for window in (Filters(since=start, until=end), Filters(since=start, until=end, agent=("front-desk",))):
        assert [(tool.name, tool.done, tool.failed) for tool in await made.tools(window)] == [
            *(("first", 1, 1), ("last", 1, 1), ("midst", 1, 1)),
        ]
    assert [tool.name for tool in await made.tools(Filters(since=end - soon, until=end))] == ["last"]
    assert len(await made.tools(Filters())) == len(begun)


async def test_every_report_is_of_the_calls_that_the_filters_leave(database, made):
    """Each filter, on its own and with a text: what a report counts is what the list has."""
    dice = random.Random(3)
    rows = [
        row(
            database,
            NOON - timedelta(hours=dice.randrange(400)),
            agent=dice.choice("ab"),
            sentiment=dice.choice([None, "negative", "positive"]),
            intent=dice.choice([None, "buy"]),
            lead_score=dice.choice([None, 5, 95]),
            latency_p95_ms=700,
        )
        for _ in range(60)
    ]
    ids = await put(database, *rows)
    for name, begun in zip(ids, (one["started_at"] for one in rows), strict=True):
        await wait(database, name, 700)
        await errand(database, name, "find_customer", "done", begun)
        async with database.write() as connection:
            await index_call(connection, name, ["garden" if dice.random() < 0.5 else "roof"])
    window = {"since": NOON - timedelta(hours=300), "until": NOON}
    for other in (
        {},
        {"agent": ("a",)},
        {"sentiment": (None, "negative")},
        {"lead_score_from": 90},
        {"text": "garden"},
        {"tool": "nothing"},
    ):
        filters = Filters(**window, **other)
        listed = (await Listing(database).count(filters)).calls
        assert (await made.activity(filters)).calls == listed
        for report in (made.outcomes, made.dispositions, made.agents, made.intents, made.lead_scores):
            assert sum(group.calls for group in await report(filters)) == listed
        assert (await made.latency(filters)).turns == listed
        assert sum(tool.done for tool in await made.tools(filters)) == listed


async def test_a_correction_is_what_counts(database, made):
    (call,) = await put(database, row(database, disposition="other", lead_score=10))
    judgements = Judgements(database)
    assert await judgements.correct(call, "disposition", "sales_lead", by="ann")
    assert await judgements.correct(call, "lead_score", 95, by="ann")
    assert await made.dispositions(WIDE) == [Group(value="sales_lead", calls=1)]
    assert [one.lowest for one in await made.lead_scores(WIDE) if one.calls] == [90]
