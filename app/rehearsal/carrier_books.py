"""The pretend carrier's books: its calls, and the legs they dialed, as the API lists them. Pure but for the present moment.

Rule: numbers are text, times are RFC 2822 in whole seconds, and what is not known yet is null. A price is a negative number and
comes some time after the end; a call that nobody answered never has one (Twilio's documentation).
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from app.rehearsal.carrier_call import Call
from app.rehearsal.carrier_verbs import Leg

VERSION = "2010-04-01"
INBOUND_PER_MINUTE, OUTBOUND_PER_MINUTE = Decimal("0.0085"), Decimal("0.0140")
"""US dollars for each started minute, as listed in 2026."""

EQUAL = {"to": "To", "from": "From", "status": "Status", "parent_call_sid": "ParentCallSid"}


def entries(call: Call) -> Iterator[dict[str, Any]]:
    """What the list shows of a call, the newest first: the legs it dialed, then itself."""
    for leg in reversed(call.legs):
        yield leg_as_json(call, leg)
    yield call_as_json(call)


def call_as_json(call: Call) -> dict[str, Any]:
    """A call as the API shows it."""
    over = call.finished and call.answered_at is not None
    return _entry(
        call,
        sid=call.sid,
        parent=None,
        parties=(call.plan.from_number, call.number.phone_number),
        status=call.status,
        direction="inbound",
        moments=(call.created, call.answered_at, call.ended_at),
        duration_s=call.duration_s if over else None,
        per_minute=INBOUND_PER_MINUTE,
    ) | {"phone_number_sid": call.number.sid}


def leg_as_json(call: Call, leg: Leg) -> dict[str, Any]:
    """A leg that a call's document dialed: to the API a call of its own, whose parent is that call."""
    talked = None if leg.answered_at is None or leg.ended_at is None else leg.ended_at - leg.answered_at
    return _entry(
        call,
        sid=leg.sid,
        parent=call.sid,
        parties=(leg.caller, leg.to),
        status="queued" if leg.status == "initiated" else leg.status,
        direction="outbound-dial",
        moments=(leg.created, leg.answered_at, leg.ended_at),
        duration_s=None if talked is None else -int(-talked.total_seconds() // 1),
        per_minute=OUTBOUND_PER_MINUTE,
    )


def asked_for(query: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    """Which entries a list's query wants.

    `StartTime>=2026-11-20` arrives as the field `StartTime>`. Only the date of its value counts. "On or before midnight of this
    date" is read in the narrow way, as the midnight that the date begins with: who relies on the wider one is found here.

    Raises:
        ValueError: a date that is none.
    """
    dates = {name: date.fromisoformat(query[name][:10]) for name in ("StartTime", "StartTime<", "StartTime>") if name in query}
    begins = {name: datetime(day.year, day.month, day.day, tzinfo=UTC) for name, day in dates.items()}

    def fits(entry: Mapping[str, Any]) -> bool:
        if any(entry[key] != query[name] for key, name in EQUAL.items() if name in query):
            return False
        started = parsedate_to_datetime(entry["start_time"])
        return (
            ("StartTime" not in dates or started.date() == dates["StartTime"])
            and ("StartTime<" not in begins or started <= begins["StartTime<"])
            and ("StartTime>" not in begins or started >= begins["StartTime>"])
        )

    return fits


def _entry(
    call: Call,
    *,
    sid: str,
    parent: str | None,
    parties: tuple[str, str],
    status: str,
    direction: str,
    moments: tuple[datetime, datetime | None, datetime | None],
    duration_s: int | None,
    per_minute: Decimal,
) -> dict[str, Any]:
    base = f"/{VERSION}/Accounts/{call.account.sid}/Calls/{sid}"
    created, answered, ended = moments
    rated = ended is not None and duration_s and datetime.now(UTC) - ended >= timedelta(milliseconds=call.plan.rated_after_ms)
    return {
        "sid": sid,
        "account_sid": call.account.sid,
        "parent_call_sid": parent,
        "from": parties[0],
        "from_formatted": parties[0],
        "to": parties[1],
        "to_formatted": parties[1],
        "phone_number_sid": None,
        "status": status,
        "direction": direction,
        "answered_by": None,
        "start_time": _date(answered or created),
        "end_time": _date(ended),
        "duration": None if duration_s is None else str(duration_s),
        "price": str(per_minute * (duration_s // -60)) if rated and duration_s else None,
        "price_unit": "USD",
        "queue_time": "0",
        "caller_name": None,
        "forwarded_from": None,
        "trunk_sid": None,
        "group_sid": None,
        "annotation": None,
        "api_version": VERSION,
        "date_created": _date(created),
        "date_updated": _date(ended or answered or created),
        "uri": f"{base}.json",
        "subresource_uris": {"recordings": f"{base}/Recordings.json", "streams": f"{base}/Streams.json"},
    }


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment)
