"""The model's side of a leg, for the tests: a real server that does what the test says, and the inbox of the call."""

import asyncio
import contextlib
import http
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.audio.path import audio_path
from app.call import events as e
from app.realtime.leg import ModelLeg
from tests.realtime.scenery import AGENTS, DESK, OPTIONS, client_event

WAIT_S = 20
FRAME = bytes((i * 37 + 11) % 256 for i in range(160))


class Inbox:
    """What the leg posts."""

    def __init__(self) -> None:
        self.events: list[e.Event] = []
        self._queue: asyncio.Queue[e.Event] = asyncio.Queue()

    def post(self, event: e.Event) -> None:
        self.events.append(event)
        self._queue.put_nowait(event)

    async def next(self) -> e.Event:
        async with asyncio.timeout(WAIT_S):
            return await self._queue.get()

    async def until(self, kind: type[e.Event]) -> e.Event:
        while not isinstance(event := await self.next(), kind):
            pass
        return event


class Provider:
    """A real server that does what the test says. By itself it grants every session as it was asked."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.connections: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = granted
        self.refusal: tuple[int, bytes] | None = None
        self.before_update: list[bytes] = []
        self._news = asyncio.Event()

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.put_nowait(connection)
        for message in self.before_update:
            await connection.send(message.decode())
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                message = client_event(text.encode())  # whatever we send must be of the provider's own types
                self.received.append(message)
                self._news.set()
                if message["type"] == "session.update" and (answer := self.answer(message)) is not None:
                    await connection.send(json.dumps(answer))

    async def admit(self, connection: ServerConnection, _request: object) -> Any:
        if self.refusal is None:
            return None
        return connection.respond(http.HTTPStatus(self.refusal[0]), self.refusal[1].decode())

    async def got(self, count: int, kind: str | None = None) -> list[dict[str, Any]]:
        """The first so many messages (of a kind), once they have come."""
        async with asyncio.timeout(WAIT_S):
            while len(found := [m for m in self.received if kind in (None, m["type"])]) < count:
                self._news.clear()
                await self._news.wait()
        return found[:count]


def granted(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "session.updated", "event_id": "event_1", "session": message["session"]}


def refused(code: str, *, linked: bool = True) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        error = {"type": "invalid_request_error", "code": code, "message": "No.", "param": None}
        return {"type": "error", "event_id": "event_1", "error": error | ({"event_id": message["event_id"]} if linked else {})}

    return answer


@contextlib.asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[str]:
    server = await serve(provider.handle, "127.0.0.1", 0, process_request=provider.admit, ping_interval=None, close_timeout=0.1)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime?model=gpt-realtime-2.1"


def a_leg(url: str, inbox: Inbox, path: str = "passthrough", **more: Any) -> ModelLeg:
    return ModelLeg(OPTIONS, audio_path(path), inbox.post, agents=AGENTS, url=url, api_key="sk-test", **more)


@contextlib.asynccontextmanager
async def talking(
    provider: Provider | None = None, *, agent: Any = DESK, path: str = "passthrough"
) -> AsyncIterator[tuple[ModelLeg, Provider, ServerConnection, Inbox]]:
    """A session that is open, with the server's side of it."""
    provider, inbox = provider or Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox, path)
        try:
            await leg.open(agent)
            assert await inbox.next() == e.ModelReady()
            yield leg, provider, await provider.connections.get(), inbox
        finally:
            await leg.close()
