"""A worker is killed in the midst of its calls: every call that was acknowledged has its row, finished once, on both databases.

Here the short form: a few kills with fixed seeds. `KILLS=200` in the environment makes it the long one, by hand.
"""

import asyncio
import os
import random
import signal
import sys
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.call.disposition import EndReason, Outcome
from app.store.calls import Calls, CallState
from app.store.engine import Database
from tests.store.shelf import PRICED, filed, memory

KILLS = int(os.environ.get("KILLS", "2"))

WORKER = """
import asyncio, sys
from app.call.commands import KeepMemory
from app.store.calls import Calls
from app.store.engine import Database
from app.store.writer import JournalLine, Writer
from tests.store.shelf import PRICED, filed, memory, new_call

async def one(calls, writer, sid):
    state, _ = await calls.born(new_call(sid))
    print("born", state.call_id, flush=True)
    assert await calls.claim(state.call_id, 1, worker="w", stream_sid=None)
    for seq in range(1, 6):
        writer.put(state.call_id, 1, JournalLine(seq, seq, "Said", {}, None, ""))
        writer.put(state.call_id, 1, KeepMemory(memory(turns=seq)))
    await writer.flush(state.call_id)
    print("kept", state.call_id, flush=True)
    if await calls.finish(state.call_id, filed(memory=memory(caller_turns=5)), epoch=1, **PRICED):
        print("done", state.call_id, flush=True)

async def main(url, prefix):
    database = Database(url)
    calls, writer = Calls(database), Writer(database)
    for number in range(10_000):
        await asyncio.gather(*(one(calls, writer, f"{prefix}-{number}-{lane}") for lane in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.timeout(60 + 30 * KILLS)
async def test_every_acknowledged_call_has_its_row_and_is_finished_once(database: Database, database_url: str):
    calls, dice = Calls(database), random.Random(20_261_120)
    heard: dict[str, set[str]] = {"born": set(), "kept": set(), "done": set()}
    finished_by_us: list[str] = []
    for kill in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WORKER, database_url, f"K{kill}"), stdout=asyncio.subprocess.PIPE
        )
        left = dice.randint(20, 200)
        async for said in process.stdout:
            word, call_id = said.decode().split()
            heard[word].add(call_id)
            left -= 1
            if left == 0:
                process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        for _ in range(2):  # the sweeper, and another of its kind at the same time
            lost = await calls.unfinished(timedelta(0))
            finished_by_us += [
                state.call_id for state in lost if any(await asyncio.gather(*(_sweep(calls, state) for _ in range(2))))
            ]
    assert heard["born"] >= heard["kept"] >= heard["done"] and len(heard["done"]) > 0
    assert len(finished_by_us) == len(set(finished_by_us))
    assert heard["done"].isdisjoint(finished_by_us)
    async with database.read() as connection:
        rows = (await connection.execute(sa.text("SELECT call_id, state, turns FROM calls"))).all()
        if database.embedded:
            assert (await connection.execute(sa.text("PRAGMA integrity_check"))).scalar() == "ok"
    assert {row.state for row in rows} == {"final"}
    assert {row.call_id for row in rows} >= heard["born"]
    assert all(row.turns == 5 for row in rows if row.call_id in heard["kept"])
    for call_id in heard["kept"]:
        assert len(await calls.events(call_id)) == 5


async def _sweep(calls: Calls, state: CallState) -> bool:
    known = state.memory or memory(turns=0)
    return await calls.finish(
        state.call_id, filed(outcome=Outcome.FAILED, end_reason=EndReason.WORKER_LOST, memory=known), epoch=None, **PRICED
    )
