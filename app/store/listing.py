"""The call list: filtered, sorted, a page at a time, as quick on the thousandth page of a million calls as on the first.

Rule 1: a page begins at a key and not at a count of rows. So what arrives meanwhile neither hides a row nor shows one twice; only
a row whose own key changes may move.
Rule 2: what is not known stands last, whichever way the list is sorted. It is a list of its own behind the other one: thus one
index serves both directions on both databases, which disagree about where NULL stands.
Rule 3: which rows, is asked of narrow columns that an index holds; the wide ones are fetched for one page.
"""

import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import TheirFault
from app.store import facts
from app.store.engine import Database
from app.store.filters import Asked, Filters, ask
from app.store.tables import Direction, Moment, calls

ROW = tuple(
    calls.c[name]
    for name in (
        *("call_id", "started_at", "ended_at", "direction", "channel", "from_number", "to_number", "agent", "state", "duration_ms"),
        *("outcome", "end_reason", "disposition", "intent", "sentiment", "lead_score", "urgency", "escalated", "escalation_reason"),
        *("latency_p50_ms", "latency_p95_ms", "turns", "barge_ins", "needs_review", "review_reasons", "reviewed_at", "analysis"),
        *("summary", "next_action", "cost_usd"),
    )
)
MOST_ROWS = 500
AT_ONCE = 1_000
"""Names read at once for an export."""
Conditions = list[sa.ColumnElement[bool]]


class SortBy(StrEnum):
    """The columns that the list can be sorted by."""

    STARTED_AT = "started_at"
    LEAD_SCORE = "lead_score"
    DURATION_MS = "duration_ms"
    LATENCY_P95_MS = "latency_p95_ms"


class BadCursor(TheirFault):
    """A cursor that we did not give, or gave for another order."""

    def __str__(self) -> str:
        return "this is no place in the list; begin at its first page"


@dataclass(frozen=True, slots=True)
class Sort:
    """An order of the list. Calls that are alike stand in the order of their names."""

    by: SortBy = SortBy.STARTED_AT
    descending: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows, and the cursors of what is before and behind them; None where there is nothing."""

    rows: list[dict[str, Any]]
    previous: str | None
    next: str | None

    @property
    def has_previous(self) -> bool:
        """Whether there may be rows before these."""
        return self.previous is not None

    @property
    def has_next(self) -> bool:
        """Whether there are rows behind these."""
        return self.next is not None


@dataclass(frozen=True, slots=True)
class Count:
    """How many calls, as far as was counted; `more`: and there are more."""

    calls: int
    more: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in the list: right at, before or behind a row's key, which is in the list of the known or of the unknown (rule 2)."""

    value: Any
    call_id: str
    forward: bool
    inclusive: bool = False


class Listing:
    """The list of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, filters: Filters, sort: Sort = Sort(), cursor: str | None = None, limit: int = 50) -> Page:
        """One page of at most `limit` rows (1 to 500).

        A row is `ROW` as JSON can say it, and `number`: the other party's.

        Raises:
            BadCursor: the cursor belongs to another order, or to no list of ours.
        """
        limit = max(1, min(MOST_ROWS, limit))
        place = None if cursor is None else _place(cursor, sort)
        async with self._database.read("list calls") as connection:
            asked = await self._asked(connection, filters, sort)
            keys = await _keys(connection, asked, sort, place, limit + 1)
            if not keys and place is not None and not place.forward:  # what stood before it is gone
                place = None
                keys = await _keys(connection, asked, sort, None, limit + 1)
            rows = await _rows(connection, [call_id for _, call_id in keys[:limit]])
        forward = place is None or place.forward
        more, keys = len(keys) > limit, keys[:limit]
        if not forward:
            keys.reverse()
        if not keys:
            before = None if place is None else _cursor(sort, _Place(place.value, place.call_id, forward=False, inclusive=True))
            return Page(rows=[], previous=before, next=None)
        first, last = _Place(*keys[0], forward=False), _Place(*keys[-1], forward=True)
        return Page(
            rows=[rows[call_id] for _, call_id in keys if call_id in rows],
            previous=_cursor(sort, first) if (more if not forward else place is not None) else None,
            next=_cursor(sort, last) if (more if forward else True) else None,
        )

    async def neighbours(self, filters: Filters, sort: Sort, call_id: str) -> tuple[str | None, str | None]:
        """The calls before and behind a call in such a list, whether it is in it itself or not; None at either end."""
        async with self._database.read("look for the neighbours of a call") as connection:
            mine = sa.select(calls.c[sort.by.value]).where(calls.c.call_id == call_id)
            found = (await connection.execute(mine)).one_or_none()
            if found is None:
                return None, None
            asked = await self._asked(connection, filters, sort)
            before = await _keys(connection, asked, sort, _Place(found[0], call_id, forward=False), 1)
            behind = await _keys(connection, asked, sort, _Place(found[0], call_id, forward=True), 1)
        return (before[0][1] if before else None), (behind[0][1] if behind else None)

    async def count(self, filters: Filters, *, up_to: int = 10_000) -> Count:
        """How many calls the filters leave, counted no further than `up_to`."""
        async with self._database.read("count calls") as connection:
            asked = await ask(connection, self._database, filters)
            some = sa.select(calls.c.call_id).where(*asked.where).limit(up_to + 1).subquery()
            found = int((await connection.execute(sa.select(sa.func.count()).select_from(some))).scalar_one())
        return Count(min(found, up_to), found > up_to)

    async def ids(self, filters: Filters, sort: Sort = Sort()) -> AsyncIterator[str]:
        """The names of all calls that the filters leave, in that order; for an export. No transaction is held open meanwhile."""
        place: _Place | None = None
        while True:
            async with self._database.read("list calls") as connection:
                asked = await self._asked(connection, filters, sort)
                keys = await _keys(connection, asked, sort, place, AT_ONCE)
            for _, call_id in keys:
                yield call_id
            if len(keys) < AT_ONCE:
                return
            place = _Place(*keys[-1], forward=True)

    async def _asked(self, connection: AsyncConnection, filters: Filters, sort: Sort) -> Asked:
        return await ask(connection, self._database, filters, by_time=sort.by is SortBy.STARTED_AT)


async def _keys(connection: AsyncConnection, asked: Asked, sort: Sort, place: _Place | None, limit: int) -> list[tuple[Any, str]]:
    """The keys (value, name) that follow a place, in the direction of the place."""
    nullable = calls.c[sort.by.value].nullable
    column = calls.c[sort.by.value] if nullable else asked.started_at
    forward = place is None or place.forward
    descending = sort.descending is forward
    known: Conditions = [column.is_not(None)] if nullable else []
    parts: list[tuple[bool, Conditions]] = [(True, known)]
    if nullable:
        parts.insert(1 if forward else 0, (False, [column.is_(None)]))
    if place is not None:
        here = place.value is not None
        parts = parts[[is_known for is_known, _ in parts].index(here) :]
        parts[0] = (here, [*parts[0][1], _beyond(column, asked.call_id, place, descending)])
    found: list[tuple[Any, str]] = []
    for _, part in parts:
        order = (column.desc(), asked.call_id.desc()) if descending else (column, asked.call_id)
        query = sa.select(column, asked.call_id).where(*asked.where, *part).order_by(*order).limit(limit - len(found))
        found += [(row[0], row[1]) for row in await connection.execute(query)]
        if len(found) == limit:
            break
    return found


def _beyond(column: sa.ColumnElement[Any], name: sa.ColumnElement[str], place: _Place, descending: bool) -> sa.ColumnElement[bool]:
    here: sa.ColumnElement[Any] = sa.bindparam(None, place.call_id, type_=name.type)
    key: sa.ColumnElement[Any] = name
    if place.value is not None:
        kind = sa.BigInteger if isinstance(place.value, int) else column.type  # a cursor may hold more than the column does
        key, here = sa.tuple_(column, name), sa.tuple_(sa.bindparam(None, place.value, type_=kind), here)
    if place.inclusive:
        return key <= here if descending else key >= here
    return key < here if descending else key > here


async def _rows(connection: AsyncConnection, names: list[str]) -> dict[str, dict[str, Any]]:
    if not names:
        return {}
    found = await connection.execute(sa.select(*ROW).where(calls.c.call_id.in_(names)))
    return {row["call_id"]: _shown(row) for row in found.mappings()}


def _shown(row: sa.RowMapping) -> dict[str, Any]:
    other = row["to_number"] if row["direction"] is Direction.OUTBOUND else row["from_number"]
    return facts.plain(row) | {"number": other}


def _cursor(sort: Sort, place: _Place) -> str:
    value = place.value.isoformat() if isinstance(place.value, datetime) else place.value
    said = [sort.by.value, sort.descending, value, place.call_id, place.forward, place.inclusive]
    return base64.urlsafe_b64encode(msgspec.json.encode(said)).decode().rstrip("=")


def _place(cursor: str, sort: Sort) -> _Place:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        by, descending, value, call_id, forward, inclusive = msgspec.json.decode(
            text, type=tuple[str, bool, str | int | None, str, bool, bool]
        )
        if isinstance(calls.c[sort.by.value].type, Moment):
            value = datetime.fromisoformat(value)  # type: ignore[arg-type, assignment]
            if value.tzinfo is None:  # type: ignore[union-attr]
                raise BadCursor
        elif isinstance(value, str) or abs(value or 0) >= 2**63:
            raise BadCursor
    except (binascii.Error, msgspec.DecodeError, msgspec.ValidationError, ValueError, TypeError):
        raise BadCursor from None
    if (by, descending) != (sort.by.value, sort.descending):
        raise BadCursor
    return _Place(value, call_id, forward, inclusive)
