"""The errands of the example business: who is calling, which openings are free, book one, take a message. An adopter replaces them.

Rule 1: who a booking or a message is from is read from the slots and the caller's number; no argument can say it.
Rule 2: days and hours are the business's own, in its time zone; an opening is named by its local time to the minute.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field

from app.errors import ToolRefused
from app.store.business import Booking, Business, is_opening
from app.tools.arguments import Arguments
from app.tools.toolbox import Errand, Tool

MOST_OFFERED = 3
SOON_DAYS = 14
"""How far ahead we look when the caller names no day."""
FURTHEST_DAYS = 90
LONGEST_NOTE = 500
MINUTE = "%Y-%m-%dT%H:%M"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip

WHICH_DAY = "day must be a weekday, today, tomorrow, or a date such as 2026-11-24."
PAST = "That day is over. Ask for another."
TOO_FAR = f"We make appointments for the next {FURTHEST_DAYS} days only. Ask for an earlier day."
NO_OPENING = "That is no opening of ours. Call offer_appointments and book one that it gives, exactly as it is written."
WHOSE = "Ask for the caller's name and note it first."
WHICH_NUMBER = "Ask for a callback number and note it first."


class FindCustomer(Arguments):
    """Nothing to choose: the number is the caller's own."""


class OfferAppointments(Arguments):
    """Which day."""

    day: str | None = Field(
        default=None,
        max_length=40,
        description="The day the caller wants: a weekday in English, today, tomorrow, or a date such as 2026-11-24. "
        "Leave it out for the next openings there are.",
    )


class BookAppointment(Arguments):
    """Which of the openings."""

    opening: str = Field(max_length=16, description="An opening exactly as offer_appointments gave it, such as 2026-11-24T10:00.")


class TakeMessage(Arguments):
    """What to pass on."""

    message: str = Field(
        min_length=1, max_length=1_000, description="What the caller wants to leave word of, in one to three sentences."
    )


def business_tools(business: Business, *, clock: Callable[[], datetime], zone: ZoneInfo) -> list[Tool[Any]]:
    """The example business's errands. `clock` gives the present moment, with its time zone; `zone` is the business's."""
    errands = _BusinessErrands(business, clock, zone)
    return [
        Tool(
            name="find_customer",
            description="Look up whether the number this call comes from belongs to a customer. It tells whose number it is, not "
            "who speaks: use the name only after the caller has given it.",
            arguments=FindCustomer,
            run=errands.find_customer,
            budget_ms=3_000,
            safe_to_retry=True,
        ),
        Tool(
            name="offer_appointments",
            description="Find at most three free openings for a visit. Say each as its `spoken`; keep its `opening` for booking.",
            arguments=OfferAppointments,
            run=errands.offer_appointments,
            budget_ms=3_000,
            safe_to_retry=True,
        ),
        Tool(
            name="book_appointment",
            description="Book an opening for this caller, after the caller has said yes to that day and time, and after name and "
            "callback number have been noted. Only an answer with booked true means that it is booked.",
            arguments=BookAppointment,
            run=errands.book_appointment,
            effect=True,
            safe_to_retry=True,  # the books know the tool call: a repeat books nothing more
        ),
        Tool(
            name="take_message",
            description="Take a message for the team, after the caller has said yes to its wording and a callback number is known.",
            arguments=TakeMessage,
            run=errands.take_message,
            effect=True,
            safe_to_retry=True,  # as above
        ),
    ]


class _BusinessErrands:
    def __init__(self, business: Business, clock: Callable[[], datetime], zone: ZoneInfo) -> None:
        self._business, self._clock, self._zone = business, clock, zone

    async def find_customer(self, _arguments: FindCustomer, errand: Errand) -> Mapping[str, Any]:
        customer = await self._business.find_customer(errand.context.caller_number)
        if customer is None:
            return {"found": False}
        return {
            "found": True,
            "name": _plain(customer.name),
            "since": customer.since.isoformat() if customer.since else None,
            "note": _plain(customer.note) if customer.note else None,
        }

    async def offer_appointments(self, arguments: OfferAppointments, _errand: Errand) -> Mapping[str, Any]:
        now = self._clock().astimezone(self._zone)
        openings: list[datetime] = []
        if arguments.day is None:
            openings = await self._business.openings(now, SOON_DAYS, self._zone, MOST_OFFERED)
        else:
            for day in wanted_days(arguments.day, now.date()):
                openings = openings or await self._on(day, now)
        return {"openings": [{"opening": opening.strftime(MINUTE), "spoken": spoken(opening, now)} for opening in openings]}

    async def _on(self, day: date, now: datetime) -> list[datetime]:
        midnight = datetime.combine(day, time(), self._zone)
        return await self._business.openings(max(now, midnight), 0, self._zone, MOST_OFFERED)

    async def book_appointment(self, arguments: BookAppointment, errand: Errand) -> Mapping[str, Any]:
        now = self._clock().astimezone(self._zone)
        opening = self._opening(arguments.opening, now)
        slots = errand.context.slots
        name, number = slots.get("name"), slots.get("callback_number") or errand.context.caller_number
        if not name:
            raise ToolRefused(WHOSE)
        if not number:
            raise ToolRefused(WHICH_NUMBER)
        if await self._business.book(errand.context, errand.tool_call, opening, name, number) is Booking.TAKEN:
            return {"booked": False, "why": "taken"}
        return {"booked": True, "spoken": spoken(opening, now)}

    def _opening(self, text: str, now: datetime) -> datetime:
        """The moment that is meant, if we give appointments then."""
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d", text, re.ASCII):
            raise ToolRefused(NO_OPENING)
        try:
            opening = datetime.strptime(text, MINUTE).replace(tzinfo=self._zone)
        except ValueError:
            raise ToolRefused(NO_OPENING) from None
        is_soon = now < opening and opening.date() <= now.date() + timedelta(days=FURTHEST_DAYS)
        if not is_soon or not is_opening(opening, self._zone):
            raise ToolRefused(NO_OPENING)
        return opening

    async def take_message(self, arguments: TakeMessage, errand: Errand) -> Mapping[str, Any]:
        if not (errand.context.slots.get("callback_number") or errand.context.caller_number):
            raise ToolRefused(WHICH_NUMBER)
        await self._business.take_message(errand.context, errand.tool_call, arguments.message)
        return {"taken": True}


def _plain(text: str) -> str:
    """Text from the books as data: one line, without control characters, and short."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:LONGEST_NOTE]


def wanted_days(text: str, today: date) -> list[date]:
    """The days that may be meant, the likeliest first: a weekday is its next one, today included if anything is free today.

    Raises:
        ToolRefused: it is no day, or one that is over, or too far away.
    """
    words = re.sub(r"[^a-z0-9-]+", " ", text.lower()).split()
    words = [word for word in words if word not in ("on", "this", "the")]
    is_next = words[:1] == ["next"] and len(words) == 2
    match words[-1:] if len(words) == 1 or is_next else []:
        case ["today"] if not is_next:
            return [today]
        case ["tomorrow"] if not is_next:
            return [today + timedelta(days=1)]
        case [weekday] if weekday in WEEKDAYS:
            ahead = (WEEKDAYS.index(weekday) - today.weekday()) % 7
            days = [today + timedelta(days=ahead), today + timedelta(days=ahead + 7)]
            return days[:1] if ahead else days[1:] if is_next else days
        case [written] if re.fullmatch(r"\d{4}-\d\d-\d\d", written, re.ASCII) and not is_next:
            return [_date(written, today)]
        case _:
            raise ToolRefused(WHICH_DAY)


def _date(written: str, today: date) -> date:
    try:
        day = date.fromisoformat(written)
    except ValueError:
        raise ToolRefused(WHICH_DAY) from None
    if day < today:
        raise ToolRefused(PAST)
    if day > today + timedelta(days=FURTHEST_DAYS):
        raise ToolRefused(TOO_FAR)
    return day


def spoken(moment: datetime, now: datetime) -> str:
    """A moment as people say it, in its own time zone: "Tuesday at 10 in the morning"; from a week ahead on with its date."""
    weekday = WEEKDAYS[moment.weekday()].capitalize()
    if (moment.date() - now.astimezone(moment.tzinfo).date()).days < 7:
        return f"{weekday} at {_hour(moment)}"
    return f"{weekday} the {_ordinal(moment.day)} of {MONTHS[moment.month - 1]} at {_hour(moment)}"


def _hour(moment: datetime) -> str:
    if (moment.hour, moment.minute) == (12, 0):
        return "12 noon"
    hour, next_hour = (moment.hour + 11) % 12 + 1, moment.hour % 12 + 1
    clock = {0: f"{hour}", 15: f"quarter past {hour}", 30: f"half past {hour}", 45: f"quarter to {next_hour}"}
    part = "in the morning" if moment.hour < 12 else "in the afternoon" if moment.hour < 18 else "in the evening"
    return f"{clock.get(moment.minute, f'{hour}:{moment.minute:02}')} {part}"


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 11 <= day <= 13 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
