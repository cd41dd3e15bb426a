"""`house`: the doors over a fresh database, on both kinds."""

from collections.abc import AsyncIterator

import pytest

from app.store.engine import Database
from tests.web.house import House


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    yield house
    await house.client.aclose()
