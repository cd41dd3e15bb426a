"""The console's questions to a database with a year of calls: how long each takes, and by what road the database finds the answer.

Asked are the service's own functions, 15 times each; the statements that they send are then explained. Everything is made in a
temporary folder (or in a database of its own on a server that is named) and gone afterwards.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import sqlalchemy as sa
from psycopg import sql

from app.store import listing, migrate
from app.store.engine import Database, migration_engine
from app.store.filters import Filters
from app.store.listing import Listing, Page, Sort, SortBy
from app.store.reports import Reports, last_days
from app.store.tables import calls
from tests import postgres
from tests.bench import report
from tests.bench.targets import machine
from tests.bench.year import CALLER, NOW, OURS, RETIRED, Year

AIM_MS = 50.0
TIMES = 15
"""From the tenth time on PostgreSQL may think that it knows the question."""
ZONE = ZoneInfo("Europe/Berlin")
NEWEST = Sort()


@dataclass(frozen=True, slots=True)
class Question:
    """Something that the console asks. `aim` is false for what is measured so that it is known, and has no aim."""

    group: str
    name: str
    ask: Callable[[], Awaitable[Any]]
    aim: bool = True


@dataclass(slots=True)
class Answer:
    """What came of it."""

    question: Question
    milliseconds: float
    cpu_ms: float | None
    """Of the database and of us together; None where the server is elsewhere."""
    rows: int
    statements: list[tuple[str, Any]] = field(repr=False)
    plan: str = ""
    database_ms: float | None = None


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Cpu:
    """The processor's time that a question takes, ours and the database's: on a busy machine it tells more than the clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._server: list[Path] | None = []

    async def find(self) -> None:
        """Look for PostgreSQL's processes that work for us, if they are on this machine."""
        if self._database.embedded:
            return
        query = sa.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'")
        async with self._database.read() as connection:
            paths = [Path(f"/proc/{pid}/schedstat") for pid in (await connection.execute(query)).scalars()]
        self._server = paths if all(path.exists() for path in paths) else None

    def spent(self) -> float | None:
        """Milliseconds, from some beginning."""
        if self._server is None:
            return None
        return time.process_time() * 1_000 + sum(int(path.read_text().split()[0]) for path in self._server) / 1e6


class Questions:
    """All that is asked of one database."""

    def __init__(self, database: Database, rows: int) -> None:
        self._database = database
        self._rows = rows
        self._listing = Listing(database)
        self._reports = Reports(database, ZONE)
        self._month = last_days(NOW, ZONE)

    async def all(self) -> AsyncIterator[Question]:
        """Every question, in the order of the table."""
        for group in (self._pages, self._filters, self._search, self._counts):
            async for question in group():
                yield question
        for question in self._figures():
            yield question

    def _page(self, filters: Filters, sort: Sort = NEWEST, cursor: str | None = None) -> Callable[[], Awaitable[Page]]:
        return lambda: self._listing.page(filters, sort, cursor, 50)

    async def _pages(self) -> AsyncIterator[Question]:
        for by in SortBy:
            for descending in (True, False):
                sort = Sort(by, descending)
                way = "descending" if descending else "ascending"
                yield Question("first page", f"by {by}, {way}", self._page(Filters(), sort))
        for by in (SortBy.STARTED_AT, SortBy.LEAD_SCORE):
            sort = Sort(by)
            deep = await self._deep(sort, self._rows // 2)
            yield Question("deep page", f"by {by}, {self._rows // 2:,} rows down", self._page(Filters(), sort, deep))
            behind = (await self._listing.page(Filters(), sort, deep)).next
            back = (await self._listing.page(Filters(), sort, behind)).previous
            yield Question("deep page", f"by {by}, back from there", self._page(Filters(), sort, back))
        unscored = Sort(SortBy.LEAD_SCORE)
        deep = await self._deep(unscored, self._rows * 9 // 10)
        yield Question("deep page", "by lead_score, among those without one", self._page(Filters(), unscored, deep))
        yield Question("export", "the first 1,000 names", self._first_names)

    async def _deep(self, sort: Sort, offset: int) -> str:
        column = calls.c[sort.by.value]
        query = (
            sa.select(column, calls.c.call_id).order_by(column.desc().nulls_last(), calls.c.call_id.desc()).offset(offset).limit(1)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one()
        return listing._cursor(sort, listing._Place(row[0], row[1], forward=True))

    async def _first_names(self) -> list[str]:
        found: list[str] = []
        async for name in self._listing.ids(Filters()):
            found.append(name)
            if len(found) == 1_000:
                break
        return found

    async def _filters(self) -> AsyncIterator[Question]:
        week = replace(self._month, since=NOW - timedelta(days=7))
        for name, filters in {
            "live": Filters(state=("live",)),
            "a week": week,
            "a day half a year ago": Filters(since=NOW - timedelta(days=180), until=NOW - timedelta(days=179)),
            "outcome = failed": Filters(outcome=("failed",)),
            "disposition = sales_lead": Filters(disposition=("sales_lead",)),
            "disposition = wrong_number (0.3 %)": Filters(disposition=("wrong_number",)),
            "intent = complaint, buy": Filters(intent=("complaint", "buy")),
            "sentiment = negative": Filters(sentiment=("negative",)),
            "urgency = high": Filters(urgency=("high",)),
            "agent = support": Filters(agent=("support",)),
            "lead score from 90": Filters(lead_score_from=90),
            "escalated": Filters(escalated=True),
            "needs review": Filters(needs_review=True),
            "analysis = failed (0.2 %)": Filters(analysis=("failed",)),
            "slow answers": Filters(latency_from_ms=1_800),
            "number of a caller": Filters(number=CALLER),
            "number of the house": Filters(number=OURS),
            "twenty call ids": Filters(call_ids=tuple((await self._first_names())[::50])),
            "a tool that failed": Filters(tool="book_appointment", tool_status=("failed",)),
            "negative complaints with a score from 80, in a month": replace(
                self._month, sentiment=("negative",), intent=("complaint",), lead_score_from=80, needs_review=True
            ),
        }.items():
            yield Question("filter", name, self._page(filters))
        for by in (SortBy.LEAD_SCORE, SortBy.DURATION_MS):
            yield Question("filter", f"a month, by {by}", self._page(self._month, Sort(by)))
            yield Question("filter", f"needs review, by {by}", self._page(Filters(needs_review=True), Sort(by)))
        rare = Filters(sentiment=("negative",), intent=("complaint",), lead_score_from=80, needs_review=True)
        yield Question("filter", "negative complaints with a score from 80", self._page(rare), aim=False)
        yield Question("filter", "an agent gone for ten months", self._page(Filters(agent=(RETIRED,))), aim=False)
        yield Question("filter", "what no call has", self._page(Filters(intent=("nothing",))), aim=False)

    async def _search(self) -> AsyncIterator[Question]:
        for name, text in {
            "a word in 40 calls": "unicorn",
            "a word in 3,500": "invoice",
            "a word in 30,000": "roof",
            "a word in 300,000": "garden",
            "two of them": "garden roof",
            "three of them": "Garden, roof & invoice",
            "a word nobody said": "zeppelin",
        }.items():
            yield Question("search", name, self._page(Filters(text=text)))
        yield Question("search", "300,000, negative only", self._page(Filters(text="garden", sentiment=("negative",))))
        yield Question("search", "30,000, in a month", self._page(replace(self._month, text="roof")))
        yield Question("search", "30,000, by lead_score", self._page(Filters(text="roof"), Sort(SortBy.LEAD_SCORE)))

    async def _counts(self) -> AsyncIterator[Question]:
        for name, filters in {
            "all": Filters(),
            "a month": self._month,
            "outcome = completed": Filters(outcome=("completed",)),
            "sentiment = negative": Filters(sentiment=("negative",)),
            "a month, needs review": replace(self._month, needs_review=True),
            "a word in 300,000": Filters(text="garden"),
        }.items():
            yield Question("count to 10,000", name, lambda filters=filters: self._listing.count(filters))
        yield Question("count to 10,000", "escalated (3 %)", lambda: self._listing.count(Filters(escalated=True)), aim=False)

    def _figures(self) -> Iterator[Question]:
        reports = self._reports
        sales = replace(self._month, agent=("sales",), escalated=True)
        for name in ("activity", "outcomes", "dispositions", "agents", "intents", "lead_scores", "latency", "tools"):
            ask: Callable[[Filters], Awaitable[Any]] = getattr(reports, name)
            yield Question("report of 30 days", name, lambda ask=ask: ask(self._month))
        yield Question("report of 30 days", "latency, two filters", lambda: reports.latency(sales))
        yield Question("report of 30 days", "tools, two filters", lambda: reports.tools(sales))
        yield Question("report of a year", "activity", lambda: reports.activity(last_days(NOW, ZONE, 366)), aim=False)
        yield Question("report of a year", "latency", lambda: reports.latency(last_days(NOW, ZONE, 366)), aim=False)


async def measure(url: str, rows: int, times: int = TIMES) -> list[Answer]:
    """Ask everything, so many times each."""
    database = Database(url)
    engine = database._reading.sync_engine
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        sent.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    answers = []
    cpu = Cpu(database)
    try:
        await cpu.find()
        async for question in Questions(database, rows).all():
            took, spent = [], []
            for _ in range(times):
                sent.clear()
                began, before = time.perf_counter(), cpu.spent()
                answer = await question.ask()
                took.append(time.perf_counter() - began)
                spent.append((cpu.spent() or 0) - (before or 0))
            used = None if cpu.spent() is None else statistics.median(spent)
            made = Answer(question, statistics.median(took) * 1_000, used, _size(answer), list(sent))
            await _explain(database, made)
            answers.append(made)
    finally:
        await database.close()
    return answers


def _size(answer: Any) -> int:
    if isinstance(answer, Page):
        return len(answer.rows)
    for name in ("calls", "turns"):
        if hasattr(answer, name):
            return int(getattr(answer, name))
    return len(answer)


async def _explain(database: Database, answer: Answer) -> None:
    """What the database says of the statements: the time of each, and what the rows were taken from."""
    plans, milliseconds = [], 0.0
    async with database.read() as connection:
        for statement, parameters in answer.statements:
            if not statement.startswith(("SELECT", "WITH")):
                continue
            if database.embedded:
                found = await connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
                plans.append(", ".join(_sqlite_step(row[3]) for row in found if row[3].startswith(("SCAN", "SEARCH", "USE TEMP"))))
                continue
            explained = await connection.exec_driver_sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, parameters)
            (plan,) = explained.scalar_one()
            milliseconds += plan["Planning Time"] + plan["Execution Time"]
            plans.append(", ".join(_postgres_steps(plan["Plan"])))
            if "JIT" in plan:
                plans[-1] += f", JIT {plan['JIT']['Timing']['Total']:.0f} ms"
            pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
            plans[-1] += f" ({pages:,} pages)"
    answer.plan = "; ".join(dict.fromkeys(plans))
    answer.database_ms = None if database.embedded else milliseconds


def _sqlite_step(detail: str) -> str:
    return (
        detail.replace("SEARCH ", "")
        .replace("USING ", "")
        .replace("INDEX ", "")
        .replace("USE TEMP B-TREE FOR ", "sort for ")
        .lower()
    )


SHORT = {
    "Index Only Scan": "index only",
    "Index Scan": "index",
    "Bitmap Index Scan": "bitmap",
    "Seq Scan": "SEQ SCAN",
    "Sort": "sort",
}


def _postgres_steps(node: dict[str, Any]) -> Iterator[str]:
    kind = node["Node Type"]
    if kind in SHORT:
        of = node.get("Index Name", node.get("Relation Name", "")).removeprefix("ix_")
        yield f"{SHORT[kind]} {of}".strip()
    elif kind in ("Nested Loop", "Hash Join", "Merge Join"):
        yield kind.split()[0].lower()
    elif kind.startswith("Gather"):
        yield f"{node['Workers Launched']} workers"
    elif kind == "Aggregate" and node.get("Strategy") == "Hashed":
        yield "hashed groups"
    for inner in node.get("Plans", ()):
        yield from _postgres_steps(inner)


@contextmanager
def own_database(server: str) -> Iterator[str]:
    """A new database on a server, dropped afterwards."""
    name = f"callrow_bench_{time.time_ns():x}"
    head, _, tail = server.partition("?")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{tail}" if tail else "")
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def place(kind: str, server: str | None) -> Iterator[str]:
    """The address of an empty database."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="callrow-bench-") as folder:
            yield f"sqlite:///{folder}/year.db"
        return
    stop: Callable[[], None] = lambda: None  # noqa: E731
    if server is None:
        server, stop = postgres.start()
    try:
        with own_database(server) as url:
            yield url
    finally:
        stop()


def fill(url: str, rows: int) -> float:
    """Make the tables and the calls. On SQLite nobody analyzes: the service does not either. Gives the seconds that it took."""
    migrate.upgrade(url)
    engine = migration_engine(url)
    began = time.monotonic()
    try:
        with engine.connect() as connection:
            Year(connection, rows).fill()
        if engine.dialect.name != "sqlite":
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM (ANALYZE)")
    finally:
        engine.dispose()
    return time.monotonic() - began


def show(title: str, answers: list[Answer]) -> None:
    """The table of one database."""
    with_plan = answers[0].database_ms is not None
    headings = ["query", "", "ms", "CPU ms", *(["in the database"] if with_plan else []), "rows", "by"]
    rows = []
    for answer in answers:
        slow = " (!)" if answer.question.aim and answer.milliseconds > AIM_MS else ""
        inside = [f"{answer.database_ms:.1f}"] if answer.database_ms is not None else []
        used = "" if answer.cpu_ms is None else f"{answer.cpu_ms:.1f}"
        figures = [f"{answer.milliseconds:.1f}{slow}", used, *inside, f"{answer.rows:,}"]
        rows.append([answer.question.group, answer.question.name, *figures, answer.plan])
    print(f"\n{title}\n")
    print(report.table(headings, rows))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench --database", description=__doc__)
    parser.add_argument("--database", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=1_000_000, help="calls in the year, default 1000000")
    parser.add_argument("--postgres-url", metavar="URL", help="a server that may be given a database; default: one is started")
    parser.add_argument("--only", choices=["postgresql", "sqlite"], help="one database alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    args = parser.parse_args(argv)
    if not 1_000 <= args.rows <= 10_000_000:
        parser.error("--rows is between 1000 and 10000000")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    sizes = {"postgresql": [args.rows], "sqlite": sorted({min(100_000, args.rows), args.rows})}
    document: dict[str, Any] = {"machine": machine(), "runs": []}
    late = 0
    for kind in [args.only] if args.only else sizes:
        for rows in sizes[kind]:
            with place(kind, args.postgres_url) as url:
                say(f"{kind}: filling {rows:,} calls")
                took = fill(url, rows)
                say(f"{kind}: filled in {took:.0f} s; asking")
                answers = asyncio.run(measure(url, rows))
            show(f"{kind}, {rows:,} calls, median of {TIMES}", answers)
            document["runs"].append(
                {
                    "database": kind,
                    "calls": rows,
                    "filled_in_s": took,
                    "questions": [
                        {
                            **{"group": found.question.group, "name": found.question.name, "aim": found.question.aim},
                            **{
                                "ms": found.milliseconds,
                                "cpu_ms": found.cpu_ms,
                                "database_ms": found.database_ms,
                                "rows": found.rows,
                                "plan": found.plan,
                            },
                        }
                        for found in answers
                    ],
                }
            )
            aimed = [found for found in answers if found.question.aim]
            slow = [found for found in aimed if found.milliseconds > AIM_MS]
            print(f"\n{kind}, {rows:,} calls: {len(aimed) - len(slow)} of {len(aimed)} below {AIM_MS:g} ms", end="")
            dear = [found for found in aimed if found.cpu_ms is None or found.cpu_ms > AIM_MS]
            print(f"; {len(aimed) - len(dear)} by the processor's time, which a busy machine does not stretch so much")
            late += len(slow) if kind == "postgresql" else 0
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
        say(f"written to {args.json}")
    return 1 if late else 0
