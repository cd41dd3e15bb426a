"""One database, chosen by its address alone: SQLite in a file beside us, or PostgreSQL for many machines.

Rule 1: SQLite has one writing connection a process, and a transaction that writes says so when it begins (BEGIN IMMEDIATE). With
SQLite's own way of beginning, two that read and then write lose one of the writes without an error.
Rule 2: whatever says that the database cannot be had now becomes `StoreUnavailable`. What says that we asked for nonsense does not.
Rule 3: no error carries a value: neither the parameters of a statement nor PostgreSQL's "Failing row contains ...".
Rule 4: nothing waits for ever: a connection, a lock and a whole transaction each have a limit.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app.errors import BadSetting, StoreUnavailable
from app.store.private import Seal, to_json, use_seal

BUSY_MS = 5_000
LIMIT_S = 15.0
"""No transaction of the service takes longer; one that does is given up and its connection closed."""
PLANNING = ("jit = off", "max_parallel_workers_per_gather = 0", "random_page_cost = 1.1")
"""What PostgreSQL is told of us: our questions are short (compiling one, or starting workers for it, takes longer than to answer
it, and the other processors are busy with calls), and what they read is in memory or on a disk without a moving arm."""


class Database:
    """The engines of one database.

    Args:
        url: `sqlite:///path`, `postgres://...` or `postgresql://...`.
        key: 32 bytes in base64 with which private columns are sealed; None keeps them as text.

    Raises:
        BadSetting: the address or the key is wrong.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        address = async_url(url)
        self.seal = Seal(key)
        self.embedded = address.get_backend_name() == "sqlite"
        """SQLite: one machine, one web worker at a time."""
        common: dict[str, Any] = {
            "hide_parameters": True,
            "json_serializer": to_json,
            "json_deserializer": msgspec.json.decode,
        }
        if self.embedded:
            make_folder(address)
            self._writing = create_async_engine(address, pool_size=1, max_overflow=0, pool_timeout=LIMIT_S, **common)
            self._reading = create_async_engine(address, pool_size=4, max_overflow=4, pool_timeout=LIMIT_S, **common)
            _sqlite_hooks(self._writing.sync_engine, begin="BEGIN IMMEDIATE")
            _sqlite_hooks(self._reading.sync_engine, begin="BEGIN", read_only=True)
        else:
            self._writing = self._reading = create_async_engine(
                address, pool_size=8, max_overflow=8, pool_timeout=5, pool_pre_ping=True, connect_args=_patience(address), **common
            )
            _postgres_hooks(self._writing.sync_engine)
        for engine in (self._writing, self._reading):
            use_seal(engine.dialect, self.seal)

    @asynccontextmanager
    async def write(self, doing: str = "write") -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block and rolled back if it raises.

        Raises:
            StoreUnavailable: the database cannot be had; nothing is known to be written.
        """
        async with _outage(doing), self._writing.begin() as connection, _cancellable(connection):
            yield connection

    @asynccontextmanager
    async def read(self, doing: str = "read") -> AsyncIterator[AsyncConnection]:
        """A connection to read with; on SQLite it cannot write.

        Raises:
            StoreUnavailable: the database cannot be had.
        """
        async with _outage(doing), self._reading.begin() as connection, _cancellable(connection):
            yield connection

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows ON CONFLICT; both databases say it alike."""
        return sqlite.insert(table) if self.embedded else postgresql.insert(table)

    def blind_index(self, number: str | None) -> str | None:
        """What to look a number up by; None for a number withheld."""
        return None if not number else self.seal.blind_index(number)

    async def close(self) -> None:
        """Close every connection."""
        await self._writing.dispose()
        await self._reading.dispose()


def async_url(url: str) -> URL:
    """The address as the asynchronous drivers want it.

    Raises:
        BadSetting: it names no database that we know, or no file.
    """
    try:
        address = make_url(url)
        backend = address.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise _bad_url("is not a database's address") from None  # the address holds a password: it stays out
    if backend in ("postgres", "postgresql"):
        return address.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise _bad_url("names no database we know (sqlite, postgresql)")
    if not address.database or address.database == ":memory:" or address.database.startswith("file:"):
        raise _bad_url("names no file for SQLite")
    return address.set(drivername="sqlite+aiosqlite")


def sync_url(url: str) -> URL:
    """The address as the migrations want it: the same database through the blocking drivers."""
    address = async_url(url)
    return address.set(drivername="sqlite") if address.get_backend_name() == "sqlite" else address


def make_folder(address: URL) -> None:
    """The folder that SQLite's file lies in."""
    if address.database:
        try:
            Path(address.database).absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise _bad_url(f"lies in a folder that cannot be made ({fault.strerror})") from None


def migration_engine(url: str) -> Engine:
    """A blocking engine for migrations: one transaction around all of it, on SQLite as well.

    Foreign keys are not enforced while SQLite's tables are rebuilt: dropping the old copy of a parent would delete its children.
    """
    address = sync_url(url)
    if address.get_backend_name() == "sqlite":
        make_folder(address)
        engine = sa.create_engine(address, poolclass=NullPool, hide_parameters=True)
        _sqlite_hooks(engine, begin="BEGIN IMMEDIATE", foreign_keys=False)
        return engine
    return sa.create_engine(address, poolclass=NullPool, hide_parameters=True, connect_args=_patience(address))


def _bad_url(wrong: str) -> BadSetting:
    remedy = "DATABASE_URL=sqlite:///var/callrow.db or DATABASE_URL=postgresql://user@host/name"
    return BadSetting([("DATABASE_URL", wrong, remedy)])


def _patience(address: URL) -> dict[str, Any]:
    return {} if "connect_timeout" in address.query else {"connect_timeout": 5}


def _sqlite_hooks(engine: Engine, *, begin: str, read_only: bool = False, foreign_keys: bool = True) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        if not read_only:
            _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)  # rule 1


def _write_ahead(cursor: Any) -> None:
    """Turn on the write-ahead log, which the file then remembers.

    When two turn it on at once, SQLite tells the second "locked" without waiting out its busy timeout (the two would wait for each
    other). So it is asked again. It only ever waits in the first moments of a database's life.
    """
    end = time.monotonic() + BUSY_MS / 1_000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _postgres_hooks(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET statement_timeout = {int(LIMIT_S * 1_000)}")
        cursor.execute(f"SET lock_timeout = {BUSY_MS}")
        for setting in PLANNING:
            cursor.execute(f"SET {setting}")
        cursor.close()
        connection.commit()


@asynccontextmanager
async def _outage(doing: str) -> AsyncIterator[None]:
    """Rules 2, 3 and 4."""
    try:
        async with asyncio.timeout(LIMIT_S):
            yield
    except (sa.exc.TimeoutError, TimeoutError, ConnectionError) as fault:
        raise StoreUnavailable(doing) from fault
    except sa.exc.DBAPIError as fault:
        if is_outage(fault):
            raise StoreUnavailable(doing) from None
        raise _without_values(fault) from None


@asynccontextmanager
async def _cancellable(connection: AsyncConnection) -> AsyncIterator[None]:
    """A cancellation stays one.

    psycopg 3.3 answers a cancellation in the midst of a batch with an AssertionError, and leaves the connection in a state that the
    pool does not see (seen in `_pipeline_nolock`). Nobody may use it again.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except Exception as fault:
        if task is not None and task.cancelling() > before:
            await connection.invalidate()
            raise asyncio.CancelledError from fault
        raise


def is_outage(fault: sa.exc.DBAPIError) -> bool:
    """Whether the database said `not now`, rather than `not so`."""
    if fault.connection_invalidated or isinstance(fault, sa.exc.InterfaceError):
        return True
    # SQLite calls a missing table or column an operational error; that is our own fault and no outage
    words = str(fault.orig)
    return (
        isinstance(fault, sa.exc.OperationalError)
        and not words.startswith(("no such ", "near ", "table "))
        and "has no column" not in words
    )


def _without_values(fault: sa.exc.DBAPIError) -> sa.exc.DBAPIError:
    diagnosis = getattr(fault.orig, "diag", None)
    words = (diagnosis.message_primary if diagnosis else None) or str(fault.orig)
    return type(fault)(fault.statement, None, type(fault.orig)(words) if fault.orig else Exception(words), hide_parameters=True)
