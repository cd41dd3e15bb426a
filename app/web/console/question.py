"""What the address of a list of calls asks: every filter, the order and the place in it, there and back.

Rule 1: all that narrows a list stands in its address, so that it can be kept, sent to a colleague and gone back to. A number does
not: there it is its blind index, which tells nobody the number (`Database.blind_index`).
Rule 2: an address is a question and never an error: what cannot be read in it is left out, and the rest stands.
Rule 3: there is one address for one question, but for the order of what is in it; whatever else asks the same is sent on to it.

Other pages make addresses with `address(outcome="failed", period="7d")`, or read one by `Question.of(query_params.multi_items())`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from app.store.filters import Filters, Words
from app.store.listing import Sort, SortBy
from app.store.reports import start_of

LIST = "/console/calls"
ALL = "all"
"""The view of all calls."""
NOT_KNOWN = "-"
"""Stands for what is not known, among the words of a list."""

LISTS = (
    *(
        "agent",
        "outcome",
        "end_reason",
        "disposition",
        "intent",
        "sentiment",
        "urgency",
        "analysis",
        "state",
        "tool",
        "tool_status",
    ),
)
"""Any of several words (but one tool only); the parameter is called like the field of `Filters`."""
RANGES = {"score": ("lead_score", "", 1), "duration": ("duration", "_ms", 1_000), "latency": ("latency", "_ms", 1)}
"""A parameter's name: the field of `Filters`, its ending, and how many of its units one of the parameter's is. Durations are in
seconds, latencies in milliseconds."""
FLAGS = {"escalated": "escalated", "review": "needs_review", "barged": "barged_in"}
YES, NO = "yes", "no"
PERIODS = {"today": "Today", "yesterday": "Yesterday", "7d": "Last 7 days", "30d": "Last 30 days"}
"""Whole days of the business, today included."""
LONGEST_TEXT, LONGEST_WORD, MOST_WORDS = 200, 80, 20
HIGHEST = 10**9

INDEX = re.compile(r"[0-9a-f]{32}")
VIEW = re.compile(r"[A-Za-z0-9]{1,26}")
CURSOR = re.compile(r"[A-Za-z0-9_-]{1,400}")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
NEWEST = Sort()

type Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question. Empty: all calls, the newest first."""

    words: str = field(default="", repr=False)
    """To be found in what was said, or in the summary."""
    number: str | None = None
    """The blind index of either party's number."""
    period: str = ""
    since: str = ""
    """A day of the business or a moment; with one of the two, `period` is empty."""
    until: str = ""
    """A day, which is included, or a moment, before which."""
    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By a name of `LISTS`."""
    bounds: Mapping[str, int] = field(default_factory=dict)
    """By a name of `RANGES` and `_from` or `_to`; both are included."""
    flags: Mapping[str, bool] = field(default_factory=dict)
    """By a name of `FLAGS`."""
    sort: Sort = NEWEST
    cursor: str | None = None
    view: str | None = None
    """The saved view that was opened, whatever was changed since."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> "Question":
        """What these parameters of an address ask."""
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            if value := value.replace("\x00", "").strip():
                given.setdefault(name, []).append(value)
        last = {name: values[-1] for name, values in given.items()}
        since, until = _day(last.get("from")), _day(last.get("to"))
        period = last.get("period", "")
        return cls(
            words=" ".join(last.get("q", "").split())[:LONGEST_TEXT],
            number=_if(INDEX, last.get("number")),
            period=period if period in PERIODS and not (since or until) else "",
            since=since,
            until=until,
            chosen={name: words for name in LISTS if (words := _words(name, given.get(name, ())))},
            bounds=dict(_bounds(last)),
            flags={name: last[name] == YES for name in FLAGS if last.get(name) in (YES, NO)},
            sort=_sort(last.get("sort")),
            cursor=_if(CURSOR, last.get("at")),
            view=_if(VIEW, last.get("view")),
        )

    # ---- as an address

    def pairs(self) -> Pairs:
        """What narrows and orders the list, as parameters, in one order; neither the place nor the view."""
        found: Pairs = [("q", self.words)] if self.words else []
        found += [("number", self.number)] if self.number else []
        for name, value in (("period", self.period), ("from", self.since), ("to", self.until)):
            found += [(name, value)] if value else []
        found += [(name, word) for name in LISTS for word in self.chosen.get(name, ())]
        found += [(key, str(self.bounds[key])) for name in RANGES for key in (f"{name}_from", f"{name}_to") if key in self.bounds]
        found += [(name, YES if self.flags[name] else NO) for name in FLAGS if name in self.flags]
        return found + ([("sort", ("-" if self.sort.descending else "") + self.sort.by.value)] if self.sort != NEWEST else [])

    @property
    def query(self) -> str:
        """`pairs` as it stands in an address, and as a saved view keeps it."""
        return urlencode(self.pairs())

    @property
    def address(self) -> str:
        """The list itself, with its place and its view. Where nothing is asked it is that of all calls, whatever view it began as;
        without any parameter it would begin with one's own choice.
        """
        pairs = self.pairs()
        view = self.view if pairs else ALL
        pairs += [("view", view)] if view else []
        pairs += [("at", self.cursor)] if self.cursor else []
        return f"{LIST}?{urlencode(pairs)}"

    def but(self, **other: Any) -> "Question":
        """Another question, at its first page."""
        return replace(self, **({"cursor": None} | other))

    def without(self, name: str, word: str | None = None) -> "Question":
        """Without one filter, or without one word of it."""
        match name:
            case "words" | "period":
                return self.but(**{name: ""})
            case "days":
                return self.but(since="", until="")
            case "number":
                return self.but(number=None)
        if name in self.chosen:
            left = tuple(each for each in self.chosen[name] if word is not None and each != word)
            return self.but(chosen={**self.chosen, name: left} if left else _less(self.chosen, name))
        if name in FLAGS:
            return self.but(flags=_less(self.flags, name))
        return self.but(bounds=_less(self.bounds, f"{name}_from", f"{name}_to"))

    def sorted_by(self, by: SortBy) -> "Question":
        """Sorted by a column: what is highest first, and the other way round if it is that already."""
        return self.but(sort=Sort(by, descending=not (self.sort.by is by and self.sort.descending)))

    # ---- as filters

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of all that narrows the list: for the audit log, which keeps no values."""
        return tuple(dict.fromkeys(name.removesuffix("_from").removesuffix("_to") for name, _ in self.pairs() if name != "sort"))

    def filters(self, now: datetime, zone: ZoneInfo) -> Filters:
        """The filters of the store. What is said by the day means the business's days."""
        since, until = self._window(now, zone)
        wanted: dict[str, Any] = {name: _known(words) for name, words in self.chosen.items() if name != "tool"}
        for name, (field_name, unit, each) in RANGES.items():
            for end in ("from", "to"):
                if (bound := self.bounds.get(f"{name}_{end}")) is not None:
                    # up to 30 seconds: also 30.9, which the list shows as 0:30
                    wanted[f"{field_name}_{end}{unit}"] = bound * each + (each - 1 if end == "to" else 0)
        wanted |= {FLAGS[name]: flag for name, flag in self.flags.items()}
        return Filters(
            since=since,
            until=until,
            number_index=self.number,
            tool=self.chosen["tool"][0] if "tool" in self.chosen else None,
            text=self.words or None,
            **wanted,
        )

    def _window(self, now: datetime, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
        today = now.astimezone(zone).date()
        match self.period:
            case "today":
                return start_of(today, zone), None
            case "yesterday":
                return start_of(today - timedelta(days=1), zone), start_of(today, zone)
            case "7d" | "30d":
                return start_of(today - timedelta(days=int(self.period[:-1]) - 1), zone), None
        return _begin(self.since, zone), _end(self.until, zone)


def address(**asked: object) -> str:
    """The address of the list that answers a question, by the parameters' names: `address(outcome=("failed", None), escalated=True,
    score_from=70, period="7d")`. None is "not known", a day or a moment stands for itself; `from_` is `from`.
    """
    pairs: Pairs = []
    for name, value in asked.items():
        for each in value if isinstance(value, list | tuple) else (value,):
            match each:
                case None:
                    said = NOT_KNOWN
                case bool():
                    said = YES if each else NO
                case date():  # a moment is one too
                    said = each.isoformat()
                case _:
                    said = str(each)
            pairs.append((name.rstrip("_"), said))
    return Question.of(pairs).address


# ---- reading


def _if(pattern: re.Pattern[str], value: str | None) -> str | None:
    return value if value is not None and pattern.fullmatch(value) else None


def _words(name: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value[:LONGEST_WORD] for value in values))[: 1 if name == "tool" else MOST_WORDS]


def _known(words: tuple[str, ...]) -> Words:
    return tuple(None if word == NOT_KNOWN else word for word in words)


def _bounds(given: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for name in RANGES:
        for end in ("from", "to"):
            value = given.get(f"{name}_{end}", "")
            if value.isascii() and value.isdigit() and int(value[:12]) <= HIGHEST:
                yield f"{name}_{end}", int(value[:12])


def _sort(value: str | None) -> Sort:
    name = (value or "").removeprefix("-")
    if name not in set(SortBy):
        return NEWEST
    return Sort(SortBy(name), descending=value != name)


def _less(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _day(value: str | None) -> str:
    """A day or a moment as it was given, if it is one."""
    if value is None or len(value) > 40:
        return ""
    value = value.replace(" ", "+") if "T" in value else value  # a + in an address is read as a space
    try:
        year = date.fromisoformat(value).year if DAY.fullmatch(value) else datetime.fromisoformat(value).year
    except ValueError:
        return ""
    return value if 1970 <= year < 2200 else ""


def _begin(value: str, zone: ZoneInfo) -> datetime | None:
    if not value:
        return None
    return start_of(date.fromisoformat(value), zone) if DAY.fullmatch(value) else _moment(value, zone)


def _end(value: str, zone: ZoneInfo) -> datetime | None:
    if not value:
        return None
    if not DAY.fullmatch(value):
        return _moment(value, zone)
    return start_of(date.fromisoformat(value) + timedelta(days=1), zone)


def _moment(value: str, zone: ZoneInfo) -> datetime:
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)
