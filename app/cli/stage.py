"""What a rehearsal plays on: the service as a process of its own, and the pretend carrier and model beside it, all on loopback.

The service has no test mode: it is `callrow serve` with settings that name the two peers, and secrets made for this once.

Rule 1: whatever is started here is ended here, also by Ctrl-C, by SIGTERM, and by our own death.
Rule 2: Ctrl-C is for us alone: it must not tear down a child before its turn, with a traceback.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import httpx2

from app.cli import reading
from app.cli.serve import listen
from app.cli.supervisor import die_with_parent
from app.cli.watching import Watch
from app.errors import CallrowError, StoreUnavailable
from app.rehearsal.runner import Peers, Report
from app.settings import Settings
from app.store import migrate
from app.store.business import Business
from app.store.calls import Calls
from app.store.engine import Database

READY_WITHIN_S = 60.0
LOOK_S = 0.2
STOP_WITHIN_S = 10.0
TRANSFER_TO = "sales=+15550100011,manager=+15550100012"
"""Numbers of the range for invented people; scenes that are put through know them."""
DESTINATIONS = ("WEBHOOK_URL", "WEBHOOK_SECRET", "SMTP_URL", "CHAT_WEBHOOK_URL")
"""Not set here, whatever the environment says: an invented call is told to nobody."""


class NotInstalled(CallrowError):
    """Voice and ears of the rehearsal are an extra."""

    def __str__(self) -> str:
        return "the rehearsal's voice and ears are not installed; run: scripts/setup"


class ServiceLost(CallrowError):
    """The service did not come up, or ended by itself. `reasons` is what it said of itself last."""

    def __init__(self, what: str, reasons: Mapping[str, Any]) -> None:
        self.what, self.reasons = what, dict(reasons)
        super().__init__(what, self.reasons)

    def __str__(self) -> str:
        return f"the service {self.what}" + "".join(f"\n  {name}: {reason}" for name, reason in self.reasons.items())


@dataclass(frozen=True, slots=True)
class Stage:
    """A running service and its peers."""

    settings: Settings
    peers: Peers
    calls: Calls
    service: asyncio.subprocess.Process

    async def play(self, scene: str, *, tell: Callable[[str], None], listen: Path | None = None) -> Report:
        """Let a scene's caller call; tells what happens while it happens. Raises `BadScene`, `PeerLost`, `ServiceLost`."""
        placed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_event(event: Mapping[str, Any]) -> None:
            if event.get("event") == "placed" and not placed.done():
                placed.set_result(str(event["call_sid"]))
                tell(f"{'':>8}  the telephone rings: {event.get('from', 'somebody')} calls")

        watch = Watch()
        watching = asyncio.create_task(self._watch(placed, watch, tell))
        playing = asyncio.create_task(self.peers.rehearse(scene, read_row=self.calls.row, on_event=on_event, listen=listen))
        ended = asyncio.create_task(self.service.wait())
        try:
            await asyncio.wait({playing, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not playing.done():
                raise ServiceLost("ended in the middle of the call", {})
            report = playing.result()
        finally:
            for task in (watching, playing, ended):
                task.cancel()
            await asyncio.wait({watching, playing, ended})
        for line in watch.see(report.row) if report.row is not None else ():
            tell(line)
        return report

    async def _watch(self, placed: asyncio.Future[str], watch: Watch, tell: Callable[[str], None]) -> None:
        sid = await placed
        while True:
            with contextlib.suppress(StoreUnavailable):  # the next look is soon; the report has the last word
                row = await self.calls.row(sid)
                for line in watch.see(row) if row is not None else ():
                    tell(line)
            await asyncio.sleep(LOOK_S)


@contextlib.asynccontextmanager
async def stage(*, port: int = 0, database_url: str | None = None, host: str = "127.0.0.1") -> AsyncIterator[Stage]:
    """Everything that a rehearsal needs, running. Port 0 is a free one; no database means a temporary one.

    Raises:
        NotInstalled, ServiceLost, PortTaken, PeerLost, BadSetting, StoreUnavailable.
    """
    if find_spec("pocketsphinx") is None or find_spec("espeakng_loader") is None:
        raise NotInstalled
    with listen(host, port) as probe:  # complain of a port before anything else is started
        port = int(probe.getsockname()[1])
    async with contextlib.AsyncExitStack() as started:
        folder = None if database_url else started.enter_context(_temporary_folder())
        url = database_url or f"sqlite:///{folder}/callrow.db"
        account, token = f"AC{secrets.token_hex(16)}", secrets.token_hex(16)
        address = f"http://127.0.0.1:{port}"
        with _children_deaf_to_ctrl_c():
            peers = await started.enter_async_context(Peers(service_url=address, account_sid=account, auth_token=token))
            changes = {
                "PUBLIC_URL": address,
                "HOST": host,
                "PORT": str(port),
                "WORKERS": "1",
                "DATABASE_URL": url,
                "DRAIN_SECONDS": "5",
                "TWILIO_ACCOUNT_SID": account,
                "TWILIO_AUTH_TOKEN": token,
                "TWILIO_API_URL": peers.carrier_url,
                "OPENAI_API_KEY": "rehearsal",
                "OPENAI_BASE_URL": peers.model_url,
                "LOG_LEVEL": os.environ.get("LOG_LEVEL") or "warning",
                "TRANSFER_TO": TRANSFER_TO,
                "ANALYZER": "rules",
                **dict.fromkeys(DESTINATIONS, ""),
                "RECONCILE_MINUTES": "0",
            } | ({"SPOOL_DIR": f"{folder}/spool"} if folder else {})
            settings = Settings.from_env({**reading.given(), **changes})
            await asyncio.to_thread(migrate.upgrade, url)
            database = Database(url, settings.data_key.get_secret_value() if settings.data_key else None)
            started.push_async_callback(database.close)
            await Business(database).seed_example()
            service = await started.enter_async_context(_service(changes))
        await _ready(service, address)
        yield Stage(settings, peers, Calls(database), service)


@contextlib.asynccontextmanager
async def _service(changes: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """`callrow serve` with these settings over our own; stopped at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.cli", "serve"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,
        env={**os.environ, **changes},
        preexec_fn=die_with_parent,
    )
    try:
        yield process
    finally:
        # A second SIGTERM ends what a first lets end; what does not end then is killed.
        for order in (process.terminate, process.terminate, process.kill):
            if process.returncode is None:
                order()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await process.wait()
                    break


async def _ready(service: asyncio.subprocess.Process, address: str) -> None:
    reasons: dict[str, Any] = {}
    end = asyncio.get_running_loop().time() + READY_WITHIN_S
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
        while service.returncode is None and asyncio.get_running_loop().time() < end:
            try:
                answer = await client.get(f"{address}/health/ready")
            except httpx2.TransportError:
                reasons = {}
            else:
                if answer.status_code == 200:
                    return
                with contextlib.suppress(json.JSONDecodeError):
                    reasons = answer.json().get("reasons", {})
            await asyncio.sleep(0.1)
    raise ServiceLost("ended by itself" if service.returncode is not None else "did not become ready", reasons)


@contextlib.contextmanager
def _children_deaf_to_ctrl_c() -> Iterator[None]:
    """Rule 2: who is started in here never gets SIGINT; ours waits until the block is left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="callrow-rehearsal-") as folder:
        yield folder


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a coroutine to its end or to Ctrl-C or SIGTERM, with everything it has started; its exit code."""

    async def until_told() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: task.cancelling() or task.cancel())  # once: what is being ended ends in order
        try:
            return await main()
        except asyncio.CancelledError:
            click.echo("stopped", err=True)
            return 130

    return asyncio.run(until_told())
