"""The batch writer: nothing lost, nothing twice, nobody held up; on both databases."""

import asyncio
import json
import signal
import sqlite3
import sys
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg import sql
from structlog.testing import capture_logs

from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.disposition import Slot
from app.errors import StoreUnavailable
from app.store import engine
from app.store import writer as writing
from app.store.calls import Calls
from app.store.engine import Database
from app.store.identity import new_call_id
from app.store.ledger import Ledger, ToolStatus
from app.store.writer import JournalLine, Writer
from tests.store.shelf import KEY, PRICED, Clock, context, filed, memory, new_call, turn, utterance


def line(seq: int, **other: object) -> JournalLine:
    known = {"at": seq * 20, "name": "MarkReturned", "data": {"mark": f"m{seq}"}, "private": None, "commands": ""}
    return JournalLine(seq=seq, **(known | other))


@pytest.fixture
def calls(database: Database) -> Calls:
    return Calls(database)


@pytest.fixture
async def call_id(calls: Calls) -> str:
    return (await calls.born(new_call()))[0].call_id


@pytest.fixture
def writer(database: Database) -> Writer:
    return Writer(database, interval_ms=1)


@asynccontextmanager
async def running(writer: Writer):
    async with asyncio.TaskGroup() as house:
        house.create_task(writer.run())
        yield
        await writer.close()


async def until(true) -> None:
    async with asyncio.timeout(60):
        while not await true():
            await asyncio.sleep(0.01)


# ---- what is put is written


async def test_a_flush_commits_everything_put_before_it(calls, call_id, writer):
    for seq in range(1, 1_203):  # more than two statements of 500 rows
        writer.put(call_id, 1, line(seq))
    await writer.flush(call_id)
    assert writer.waiting == 0
    assert [kept["seq"] for kept in await calls.events(call_id)] == list(range(1, 1_203))


async def test_a_line_comes_back_as_it_was_put(calls, call_id, writer):
    put = line(7, name="ToolCalled", data={"x": [1, None, True, "é"]}, private={"arguments": '{"a": "b"}'}, commands="0a1b2c3d")
    writer.put(call_id, 1, put)
    await writer.flush()
    (kept,) = await calls.events(call_id)
    assert kept.pop("epoch") == 1
    assert JournalLine(**kept) == put


async def test_lines_come_back_by_epoch_and_number(calls, call_id, writer):
    for epoch, seq in ((2, 1), (1, 2), (2, 2), (1, 1)):
        writer.put(call_id, epoch, line(seq))
    await writer.flush()
    assert [(kept["epoch"], kept["seq"]) for kept in await calls.events(call_id)] == [(1, 1), (1, 2), (2, 1), (2, 2)]


async def test_the_loop_writes_by_itself_and_ends_when_closed(calls, call_id, writer):
    async with running(writer):
        writer.put(call_id, 1, line(1))
        await until(lambda: _count(calls, call_id, 1))
        writer.put(call_id, 1, line(2))
    assert await _count(calls, call_id, 2)


async def test_closing_writes_what_waits_also_when_no_loop_ever_ran(calls, call_id, writer):
    writer.put(call_id, 1, line(1))
    await writer.close()
    assert await _count(calls, call_id, 1)


async def test_lines_of_many_calls_share_a_flush(calls, writer):
    names = [(await calls.born(new_call(f"CA{number}")))[0].call_id for number in range(5)]
    for seq in range(1, 4):
        for name in names:
            writer.put(name, 1, line(seq))
    await writer.flush(names[0])
    assert [len(await calls.events(name)) for name in names] == [3] * 5


# ---- later wins, whatever the batches


@pytest.mark.parametrize("flush_between", [True, False])
async def test_the_later_of_two_facts_with_one_key_stands(calls, call_id, writer, flush_between):
    first = [
        KeepUtterance(utterance("u1", 100, heard=None)),
        KeepTurn(turn(1, None)),
        KeepTool("t1", "note_slot", "front-desk", True, "{}", '"no"'),
        KeepMemory(memory(turns=1)),
    ]
    later = [
        KeepUtterance(utterance("u1", 90, heard="Good morning.", interrupted=True)),
        KeepTurn(turn(1, 640, tools=1)),
        KeepTool("t1", "note_slot", "front-desk", False, '{"a": 1}', '"yes"'),
        KeepMemory(memory(turns=2, agent="front-desk")),
    ]
    for facts in (first, later):
        for fact in facts:
            writer.put(call_id, 1, fact)
        if flush_between:
            await writer.flush()
    await writer.flush()
    row = await calls.row(call_id)
    assert [(said["started_at_ms"], said["heard"], said["interrupted"]) for said in row["utterances"]] == [
        (90, "Good morning.", True)
    ]
    assert [(kept["latency_ms"], kept["tools"]) for kept in row["turn_list"]] == [(640, 1)]
    assert [(tool["status"], tool["result"], tool["arguments"]) for tool in row["tool_invocations"]] == [("done", "yes", {"a": 1})]
    assert (row["turns"], row["agent"]) == (2, "front-desk")
    assert (await calls.find(call_id)).memory == memory(turns=2, agent="front-desk")


async def test_two_utterances_of_one_moment_stay_in_the_order_in_which_they_were_put(calls, call_id, writer):
    for key in ("zebra", "ant", "mole"):
        writer.put(call_id, 1, KeepUtterance(utterance(key, 50)))
    await writer.flush()
    writer.put(call_id, 1, KeepUtterance(utterance("zebra", 50, heard="Later transcribed.")))
    await writer.flush()
    assert [said.key for said in await calls.history(call_id)] == ["zebra", "ant", "mole"]


async def test_the_same_line_twice_is_one_line_and_the_first_stands(calls, call_id, writer):
    writer.put(call_id, 1, line(1))
    await writer.flush()
    writer.put(call_id, 1, line(1, name="Something else"))
    writer.put(call_id, 1, line(2))
    await writer.flush()
    assert [kept["name"] for kept in await calls.events(call_id)] == ["MarkReturned", "MarkReturned"]


# ---- the fence


async def test_the_memory_of_an_old_stream_changes_nothing_and_its_lines_are_kept(calls, call_id, writer):
    await calls.advance(call_id, 1)
    writer.put(call_id, 2, KeepMemory(memory(turns=5)))
    await writer.flush()
    writer.put(call_id, 1, KeepMemory(memory(turns=1, agent="front-desk")))
    writer.put(call_id, 1, line(99))
    writer.put(call_id, 1, KeepUtterance(utterance("late")))
    await writer.flush()
    assert (await calls.find(call_id)).memory == memory(turns=5)
    assert [kept["epoch"] for kept in await calls.events(call_id)] == [1]
    assert [said.key for said in await calls.history(call_id)] == ["late"]


async def test_a_finished_row_is_not_changed_by_a_late_memory(calls, call_id, writer):
    await calls.finish(call_id, filed(), epoch=1, **PRICED)
    before = await calls.row(call_id)
    writer.put(call_id, 1, KeepMemory(memory(turns=9, disposition="other")))
    await writer.flush()
    assert await calls.row(call_id) == before


async def test_a_control_never_writes_over_an_errand(calls, call_id, writer, database):
    ledger = Ledger(database)
    await ledger.intend(context(call_id), "t1", "book_appointment", "{}", effect=True)
    writer.put(call_id, 1, KeepTool("t1", "note_slot", "front-desk", False, "{}", '"hello"'))
    await writer.flush()
    assert (await ledger.standing(call_id, "t1")).status is ToolStatus.INTENDED
    assert writer.refused == 0


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
            await until(lambda: _count(calls, call_id, 1))
            away()
            for seq in range(2, 700):
                writer.put(call_id, 1, line(seq))
            writer.put(call_id, 1, KeepMemory(memory(turns=1)))
            with pytest.raises(StoreUnavailable):
                await writer.flush()
            writer.put(call_id, 1, KeepMemory(memory(turns=2)))
            writer.put(call_id, 1, line(700))
            assert writer.waiting == 700
            back()
            await until(lambda: _count(calls, call_id, 700))
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
    assert await _count(calls, call_id, 1)
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
            await until(lambda: _count(calls, call_id, 2))
    assert logged[0]["fault"] == "RuntimeError"


# ---- what the database refuses


async def test_an_item_that_is_refused_holds_nobody_up_and_is_not_quoted(calls, call_id, writer):
    for seq in range(1, 200):
        writer.put(call_id, 1, line(seq))
    writer.put("nobody", 1, line(1, private={"text": "a-private-word"}))
    writer.put(call_id, 1, KeepTurn(turn(1, agent="a-private-word", latency_ms=-5)))
    writer.put(call_id, 1, line(200, data=object()))
    writer.put(call_id, 1, line(201, at=2**70))
    writer.put(call_id, 1, KeepUtterance(utterance("u1", speaker="parrot")))
    writer.put(call_id, 1, KeepUtterance(utterance("u2")))
    for seq in range(202, 300):
        writer.put(call_id, 1, line(seq))
    with capture_logs() as logged:
        await writer.flush()
    assert writer.refused == 5 and len(logged) == 5
    assert "a-private-word" not in str(logged)
    assert {entry["item"] for entry in logged} == {"Line", "KeepTurn", "KeepUtterance"}
    assert [kept["seq"] for kept in await calls.events(call_id)] == [*range(1, 200), *range(202, 300)]
    assert [said.key for said in await calls.history(call_id)] == ["u2"]


async def test_what_no_database_keeps_costs_neither_the_line_nor_the_fact(calls, call_id, writer):
    writer.put(call_id, 1, line(1, data={"text": "a\x00b\ud800"}, private={"text": "c\x00d"}))
    writer.put(call_id, 1, KeepUtterance(utterance("u1", heard="e\x00f\ud800")))
    writer.put(call_id, 1, KeepMemory(memory(slots=(Slot(name="name", value="g\x00h"),))))
    await writer.flush()
    assert writer.refused == 0
    (kept,) = await calls.events(call_id)
    assert (kept["data"], kept["private"]) == ({"text": "ab?"}, {"text": "cd"})
    assert (await calls.history(call_id))[0].heard == "ef?"
    assert (await calls.row(call_id))["slots"]["name"]["value"] == "gh"


async def test_a_database_that_was_never_migrated_costs_nothing_but_time(empty_url):
    database = Database(empty_url)
    writer = Writer(database)
    writer.put("c", 1, line(1))
    with pytest.raises(StoreUnavailable):
        await writer.flush()
    assert (writer.waiting, writer.refused) == (1, 0)
    await database.close()


# ---- a key, a kill, a portion


async def test_with_a_key_the_journal_holds_no_private_word(database_url):
    import sqlalchemy as sa

    database = Database(database_url, KEY)
    calls, writer = Calls(database), Writer(database)
    call_id = (await calls.born(new_call()))[0].call_id
    writer.put(call_id, 1, line(1, private={"text": "a-private-word"}))
    writer.put(call_id, 1, KeepUtterance(utterance("u1", heard="a-private-word", unheard="a-private-word")))
    writer.put(call_id, 1, KeepTool("t1", "a", "b", False, '"a-private-word"', '"a-private-word"'))
    writer.put(call_id, 1, KeepMemory(memory(summary="a-private-word", next_action="a-private-word")))
    await writer.flush()
    async with database.read() as connection:
        for name in ("calls", "utterances", "call_events", "tool_invocations"):
            raw = (await connection.execute(sa.text(f"SELECT * FROM {name}"))).all()
            assert len(raw) == 1 and "private-word" not in str(raw)
    assert (await calls.events(call_id))[0]["private"] == {"text": "a-private-word"}
    assert (await calls.history(call_id))[0].unheard == "a-private-word"
    await database.close()


async def test_a_backlog_is_written_in_portions(calls, call_id, writer, monkeypatch):
    monkeypatch.setattr(writing, "LINES_A_TRANSACTION", 7)
    for seq in range(1, 31):
        writer.put(call_id, 1, line(seq))
    await writer.flush()
    assert writer.waiting == 0 and await _count(calls, call_id, 30)


SCRIBE = """
import asyncio, sys
from app.call.commands import KeepMemory
from app.store.engine import Database
from app.store.writer import JournalLine, Writer
from tests.store.shelf import memory

async def main(url, call_id):
    writer = Writer(Database(url))
    for seq in range(1, 1_000_000):
        writer.put(call_id, 1, JournalLine(seq, seq, "Said", {}, {"text": "x" * 200}, ""))
        writer.put(call_id, 1, KeepMemory(memory(turns=seq)))
        if seq % 5 == 0:
            await writer.flush()
            print(seq, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_was_acknowledged_survives_a_kill(calls, call_id, database_url):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIBE, database_url, call_id, stdout=asyncio.subprocess.PIPE
    )
    acknowledged = 0
    async for said in process.stdout:
        acknowledged = int(said)
        if acknowledged >= 200:
            process.send_signal(signal.SIGKILL)
    await process.wait()
    assert process.returncode == -signal.SIGKILL
    kept = [one["seq"] for one in await calls.events(call_id)]
    assert kept == list(range(1, len(kept) + 1)) and len(kept) >= acknowledged
    assert (await calls.find(call_id)).memory.turns == len(kept)
    assert await calls.finish(call_id, filed(), epoch=None, **PRICED)


async def _count(calls: Calls, call_id: str, lines: int) -> bool:
    try:
        return len(await calls.events(call_id)) == lines
    except StoreUnavailable:
        return False


def test_a_line_of_the_journal_is_json_ready():
    assert json.dumps(line(1).data)
