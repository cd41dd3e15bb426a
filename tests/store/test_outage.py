"""The writer while the database is away: an outage costs nothing but time; on both databases."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg import sql
from structlog.testing import capture_logs

from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.errors import StoreUnavailable
from app.store import engine
from app.store.calls import Calls
from app.store.engine import Database
from app.store.identity import new_call_id
from app.store.writer import Writer
from tests.store.shelf import PRICED, Clock, count, filed, line, memory, new_call, running, turn, until, utterance


@pytest.fixture
def calls(database: Database) -> Calls:
    return Calls(database)


@pytest.fixture
async def call_id(calls: Calls) -> str:
    return (await calls.born(new_call()))[0].call_id


@pytest.fixture
def writer(database: Database) -> Writer:
    return Writer(database, interval_ms=1)


# ---- the database is away


@pytest.fixture
async def outage(request, tmp_path, database_url, monkeypatch):
    """Takes the database away, and gives it back: SQLite by another's lock, PostgreSQL by closing its doors."""
    monkeypatch.setattr(engine, "BUSY_MS", 50)
    if database_url.startswith("sqlite"):
        other = sqlite3.connect(tmp_path / "callrow.db", isolation_level=None, check_same_thread=False)
        yield lambda: other.execute("BEGIN IMMEDIATE"), lambda: other.execute("ROLLBACK")
        other.close()
        return
    name, url = database_url.split("?")[0].rsplit("/", 1)[1], request.getfixturevalue("postgres").url("postgres")
    with psycopg.connect(url, autocommit=True) as other:
        doors = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")

        def away() -> None:
            other.execute(doors.format(sql.Identifier(name), sql.SQL("false")))
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

        yield away, lambda: other.execute(doors.format(sql.Identifier(name), sql.SQL("true")))


async def test_an_outage_costs_nothing_but_time(outage, database_url):
    database = Database(database_url)  # after the fixture has made it impatient
    calls, writer = Calls(database), Writer(database, interval_ms=1)
    call_id = (await calls.born(new_call()))[0].call_id
    away, back = outage
    with capture_logs() as logged:
        async with running(writer):
            writer.put(call_id, 1, line(1))
            await until(lambda: count(calls, call_id, 1))
            away()
            for seq in range(2, 700):
                writer.put(call_id, 1, line(seq))
            writer.put(call_id, 1, KeepMemory(memory(turns=1)))
            with pytest.raises(StoreUnavailable):
                await writer.flush()
            writer.put(call_id, 1, KeepMemory(memory(turns=2)))
            writer.put(call_id, 1, line(700))
            assert writer.waiting >= 700
            back()
            await until(lambda: count(calls, call_id, 700))
    assert [kept["seq"] for kept in await calls.events(call_id)] == list(range(1, 701))
    assert (await calls.find(call_id)).memory == memory(turns=2)
    assert (writer.dropped_lines, writer.dropped_facts, writer.refused) == (0, 0, 0)
    assert "hello" not in str(logged)
    await database.close()


async def test_a_call_answered_while_the_database_was_away_gets_its_row_and_all_its_lines(outage, database_url):
    database = Database(database_url)
    calls, clock = Calls(database), Clock()
    writer = Writer(database, clock=clock)
    away, back = outage
    away()
    with pytest.raises(StoreUnavailable):
        await calls.born(new_call())
    call_id = new_call_id(clock.now)
    writer.put(call_id, 1, line(1))
    writer.put(call_id, 1, KeepMemory(memory()))
    writer.put(call_id, 1, new_call())
    with pytest.raises(StoreUnavailable):
        await writer.flush()
    back()
    await writer.flush()
    state = await calls.find_by_sid("CA1")
    assert (state.call_id, state.started_at, state.memory) == (call_id, clock.now, memory())
    assert await count(calls, call_id, 1)
    assert await calls.finish(call_id, filed(), epoch=1, **PRICED)
    await database.close()


class Away(Database):
    """A database whose transactions fail before or after the commit, as they are told."""

    fail: str | None = None

    @asynccontextmanager
    async def write(self, doing: str = "write"):
        if self.fail == "before":
            raise StoreUnavailable(doing)
        async with super().write(doing) as connection:
            yield connection
        if self.fail == "after":
            raise StoreUnavailable(doing)


@pytest.fixture
async def broken(database_url):
    database = Away(database_url)
    yield database
    await database.close()


async def test_a_commit_of_which_nobody_knows_is_repeated_and_nothing_is_there_twice(broken):
    calls, writer = Calls(broken), Writer(broken)
    call_id = (await calls.born(new_call()))[0].call_id
    facts = [KeepUtterance(utterance("u1")), KeepTurn(turn(1)), KeepTool("t1", "a", "b", False, "{}", "{}"), KeepMemory(memory())]
    for item in (line(1), line(2), *facts):
        writer.put(call_id, 1, item)
    broken.fail = "after"
    with pytest.raises(StoreUnavailable):
        await writer.flush()
    before = await calls.row(call_id), await calls.events(call_id)
    assert writer.waiting == 6
    broken.fail = None
    await writer.flush()
    after = await calls.row(call_id), await calls.events(call_id)
    assert (len(after[1]), len(after[0]["utterances"]), len(after[0]["turn_list"]), len(after[0]["tool_invocations"])) == (
        2,
        1,
        1,
        1,
    )
    assert before == after


async def test_a_newer_fact_put_during_an_outage_is_not_overwritten_by_the_older(broken):
    calls, writer = Calls(broken), Writer(broken)
    call_id = (await calls.born(new_call()))[0].call_id
    broken.fail = "before"
    for turns in (1, 2, 3):
        writer.put(call_id, 1, KeepMemory(memory(turns=turns)))
        with pytest.raises(StoreUnavailable):
            await writer.flush()
    assert writer.waiting == 1
    broken.fail = None
    await writer.flush()
    assert (await calls.find(call_id)).memory == memory(turns=3)


async def test_when_too_much_waits_the_oldest_lines_go_and_are_counted(broken):
    calls, writer = Calls(broken), Writer(broken, limit=10)
    call_id = (await calls.born(new_call()))[0].call_id
    broken.fail = "before"
    writer.put(call_id, 1, KeepMemory(memory()))
    for seq in range(1, 31):
        writer.put(call_id, 1, line(seq))
        with pytest.raises(StoreUnavailable):
            await writer.flush()
    assert (writer.waiting, writer.dropped_lines, writer.dropped_facts) == (10, 21, 0)
    broken.fail = None
    await writer.flush()
    assert [kept["seq"] for kept in await calls.events(call_id)] == list(range(22, 31))
    assert (await calls.find(call_id)).memory == memory()


async def test_facts_go_only_when_no_line_is_left(broken):
    writer = Writer(broken, limit=3)
    broken.fail = "before"
    writer.put("c", 1, line(1))
    for number in range(5):
        writer.put("c", 1, KeepTurn(turn(number)))
    assert (writer.waiting, writer.dropped_lines, writer.dropped_facts) == (3, 1, 2)


async def test_a_cancelled_flush_loses_nothing_whenever_it_is_cancelled(calls, call_id, writer):
    seq, cancelled = 0, 0
    for pause in range(25):
        for _ in range(200):
            seq += 1
            writer.put(call_id, 1, line(seq))
        flush = asyncio.create_task(writer.flush())
        await asyncio.sleep(pause / 2_000)
        flush.cancel()
        try:
            await flush
        except asyncio.CancelledError:
            cancelled += 1
    assert cancelled >= 1
    await writer.flush()
    assert [kept["seq"] for kept in await calls.events(call_id)] == list(range(1, seq + 1))


async def test_closing_while_the_database_is_away_says_so(broken):
    writer = Writer(broken)
    async with asyncio.TaskGroup() as house:
        house.create_task(writer.run())
        broken.fail = "before"
        writer.put("c", 1, line(1))
        with pytest.raises(StoreUnavailable):
            await writer.close()
    assert writer.waiting == 1


async def test_the_loop_outlives_any_fault(calls, call_id, writer, monkeypatch):
    faults = iter([RuntimeError("nobody thought of this")])

    async def flush(call_id: str | None = None) -> None:
        for fault in faults:
            raise fault
        await Writer.flush(writer, call_id)

    monkeypatch.setattr(writer, "flush", flush)
    with capture_logs() as logged:
        async with running(writer):
            writer.put(call_id, 1, line(1))
            await asyncio.sleep(0.05)
            writer.put(call_id, 1, line(2))
            await until(lambda: count(calls, call_id, 2))
    assert logged[0]["fault"] == "RuntimeError"
