"""The address of a list and what it asks: there and back, whatever stands in it."""

from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.filters import Filters
from app.store.listing import Sort, SortBy
from app.web.console.narrowing import TITLES, chips
from app.web.console.question import FLAGS, LISTS, LONGEST_TEXT, RANGES, Question, address

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)  # the 21st in Berlin
INDEX = "0123456789abcdef" * 2
BOUNDS = [f"{name}_{end}" for name in RANGES for end in ("from", "to")]
NAMES = ["q", "number", "period", "from", "to", "sort", "at", "view", "nonsense", *LISTS, *FLAGS, *BOUNDS]
VALUES = (
    *(
        "",
        " ",
        "-",
        "yes",
        "no",
        "7d",
        "today",
        "2026-11-20",
        "2026-02-30",
        "2026-11-20T09:00",
        "70",
        "-5",
        "9" * 30,
        "²",
        "failed",
    ),
    *("-lead_score", "lead_score", INDEX, "\x00", "a\x00b", "x" * 300, "garden roof", "é", "0001-01-01", "9999-12-31", "01J"),
)


def of(query):
    return Question.of(parse_qsl(query, keep_blank_values=True))


def filters(query):
    return of(query).filters(NOW, BERLIN)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=40)), max_size=12))
def test_whatever_stands_in_an_address_is_a_question_and_has_one_address(pairs):
    question = Question.of(pairs)
    again = of(urlsplit(question.address).query)
    assert again.address == question.address
    assert again.pairs() == question.pairs()
    assert isinstance(question.filters(NOW, BERLIN), Filters)
    assert len(question.address) < 12_000


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=12))
def test_every_filter_has_a_chip_and_without_all_chips_nothing_is_asked(pairs):
    question = Question.of(pairs)
    assert bool(chips(question, BERLIN)) == bool(question.asked)
    for _ in range(200):
        found = chips(question, BERLIN)
        if not found:
            break
        fewer = of(urlsplit(found[0].address).query)
        assert len(fewer.pairs()) < len(question.pairs())
        question = fewer
    assert question.asked == ()


def test_nothing_is_everything():
    assert filters("") == Filters()
    assert Question().address == "/console/calls?view=all"


def test_filters_are_those_of_the_store():
    asked = filters(
        "q=garden&number=" + INDEX + "&outcome=failed&outcome=-&disposition=sales_lead&score_from=70&score_to=90&duration_from=30"
        "&duration_to=60&latency_from=1500&escalated=yes&review=no&barged=yes&tool=book_appointment&tool_status=failed&agent=sales"
    )
    assert asked == Filters(
        text="garden", number_index=INDEX, outcome=("failed", None), disposition=("sales_lead",), lead_score_from=70,
        lead_score_to=90, duration_from_ms=30_000, duration_to_ms=60_999, latency_from_ms=1_500, escalated=True, needs_review=False,
        barged_in=True, tool="book_appointment", tool_status=("failed",), agent=("sales",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("query", "since", "until"),
    [
        ("period=today", "2026-11-20T23:00Z", None),
        ("period=yesterday", "2026-11-19T23:00Z", "2026-11-20T23:00Z"),
        ("period=7d", "2026-11-14T23:00Z", None),
        ("period=30d", "2026-10-22T22:00Z", None),  # summer time
        ("from=2026-11-02&to=2026-11-02", "2026-11-01T23:00Z", "2026-11-02T23:00Z"),
        ("from=2026-11-02T09:00", "2026-11-02T08:00Z", None),
        ("from=2026-11-02T09:00%2B05:00", "2026-11-02T04:00Z", None),
        ("from=2026-11-02T09:00+05:00", "2026-11-02T04:00Z", None),  # a + that nobody escaped
        ("to=2026-11-02T09:00:00Z", None, "2026-11-02T09:00Z"),
        ("period=7d&from=2026-11-02", "2026-11-01T23:00Z", None),
        ("from=2026-02-30", None, None),
        ("period=never", None, None),
    ],
)
def test_days_are_those_of_the_business(query, since, until):
    asked = filters(query)
    moments = tuple(None if text is None else datetime.fromisoformat(text) for text in (since, until))
    assert (asked.since, asked.until) == moments


def test_what_cannot_be_read_is_left_out_and_the_rest_stands():
    question = of(
        "score_from=many&score_to=-1&sort=colour&outcome=failed&number=%2B15550100001&at=%20&escalated=perhaps&nonsense=1"
    )
    assert question.query == "outcome=failed"


def test_an_address_does_not_grow_without_end():
    question = Question.of([("q", "x" * 10_000), *[("agent", f"{number}") for number in range(500)]])
    assert len(question.words) == LONGEST_TEXT
    assert len(question.chosen["agent"]) == 20


def test_a_change_begins_at_the_first_page_and_keeps_the_view():
    question = of("outcome=failed&outcome=transferred&at=abc&view=01J")
    assert question.cursor == "abc"
    fewer = question.without("outcome", "failed")
    assert fewer.address == "/console/calls?outcome=transferred&view=01J"
    assert fewer.without("outcome", "transferred").address == "/console/calls?view=all"


def test_a_column_is_sorted_downwards_first_and_then_the_other_way_round():
    question = Question().sorted_by(SortBy.LEAD_SCORE)
    assert question.sort == Sort(SortBy.LEAD_SCORE, descending=True)
    assert question.sorted_by(SortBy.LEAD_SCORE).sort == Sort(SortBy.LEAD_SCORE, descending=False)
    assert Question().sorted_by(SortBy.STARTED_AT).query == "sort=started_at"


def test_other_pages_make_addresses_by_the_names_of_the_parameters():
    made = address(outcome=("failed", None), escalated=True, score_from=70, from_=date(2026, 11, 1), to=NOW + timedelta(hours=1))
    assert made == (
        "/console/calls?from=2026-11-01&to=2026-11-21T00%3A30%3A00%2B00%3A00&outcome=failed&outcome=-&score_from=70&escalated=yes"
    )
    assert address(review=False) == "/console/calls?review=no"


def test_what_is_noted_of_a_question_are_names_and_no_values():
    assert of("q=secret&number=" + INDEX + "&score_from=7&duration_to=9&agent=x&sort=-lead_score").asked == (
        "q", "number", "agent", "score", "duration",
    )  # fmt: skip


def test_chips_are_written_for_people():
    question = of("q=roof&from=2026-11-01&to=2026-11-02&disposition=sales_lead&intent=-&score_from=70&duration_to=30&review=yes")
    assert [(chip.title, chip.words) for chip in chips(question, BERLIN)] == [
        ("Words", "roof"), ("Period", "1 Nov 2026 to 2 Nov 2026"), ("Disposition", "sales lead"), ("Intent", "not known"),
        ("Lead score", "70 or more"), ("Duration", "up to 30 s"), ("", "To review"),
    ]  # fmt: skip


def test_every_list_has_a_title():
    assert set(TITLES) == set(LISTS)
