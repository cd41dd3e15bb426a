"""The durable jobs on both databases: what a kill leaves, who goes on with it, and what the engine keeps.

The long form of the kills is scripts/jobs-killed.
"""

import asyncio
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.errors import StoreUnavailable
from app.store.engine import Database
from app.store.facts import utc_now
from app.store.workers import Workers
from app.wrapup.jobs import Job, Jobs, Kind, State, Work, engine_url, plain
from app.wrapup.sweeper import Pace, Sweeper
from tests.wrapup.paper import PACE, Paper, Pile, work_on

pytestmark = pytest.mark.timeout(400)
SOON_S = 100.0
SECRET = "the caller said a secret"


class Process:
    """A process that does the jobs of a folder."""

    def __init__(self, url: str, paper: Paper, number: int, *seconds: str) -> None:
        self._log = paper.folder / f"log-{number}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.wrapup.paper", url, str(paper.folder), *seconds], stdout=log, stderr=log
            )
        self.pid = self._process.pid

    def kill(self) -> None:
        """At once, without a word."""
        self._process.kill()
        self._process.wait()

    def told_to_stop(self) -> int:
        """In order; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(SOON_S)

    def said(self, event: str) -> int:
        """How often it has logged this. Whatever it says is a line of ours."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return sum(line["event"] == event for line in lines)


type Start = Callable[..., Process]


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    return Paper(tmp_path)


@pytest.fixture
def start(paper: Paper) -> Iterator[Start]:
    """Start a process; it is ended with the test."""
    started: list[Process] = []

    def one(url: str, *seconds: str) -> Process:
        started.append(Process(url, paper, len(started), *seconds))
        return started[-1]

    yield one
    for process in started:
        process.kill()


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_was_under_way_at_a_kill_goes_on_and_a_step_that_has_ended_is_not_repeated(
    database_url: str, paper: Paper, start: Start
):
    paper.put("read", "a")
    first = start(database_url, "first_s=60")
    until(lambda: paper.lines("asking", "a"))
    first.kill()
    second = start(database_url, "second_s=60")
    until(lambda: paper.lines("settling", "a"))
    second.kill()
    third = start(database_url)
    until(lambda: paper.lines("settled", "a"))
    assert [line["pid"] for line in paper.lines("asking", "a")] == [first.pid, second.pid]
    assert [line["pid"] for line in paper.lines("asked", "a")] == [second.pid]
    assert [line["pid"] for line in paper.lines("settled", "a")] == [third.pid]
    assert {line["verdict"]["by"] for line in paper.lines("settling", "a")} == {second.pid}
    assert third.told_to_stop() == 0


def test_processes_share_the_work_and_what_a_dead_one_had_under_way_is_taken_over(postgres_url: str, paper: Paper, start: Start):
    names = [f"n{number:02}" for number in range(24)]
    one, other = start(postgres_url, "first_s=0.5"), start(postgres_url, "first_s=0.5")
    until(lambda: one.said("the jobs are open") and other.said("the jobs are open"))
    paper.put("read", *names)
    until(lambda: {one.pid, other.pid} <= {line["pid"] for line in paper.lines("asking")})
    one.kill()
    until(lambda: not paper.waiting())
    settled = paper.lines("settled")
    assert sorted(line["of"] for line in settled) == names
    assert {line["attempt"] for line in settled} == {1}
    twice = [name for name in names if len(paper.lines("asking", name)) > 1]
    asked_by_the_dead = {line["of"] for line in paper.lines("asked") if line["pid"] == one.pid}
    assert len(twice) <= 4, "more than the dead one had under way was asked twice"
    assert asked_by_the_dead.isdisjoint(twice) or paper.lines("asking", twice[0])[0]["pid"] == one.pid
    assert other.said("processes are lost; what they had under way is taken over") == 1


def test_on_sqlite_a_second_process_waits_says_so_once_and_goes_on_when_the_first_has_ended(
    sqlite_url: str, paper: Paper, start: Start
):
    first = start(sqlite_url)
    until(lambda: first.said("the jobs are open"))
    second = start(sqlite_url)
    until(lambda: second.said("another process does the jobs of this database; this one waits for its end"))
    paper.put("read", "a")
    until(lambda: paper.lines("settled", "a"))
    time.sleep(1.2)  # it looks at the lock more than once
    assert second.said("another process does the jobs of this database; this one waits for its end") == 1
    assert not second.said("the jobs are open")
    first.kill()
    paper.put("read", "b")
    until(lambda: paper.lines("settled", "b"))
    assert [line["pid"] for line in paper.lines("settled")] == [first.pid, second.pid]


def test_who_is_told_to_stop_lets_what_is_under_way_end_and_begins_nothing(sqlite_url: str, paper: Paper, start: Start):
    process = start(sqlite_url, "first_s=1")
    paper.put("read", "a")
    until(lambda: paper.lines("asking", "a"))
    paper.put("read", "b")
    assert process.told_to_stop() == 0
    assert [line["of"] for line in paper.lines("settled")] == ["a"]
    assert process.said("the jobs are closed") == 1


class Faulty:
    """Reads and delivers; what it does is a function of the test."""

    def __init__(self, paper: Paper, kind: str, first: Any = None, second: Any = None) -> None:
        self.paper, self._kind, self._first, self._second = paper, kind, first, second

    async def ask(self, of: str) -> dict[str, Any]:
        self.paper.wrote("asked", of)
        return await self._first(of) if self._first is not None else {"reading": of}

    async def settle(self, of: str, attempt: int, verdict: dict[str, Any]) -> None:
        self.paper.wrote("settled", of, verdict=verdict)
        if self._second is not None:
            await self._second(of)
        (self.paper.folder / self._kind / of).unlink()

    send, record = ask, settle


def faulty_work(paper: Paper, **functions: Any) -> Work:
    return Work(
        reading=Faulty(paper, "read", **functions),
        delivering=Faulty(paper, "deliver", **functions),
        judgements=Pile(paper, "read"),
        deliveries=Pile(paper, "deliver"),
    )


@asynccontextmanager
async def at_work(url: str, work: Work, *, pace: Pace = PACE, **more: Any) -> AsyncIterator[Jobs]:
    """The jobs of this process, swept."""
    database = Database(url)
    engine = Jobs(url, work, executor="e", at_once=4, look_s=0.05)
    await Workers(database).beat("e", live_calls=0)
    await engine.open()
    sweeping = asyncio.create_task(Sweeper(engine, work, Workers(database), worker="e", pace=pace, **more).run())
    try:
        yield engine
    finally:
        sweeping.cancel()
        await asyncio.wait({sweeping})
        await engine.close(0)
        await database.close()


async def eventually(true: Callable[[], object]) -> None:
    async with asyncio.timeout(SOON_S):
        while not true():
            await asyncio.sleep(0.02)


def everything_in(url: str) -> str:
    """All that is written in the engine's tables."""
    address = engine_url(url)
    engine = sa.create_engine(address)
    schema = None if address.get_backend_name() == "sqlite" else "dbos"
    with engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names(schema=schema)
        names = [f'"{schema}"."{table}"' if schema else f'"{table}"' for table in tables]
        told = [str(tuple(row)) for name in names for row in connection.exec_driver_sql(f"SELECT * FROM {name}")]
    engine.dispose()
    return "\n".join(told)


async def test_the_engine_keeps_ids_and_codes_and_never_what_a_fault_or_a_step_says(
    database_url: str, paper: Paper, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    async def asked(of: str) -> dict[str, Any]:
        if of == "raises":
            raise ValueError(SECRET)
        return {"fault": "RateLimited", "code": SECRET + "." * 40, "retryable": True, "retry_after_s": 1.5}

    async def settled(of: str) -> None:
        if of == "raises" and len(paper.lines("settled", of)) < 3:
            raise ValueError(SECRET)

    paper.put("read", "raises", "says")
    async with at_work(database_url, faulty_work(paper, first=asked, second=settled)):
        await eventually(lambda: not paper.waiting())
    kept = everything_in(database_url)
    assert "read:raises:1" in kept
    assert "RateLimited" in kept
    assert SECRET not in kept
    assert [line["verdict"] for line in paper.lines("settled", "says")] == [
        {"fault": "RateLimited", "code": "withheld", "retryable": True, "retry_after_s": 1.5}
    ]
    unforeseen = {"fault": "ValueError", "code": None, "retryable": True, "retry_after_s": None}
    assert [line["verdict"] for line in paper.lines("settled", "raises")] == [unforeseen] * 3
    assert len(paper.lines("asked", "raises")) == 1, "a step whose result was kept has run again"
    assert SECRET not in caplog.text + "".join(capsys.readouterr())


async def test_while_our_database_is_away_a_step_waits_for_it(sqlite_url: str, paper: Paper, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.wrapup.jobs.PATIENCE", (0.01, 0.01))

    async def asked(of: str) -> dict[str, Any]:
        if len(paper.lines("asked", of)) < 3:
            raise StoreUnavailable("read it")
        return {"reading": of}

    paper.put("deliver", "a")
    async with at_work(sqlite_url, faulty_work(paper, first=asked)):
        await eventually(lambda: not paper.waiting("deliver"))
    assert len(paper.lines("asked")) == 3
    assert [line["verdict"] for line in paper.lines("settled")] == [{"reading": "a"}]


async def test_what_has_ended_is_forgotten_and_what_is_under_way_is_not(database_url: str, paper: Paper):
    under_way = asyncio.Event()

    async def asked(of: str) -> dict[str, Any]:
        if of == "slow":
            await under_way.wait()
        return {"reading": of}

    paper.put("read", "a", "b", "slow")
    jobs = [Job(Kind.READ, of, 1) for of in ("a", "b", "slow")]
    async with at_work(database_url, faulty_work(paper, first=asked)) as engine:
        await eventually(lambda: paper.waiting() == ["slow"])
        async with asyncio.timeout(SOON_S):
            while list((await engine.states(jobs)).values()).count(State.ENDED) < 2:
                await asyncio.sleep(0.02)
        assert await engine.forget(utc_now() - timedelta(days=1)) == 0
        assert await engine.forget(utc_now() + timedelta(days=1)) == 2
        assert await engine.states(jobs) == {jobs[2]: State.UNDER_WAY}
        under_way.set()
        await eventually(lambda: not paper.waiting())


async def test_a_job_under_which_its_process_died_too_often_is_a_fault_of_its_attempt_and_is_forgotten_like_others(
    sqlite_url: str, paper: Paper
):
    async def asked(of: str) -> dict[str, Any]:
        await asyncio.sleep(3_600)
        raise AssertionError

    paper.put("read", "a")
    async with at_work(sqlite_url, faulty_work(paper, first=asked)):
        await eventually(lambda: paper.lines("asked"))
    engine = sa.create_engine(engine_url(sqlite_url))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workflow_status SET recovery_attempts = 50"))
    engine.dispose()
    async with at_work(sqlite_url, faulty_work(paper, first=asked)) as jobs:
        await eventually(lambda: not paper.waiting())
        assert await jobs.states([Job(Kind.READ, "a", 1)]) == {Job(Kind.READ, "a", 1): State.LOST}
        assert await jobs.forget(utc_now() + timedelta(days=1)) == 1
    assert len(paper.lines("asked")) == 1
    assert [line["verdict"]["fault"] for line in paper.lines("settled")] == ["ProcessLost"]


async def test_the_comparison_with_the_carrier_is_made_once_in_a_period_however_many_ask_for_it(sqlite_url: str, paper: Paper):
    async def reconcile() -> None:
        paper.wrote("reconciled", "all")

    work = dataclasses.replace(work_on(paper), reconcile=reconcile)
    midday = utc_now().replace(hour=12, minute=0, second=0)
    for minute in (1, 59, 61):
        async with at_work(sqlite_url, work, reconcile_minutes=60, clock=lambda: midday + timedelta(minutes=minute)):  # noqa: B023
            await eventually(lambda: len(paper.lines("reconciled")) == 1 + (minute > 60))  # noqa: B023
            paper.put("read", f"at-{minute}")
            await eventually(lambda: not paper.waiting())
    assert len(paper.lines("reconciled")) == 2


def test_a_step_says_numbers_and_short_codes():
    assert plain({"a": 1, "b": None, "c": True, "d": 0.5, "e": "not configured", "f": "x" * 41}) == {
        "a": 1,
        "b": None,
        "c": True,
        "d": 0.5,
        "e": "not configured",
        "f": "withheld",
    }
    with pytest.raises(TypeError):
        plain({"a": ["words"]})
