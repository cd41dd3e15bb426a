"""Which calls are meant: what an operator may narrow the list, an export and the reports down by.

Rule 1: whatever stands in an address is a question and never an error: a word that no column can hold finds nothing.
Rule 2: filters hold what is asked for as it was typed. It becomes a blind index or a blind word here, and no filter is logged.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import search
from app.store.engine import Database
from app.store.tables import ToolStatus, calls, tool_invocations

ERRAND: sa.ColumnElement[str] = sa.literal_column("'errand'")
"""Said in the statement itself and not beside it: only so does the index of errands serve every plan."""

type Words = tuple[str | None, ...]
"""Any of these; None is "not known". Empty: whatever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """All that is given must hold. Bounds are inclusive, but for `until`."""

    since: datetime | None = None
    """Calls that began at that moment or later."""
    until: datetime | None = None
    """Calls that began before."""
    outcome: Words = ()
    end_reason: Words = ()
    disposition: Words = ()
    intent: Words = ()
    sentiment: Words = ()
    urgency: Words = ()
    agent: Words = ()
    analysis: Words = ()
    state: Words = ()
    lead_score_from: int | None = None
    lead_score_to: int | None = None
    latency_from_ms: int | None = None
    """Of the call's 95th percentile."""
    latency_to_ms: int | None = None
    duration_from_ms: int | None = None
    duration_to_ms: int | None = None
    escalated: bool | None = None
    needs_review: bool | None = None
    barged_in: bool | None = None
    """Whether the caller ever took the floor from the agent."""
    number: str | None = field(default=None, repr=False)
    """Either party's, with its country code, however it is punctuated."""
    number_index: str | None = None
    """The blind index of such a number (`Database.blind_index`): what may stand in an address, where no number may."""
    call_ids: tuple[str, ...] = ()
    tool: str | None = None
    """An errand by that name was asked for in the call."""
    tool_status: Words = ()
    """And it came to that; without `tool`, any errand."""
    text: str | None = field(default=None, repr=False)
    """Words that were said and heard or stand in the summary; see `search.py`."""


AMONG = ("outcome", "end_reason", "disposition", "intent", "sentiment", "urgency", "agent", "analysis", "state")
RANGES = {"lead_score": calls.c.lead_score, "latency": calls.c.latency_p95_ms, "duration": calls.c.duration_ms}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What filters ask of a row of `calls`, and the columns by which such rows come in the order of time."""

    where: list[sa.ColumnElement[bool]]
    started_at: sa.ColumnElement[datetime]
    call_id: sa.ColumnElement[str]


async def ask(connection: AsyncConnection, database: Database, filters: Filters, *, by_time: bool = True) -> Asked:
    """The filters as conditions; what a text has to do with it depends on the order that is wanted (`search.matching`)."""
    if not database.embedded:
        # A plan for any word and any filter (PostgreSQL makes one after some times) is a bad one for nearly each.
        await connection.execute(sa.text("SET LOCAL plan_cache_mode = force_custom_plan"))
    where = conditions(filters)
    if filters.number is not None:
        where.append(await _has_number(connection, database, database.blind_index(filters.number)))
    if filters.number_index is not None:
        where.append(await _has_number(connection, database, filters.number_index))
    if filters.tool is not None or filters.tool_status:
        where.append(await _has_errand(connection, filters))
    if filters.text is None or not filters.text.strip():
        return Asked(where=where, started_at=calls.c.started_at, call_id=calls.c.call_id)
    found = await search.matching(connection, filters.text, since=filters.since, until=filters.until, by_time=by_time)
    return Asked(where=[*where, *found.where], started_at=found.started_at, call_id=found.call_id)


def conditions(filters: Filters) -> list[sa.ColumnElement[bool]]:
    """What the filters ask of the columns of `calls`."""
    asked = [among(calls.c[name], getattr(filters, name)) for name in AMONG if getattr(filters, name)]
    if filters.since is not None:
        asked.append(calls.c.started_at >= filters.since)
    if filters.until is not None:
        asked.append(calls.c.started_at < filters.until)
    for name, column in RANGES.items():
        unit = "" if name == "lead_score" else "_ms"
        lowest, highest = getattr(filters, f"{name}_from{unit}"), getattr(filters, f"{name}_to{unit}")
        if lowest is not None:
            asked.append(column >= sa.bindparam(None, _within_bigint(lowest), type_=sa.BigInteger))
        if highest is not None:
            asked.append(column <= sa.bindparam(None, _within_bigint(highest), type_=sa.BigInteger))
    for flag in ("escalated", "needs_review"):
        if (wanted := getattr(filters, flag)) is not None:
            asked.append(calls.c[flag].is_(sa.true()) if wanted else calls.c[flag].is_(sa.false()))
    if filters.barged_in is not None:
        asked.append(calls.c.barge_ins > 0 if filters.barged_in else calls.c.barge_ins == 0)
    if filters.call_ids:
        asked.append(calls.c.call_id.in_(filters.call_ids))
    return asked


def among(column: sa.ColumnElement[Any], wanted: Words) -> sa.ColumnElement[bool]:
    """One of these words (rule 1)."""
    known = [word for word in wanted if word is not None]
    if isinstance(column.type, sa.Enum):
        known = [word for word in known if word in column.type.enums]
    if not known:
        return column.is_(None) if None in wanted else sa.false()
    one = column == known[0] if len(known) == 1 else column.in_(known)
    return one | column.is_(None) if None in wanted else one


async def _has_number(connection: AsyncConnection, database: Database, index: str | None) -> sa.ColumnElement[bool]:
    """Whether it is one of the call's numbers. One that is in very many calls (the house's own) is compared call by call."""
    if index is None or re.fullmatch("[0-9a-f]{32}", index) is None:  # nothing else is an index (rule 1)
        return sa.false()
    columns = (calls.c.from_index, calls.c.to_index)
    if not database.embedded:  # PostgreSQL knows which numbers are frequent
        return sa.or_(*(column == index for column in columns))
    few = [await search.at_most(connection, sa.select(calls.c.call_id).where(column == index)) for column in columns]
    if not all(few):  # a column with a sign before it is looked up in no index
        columns = tuple(sa.literal_column(f"+calls.{column.name}", sa.String) for column in columns)  # type: ignore[assignment]
    return sa.or_(*(column == index for column in columns))


async def _has_errand(connection: AsyncConnection, filters: Filters) -> sa.ColumnElement[bool]:
    """Whether there is such an errand. Few are looked up first (the limit excludes nothing); of many, each call is asked."""
    statuses = filters.tool_status or tuple(ToolStatus)  # named each, so that the index of errands answers
    which = sa.select(tool_invocations.c.call_id).where(tool_invocations.c.kind == ERRAND)
    which = which.where(among(tool_invocations.c.status, statuses))
    if filters.tool is not None:
        which = which.where(tool_invocations.c.name == filters.tool)
    if filters.since is not None:  # an errand of a call is not older than the call
        which = which.where(tool_invocations.c.started_at >= filters.since)
    few = await search.at_most(connection, which)
    return calls.c.call_id.in_(which.limit(2 * search.FEW) if few else which)


def _within_bigint(number: int) -> int:
    return max(-(2**63), min(2**63 - 1, number))
