"""Rows of many calls, some at a time, for what must see them all and hold few of them.

Rule: no transaction stays open while somebody else works on what it gave.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from app.store import facts, projection, reading
from app.store.engine import Database
from app.store.tables import calls, utterances


async def columns_of(database: Database, call_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of these calls in that order, without what belongs to them. A call that is gone is left out."""
    query = sa.select(calls).where(calls.c.call_id.in_(call_ids))
    async with database.read("read rows") as connection:
        found = {row["call_id"]: facts.plain(row, *reading.NOT_SHOWN) for row in (await connection.execute(query)).mappings()}
    return [found[call_id] for call_id in call_ids if call_id in found]


async def rows_of(database: Database, call_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of these calls in that order, each as `Calls.row` gives it, but for its turns and tools. A call that is gone is
    left out.
    """
    of_calls = sa.select(calls).where(calls.c.call_id.in_(call_ids))
    spoken = sa.select(utterances).where(utterances.c.call_id.in_(call_ids)).order_by(*reading.SPOKEN_ORDER)
    found = {}
    async with database.read("read rows") as connection:
        said: dict[str, list[dict[str, Any]]] = {}
        for each in (await connection.execute(spoken)).mappings():
            utterance = facts.plain(each, "call_id", "position") | {"ref": facts.ref(each["epoch"], each["key"])}
            said.setdefault(each["call_id"], []).append(utterance)
        for call in (await connection.execute(of_calls)).mappings().all():
            heard = said.get(call["call_id"], [])
            known = await projection.load(connection, call)
            refs = facts.slot_refs(
                known.memory.slots if known.memory else (), [(each["epoch"], each["key"], each["started_at_ms"]) for each in heard]
            )
            judged = projection.judged(known, refs)
            found[call["call_id"]] = facts.plain(call, *reading.NOT_SHOWN) | {"utterances": heard, "judged": judged}
    return [found[call_id] for call_id in call_ids if call_id in found]
