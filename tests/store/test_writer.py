"""The batch writer: nothing lost, nothing twice, nobody held up; on both databases."""

import asyncio
import json
import signal
import sys

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.disposition import Slot
from app.errors import StoreUnavailable
from app.store import writer as writing
from app.store.calls import Calls
from app.store.engine import Database
from app.store.ledger import Ledger, ToolStatus
from app.store.writer import JournalLine, Writer
from tests.store.shelf import KEY, PRICED, context, count, filed, line, memory, new_call, running, turn, until, utterance


@pytest.fixture
def calls(database: Database) -> Calls:
    return Calls(database)


@pytest.fixture
async def call_id(calls: Calls) -> str:
    return (await calls.born(new_call()))[0].call_id


@pytest.fixture
def writer(database: Database) -> Writer:
    return Writer(database, interval_ms=1)


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
        await until(lambda: count(calls, call_id, 1))
        writer.put(call_id, 1, line(2))
    assert await count(calls, call_id, 2)


async def test_closing_writes_what_waits_also_when_no_loop_ever_ran(calls, call_id, writer):
    writer.put(call_id, 1, line(1))
    await writer.close()
    assert await count(calls, call_id, 1)


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
        KeepMemory(memory(caller_turns=1)),
    ]
    later = [
        KeepUtterance(utterance("u1", 90, heard="Good morning.", interrupted=True)),
        KeepTurn(turn(1, 640, tools=1)),
        KeepTool("t1", "note_slot", "front-desk", False, '{"a": 1}', '"yes"'),
        KeepMemory(memory(caller_turns=2, agent="front-desk")),
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
    assert (await calls.find(call_id)).memory == memory(caller_turns=2, agent="front-desk")


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
    assert writer.waiting == 0 and await count(calls, call_id, 30)


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


def test_a_line_of_the_journal_is_json_ready():
    assert json.dumps(line(1).data)
