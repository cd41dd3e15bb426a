"""Rows of many calls, some at a time, for what must see them all and hold few of them.

Rule: no transaction stays open while somebody else works on what it gave.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from app.store import facts, reading
from app.store.engine import Database
from app.store.tables import calls


async def columns_of(database: Database, call_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of these calls in that order, without what belongs to them. A call that is gone is left out."""
    query = sa.select(calls).where(calls.c.call_id.in_(call_ids))
    async with database.read("read rows") as connection:
        found = {row["call_id"]: facts.plain(row, *reading.NOT_SHOWN) for row in (await connection.execute(query)).mappings()}
    return [found[call_id] for call_id in call_ids if call_id in found]


async def rows_of(database: Database, call_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of these calls in that order, each as `Calls.row` gives it. A call that is gone is left out."""
    async with database.read("read rows") as connection:
        found = [await reading.row_on(connection, call_id) for call_id in call_ids]
    return [row for row in found if row is not None]
