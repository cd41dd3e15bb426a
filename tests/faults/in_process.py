"""The whole service on real sockets: a model and a telephone that do what the test says, a database to take away.

The model grants every session and answers every turn with one short sentence of its own; the telephone plays at once what it is
sent. The service is in this process, where its clock and its limits can be set, or, to be killed, in one of its own.
"""

import asyncio
import base64
import contextlib
import hmac
import json
import os
import random
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import httpx2
import psycopg
import uvicorn
from psycopg import sql
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app import main
from app.settings import Settings
from app.twilio.socket import MediaSocket
from app.web.sockets import GuardedHttp
from tests.web.house import ACCOUNT, TOKEN, sign

SOON = 60.0
VOICE = bytes((position * 37 + 11) % 256 for position in range(1_600))
MARKS_AN_ANSWER = 3
"""Behind the first 20 ms, 100 ms, and the end of 200 ms."""
FRAME = base64.b64encode(b"\xff" * 160).decode()


# ---- the model


def pseudonym(number: str) -> str:
    """What the service calls a caller towards the provider."""
    return hmac.digest(TOKEN.encode(), b"safety identifier\0" + number.encode(), "sha256").hex()[:32]


class Session:
    """One session with the model."""

    def __init__(self, model: "Model", connection: ServerConnection) -> None:
        self.connection, self._model = connection, model
        self.received: list[dict[str, Any]] = []
        self.answered = 0
        self._number = 0

    async def run(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.connection:
                message = json.loads(text)
                if message["type"] == "input_audio_buffer.append":
                    self._model.heard += 1
                    continue
                self.received.append(message)
                if message["type"] == "session.update":
                    await self._send({"type": "session.updated", "session": message["session"]})
                elif message["type"] == "response.create":
                    await self._answer()

    async def caller_says(self, text: str) -> None:
        """The model heard a turn of the caller's; long enough to be one."""
        self._number += 1
        item = f"item_c{self._number}_{self._model.dice.randrange(10**6)}"
        start = self._number * 1_000
        await self._send({"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": start})
        await asyncio.sleep(0.15)
        await self._send({"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": start + 500})
        await self._send({"type": "input_audio_buffer.committed", "item_id": item})
        await self._send(
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": item,
                "transcript": text,
                "content_index": 0,
            }
        )

    async def calls_tool(self, name: str, arguments: dict[str, Any]) -> None:
        """The next answer is a tool call."""
        self._model.tool = (name, json.dumps(arguments))

    async def _answer(self) -> None:
        self.answered += 1
        name = f"{self._model.dice.randrange(10**9)}"
        response, item = {"id": f"resp_{name}", "status": "in_progress"}, f"item_a{name}"
        await self._send({"type": "response.created", "response": response})
        of = {"response_id": response["id"], "item_id": item, "output_index": 0, "content_index": 0}
        if self._model.tool is not None:
            (tool, arguments), self._model.tool = self._model.tool, None
            call = {"type": "function_call", "status": "completed", "call_id": f"call_{name}", "name": tool, "arguments": arguments}
            await self._send({"type": "response.output_item.done", "response_id": response["id"], "item": call | {"id": item}})
        else:
            text = f"agent word {self._model.next_word()}"
            await self._send({"type": "response.output_audio_transcript.delta", "delta": text, **of})
            sound = base64.b64encode(VOICE).decode()
            await self._send({"type": "response.output_audio.delta", "delta": sound, **of})
            await self._send({"type": "response.output_audio.done", **of})
        await self._send({"type": "response.done", "response": response | {"status": "completed", "usage": {}}})

    async def _send(self, message: dict[str, Any]) -> None:
        await self.connection.send(json.dumps({"event_id": "event_1"} | message))


class Model:
    """The provider."""

    def __init__(self, seed: int = 1) -> None:
        self.dice = random.Random(seed)
        self.sessions: list[Session] = []
        self.tool: tuple[str, str] | None = None
        self.words = self.heard = 0
        self._by_caller: dict[str, Session] = {}

    def next_word(self) -> int:
        self.words += 1
        return self.words

    async def handle(self, connection: ServerConnection) -> None:
        session = Session(self, connection)
        self.sessions.append(session)
        self._by_caller[connection.request.headers.get("OpenAI-Safety-Identifier", "")] = session
        await session.run()

    async def of(self, phone: "Phone") -> Session | None:
        """The caller's session, once it is configured; None if the stream was lost before."""
        name = pseudonym(phone.number)
        await until(lambda: phone.lost or (name in self._by_caller and self._by_caller[name].received))
        return self._by_caller.get(name)


# ---- the telephone


class Phone:
    """One caller at the carrier."""

    def __init__(self, service: "Service", sid: str, number: str = "+15551230000") -> None:
        self.service, self.sid, self.number = service, sid, number
        self.socket: ClientConnection | None = None
        self.status, self.streams, self.marks, self.cleared, self.heard = "ringing", 0, 0, 0, 0
        self.said: list[str] = []
        self.document: ElementTree.Element | None = None
        self._reading: asyncio.Task[None] | None = None

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        """A signed webhook."""
        return await self.service.post(
            path,
            **(
                {"CallSid": self.sid, "From": self.number, "To": "+15559870000", "CallStatus": self.status, "Direction": "inbound"}
                | fields
            ),
        )

    async def rings(self) -> ElementTree.Element:
        """The call comes in, and does what it is told as far as opening a stream."""
        return await self.follow(await self.post("voice"))

    async def follow(self, answer: httpx2.Response) -> ElementTree.Element:
        """Do what a document says."""
        assert answer.status_code == 200, answer.status_code
        root = self.document = ElementTree.fromstring(answer.content)
        self.said += [say.text or "" for say in root.iter("Say")]
        if (stream := root.find("./Connect/Stream")) is not None:
            self.status = "in-progress"
            await self.opens(stream.attrib["url"], {it.attrib["name"]: it.attrib["value"] for it in stream.findall("Parameter")})
        return root

    @property
    def lost(self) -> bool:
        """The stream is over, and not because the caller hung up."""
        return self.status == "in-progress" and self._reading is not None and self._reading.done()

    async def goes_on(self) -> None:
        """The stream is over: ask what follows, as the carrier does, until there is another stream or the end.

        Raises:
            AssertionError: there is none within a minute, or the service ends the call.
        """
        async with asyncio.timeout(SOON):
            while self.lost:
                assert self.document is not None
                action = self.document.find("./Connect[@action]")
                url = action.attrib["action"] if action is not None else self.document.findtext("./Redirect")
                assert url is not None, [verb.tag for verb in self.document]
                try:
                    await self.follow(await self.post(url.removeprefix(self.service.url)))
                except httpx2.TransportError:  # nobody is listening just now; the carrier tries again
                    await asyncio.sleep(0.2)
                if self.lost:
                    await asyncio.sleep(0.3)

    async def opens(self, url: str, parameters: dict[str, str], *, account: str = ACCOUNT, sid: str | None = None) -> None:
        """A media socket, up to its `start`."""
        self.streams, self.marks = self.streams + 1, 0
        stream = f"MZ{self.streams:032d}"
        self.socket = await connect(url, additional_headers={"x-twilio-signature": sign(url, ())}, proxy=None)
        await self.socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        start = {
            "accountSid": account,
            "streamSid": stream,
            "callSid": sid or self.sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        }
        await self.socket.send(json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": stream}))
        self._reading = asyncio.create_task(self._read(self.socket, stream))

    async def _read(self, socket: ClientConnection, stream: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "media":
                    self.heard += 1
                elif message["event"] == "mark":
                    self.marks += 1
                    await socket.send(json.dumps({"event": "mark", "streamSid": stream, "mark": message["mark"]}))
                elif message["event"] == "clear":
                    self.cleared += 1

    async def speaks(self, frames: int = 1) -> None:
        """Sound of the caller's."""
        for number in range(frames):
            media = {"track": "inbound", "chunk": str(number), "timestamp": "0", "payload": FRAME}
            await self.socket.send(json.dumps({"event": "media", "sequenceNumber": "2", "media": media}))

    async def heard_out(self, session: Session, answers: int) -> None:
        """So many answers of the model have been given in this session and played; or the stream was lost."""
        await until(lambda: self.lost or (session.answered >= answers and self.marks >= MARKS_AN_ANSWER * answers))

    async def closed(self) -> None:
        """The service has closed the stream."""
        async with asyncio.timeout(SOON):
            await self.socket.wait_closed()

    async def hangs_up(self) -> None:
        """The caller hangs up: the stream ends, then the carrier tells of it."""
        self.status = "completed"
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(json.dumps({"event": "stop", "stop": {}}))
        await self.socket.close()
        await self.post("status", CallDuration="7", SequenceNumber="3")


# ---- the service


class Service:
    """Where to knock, and what is inside."""

    def __init__(self, url: str, model: Model) -> None:
        self.url, self.model = url, model
        self.log = Path()
        """The service's, where it is a process of its own."""
        self.client = httpx2.AsyncClient(base_url=url, timeout=SOON, trust_env=False)

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        if path.startswith("/"):
            path = path.removeprefix("/twilio/")
        form = {"AccountSid": ACCOUNT, **fields}
        headers = {
            "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
            "x-twilio-signature": sign(f"{self.url}/twilio/{path}", form.items()),
        }
        return await self.client.post(f"/twilio/{path}", content=urlencode(form), headers=headers)

    async def answers(self) -> None:
        """Somebody is there."""
        async with asyncio.timeout(SOON):
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if (await self.client.get("/health/live")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    def kill(self) -> int:
        """Kill the worker that serves; its supervisor lives."""
        opened = [json.loads(line) for line in self.log.read_text().splitlines() if '"event": "open"' in line]
        worker = int(opened[-1]["worker"].rsplit("-", 2)[1])
        os.kill(worker, signal.SIGKILL)
        return worker

    async def call(self, number: int = 1, *, caller: str = "+15551230000") -> tuple[Phone, Session]:
        """A call whose stream has come and whose session is there."""
        before = len(self.model.sessions)
        phone = Phone(self, f"CA{number:032d}", caller)
        await phone.rings()
        assert phone.socket is not None, phone.said
        await until(
            lambda: (
                len(self.model.sessions) > before
                and any(m["type"] == "session.update" for m in self.model.sessions[before].received)
            )
        )
        return phone, self.model.sessions[before]


@contextlib.asynccontextmanager
async def service(database_url: str, folder: Path, *, seed: int = 1, process: bool = False, **env: str) -> AsyncIterator[Service]:
    """The service over this database, with a model of its own; closed in order at the end. `process`: in one of its own."""
    model = Model(seed)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    port = listening.getsockname()[1]
    async with serve(model.handle, "127.0.0.1", 0, ping_interval=None, close_timeout=0.2) as provider:
        settings = {
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "PORT": str(port),
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "OPENAI_API_KEY": "sk-x",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}/v1",
            "AUDIO_PATH": "passthrough",
            "DATABASE_URL": database_url,
            "SPOOL_DIR": str(folder / "spool"),
            "LINES_DIR": str(folder / "lines"),
            "CALLS_A_MINUTE_PER_CALLER": "0",
            "MAX_LOOP_LAG_MS": "10000",
            **env,
        }
        house = Service(settings["PUBLIC_URL"], model)
        if process:
            listening.close()
            running = _process(settings, folder, house)
        else:
            running = _here(settings, listening)
        async with running:
            try:
                yield house
            finally:
                await house.client.aclose()


@contextlib.asynccontextmanager
async def _here(settings: dict[str, str], listening: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        main.application(Settings.from_env(settings)),
        http=GuardedHttp,
        ws=MediaSocket,
        ws_max_size=65_536,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    await until(lambda: server.started or serving.done())
    try:
        yield
    finally:
        server.should_exit = True
        async with asyncio.timeout(SOON):
            await serving


@contextlib.asynccontextmanager
async def _process(settings: dict[str, str], folder: Path, house: Service) -> AsyncIterator[None]:
    ours = {name.upper() for name in Settings.model_fields}
    env = {name: value for name, value in os.environ.items() if name not in ours} | settings | {"LOG_LEVEL": "info"}
    house.log = folder / "service.log"
    with house.log.open("ab") as log:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "app.cli", "serve", "--no-jobs"), env=env, cwd=folder, stdout=log, stderr=log
        )
    try:
        await house.answers()
        yield
    finally:
        if running.returncode is None:
            running.terminate()
            try:
                async with asyncio.timeout(5):
                    await running.wait()
            except TimeoutError:  # calls are live, or their streams are still expected
                running.terminate()
                async with asyncio.timeout(SOON):
                    await running.wait()


async def until(true: Callable[[], Any]) -> None:
    """Wait for something, generously."""
    async with asyncio.timeout(SOON):
        while not true():
            await asyncio.sleep(0.01)


# ---- the database


class Outage:
    """Takes a database away, and gives it back: SQLite by another's lock, PostgreSQL by closing its doors."""

    def __init__(self, database_url: str, administration_url: str | None = None) -> None:
        self._url, self._administration = database_url, administration_url
        self._lock: sqlite3.Connection | None = None

    async def away(self) -> None:
        if self._administration is None:
            self._lock = sqlite3.connect(self._url.removeprefix("sqlite:///"), isolation_level=None, timeout=0)
            while not self._lock.in_transaction:
                with contextlib.suppress(sqlite3.OperationalError):  # the service is writing just now, in this very loop
                    self._lock.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(0.001)
            return
        with psycopg.connect(self._administration, autocommit=True) as other:
            other.execute(self._doors(False))
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self._name])

    def back(self) -> None:
        if self._lock is not None:
            self._lock.execute("ROLLBACK")
            self._lock.close()
            self._lock = None
        elif self._administration is not None:
            with psycopg.connect(self._administration, autocommit=True) as other:
                other.execute(self._doors(True))

    @property
    def _name(self) -> str:
        return urlsplit(self._url).path.lstrip("/")

    def _doors(self, opened: bool) -> sql.Composed:
        doors = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        return doors.format(sql.Identifier(self._name), sql.SQL("true" if opened else "false"))
