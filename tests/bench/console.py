"""The list of calls as its reader waits for it: whole requests through the service, over a year of calls.

Everything from the request's head to the last byte is in it: session, filters, the page, the count, the calls in progress, the
template, compression. Each question is asked `TIMES` times after one that does not count; told is the median, by the clock and by
the processor, since a busy machine lies with the clock. `python -m tests.bench.console --help`
"""

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator
from datetime import timedelta

from app.store.engine import Database
from tests.bench import report
from tests.bench.database import fill, place, say
from tests.bench.year import CALLER, NOW
from tests.web.console.office import Office

TIMES = 9
AIM_MS = 100.0
QUESTIONS = {
    "first page": "view=all",
    "today": "period=today",
    "last 7 days": "period=7d",
    "last 30 days, completed": "period=30d&outcome=completed",
    "by lead score": "sort=-lead_score",
    "by duration, shortest": "sort=duration_ms",
    "by latency, 30 days": "period=30d&sort=-latency_p95_ms",
    "negative": "sentiment=negative",
    "to review": "review=yes",
    "escalated": "escalated=yes",
    "escalated, 30 days, score 80 or more": "period=30d&score_from=80&escalated=yes",
    "a rare word": "q=unicorn",
    "a frequent word": "q=garden",
    "two words": "q=garden+roof",
    "a word, by lead score": "q=roof&sort=-lead_score",
    "a tool that failed": "tool_status=failed",
    "nothing": "disposition=nothing-of-the-kind",
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.console", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="calls in the year; several for several sizes")
    parser.add_argument("--only", choices=["postgresql", "sqlite"], default="sqlite", help="the database, default sqlite")
    parser.add_argument("--url", help="a database that is there and filled, instead of making one")
    parser.add_argument("--profile", metavar="QUESTION", help="where the time of one question goes")
    return parser.parse_args(argv)


async def measure(url: str) -> list[list[str]]:
    """A row of the table for each question."""
    database = Database(url)
    office = Office(database, DATABASE_URL=url, BUSINESS_TIMEZONE="America/New_York")
    office.house.now = int((NOW + timedelta(seconds=30)).timestamp() * 1_000)
    browser = await office.signed_in("reviewer")
    browser.client.headers["accept-encoding"] = "gzip"
    found = []
    questions = {**QUESTIONS, "a caller's number": f"number={database.blind_index(CALLER)}"}
    try:
        for name, query in questions.items():
            found.append(await _ask(browser, name, f"/console/calls?{query}"))
        found.append(await _ask(browser, "the thousandth page", await _deep(browser)))
    finally:
        await office.close()
        await database.close()
    return found


async def _ask(browser: object, name: str, path: str) -> list[str]:
    walls, cpus, sizes = [], [], []
    for _ in range(TIMES + 1):
        await asyncio.sleep(0.06)  # the pace of a session
        began, spent = time.perf_counter(), time.process_time()
        answer = await browser.get(path)  # type: ignore[attr-defined]
        walls.append((time.perf_counter() - began) * 1_000)
        cpus.append((time.process_time() - spent) * 1_000)
        assert answer.status_code == 200, (path, answer.status_code, answer.headers.get("location"))
        sizes.append(int(answer.headers["content-length"]))
    wall = statistics.median(walls[1:])
    rows = answer.text.count("<tr id=")
    slow = " (!)" if wall > AIM_MS else ""
    return [name, f"{wall:.1f}{slow}", f"{min(walls[1:]):.1f}", f"{statistics.median(cpus[1:]):.1f}", f"{rows}", f"{sizes[-1]:,}"]


async def _deep(browser: object) -> str:
    """The address of a page far behind the first."""
    from app.store.filters import Filters
    from app.store.listing import Listing
    from app.web.console.question import Question

    listing = Listing(browser.office.database)  # type: ignore[attr-defined]
    cursor = None
    for _ in range(100):
        cursor = (await listing.page(Filters(), cursor=cursor, limit=500)).next
        if cursor is None:
            break
    return Question(cursor=cursor).address


def profile(url: str, query: str) -> None:
    """Print where the time goes."""
    import cProfile
    import pstats

    async def asked() -> None:
        database = Database(url)
        office = Office(database, DATABASE_URL=url)
        office.house.now = int((NOW + timedelta(seconds=30)).timestamp() * 1_000)
        browser = await office.signed_in("reviewer")
        await browser.get(f"/console/calls?{query}")
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in range(TIMES):
            await browser.get(f"/console/calls?{query}")
        profiler.disable()
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(40)
        await office.close()
        await database.close()

    asyncio.run(asked())


@contextlib.contextmanager
def filled(args: argparse.Namespace, rows: int) -> Iterator[str]:
    if args.url:
        yield args.url
        return
    with place(args.only, None) as url:
        say(f"{args.only}: filling {rows:,} calls")
        took = fill(url, rows)
        say(f"{args.only}: filled in {took:.0f} s; asking")
        yield url


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    for rows in args.rows:
        with filled(args, rows) as url:
            if args.profile:
                profile(url, args.profile)
                continue
            table = asyncio.run(measure(url))
        print(f"\nThe list of calls, {args.only}, {rows:,} calls, median of {TIMES}\n")
        print(report.table(["question", "ms", "best ms", "our CPU ms", "rows", "bytes"], table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
