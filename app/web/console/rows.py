"""The rows of a list of calls: its columns, and each row as the page and the live stream write it.

Rule: a row is written by one macro (`templates/console/_call_rows.html`), wherever it goes, in a thread: the loop carries calls.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import phonenumbers
from markupsafe import Markup

from app.store.engine import Database
from app.store.listing import Sort, SortBy
from app.store.reports import OBJECTIVE_MS
from app.web.console.question import Question
from app.web.console.shell import Shell

type Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the list. `hint` says more than its title; `number`: it stands to the right."""

    name: str
    title: str
    sort: SortBy | None = None
    hint: str = ""
    number: bool = False


TIME = Column("time", "Time", SortBy.STARTED_AT)
"""Always there: it leads to the call."""
COLUMNS = (
    Column("number", "Number", hint="The other party’s"),
    Column("agent", "Agent", hint="Who spoke last, if there were several"),
    Column("duration", "Duration", SortBy.DURATION_MS, number=True),
    Column("outcome", "Outcome", hint="How the call ended"),
    Column("disposition", "Disposition", hint="What came of it for the business"),
    Column("intent", "Intent", hint="What the caller wanted"),
    Column("sentiment", "Sentiment", hint="The caller’s"),
    Column("score", "Lead score", SortBy.LEAD_SCORE, "0 to 100", number=True),
    Column("urgency", "Urgency", hint="How soon somebody must act"),
    Column("escalation", "Escalation", hint="Why a person should look at it"),
    Column("latency", "Latency", SortBy.LATENCY_P95_MS, "From the caller’s last word to our first, 95th percentile", number=True),
    Column("review", "Review", hint="Whether a person should check what was noted"),
    Column("reason", "End reason", hint="Who or what ended it"),
    Column("turns", "Turns", number=True),
    Column("barge", "Barge-ins", hint="How often the caller took the floor", number=True),
    Column("cost", "Cost", hint="US dollars", number=True),
    Column("summary", "Summary"),
    Column("next", "Next action"),
)
USUAL = tuple(column.name for column in COLUMNS[:12])
BY_NAME = {column.name: column for column in COLUMNS}


def chosen(names: Iterable[str] | None) -> tuple[Column, ...]:
    """The columns of these names, in the order of the list; the usual ones if nobody chose."""
    wanted = set(USUAL if names is None else names)
    return tuple(column for column in COLUMNS if column.name in wanted)


def headings(columns: Sequence[Column], question: Question) -> list[dict[str, Any]]:
    """The head of the table: each column with the address that sorts by it."""
    found = []
    for column in (TIME, *columns):
        heading: dict[str, Any] = {"name": column.name, "title": column.title, "hint": column.hint, "number": column.number}
        heading |= {"href": None, "sorted": None}
        if column.sort is not None:
            is_it = question.sort.by is column.sort
            heading["href"] = question.sorted_by(column.sort).address
            heading["sorted"] = ("descending" if question.sort.descending else "ascending") if is_it else None
        found.append(heading)
    return found


def orders(question: Question) -> list[tuple[str, str, bool]]:
    """For a narrow screen, which has no head: every order as (words, address, whether it is this one)."""
    named = (
        ("Newest first", Sort(SortBy.STARTED_AT)),
        ("Oldest first", Sort(SortBy.STARTED_AT, descending=False)),
        ("Highest lead score", Sort(SortBy.LEAD_SCORE)),
        ("Longest", Sort(SortBy.DURATION_MS)),
        ("Shortest", Sort(SortBy.DURATION_MS, descending=False)),
        ("Slowest answers", Sort(SortBy.LATENCY_P95_MS)),
    )
    return [(words, question.but(sort=sort).address, question.sort == sort) for words, sort in named]


class Rows:
    """Writes rows."""

    def __init__(self, database: Database, shell: Shell, zone: ZoneInfo) -> None:
        self._database, self._shell, self._zone = database, shell, zone

    async def written(self, rows: Sequence[Row], columns: Sequence[Column], question: Question, now: datetime) -> Markup:
        """The rows as elements `<tr>`. Each leads to its call, which is told the question, for the next and the previous one."""
        if not rows:
            return Markup()
        macro = getattr(self._shell.templates.get_template("console/_call_rows.html").module, "rows")  # noqa: B009
        names, query = [column.name for column in columns], f"?{question.query}" if question.query else ""
        here = {"year": now.astimezone(self._zone).year, "objective": OBJECTIVE_MS}
        # the macro has escaped it
        return Markup(await asyncio.to_thread(lambda: macro([self._shown(row, now) for row in rows], names, query, here)))  # noqa: S704

    def _shown(self, row: Row, now: datetime) -> dict[str, Any]:
        lasts = row["duration_ms"]
        if lasts is None and row["state"] == "live":
            lasts = max(0, (now - datetime.fromisoformat(row["started_at"])).total_seconds() * 1_000)
        beside = {"index": self._database.blind_index(row["number"]), "number_text": spaced(row["number"]), "lasts_ms": lasts}
        return {**row, **beside}


def spaced(number: str | None) -> str | None:
    """A number as people write it, if it is one."""
    if number is None:
        return None
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return number
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
