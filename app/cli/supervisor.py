"""uvicorn's own supervisor and its workers, with what a telephone needs beside.

The parent holds the listening socket and does nothing else: it starts a worker again that died, and rolls them on SIGHUP. Callers
who arrive meanwhile wait in the socket's queue.

Rule 1: SIGTERM, or Ctrl-C, lets live calls end (app/main.py drains); a second one ends them now. So a worker is in a process group
of its own, where a terminal's Ctrl-C reaches the parent alone, and the parent passes the second one on.
Rule 2: no worker outlives its parent, however that died: it would hold the port against the next one.
Rule 3: a worker that has been replaced takes no new connection, from its first moment on: it would turn new callers away while the
one that replaced it stands idle. And the parent does not wait for its calls to end: it has others to look after.
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
import sys

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from app import logs

log = logs.logger("server")

PR_SET_PDEATHSIG = 1
REPLACED = signal.SIGUSR1
"""The parent to a worker: take no new connection."""


class Worker(multiprocess.Process):
    """One web process."""

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """What runs in the new process."""
        os.setpgid(0, 0)  # rule 1
        parent = multiprocessing.parent_process()
        die_with_parent()
        if parent is not None and os.getppid() != parent.pid:  # it died before we could ask to be told
            raise SystemExit(STARTUP_FAILURE)
        signal.signal(REPLACED, lambda *_: asyncio.get_running_loop().call_soon_threadsafe(self._take_no_more))
        super().target(sockets)

    def always_pong(self) -> None:
        """Answer the parent's pings, until it has let go of the pipe."""
        try:
            super().always_pong()
        except (EOFError, OSError):
            return

    def _take_no_more(self) -> None:
        """Rule 3. Open streams go on; every other connection ends with the answer it is giving."""
        for server in self.server.servers:
            server.close()
        for connection in list(self.server.server_state.connections):
            if hasattr(connection, "cycle"):  # a request and its answer; a WebSocket has none
                connection.shutdown()


# Multiprocess makes its workers by this name, in five places.
multiprocess.Process = Worker  # type: ignore[misc]


class Supervisor(Multiprocess):
    """The parent."""

    failed = False
    """It stopped because nothing would start, and not because it was told to."""
    _told = False

    def run(self) -> None:
        """Serve until told to stop, or until nothing starts any more."""
        self._retired: list[multiprocess.Process] = []
        super().run()

    def handle_term(self) -> None:
        """SIGTERM."""
        self._told = True
        self.should_exit.set()

    def handle_int(self) -> None:
        """SIGINT: Ctrl-C."""
        self.handle_term()

    def restart_all(self) -> None:
        """SIGHUP: each worker is replaced by a new one, first up, then the old one told; rule 3."""
        for place, old in enumerate(self.processes):
            new = Worker(self.config, self.sockets)
            new.start()
            if not new.wait_until_ready(self.config.timeout_worker_healthcheck, self.should_exit):
                new.kill()
                new.join()
                log.error("a new worker did not come up; the old one stays", worker=old.pid)
                return
            self.processes[place] = new
            _tell(old, REPLACED)
            old.terminate()
            self._retired.append(old)

    def keep_subprocess_alive(self) -> None:
        """Replace who has died, and forget who has left."""
        self._retired = [process for process in self._retired if process.process.is_alive()]
        super().keep_subprocess_alive()

    def join_all(self) -> None:
        """Wait for the workers, who wait for their calls; a signal now is the second one, and theirs."""
        self.failed = not self._told
        everybody = [*self.processes, *self._retired]
        while alive := [process for process in everybody if process.process.is_alive()]:
            alive[0].process.join(0.2)
            if {signal.SIGTERM, signal.SIGINT} & set(self.signal_queue):
                for process in alive:
                    _tell(process, signal.SIGTERM)
            self.signal_queue.clear()


def _tell(process: multiprocess.Process, number: signal.Signals) -> None:
    if process.pid is not None and process.process.is_alive():
        os.kill(process.pid, number)


def die_with_parent() -> None:
    """Rule 2: SIGTERM when the parent is gone. The kernel offers this on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
