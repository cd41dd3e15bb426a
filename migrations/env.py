"""How Alembic meets our databases: with a connection or an engine that somebody hands in, else with DATABASE_URL.

On SQLite everything runs in one transaction: half of it is none. On PostgreSQL each migration has its own, because what is done to
a big table is done outside of any (`migrations/safely.py`).
"""

import os
from pathlib import Path

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext

from app.settings import Settings, environment
from app.store.engine import migration_engine
from app.store.house_tables import metadata
from app.store.private import CallName, PlainText, Private, PrivateJSON
from app.store.tables import Moment


def render_item(kind: str, thing: object, _context: AutogenContext) -> str | bool:
    """A migration imports nothing from `app`: our own types are written as what they lie upon."""
    if kind == "type" and isinstance(thing, CallName):
        return "sa.String(length=26)"
    if kind == "type" and isinstance(thing, PlainText | Private | PrivateJSON):
        return "sa.Text()"
    if kind == "type" and isinstance(thing, Moment):
        return "sa.DateTime(timezone=True)"
    return False


def migrate(connection: sa.Connection) -> None:
    """Run whatever Alembic was asked for on this connection."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        transaction_per_migration=connection.dialect.name != "sqlite",
        compare_type=True,
        compare_server_default=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


def run() -> None:
    """Find something to connect with."""
    given = context.config.attributes.get("connection")
    if isinstance(given, sa.Connection):
        migrate(given)
        return
    if given is None:
        default = str(Settings.model_fields["database_url"].default)
        given = migration_engine(environment(os.environ, Path.cwd()).get("DATABASE_URL") or default)
    with given.connect() as connection:
        migrate(connection)


if context.is_offline_mode():
    raise SystemExit("migrations run on a database, not into a script of SQL")
run()
