"""Workers and their signs of life, on both databases."""

import asyncio
from datetime import timedelta

import pytest

from app.store.engine import Database
from app.store.workers import Workers
from tests.store.shelf import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workers(database: Database, clock: Clock) -> Workers:
    return Workers(database, clock=clock)


async def test_a_worker_begins_with_its_first_sign_of_life_and_goes_on(workers, clock):
    began = clock.now
    await workers.beat("w1", live_calls=0)
    clock.pass_(seconds=5)
    await workers.beat("w1", live_calls=3, address="127.0.0.1:9000")
    (worker,) = await workers.list()
    assert (worker.id, worker.started_at, worker.heartbeat_at) == ("w1", began, clock.now)
    assert (worker.live_calls, worker.address) == (3, "127.0.0.1:9000")


async def test_who_is_silent_is_not_at_work_and_is_forgotten_in_time(workers, clock):
    await workers.beat("w1", live_calls=1)
    clock.pass_(seconds=30)
    await workers.beat("w2", live_calls=1)
    clock.pass_(seconds=1)
    assert [worker.id for worker in await workers.list()] == ["w1", "w2"]
    assert [worker.id for worker in await workers.list(seen_within=timedelta(seconds=15))] == ["w2"]
    assert not await workers.is_alive("w1", within=timedelta(seconds=15))
    assert await workers.is_alive("w2", within=timedelta(seconds=15))
    assert not await workers.is_alive("w3", within=timedelta(seconds=15))
    assert await workers.forget(timedelta(seconds=15)) == 1
    assert [worker.id for worker in await workers.list()] == ["w2"]


async def test_a_worker_that_leaves_is_gone(workers):
    await workers.beat("w1", live_calls=0)
    await workers.leave("w1")
    await workers.leave("w1")
    assert await workers.list() == []


async def test_many_signs_of_life_at_once_are_one_worker_each(workers):
    await asyncio.gather(*(workers.beat(f"w{number % 4}", live_calls=number) for number in range(20)))
    assert len(await workers.list()) == 4
