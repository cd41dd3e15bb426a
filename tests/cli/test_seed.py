"""`callrow seed`: a month of calls as believable as rows can be, the same every time, and never among real ones by mistake."""

import asyncio

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from app.cli import main
from app.cli.seed_rows import SEEDED
from app.store.after_tables import deliveries
from app.store.calls import Calls
from app.store.engine import Database
from app.store.filters import Filters
from app.store.house_tables import audit_log
from app.store.listing import Listing
from app.store.tables import calls
from app.wrapup.row import Row
from tests.store.listed import NOON, put, row

CALLS = 60
END = "2026-11-20T17:00+00:00"


def seed(url, *arguments, code=0):
    result = CliRunner().invoke(main, ["seed", "--calls", str(CALLS), "--until", END, *arguments], env={"DATABASE_URL": url})
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def ask(url, work):
    async def with_database():
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(with_database())


async def names(database):
    async with database.read() as connection:
        return (await connection.execute(sa.select(calls.c.call_id).order_by(calls.c.call_id))).scalars().all()


async def count(database, *which):
    async with database.read() as connection:
        return (await connection.execute(sa.select(sa.func.count()).where(*which))).scalar_one()


def test_every_seeded_row_is_one_that_the_schema_knows(clean, database_url):
    output = seed(database_url)
    assert output.startswith(f"{CALLS} calls in ")

    async def look(database):
        found = [await Calls(database).row(name) for name in await names(database)]
        assert {each["account_sid"] for each in found} == {SEEDED}
        assert all(each["from_number"] is None or each["from_number"].startswith("+1555") for each in found)
        finished = [Row.of(each) for each in found if each["state"] == "final"]
        assert len(finished) == CALLS - 6
        read = [each for each in found if each["analysis"] == "done" and each["disposition"]]
        judged = [each["judged"]["disposition"] for each in read]
        assert judged and all(each["evidence"] for each in judged if each["source"] == "machine")
        listed = await Listing(database).page(Filters(text="thank"), limit=500)
        assert listed.rows == []  # too common a word
        assert (await Listing(database).page(Filters(state=("live",)))).rows
        assert await count(database, deliveries.c.state == "dead") <= 1
        async with database.read() as connection:
            (line,) = await connection.execute(sa.select(audit_log).where(audit_log.c.action == "database.seeded"))
        assert line.actor.startswith("cli:") and line.details == {"calls": CALLS, "days": 31, "seed": 1}

    ask(database_url, look)


def test_the_same_seed_makes_the_same_calls_and_another_others(clean, tmp_path):
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(3)]
    for url, number in zip(urls, ("7", "7", "8"), strict=True):  # each is made, tables and all
        seed(url, "--seed", number, "--whole", "5")
    one, same, other = (ask(url, names) for url in urls)
    assert one == same and len(one) == CALLS
    assert set(one).isdisjoint(other)


def test_a_database_that_has_calls_is_left_alone_unless_that_is_asked_for(clean, sqlite_url):
    ask(sqlite_url, lambda database: put(database, row(database, NOON)))
    assert "1 calls that are not seeded" in seed(sqlite_url, code=1)
    assert len(ask(sqlite_url, names)) == 1
    seed(sqlite_url, "--add")
    seed(sqlite_url, "--add")
    assert len(ask(sqlite_url, names)) == 1 + 2 * CALLS
    assert "with --add" in seed(sqlite_url, code=1)


@pytest.mark.parametrize("arguments", [("--until", "soon"), ("--calls", "0"), ("--days", "0")])
def test_what_cannot_be_meant_is_refused(clean, sqlite_url, arguments):
    seed(sqlite_url, *arguments, code=2)
