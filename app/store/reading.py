"""Reading calls for people and for replay: rows as JSON can say them."""

from typing import Any

import sqlalchemy as sa

from app.call.disposition import Utterance
from app.store import facts
from app.store.engine import Database
from app.store.tables import call_events, calls, tool_invocations, turns, utterances

SPOKEN_ORDER = (utterances.c.epoch, utterances.c.started_at_ms, utterances.c.position)
NOT_SHOWN = ("memory", "from_index", "to_index")


async def history(database: Database, call_id: str) -> list[Utterance]:
    """See `Calls.history`."""
    async with database.read("read the transcript") as connection:
        rows = await connection.execute(sa.select(utterances).where(utterances.c.call_id == call_id).order_by(*SPOKEN_ORDER))
        return [facts.utterance(row) for row in rows.mappings()]


async def row(database: Database, name: str) -> dict[str, Any] | None:
    """See `Calls.row`."""
    async with database.read("read the row") as connection:
        which = (calls.c.call_id == name) | (calls.c.carrier_call_sid == name)
        call = (await connection.execute(sa.select(calls).where(which))).mappings().one_or_none()
        if call is None:
            return None
        found = facts.plain(call, *NOT_SHOWN)
        for table, order in (
            (utterances, SPOKEN_ORDER),
            (turns, (turns.c.epoch, turns.c.number)),
            (tool_invocations, (tool_invocations.c.id,)),
        ):
            rows = await connection.execute(sa.select(table).where(table.c.call_id == call["call_id"]).order_by(*order))
            found[table.name if table is not turns else "turn_list"] = [
                facts.plain(row, "call_id", "position", "id") for row in rows.mappings()
            ]
    for invocation in found["tool_invocations"]:
        invocation["arguments"] = facts.from_json(invocation["arguments"])
        invocation["result"] = facts.from_json(invocation["result"])
    return found


async def latest(database: Database, limit: int) -> list[dict[str, Any]]:
    """See `Calls.latest`."""
    query = sa.select(calls).order_by(calls.c.started_at.desc(), calls.c.call_id.desc()).limit(limit)
    async with database.read("list the last calls") as connection:
        return [facts.plain(row, *NOT_SHOWN) for row in (await connection.execute(query)).mappings()]


async def events(database: Database, call_id: str) -> list[dict[str, Any]]:
    """See `Calls.events`."""
    query = sa.select(call_events).where(call_events.c.call_id == call_id).order_by(call_events.c.epoch, call_events.c.seq)
    async with database.read("read the journal") as connection:
        return [
            {
                "epoch": line["epoch"],
                "seq": line["seq"],
                "at": line["at_ms"],
                "name": line["name"],
                "data": line["data"],
                "private": line["private"],
                "commands": line["commands"],
            }
            for line in (await connection.execute(query)).mappings()
        ]
