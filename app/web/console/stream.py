"""An answer that goes on: server-sent events (HTML Living Standard, 9.2), as pages of the console listen to them.

Rule 1: a stream ends by itself: after `LONGEST_S`, when its reader has gone, does not read, or may not read any more. The page asks
again; so nobody who was signed out goes on reading, and a worker that drains is let go of.
Rule 2: a reader that does not read costs nothing: one piece waits for it at most `SLOWEST_S`, and whoever makes the pieces gathers
what it missed.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import logs
from app.web.console import shell

log = logs.logger("console")

LONGEST_S = 900.0
SLOWEST_S = 20.0
QUIET_S = 15.0
"""A comment is sent so often, that proxies and we ourselves notice who has gone."""
QUIET = ":\n\n"


def event(name: str, data: str = "", *, retry_ms: int | None = None) -> str:
    """One event. Its data may have several lines."""
    lines = [f"event: {name}", *(f"data: {line}" for line in data.splitlines() or [""])]
    return "\n".join(lines if retry_ms is None else [f"retry: {retry_ms}", *lines]) + "\n\n"


class EventStream(Response):
    """Sends what `pieces` gives, piece by piece, and closes it at the end, however that comes.

    Args:
        pieces: text of whole events, and `QUIET` where there is nothing for `QUIET_S`.
        ended: called when the stream is over, once.
    """

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[str], ended: Callable[[], None] = lambda: None) -> None:
        super().__init__(headers={**shell.HEADERS, "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._pieces, self._ended = pieces, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, timeout=LONGEST_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._pieces.aclose()
            self._ended()
        fault = None if sending.cancelled() else sending.exception()
        if isinstance(fault, TimeoutError | OSError):
            return  # it does not read: the server cuts the connection
        if fault is not None:
            log.error("a stream failed", path=scope["path"], fault=type(fault).__name__, at=logs.where(fault))
        await _close(send)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces:
            async with asyncio.timeout(SLOWEST_S):
                await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close(send: Send) -> None:
    try:
        async with asyncio.timeout(SLOWEST_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except (TimeoutError, OSError):
        return  # whoever it was has gone
