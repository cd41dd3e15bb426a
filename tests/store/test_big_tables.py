"""No migration keeps the calls from being written while it goes over a big table; and what is to find that out finds it."""

import re
import shutil
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql

from app.store import migrate
from tests.store.big_tables import PART, ROWS, complaints, fill

CONCURRENTLY = "    with op.get_context().autocommit_block():\n"
SAFELY = "    from migrations.safely import add_columns, add_index\n"


def test_every_migration_leaves_big_tables_to_those_who_write_them(postgres):
    """Step by step, each on tables with rows. Nobody goes back with calls in progress: downgrades are not looked at."""
    name = postgres.create(migrated=False)
    url = postgres.url(name)
    revisions = [script.revision for script in ScriptDirectory.from_config(migrate.config()).walk_revisions()][::-1]
    assert revisions[0] == "0001" and len(revisions) > 1
    try:
        migrate.upgrade(url, revisions[0])
        for revision in revisions[1:]:
            fill(url)
            assert complaints(url, revision) == [], f"migration {revision}"
        assert migrate.is_current(url)
        fill(url)  # so that the next migration has rows to meet
    finally:
        postgres.drop(name)


def test_tables_that_reports_read_by_their_indexes_are_vacuumed_before_a_fifth_of_them_has_changed(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        said = dict(connection.execute("SELECT relname, reloptions::text FROM pg_class WHERE reloptions IS NOT NULL").fetchall())
    assert {"calls", "tool_invocations", "search_tokens"} <= said.keys()
    assert all("scale_factor=0.02" in said[table] for table in ("calls", "tool_invocations", "search_tokens"))


@pytest.fixture(scope="module")
def filled(postgres):
    """A database of today's shape, with rows in every table."""
    name = postgres.create(migrated=True)
    fill(postgres.url(name))
    yield name
    postgres.drop(name)


@pytest.fixture
def plant(postgres, filled, tmp_path):
    """Adds a migration to those that there are, and gives what is complained of it. Nothing of it is left in the database."""
    copies = []

    def planted(body: str) -> list[str]:
        stays = "autocommit" in body or SAFELY in body
        name = copy() if stays else filled
        scripts = tmp_path / f"migrations{len(copies)}"
        shutil.copytree(
            Path(migrate.config().get_main_option("script_location")), scripts, ignore=shutil.ignore_patterns("__pycache__")
        )
        (scripts / "versions" / "planted.py").write_text(
            "import sqlalchemy as sa\nfrom alembic import op\nfrom tests.store.big_tables import Enough\n\n"
            f"revision, down_revision = 'planted', {migrate.head()!r}\n\n\ndef upgrade():\n{body}\n"
            + ("" if stays else "    raise Enough\n")
        )
        return complaints(postgres.url(name), "planted", scripts)

    def copy() -> str:
        copies.append(f"{filled}_{len(copies)}")
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
            made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copies[-1]), sql.Identifier(filled))
            connection.execute(made)
        return copies[-1]

    yield planted
    for name in copies:
        postgres.drop(name)


def run(*statements: str, outside: bool = False) -> str:
    """The body of a migration of plain SQL, in a transaction or outside of any."""
    lines = [f"op.execute({statement!r})" for statement in statements]
    return CONCURRENTLY + "".join(f"        {line}\n" for line in lines) if outside else "".join(f"    {line}\n" for line in lines)


NOT_VALID = "ALTER TABLE calls ADD CONSTRAINT c CHECK (agent <> '') NOT VALID"
VALIDATE = "ALTER TABLE calls VALIDATE CONSTRAINT c"
FOREIGN_KEY = "ALTER TABLE utterances ADD CONSTRAINT f FOREIGN KEY (call_id) REFERENCES calls"
HALF = f"UPDATE turns SET tools = 1 WHERE call_id <= lpad('{PART}', 26, '0') AND tools = 0"

BAD = {
    "an index": (run("CREATE INDEX i ON calls (agent)"), "reads calls whole while nobody can write calls"),
    "an index, outside of a transaction": (run("CREATE INDEX i ON turns (agent)", outside=True), "reads turns whole"),
    "an index by alembic": ("    op.create_index('i', 'calls', ['agent'])\n", "reads calls whole"),
    "an index again": (run("REINDEX TABLE turns"), "reads turns whole"),
    "a unique constraint": (run("ALTER TABLE calls ADD CONSTRAINT u UNIQUE (call_id, agent)"), "reads calls whole"),
    "a default that is worked out for each row": (run("ALTER TABLE calls ADD COLUMN x float DEFAULT random()"), "rewrites calls"),
    "a serial": (run("ALTER TABLE turns ADD COLUMN x bigserial"), "rewrites turns"),
    "a generated column": (run("ALTER TABLE turns ADD COLUMN x int GENERATED ALWAYS AS (tools + 1) STORED"), "rewrites turns"),
    "another type": (run("ALTER TABLE turns ALTER COLUMN tools TYPE bigint"), "rewrites turns"),
    "another type by alembic": ("    op.alter_column('turns', 'tools', type_=sa.BigInteger())\n", "rewrites turns"),
    "a shorter type": (run("ALTER TABLE turns ALTER COLUMN agent TYPE varchar(99)"), "turns"),
    "a wider type under a check": (run("ALTER TABLE calls ALTER COLUMN state TYPE varchar(64)"), "reads calls whole"),
    "a check": (run("ALTER TABLE calls ADD CONSTRAINT c CHECK (agent <> '')"), "reads calls whole while nobody can write calls"),
    "a check that is validated too soon": (run(NOT_VALID, VALIDATE), "reads calls whole while nobody can write calls: .*VALIDATE"),
    "no NULL any more": (
        run("ALTER TABLE calls ALTER agent DROP NOT NULL", "ALTER TABLE calls ALTER agent SET NOT NULL"), "reads calls whole",
    ),
    "a foreign key": (run(FOREIGN_KEY), "reads utterances whole while nobody can write calls, utterances"),
    "all rows changed": (run("UPDATE turns SET tools = tools + 1"), "changes turns whole in one transaction"),
    "all rows changed, outside of a transaction": (run("UPDATE turns SET tools = tools + 1", outside=True), "changes turns whole"),
    "all rows changed by halves in one transaction": (run(HALF, HALF.replace("<=", ">")), "changes turns whole"),
    "all rows removed": (run("DELETE FROM utterances"), "changes utterances whole"),
    "a table emptied": (run("TRUNCATE turns"), "rewrites turns"),
    "another table read while one is locked": (
        run("ALTER TABLE calls ADD COLUMN x int", "CREATE TABLE y AS SELECT count(*) FROM turns"),
        "reads turns whole while nobody can write calls",
    ),
    "a table locked and read": (run("LOCK TABLE calls IN SHARE MODE", "SELECT sum(epoch) FROM calls"), "reads calls whole"),
    "a table packed": (run("VACUUM FULL turns", outside=True), "rewrites turns"),
    "a table made unlogged": (run("ALTER TABLE turns SET UNLOGGED"), "rewrites turns"),
    "a table renamed and rewritten": (
        run("ALTER TABLE turns RENAME TO t", "ALTER TABLE t ALTER COLUMN tools TYPE bigint"), "rewrites t",
    ),
}  # fmt: skip

GOOD = {
    "a column": run("ALTER TABLE calls ADD COLUMN x int"),
    "a column with a constant default": run("ALTER TABLE calls ADD COLUMN x int NOT NULL DEFAULT 7"),
    "a column with the moment as a default": run("ALTER TABLE calls ADD COLUMN x timestamptz NOT NULL DEFAULT now()"),
    "columns and checks, safely": SAFELY
    + "    add_columns('calls', [sa.Column('x', sa.Integer)], {'x': 'x > 0', 'y': \"agent <> ''\"})\n",
    "an index, safely": SAFELY + "    add_index('i', 'calls', ['agent', 'state'], where=\"state = 'live'\", include=['epoch'])\n",
    "an index, concurrently": run("CREATE INDEX CONCURRENTLY i ON calls (agent)", outside=True),
    "a unique constraint of a finished index": run("CREATE UNIQUE INDEX CONCURRENTLY u ON calls (call_id, agent)", outside=True)
    + run("ALTER TABLE calls ADD CONSTRAINT u UNIQUE USING INDEX u"),
    "a check in two steps": run(NOT_VALID) + run(VALIDATE, outside=True),
    "a foreign key in two steps": run(FOREIGN_KEY + " NOT VALID")
    + run("ALTER TABLE utterances VALIDATE CONSTRAINT f", outside=True),
    "no NULL any more, as a check has proved": run("ALTER TABLE calls ALTER agent DROP NOT NULL")
    + run("ALTER TABLE calls ADD CONSTRAINT c CHECK (agent IS NOT NULL) NOT VALID", VALIDATE, outside=True)
    + run("ALTER TABLE calls ALTER agent SET NOT NULL"),
    "a wider type": run("ALTER TABLE calls ALTER COLUMN from_index TYPE varchar(64)"),
    "all rows changed by batches": CONCURRENTLY
    + f"        for first in range(1, {ROWS}, 100):\n"
    + '            op.execute(f"UPDATE turns SET tools = 1 WHERE call_id::int BETWEEN {first} AND {first + 99}")\n',
    "a new table filled from another": run(
        "CREATE TABLE y AS SELECT * FROM turns", "CREATE INDEX i ON y (agent)", "UPDATE y SET tools = 1"
    ),
    "a column and an index dropped": run("ALTER TABLE calls DROP COLUMN summary")
    + run("DROP INDEX CONCURRENTLY ix_calls_from_index", outside=True),
    "a table dropped": run("DROP TABLE call_events"),
    "a big table read": run("SELECT count(*) FROM turns"),
    "an index made again, concurrently": run("REINDEX TABLE CONCURRENTLY turns", outside=True),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_big_table_would_not_bear_is_refused(plant, name):
    body, expected = BAD[name]
    found = plant(body)
    assert any(re.search(expected, complaint) for complaint in found), found


@pytest.mark.parametrize("name", GOOD)
def test_what_a_big_table_bears_is_let_pass(plant, name):
    assert plant(GOOD[name]) == []


def test_a_table_of_which_nobody_has_said_what_its_rows_are_is_named(postgres, filled):
    with psycopg.connect(postgres.url(filled)) as connection:
        connection.execute("CREATE TABLE unheard_of (x int)")
        connection.commit()
        try:
            with pytest.raises(LookupError, match="unheard_of"):
                fill(postgres.url(filled))
        finally:
            connection.execute("DROP TABLE unheard_of")
            connection.commit()
