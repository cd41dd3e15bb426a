"""The numbers of a window: how many calls, how they came out, how quick the answers were, what they cost. Read only.

Rule 1: every number is counted from the rows that the same `Filters` list, so that it leads to the calls behind it.
Rule 2: a day and an hour are those of the business's own time zone, with its 23 and 25 hour days.
Rule 3: what is not known is counted as not known (None), never left out and never taken for 0.
Rule 4: an operator's correction needs no care here: it stands in the columns.
Rule 5: each number is one statement over the index by time, which holds all that is counted (`tables.COUNTED`). Only latencies are
not in it: they are asked of the turns themselves, of all of a few calls or of a fair sample of many, and the answer says which.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from app.store.engine import Database
from app.store.filters import ERRAND, Filters, ask
from app.store.tables import Moment, ToolStatus, calls, tool_invocations, turns

DAYS = 30
OBJECTIVE_MS = 1_000
"""From the caller's last word to the first sound of the answer at the caller's ear: the aim."""
TARGET = 0.95
"""The share of the turns that are to reach it; the rest is the error budget."""
SAMPLE = 1_000
"""Calls whose turns are looked at. Of 7,000 turns what is shown as the 99th percentile is between the 98.7th and the 99.3th."""
LONGEST = timedelta(hours=2)
"""Longer lasts no call (`Settings.max_call_seconds` ends it within one), and so no errand begins later."""
RANDOM_FROM = 11
"""The letters of a call's name from here on are random (`identity.py`): those that come first by them are a fair sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day or an hour."""

    start: datetime
    """In the business's time."""
    calls: int
    cost_usd: float
    """Of those calls whose cost is known."""
    costed: int
    """How many that are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """How much there was to do, and what it cost."""

    calls: int
    cost_usd: float
    costed: int
    barge_ins: int
    """How often a caller took the floor."""
    days: list[Day]
    """Every day of the window, also those without a call."""
    hours: list[Day]
    """Every hour of a window of at most a week; empty for a longer one."""
    by_hour: list[list[int]]
    """Calls by weekday (Monday is 0) and hour of the day."""

    @property
    def cost_per_call(self) -> float | None:
        """US dollars, of the calls whose cost is known."""
        return self.cost_usd / self.costed if self.costed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Calls that have a value in common. `value` is None where it is not known."""

    value: str | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Calls of one intent and one sentiment."""

    intent: str | None
    sentiment: str | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Calls whose lead score is within these bounds, both inclusive; both None: not scored."""

    lowest: int | None
    highest: int | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long callers waited for an answer, turn by turn, against the objective."""

    sampled: bool
    """There are more turns than were looked at."""
    calls: int
    """That the turns are of."""
    turns: int
    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None
    within: int
    """Turns that reached the objective."""
    objective_ms: int
    target: float

    @property
    def reached(self) -> float | None:
        """The share of turns that reached the objective, 0 to 1."""
        return self.within / self.turns if self.turns else None

    @property
    def budget_spent(self) -> float | None:
        """The share of the error budget that is spent; above 1: the target is missed."""
        return None if self.reached is None else (1 - self.reached) / (1 - self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """How one errand fared. Controls of the call itself are no errands."""

    name: str
    done: int
    failed: int
    refused: int
    """By our own rules, before it began."""
    unknown: int
    """Begun, and nobody can say whether it took effect."""
    open: int
    """Written down and not answered yet."""

    @property
    def success(self) -> float | None:
        """The share of those carried out that were done, 0 to 1."""
        tried = self.done + self.failed + self.unknown
        return self.done / tried if tried else None


def last_days(now: datetime, zone: ZoneInfo, days: int = DAYS) -> Filters:
    """The window of the last days, today included, up to now."""
    return Filters(since=start_of(now.astimezone(zone).date() - timedelta(days=days - 1), zone), until=now)


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day, in UTC; also where the clocks are changed at midnight."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


class Reports:
    """The reports of one database, of the calls that filters leave; `last_days` gives the usual window.

    Args:
        zone: the business's own.
        objective_ms, target: what share of the turns is to be answered in what time.
    """

    def __init__(self, database: Database, zone: ZoneInfo, *, objective_ms: int = OBJECTIVE_MS, target: float = TARGET) -> None:
        self._database = database
        self._zone = zone
        self._objective_ms = objective_ms
        self._target = target

    async def activity(self, filters: Filters) -> Activity:
        """Calls and cost by day, by hour, and by weekday and hour of the day. The window needs both ends."""
        if filters.since is None or filters.until is None:
            raise ValueError("a report by day needs a window")
        step = _step(filters.since, filters.until, self._zone)
        start = self._start_of_bin(step).label("start")
        counted = (sa.func.count(), sa.func.sum(calls.c.cost_usd), sa.func.count(calls.c.cost_usd), sa.func.sum(calls.c.barge_ins))
        async with self._database.read("count calls by the hour") as connection:
            asked = (await ask(connection, self._database, filters)).where
            found = (await connection.execute(sa.select(start, *counted).where(*asked).group_by(start))).all()
        bins = [
            (_moment(begins, step).astimezone(self._zone), number, float(cost or 0), costed)
            for begins, number, cost, costed, _ in found
        ]
        by_hour = [[0] * 24 for _ in range(7)]
        for begins, number, _, _ in bins:
            by_hour[begins.weekday()][begins.hour] += number
        long = filters.until - filters.since > timedelta(days=7)
        return Activity(
            calls=sum(number for _, number, _, _ in bins),
            cost_usd=round(sum(cost for _, _, cost, _ in bins), 6),
            costed=sum(costed for _, _, _, costed in bins),
            barge_ins=sum(int(row[4] or 0) for row in found),
            days=_series(bins, _days(filters.since, filters.until, self._zone), self._zone),
            hours=[] if long else _series(bins, _hours(filters.since, filters.until, self._zone), self._zone),
            by_hour=by_hour,
        )

    async def outcomes(self, filters: Filters) -> list[Group]:
        """Calls by outcome, the most frequent first. Calls in progress have none yet."""
        return await self._groups(calls.c.outcome, filters)

    async def dispositions(self, filters: Filters) -> list[Group]:
        """Calls by disposition, the most frequent first."""
        return await self._groups(calls.c.disposition, filters)

    async def agents(self, filters: Filters) -> list[Group]:
        """Calls by the agent that spoke last, the most frequent first."""
        return await self._groups(calls.c.agent, filters)

    async def intents(self, filters: Filters) -> list[Cell]:
        """Calls by intent and sentiment, the most frequent first."""
        columns = (calls.c.intent, calls.c.sentiment)
        return [Cell(intent=intent, sentiment=_word(mood), calls=n) for intent, mood, n in await self._counted(columns, filters)]

    async def lead_scores(self, filters: Filters) -> list[Bin]:
        """Ten bins of ten (the last with 100 in it), and behind them the calls without a score."""
        scores = Counter({score: number for score, number in await self._counted((calls.c.lead_score,), filters)})
        unscored = scores.pop(None, 0)
        bins: Counter[int] = Counter()
        for score, number in scores.items():
            bins[min(9, score // 10)] += number
        known = [Bin(lowest=at * 10, highest=100 if at == 9 else at * 10 + 9, calls=bins[at]) for at in range(10)]
        return [*known, Bin(lowest=None, highest=None, calls=unscored)]

    async def latency(self, filters: Filters) -> Latency:
        """Percentiles by nearest rank over the turns; of all of them up to 1,000 calls, above that of a sample of so many calls."""
        async with self._database.read("look at latencies") as connection:
            asked = [*(await ask(connection, self._database, filters)).where, calls.c.latency_p95_ms.is_not(None)]
            measured = sa.select(calls.c.call_id).where(*asked)
            some = measured.limit(SAMPLE + 1).subquery()
            found = int((await connection.execute(sa.select(sa.func.count()).select_from(some))).scalar_one())
            drawn: sa.ColumnElement[str] = sa.func.substr(calls.c.call_id, RANDOM_FROM, type_=sa.String)
            if not self._database.embedded:
                drawn = drawn.collate("C")  # some languages are sorted ten times as slowly
            sample = measured.order_by(drawn).limit(SAMPLE).cte("sample")
            histogram = {latency: number for latency, number in await connection.execute(self._turns_of(sample))}
        return Latency(
            sampled=found > SAMPLE,
            calls=min(found, SAMPLE),
            turns=sum(histogram.values()),
            p50_ms=nearest_rank(histogram, 50),
            p95_ms=nearest_rank(histogram, 95),
            p99_ms=nearest_rank(histogram, 99),
            within=sum(number for latency, number in histogram.items() if latency <= self._objective_ms),
            objective_ms=self._objective_ms,
            target=self._target,
        )

    async def tools(self, filters: Filters) -> list[Tool]:
        """How each errand fared in the calls of the window, by name."""
        by_name: dict[str, Counter[ToolStatus]] = {}
        async with self._database.read("look at the tools") as connection:
            for of_calls, since, until in _stretches(filters):
                which = [
                    tool_invocations.c.kind == ERRAND,
                    tool_invocations.c.status.in_(list(ToolStatus)),
                ]  # as the index has them
                which += [tool_invocations.c.started_at >= since] if since is not None else []
                which += [tool_invocations.c.started_at < until] if until is not None else []
                if of_calls is not None:
                    asked = await ask(connection, self._database, of_calls)
                    which.append(tool_invocations.c.call_id.in_(sa.select(calls.c.call_id).where(*asked.where)))
                columns = (tool_invocations.c.name, tool_invocations.c.status)
                query = sa.select(*columns, sa.func.count()).where(*which).group_by(*columns)
                for name, status, number in await connection.execute(query):
                    by_name.setdefault(name, Counter())[status] += number
        return [
            Tool(
                name=name,
                done=found[ToolStatus.DONE],
                failed=found[ToolStatus.FAILED],
                refused=found[ToolStatus.REFUSED],
                unknown=found[ToolStatus.UNKNOWN],
                open=found[ToolStatus.INTENDED],
            )
            for name, found in sorted(by_name.items())
        ]

    async def _groups(self, column: sa.Column[Any], filters: Filters) -> list[Group]:
        return [Group(value=_word(value), calls=number) for value, number in await self._counted((column,), filters)]

    async def _counted(self, columns: tuple[sa.Column[Any], ...], filters: Filters) -> list[Any]:
        async with self._database.read("count calls") as connection:
            asked = (await ask(connection, self._database, filters)).where
            query = sa.select(*columns, sa.func.count()).where(*asked).group_by(*columns)
            found = list(await connection.execute(query))
        return sorted(found, key=lambda row: (-row[-1], *(str(value or "") for value in row[:-1])))

    def _turns_of(self, sample: sa.CTE) -> sa.Select[Any]:
        """How often each latency is among the turns of some calls. The turns are looked up call by call: to the planner, who does
        not know how few the calls are, reading all turns there are would often seem cheaper (OFFSET 0 forbids it that)."""
        measured = sa.select(turns.c.latency_ms).where(turns.c.call_id == sample.c.call_id, turns.c.latency_ms.is_not(None))
        if self._database.embedded:
            return measured.add_columns(sa.func.count()).group_by(turns.c.latency_ms)
        each = measured.correlate(sample).offset(sa.literal_column("0")).lateral("measured")
        return sa.select(each.c.latency_ms, sa.func.count()).select_from(sample.join(each, sa.true())).group_by(each.c.latency_ms)

    def _start_of_bin(self, step: timedelta) -> sa.ColumnElement[Any]:
        if not self._database.embedded:
            seconds = int(step.total_seconds())
            origin: sa.ColumnElement[datetime] = sa.literal_column("timestamptz '2001-01-01 00:00:00+00'")
            return sa.func.date_bin(sa.literal_column(f"interval '{seconds} s'"), calls.c.started_at, origin, type_=Moment)
        # SQLite keeps a moment as its words in UTC: to the hour, and the quarters of it
        if step == HOUR:
            return sa.literal_column("substr(calls.started_at, 1, 13)", sa.String)
        return sa.literal_column(
            "substr(calls.started_at, 1, 14) || (CAST(substr(calls.started_at, 15, 2) AS INTEGER) / 15)", sa.String
        )


HOUR, QUARTER = timedelta(hours=1), timedelta(minutes=15)


def _stretches(filters: Filters) -> list[tuple[Filters | None, datetime | None, datetime | None]]:
    """Where the errands of the calls are that the filters leave: of which calls (None: of any), from when and until when.

    With a window and nothing else, an errand in the midst of the window is of a call of the window, and no call need be looked at.
    """
    since, until = filters.since, filters.until
    if since is None or until is None or until - since < 2 * LONGEST or filters != Filters(since=since, until=until):
        return [(filters, since, None if until is None else until + LONGEST)]
    return [
        (Filters(since=since, until=since + LONGEST), since, since + LONGEST),
        (None, since + LONGEST, until),
        (Filters(since=until - LONGEST, until=until), until, until + LONGEST),
    ]


def nearest_rank(histogram: dict[int, int], percent: int) -> int | None:
    """The smallest value that at least `percent` of all do not exceed; None of none."""
    rank = -(-percent * sum(histogram.values()) // 100)
    below = 0
    for value in sorted(histogram):
        below += histogram[value]
        if below >= rank:
            return value
    return None


def _word(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value))


def _step(since: datetime, until: datetime, zone: ZoneInfo) -> timedelta:
    """Some zones are half an hour or a quarter off the full hours of UTC; there it is counted by the quarter."""
    offsets = [moment.astimezone(zone).utcoffset() or timedelta() for moment in (since, since + (until - since) / 2, until)]
    return HOUR if all(offset % HOUR == timedelta() for offset in offsets) else QUARTER


def _moment(begins: Any, step: timedelta) -> datetime:
    if isinstance(begins, datetime):
        return begins
    hour = datetime.strptime(begins[:13], "%Y-%m-%d %H").replace(tzinfo=UTC)
    return hour if step == HOUR else hour + int(begins[14:]) * QUARTER


def _days(since: datetime, until: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    day = since.astimezone(zone).date()
    while (start := start_of(day, zone)) < until:
        yield start
        day += timedelta(days=1)


def _hours(since: datetime, until: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    local = since.astimezone(zone)
    start = (local - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)).astimezone(UTC)
    while start < until:
        yield start
        start += HOUR


def _series(bins: list[tuple[datetime, int, float, int]], starts: Iterator[datetime], zone: ZoneInfo) -> list[Day]:
    """The bins, gathered into stretches that begin at `starts`."""
    ordered, series, at = sorted(bins, key=lambda found: found[0]), list(starts), 0
    made: list[Day] = []
    for number, start in enumerate(series):
        ends = series[number + 1] if number + 1 < len(series) else None
        within: list[tuple[datetime, int, float, int]] = []
        while at < len(ordered) and (ends is None or ordered[at][0] < ends):
            within.append(ordered[at])
            at += 1
        made.append(
            Day(
                start=start.astimezone(zone),
                calls=sum(found[1] for found in within),
                cost_usd=round(sum(found[2] for found in within), 6),
                costed=sum(found[3] for found in within),
            )
        )
    return made
