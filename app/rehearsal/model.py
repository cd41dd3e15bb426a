"""The pretend model as a process of its own: OpenAI's Realtime API over WebSocket, on loopback only.

    python -m app.rehearsal.model [--port 0] [--misbehave JSON|@FILE] [--speed 4] [--log FILE] [--until-eof]

The first line on standard output says where it is reached, as `base_url` for OPENAI_BASE_URL; then comes one JSON line for each
thing that happens, with the `session` it happens in:

    {"event": "ready", "base_url": "http://127.0.0.1:40123/v1", "listening": "http://127.0.0.1:40123/v1"}
    {"event": "session_opened", "session": "sess_..."}          session_closed, session_updated {tools}, refused {code, param}
    {"event": "heard", "text": "my name is anna miller", "ms": 1840}          also caller_starts {start_ms}
    {"event": "agent_says", "text": "What is your phone number?", "response": "resp_..."}      the whole text, before its sound
    {"event": "tool_called", "name": "note_slot", "arguments": {...}}          tool_answered {call_id, output}
    {"event": "response_done", "status": "completed"}          truncated {ms}, item_created {role, text}

It ends on SIGTERM and SIGINT; and when its standard input ends, if that is a pipe or `--until-eof` was given.

Rule 1: it binds 127.0.0.1 and nothing else. Any key will do, none will not; it reports a model with "rehearsal" in its name.
"""

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import click
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from app.rehearsal.hearing import Recognisers
from app.rehearsal.realtime import SPEED, Session, Stage
from app.rehearsal.realtime_faults import Misbehaviour, scripts

HOST = "127.0.0.1"
PATH = "/v1/realtime"
BETA_DISABLED = 4000

type Event = dict[str, Any]


def _answer(status: int, code: str, message: str) -> Response:
    """A refused upgrade, as OpenAI words it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = json.dumps({"error": {"message": message, "type": kind, "code": code, "param": None}}).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, HTTPStatus(status).phrase, headers, body)


class Model:
    """The server. `tell` is given every event to show; `script` is the misbehaviour as JSON, see `realtime_faults.scripts`."""

    def __init__(self, *, tell: Callable[[Event], None], script: str | None = None, speed: float = SPEED, seed: int = 0) -> None:
        scripts(script, 0)  # a fault in it is the starter's, not the first caller's
        self._tell, self._script, self._speed, self._seed = tell, script, speed, seed
        self._server: Server | None = None
        self._connections = 0
        self._scripts: dict[UUID, Misbehaviour] = {}
        """Of connections that were admitted and are not served yet."""
        self._recognisers = Recognisers()

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL is to be."""
        assert self._server is not None
        return f"http://{HOST}:{next(iter(self._server.sockets)).getsockname()[1]}/v1"

    async def start(self, port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        self._recognisers.warm()
        self._server = await serve(
            self._serve, HOST, port, process_request=self._admit, max_size=2**25, compression=None, ping_interval=None
        )

    async def close(self) -> None:
        """Close every session, and listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    # ---- the door

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        address = urlsplit(request.path)
        query = parse_qs(address.query)
        if address.path != PATH:
            return _answer(404, "not_found", "There is nothing here.")
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key.strip():
            return _answer(401, "missing_api_key", "Missing bearer authentication in header.")
        if "call_id" in query:
            return _answer(404, "call_id_not_found", "No session found for the provided call_id")
        if not query.get("model", [""])[0]:
            return _answer(400, "missing_model", "You must provide a model parameter.")
        script = scripts(self._script, self._connections)
        self._connections += 1
        if script.refuse is not None:
            self._tell({"event": "upgrade_refused", "status": script.refuse})
            code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(script.refuse, "server_error")
            return _answer(script.refuse, code, "Refused by script.")
        self._scripts[connection.id] = script
        return None

    # ---- one connection

    async def _serve(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        if "OpenAI-Beta" in request.headers:
            self._scripts.pop(connection.id)
            await connection.close(BETA_DISABLED, "beta_api_shape_disabled: the beta of the Realtime API has ended")
            return
        asked = parse_qs(urlsplit(request.path).query)["model"][0]
        session_id = f"sess_{os.urandom(8).hex()}"
        out: asyncio.Queue[str | tuple[int | None, str]] = asyncio.Queue()
        stage = Stage(
            emit=lambda event: out.put_nowait(json.dumps(event)),
            close=lambda code, reason: out.put_nowait((code, reason)),
            stall=lambda: connection.transport.pause_reading(),
            clock=asyncio.get_running_loop(),
            tell=self._tell,
            now_s=time.time,
            speed=self._speed,
            misbehaviour=self._scripts.pop(connection.id),
            seed=self._seed + self._connections,
        )
        session = Session(session_id, f"{asked}-rehearsal", self._recognisers, stage)
        self._tell({"event": "session_opened", "session": session_id, "model": asked})
        sender = asyncio.create_task(_send(connection, out))
        try:
            session.start()
            async for message in connection:
                session.feed(_read(message))
                # Reading never waits while there is something to read, and the others want to be heard too.
                await asyncio.sleep(0)
        except ConnectionClosed:
            pass  # without a close frame: the network's way of hanging up
        finally:
            session.end()
            sender.cancel()
            await asyncio.wait({sender})
            self._tell({"event": "session_closed", "session": session_id, "code": connection.close_code})


async def _send(connection: ServerConnection, out: asyncio.Queue[str | tuple[int | None, str]]) -> None:
    """Send in order; a close is the last thing. A slow client makes nobody else wait."""
    try:
        while True:
            match await out.get():
                case str(message):
                    await connection.send(message)
                case None, _:
                    connection.transport.abort()
                    return
                case int(code), str(reason):
                    await connection.close(code, reason)
                    return
    except ConnectionClosed:
        return  # the reader sees it too


def _read(message: str | bytes) -> Any:
    """A client's event; what is no JSON text is none, and the session says so."""
    if isinstance(message, bytes):
        return None
    try:
        return json.loads(message)
    except ValueError:
        return None


class Teller:
    """Writes events as JSON lines: to standard output, and to a log file if there is one."""

    def __init__(self, log: IO[str] | None) -> None:
        self._log = log
        self._begun = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Write one, at once."""
        line = json.dumps({**event, "at_ms": round((time.monotonic() - self._begun) * 1_000)}) + "\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        if self._log is not None:
            self._log.write(line)
            self._log.flush()


def _is_pipe(stream: IO[Any]) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def _until_told(until_eof: bool) -> None:
    """Until a signal comes, or standard input ends."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if not until_eof:
        await told.wait()
        return
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)

    async def to_the_end() -> None:
        while await orders.read(2**16):
            pass
        told.set()

    reading = asyncio.create_task(to_the_end())
    await told.wait()
    reading.cancel()
    await asyncio.wait({reading})


async def _run(port: int, script: str | None, speed: float, log: IO[str] | None, until_eof: bool) -> None:
    tell = Teller(log)
    model = Model(tell=tell, script=script, speed=speed)
    await model.start(port)
    tell({"event": "ready", "base_url": model.base_url, "listening": model.base_url})
    try:
        await _until_told(until_eof or _is_pipe(sys.stdin))
    finally:
        await model.close()


@click.command()
@click.option("--port", default=0, help="0 takes a free one.")
@click.option("--misbehave", default=None, help="A script of misbehaviour: JSON, or @FILE.")
@click.option("--speed", default=SPEED, help="How many times faster than it plays the audio comes.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write the events here as well.")
@click.option("--until-eof", is_flag=True, help="End when standard input ends, whatever it is.")
def main(port: int, misbehave: str | None, speed: float, log: Path | None, until_eof: bool) -> None:
    """Be the model until told to stop."""
    with log.open("a") if log else open(os.devnull, "w") as file:
        asyncio.run(_run(port, misbehave, speed, file if log else None, until_eof))


if __name__ == "__main__":
    main()
