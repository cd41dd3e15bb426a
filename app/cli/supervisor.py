"""uvicorn's own supervisor and its workers, with what a telephone needs beside, and the jobs process.

The parent holds the listening socket and does nothing else: it starts a process again that died, and rolls them on SIGHUP. Callers
who arrive meanwhile wait in the socket's queue.

Rule 1: SIGTERM, or Ctrl-C, lets live calls end (app/main.py drains); a second one ends them now. So a worker is in a process group
of its own, where a terminal's Ctrl-C reaches the parent alone, and the parent passes the second one on.
Rule 2: no process outlives its parent, however that died: a worker would hold the port against the next one.
Rule 3: a worker that has been replaced takes no new connection, from its first moment on: it would turn new callers away while the
one that replaced it stands idle. And the parent does not wait for its calls to end: it has others to look after.
Rule 4: the jobs process comes after the workers and takes no time from them: it starts when they serve, and yields the processor to
them. It ends after them, when their last rows are written. Without it calls are answered all the same.
Rule 5: a spare stands ready, a worker that has loaded everything and does not serve: where a worker died, callers wait no
longer than it takes to begin, and not for an interpreter to load it all. It holds no connection and takes none.
"""

import asyncio
import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess, multiprocess

from app import logs

log = logs.logger("server")

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
REPLACED = signal.SIGUSR1
"""The parent to a worker: take no new connection."""
JOBS = (sys.executable, "-P", "-m", "app.cli", "jobs")
JOBS_NICENESS = 5
JOBS_END_WITHIN_S = 30.0
"""Longer than they give to what they have under way."""
JOBS_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Before a jobs process that died is started again: the first time, the second, and so on."""
JOBS_SOUND_AFTER_S = 60.0
"""Having lived so long it starts with the first pause again."""


LOOK_S = 0.5
LOADING_S = 120.0
"""A worker that has never answered may take so long: loading is slow on a busy machine."""


class Worker(multiprocess.Process):
    """One web process. `waits`: it is a spare, and serves when it is told to."""

    def __init__(self, config: Config, sockets: list[socket.socket], *, waits: bool = False) -> None:
        self._waits = waits
        self._theirs, self._ours = multiprocessing.Pipe(duplex=False)
        self._asked_at: float | None = None
        self._began_at = time.monotonic()
        self._has_answered = False
        super().__init__(config, sockets)

    def go(self) -> None:
        """Serve now."""
        self._began_at = time.monotonic()
        self._ours.send_bytes(b"go")

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether its loop has turned within so many seconds. Waits for nothing: there are others to look after."""
        if not self.process.is_alive():
            return False
        if self._healthcheck(0.0) is not None:
            return True
        now = time.monotonic()
        if not self._has_answered:
            return now - self._began_at < LOADING_S
        return self._asked_at is None or now - self._asked_at < timeout

    def _healthcheck(self, timeout: float) -> bool | None:
        """One question at a time: an answer that comes late is an answer to it."""
        try:
            if self._asked_at is None:
                self.parent_conn.send(b"ping")
                self._asked_at = time.monotonic()
            if not self.parent_conn.poll(timeout):
                return None
            started = bool(self.parent_conn.recv())
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        self._asked_at, self._has_answered = None, True
        return started

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """What runs in the new process."""
        os.setpgid(0, 0)  # rule 1
        parent = multiprocessing.parent_process()
        die_with_parent()
        if parent is not None and os.getppid() != parent.pid:  # it died before we could ask to be told
            raise SystemExit(STARTUP_FAILURE)
        if self._waits:
            self._wait_for_my_turn()
        name_process(b"callrow-web")
        signal.signal(REPLACED, lambda *_: asyncio.get_running_loop().call_soon_threadsafe(self._take_no_more))
        super().target(sockets)

    def _wait_for_my_turn(self) -> None:
        """Rule 5. What was loaded is what its neighbours run, also if the files have changed since."""
        name_process(b"callrow-loading")
        self.config.load()
        name_process(b"callrow-spare")
        try:
            self._theirs.recv_bytes()
        except EOFError:  # nobody is left who could say so
            raise SystemExit(0) from None

    def always_pong(self) -> None:
        """Answer the parent's questions, until it has let go of the pipe."""
        try:
            while True:
                self.pong()
        except (EOFError, OSError, RuntimeError):  # RuntimeError: the loop is closed, the end has begun
            return

    def pong(self) -> None:
        """One answer. Of a worker that serves it is the loop that answers: a thread says nothing of whether calls are carried."""
        self.child_conn.recv()
        if self.server.started and self.server.servers:
            turned = threading.Event()
            self.server.servers[0].get_loop().call_soon_threadsafe(turned.set)
            turned.wait()
        self.child_conn.send(self.server.started)

    def _take_no_more(self) -> None:
        """Rule 3. Open streams go on; every other connection ends with the answer it is giving."""
        for server in self.server.servers:
            server.close()
        for connection in list(self.server.server_state.connections):
            if hasattr(connection, "cycle"):  # a request and its answer; a WebSocket has none
                connection.shutdown()


# Multiprocess makes its workers by this name, in five places.
multiprocess.Process = Worker  # type: ignore[misc]


class JobsProcess:
    """The jobs process, as its parent knows it: looked at often, waited for only at the end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._deaths = 0
        self._retired: list[tuple[subprocess.Popen[bytes], float]] = []

    def look(self) -> None:
        """Start it if it is not there, after a pause that grows with every death; end those that were replaced and do not end."""
        now = time.monotonic()
        self._retired = [(old, until) for old, until in self._retired if old.poll() is None]
        for old, until in self._retired:
            if now > until:
                old.kill()
        if self._process is not None and (code := self._process.poll()) is not None:
            self._deaths = 0 if now - self._started_at > JOBS_SOUND_AFTER_S else self._deaths
            pause = JOBS_PAUSES_S[min(self._deaths, len(JOBS_PAUSES_S) - 1)]
            self._deaths += 1
            log.error("the jobs process died; it is started again", code=code, pause_s=pause)
            self._process, self._start_at = None, now + pause
        if self._process is None and now >= self._start_at:
            self._process, self._started_at = _start_jobs(), now

    def replace(self) -> None:
        """A new one at once; on SQLite it waits for the old one's end by itself."""
        if self._process is not None:
            self._process.terminate()
            self._retired.append((self._process, time.monotonic() + JOBS_END_WITHIN_S))
        self._process, self._start_at, self._deaths = None, 0.0, 0
        self.look()

    def tell(self) -> None:
        """To end: in order the first time, at once the second."""
        for process in self._all():
            process.terminate()

    def ended(self, within_s: float) -> bool:
        """Whether it has ended, after waiting for so long."""
        end = time.monotonic() + within_s
        for process in self._all():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                return False
        return True

    def kill(self) -> None:
        """What did not end by itself."""
        for process in self._all():
            process.kill()
            process.wait()

    def _all(self) -> list[subprocess.Popen[bytes]]:
        processes = [old for old, _ in self._retired] + ([self._process] if self._process is not None else [])
        return [process for process in processes if process.poll() is None]


def _start_jobs() -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def prepare() -> None:
        die_with_parent()
        if os.getppid() != parent:  # it died before we could ask to be told
            os._exit(1)
        os.nice(JOBS_NICENESS)

    # A process group of its own, as rule 1 has it for workers. Nobody else runs in the parent: it may prepare its child.
    return subprocess.Popen(JOBS, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=prepare)  # noqa: S603


class Supervisor(Multiprocess):
    """The parent."""

    failed = False
    """It stopped because nothing would start, and not because it was told to."""
    _told = False

    def __init__(self, config: Config, sockets: list[socket.socket], *, jobs: bool) -> None:
        super().__init__(config, sockets)
        self._retired: list[multiprocess.Process] = []
        self._jobs = JobsProcess() if jobs else None
        self._served = False
        self._spare: Worker | None = None

    def run(self) -> None:
        """Serve until told to stop, or until nothing starts any more."""
        self.init_processes()
        while not self.should_exit.is_set():
            # a death is noticed at once, anything else soon
            multiprocessing.connection.wait([process.process.sentinel for process in self.processes], LOOK_S)
            self.handle_signals()
            self.keep_subprocess_alive()
        self._dismiss_spare()
        self.terminate_all()
        self.join_all()
        if self._jobs is not None:
            self._end_jobs(self._jobs)

    def handle_term(self) -> None:
        """SIGTERM."""
        self._told = True
        self.should_exit.set()

    def handle_int(self) -> None:
        """SIGINT: Ctrl-C."""
        self.handle_term()

    def restart_all(self) -> None:
        """SIGHUP: each worker is replaced by a new one, first up, then the old one told; rule 3. The jobs process after them."""
        self._dismiss_spare()  # it has loaded what is to be replaced
        for place, old in enumerate(self.processes):
            new = Worker(self.config, self.sockets)
            new.start()
            if not new.wait_until_ready(LOADING_S, self.should_exit):
                new.kill()
                new.join()
                log.error("a new worker did not come up; the old one stays", worker=old.pid)
                return
            self.processes[place] = new
            _tell(old, REPLACED)
            old.terminate()
            self._retired.append(old)
        if self._jobs is not None:
            self._jobs.replace()

    def keep_subprocess_alive(self) -> None:
        """Replace who has died, and forget who has left."""
        self._retired = [process for process in self._retired if process.process.is_alive()]
        for place, process in enumerate(self.processes):
            if self._spare is not None and not process.process.is_alive() and self._spare.process.is_alive():
                process.join()
                log.error("a worker died; the spare takes its place", worker=process.pid, code=process.exitcode)
                self.processes[place], self._spare = self._spare, None
                with contextlib.suppress(OSError):  # it has just died: then it is the next to be replaced
                    self.processes[place].go()  # type: ignore[attr-defined]
        super().keep_subprocess_alive()
        if self.should_exit.is_set():
            return
        self._served = self._served or all(process.is_ready(timeout=0.05) for process in self.processes)
        if self._served:  # rules 4 and 5
            if self._jobs is not None:
                self._jobs.look()
            self._keep_spare()

    def _keep_spare(self) -> None:
        if self._spare is not None and not self._spare.process.is_alive():
            self._spare.join()
            log.error("the spare worker died", worker=self._spare.pid, code=self._spare.exitcode)
            self._spare = None
        if self._spare is None and all(process.is_ready(timeout=0.05) for process in self.processes):
            self._spare = Worker(self.config, self.sockets, waits=True)
            self._spare.start()

    def _dismiss_spare(self) -> None:
        if self._spare is not None:
            self._spare.kill()
            self._spare.join()
            self._spare = None

    def join_all(self) -> None:
        """Wait for the workers, who wait for their calls; a signal now is the second one, and theirs."""
        self.failed = not self._told
        everybody = [*self.processes, *self._retired]
        while alive := [process for process in everybody if process.process.is_alive()]:
            alive[0].process.join(0.2)
            if self._told_again():
                for process in alive:
                    _tell(process, signal.SIGTERM)
            if self._jobs is not None and self._served:
                self._jobs.look()  # calls that end now want their rows as well

    def _end_jobs(self, jobs: JobsProcess) -> None:
        jobs.tell()
        end = time.monotonic() + JOBS_END_WITHIN_S
        while not jobs.ended(within_s=0.2):
            if self._told_again():
                jobs.tell()
            if time.monotonic() > end:
                log.error("the jobs process does not end; it is killed")
                jobs.kill()

    def _told_again(self) -> bool:
        told = bool({signal.SIGTERM, signal.SIGINT} & set(self.signal_queue))
        self.signal_queue.clear()
        return told


def _tell(process: multiprocess.Process, number: signal.Signals) -> None:
    if process.pid is not None and process.process.is_alive():
        os.kill(process.pid, number)


def name_process(name: bytes) -> None:
    """What `ps -o comm` and `top` show. The kernel offers this on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name)


def die_with_parent() -> None:
    """Rule 2: SIGTERM when the parent is gone. The kernel offers this on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
