"""`house`: the doors over a fresh database, on both kinds. `sqlite_house`: for what is not about the store."""

from collections.abc import AsyncIterator

import pytest

from app.store.engine import Database
from tests.web.house import House


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    yield house
    await house.client.aclose()


@pytest.fixture
async def sqlite_house(sqlite_url: str) -> AsyncIterator[House]:
    database = Database(sqlite_url)
    house = House(database)
    yield house
    await house.client.aclose()
    await database.close()
