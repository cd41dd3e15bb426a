"""What is measured: each target as processes of its own, pinned to one core, and what the kernel says they cost.

Rule 1: only what was started here is ended, by its own process group.
Rule 2: everything stays on loopback and in a temporary folder.
"""

import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
READY_WITHIN = 30.0
STOP_WITHIN = 15.0
PRIORITY = -15
"""Of the bridge and of the peers, if we may: on a machine with other work, less of that ends up in the figures."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class TargetFailed(Exception):
    """A target did not start, or did not answer."""


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Spent:
    """What a tree of processes has used so far."""

    cpu_seconds: float
    resident_bytes: int
    processes: int


def spent(root: int) -> Spent:
    """A process and all its descendants, from /proc: CPU of user and system, and of children already gone."""
    stats: dict[int, list[str]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text()
            except OSError:
                continue  # it has just ended
            stats[int(entry.name)] = text[text.rindex(")") + 2 :].split()
    family = {root}
    while True:
        grown = family | {pid for pid, fields in stats.items() if int(fields[1]) in family}
        if grown == family:
            break
        family = grown
    mine = [stats[pid] for pid in family if pid in stats]
    ticks = sum(int(field) for fields in mine for field in fields[11:15])
    return Spent(ticks / _TICKS, sum(int(fields[21]) for fields in mine) * _PAGE, len(mine))


def core_busy_seconds(core: int | None) -> float:
    """How long a core has worked so far, for whomever, with what its host took away; 0 if no core is ours alone."""
    if core is None:
        return 0.0
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) for field in line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def start(command: list[str], core: int | None, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process bound to a core, in a session of its own; where the system lets us, it goes before other work there."""
    ours = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})  # inherited by what is started and by all that it starts
    try:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    finally:
        os.sched_setaffinity(0, ours)
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with suppress(OSError):  # Linux shares a core between sessions first, and only then by priority
        Path(f"/proc/{process.pid}/autogroup").write_text(str(PRIORITY))
    return process


class Target:
    """One running bridge on free ports, a context manager. Its log is kept until it is closed."""

    name = ""

    def __init__(self, path: str, folder: Path, core: int | None) -> None:
        self.path, self.folder, self.core = path, folder, core
        self.port, self.model_port = free_port(), free_port()
        self.account, self.token = "AC" + secrets.token_hex(16), secrets.token_hex(16)
        self.log = folder / f"{self.name}-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def prepare(self) -> None:
        """What must be done once before the start."""

    def checked(self) -> dict[str, object]:
        """What the target left behind, looked up after its end."""
        return {}

    def _environment(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        # Everything else stays outside: a live service's keys in the shell must not reach a bench.
        return inherited | {"PYTHONPATH": str(ROOT)} | self.environment()

    def __enter__(self) -> Self:
        self.prepare()
        with self.log.open("wb") as log:
            self._process = start(self.command(), self.core, cwd=self.folder, env=self._environment(), stdout=log, stderr=log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + READY_WITHIN
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise TargetFailed(f"{self.name} ended at its start with {self._process.returncode}:\n{self.tail()}")
            try:
                with urllib.request.urlopen(f"{self.url}/health/ready", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise TargetFailed(f"{self.name} was not ready within {READY_WITHIN:g} s:\n{self.tail()}")

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_WITHIN)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # whatever of its own group is still there
        self._process.wait()

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Yardstick(Target):
    """The tutorial's bridge."""

    name = "yardstick"

    def command(self) -> list[str]:
        model = f"ws://127.0.0.1:{self.model_port}/v1/realtime?model=gpt-realtime-2.1"
        ours = [sys.executable, "-m", "tests.bench.yardstick"]
        return [*ours, "--port", str(self.port), "--model-url", model, "--path", self.path]


class Callrow(Target):
    """The service as an operator starts it, with an embedded database, everything switched on."""

    name = "callrow"

    def command(self) -> list[str]:
        return [str(Path(sys.executable).with_name("callrow")), "serve"]

    @property
    def database(self) -> Path:
        return self.folder / f"callrow-{self.port}.db"

    def environment(self) -> dict[str, str]:
        return {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PUBLIC_URL": self.url,
            "TWILIO_ACCOUNT_SID": self.account,
            "TWILIO_AUTH_TOKEN": self.token,
            "TWILIO_API_URL": f"http://127.0.0.1:{self.model_port}",
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.model_port}/v1",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "AUDIO_PATH": self.path,
            "MAX_CALLS": "2000",
            "REJECT_ABOVE": "4000",
            "CALLS_A_MINUTE_PER_CALLER": "0",
            "ANALYZER": "rules",
        }

    def prepare(self) -> None:
        migrate = [self.command()[0], "migrate"]
        with self.log.open("wb") as log:
            done = subprocess.run(migrate, cwd=self.folder, env=self._environment(), stdout=log, stderr=log, timeout=60)
        if done.returncode:
            raise TargetFailed(f"callrow migrate ended with {done.returncode}:\n{self.tail()}")

    def checked(self) -> dict[str, object]:
        """The rows: the ledgers and the journal must have been on while they were measured."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            tables = ("calls", "utterances", "turns", "call_events")
            rows: dict[str, object] = {name: database.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}
            rows["finished_calls"] = database.execute("select count(*) from calls where finished_at is not null").fetchone()[0]
        return rows


TARGETS: dict[str, type[Target]] = {"yardstick": Yardstick, "callrow": Callrow}


def machine() -> dict[str, object]:
    """Where it was measured."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "kernel": os.uname().release,
        "priority": PRIORITY if os.geteuid() == 0 else 0,
    }
