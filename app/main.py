"""The roof: builds the web application from the settings; opens, drains and closes; decides nothing."""

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo

from starlette.applications import Starlette

from app import logs
from app.agents.reader import read_agents
from app.errors import StoreUnavailable
from app.settings import Settings, environment
from app.store import migrate
from app.store.business import Business
from app.store.changes import Pricing
from app.store.daybook import Daybook
from app.store.engine import Database
from app.store.ledger import Ledger
from app.store.spool import Spool, whose_spool
from app.store.workers import Workers
from app.store.writer import Writer
from app.switchboard import Switchboard
from app.tools.business import business_tools
from app.tools.toolbox import Toolbox
from app.twilio.carrier import Carrier
from app.twilio.signature import Signatures
from app.twilio.token import StreamTokens
from app.web import console, health, phone
from app.web.admission import Admission, LoopLag
from app.web.desk import Desk
from app.web.guard import build
from app.web.watchdog import Watchdog

log = logs.logger("main")

HEARTBEAT_S = 5.0
COLLECT_AFTER = (50_000, 20, 20)
DRAIN_LOOK_S = 0.2
HAND_OVER_S = 30.0
"""A call waits up to 20 s for a pause, and then leaves without one."""


def create() -> Starlette:
    """The application, from the process's environment and `.env`: what the server imports.

    Raises:
        BadSetting: a setting is missing or wrong.
        BadAgent: an agent file is wrong.
    """
    settings = Settings.from_env(environment(os.environ, Path.cwd()))
    logs.set_up(settings.log_level)
    return application(settings)


def application(settings: Settings) -> Starlette:
    """The application of these settings."""
    worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    key = settings.data_key.get_secret_value() if settings.data_key else None
    database = Database(settings.database_url, key)
    spool = Spool(settings.spool_dir, whose_spool(settings.database_url), database.seal, settings.spool_mb * 1024 * 1024)
    pricing = Pricing(
        prices=settings.prices,
        prices_date=settings.prices_date,
        per_transcription_minute=settings.per_transcription_minute,
    )
    writer = Writer(database, spool=spool, pricing=pricing)
    calls = Daybook(database, writer)
    zone = ZoneInfo(settings.business_timezone)
    tools = business_tools(Business(database), clock=lambda: datetime.now(zone), zone=zone)
    toolbox = Toolbox(Ledger(database, is_behind=writer.is_behind), tools)
    agents = read_agents(
        settings.agents_dir,
        errands=toolbox.specs(),
        directory=settings.transfer_to,
        dispositions=settings.dispositions,
        intents=settings.intents,
        first=settings.first_agent,
    )
    tokens = StreamTokens(*settings.auth_tokens)
    board = Switchboard(settings, agents=agents, calls=calls, writer=writer, toolbox=toolbox, tokens=tokens, worker=worker)
    workers = Workers(database)

    async def lives_elsewhere(other: str) -> bool:
        if other == worker:
            return False
        if writer.is_away:
            raise StoreUnavailable("ask who lives")
        seen = await workers.list(seen_within=timedelta(seconds=3 * HEARTBEAT_S))
        return any(known.id == other for known in seen)

    lag = LoopLag()

    desk = Desk(
        settings=settings,
        calls=calls,
        switchboard=board,
        signatures=Signatures(settings.auth_tokens, settings.public_url),
        tokens=tokens,
        agents=agents,
        clock=lambda: time.time_ns() // 1_000_000,
        admission=Admission(settings, lag_ms=lambda: lag.p90_ms, overwhelmed=lambda: writer.is_overwhelmed),
        lives_elsewhere=lives_elsewhere,
    )

    doors = phone.Phone(desk)
    carrier = Carrier(settings.twilio_account_sid, settings.auth_tokens[0], settings.twilio_api_url)
    watchdog = Watchdog(desk, workers, carrier, worker)
    office = console.open_console(desk, database)

    async def reachable() -> str | None:
        async with database.read("see whether it is there"):
            return None

    async def migrated() -> str | None:
        current = await asyncio.to_thread(migrate.is_current, settings.database_url)
        return None if current else "the database is not at this version; run: callrow migrate"

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await writer.open()
        async with asyncio.TaskGroup() as house:
            tasks = [
                house.create_task(writer.run()),
                house.create_task(lag.watch()),
                house.create_task(board.watch()),
                house.create_task(doors.look_after()),
                house.create_task(_beat(workers, worker, board)),
                house.create_task(watchdog.run()),
                house.create_task(office.look_after()),
            ]
            with _draining(board, settings.drain_seconds):
                # What is loaded now stays, and the collector need not walk it again: 12 to 14 % of the CPU when measured. What a
                # call makes has no cycles to speak of, so it may look for them less often.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*COLLECT_AFTER)
                log.info("open", worker=worker, agents=sorted(agents))
                yield
            await toolbox.settled()
            with contextlib.suppress(StoreUnavailable):  # then its heartbeat ages, and says the same a little later
                await workers.leave(worker)
            try:
                await writer.close()
            except StoreUnavailable:
                log.critical("neither the database nor the disk takes what was still to be written", waiting=writer.waiting)
            for task in tasks:
                task.cancel()
        await carrier.close()
        await database.close()

    checks: dict[str, Callable[[], Awaitable[str | None]]] = {"database": reachable, "migrations": migrated}
    routes = [*doors.routes(), *health.routes(desk, checks), *console.routes(office)]
    return build(routes, https=settings.public_url.startswith("https:"), lifespan=lifespan)


async def _beat(workers: Workers, worker: str, board: Switchboard) -> None:
    """Say every five seconds that this worker is alive; a database that is away is no reason to stop."""
    while True:
        try:
            await workers.beat(worker, live_calls=board.live, address=None)
        except Exception as fault:
            log.warning("no heartbeat", fault=type(fault).__name__)
        await asyncio.sleep(HEARTBEAT_S)


@contextlib.contextmanager
def _draining(board: Switchboard, seconds: int) -> Any:
    """On the first SIGTERM or SIGINT: no new calls, and the server is told to stop only when the last live call has ended, or, when
    its time is up, has been left for another worker to go on with. uvicorn alone would cut every live socket at once with 1012. A
    second signal stops at once."""
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}
    tasks: set[asyncio.Task[None]] = set()

    async def drain(number: int) -> None:
        board.drain()
        log.info("draining", live=board.live, seconds=seconds)
        end = time.monotonic() + seconds
        while board.live and time.monotonic() < end:  # noqa: ASYNC110 (a shutdown looks; nobody signals the last call)
            await asyncio.sleep(DRAIN_LOOK_S)
        if board.live:
            log.info("handing over", live=board.live)
            board.hand_over()
            end = time.monotonic() + HAND_OVER_S
            while board.live and time.monotonic() < end:  # noqa: ASYNC110
                await asyncio.sleep(DRAIN_LOOK_S)
        log.info("drained", live=board.live)
        before[number](number, None)

    def begin(number: int) -> None:
        task = loop.create_task(drain(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if board.draining:
            before[number](number, frame)
            return
        board.draining = True
        loop.call_soon_threadsafe(begin, number)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            if callable(previous):
                before[number] = previous
                signal.signal(number, on_signal)
    except ValueError:  # not in the main thread: a test's server, which has no signals
        log.info("no signals are handled here")
    try:
        yield
    finally:
        for handled, previous in before.items():
            if signal.getsignal(handled) is on_signal:
                signal.signal(handled, previous)
