"""The outbox: what leaves the house, from the transaction that changed a row to the answer of whoever received it.

Rule 1: a delivery is written in the transaction that changed the row it tells of (`post`), or not at all. Its id is the message's
id for ever, its body is what is sent at every attempt, to the byte.
Rule 2: the same thing is told to the same destination once a revision: a second such delivery is not written.
Rule 3: attempts are numbered, and an outcome is recorded by compare-and-set on that number: who records twice changes nothing.
Rule 4: nothing here sends. What is due is listed; who sends it says what came of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.after_tables import DeliveryKind, DeliveryState, deliveries
from app.store.audit import AuditLog, actor
from app.store.engine import Database
from app.store.facts import plain, utc_now
from app.store.identity import new_call_id

__all__ = ["Deliveries", "Delivery", "DeliveryKind", "DeliveryState", "NewDelivery", "post"]

SHOWN = [column for column in deliveries.c if column is not deliveries.c.body]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """Something to be told to somebody."""

    kind: DeliveryKind
    destination: str
    """A name (`crm`, `mail`), never an address and never a secret: those are settings."""
    event: str
    revision: int
    """The row's, so that a receiver can tell old news. Together with the event it makes the delivery one of its kind (rule 2)."""
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery that is still to be made."""

    id: str
    """26 letters: the message's id, the same at every attempt."""
    call_id: str
    kind: DeliveryKind
    destination: str
    event: str
    revision: int
    body: str = field(repr=False)
    attempts: int
    """Those already made."""
    created_at: datetime
    next_attempt_at: datetime


class Deliveries:
    """All deliveries of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._audit = AuditLog(database, clock=clock)

    async def due(self, limit: int) -> list[tuple[str, int]]:
        """What is to be sent now, the longest due first: the delivery's id and the number of the attempt to make, from 1."""
        query = (
            sa.select(deliveries.c.id, deliveries.c.attempts)
            .where(deliveries.c.next_attempt_at <= self._clock())
            .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
            .limit(limit)
        )
        async with self._database.read("look for deliveries that are due") as connection:
            return [(row.id, row.attempts + 1) for row in await connection.execute(query)]

    async def pending(self, delivery_id: str) -> Delivery | None:
        """A delivery with its body; None when it is delivered, dead or unknown: nothing is to be sent."""
        query = sa.select(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.state == DeliveryState.PENDING)
        async with self._database.read("read a delivery") as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})

    async def record(
        self, delivery_id: str, attempt: int, *, status: int | None, fault: str | None, again_at: datetime | None
    ) -> bool:
        """What came of an attempt. No `fault`: it is delivered. A fault and `again_at`: again then. A fault alone: it is dead.

        `fault` is a short constant, never words of a peer; `status` is the peer's own (HTTP, SMTP), if it gave one.

        Returns:
            False: this attempt is recorded already, or the delivery is no longer pending. Nothing was changed.
        """
        now = self._clock()
        came: dict[str, Any] = {"state": DeliveryState.DELIVERED, "next_attempt_at": None, "delivered_at": now}
        if fault is not None:
            state = DeliveryState.DEAD if again_at is None else DeliveryState.PENDING
            came = {"state": state, "next_attempt_at": again_at}
        update = (
            sa.update(deliveries)
            .where(
                deliveries.c.id == delivery_id,
                deliveries.c.attempts == attempt - 1,
                deliveries.c.state == DeliveryState.PENDING,
            )
            .values(attempts=attempt, last_status=status, last_fault=fault, updated_at=now, **came)
        )
        async with self._database.write("record what came of a delivery") as connection:
            return (await connection.execute(update)).rowcount == 1

    async def resend(self, delivery_id: str, by: str) -> bool:
        """Send what is dead or delivered once more, as the same message. False: it is pending anyway, or unknown."""
        now = self._clock()
        update = (
            sa.update(deliveries)
            .where(deliveries.c.id == delivery_id, deliveries.c.state != DeliveryState.PENDING)
            .values(state=DeliveryState.PENDING, next_attempt_at=now, updated_at=now)
            .returning(deliveries.c.call_id, deliveries.c.kind, deliveries.c.event)
        )
        async with self._database.write("send a delivery again") as connection:
            row = (await connection.execute(update)).one_or_none()
            if row is None:
                return False
            details = {"delivery": delivery_id, "kind": row.kind.value, "event": row.event}
            await self._audit.append_on(connection, actor(by), "resend", row.call_id, details)
            return True

    async def list(
        self, *, state: DeliveryState | str | None = None, call_id: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Deliveries as JSON can say them, the newest first, without their bodies."""
        query = sa.select(*SHOWN).order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(deliveries.c.state == DeliveryState(state))
        if call_id is not None:
            query = query.where(deliveries.c.call_id == call_id)
        async with self._database.read("list the deliveries") as connection:
            return [plain(row) for row in (await connection.execute(query)).mappings()]

    async def counts(self) -> dict[str, int]:
        """How many there are in each state."""
        query = sa.select(deliveries.c.state, sa.func.count()).group_by(deliveries.c.state)
        async with self._database.read("count the deliveries") as connection:
            found = {state: number for state, number in await connection.execute(query)}
        return {state.value: found.get(state, 0) for state in DeliveryState}


async def post(connection: AsyncConnection, database: Database, call_id: str, news: Sequence[NewDelivery], at: datetime) -> None:
    """Write deliveries into the transaction of this connection, due at once (rules 1 and 2)."""
    if not news:
        return
    rows = [
        {
            "id": new_call_id(at),
            "call_id": call_id,
            "kind": new.kind,
            "destination": new.destination,
            "event": new.event,
            "revision": new.revision,
            "body": new.body,
            "state": DeliveryState.PENDING,
            "attempts": 0,
            "next_attempt_at": at,
            "created_at": at,
            "updated_at": at,
        }
        for new in news
    ]
    once = database.insert(deliveries).on_conflict_do_nothing(
        index_elements=["call_id", "kind", "destination", "event", "revision"]
    )
    await connection.execute(once, rows)
