"""How values are written for people: moments in the business's time zone, durations, numbers. Filters of the templates.

Rule: what is not known is a dash, and says so to who cannot see it. Nothing is rounded into a lie: a duration keeps its seconds.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup

UNKNOWN = Markup('<span class="unknown" title="not known">–</span>')


def filters(zone: ZoneInfo) -> Mapping[str, Callable[..., Any]]:
    """`when`, `clock`, `day`, `brief`: a moment as an element `<time>`; `brief(year)` leaves out that year. `duration`:
    milliseconds as 1:05; `seconds`: as 1.25 s. `known`: a dash for None. `spoken`: a word of a closed list as people write it.
    """

    def element(moment: datetime | str | None, form: str) -> Markup:
        if moment is None:
            return UNKNOWN
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        there = moment.astimezone(zone)
        exact = f"{there:%Y-%m-%d %H:%M:%S} {there.tzname() or zone.key}"
        machine = moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Markup('<time datetime="{}" title="{}">{}</time>').format(machine, exact, there.strftime(form))

    def brief(moment: datetime | str | None, year: int | None = None) -> Markup:
        moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        in_it = moment is not None and moment.astimezone(zone).year == year
        return element(moment, "%-d %b, %H:%M" if in_it else "%-d %b %Y, %H:%M")

    return {
        "when": lambda moment: element(moment, "%-d %b %Y, %H:%M"),
        "clock": lambda moment: element(moment, "%H:%M:%S"),
        "day": lambda moment: element(moment, "%-d %b %Y"),
        "brief": brief,
        "duration": duration,
        "seconds": seconds,
        "spoken": spoken,
        "known": lambda value: UNKNOWN if value is None or value == "" else value,
    }


def duration(ms: float | None) -> str | Markup:
    """Milliseconds as minutes and seconds, with hours if there are any."""
    if ms is None:
        return UNKNOWN
    minutes, seconds = divmod(int(ms) // 1_000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def seconds(ms: float | None) -> str | Markup:
    """Milliseconds as seconds with two digits behind the point."""
    return UNKNOWN if ms is None else f"{ms / 1_000:.2f} s"


def spoken(word: str | None) -> str | Markup:
    """`caller_hung_up` as people write it."""
    return UNKNOWN if word is None or word == "" else word.replace("_", " ")
