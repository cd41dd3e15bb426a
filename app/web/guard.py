"""What stands before every door: a limit on bodies, a limit on waiting for them, headers for browsers, and a policy for each route.

Rule 1: a body is read whole, at most `MAX_BODY` bytes, within `BODY_SECONDS`; only then a door hears of the request (T07).
Rule 2: no route without a policy. The table is walked when the app is built; a route that forgot it stops the start.
Rule 3: exact paths. A redirect for a missing slash would lose the carrier's POST (Twilio's documentation).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import OurFault

MAX_BODY = 64 * 1024
BODY_SECONDS = 5.0

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
# Half a year. A browser that has once met us over https comes back over https.
STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=15552000")


class Policy(StrEnum):
    """Who may come in by a door."""

    SIGNED = "signed"
    """Only the carrier: every request is signed."""
    SIGNED_UPGRADE = "signed_upgrade"
    """Only the carrier: the upgrade is signed where the carrier signs it, and the stream's token decides."""
    PUBLIC = "public"
    """Anybody, on purpose."""
    SIGNED_IN = "signed_in"
    """Whoever is signed in to the console, whatever their role."""
    OPERATOR = "operator"
    """Operators of the console, and whose role includes theirs; the next two likewise."""
    REVIEWER = "reviewer"
    ADMIN = "admin"


class Unguarded(OurFault):
    """A route has no policy. `paths` names all of them."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.paths = paths
        super().__init__(paths)

    def __str__(self) -> str:
        return f"these routes say nothing about who may use them: {', '.join(self.paths)}"


class Door(Protocol):
    """An endpoint: a raw ASGI application that says who may come in."""

    policy: Policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def build(
    routes: Sequence[BaseRoute], *, https: bool, lifespan: Callable[[Starlette], AbstractAsyncContextManager[Any]] | None = None
) -> Starlette:
    """The web application over these routes, with all guards in place.

    Raises:
        Unguarded: a route has no policy.
    """
    if missing := tuple(path for path, policy in policies(routes) if policy is None):
        raise Unguarded(missing)
    headers = (*HEADERS, STRICT_TRANSPORT) if https else HEADERS
    guards = [Middleware(SafeHeaders, headers=headers), Middleware(BodyGuard)]
    app = Starlette(routes=routes, middleware=guards, lifespan=lifespan)
    app.router.redirect_slashes = False
    return app


def policies(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Policy | None]]:
    """Every route's path and its policy; None where nobody has thought of one. A mount's policy covers what it mounts."""
    for route in routes:
        path = prefix + str(getattr(route, "path", repr(route)))
        door = getattr(route, "endpoint", None) or getattr(route, "app", None)
        policy = getattr(door, "policy", None)
        inner = getattr(route, "routes", None)
        if inner and policy is None:
            yield from policies(inner, path)
        else:
            yield path, policy if isinstance(policy, Policy) else None


class Pace:
    """How fast somebody may ask of this process: `burst` at once, then `per_second`. Whoever sends nonsense must not cost the
    loop its time for calls. Kept in memory: what must hold over all processes is counted in the store (app/store/limits.py).
    """

    def __init__(self, *, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic, most: int = 20_000) -> None:
        self._gap, self._most, self._clock = 1 / per_second, most, clock
        self._ahead = (burst - 1) * self._gap
        self._due: dict[str, float] = {}

    def allows(self, key: str) -> bool:
        """Count a request; False if it is too much, and then it does not count."""
        now = self._clock()
        due = max(self._due.get(key, now), now)
        if due - now > self._ahead:
            return False
        if key not in self._due and len(self._due) >= self._most:
            self._due = {known: then for known, then in self._due.items() if then > now}
            if len(self._due) >= self._most:
                return False
        self._due[key] = due + self._gap
        return True


class SafeHeaders:
    """Adds headers to every answer that has not set them itself."""

    def __init__(self, app: ASGIApp, *, headers: Sequence[tuple[bytes, bytes]] = HEADERS) -> None:
        self._app, self._headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                set_already = {name.lower() for name, _ in own}
                message = {**message, "headers": own + [header for header in self._headers if header[0] not in set_already]}
            await send(message)

        await self._app(scope, receive, with_headers)


class BodyGuard:
    """Reads the whole body first, within its limits, and hands it on as one message (rule 1)."""

    def __init__(self, app: ASGIApp, *, limit: int = MAX_BODY, seconds: float = BODY_SECONDS) -> None:
        self._app, self._limit, self._seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            return await _refuse(408, "Request Timeout", scope, receive, send)
        except _TooLong:
            return await _refuse(413, "Content Too Large", scope, receive, send)
        if body is None:
            return None  # whoever it was has gone
        first: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or len(value) > 15 or int(value) > self._limit):
                raise _TooLong
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise _TooLong
            if not message.get("more_body", False):
                return bytes(body)


class _TooLong(Exception):
    pass


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of the body stays unread, so the connection cannot be used again.
    await PlainTextResponse(text, status, headers={"connection": "close"})(scope, receive, send)
