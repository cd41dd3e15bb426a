"""The file in which the journal waits: what was acknowledged is there, torn, full, found, sealed or strange as it may be."""

import asyncio
import errno
import os
import signal
import sys

import pytest
from structlog.testing import capture_logs

from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.disposition import Intent
from app.errors import StoreUnavailable
from app.store import spool as module
from app.store.calls import Calls
from app.store.facts import NewCall
from app.store.late import CHANGES, Advanced, CarrierSaid, Claimed, Finished, Healthy, Known, Planned, newborn
from app.store.private import Seal
from app.store.spool import KINDS, Spool, whose_spool
from app.store.writer import Writer
from tests.store.shelf import KEY, OTHER_KEY, Clock, filed, line, memory, new_call, turn, utterance
from tests.store.test_daybook import Away

NOW = Clock().now
MB = 2**20


@pytest.fixture
async def spool(tmp_path):
    spool = Spool(tmp_path, "db", Seal(), MB)
    await spool.open()
    yield spool
    await spool.close()


def fact(position, item, call_id="c", epoch=1):
    return (call_id, epoch, position, NOW, item)


def some_lines(*numbers, **more):
    return [("c", 1, line(number, **more)) for number in numbers]


EVERYTHING = [
    new_call(),
    KeepUtterance(utterance("u1", heard="Grüße\x00 \ud800 \"quoted\" \n line")),
    KeepTurn(turn(1)),
    KeepTool("t1", "note_slot", "front-desk", True, '{"a": 1}', '"no"'),
    KeepMemory(memory()),
    Claimed(worker="w", stream_sid=None),
    Planned(next_step=Intent.TRANSFER, transfer_to="sales"),
    Advanced(),
    Healthy(),
    CarrierSaid(sid="CA1", status="completed", sequence=None, duration_s=3),
    Finished(filed=filed(), fenced=True),
    Known(state=newborn("c", new_call(), NOW), said=(utterance("u1"),)),
]  # fmt: skip


async def all_of(spool, *, own=True):
    lines, facts = [], []
    while portion := await spool.next(7, own=own):
        lines += portion.lines
        facts += portion.facts
    return lines, facts


def test_everything_that_can_be_put_can_be_kept():
    assert (
        {type(item) for item in EVERYTHING}
        == set(KINDS.values())
        == {NewCall, KeepUtterance, KeepTurn, KeepTool, KeepMemory, *CHANGES}
    )


@pytest.mark.parametrize("key", [None, KEY])
async def test_what_was_kept_comes_back_as_it_was_and_in_its_order(tmp_path, key):
    spool = Spool(tmp_path, "db", Seal(key), MB)
    await spool.open()
    facts = [fact(number, item) for number, item in enumerate(EVERYTHING)]
    lines = some_lines(*range(50), private={"text": "a-private-word"}, data={"x": [1, None, "é"]})
    assert await spool.append(lines[:20], facts[:5]) == (0, 0)
    assert await spool.append(lines[20:], facts[5:]) == (0, 0)
    back_lines, back_facts = await all_of(spool)
    assert back_lines == lines
    kept = [item for *_, item in facts]
    kept[1] = KeepUtterance(utterance("u1", heard='Grüße ? "quoted" \n line'))
    assert back_facts == [fact(number, item) for number, item in enumerate(kept)]
    on_disk = b"".join(path.read_bytes() for path in tmp_path.glob("*.spool"))
    assert on_disk and (b"a-private-word" in on_disk) is (key is None)
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    await spool.committed(own=True)
    assert not spool.holds_own and not any(path.stat().st_size for path in tmp_path.glob("*.spool"))
    await spool.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_portion_that_was_not_committed_is_given_out_again(spool):
    await spool.append(some_lines(*range(10)), [])
    first = await spool.next(4, own=True)
    assert [one[2].seq for one in first.lines] == [0, 1, 2, 3]
    await spool.again(own=True)
    assert await spool.next(4, own=True) == first
    await spool.append(some_lines(10, 11), [])
    lines, _ = await all_of(spool)
    assert [one[2].seq for one in lines] == list(range(4, 12))


async def test_a_dead_process_is_known_by_its_lock_and_its_file_is_taken_over_once(spool, tmp_path):
    await spool.append(some_lines(1), [])
    one, two = Spool(tmp_path, "db", Seal(), MB), Spool(tmp_path, "db", Seal(), MB)
    stranger = Spool(tmp_path, "another", Seal(), MB)
    await one.open()
    assert not one.holds_found and await one.adopt() == 0
    await spool.close()
    await stranger.open()
    found = await asyncio.gather(one.adopt(), two.adopt(), stranger.adopt())
    assert sorted(found) == [0, 0, 1] and not stranger.holds_found
    holder = one if one.holds_found else two
    lines, _ = await all_of(holder, own=False)
    assert [line[2].seq for line in lines] == [1]
    await holder.committed(own=False)
    assert not holder.holds_found
    for other in (one, two, stranger):
        await other.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tail", [b'12345678 ["c"', b"\x00" * 300, b"x"])
async def test_a_torn_tail_is_passed_over(tmp_path, tail):
    dead = Spool(tmp_path, "db", Seal(), MB)
    await dead.open()
    await dead.append(some_lines(1, 2), [])
    await dead.close()
    (path,) = tmp_path.glob("*.spool")
    path.write_bytes(path.read_bytes() + tail)
    spool = Spool(tmp_path, "db", Seal(), MB)
    await spool.open()
    lines, _ = await all_of(spool, own=False)
    assert [line[2].seq for line in lines] == [1, 2]
    await spool.committed(own=False)
    await spool.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["flipped", "another key", "another version"])
async def test_what_cannot_be_read_is_put_aside_and_the_rest_is_given_out(tmp_path, harm):
    dead = Spool(tmp_path, "db", Seal(KEY if harm == "another key" else None), MB)
    await dead.open()
    await dead.append(some_lines(1, 2, 3), [])
    await dead.close()
    (path,) = tmp_path.glob("*.spool")
    if harm == "flipped":
        path.write_bytes(path.read_bytes().replace(b'"m2"', b'"m9"'))
    elif harm == "another version":
        text = b'["c",1,0,null,"Dream",{}]'
        path.write_bytes(path.read_bytes() + b"%08x %b\n" % (module.zlib.crc32(text), text))
    spool = Spool(tmp_path, "db", Seal(OTHER_KEY if harm == "another key" else None), MB)
    await spool.open()
    lines, _ = await all_of(spool, own=False)
    assert [line[2].seq for line in lines] == {"flipped": [1, 3], "another key": [], "another version": [1, 2, 3]}[harm]
    with capture_logs() as logged:
        await spool.committed(own=False)
    await spool.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".unread"]
    assert logged[0]["log_level"] == "error"


async def test_when_the_file_is_full_lines_are_given_up_and_facts_are_kept(tmp_path):
    spool = Spool(tmp_path, "db", Seal(), 40_000)
    await spool.open()
    given_up, kept = 0, 0
    with capture_logs() as logged:
        for number in range(100):
            lost, _ = await spool.append(some_lines(*range(number * 10, number * 10 + 10)), [fact(number, KeepTurn(turn(number)))])
            given_up += lost
            kept += 1
            if spool.size > 39_000:
                break
    assert spool.is_full and given_up > 0
    assert len([entry for entry in logged if entry["log_level"] == "error"]) == 1
    lines, facts = await all_of(spool)
    assert len(facts) == kept and len(lines) == kept * 10 - given_up
    with pytest.raises(OSError, match="full"):
        for number in range(1_000):
            await spool.append([], [fact(number, KeepTurn(turn(number)))])
    assert spool.size <= 40_000
    await all_of(spool)
    await spool.committed(own=True)
    assert not spool.is_full and await spool.append(some_lines(1), []) == (0, 0)
    await spool.close()


class Disk:
    """A disk that takes so many bytes more, and keeps the ballast's room among them."""

    def __init__(self, monkeypatch, folder, room):
        self._folder, self.room, self._write = folder, room, os.write
        monkeypatch.setattr(module.os, "write", self.write)
        monkeypatch.setattr(module, "free_bytes", lambda folder: self.room)

    def write(self, descriptor, data):
        free = self.room + (0 if list(self._folder.glob("*.ballast")) else 10_000)
        if len(data) > free:
            if free > 0:
                self._write(descriptor, bytes(data[: free // 2]))  # half of it lands
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)
        return self._write(descriptor, data)


async def test_when_the_disk_is_full_lines_are_given_up_and_the_facts_find_the_room_that_was_kept(spool, tmp_path, monkeypatch):
    await spool.append(some_lines(1, 2), [fact(0, KeepTurn(turn(0)))])
    assert list(tmp_path.glob("*.ballast"))
    disk = Disk(monkeypatch, tmp_path, 500)
    with capture_logs() as logged:
        assert await spool.append(some_lines(*range(3, 40)), [fact(1, KeepTurn(turn(1)))]) == (37, 0)
        assert await spool.append(some_lines(*range(40, 90)), [fact(2, KeepMemory(memory()))]) == (50, 0)
    assert [entry["errno"] for entry in logged] == [errno.ENOSPC]
    lines, facts = await all_of(spool)
    assert [line[2].seq for line in lines] == [1, 2]
    assert [kept[2] for kept in facts] == [0, 1, 2]
    with pytest.raises(OSError):
        for number in range(100):
            await spool.append([], [fact(number, KeepMemory(memory()))])
    kept = len((await all_of(spool))[1])
    disk.room = 10 * MB
    assert await spool.append(some_lines(90), []) == (0, 0)
    assert not spool.is_full and kept > 0
    assert [line[2].seq for line in (await all_of(spool))[0]] == [90]  # nothing of what went before is torn


async def test_without_room_on_the_disk_what_waits_stays_in_memory_and_lines_go_before_facts(database_url, tmp_path, monkeypatch):
    database = Away(database_url)
    calls = Calls(database)
    call_id = (await calls.born(new_call()))[0].call_id
    spool = Spool(tmp_path / "spool", "db", Seal(), MB)
    writer = Writer(database, spool=spool, limit=40)
    await writer.open()
    database.fail = "before"
    disk = Disk(monkeypatch, tmp_path / "spool", -10_000)
    for number in range(60):
        writer.put(call_id, 1, line(number))
        if number % 4 == 0:
            writer.put(call_id, 1, KeepUtterance(utterance(f"u{number}")))
        with pytest.raises(StoreUnavailable):
            await writer.flush()
    assert writer.waiting == 40 and writer.dropped_facts == 0 and writer.dropped_lines == 35
    assert writer.is_overwhelmed
    disk.room = 10 * MB
    await writer.flush()
    assert writer.waiting == 0 and spool.holds_own
    database.fail, writer._try_at = None, 0.0
    while spool.holds_own or writer.is_away:
        await writer._catch_up()
    assert len(await calls.history(call_id)) == 15
    assert [kept["seq"] for kept in await calls.events(call_id)] == list(range(35, 60))
    assert not writer.is_overwhelmed
    await writer.close()
    await database.close()


async def test_a_folder_that_cannot_be_made_costs_the_spool_and_nothing_else(tmp_path, sqlite_url):
    (tmp_path / "file").write_text("")
    database = Away(sqlite_url)
    writer = Writer(database, spool=Spool(tmp_path / "file" / "spool", "db", Seal(), MB))
    with capture_logs() as logged:
        await writer.open()
    assert logged[0]["log_level"] == "error"
    call_id = (await Calls(database).born(new_call()))[0].call_id
    writer.put(call_id, 1, line(1))
    await writer.flush()
    await writer.close()
    await database.close()


def test_a_database_has_a_name_of_its_own_and_its_password_is_not_in_it():
    names = [
        whose_spool(url)
        for url in (
            "postgresql://a:secret@host/one",
            "postgresql://a:secret@host/two",
            "postgresql://a:secret@other/one",
            "postgresql:///one?host=/run/pg",
            "sqlite:///var/one.db",
            "sqlite:///var/two.db",
        )
    ]
    assert len(set(names)) == 6
    assert whose_spool("postgres://b:changed@host/one") != names[1]
    assert whose_spool("postgresql://b:changed@host/one") == names[0]


KEEPER = """
import asyncio, sys
from pathlib import Path
from app.store.private import Seal
from app.store.spool import Spool
from tests.store.shelf import line
from app.call.commands import KeepUtterance
from tests.store.shelf import utterance, Clock

async def main(folder):
    spool = Spool(Path(folder), "db", Seal(), 2**28)
    await spool.open()
    for number in range(1_000_000):
        lines = [("c", 1, line(number * 10 + k)) for k in range(10)]
        await spool.append(lines, [("c", 1, number, Clock().now, KeepUtterance(utterance(f"u{number}", heard="word " * 50)))])
        print(number, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path):
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KEEPER, str(tmp_path), stdout=asyncio.subprocess.PIPE)
    acknowledged = -1
    async for said in process.stdout:
        acknowledged = int(said)
        if acknowledged >= 60:
            process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    spool = Spool(tmp_path, "db", Seal(), MB)
    await spool.open()
    lines, facts = await all_of(spool, own=False)
    assert len(facts) > acknowledged >= 60
    assert [kept[2] for kept in facts] == list(range(len(facts)))
    assert [kept[2].seq for kept in lines] == list(range(len(lines))) and len(lines) >= (acknowledged + 1) * 10
    await spool.close()
