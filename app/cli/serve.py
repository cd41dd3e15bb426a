"""`callrow serve`: the service under uvicorn's own supervisor (app/cli/supervisor.py), also with one worker; a jobs process beside.

Rule: what an operator can put right is found before the first worker starts: settings, agents, an empty database, a port in use.
"""

import errno
import logging
import os
import socket
import sys
import traceback
from typing import Any

import click
from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE

from app import logs
from app.cli import reading
from app.cli.lines import LOGGING
from app.cli.supervisor import Supervisor
from app.errors import BadSetting, CallrowError, OurFault, StoreUnavailable
from app.settings import Settings
from app.twilio.socket import MediaSocket
from app.web.sockets import GuardedHttp

log = logs.logger("server")

MAX_FRAME = 65_536
"""Bytes of one message on the carrier's socket; the default of 16 MB would be an invitation."""
WORKER_PATIENCE_S = 15
"""A worker whose loop has not turned for so long is dead: its callers hear nothing, and go on elsewhere once it is killed. The
default of 5 s would kill live calls on a busy machine."""


class PortTaken(OurFault):
    """Somebody else listens there."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host, self.port, self.reason = host, port, reason
        super().__init__(host, port, reason)

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host}, port {self.port}: {self.reason}\n"
            "  Is the service running already? Stop it, or choose another port: PORT=8081 (or --port 8081)."
        )


@click.command()
@click.option("--host", help="Address to listen on; overrides HOST.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on, 0 for a free one; overrides PORT.")
@click.option("--workers", type=click.IntRange(1, 64), help="Web processes; overrides WORKERS. More than one needs PostgreSQL.")
@click.option("--no-jobs", is_flag=True, help="No jobs process beside the workers: where `callrow jobs` runs by itself.")
def serve(host: str | None, port: int | None, workers: int | None, no_jobs: bool) -> None:
    """Answer calls, and do what comes after them, until told to stop."""
    # The workers read the environment for themselves: an option becomes part of it.
    for name, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[name] = str(value)
    sys.exit(run(reading.settings(), jobs=not no_jobs))


def run(settings: Settings, *, jobs: bool = True) -> int:
    """Serve until told to stop, with a jobs process beside the workers or without.

    Returns:
        The exit code: 0 after a stop that was asked for, 1 if the workers could not start.

    Raises:
        BadSetting: more than one worker on SQLite.
        BadAgent: an agent file is wrong.
        PortTaken: the port cannot be had.
        NotMigrated: the database is empty.
    """
    logs.set_up(settings.log_level)
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        raise BadSetting(
            [("WORKERS", "may not be more than 1 on SQLite, which has one writer", "WORKERS=1, or DATABASE_URL=postgresql://...")]
        )
    check_tables(settings.database_url)
    if settings.first_agent not in (agents := reading.agents(settings)):
        known = ", ".join(sorted(agents))
        raise BadSetting([("FIRST_AGENT", f"there is no agent {settings.first_agent}", f"FIRST_AGENT=... with one of: {known}")])
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's pool of threads would fight the audio loop for the cores
    with listen(settings.host, settings.port) as listening:
        log.info("listening", address=f"{settings.host}:{listening.getsockname()[1]}", workers=settings.workers)
        supervisor = Supervisor(config(settings), [listening], jobs=jobs)
        logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # of the parent alone: deaths and restarts
        supervisor.run()
    return 1 if supervisor.failed else 0


def config(settings: Settings) -> Config:
    """How a worker serves."""
    return Config(
        "app.cli.serve:worker",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http=GuardedHttp,
        ws=MediaSocket,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # signatures and addresses are built on PUBLIC_URL, never on what a proxy says
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
        timeout_worker_healthcheck=WORKER_PATIENCE_S,
        log_config=LOGGING,
    )


def check_tables(url: str) -> None:
    """Raises `NotMigrated` for an empty database. One that is away, or of another version, is no reason not to answer calls."""
    from app.store import migrate

    try:
        revision = reading.revision(url)
    except StoreUnavailable:
        log.error("the database cannot be reached; calls are answered, and readiness says so")
        return
    if revision != migrate.head():
        log.error("the database is of another version than this code; run: callrow migrate", revision=revision)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. It listens before a worker is up, so that who comes early waits and is not turned away.

    Raises:
        PortTaken: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2_048)
        except OSError:
            listening.close()
            raise
    except OSError as fault:
        raise PortTaken(host, port, "it is in use" if fault.errno == errno.EADDRINUSE else str(fault.strerror)) from None
    return listening


def worker() -> Any:
    """The application, made in a worker.

    Raises:
        SystemExit: with uvicorn's code for "would fail the same way again", upon which the parent stops instead of trying for ever.
    """
    from app.main import create

    try:
        return create()
    except CallrowError as fault:
        log.error("a worker cannot start", fault=type(fault).__name__)
        click.echo(f"callrow: {fault}", err=True)
        raise SystemExit(STARTUP_FAILURE) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(STARTUP_FAILURE) from None
