"""What all calls of a process know together of the provider."""

import pytest

from app.realtime.breaker import FAILURES, MOST_RETRIES, PROBE_EVERY_S, WITHIN_S, Breaker


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def breaker() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(clock), clock


def fail(it: Breaker, times: int) -> None:
    for _ in range(times):
        it.failed()


def test_five_failures_open_it_and_four_do_not():
    it, _ = breaker()
    fail(it, FAILURES - 1)
    assert not it.is_open
    it.failed()
    assert it.is_open


def test_failures_that_lie_far_apart_do_not_open_it():
    it, clock = breaker()
    for _ in range(20):
        it.failed()
        clock.now += WITHIN_S / (FAILURES - 1) + 0.1
    assert not it.is_open


def test_a_success_between_them_begins_the_count_anew():
    it, _ = breaker()
    fail(it, FAILURES - 1)
    it.succeeded()
    fail(it, FAILURES - 1)
    assert not it.is_open


def test_while_it_is_open_a_probe_is_due_now_and_then_and_one_that_succeeds_closes_it():
    it, clock = breaker()
    assert not it.may_probe()
    fail(it, FAILURES)
    assert not it.may_probe(), "it has just failed"
    clock.now += PROBE_EVERY_S
    assert it.may_probe() and not it.may_probe()
    it.failed()
    assert it.is_open
    clock.now += PROBE_EVERY_S
    assert it.may_probe()
    it.succeeded()
    assert not it.is_open and not it.may_probe()


def test_further_tries_draw_on_what_first_tries_and_time_bring():
    it, clock = breaker()
    granted = sum(it.may_retry() for _ in range(1_000))
    assert granted == MOST_RETRIES
    for _ in range(105):
        it.tried()
    assert sum(it.may_retry() for _ in range(100)) == 10, "a tenth of the first tries"
    clock.now += 3.0
    assert sum(it.may_retry() for _ in range(100)) == 3
    clock.now += 1_000_000.0
    assert sum(it.may_retry() for _ in range(1_000)) == MOST_RETRIES, "nothing is saved up beyond that"
