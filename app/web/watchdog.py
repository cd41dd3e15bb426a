"""Calls that nobody carries: their worker hangs or is lost, and the carrier has not noticed, or its last word was.

A worker that hangs keeps its sockets open, so that the carrier hears silence and nothing that would make it ask. A callback is told
once; if a worker dies with it, nobody hears of the call's end. So each worker looks, every few seconds, for live rows without a
living worker, asks the carrier how the call stands, and either redirects it to `/twilio/resume`, where any worker takes it on, or
finishes the row.

Rule 1: a worker lives while its sign of life changes, by the clock of the one who looks: two clocks are never compared. Who could
not look for a while judges nobody until a whole lease has gone by.
Rule 2: one redirect an epoch, by whoever wins the row: a second one would tear down the stream that the first has opened.
Rule 3: what the carrier says is asked first; a call that is over is finished, and never redirected.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from app import logs
from app.call.disposition import EndReason, Intent
from app.errors import BadCarrierMessage, CarrierRefused, StoreUnavailable
from app.store import ending
from app.store.calls import CallState
from app.store.workers import Workers
from app.twilio.carrier import Carrier
from app.twilio.twiml import Twiml
from app.web.desk import Desk
from app.web.resume import Resume
from app.web.webhook import TERMINAL

log = logs.logger("web")

LOOK_S = 5.0
LEASE_S = 15.0
"""Three signs of life that did not come."""
UNCLAIMED = timedelta(seconds=75)
"""Longer than a slot is kept: a stream that was announced and has not come by then will not come."""
AT_ONCE = 20


class Watchdog:
    """Looks after the calls of lost workers. `me` is this worker's name."""

    def __init__(
        self, desk: Desk, workers: Workers, carrier: Carrier, me: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._desk, self._workers, self._carrier, self._me, self._clock = desk, workers, carrier, me, clock
        self._resume = Resume(desk, Twiml(desk.settings.public_url, desk.settings.stream_url))
        self._beats: dict[str, tuple[datetime, float]] = {}
        self._looks_since: float | None = None

    async def run(self) -> None:
        """Look, every few seconds. Runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except StoreUnavailable:
                self._looks_since = None  # rule 1
                log.warning("no look for lost calls: the database is away")
            except Exception as fault:
                log.error("a look for lost calls failed", fault=type(fault).__name__, at=logs.where(fault))

    async def look(self) -> int:
        """Once; how many calls were redirected or finished."""
        alive = await self._alive()
        if alive is None:
            return 0
        lease = timedelta(seconds=LEASE_S)
        done = 0
        for state in await self._workers.left_behind(alive, lease=lease, unclaimed=UNCLAIMED, most=AT_ONCE):
            if state.worker == self._me and self._desk.switchboard.carries(state.call_id):
                continue
            try:
                done += await self._judge(state)
            except (CarrierRefused, BadCarrierMessage) as fault:
                log.warning("the carrier does not say how a lost call stands", call_id=state.call_id, fault=str(fault))
        return done

    async def _alive(self) -> frozenset[str] | None:
        """Who lives, but for ourselves; None while nobody can say (rule 1)."""
        seen = {worker.id: worker.heartbeat_at for worker in await self._workers.list()}
        now = self._clock()
        if self._looks_since is None:
            self._looks_since, self._beats = now, {}
        self._beats = {
            name: self._beats[name] if name in self._beats and self._beats[name][0] == beat else (beat, now)
            for name, beat in seen.items()
        }
        if now - self._looks_since < LEASE_S:
            return None
        return frozenset(name for name, (_, since) in self._beats.items() if now - since < LEASE_S and name != self._me)

    async def _judge(self, state: CallState) -> bool:
        sid = state.carrier_call_sid
        if sid is None:
            return False
        call = await self._carrier.fetch(sid)
        if call is None:
            return await self._resume.finish(state, EndReason.WORKER_LOST)
        if call.status in TERMINAL:
            now = await self._desk.calls.carrier_status(sid, call.status, duration_s=call.duration_s)
            return now is not None and not now.final and await self._resume.finish(now, ending.reason_of(now, call.status))
        if state.claimed_epoch != state.epoch or state.next_step is Intent.TRANSFER:
            return False  # the carrier will ask; or a person has the call
        if not await self._workers.take_over(state.call_id, state.epoch, lost=state.worker, taker=self._me):
            return False
        log.error("a call's worker is lost; the call is redirected", call_id=state.call_id, epoch=state.epoch, lost=state.worker)
        return await self._carrier.redirect(sid, f"{self._desk.settings.public_url}/twilio/resume?epoch={state.epoch}")
