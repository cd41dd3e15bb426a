"""`office`: the console on both databases. `sqlite_office`: for what is not about the store."""

from collections.abc import AsyncIterator

import pytest

from app.store.engine import Database
from tests.web.console.office import Office


@pytest.fixture
async def office(database: Database) -> AsyncIterator[Office]:
    made = Office(database)
    yield made
    await made.close()


@pytest.fixture
async def sqlite_office(sqlite_url: str) -> AsyncIterator[Office]:
    database = Database(sqlite_url)
    made = Office(database)
    yield made
    await made.close()
    await database.close()
