"""The fields of the pretend carrier's requests, blanks and what nobody documents included.

Each function gives form fields in the order they are sent. The signature covers all of them, known or not.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime

from app.rehearsal.carrier_web import as_form


def standard(account_sid: str, call_sid: str, status: str, caller: str, called: str) -> list[tuple[str, str]]:
    """The standard fields of a voice request about an inbound call. `caller` need not be a number (`anonymous`)."""
    known = caller.startswith("+1")
    fields = {
        "AccountSid": account_sid,
        "ApiVersion": "2010-04-01",
        "CallSid": call_sid,
        "CallStatus": status,
        "CallToken": '{"parentCallInfoToken":"rehearsal"}',
        "Called": called,
        "CalledCity": "",
        "CalledCountry": "US",
        "CalledState": "CA",
        "CalledZip": "",
        "Caller": caller,
        "CallerCity": "OAKLAND" if known else "",
        "CallerCountry": "US" if known else "",
        "CallerState": "CA" if known else "",
        "CallerZip": "94612" if known else "",
        "Direction": "inbound",
        "From": caller,
        "FromCity": "OAKLAND" if known else "",
        "FromCountry": "US" if known else "",
        "FromState": "CA" if known else "",
        "FromZip": "94612" if known else "",
        "StirVerstat": "TN-Validation-Passed-A" if known else None,
        "To": called,
        "ToCity": "",
        "ToCountry": "US",
        "ToState": "CA",
        "ToZip": "",
        "AddedWithoutNotice": "",
    }
    return as_form(fields)


def status(fields: Iterable[tuple[str, str]], seconds: int, sequence: int) -> list[tuple[str, str]]:
    """A call status callback: the standard fields, the answered seconds, the billed minutes."""
    return [
        *fields,
        ("CallDuration", str(seconds)),
        ("Duration", str(-(-seconds // 60))),
        ("Timestamp", format_datetime(datetime.now(UTC))),
        ("CallbackSource", "call-progress-events"),
        ("SequenceNumber", str(sequence)),
    ]


def stream_status(
    account_sid: str, call_sid: str, stream_sid: str, name: str | None, event: str, error: str | None
) -> list[tuple[str, str]]:
    """A stream status callback: `stream-started`, `stream-stopped`, or `stream-error` with its text."""
    fields = {
        "AccountSid": account_sid,
        "CallSid": call_sid,
        "StreamSid": stream_sid,
        "StreamName": name or stream_sid,
        "StreamEvent": event,
        "StreamError": error,
        "Timestamp": datetime.now(UTC).isoformat(),
    }
    return as_form(fields)
