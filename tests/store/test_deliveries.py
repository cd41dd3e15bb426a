"""The outbox in the store: what is due, what came of it, and what is sent again; on both databases."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.store.after_tables import DeliveryKind, DeliveryState
from app.store.after_tables import deliveries as table
from app.store.audit import AuditLog
from app.store.deliveries import Deliveries, NewDelivery, post
from app.store.engine import Database
from app.store.house_tables import audit_log
from app.store.private import SEALED
from tests.store.afterwards import finished
from tests.store.shelf import KEY, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deliveries(database: Database, clock: Clock) -> Deliveries:
    return Deliveries(database, clock=clock)


def news(revision: int = 2, **other) -> NewDelivery:
    known = {"kind": DeliveryKind.WEBHOOK, "destination": "crm", "event": "call.finished", "body": '{"type": "call.finished"}'}
    return NewDelivery(revision=revision, **(known | other))


async def posted(database: Database, clock: Clock, call_id: str, *new: NewDelivery) -> list[str]:
    """Write deliveries as a transaction of the row would; their ids, in that order."""
    async with database.write() as connection:
        await post(connection, database, call_id, new, clock.now)
        query = sa.select(table.c.id).where(table.c.call_id == call_id).order_by(table.c.revision)
        return list((await connection.execute(query)).scalars())


async def test_what_is_written_is_due_at_once_and_the_longest_due_comes_first(deliveries, database, clock):
    call_id = await finished(database, clock)
    (first,) = await posted(database, clock, call_id, news(2))
    clock.pass_(seconds=1)
    _, second = await posted(database, clock, call_id, news(3))
    assert await deliveries.due(10) == [(first, 1), (second, 1)]
    assert await deliveries.due(1) == [(first, 1)]
    found = await deliveries.pending(second)
    assert (found.call_id, found.kind, found.destination, found.event, found.revision, found.attempts) == (
        *(call_id, DeliveryKind.WEBHOOK, "crm", "call.finished"),
        *(3, 0),
    )
    assert (found.body, found.created_at) == ('{"type": "call.finished"}', clock.now)
    assert "type" not in repr(found)
    assert await deliveries.pending("nobody") is None


async def test_the_same_is_told_to_the_same_destination_once_a_revision(deliveries, database, clock):
    call_id = await finished(database, clock)
    assert len(await posted(database, clock, call_id, news(2), news(2, body="other"))) == 1
    assert (
        len(await posted(database, clock, call_id, news(2), news(2, event="call.changed"), news(3), news(2, destination="b"))) == 4
    )
    assert await posted(database, clock, call_id) == await posted(database, clock, call_id)


async def test_what_is_delivered_is_delivered_once(deliveries, database, clock):
    call_id = await finished(database, clock)
    (name,) = await posted(database, clock, call_id, news())
    clock.pass_(seconds=2)
    assert await deliveries.record(name, 1, status=204, fault=None, again_at=None)
    assert not await deliveries.record(name, 1, status=204, fault=None, again_at=None)
    assert not await deliveries.record(name, 2, status=500, fault="http", again_at=clock.now)
    assert (await deliveries.due(10), await deliveries.pending(name)) == ([], None)
    (found,) = await deliveries.list()
    assert (found["state"], found["attempts"], found["last_status"], found["last_fault"]) == ("delivered", 1, 204, None)
    assert (found["delivered_at"], found["next_attempt_at"]) == (clock.now.isoformat(), None)
    assert "body" not in found


async def test_an_attempt_in_vain_is_counted_and_the_next_comes_when_it_is_time(deliveries, database, clock):
    call_id = await finished(database, clock)
    (name,) = await posted(database, clock, call_id, news())
    assert not await deliveries.record(name, 2, status=None, fault="timeout", again_at=clock.now)  # out of turn
    assert await deliveries.record(name, 1, status=503, fault="http", again_at=clock.now + timedelta(minutes=5))
    assert not await deliveries.record(name, 1, status=None, fault="timeout", again_at=None)
    assert await deliveries.due(10) == []
    clock.pass_(minutes=5)
    assert await deliveries.due(10) == [(name, 2)]
    assert (await deliveries.pending(name)).attempts == 1


async def test_of_many_who_record_one_attempt_one_is_believed(database, database_url, clock):
    call_id = await finished(database, clock)
    (name,) = await posted(database, clock, call_id, news())
    other = Database(database_url)
    both = [Deliveries(each, clock=clock) for each in (database, other)]
    came = await asyncio.gather(*(both[n % 2].record(name, 1, status=500 + n, fault="http", again_at=clock.now) for n in range(8)))
    await other.close()
    (found,) = await both[0].list()
    assert (came.count(True), found["attempts"], found["last_status"]) == (1, 1, 500 + came.index(True))


async def test_what_is_dead_is_seen_and_can_be_sent_again_as_the_same_message(deliveries, database, clock):
    call_id = await finished(database, clock)
    (name,) = await posted(database, clock, call_id, news())
    assert not await deliveries.resend(name, "ann")  # it is pending
    assert await deliveries.record(name, 1, status=410, fault="gone", again_at=None)
    assert await deliveries.counts() == {"pending": 0, "delivered": 0, "dead": 1}
    assert [each["id"] for each in await deliveries.list(state="dead", call_id=call_id)] == [name]
    assert await deliveries.list(state=DeliveryState.DELIVERED) == await deliveries.list(call_id="nobody") == []
    clock.pass_(days=4)
    assert await deliveries.resend(name, "ann")
    assert not await deliveries.resend(name, "ann")
    assert await deliveries.due(10) == [(name, 2)]
    assert (await deliveries.pending(name)).body == news().body
    assert await deliveries.record(name, 2, status=200, fault=None, again_at=None)
    assert await deliveries.resend(name, "ben")  # the receiver has lost it
    assert await deliveries.due(10) == [(name, 3)]
    assert not await deliveries.resend("nobody", "ann")
    async with database.read() as connection:
        lines = (await connection.execute(sa.select(audit_log).order_by(audit_log.c.seq))).all()
    assert [(line.actor, line.action, line.subject) for line in lines] == [
        ("operator:ann", "resend", call_id),
        ("operator:ben", "resend", call_id),
    ]
    assert lines[0].details == {"delivery": name, "kind": "webhook", "event": "call.finished"}


async def test_an_audit_line_stands_or_falls_with_what_it_tells_of(database):
    audit = AuditLog(database)
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await audit.append_on(connection, "operator:ann", "resend")
            raise RuntimeError
    assert (await audit.verify()).lines == 0
    async with database.write() as connection:
        await audit.append_on(connection, "operator:ann", "resend")
        await audit.append_on(connection, "operator:ann", "resend")
    assert ((await audit.verify()).lines, (await audit.verify()).broken_at) == (2, None)


async def test_with_a_key_no_body_lies_open(database_url, clock):
    database = Database(database_url, KEY)
    call_id = await finished(database, clock)
    (name,) = await posted(database, clock, call_id, news(body="CANARY"))
    async with database.read() as connection:
        raw = (await connection.execute(sa.text("SELECT body FROM deliveries"))).scalar_one()
    assert raw.startswith(SEALED)
    assert (await Deliveries(database, clock=clock).pending(name)).body == "CANARY"
    await database.close()
