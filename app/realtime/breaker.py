"""Whether it is worth asking the provider for a session: what all calls of a process have met with, taken together. Pure.

Rule 1: five failures within 30 s open the breaker: new calls are told so at once, rather than after seconds of silence.
Rule 2: while it is open, it is not a caller who finds out that the provider is back: now and then a probe may be made, and the
first session that is had, by whomever, closes the breaker.
Rule 3: a call that lives and has lost its session is always let try once. Further tries draw on a budget that all calls share, a
tenth of what is asked for anyhow: an outage of the provider's is not made worse by those who wait for its end.
"""

from collections import deque
from collections.abc import Callable

FAILURES, WITHIN_S = 5, 30.0
PROBE_EVERY_S = 5.0
RETRIES_A_TRY = 0.1
MOST_RETRIES = 50.0
RETRIES_A_SECOND = 1.0
"""So much is there in any case, for a process that has few calls."""


class Breaker:
    """One provider's, for one process. `clock`: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._open = False
        self._probed_at = 0.0
        self._budget, self._counted_at = MOST_RETRIES, clock()

    @property
    def is_open(self) -> bool:
        """New calls need not try."""
        return self._open

    def succeeded(self) -> None:
        """A session was had."""
        self._failures.clear()
        self._open = False

    def failed(self) -> None:
        """A session could not be had."""
        now = self._clock()
        self._failures.append(now)
        if not self._open and len(self._failures) == FAILURES and now - self._failures[0] <= WITHIN_S:
            self._open, self._probed_at = True, now

    def may_probe(self) -> bool:
        """Whether a probe is due; if so it counts as begun."""
        now = self._clock()
        if not self._open or now - self._probed_at < PROBE_EVERY_S:
            return False
        self._probed_at = now
        return True

    def tried(self) -> None:
        """A first try is made."""
        self._refill(RETRIES_A_TRY)

    def may_retry(self) -> bool:
        """Whether the budget allows for another try (rule 3); if so it is drawn."""
        self._refill(0.0)
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True

    def _refill(self, more: float) -> None:
        now = self._clock()
        self._budget = min(MOST_RETRIES, self._budget + more + (now - self._counted_at) * RETRIES_A_SECOND)
        self._counted_at = now
