"""For tests of the command line: a clean environment in an empty folder, commands in this process or another, a small server."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from app.cli import main
from app.settings import Settings

ACCOUNT = "AC" + "1" * 32
LIVE = {
    "PUBLIC_URL": "http://127.0.0.1:1",
    "TWILIO_ACCOUNT_SID": ACCOUNT,
    "TWILIO_AUTH_TOKEN": "a-token",
    "OPENAI_API_KEY": "a-key",
}
COMMAND = [sys.executable, "-P", "-m", "app.cli"]

type Run = Callable[..., Result]


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An empty folder to stand in, and none of our settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    # Loggers keep the way they were first set up, for all tests of this process.
    monkeypatch.setattr("app.logs.set_up", lambda *_, **__: None)
    return monkeypatch


@pytest.fixture
def run(clean: pytest.MonkeyPatch) -> Run:
    """Run a command in this process: `run("show", "--latest", DATABASE_URL=...)`."""

    def in_this_process(*arguments: str, **env: str) -> Result:
        result = CliRunner().invoke(main, arguments, env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return in_this_process


def environment(**changes: str) -> dict[str, str]:
    """Our own, without our settings, and with these."""
    ours = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours} | changes


def callrow(*arguments: str, cwd: Path, timeout: float = 100, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=timeout, check=False
    )


class World:
    """A server on loopback: answers GET by a table, greets WebSockets with one event, remembers who asked and how."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.first_event: Any = {"type": "session.created"}
        self.asked: list[tuple[str, str | None]] = []
        self._server = serve(self._greet, "127.0.0.1", 0, process_request=self._answer)
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        self.asked.append((path, request.headers.get("Authorization")))
        if path == "/v1/realtime" and path not in self.answers:
            return None
        status, body = self.answers.get(path, (404, {"code": 20404}))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"})
        return Response(status, HTTPStatus(status).phrase, headers, content)

    def _greet(self, socket: ServerConnection) -> None:
        socket.send(self.first_event if isinstance(self.first_event, str) else json.dumps(self.first_event))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def number(address: str, **changes: str) -> Mapping[str, str]:
    """A telephone number as the carrier's REST interface tells of it, configured as it should be."""
    return {
        "sid": "PN1",
        "phone_number": "+15550100199",
        "voice_url": f"{address}/twilio/voice",
        "voice_method": "POST",
        "voice_fallback_url": f"{address}/twilio/fallback",
        "voice_fallback_method": "POST",
        "status_callback": f"{address}/twilio/status",
        "status_callback_method": "POST",
        "voice_application_sid": "",
        "trunk_sid": "",
        **changes,
    }


def wait[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, from a test that has no loop."""
    return asyncio.run(coroutine)
