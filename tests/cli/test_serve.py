"""`callrow serve` as a process: its supervisor, its signals, its port. Bounds on waiting are generous; order is asserted."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from twilio.request_validator import RequestValidator
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.cli.conftest import ACCOUNT, COMMAND, LIVE, Run, environment

SOON_S = 60.0


class Service:
    """A running `callrow serve`, and what it says."""

    def __init__(self, folder: Path, *command: str, **env: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *command],
                cwd=folder,
                env=environment(**LIVE | {"PUBLIC_URL": self.url, "PORT": str(self.port)} | env),
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        """Everything on both outputs."""
        return self._log.read_text()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """What was logged: every line, or those of one event."""
        logged = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in logged if event in (None, line["event"])]

    def workers(self) -> list[int]:
        """The process ids of all workers that have opened, in order."""
        return [int(line["worker"].split("-")[-2]) for line in self.lines("open")]

    def jobs(self) -> list[int]:
        """The process ids of all jobs processes that have opened, in order."""
        return [int(line["worker"].split("-")[-2]) for line in self.lines("the jobs are open")]

    def jobs_opened(self, count: int) -> int:
        """Wait until so many jobs processes have opened; the last one's process id."""
        self.until(lambda: len(self.jobs()) >= count)
        return self.jobs()[count - 1]

    def opened(self, count: int) -> int:
        """Wait until so many workers have opened; the last one's process id."""
        self.until(lambda: len(self.workers()) >= count)
        return self.workers()[count - 1]

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to come true."""
        end = time.monotonic() + SOON_S
        while not true():
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.05)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(SOON_S)

    def ready(self) -> int:
        """The status of /health/ready."""
        return httpx2.get(f"{self.url}/health/ready", timeout=SOON_S).status_code


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    """The web alone."""
    yield from running(Service(tmp_path, "serve", "--no-jobs", DATABASE_URL=sqlite_url))


@pytest.fixture
def whole_service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    """With its jobs process."""
    yield from running(Service(tmp_path, "serve", DATABASE_URL=sqlite_url, RECONCILE_MINUTES="0"))


def running(service: Service) -> Iterator[Service]:
    """It is ended with the test."""
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.wait()


def test_up_with_all_keys_migrates_says_what_to_enter_at_the_carrier_and_serves(tmp_path: Path):
    running = Service(tmp_path, "up", RECONCILE_MINUTES="0")
    try:
        running.opened(1)
        assert running.ready() == 200
        for path in ("voice", "fallback", "status"):
            assert f"{running.url}/twilio/{path}, HTTP POST" in running.said
        assert (tmp_path / "var" / "callrow.db").is_file()
        assert LIVE["OPENAI_API_KEY"] not in running.said
        running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
    finally:
        running.process.kill()
        running.process.wait()


def gone(pid: int) -> bool:
    """Whether a process has ended (one that waits to be collected has)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def test_a_worker_that_dies_is_replaced_and_a_hang_up_signal_rolls_it(service: Service):
    first = service.opened(1)
    assert service.jobs() == []
    service.until(lambda: service.ready() == 200)
    os.kill(first, signal.SIGKILL)
    second = service.opened(2)
    service.until(lambda: service.ready() == 200)
    service.process.send_signal(signal.SIGHUP)
    third = service.opened(3)
    assert len({first, second, third, service.process.pid}) == 4
    service.until(lambda: service.ready() == 200)
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0


def test_the_jobs_process_comes_after_the_workers_is_replaced_as_they_are_and_goes_after_them(whole_service: Service):
    service, worker = whole_service, whole_service.opened(1)
    first = service.jobs_opened(1)
    os.kill(first, signal.SIGKILL)
    second = service.jobs_opened(2)
    assert [line["code"] for line in service.lines("the jobs process died; it is started again")] == [-signal.SIGKILL]
    service.process.send_signal(signal.SIGHUP)
    third = service.jobs_opened(3)
    service.until(lambda: gone(second) and gone(worker))
    assert not gone(third)
    a_call_comes_in(service)
    service.process.send_signal(signal.SIGTERM)
    service.until(lambda: len(service.lines("draining")) == 2)
    assert not gone(third)
    service.process.send_signal(signal.SIGTERM)  # the worker's calls end now; the jobs process is not told before it has gone
    assert service.ended() == 0
    assert gone(third)
    told = [line["event"] for line in service.lines() if line["room"] in ("jobs", "main")]
    assert told.index("open") < told.index("the jobs are open")
    assert told[-2:] == ["told to stop; what is under way may end", "the jobs are closed"]
    assert "Traceback" not in service.said


def test_a_worker_loads_nothing_of_the_jobs():
    loads = "import sys, app.main, app.cli.serve; print(*sorted({'dbos', 'openai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_answer_does_not_say_what_serves_it(service: Service):
    service.opened(1)
    assert "server" not in httpx2.get(f"{service.url}/health/live").headers
    assert {line["event"] for line in service.lines() if line.get("path") == "/health/live"} == set()


def test_a_message_that_is_too_long_ends_its_socket(service: Service):
    service.opened(1)
    with connect(f"ws://127.0.0.1:{service.port}/twilio/media", compression=None) as media:
        with pytest.raises(ConnectionClosed) as closed:
            media.send("x" * 70_000)
            media.recv(timeout=SOON_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def a_call_comes_in(service: Service) -> None:
    form = {
        "CallSid": "CA" + "3" * 32,
        "AccountSid": ACCOUNT,
        "From": "+15550100001",
        "To": "+15550100199",
        "CallStatus": "ringing",
    }
    url = f"{service.url}/twilio/voice"
    signature = RequestValidator(LIVE["TWILIO_AUTH_TOKEN"]).compute_signature(url, form)
    answer = httpx2.post(url, data=form, headers={"x-twilio-signature": signature}, timeout=SOON_S)
    assert answer.status_code == 200
    assert "<Stream" in answer.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_lets_live_calls_end_and_a_second_signal_does_not(service: Service, number: int):
    worker = service.opened(1)
    a_call_comes_in(service)  # its slot is kept for a minute, longer than this test waits
    service.process.send_signal(number)
    service.until(lambda: bool(service.lines("draining")))
    assert service.ready() == 503
    assert service.process.poll() is None
    service.process.send_signal(number)
    assert service.ended() == 0
    assert gone(worker)
    assert "Traceback" not in service.said


def test_a_replaced_worker_keeps_its_calls_and_takes_no_new_ones(service: Service):
    first = service.opened(1)
    a_call_comes_in(service)
    service.process.send_signal(signal.SIGHUP)
    second = service.opened(2)
    service.until(lambda: bool(service.lines("draining")))
    assert [service.ready() for _ in range(20)] == [200] * 20
    assert not gone(first)
    service.process.send_signal(signal.SIGTERM)
    service.until(lambda: gone(second))
    assert not gone(first)  # it has a call, and was not told twice
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0
    assert gone(first)


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told by the kernel on Linux only")
def test_no_process_outlives_its_parent(whole_service: Service):
    service, worker, jobs = whole_service, whole_service.opened(1), whole_service.jobs_opened(1)
    service.process.kill()
    service.until(lambda: gone(worker) and gone(jobs))
    with socket.create_server(("127.0.0.1", service.port)):  # the port is free again
        pass


def test_a_port_in_use_is_a_sentence(run: Run, sqlite_url: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port), **LIVE, DATABASE_URL=sqlite_url)
    assert result.exit_code == 1
    assert re.search(rf"cannot listen on 127\.0\.0\.1, port {port}: it is in use\n.*PORT=", result.stderr)


def test_more_than_one_worker_is_refused_on_sqlite(run: Run, sqlite_url: str):
    result = run("serve", "--workers", "2", **LIVE, DATABASE_URL=sqlite_url)
    assert result.exit_code == 2
    assert "WORKERS: may not be more than 1 on SQLite" in result.stderr


def test_a_database_without_tables_is_not_served(run: Run):
    result = run("serve", **LIVE)
    assert result.exit_code == 1
    assert "callrow migrate" in result.stderr
