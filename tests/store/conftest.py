"""What the tests of judgements, corrections and rescorings ask for."""

import pytest
import sqlalchemy as sa

from app.store.calls import Calls
from app.store.deliveries import Deliveries
from app.store.engine import Database
from app.store.house_tables import audit_log
from app.store.judgements import Judgements
from tests.store.afterwards import tell_crm
from tests.store.shelf import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def judgements(database: Database, clock: Clock) -> Judgements:
    return Judgements(database, tell_crm, clock=clock)


@pytest.fixture
def row(database: Database):
    async def _row(call_id: str):
        return await Calls(database).row(call_id)

    return _row


@pytest.fixture
def told(database: Database):
    """What the CRM is told, in order: event, revision."""

    async def _told(call_id: str, kind: str = "webhook"):
        news = await Deliveries(database).list(call_id=call_id)
        return sorted((each["revision"], each["event"]) for each in news if each["kind"] == kind)

    return _told


@pytest.fixture
def audited(database: Database):
    async def _audited():
        async with database.read() as connection:
            lines = await connection.execute(sa.select(audit_log).order_by(audit_log.c.seq))
            return [(line.actor, line.action, line.subject, line.details) for line in lines]

    return _audited
