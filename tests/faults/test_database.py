"""The database is locked or down while people telephone: real sockets, the whole service, on both databases."""

import asyncio

import pytest

from app.store import writer as writing
from app.store.calls import Calls
from app.store.engine import Database
from tests.faults.in_process import Outage, service, until


@pytest.fixture
def outage(request, database_url):
    administration = None if database_url.startswith("sqlite") else request.getfixturevalue("postgres").url("postgres")
    outage = Outage(database_url, administration)
    yield outage
    outage.back()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(writing, "LONGEST_BACKOFF_S", 0.5)


async def finished(database_url, sid):
    """The call's finished row, once it stands."""
    database = Database(database_url)
    calls = Calls(database)
    try:
        async with asyncio.timeout(60):
            while True:
                row = await calls.row(sid)
                if row is not None and row["state"] == "final":
                    return row, await calls.events(row["call_id"])
                await asyncio.sleep(0.05)
    finally:
        await database.close()


def words(row):
    return [said["heard"] for said in row["utterances"]]


def whole(events):
    """The journal has no gap: each stream's lines are numbered from one."""
    for epoch in {line["epoch"] for line in events}:
        numbers = [line["seq"] for line in events if line["epoch"] == epoch]
        assert numbers == list(range(1, len(numbers) + 1))
    return True


async def test_a_call_goes_on_while_the_database_is_away_and_every_word_is_in_its_row(database_url, tmp_path, outage):
    async with service(database_url, tmp_path) as house:
        phone, session = await house.call()
        await phone.heard_out(session, 1)
        for number in range(12):
            if number == 3:
                await outage.away()
            if number == 9:
                outage.back()
            await session.caller_says(f"caller word {number}")
            await until(lambda number=number: session.answered == number + 2)
            await until(lambda: phone.marks and phone.heard)
            await asyncio.sleep(0.2)
        await phone.hangs_up()
        row, events = await finished(database_url, phone.sid)
    assert [word for word in words(row) if word.startswith("caller")] == [f"caller word {number}" for number in range(12)]
    assert len([word for word in words(row) if word.startswith("agent")]) == 13
    assert (row["outcome"], row["end_reason"], row["turns"], row["carrier_status"]) == (
        "completed",
        "caller_hung_up",
        12,
        "completed",
    )
    assert whole(events) and len(events) > 60


async def test_a_call_that_begins_and_ends_while_the_database_is_away_has_one_finished_row(database_url, tmp_path, outage):
    async with service(database_url, tmp_path) as house:
        await outage.away()
        phone, session = await house.call()
        again = await phone.post("voice", CallStatus="ringing")
        assert again.status_code == 200
        await phone.heard_out(session, 1)
        for number in range(3):
            await session.caller_says(f"caller word {number}")
            await phone.heard_out(session, number + 2)
        await phone.hangs_up()
        other, _ = await house.call(2)
        await other.socket.close()  # the stream breaks: what follows is asked at once, and the database is still away
        await other.follow(await other.post("resume?epoch=1"))
        assert other.streams == 2
        await until(lambda: len(house.model.sessions) == 3 and house.model.sessions[2].answered)
        outage.back()
        await other.hangs_up()
        row, events = await finished(database_url, phone.sid)
        second, _ = await finished(database_url, other.sid)
    assert [word for word in words(row) if word.startswith("caller")] == ["caller word 0", "caller word 1", "caller word 2"]
    assert (row["outcome"], row["end_reason"], row["from_number"]) == ("completed", "caller_hung_up", "+15551230000")
    assert whole(events)
    assert (second["epoch"], second["claimed_epoch"], second["state"]) == (2, 2, "final")


async def test_a_tool_that_changes_something_is_refused_and_says_so(database_url, tmp_path, outage):
    async with service(database_url, tmp_path) as house:
        phone, session = await house.call()
        await phone.heard_out(session, 1)
        await outage.away()
        await session.calls_tool("take_message", {"message": "Please call."})
        await session.caller_says("please take a message")
        outputs = []

        def answered():
            items = [m["item"] for m in session.received if m["type"] == "conversation.item.create"]
            outputs[:] = [item["output"] for item in items if item["type"] == "function_call_output"]
            return outputs

        await until(answered)
        outage.back()
        await phone.hangs_up()
        row, _ = await finished(database_url, phone.sid)
    # the tool's time may be up before the ledger's: the agent is told that it did not work all the same
    assert any(words in outputs[0].lower() for words in ("nothing was done", "nothing was changed", "did not work")), outputs
    assert all(tool["status"] != "done" for tool in row["tool_invocations"])
