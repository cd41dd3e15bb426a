"""`scripts/faults`: the long form of `tests/faults/house.py`, and its figures for people."""

import argparse
import asyncio
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import psycopg

from app.store import migrate
from tests import postgres
from tests.faults.house import Count, Plan, run


def rank(values: Sequence[float], of: float) -> float:
    """A quantile, by nearest rank; 0 of nothing."""
    return round(sorted(values)[max(0, math.ceil(of * len(values)) - 1)], 2) if values else 0.0


def three(values: Sequence[float]) -> str:
    """p50, p95 and the most."""
    return f"p50 {rank(values, 0.5):.2f}, p95 {rank(values, 0.95):.2f}, max {rank(values, 1.0):.2f} s (of {len(values):,})"


def report(count: Count) -> list[str]:
    """The count, for people."""
    return [
        f"kills                   {count.kills:,}, mid-call {count.kills_in_mid_call:,}, {count.without_spare:,} without a spare",
        f"rolls, freezes          {count.rolls:,}, {count.freezes:,}",
        f"calls                   {count.calls:,}, {count.calls_struck:,} of them struck",
        f"streams struck          {count.streams_struck:,}: resumed {count.resumed:,}, not {count.not_resumed:,}",
        f"  given up as they must {count.given_up:,}",
        f"handed over             {count.handed_over:,}; cut {count.cut:,}",
        f"rows                    {count.rows:,}; lost {count.lost:,}, doubled {count.doubled:,}, not final {count.not_final:,}",
        f"effects                 {count.effects:,}; doubled {count.effects_doubled:,}, undone {count.effects_left_undone:,}",
        f"lost of the memory      slots {count.slots_lost:,}, agents {count.agents_lost:,}, words {count.words_not_replayed:,}",
        f"wrong first words       {count.wrong_first_words:,}; turns said again {count.said_again:,}",
        f"gap to the first sound  {three(count.gap_s)}",
        f"gap to the agent        {three(count.gap_to_agent_s)}",
        f"last sound to next      {three(count.silence_s)}",
        f"worker up again         {three(count.up_again_s)}",
        f"row final after the end {three(count.final_after_s)}",
        f"carrier                 requests failed {count.failed_requests:,}, statuses lost {count.callbacks_lost:,}",
        f"redirected by REST      {count.redirects:,}",
        f"ended                   {count.ended}; {count.end_reasons}",
        f"seconds                 {count.seconds:,}",
    ]


@contextlib.contextmanager
def place(kind: str) -> Iterator[tuple[str, Path]]:
    """A migrated database of that kind and a folder, gone afterwards."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        if kind == "postgres":
            server, stop = postgres.start()
            stack.callback(stop)
            name = f"faults_{os.getpid()}"
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            head, _, tail = server.partition("?")
            url = f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{tail}" if tail else "")
        else:
            url = f"sqlite:///{folder}/callrow.db"
        migrate.upgrade(url)
        yield url, folder


def main() -> int:
    """Exit code 0: nothing lost, nothing doubled, nothing forgotten."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Kill web workers while people telephone, and count.")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--runs", type=int, default=20, metavar="K", help="how many kills")
    parser.add_argument("--rolls", type=int, default=0, metavar="N", help="and so many rolling restarts (SIGHUP)")
    parser.add_argument("--freezes", type=int, default=0, metavar="N", help="and so many workers that hang (SIGSTOP)")
    parser.add_argument("--calls", type=int, default=8, metavar="N", help="calls at once")
    parser.add_argument("--turns", type=int, default=4, metavar="N", help="that a caller takes")
    parser.add_argument("--every", type=float, default=4.0, metavar="S", help="seconds, at most, between two faults")
    parser.add_argument("--drain-seconds", type=int, default=None, metavar="S")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="2 on PostgreSQL, else 1")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    with place(given.database) as (url, folder):
        plan = Plan(
            url=url,
            folder=folder,
            seed=given.seed,
            kills=given.runs,
            rolls=given.rolls,
            freezes=given.freezes,
            calls=given.calls,
            turns=given.turns,
            every_s=given.every,
            workers=given.workers or (2 if given.database == "postgres" else 1),
            env={} if given.drain_seconds is None else {"DRAIN_SECONDS": str(given.drain_seconds)},
        )
        count = asyncio.run(run(plan))
        if count.wrong:
            sys.stderr.write(plan.folder.joinpath("service.log").read_text()[-6_000:])
    sys.stderr.writelines(f"{fault}\n" for fault in count.faults[:40])
    print(json.dumps(asdict(count)) if given.json else "\n".join(report(count)))
    return 1 if count.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
