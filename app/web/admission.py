"""Whether this process takes on another call: by how late it is with its work, by whether it can still keep what happens, and by
who asks how often. How many calls it has is the switchboard's to count.

Rule 1: refused is what is new, early and cheaply; a call that is live is never refused (its next stream does not come by here).
Rule 2: what we place ourselves stops first, then what comes from the browser, then what comes by telephone: `SHARES`.
Rule 3: asking costs nothing and waits for nothing: between this answer and the slot no other request can come.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from app.settings import Settings
from app.web.guard import Pace

TICK_S = 0.05
WINDOW = 200
"""Ticks that are judged by: ten seconds."""
LATE_PART = 0.9
"""A tenth of them may be anything: one stall of half a second says nothing of the next call, a second's worth of them does."""

SHARES = {"outbound": 0.7, "browser": 0.85, "inbound": 1.0}
"""Up to which part of a limit a kind of call is taken on (rule 2)."""


class LoopLag:
    """How late the event loop is with what is due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._late: deque[float] = deque(maxlen=WINDOW)

    async def watch(self) -> None:
        """Look, twenty times a second. Runs until cancelled."""
        while True:
            due = self._clock() + TICK_S
            await asyncio.sleep(TICK_S)
            self.saw(self._clock() - due)

    def saw(self, late_s: float) -> None:
        """A tick came so late. Those that it kept from coming would have been late as well, each a tick less."""
        for _ in range(WINDOW):
            self._late.append(max(0.0, late_s))
            late_s -= TICK_S
            if late_s <= 0:
                return

    @property
    def p90_ms(self) -> float:
        """The 90th percentile of the last ten seconds, in ms; 0 until two seconds have been seen."""
        if len(self._late) < WINDOW / 5:
            return 0.0
        return sorted(self._late)[math.ceil(LATE_PART * len(self._late)) - 1] * 1_000


class Admission:
    """The judgement. `overwhelmed` says whether what happens now could no longer be kept."""

    def __init__(
        self,
        settings: Settings,
        *,
        lag_ms: Callable[[], float] = lambda: 0.0,
        overwhelmed: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._lag_ms, self._overwhelmed = settings, lag_ms, overwhelmed
        calls = settings.calls_a_minute_per_caller
        self._pace = Pace(burst=calls, per_second=calls / 60, clock=clock) if calls else None

    def refuses(self, live: int, caller: str | None, kind: str = "inbound") -> str | None:
        """Why a new call of that kind is not taken on, while `live` others are; None if it is. Counts the caller's calls.

        A caller whose number is withheld is not counted: all of those would be one.
        """
        share = SHARES[kind]
        if self._overwhelmed():
            return "the journal has no room"
        if live and self._lag_ms() > self._settings.max_loop_lag_ms * share:  # with no call live there is none to protect
            return "the loop is late"
        if live >= self._settings.max_calls * share:
            return "full"
        if self._pace is not None and caller is not None and not self._pace.allows(caller):
            return "too many from one number"
        return None
