"""The pretend carrier's callbacks: asynchronous, out of order, sometimes twice, sometimes never; by seeded dice.

Whoever gets them must treat them as hints (the documentation promises neither order nor delivery). The body of the answer is
ignored; a 4xx or 5xx is the carrier's warning 15003.
"""

import asyncio
import random
from collections.abc import Callable

from app.rehearsal.carrier_plans import CallPlan
from app.rehearsal.carrier_web import Fields, WebhookFailed, Webhooks
from app.rehearsal.twiml import Alert, Target


class Courier:
    """Delivers the callbacks of one call. `settled` waits for all of them."""

    def __init__(self, webhooks: Webhooks, plan: CallPlan, dice: random.Random, alert: Callable[[Alert], None]) -> None:
        self._webhooks, self._plan, self._dice, self._alert = webhooks, plan, dice, alert
        self._under_way: set[asyncio.Task[None]] = set()
        self.delivered: list[tuple[str, dict[str, str]]] = []
        """Every delivery that was answered: path and fields, in the order of the answers."""
        self.dropped = 0

    def send(self, target: Target, fields: Fields) -> None:
        """Send a callback some time soon."""
        if self._dice.random() < self._plan.callback_drops:
            self.dropped += 1
            return
        copies = 2 if self._dice.random() < self._plan.callback_duplicates else 1
        for _ in range(copies):
            delay_ms = self._dice.uniform(0, self._plan.callback_delay_ms)
            task = asyncio.create_task(self._deliver(target, fields, delay_ms))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def settled(self) -> None:
        """Wait until nothing is under way any more."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    async def _deliver(self, target: Target, fields: Fields, delay_ms: float) -> None:
        await asyncio.sleep(delay_ms / 1_000)
        try:
            await self._webhooks.ask(target, fields)
        except WebhookFailed as fault:
            self._alert(Alert(15003, f"a callback to {target.url} failed: {fault.about}"))
        else:
            self.delivered.append((target.url, dict(fields)))
