"""A file on local disk, in which the journal waits for a database that is away; and the files of processes that died meanwhile.

One file a process, held by a lock for as long as the process lives: whoever can lock a file has found a dead one's, and replays it.

Rule 1: append only, a line a record: a checksum, then JSON, sealed where there is a key (`private.py`). What `append` has returned
from is on the disk and survives the process. A line cut short at the end was never acknowledged, and is passed over.
Rule 2: records come back in the order in which they were appended, the oldest file first, and are kept until all of a file has been
committed: a replay that is cut short begins anew, and does nothing twice (`writer.py`, rule 3).
Rule 3: the file is bounded. Before it is full, or when the disk is, lines of the journal are given up and facts are not; some room
is kept for those (`BALLAST`).
Rule 4: a file that holds what cannot be read here (another key, another version) is put aside for a person, and never deleted.
Rule 5: everything here runs in one thread of its own; the loop only waits for it.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import make_url

from app import logs
from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.journal import Line as JournalLine
from app.errors import CallrowError
from app.store.facts import NewCall
from app.store.late import CHANGES, Kept, Line
from app.store.private import Seal, to_json

log = logs.logger("store")

PLACE = "spool"
"""What a sealed record is bound to."""
BALLAST = 4 * 1024 * 1024
"""Bytes on the disk that are given back when it is full, so that the facts of live calls still find room."""
FOR_FACTS = 8
"""One part in eight of the file is for facts alone."""
BLOCK = 256 * 1024

KINDS: dict[str, type] = {kind.__name__: kind for kind in (NewCall, KeepUtterance, KeepTurn, KeepTool, KeepMemory, *CHANGES)}
LINE = "Line"
_head = msgspec.json.Decoder(tuple[str, int, int, datetime | None, str, msgspec.Raw])
_bodies: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(kind) for name, kind in {**KINDS, LINE: JournalLine}.items()
}


@dataclass(slots=True)
class Portion:
    """Some records, in their order."""

    lines: list[Line] = field(default_factory=list)
    facts: list[Kept] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines) + len(self.facts)


class Unreadable(Exception):
    """A record that is whole and cannot be understood here."""


class _File:
    """A spool file that this process has locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self.size = os.fstat(descriptor).st_size
        self.given_from = self.given_to = 0
        """Where the records lie that were given out last."""
        self.unreadable = 0

    def write(self, data: bytes) -> None:
        """Append and make durable, or leave the file as it was. Raises OSError."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
            os.fdatasync(self.descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.descriptor, self.size)
            raise
        self.size += len(data)

    def empty(self) -> None:
        """All of it has been committed."""
        os.ftruncate(self.descriptor, 0)
        os.fdatasync(self.descriptor)
        self.size = self.given_from = self.given_to = self.unreadable = 0

    def records(self, begin: int) -> Iterator[tuple[bytes, int]]:
        """Whole lines from there on, each with the place where the next begins."""
        rest, place = b"", begin
        while block := os.pread(self.descriptor, BLOCK, place + len(rest)):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                place += len(line) + 1
                yield line, place

    def close(self, *, remove: bool) -> None:
        if remove:
            with suppress(OSError):
                self.path.unlink()
        os.close(self.descriptor)


class Spool:
    """The spool of one process.

    Args:
        folder: where all processes of this machine keep theirs.
        whose: the database it waits for (`whose_spool`); files that wait for another are left alone.
        seal: seals and opens the records.
        limit: bytes that this process's file may have at most.
    """

    def __init__(self, folder: Path, whose: str, seal: Seal, limit: int) -> None:
        self._folder, self._whose, self._seal, self._limit = folder, whose, seal, limit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._own: _File | None = None
        self._found: list[_File] = []
        self._ballast: Path | None = None
        self._full = self._closed = self._thread_ended = False
        self._seen: dict[str, int] = {}

    # ---- what the loop may ask at any time

    @property
    def holds_own(self) -> bool:
        """Whether this process's file has records that have not been committed."""
        return self._own is not None and self._own.size > 0

    @property
    def holds_found(self) -> bool:
        """Whether there are files of dead processes here that have not been committed."""
        return bool(self._found)

    @property
    def is_full(self) -> bool:
        """Lines of the journal are being given up for want of room."""
        return self._full

    @property
    def size(self) -> int:
        """Bytes of this process's own file."""
        return self._own.size if self._own is not None else 0

    async def open(self) -> bool:
        """Make this process's file, and take over those of dead ones. False: none can be made here, which is logged."""
        return await self._run(self._open)

    async def adopt(self) -> int:
        """Take over the files of processes that are dead. How many."""
        return await self._run(self._adopt)

    async def append(self, lines: list[Line], facts: list[Kept]) -> tuple[int, int]:
        """Put these on the disk; when it returns they are there.

        Returns:
            How many lines were given up for want of room, and how many items could not be put into words at all.

        Raises:
            OSError: not even the facts could be kept; nothing was.
        """
        return await self._run(lambda: self._append(lines, facts))

    async def next(self, most: int, *, own: bool) -> Portion:
        """The next records, at most so many: of this process's file, or of the oldest that was found. None left: an empty one."""
        return await self._run(lambda: self._next(most, own))

    async def again(self, *, own: bool) -> None:
        """What was given out last may not be in the database: give it out again."""
        await self._run(lambda: self._again(own))

    async def committed(self, *, own: bool) -> None:
        """All that the file held has been given out and is in the database: let go of it."""
        await self._run(lambda: self._committed(own))

    async def facts(self) -> list[Kept]:
        """All facts in the files of dead processes, in their order: what those knew, for who goes on with their calls."""
        return await self._run(lambda: [fact for file in self._found for fact in self._portion(file, 0, None)[0].facts])

    async def news(self) -> list[Kept]:
        """Facts that other processes of this machine have put on the disk since this was asked last; they may live."""
        return await self._run(self._news)

    async def close(self) -> None:
        """Let go of the files. What has not been committed stays on the disk for whoever finds it."""
        if not self._closed:
            self._closed = True
            await self._run(self._close)
            self._thread_ended = True
            self._thread.shutdown(wait=False)

    async def _run[T](self, work: Callable[[], T]) -> T:
        """Raises OSError if it has been closed."""
        if self._thread_ended:
            raise OSError("the spool is closed")
        # shielded: a caller may be cancelled, a write to the disk may not be left half done
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    # ---- in the thread

    def _open(self) -> bool:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = f"{time.time_ns() // 1_000_000:013d}-{os.getpid()}-{secrets.token_hex(3)}.{self._whose}"
            while self._own is None:
                self._own = _locked(self._folder / f"{name}.spool", os.O_CREAT)
            self._ballast = self._folder / f"{name}.ballast"
            self._lay_ballast()
            _sync_folder(self._folder)
        except OSError as fault:
            log.error("no spool can be kept; an outage of the database is waited out in memory", errno=fault.errno)
            return False
        self._adopt()
        return True

    def _adopt(self) -> int:
        if self._closed:
            return 0
        before = len(self._found)
        mine = {file.path for file in (*self._found, *([self._own] if self._own is not None else ()))}
        try:
            names = sorted(self._folder.glob(f"*.{self._whose}.spool"))
        except OSError:
            return 0
        for path in names:
            if path in mine:
                continue
            with suppress(OSError):
                file = _locked(path, 0)
                if file is None:
                    continue
                path.with_suffix(".ballast").unlink(missing_ok=True)
                if file.size == 0:
                    file.close(remove=True)
                    continue
                log.warning("a spool was found whose process is gone", name=path.name, size=file.size)
                self._found.append(file)
        return len(self._found) - before

    def _news(self) -> list[Kept]:
        facts: list[Kept] = []
        mine = {file.path for file in (*self._found, *([self._own] if self._own is not None else ()))}
        for path in sorted(self._folder.glob(f"*.{self._whose}.spool")):
            if path in mine:
                continue
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    file, begin = _File(path, descriptor), self._seen.get(path.name, 0)
                    portion, self._seen[path.name], _ = self._portion(file, begin if begin <= file.size else 0, None)
                    facts += portion.facts
                finally:
                    os.close(descriptor)
        return facts

    def _append(self, lines: list[Line], facts: list[Kept]) -> tuple[int, int]:
        if self._own is None:
            raise OSError("there is no spool")
        worded_facts, worded_lines = list(self._worded(facts)), list(self._worded(lines))
        unsayable = len(facts) + len(lines) - len(worded_facts) - len(worded_lines)
        fact_data, line_data = b"".join(worded_facts), b"".join(worded_lines)
        if self._own.size + len(fact_data) > self._limit:
            self._say_full(None)
            raise OSError("the spool is full")
        room = self._limit - self._limit // FOR_FACTS
        if self._own.size + len(fact_data) + len(line_data) > room:
            self._say_full(None)
        elif self._full and free_bytes(self._folder) > 2 * BALLAST:
            self._full = False
            self._lay_ballast()
        given_up, data = (len(worded_lines), fact_data) if self._full else (0, fact_data + line_data)
        try:
            self._own.write(data)
        except OSError as fault:
            self._say_full(fault.errno)
            self._drop_ballast()
            self._own.write(fact_data)
            given_up = len(worded_lines)
        return given_up, unsayable

    def _say_full(self, errno: int | None) -> None:
        if not self._full:
            self._full = True
            log.error("the spool has no room; lines of the journal are given up, facts are kept", errno=errno, size=self.size)

    def _worded(self, items: Iterable[Line] | Iterable[Kept]) -> Iterator[bytes]:
        for item in items:
            try:
                text = _text(item)
            except (TypeError, ValueError, OverflowError) as fault:
                log.error("an item cannot be put into words", call_id=item[0], fault=type(fault).__name__)
                continue
            data = self._seal.close(text, PLACE).encode()
            yield b"%08x %b\n" % (zlib.crc32(data), data)

    def _next(self, most: int, own: bool) -> Portion:
        file = self._present(own)
        if file is None:
            return Portion()
        file.given_from = file.given_to
        portion, file.given_to, unreadable = self._portion(file, file.given_from, most)
        file.unreadable += unreadable
        return portion

    def _present(self, own: bool) -> _File | None:
        return self._own if own else next(iter(self._found), None)

    def _portion(self, file: _File, begin: int, most: int | None) -> tuple[Portion, int, int]:
        portion, place, unreadable = Portion(), begin, 0
        for record, place in file.records(begin):  # noqa: B007 (where the next begins, after the loop as well)
            try:
                item = self._read(record)
            except Unreadable:
                unreadable += 1
                continue
            if len(item) == 3:
                portion.lines.append(item)
            else:
                portion.facts.append(item)
            if most is not None and len(portion) >= most:
                break
        return portion, place, unreadable

    def _read(self, record: bytes) -> Line | Kept:
        checksum, _, data = record.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(data):
            raise Unreadable
        try:
            text = self._seal.open(data.decode(), PLACE)
            call_id, epoch, position, at, kind, body = _head.decode(text)
            item = _bodies[kind].decode(body)
        except (CallrowError, KeyError, ValueError, msgspec.MsgspecError) as fault:
            raise Unreadable from fault
        return (call_id, epoch, item) if at is None else (call_id, epoch, position, at, item)

    def _committed(self, own: bool) -> None:
        file = self._present(own)
        if file is None:
            return
        if file.unreadable:  # rule 4
            log.error("a spool holds what cannot be read; it is put aside", name=file.path.name, records=file.unreadable)
            _put_aside(file.path, keep_it=own)
        if own:
            file.empty()
            self._full = False
            self._lay_ballast()
        else:
            self._found.remove(file)
            file.close(remove=True)

    def _again(self, own: bool) -> None:
        file = self._present(own)
        if file is not None:
            file.given_to = file.given_from

    def _lay_ballast(self) -> None:
        if self._ballast is None:
            return
        with suppress(OSError):  # a disk without so much room has none to keep
            descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, min(BALLAST, self._limit // FOR_FACTS))
            except OSError:
                self._ballast.unlink()
            finally:
                os.close(descriptor)

    def _drop_ballast(self) -> None:
        if self._ballast is not None:
            self._ballast.unlink(missing_ok=True)

    def _close(self) -> None:
        self._drop_ballast()
        for file in self._found:
            file.close(remove=False)
        self._found = []
        if self._own is not None:
            self._own.close(remove=self._own.size == 0)
            self._own = None


def whose_spool(url: str) -> str:
    """A short name for a database, from its address without the password."""
    address = make_url(url)
    place = str(Path(address.database or "").absolute()) if address.get_backend_name() == "sqlite" else address.database
    of = f"{address.get_backend_name()}\0{address.host}\0{address.port}\0{address.query.get('host')}\0{place}"
    return hashlib.sha256(of.encode()).hexdigest()[:12]


def _text(item: Line | Kept) -> str:
    """A record's words. Raises TypeError or ValueError for what no words are made of."""
    if len(item) == 3:
        call_id, epoch, line = item
        return to_json((call_id, epoch, line.seq, None, LINE, line))
    call_id, epoch, position, at, fact = item
    return to_json((call_id, epoch, position, at, type(fact).__name__, fact))


def _locked(path: Path, create: int) -> _File | None:
    """The file, if it can be locked: then whoever made it is gone. None: it cannot, or it is not there any more. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | create, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:  # else it was removed while we reached for it
            return _File(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _put_aside(path: Path, *, keep_it: bool) -> None:
    aside = path.with_suffix(".unread")
    if keep_it:
        aside.write_bytes(path.read_bytes())
        aside.chmod(0o600)
    else:
        path.rename(aside)


def free_bytes(folder: Path) -> int:
    """What the disk has left for us."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
