"""The audit log: a chain that shows whether it was touched, on both databases."""

import asyncio

import pytest
import sqlalchemy as sa

from app.store.audit import NOTHING_BEFORE, AuditLog
from app.store.engine import Database


@pytest.fixture
def audit(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
def forge(database: Database):
    """Alters the log past the triggers, as somebody could who owns the database."""

    async def _forge(statement: str) -> None:
        async with database.write() as connection:
            if database.embedded:
                await connection.execute(sa.text("DROP TRIGGER IF EXISTS audit_log_no_update"))
                await connection.execute(sa.text("DROP TRIGGER IF EXISTS audit_log_no_delete"))
            else:
                await connection.execute(sa.text("ALTER TABLE audit_log DISABLE TRIGGER USER"))
            await connection.execute(sa.text(statement))

    return _forge


async def test_an_empty_log_is_whole(audit):
    verdict = await audit.verify()
    assert (verdict.lines, verdict.head, verdict.broken_at) == (0, NOTHING_BEFORE, None)


async def test_each_line_holds_the_hash_of_the_one_before(audit, database):
    hashes = [
        await audit.append("operator:ann", "reveal", "01CALL", {"fields": ["from_number"], "b": 1, "a": None}) for _ in range(3)
    ]
    async with database.read() as connection:
        kept = (await connection.execute(sa.text("SELECT seq, prev_hash, hash FROM audit_log ORDER BY seq"))).all()
    assert [tuple(line) for line in kept] == [(1, NOTHING_BEFORE, hashes[0]), (2, hashes[0], hashes[1]), (3, hashes[1], hashes[2])]
    verdict = await audit.verify()
    assert (verdict.lines, verdict.head, verdict.broken_at) == (3, hashes[2], None)


async def test_many_lines_at_once_make_one_chain(audit, database_url):
    others = [Database(database_url) for _ in range(3)]
    logs = [audit, *(AuditLog(other) for other in others)]
    await asyncio.gather(*(logs[number % 4].append("system", "sweep", str(number)) for number in range(40)))
    verdict = await audit.verify()
    assert (verdict.lines, verdict.broken_at) == (40, None)
    for other in others:
        await other.close()


@pytest.mark.parametrize("change", ["UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"])
async def test_the_database_itself_refuses_to_change_the_log(audit, database, change):
    await audit.append("operator:ann", "login")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        async with database.write() as connection:
            await connection.execute(sa.text(change))
    assert (await audit.verify()).lines == 1


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE audit_log SET actor = 'nobody' WHERE seq = 2",
        "UPDATE audit_log SET details = NULL WHERE seq = 2",
        "UPDATE audit_log SET at = '2020-01-01 00:00:00+00' WHERE seq = 2",
        "DELETE FROM audit_log WHERE seq = 2",
    ],
)
async def test_a_line_altered_by_who_owns_the_database_is_found(audit, database, forge, forgery):
    for number in range(4):
        await audit.append("operator:ann", "reveal", f"call {number}", {"reason": "complaint"})
    if database.embedded:
        forgery = forgery.replace("+00", ".000000")
    await forge(forgery)
    assert (await audit.verify()).broken_at == 2


async def test_a_log_cut_short_is_found_against_a_hash_noted_elsewhere(audit, forge):
    for _ in range(3):
        noted = await audit.append("system", "sweep")
    await forge("DELETE FROM audit_log WHERE seq = 3")
    verdict = await audit.verify()
    assert (verdict.lines, verdict.broken_at) == (2, None)
    assert verdict.head != noted
