"""A small service for the pretend carrier to call: real Starlette, real sockets, and the
signature check of the carrier's own package.

It answers what a test tells it to and keeps what it was sent.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from twilio.request_validator import RequestValidator

from app.rehearsal.carrier_rest import Server

TOKEN = "12345"
ACCOUNT = "AC" + "0" * 32
BOUND = 20
"""Seconds: how long a test waits for what takes milliseconds."""


def twiml(body: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{body}</Response>'


async def eventually(true: Callable[[], Any]) -> None:
    """Wait until something is true; it takes milliseconds, and is given much more."""
    async with asyncio.timeout(BOUND):
        while True:
            if true():
                return
            await asyncio.sleep(0.005)


@dataclass
class Request_:
    path: str
    fields: dict[str, str]
    signed: bool
    token: str | None
    at: float


@dataclass
class Socket:
    """One media socket as the service sees it."""

    websocket: WebSocket
    signed: bool
    received: list[dict[str, Any]] = field(default_factory=list)
    stream_sid: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    clean: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.received if message["event"] == event]

    def marks(self) -> list[str]:
        return [message["mark"]["name"] for message in self.of("mark")]

    async def send(self, event: str, **content: Any) -> None:
        await self.websocket.send_text(json.dumps({"event": event, "streamSid": self.stream_sid, **content}))

    async def play(self, payload: bytes) -> None:
        await self.send("media", media={"payload": base64.b64encode(payload).decode()})

    async def mark(self, name: str) -> None:
        await self.send("mark", mark={"name": name})

    async def wait_for(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(BOUND):
            while len(self.of(event)) < count:
                self.news.clear()
                await self.news.wait()
        return self.of(event)


type Talk = Callable[[Socket], Awaitable[None]]


async def listen(socket: Socket) -> None:
    """Keep the socket open until the carrier closes it."""
    await socket.over.wait()


class Service:
    """`documents` maps a path to the documents it answers with, in order; the last one stands."""

    def __init__(self, documents: dict[str, list[str]], talk: Talk = listen) -> None:
        self.documents = documents
        self.talk = talk
        self.requests: list[Request_] = []
        self.sockets: list[Socket] = []
        self.statuses: dict[str, list[int]] = {}
        """HTTP statuses to answer a path with before the documents."""
        self.content_type = "text/xml"
        self.files: dict[str, tuple[str, bytes]] = {}
        """Content type and content by path."""
        self.slow_s = 0.0
        self.url = ""
        self.app = Starlette(
            routes=[
                WebSocketRoute("/twilio/media", self._media),
                Route("/{path:path}", self._answer, methods=["GET", "POST"]),
            ]
        )

    def paths(self, path: str) -> list[Request_]:
        return [request for request in self.requests if request.path == path]

    def connect(self, action: str | None = "/twilio/resume?epoch=1", after: str = "", status: bool = False) -> str:
        attributes = f' action="{self.url}{action}"' if action else ""
        callback = f' statusCallback="{self.url}/twilio/stream-status"' if status else ""
        address = self.url.replace("http", "ws") + "/twilio/media"
        stream = f'<Stream url="{address}"{callback}><Parameter name="token" value="t1"/></Stream>'
        return twiml(f"<Connect{attributes}>{stream}</Connect>{after}")

    async def _answer(self, request: Request) -> Response:
        form = await request.form()
        fields = {name: str(value) for name, value in form.multi_items()} | dict(request.query_params)
        stamp = request.headers.get("x-twilio-signature")
        address = self.url + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        signed = stamp is not None and RequestValidator(TOKEN).validate(address, form, stamp)
        token = request.headers.get("i-twilio-idempotency-token")
        now = asyncio.get_running_loop().time()
        self.requests.append(Request_(request.url.path, fields, signed, token, now))
        if waiting := self.statuses.get(request.url.path):
            status = waiting.pop(0)
            if status in (301, 302, 307):
                return Response(status_code=status, headers={"location": "/elsewhere"})
            return Response(status_code=status)
        if found := self.files.get(request.url.path):
            return Response(found[1], media_type=found[0])
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        queue = self.documents.get(request.url.path)
        if not queue:
            return Response(status_code=204)
        text = queue.pop(0) if len(queue) > 1 else queue[0]
        return Response(text, media_type=self.content_type)

    async def _media(self, websocket: WebSocket) -> None:
        stamp = websocket.headers.get("x-twilio-signature", "")
        signed = RequestValidator(TOKEN).validate(self.url.replace("http", "ws") + "/twilio/media", {}, stamp)
        await websocket.accept()
        socket = Socket(websocket, signed)
        self.sockets.append(socket)
        reader = asyncio.create_task(self._read(socket))
        try:
            async with asyncio.timeout(BOUND):
                while not socket.stream_sid and not socket.over.is_set():
                    socket.news.clear()
                    await socket.news.wait()
            await self.talk(socket)
            if not socket.over.is_set():
                await websocket.close()
        finally:
            reader.cancel()
            await asyncio.wait({reader})

    async def _read(self, socket: Socket) -> None:
        try:
            while True:
                message = await socket.websocket.receive()
                if message["type"] == "websocket.disconnect":
                    socket.clean = message.get("code") == 1000
                    break
                text = message.get("text")
                try:
                    content = json.loads(text) if text is not None else {"event": "binary"}
                except ValueError:
                    content = {"event": "garbage"}
                socket.received.append(content)
                if content["event"] == "start":
                    socket.stream_sid = content["start"]["streamSid"]
                socket.news.set()
        except WebSocketDisconnect:
            pass
        finally:
            socket.over.set()
            socket.news.set()


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Service]:
    server = Server(service.app)
    service.url = server.url
    await server.open()
    try:
        yield service
    finally:
        await server.close()
