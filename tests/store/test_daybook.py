"""Calls while the database is away: answered, changed, ended; and their rows afterwards. On both databases."""

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import timedelta

import pytest

from app.call.commands import KeepMemory, KeepTurn, KeepUtterance
from app.call.disposition import EndReason, Intent, Outcome
from app.errors import Fenced, StoreUnavailable
from app.store import daybook as module
from app.store import late
from app.store import writer as writing
from app.store.calls import Calls
from app.store.changes import Pricing
from app.store.daybook import Daybook
from app.store.engine import Database
from app.store.facts import CallState
from app.store.late import Advanced, CarrierSaid, Claimed, Finished, Healthy, Planned
from app.store.spool import Spool, whose_spool
from app.store.writer import Writer
from tests.store.shelf import CALLER, PRICED, Clock, filed, line, memory, new_call, turn, until, utterance


class Away(Database):
    """A database that fails before or after the commit, or never answers, as it is told."""

    fail: str | None = None

    @asynccontextmanager
    async def write(self, doing: str = "write"):
        await self._fails(doing, "before")
        async with super().write(doing) as connection:
            yield connection
        await self._fails(doing, "after")

    @asynccontextmanager
    async def read(self, doing: str = "read"):
        await self._fails(doing, "before")
        async with super().read(doing) as connection:
            yield connection

    async def _fails(self, doing: str, when: str) -> None:
        if self.fail == "hang" and when == "before":
            await asyncio.Event().wait()
        if self.fail == when:
            raise StoreUnavailable(doing)


class House:
    """A process: a database that can be taken away, its writer, its daybook."""

    def __init__(self, url: str, folder, clock=None) -> None:
        self.database = Away(url)
        self.clock = clock or Clock()
        self.spool = Spool(folder, whose_spool(url), self.database.seal, 2**24)
        pricing = Pricing(prices=PRICED["prices"], prices_date=PRICED["prices_date"])
        self.writer = Writer(self.database, spool=self.spool, pricing=pricing, interval_ms=1, clock=self.clock)
        self.calls = Daybook(self.database, self.writer, clock=self.clock, patience_s=20)
        self.rows = Calls(self.database, clock=self.clock)

    async def __aenter__(self):
        await self.writer.open()
        return self

    async def __aexit__(self, *_):
        with_database = self.database.fail is None
        if with_database:
            await self.writer.close()
        else:
            await self.spool.close()
        await self.database.close()

    async def back(self) -> None:
        """The database is back, and everything that waited for it is written."""
        self.database.fail = None
        async with self.at_work():
            await until(self._written)

    @asynccontextmanager
    async def at_work(self):
        """The writer's loop, which may be begun again."""
        running = asyncio.create_task(self.writer.run())
        yield
        running.cancel()
        await asyncio.wait({running})

    async def _written(self) -> bool:
        return not (self.writer.is_away or self.spool.holds_own or self.spool.holds_found or self.writer.waiting)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(writing, "LONGEST_BACKOFF_S", 0.2)


@pytest.fixture
async def house(database_url, tmp_path):
    async with House(database_url, tmp_path / "spool") as house:
        yield house


@pytest.mark.parametrize("how", ["before", "after", "hang"])
async def test_a_call_that_begins_and_ends_without_the_database_has_the_row_it_would_have_had(house, how):
    house.database.fail = how
    house.calls._patience_s = 0.2 if how == "hang" else 20
    state, created = await house.calls.born(new_call())
    again, created_again = await house.calls.born(new_call())
    assert (created, created_again, again.call_id) == (True, False, state.call_id)
    call_id = state.call_id
    assert (await house.calls.find(call_id)).call_id == (await house.calls.find_by_sid("CA1")).call_id == call_id
    house.clock.pass_(seconds=2)
    assert await house.calls.claim(call_id, 1, worker="w", stream_sid="MZ1")
    assert not await house.calls.claim(call_id, 1, worker="w", stream_sid="MZ2")
    for seq in range(1, 40):
        house.writer.put(call_id, 1, line(seq))
    house.writer.put(call_id, 1, KeepUtterance(utterance("u1", 100, heard="Good")))
    house.writer.put(call_id, 1, KeepTurn(turn(1, 800)))
    await house.writer.flush()
    house.writer.put(call_id, 1, KeepUtterance(utterance("u1", 100, heard="Good morning.")))
    house.writer.put(call_id, 1, KeepMemory(memory(caller_turns=1)))
    assert (await house.calls.find(call_id)).memory == memory(caller_turns=1)
    assert [said.heard for said in await house.calls.history(call_id)] == ["Good morning."]
    await house.calls.plan(call_id, 1, Intent.HANG_UP)
    house.clock.pass_(seconds=60)
    assert await house.calls.finish(call_id, filed(memory=memory(caller_turns=1)), epoch=1, **PRICED)
    assert not await house.calls.finish(call_id, filed(end_reason=EndReason.SILENCE), epoch=None, **PRICED)
    assert (await house.calls.carrier_status("CA1", "completed", sequence=3, duration_s=62)).final
    await house.back()
    row = await house.rows.row(call_id)
    assert (row["state"], row["end_reason"], row["carrier_status"], row["carrier_duration_s"]) == (
        "final",
        "agent_ended",
        "completed",
        62,
    )
    assert (row["latency_p50_ms"], row["turns"], row["claimed_epoch"], row["stream_sid"]) == (800, 1, 1, "MZ1")
    assert [said["heard"] for said in row["utterances"]] == ["Good morning."]
    assert [kept["seq"] for kept in await house.rows.events(call_id)] == list(range(1, 40))
    assert len(await house.rows.latest(10)) == 1
    assert house.writer.refused == house.writer.dropped_lines == house.writer.dropped_facts == 0


async def test_the_row_is_the_same_as_without_an_outage(database_url, tmp_path):
    rows = []
    for fail in (None, "before"):
        async with House(database_url, tmp_path / "spool") as house:
            house.database.fail = fail
            new = new_call(f"CA-{fail}")
            state, _ = await house.calls.born(new, f"01JD0000000000000000000{'ABC' if fail else 'DEF'}")
            house.clock.pass_(milliseconds=700)
            await house.calls.claim(state.call_id, 1, worker="w", stream_sid="MZ1")
            house.writer.put(state.call_id, 1, KeepUtterance(utterance("u1", 100)))
            house.writer.put(state.call_id, 1, KeepTurn(turn(1, 640)))
            house.writer.put(state.call_id, 1, KeepMemory(memory(turns=1)))
            await house.writer.flush()
            house.clock.pass_(seconds=5)
            assert await house.calls.advance(state.call_id, 1)
            await house.calls.claim(state.call_id, 2, worker="w", stream_sid="MZ2")
            house.writer.put(state.call_id, 1, KeepMemory(memory(turns=7)))
            house.writer.put(state.call_id, 2, KeepMemory(memory(turns=2)))
            await house.writer.flush()
            house.clock.pass_(seconds=31)
            await house.calls.healthy(state.call_id, 2)
            await house.calls.plan(state.call_id, 2, Intent.TRANSFER, "sales")
            await house.calls.carrier_status(new.carrier_call_sid, "in-progress", sequence=1)
            await house.writer.flush()
            with pytest.raises(Fenced):
                await house.calls.plan(state.call_id, 1, Intent.TALK)
            assert not await house.calls.advance(state.call_id, 1)
            house.clock.pass_(seconds=9)
            assert await house.calls.finish(state.call_id, filed(), epoch=2, **PRICED)
            await house.back()
            row = await house.rows.row(state.call_id)
            rows.append({k: v for k, v in row.items() if k not in ("call_id", "carrier_call_sid", "utterances", "turn_list")})
            rows[-1]["words"] = [(said["key"], said["heard"], said["epoch"]) for said in row["utterances"]]
    assert rows[0] == rows[1]


async def test_a_call_that_goes_on_through_an_outage_is_one_row_with_all_that_was_said(house):
    state, _ = await house.calls.born(new_call())
    call_id = state.call_id
    await house.calls.claim(call_id, 1, worker="w", stream_sid="MZ1")
    async with house.at_work():
        for seq in range(1, 400):
            house.writer.put(call_id, 1, line(seq))
            if seq % 10 == 0:
                house.writer.put(call_id, 1, KeepUtterance(utterance(f"u{seq}", seq, heard=f"word {seq}")))
                house.writer.put(call_id, 1, KeepMemory(memory(caller_turns=seq)))
                await asyncio.sleep(0.003)
            if seq == 100:
                house.database.fail = "before"
            if seq == 300:
                house.database.fail = None
        await until(house._written)
    assert [said.heard for said in await house.rows.history(call_id)] == [f"word {seq}" for seq in range(10, 400, 10)]
    assert [kept["seq"] for kept in await house.rows.events(call_id)] == list(range(1, 400))
    assert (await house.rows.find(call_id)).memory == memory(caller_turns=390)


async def test_what_is_unknown_here_is_not_invented(house):
    house.database.fail = "before"
    for asking in (house.calls.find("x"), house.calls.find_by_sid("CA9"), house.calls.history("x"), house.calls.advance("x", 1)):
        with pytest.raises(StoreUnavailable):
            await asking


async def test_a_status_of_a_call_unknown_here_is_kept_and_weighed_by_its_row(house):
    state, _ = await house.rows.born(new_call())
    house.database.fail = "before"
    assert await house.calls.carrier_status("CA1", "completed", sequence=4, duration_s=9) is None
    assert await house.calls.carrier_status("CA1", "ringing", sequence=1) is None
    assert await house.calls.carrier_status("CA2", "completed") is None
    await house.back()
    row = await house.rows.row(state.call_id)
    assert (row["carrier_status"], row["carrier_duration_s"]) == ("completed", 9)
    assert house.writer.refused == 0


async def test_nobody_waits_twice_for_a_database_that_hangs(house):
    house.database.fail, house.calls._patience_s = "hang", 0.2
    loop = asyncio.get_running_loop()
    began = loop.time()
    await house.calls.born(new_call("CA1"))
    assert loop.time() - began >= 0.2
    asked = house.calls._ask
    hung = 0

    async def counting(question):
        nonlocal hung
        hung += not house.writer.is_away
        return await asked(question)

    house.calls._ask = counting
    for number in range(2, 200):
        await house.calls.born(new_call(f"CA{number}"))
    assert hung == 0
    house.database.fail = None
    for task in list(house.writer._stuck):
        task.cancel()
    await house.back()
    assert len(await house.rows.latest(1_000)) == 199


async def test_a_call_named_here_that_has_a_row_under_another_name_is_entered_there(house):
    house.database.fail = "before"
    mine = (await house.calls.born(new_call()))[0].call_id
    await house.calls.claim(mine, 1, worker="w", stream_sid="MZ1")
    house.writer.put(mine, 1, KeepUtterance(utterance("u1")))
    house.writer.put(mine, 1, KeepMemory(memory()))
    house.writer.put(mine, 1, line(1))
    house.database.fail = None
    real = (await house.rows.born(new_call()))[0].call_id  # by another worker, who could see the database a moment earlier
    await house.back()
    assert house.writer.real_name(mine) == real
    house.writer.put(mine, 1, line(2))
    house.writer.put(mine, 1, KeepUtterance(utterance("u2", 500)))
    assert await house.calls.finish(mine, filed(), epoch=1, **PRICED)
    await house.back()
    row = await house.rows.row(real)
    assert (row["state"], row["claimed_epoch"], len(row["utterances"])) == ("final", 1, 2)
    assert len(await house.rows.events(real)) == 2
    assert len(await house.rows.latest(10)) == 1 and house.writer.refused == 0


async def test_who_took_the_call_over_meanwhile_is_not_overruled(house):
    state, _ = await house.calls.born(new_call())
    await house.calls.claim(state.call_id, 1, worker="w", stream_sid="MZ1")
    house.database.fail = "before"
    house.writer.put(state.call_id, 1, KeepMemory(memory(turns=9)))
    await house.calls.plan(state.call_id, 1, Intent.HANG_UP)
    assert await house.calls.finish(state.call_id, filed(), epoch=1, **PRICED)
    house.database.fail = None
    assert await house.rows.advance(state.call_id, 1)  # another worker's
    await house.back()
    now = await house.rows.find(state.call_id)
    assert (now.epoch, now.final, now.next_step, now.memory) == (2, False, Intent.TALK, None)


# ---- a process that dies meanwhile


async def test_what_a_dead_process_kept_is_written_by_the_next(database_url, tmp_path):
    async with House(database_url, tmp_path / "spool") as dead:
        dead.database.fail = "before"
        call_id = (await dead.calls.born(new_call()))[0].call_id
        await dead.calls.claim(call_id, 1, worker="w", stream_sid="MZ1")
        for seq in range(1, 2_500):
            dead.writer.put(call_id, 1, line(seq))
        dead.writer.put(call_id, 1, KeepUtterance(utterance("u1", heard="Good morning.")))
        dead.writer.put(call_id, 1, KeepTurn(turn(1, 700)))
        dead.writer.put(call_id, 1, KeepMemory(memory()))
        await dead.calls.finish(call_id, filed(), epoch=1, **PRICED)
        await dead.writer.flush()
    assert list((tmp_path / "spool").glob("*.spool"))
    async with House(database_url, tmp_path / "spool") as next_one:
        row = await next_one.rows.row(call_id)
        assert (row["state"], row["latency_p50_ms"]) == ("final", 700)
        assert [said["heard"] for said in row["utterances"]] == ["Good morning."]
        assert len(await next_one.rows.events(call_id)) == 2_499
        assert len(list((tmp_path / "spool").glob("*.spool"))) == 1  # its own


async def test_who_comes_after_a_dead_process_goes_on_with_its_calls_although_the_database_is_away(database_url, tmp_path):
    async with House(database_url, tmp_path / "spool") as dead:
        before = (await dead.calls.born(new_call("CA1")))[0].call_id
        await dead.calls.claim(before, 1, worker="w", stream_sid="MZ1")
        dead.writer.put(before, 1, KeepUtterance(utterance("u1", heard="Before the outage.")))
        await dead.writer.flush()
        dead.database.fail = "before"
        during = (await dead.calls.born(new_call("CA2")))[0].call_id
        await dead.calls.claim(during, 1, worker="w", stream_sid="MZ2")
        for call_id in (before, during):
            dead.writer.put(call_id, 1, KeepUtterance(utterance("u2", 2_000, heard="During it.")))
            dead.writer.put(call_id, 1, KeepMemory(memory(turns=3)))
        await dead.writer.flush()
    after = House(database_url, tmp_path / "spool")
    after.database.fail = "before"
    async with after:
        for sid, call_id, said in (("CA1", before, ["Before the outage.", "During it."]), ("CA2", during, ["During it."])):
            state = await after.calls.find_by_sid(sid)
            assert (state.call_id, state.epoch, state.claimed_epoch, state.memory.turns) == (call_id, 1, 1, 3)
            assert [utterance.heard for utterance in await after.calls.history(call_id)] == said
            assert await after.calls.advance(call_id, 1)
            assert await after.calls.claim(call_id, 2, worker="w2", stream_sid="MZ3")
            after.writer.put(call_id, 2, KeepUtterance(utterance("u1", 9_000, heard="After it.")))
            assert await after.calls.finish(call_id, filed(), epoch=2, **PRICED)
        await after.back()
        for call_id, said in ((before, ["Before the outage.", "During it.", "After it."]), (during, ["During it.", "After it."])):
            row = await after.rows.row(call_id)
            assert (row["state"], row["epoch"], row["claimed_epoch"], row["worker"]) == ("final", 2, 2, "w2")
            assert [utterance["heard"] for utterance in row["utterances"]] == said


# ---- several processes on one machine


async def test_what_one_process_answered_another_goes_on_with(database_url, tmp_path):
    async with House(database_url, tmp_path / "spool") as one, House(database_url, tmp_path / "spool", one.clock) as two:
        for house in (one, two):
            house.database.fail = "before"
            with pytest.raises(StoreUnavailable):
                await house.calls.find("x")
        state, _ = await one.calls.born(new_call())
        call_id = state.call_id
        again, created = await two.calls.born(new_call())  # the carrier did not hear the answer, and asks again, elsewhere
        assert (again.call_id, created, again.started_at) == (call_id, False, state.started_at)
        assert await two.calls.claim(call_id, 1, worker="two", stream_sid="MZ1")
        assert (await one.calls.find(call_id)).claimed_epoch == 1
        two.writer.put(call_id, 1, KeepUtterance(utterance("u1", heard="Good morning.")))
        two.writer.put(call_id, 1, KeepMemory(memory(turns=4)))
        await two.calls.plan(call_id, 1, Intent.HANG_UP)
        there = await one.calls.find_by_sid("CA1")
        assert (there.next_step, there.claimed_epoch, there.worker, there.memory.turns) == (Intent.HANG_UP, 1, "two", 4)
        assert [said.heard for said in await one.calls.history(call_id)] == ["Good morning."]
        assert await two.calls.finish(call_id, filed(), epoch=1, **PRICED)
        assert (await one.calls.carrier_status("CA1", "completed", sequence=2, duration_s=3)).final
        await two.back()  # whoever is first: the row is whole
        row = await two.rows.row(call_id)
        assert (row["state"], row["from_number"], row["claimed_epoch"], len(row["utterances"])) == ("final", CALLER, 1, 1)
        await one.back()
        row = await one.rows.row(call_id)
        assert (row["carrier_status"], row["carrier_duration_s"], row["end_reason"]) == ("completed", 3, "agent_ended")
        assert len(await one.rows.latest(10)) == 1
        assert one.writer.refused == two.writer.refused == 0


# ---- rule 2: the state in memory is the row


STEPS = [
    (1, Claimed(worker="a", stream_sid="MZ1")),
    (1, Claimed(worker="b", stream_sid="MZ2")),
    (2, Claimed(worker="b", stream_sid="MZ2")),
    (1, Planned(next_step=Intent.TRANSFER, transfer_to="sales")),
    (2, Planned(next_step=Intent.HANG_UP, transfer_to=None)),
    (1, Advanced()),
    (2, Advanced()),
    (1, Healthy()),
    (2, Healthy()),
    (1, KeepMemory(memory(turns=1))),
    (2, KeepMemory(memory(turns=2))),
    (1, CarrierSaid(sid="CA1", status="in-progress", sequence=1, duration_s=None)),
    (1, CarrierSaid(sid="CA1", status="ringing", sequence=0, duration_s=None)),
    (1, CarrierSaid(sid="CA1", status="nonsense", sequence=0, duration_s=None)),
    (1, Finished(filed=filed(), fenced=True)),
    (2, Finished(filed=filed(outcome=Outcome.FAILED), fenced=True)),
    (9, Finished(filed=filed(outcome=Outcome.FAILED), fenced=False)),
]


async def test_a_state_in_memory_is_what_the_row_would_be_whatever_the_order(house):
    dice, compared = random.Random(5), 0
    for number in range(60):
        sid = f"CA{number}"
        state, _ = await house.rows.born(new_call(sid))
        for epoch, change in dice.choices(STEPS, k=7):
            if isinstance(change, CarrierSaid):
                change = CarrierSaid(sid=sid, status=change.status, sequence=change.sequence, duration_s=None)
            house.clock.pass_(seconds=1)
            expected = late.after(state, epoch, change, house.clock.now)
            house.writer.put(state.call_id, epoch, change)
            await house.writer.flush()
            row = await house.rows.find(state.call_id)
            for field in fields(CallState):
                assert getattr(row, field.name) == getattr(expected or state, field.name), (number, epoch, change, field.name)
            compared += expected is not None
            state = row
    assert compared > 120


async def test_what_is_remembered_is_bounded_and_calls_that_are_over_are_forgotten(house):
    for number in range(40):
        state, _ = await house.calls.born(new_call(f"CA{number}"))
        if number % 2:
            await house.calls.finish(state.call_id, filed(), epoch=1, **PRICED)
    assert len(house.calls._calls) == 40
    house.clock.pass_(**{"seconds": (module.OVER + timedelta(seconds=1)).total_seconds()})
    for number in range(40, 80):
        await house.calls.born(new_call(f"CA{number}"))
    assert {known.state.final for known in house.calls._calls.values()} == {False}
    house.calls._most = 10
    await house.calls.born(new_call("CA-last"))
    for number in range(80, 160):
        await house.calls.born(new_call(f"CA{number}"))
    assert len(house.calls._calls) <= 11
    assert len(house.calls._by_sid) == len(house.calls._calls)


# ---- clocks that jump


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
async def test_a_clock_that_is_set_in_the_midst_of_a_call_changes_nothing_of_its_length(house, hours):
    steady = [100.0]
    house.calls._steady = lambda: steady[0]
    state, _ = await house.calls.born(new_call())
    house.clock.pass_(seconds=3)
    steady[0] += 3
    house.clock.pass_(hours=hours)
    state = await house.calls.find(state.call_id)
    assert house.calls.age_ms(state) == 3_000
    assert house.rows.age_ms(state) >= 0
    await house.calls.claim(state.call_id, 1, worker="w", stream_sid=None)
    await house.calls.finish(state.call_id, filed(ended_at=house.calls.age_ms(state)), epoch=1, **PRICED)
    row = await house.rows.row(state.call_id)
    assert row["duration_ms"] == 3_000 and row["ended_at"] >= row["started_at"]
