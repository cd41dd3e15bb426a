"""Alive and ready: two different questions."""

import asyncio

import pytest

from app.web import guard, health
from tests.web.house import House


@pytest.fixture
async def house(sqlite_house):
    return sqlite_house


async def ask(house, path):
    return await house.client.get(f"/health/{path}")


async def test_alive_as_long_as_the_loop_runs_whatever_else_is_wrong(house):
    house.board.draining = True
    house.checks["database"] = lambda: asyncio.sleep(0, "cannot be reached")
    answer = await ask(house, "live")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})
    assert house.calls.asked == []


async def test_ready_when_nothing_speaks_against_it(house):
    house.checks["database"] = lambda: asyncio.sleep(0)
    answer = await ask(house, "ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "reasons": {}})


async def test_not_ready_with_all_the_reasons(house):
    async def broken():
        raise RuntimeError("password=hunter2")

    house.board.draining = True
    house.checks |= {"database": broken, "migrations": lambda: asyncio.sleep(0, "behind"), "model": lambda: asyncio.sleep(0)}
    object.__setattr__(house.desk, "agents", {})
    answer = await ask(house, "ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not ready"
    assert set(answer.json()["reasons"]) == {"database", "migrations", "draining", "agents"}
    assert answer.json()["reasons"]["migrations"] == "behind"
    assert "hunter2" not in answer.text


async def test_a_check_that_hangs_is_a_reason(house, monkeypatch):
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.05)
    house.checks["database"] = asyncio.Event().wait
    assert (await ask(house, "ready")).json()["reasons"] == {"database": "no answer in time"}


async def test_however_often_it_is_asked_the_checks_run_once_a_second_and_one_at_a_time(house):
    ran, at_once = [], []

    async def check():
        ran.append(house.now)
        at_once.append(len(at_once) + 1)
        await asyncio.sleep(0)
        at_once.clear()
        return "away" if len(ran) == 1 else None

    house.checks["database"] = check
    answers = await asyncio.gather(*(ask(house, "ready") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {503}
    assert len(ran) == 1
    house.now += health.FRESH_MS
    assert (await ask(house, "ready")).status_code == 200
    house.now -= 3_600_000  # the clock was set back
    await ask(house, "ready")
    assert len(ran) == 3


async def test_draining_shows_at_once_and_not_a_second_later(house):
    house.checks["database"] = lambda: asyncio.sleep(0)
    assert (await ask(house, "ready")).status_code == 200
    house.board.draining = True
    assert (await ask(house, "ready")).status_code == 503


async def test_health_needs_no_signature_and_everything_else_of_the_carriers_does():
    house = House(None)
    found = dict(guard.policies(house.routes))
    assert {path for path, policy in found.items() if policy is guard.Policy.PUBLIC} == {"/health/live", "/health/ready"}
    assert all(policy is not None for policy in found.values())
    await house.client.aclose()
