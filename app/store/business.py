"""The example business: customers, appointments, messages. An adopter replaces this file and its tables; nothing else knows them.

Rule 1: what is done for a tool call is done once: its row bears the call and the tool call, and both together are unique.
Rule 2: the database decides who gets an opening, not a look at the calendar before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from app.call.errands import ErrandContext
from app.store.engine import Database
from app.store.facts import utc_now
from app.store.house_tables import business_appointments, business_customers, business_messages

FIRST_HOUR, LAST_HOUR = 9, 16
"""Appointments begin at the full hour, from nine to four o'clock, Monday to Friday, in the business's own time."""
SATURDAY = 5

INVENTED = (
    ("+15550100001", "Maria Lopez", date(2021, 3, 4), "Prefers mornings."),
    ("+15550100002", "James Okafor", date(2019, 11, 20), None),
    ("+15550100003", "Aiko Tanaka", date(2024, 6, 1), "Asked for a larger plan in spring."),
    ("+15550100004", "Peter Novak", date(2023, 1, 16), "Complained about a late delivery; settled."),
)
"""The numbers are of the range 555-01xx, which is kept for invented people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Somebody whom the business knows."""

    name: str = field(repr=False)
    number: str = field(repr=False)
    since: date | None
    note: str | None = field(repr=False)


class Booking(StrEnum):
    """What came of a wish for an opening."""

    BOOKED = "booked"
    TAKEN = "taken"


class Business:
    """The business's own books."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def find_customer(self, number: str | None) -> Customer | None:
        """The customer who calls from that number; None for a stranger or a number withheld."""
        index = self._database.blind_index(number)
        if index is None:
            return None
        async with self._database.read("look for a customer") as connection:
            query = sa.select(business_customers).where(business_customers.c.number_index == index)
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else Customer(name=row["name"], number=row["number"], since=row["since"], note=row["note"])

    async def openings(self, after: datetime, days: int, tz: ZoneInfo, limit: int) -> list[datetime]:
        """Free openings after a moment, the next first, on that day and `days` more; in the business's time, at most `limit`."""
        possible = calendar(after, days, tz)
        if not possible:
            return []
        booked = sa.select(business_appointments.c.opening).where(
            business_appointments.c.opening >= possible[0], business_appointments.c.opening <= possible[-1]
        )
        async with self._database.read("look for openings") as connection:
            taken = set((await connection.execute(booked)).scalars())
        return [opening for opening in possible if opening not in taken][:limit]

    async def book(
        self, context: ErrandContext, tool_call: str, opening: datetime, name: str | None, number: str | None
    ) -> Booking:
        """Book an opening, if nobody else has it. The same tool call again gets the same answer and books nothing more.

        Whether it is an hour at which the business is open is asked of `is_opening` before.
        """
        insert = self._database.insert(business_appointments).values(
            opening=opening,
            call_id=context.call_id,
            tool_call=tool_call,
            name=name,
            number=number,
            created_at=self._clock(),
        )
        async with self._database.write("book an appointment") as connection:
            if (await connection.execute(insert.on_conflict_do_nothing().returning(business_appointments.c.id))).first():
                return Booking.BOOKED
            ours = sa.select(business_appointments.c.opening).where(
                business_appointments.c.call_id == context.call_id, business_appointments.c.tool_call == tool_call
            )
            booked = (await connection.execute(ours)).scalar_one_or_none()
        return Booking.BOOKED if booked == opening.astimezone(UTC) else Booking.TAKEN

    async def take_message(self, context: ErrandContext, tool_call: str, text: str) -> None:
        """Keep a message from the caller, once a tool call. The number is the server's knowledge, never the model's word."""
        insert = self._database.insert(business_messages).values(
            call_id=context.call_id,
            tool_call=tool_call,
            number=context.slots.get("callback_number") or context.caller_number,
            text=text,
            created_at=self._clock(),
        )
        async with self._database.write("take a message") as connection:
            await connection.execute(insert.on_conflict_do_nothing(index_elements=["call_id", "tool_call"]))

    async def seed_example(self) -> None:
        """Put the invented customers into the books; those who are there stay as they are."""
        insert = self._database.insert(business_customers).on_conflict_do_nothing(index_elements=["number_index"])
        rows = [
            {"number": number, "number_index": self._database.blind_index(number), "name": name, "since": since, "note": note}
            for number, name, since, note in INVENTED
        ]
        async with self._database.write("put in the example's customers") as connection:
            await connection.execute(insert, rows)


def is_opening(moment: datetime, tz: ZoneInfo) -> bool:
    """Whether the business gives appointments at that moment."""
    local = moment.astimezone(tz)
    return local.weekday() < SATURDAY and FIRST_HOUR <= local.hour <= LAST_HOUR and local.time() == time(local.hour)


def calendar(after: datetime, days: int, tz: ZoneInfo) -> list[datetime]:
    """Every opening there would be if nothing were booked, in the business's time."""
    first = after.astimezone(tz).date()
    hours = range(FIRST_HOUR, LAST_HOUR + 1)
    possible = [datetime.combine(first + timedelta(days=day), time(hour), tz) for day in range(days + 1) for hour in hours]
    return [opening for opening in possible if opening.weekday() < SATURDAY and opening > after]
