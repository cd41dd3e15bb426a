"""The shelf of the comparison with the carrier: our rows beside its books, and what is entered after a look at both.

Rule 1: every change is one statement that says in its WHERE what was read before it, or it is made under a lock. Who changes no row
has lost (to a live bridge, to a late callback, to another comparison) and is told so.
Rule 2: only the carrier's own columns are entered. How and when a call ended is not written anew once it is filed.
Rule 3: rows come in pages; a whole window is never in memory.
`reconciled_at` says when a row was brought in line with the carrier's books, or first found to be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.call.disposition import EndReason, Filed
from app.store.after_tables import reconciliations
from app.store.engine import Database
from app.store.facts import NewCall, memory_columns, newborn_columns, utc_now
from app.store.identity import new_call_id
from app.store.projection import CARRIER
from app.store.tables import Channel, RowState, call_events, calls

UNKNOWN_TO_CARRIER = "unknown_to_carrier"

CARRIER_COLUMNS = ("carrier_status", "carrier_duration_s", "carrier_price", "carrier_price_unit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A call as our row has it: what is compared, and no more."""

    call_id: str
    carrier_call_sid: str
    final: bool
    started_at: datetime
    claimed_epoch: int
    duration_ms: int | None
    end_reason: EndReason | None
    carrier_status: str | None
    carrier_duration_s: int | None
    carrier_price: float | None
    carrier_price_unit: str | None
    reconciled_at: datetime | None
    seen_by_a_person: bool
    """It was flagged as unknown to the carrier, and somebody has looked at it since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the carrier's books say of a call that is over. None where they do not say."""

    status: str
    duration_s: int | None
    price: float | None
    price_unit: str | None

    @property
    def columns(self) -> dict[str, Any]:
        """For the row: what the books do not say takes nothing away from it."""
        said = (self.status, self.duration_s, self.price, self.price_unit if self.price is not None else None)
        return {name: value for name, value in zip(CARRIER_COLUMNS, said, strict=True) if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What is kept of a comparison: counts, and in `details` ids and kinds only."""

    since: datetime
    until: datetime
    calls: int
    gaps: int
    repaired: int
    details: Mapping[str, Any]


_NAMES = (
    *("call_id", "carrier_call_sid", "started_at", "claimed_epoch", "duration_ms", "end_reason", "reconciled_at"),
    *CARRIER_COLUMNS,
)
_BOOKED = [*(calls.c[name] for name in _NAMES), calls.c.state, calls.c.needs_review, calls.c.review_reasons, calls.c.reviewed_at]


class Reconciling:
    """The rows of one database, as far as the carrier has a word on them."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def by_sid(self, sids: Sequence[str]) -> dict[str, Booked]:
        """The rows of calls that the carrier calls by these names, by name; a thousand at most in one question."""
        async with self._database.read("look up the carrier's calls") as connection:
            found = await connection.execute(sa.select(*_BOOKED).where(calls.c.carrier_call_sid.in_(sids)))
            return {row["carrier_call_sid"]: _booked(row) for row in found.mappings()}

    async def began(
        self, since: datetime, until: datetime, *, account_sid: str, behind: Booked | None = None, limit: int
    ) -> list[Booked]:
        """Calls by phone of that account, born in `since <= started_at < until`, in that order; the page behind one of them."""
        query = sa.select(*_BOOKED).where(
            calls.c.started_at >= (since if behind is None else behind.started_at),
            calls.c.started_at < until,
            calls.c.carrier_call_sid.is_not(None),
            calls.c.channel == Channel.PHONE,
            sa.or_(calls.c.account_sid == account_sid, calls.c.account_sid.is_(None)),
        )
        if behind is not None:
            query = query.where(sa.or_(calls.c.started_at > behind.started_at, calls.c.call_id > behind.call_id))
        query = query.order_by(calls.c.started_at, calls.c.call_id).limit(limit)
        async with self._database.read("look for calls to compare") as connection:
            return [_booked(row) for row in (await connection.execute(query)).mappings()]

    async def heard_its_end(self, call_id: str, ended_at_ms: int) -> bool:
        """Whether a bridge was there to the end: the journal has the line that ended the call, or a later one."""
        query = sa.select(call_events.c.seq).where(call_events.c.call_id == call_id, call_events.c.at_ms >= ended_at_ms).limit(1)
        async with self._database.read("look for a call's last line") as connection:
            return (await connection.execute(query)).first() is not None

    async def enter(self, news: Sequence[tuple[Booked, Facts]]) -> set[str]:
        """Enter what the carrier's books say into final rows, in one transaction; the ids of those that were changed.

        The others' columns are not any more what was read before. Rows are taken in the order of their ids, so that two who do this
        at once do not wait for each other in a circle.
        """
        now, entered = self._clock(), set[str]()
        async with self._database.write("enter the carrier's facts") as connection:
            for booked, facts in sorted(news, key=lambda each: each[0].call_id):
                unchanged = [calls.c[name].is_not_distinct_from(getattr(booked, name)) for name in CARRIER_COLUMNS]
                update = (
                    sa.update(calls)
                    .where(calls.c.call_id == booked.call_id, calls.c.state == RowState.FINAL, *unchanged)
                    .values(**facts.columns, reconciled_at=now, updated_at=now)
                )
                if (await connection.execute(update)).rowcount == 1:
                    entered.add(booked.call_id)
        return entered

    async def born_over(self, new: NewCall, filed: Filed, started_at: datetime, facts: Facts, *, prices_date: date) -> str | None:
        """Make the finished row of a call that only the carrier knows; its `call_id`. None: there is a row by now.

        No model had a part in it, so it cost nothing of what we count. It is due for reading, as every finished call.
        """
        now = self._clock()
        call_id = new_call_id(started_at)
        values = {
            **newborn_columns(call_id, new, started_at, self._database.blind_index),
            **memory_columns(filed.memory),
            **facts.columns,
            "state": RowState.FINAL,
            "outcome": filed.outcome,
            "end_reason": filed.end_reason,
            "ended_at": started_at + timedelta(milliseconds=filed.ended_at),
            "duration_ms": filed.ended_at,
            "finished_at": now,
            "analysis_due_at": now,
            "revision": 1,
            "tokens_in": 0,
            "tokens_out": 0,
            "cost_usd": 0.0,
            "prices_date": prices_date,
            "reconciled_at": now,
            "created_at": now,
            "updated_at": now,
        }
        insert = self._database.insert(calls).values(**values).on_conflict_do_nothing().returning(calls.c.call_id)
        async with self._database.write("make a missing row") as connection:
            made: str | None = (await connection.execute(insert)).scalar_one_or_none()
        return made

    async def flag(self, call_id: str) -> bool:
        """Ask a person to look at a row whose call the carrier does not know. False: that has been asked already.

        Who reviewed the row before has not seen this: a review counts from here on.
        """
        async with self._database.write("flag a row") as connection:
            locked = sa.select(calls.c.needs_review, calls.c.review_reasons).where(calls.c.call_id == call_id).with_for_update()
            row = (await connection.execute(locked)).mappings().one_or_none()
            if row is None:
                return False
            reasons = dict(row["review_reasons"] or {})
            if reasons.get(CARRIER) == UNKNOWN_TO_CARRIER:
                return False
            reasons[CARRIER] = UNKNOWN_TO_CARRIER
            update = sa.update(calls).where(calls.c.call_id == call_id)
            unseen = {"needs_review": True, "reviewed_at": None, "reviewed_by": None}
            await connection.execute(update.values(review_reasons=reasons, updated_at=self._clock(), **unseen))
            return True

    async def agreed(self, call_ids: Sequence[str]) -> None:
        """Note for these rows that they were compared and said the same; not for one that is being changed just now."""
        new = sa.select(calls.c.call_id).where(calls.c.call_id.in_(call_ids), calls.c.reconciled_at.is_(None))
        free = new.with_for_update(skip_locked=True)
        update = sa.update(calls).where(calls.c.call_id.in_(free)).values(reconciled_at=self._clock())
        async with self._database.write("note what was compared") as connection:
            await connection.execute(update)

    async def keep(self, compared: Compared) -> None:
        """Keep what a comparison found."""
        values = {
            "at": self._clock(),
            "since_at": compared.since,
            "until_at": compared.until,
            "calls": compared.calls,
            "gaps": compared.gaps,
            "repaired": compared.repaired,
            "details": dict(compared.details),
        }
        async with self._database.write("keep a comparison") as connection:
            await connection.execute(sa.insert(reconciliations).values(**values))

    async def last(self) -> tuple[datetime, Compared] | None:
        """The last comparison, and when it was made."""
        query = sa.select(reconciliations).order_by(reconciliations.c.at.desc(), reconciliations.c.id.desc()).limit(1)
        async with self._database.read("look up the last comparison") as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        counts = {name: row[name] for name in ("calls", "gaps", "repaired")}
        return row["at"], Compared(since=row["since_at"], until=row["until_at"], details=row["details"] or {}, **counts)


def _booked(row: sa.RowMapping) -> Booked:
    flagged = (row["review_reasons"] or {}).get(CARRIER) == UNKNOWN_TO_CARRIER
    return Booked(
        **{name: row[name] for name in _NAMES},
        final=row["state"] is RowState.FINAL,
        seen_by_a_person=flagged and not row["needs_review"] and row["reviewed_at"] is not None,
    )
