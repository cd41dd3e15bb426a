"""The database behind its address: what it is called, what it refuses, and that it loses no update."""

import asyncio
import os
import sqlite3

import psycopg
import pytest
import sqlalchemy as sa

from app.errors import BadSetting, StoreUnavailable
from app.store import engine
from app.store.calls import Calls
from app.store.engine import Database, async_url, sync_url
from app.store.tables import calls, turns
from tests.store.shelf import new_call


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_name_of_postgresql_becomes_psycopg(scheme):
    address = async_url(f"{scheme}://me:p%40ss@db.example/name?sslmode=require")
    assert address.drivername == "postgresql+psycopg"
    assert (address.password, address.query["sslmode"]) == ("p@ss", "require")


def test_sqlite_has_its_own_driver_for_the_loop_and_for_migrations():
    assert async_url("sqlite:///var/callrow.db").drivername == "sqlite+aiosqlite"
    assert sync_url("sqlite:///var/callrow.db").drivername == "sqlite"
    assert async_url("sqlite:////var/lib/callrow.db").database == "/var/lib/callrow.db"


@pytest.mark.parametrize("url", ["mysql://h/d", "nonsense", "sqlite://", "sqlite:///:memory:", "postgresql://me:secret@h:port/d"])
def test_an_address_that_is_none_is_named_as_a_setting_and_not_quoted(url):
    with pytest.raises(BadSetting, match="DATABASE_URL") as fault:
        Database(url)
    assert "secret" not in str(fault.value) and "nonsense" not in str(fault.value)


async def test_the_folder_of_an_embedded_database_is_made(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/a/b/callrow.db")
    async with database.write() as connection:
        await connection.execute(sa.text("CREATE TABLE t (x INTEGER)"))
    await database.close()
    assert (tmp_path / "a/b/callrow.db").is_file()


def test_a_folder_that_cannot_be_made_is_named_as_a_setting(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSetting, match="DATABASE_URL"):
        Database(f"sqlite:///{tmp_path}/file/callrow.db")


async def test_an_embedded_database_is_tuned_as_measured(sqlite_url):
    database = Database(sqlite_url)
    async with database.write() as connection:
        found = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
        assert found == ["wal", 1, 5_000]
        assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1
    await database.close()


async def test_a_reader_of_an_embedded_database_cannot_write(sqlite_url):
    database = Database(sqlite_url)
    with pytest.raises((sa.exc.DBAPIError, StoreUnavailable)):
        async with database.read() as connection:
            await connection.execute(sa.delete(calls))
    await database.close()


async def test_reading_then_writing_loses_no_update(database_url, database):
    """300 read-then-write increments by three writers at once; with SQLite's own BEGIN, 24 remained."""
    state, _ = await Calls(database).born(new_call())
    writers = [Database(database_url) for _ in range(3)]

    async def count(own: Database) -> None:
        for _ in range(100):
            async with own.write() as connection:
                query = sa.select(calls.c.resume_attempts).where(calls.c.call_id == state.call_id).with_for_update()
                known = (await connection.execute(query)).scalar_one()
                await connection.execute(sa.update(calls).values(resume_attempts=known + 1))

    await asyncio.gather(*(count(own) for own in writers))
    for own in writers:
        await own.close()
    assert (await Calls(database).find(state.call_id)).resume_attempts == 300


async def test_a_transaction_that_raises_leaves_nothing(database):
    with pytest.raises(LookupError):
        async with database.write() as connection:
            await connection.execute(sa.text("DELETE FROM calls"))
            await connection.execute(sa.text("INSERT INTO workers VALUES ('w', NULL, '2026-01-01', '2026-01-01', 0)"))
            raise LookupError
    async with database.read() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM workers"))).scalar() == 0


async def test_a_locked_database_is_unavailable_and_comes_back(tmp_path, sqlite_url, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_MS", 100)
    database = Database(sqlite_url)
    holder = sqlite3.connect(tmp_path / "callrow.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="count sheep"):
        async with database.write("count sheep"):
            pass
    async with database.read() as connection:  # WAL: readers are not held up
        assert (await connection.execute(sa.text("SELECT count(*) FROM calls"))).scalar() == 0
    holder.execute("ROLLBACK")
    holder.close()
    await Calls(database).born(new_call())
    await database.close()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    database = Database(f"postgresql://me@/d?host={tmp_path}")
    with pytest.raises(StoreUnavailable):
        async with database.read():
            pass
    await database.close()


async def test_a_transaction_that_takes_too_long_is_given_up_and_the_next_one_works(database, monkeypatch):
    monkeypatch.setattr(engine, "LIMIT_S", 0.2)
    with pytest.raises(StoreUnavailable):
        async with database.write():
            await asyncio.Event().wait()
    monkeypatch.undo()
    _, made = await Calls(database).born(new_call())
    assert made


async def test_a_cancellation_that_the_driver_turns_into_something_else_stays_one(database):
    """As psycopg does in the midst of a batch."""

    async def work() -> None:
        async with database.write():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise AssertionError from None

    task = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    _, made = await Calls(database).born(new_call())
    assert made


async def test_who_was_cancelled_before_may_still_write_and_fail_as_anybody(database):
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await Calls(database).born(new_call())
            async with database.write():
                raise LookupError from None

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(LookupError):
        await task
    assert await Calls(database).find_by_sid("CA1") is not None


async def test_a_table_that_is_missing_is_our_fault_and_no_outage(database):
    with pytest.raises(sa.exc.DBAPIError):
        async with database.read() as connection:
            await connection.execute(sa.text("SELECT * FROM no_such_table"))


async def test_a_refused_row_is_not_quoted(database):
    """PostgreSQL would say: Failing row contains (...)."""
    state, _ = await Calls(database).born(new_call())
    with pytest.raises(sa.exc.IntegrityError) as fault:
        async with database.write() as connection:
            await connection.execute(
                sa.insert(turns).values(
                    call_id=state.call_id, epoch=1, number=-1, agent="a-private-word", requested_at_ms=1, tools=0, interrupted=False
                )
            )
    assert "number_not_negative" in str(fault.value)
    assert "a-private-word" not in str(fault.value)
    assert fault.value.__cause__ is None and "a-private-word" not in repr(fault.value.orig)


async def test_a_lost_server_connection_is_replaced(postgres_url):
    database = Database(postgres_url)
    calls = Calls(database)
    await calls.born(new_call())
    with psycopg.connect(postgres_url, autocommit=True) as other:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert other.execute(f"SELECT count(pg_terminate_backend(pid)) {others}").fetchone()[0] >= 1
    assert await calls.find_by_sid("CA1") is not None
    await database.close()


def test_the_test_server_is_a_real_one(postgres):
    with psycopg.connect(postgres.url("postgres")) as connection:
        assert connection.info.server_version >= 140_000
        assert connection.info.host.startswith("/") or os.environ.get("TEST_POSTGRES_URL")
