"""Reading calls for people and for replay: rows as JSON can say them."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.call.disposition import Utterance
from app.store import facts, projection
from app.store.after_facts import ForReading
from app.store.engine import Database
from app.store.tables import RowState, call_events, calls, tool_invocations, turns, utterances

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
        return await row_on(connection, name)


async def row_on(connection: AsyncConnection, name: str) -> dict[str, Any] | None:
    """The row as `Calls.row` gives it, as this connection sees it: within a transaction, with what the transaction changed."""
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
    for said in found["utterances"]:
        said["ref"] = facts.ref(said["epoch"], said["key"])
    for invocation in found["tool_invocations"]:
        invocation["arguments"] = facts.from_json(invocation["arguments"])
        invocation["result"] = facts.from_json(invocation["result"])
    known = await projection.load(connection, call)
    spoken = [(said["epoch"], said["key"], said["started_at_ms"]) for said in found["utterances"]]
    found["judged"] = projection.judged(known, facts.slot_refs(known.memory.slots if known.memory else (), spoken))
    return found


async def for_reading(connection: AsyncConnection, call_id: str) -> ForReading | None:
    """See `Judgements.for_reading`."""
    call = (await connection.execute(sa.select(calls).where(calls.c.call_id == call_id))).mappings().one_or_none()
    if call is None:
        return None
    spoken = sa.select(utterances).where(utterances.c.call_id == call_id).order_by(*SPOKEN_ORDER)
    said = (await connection.execute(spoken)).mappings().all()
    invoked = sa.select(tool_invocations).where(tool_invocations.c.call_id == call_id).order_by(tool_invocations.c.id)
    tools = (await connection.execute(invoked)).mappings().all()
    memory = facts.stored_memory(call["memory"])
    slots = memory.slots if memory is not None else ()
    refs = facts.slot_refs(slots, [(row["epoch"], row["key"], row["started_at_ms"]) for row in said])
    return ForReading(
        call_id=call_id,
        final=call["state"] is RowState.FINAL,
        analysis=call["analysis"],
        attempts=call["analysis_attempts"],
        utterances=tuple(replace(facts.utterance(row), key=facts.ref(row["epoch"], row["key"])) for row in said),
        slots=tuple(replace(slot, utterance=refs.get(slot.name)) for slot in slots),
        filed=projection.filed(memory),
        tools=tuple((tool["name"], tool["agent"], tool["effect"], tool["status"].value) for tool in tools),
        results=tuple(facts.from_json(tool["result"]) for tool in tools),
        outcome=call["outcome"],
        end_reason=call["end_reason"],
    )


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
