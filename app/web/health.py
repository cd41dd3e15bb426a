"""Are we alive, and may new calls come? For the platform that restarts and routes; nothing here is private.

Rule 1: `live` asks nothing but the loop: a database that is away must not make the platform kill calls that go on without it.
Rule 2: `ready` may be asked by anybody as often as they like; its checks run at most once a second, and one at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app import logs
from app.web.desk import Desk
from app.web.guard import Policy

log = logs.logger("web")

CHECK_SECONDS = 2.0
FRESH_MS = 1_000

type Check = Callable[[], Awaitable[str | None]]
"""None if all is well, else a short constant that says what is not: it is shown to anybody."""


def routes(desk: Desk, checks: Mapping[str, Check]) -> list[Route]:
    """`/health/live` and `/health/ready`. `checks` are those that need more than the desk: the database, its migrations."""
    return [
        Route("/health/live", Live(), methods=["GET"]),
        Route("/health/ready", Ready(desk, checks), methods=["GET"]),
    ]


class Live:
    """200 as long as the loop runs."""

    policy = Policy.PUBLIC

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"status": "live"})(scope, receive, send)


class Ready:
    """200, or 503 with the reasons why no new call should come here."""

    policy = Policy.PUBLIC

    def __init__(self, desk: Desk, checks: Mapping[str, Check]) -> None:
        self._desk, self._checks = desk, checks
        self._looking = asyncio.Lock()
        self._seen: dict[str, str] = {}
        self._seen_at: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reasons = dict(await self._look())
        if self._desk.switchboard.draining:
            reasons["draining"] = "no new calls; those that are live go on"
        if not self._desk.agents:
            reasons["agents"] = "none is loaded"
        body = {"status": "not ready" if reasons else "ready", "reasons": reasons}
        await JSONResponse(body, 503 if reasons else 200)(scope, receive, send)

    async def _look(self) -> dict[str, str]:
        async with self._looking:
            now = self._desk.clock()
            # A clock set back must not keep an old answer.
            if self._seen_at is None or not 0 <= now - self._seen_at < FRESH_MS:
                found = await asyncio.gather(*(self._ask(name, check) for name, check in self._checks.items()))
                self._seen = {name: reason for name, reason in found if reason is not None}
                self._seen_at = now
            return self._seen

    async def _ask(self, name: str, check: Check) -> tuple[str, str | None]:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return name, await check()
        except TimeoutError:
            return name, "no answer in time"
        except Exception as fault:
            log.warning("a readiness check failed", check=name, fault=type(fault).__name__)
            return name, "cannot be reached"
