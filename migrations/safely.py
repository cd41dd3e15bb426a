"""Changes that a big table survives with calls in progress: what a migration may do to a table that has rows.

Rule 1: on PostgreSQL a statement that reads or rewrites a whole table never runs under a lock that keeps others from writing it.
So an index is built CONCURRENTLY, and a CHECK is added NOT VALID and validated afterwards, both outside of a transaction.
Rule 2: what runs outside a transaction may be left half done by a crash; run again, it begins by clearing that away.
Rule 3: on SQLite there is one writer, tables are rebuilt whole, and all of it is one transaction.
`tests/store/test_big_tables.py` runs every migration against tables with rows and refuses one that breaks rule 1.
"""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from alembic import op


def add_columns(table: str, columns: Sequence[sa.Column[object]], checks: Mapping[str, str] | None = None) -> None:
    """Add columns that are nullable or have a constant default, and CHECKs (by their name's last part) on them."""
    checks = {f"ck_{table}_{name}": condition for name, condition in (checks or {}).items()}
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table(table) as batch:
        for column in columns:
            batch.add_column(column)
        for name, condition in checks.items():
            batch.create_check_constraint(op.f(name), sa.text(condition), **({} if on_sqlite else {"postgresql_not_valid": True}))
    if not on_sqlite and checks:
        with op.get_context().autocommit_block():
            for name in checks:
                op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def add_index(
    name: str, table: str, columns: Sequence[str | sa.TextClause], *, where: str | None = None, include: Sequence[str] = ()
) -> None:
    """Build an index without keeping anybody from writing. `include`: columns that PostgreSQL keeps in its leaves."""
    if op.get_bind().dialect.name == "sqlite":
        op.create_index(name, table, list(columns), sqlite_where=None if where is None else sa.text(where))
        return
    with op.get_context().autocommit_block():
        op.drop_index(
            name, table, postgresql_concurrently=True, if_exists=True
        )  # rule 2: a build that failed leaves an invalid one
        op.create_index(
            name,
            table,
            list(columns),
            postgresql_concurrently=True,
            postgresql_where=None if where is None else sa.text(where),
            postgresql_include=list(include),
        )


def drop_index(name: str, table: str) -> None:
    """Remove an index; on PostgreSQL without waiting for anybody's transaction while others wait for us."""
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index(name, table)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
