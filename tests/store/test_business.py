"""The example business: its customers, its calendar, its messages; on both databases."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from app.store.business import Booking, Business, calendar, is_opening
from app.store.engine import Database
from app.store.house_tables import business_appointments, business_messages
from tests.store.shelf import CALLER, KEY, context

BERLIN = ZoneInfo("Europe/Berlin")
FRIDAY = datetime(2026, 11, 20, 14, 30, tzinfo=BERLIN)


@pytest.fixture
def business(database: Database) -> Business:
    return Business(database)


def local(moments: list[datetime]) -> list[str]:
    return [f"{moment:%a %H:%M}" for moment in moments]


async def test_a_customer_is_known_by_the_number_however_it_is_written(business):
    await business.seed_example()
    maria = await business.find_customer(CALLER)
    assert (maria.name, maria.number, maria.since) == ("Maria Lopez", CALLER, date(2021, 3, 4))
    assert await business.find_customer("+1 (555) 010-0001") == maria
    assert await business.find_customer("+15550100099") is None
    assert await business.find_customer(None) is await business.find_customer("") is None


async def test_the_example_can_be_put_in_any_number_of_times(business, database):
    await business.seed_example()
    await business.seed_example()
    async with database.read() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM business_customers"))).scalar() == 4


async def test_openings_are_full_hours_of_working_days_in_the_businesss_own_time(business):
    openings = await business.openings(FRIDAY, 4, BERLIN, 100)
    assert local(openings) == [
        *("Fri 15:00", "Fri 16:00"),
        *(f"{day} {hour:02}:00" for day in ("Mon", "Tue") for hour in range(9, 17)),
    ]
    assert all(opening.tzinfo is BERLIN for opening in openings)
    assert openings[2].astimezone(UTC) == datetime(2026, 11, 23, 8, tzinfo=UTC)


async def test_openings_stop_at_the_limit_and_are_asked_from_any_time_zone(business):
    tokyo = FRIDAY.astimezone(ZoneInfo("Asia/Tokyo"))
    assert local(await business.openings(tokyo, 4, BERLIN, 3)) == ["Fri 15:00", "Fri 16:00", "Mon 09:00"]
    assert await business.openings(FRIDAY + timedelta(hours=3), 1, BERLIN, 9) == []
    assert await business.openings(FRIDAY, 0, BERLIN, 0) == []


def test_hours_stay_the_same_over_the_change_of_the_clocks():
    before, after = calendar(datetime(2026, 10, 23, 15, 30, tzinfo=BERLIN), 3, BERLIN)[:2]
    assert (before.hour, after.hour) == (16, 9)
    # Friday 16:00 to Monday 9:00 is 2 days and 17 hours by the wall, and the hour that was given back
    assert after.astimezone(UTC) - before.astimezone(UTC) == timedelta(days=2, hours=18)


def test_a_moment_that_is_no_opening_is_told_apart():
    assert is_opening(datetime(2026, 11, 23, 8, tzinfo=UTC), BERLIN)
    assert is_opening(datetime(2026, 11, 23, 15, tzinfo=UTC), BERLIN)
    for wrong in ("2026-11-23T07:00", "2026-11-23T16:00", "2026-11-23T08:30", "2026-11-22T09:00", "2026-11-23T08:00:01"):
        assert not is_opening(datetime.fromisoformat(wrong).replace(tzinfo=UTC), BERLIN)


async def test_a_booked_opening_is_no_opening_any_more(business):
    first, second = await business.openings(FRIDAY, 4, BERLIN, 2)
    assert await business.book(context("c1"), "t1", first, "Maria", CALLER) is Booking.BOOKED
    assert (await business.openings(FRIDAY, 4, BERLIN, 1)) == [second]


async def test_one_of_many_gets_the_opening(business, database):
    (opening,) = await business.openings(FRIDAY, 4, BERLIN, 1)
    booked = await asyncio.gather(*(business.book(context(f"c{number}"), "t1", opening, None, None) for number in range(25)))
    assert booked.count(Booking.BOOKED) == 1
    async with database.read() as connection:
        assert (await connection.execute(sa.select(business_appointments.c.call_id))).scalars().all() == [
            f"c{booked.index(Booking.BOOKED)}"
        ]


async def test_the_same_tool_call_books_once_whatever_it_asks_for(business, database):
    first, second = await business.openings(FRIDAY, 4, BERLIN, 2)
    assert await business.book(context("c1"), "t1", first, "Maria", CALLER) is Booking.BOOKED
    assert await business.book(context("c1"), "t1", first.astimezone(UTC), "Maria", CALLER) is Booking.BOOKED
    assert await business.book(context("c1"), "t1", second, "Maria", CALLER) is Booking.TAKEN
    assert await business.book(context("c1"), "t2", second, "Maria", CALLER) is Booking.BOOKED
    async with database.read() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM business_appointments"))).scalar() == 2


async def test_a_moment_without_a_time_zone_is_never_booked(business):
    with pytest.raises(sa.exc.StatementError):
        await business.book(context("c1"), "t1", datetime(2026, 11, 23, 9), None, None)


async def test_a_message_is_taken_once_a_tool_call_with_the_callers_own_number(business, database):
    for _ in range(2):
        await business.take_message(context("c1"), "t1", "Please water the roses.")
    await business.take_message(context("c1"), "t2", "And the tulips.")
    async with database.read() as connection:
        kept = (await connection.execute(sa.select(business_messages).order_by(business_messages.c.id))).mappings().all()
    assert [(message["text"], message["number"]) for message in kept] == [
        ("Please water the roses.", CALLER),
        ("And the tulips.", CALLER),
    ]


async def test_with_a_key_customers_are_still_found_and_no_name_lies_open(database_url):
    database = Database(database_url, KEY)
    business = Business(database)
    await business.seed_example()
    await business.take_message(context("c1"), "t1", "Please water Maria's roses.")
    await business.book(context("c1"), "t1", (await business.openings(FRIDAY, 4, BERLIN, 1))[0], "Maria Lopez", CALLER)
    assert (await business.find_customer(CALLER)).name == "Maria Lopez"
    async with database.read() as connection:
        for name in ("customers", "messages", "appointments"):
            raw = str((await connection.execute(sa.text(f"SELECT * FROM business_{name}"))).all())
            assert "Maria" not in raw and "5550100001" not in raw
    await database.close()
