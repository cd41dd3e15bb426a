"""`callrow jobs`: what is done after a call, in a process of its own: reading, delivering, comparing with the carrier.

`callrow serve` has one beside its workers; where the platform has process types of its own, this is one of them.

Rule 1: told to stop, it takes no more work and lets what is under way end, for a while; told again, it ends at once. Either way
nothing is lost: what was not done is done by whoever comes next.
Rule 2: what is not there yet is waited for: the database, its tables, the end of another process on the same file. A setting that
is wrong is not.
Rule 3: the first sign of life comes before the first job, and the last one after the last: what a process without one has under way
is taken over by others.
"""

import asyncio
import contextlib
import dataclasses
import logging.config
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import click

from app import logs
from app.cli import reading
from app.cli.lines import LOGGING
from app.errors import StoreUnavailable
from app.settings import Settings
from app.store import migrate
from app.store.engine import Database
from app.store.facts import utc_now
from app.store.workers import Workers
from app.twilio.carrier import Carrier
from app.wrapup.jobs import Jobs, Work, alone, lock_file
from app.wrapup.sweeper import Pace, Sweeper

log = logs.logger("jobs")

GRACE_S = 10
"""For what is under way when told to stop."""
LOOK_S = 1.0
LONGEST_PAUSE_S = 30.0
COMPARED = timedelta(days=1)
"""So far back every comparison with the carrier looks: prices come hours after a call."""
LONGEST_COMPARED = timedelta(days=7)
"""And so far at most, when there has been none for longer; what is older is for `callrow reconcile`."""
CARRIER_PATIENCE_S = 20.0
"""A page of the log takes the carrier longer than an order to a call."""


@click.command()
def jobs() -> None:
    """Read calls that have ended, deliver their rows, compare with the carrier; until told to stop."""
    settings = reading.settings_without_keys()
    logs.set_up(settings.log_level)
    logging.config.dictConfig(LOGGING)
    with_carrier = not {"TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"} & set(reading.missing_keys(reading.given()))
    asyncio.run(_jobs(settings, with_carrier=with_carrier))
    sys.stdout.flush()
    # The engine's threads wait for a database that is away without an end, and a process that just ends waits for its threads.
    os._exit(0)


async def _jobs(settings: Settings, *, with_carrier: bool) -> None:
    key = settings.data_key.get_secret_value() if settings.data_key else None
    database = Database(settings.database_url, key)
    try:
        async with _work(settings, database, with_carrier=with_carrier) as (work, about):
            await until_told(
                lambda: at_work(
                    settings.database_url,
                    database,
                    work,
                    at_once=settings.jobs_at_once,
                    reconcile_minutes=settings.reconcile_minutes,
                    about=about,
                )
            )
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _work(settings: Settings, database: Database, *, with_carrier: bool) -> AsyncIterator[tuple[Work, dict[str, object]]]:
    """The rooms that do it, and what to say of them."""
    from app.store.deliveries import Deliveries
    from app.store.judgements import Judgements
    from app.wrapup.analyzers import analyzer_of
    from app.wrapup.delivering import Delivering
    from app.wrapup.facts import Lists
    from app.wrapup.outbox import outbox
    from app.wrapup.reading import Reading

    lists = Lists.of(settings)
    judgements, deliveries = Judgements(database, outbox(settings)), Deliveries(database)
    async with contextlib.AsyncExitStack() as opened:
        analyzer = await opened.enter_async_context(contextlib.aclosing(analyzer_of(settings, lists)))
        work = Work(
            reading=Reading(judgements, analyzer, lists, dice=random.random),
            delivering=Delivering(deliveries, settings),
            judgements=judgements,
            deliveries=deliveries,
        )
        if with_carrier and settings.reconcile_minutes:
            account, token = settings.twilio_account_sid, settings.auth_tokens[0]
            carrier = Carrier(account, token, settings.twilio_api_url, timeout_s=CARRIER_PATIENCE_S)
            await opened.enter_async_context(carrier)
            work = dataclasses.replace(work, reconcile=lambda: _compare(settings, database, carrier))
        roads = {"webhook": settings.webhook_url, "mail": settings.smtp_url, "chat": settings.chat_webhook_url}
        yield (
            work,
            {
                "analyzer": analyzer.name,
                "destinations": [road for road, where in roads.items() if where is not None],
                "reconciles": work.reconcile is not None,
            },
        )


async def _compare(settings: Settings, database: Database, carrier: Carrier) -> None:
    """Our calls beside the carrier's since the last comparison, and again those of the last day."""
    from app.store.reconciling import Reconciling
    from app.wrapup.reconcile import Reconciler

    now = utc_now()
    last = await Reconciling(database).last()
    since = now - COMPARED if last is None else min(now - COMPARED, last[1].until)
    await Reconciler(database, carrier, settings).run(max(since, now - LONGEST_COMPARED), now)


async def at_work(
    url: str,
    database: Database,
    work: Work,
    *,
    at_once: int,
    reconcile_minutes: int = 0,
    about: dict[str, object] | None = None,
    pace: Pace | None = None,
    look_s: float = 0.5,
) -> None:
    """Work until cancelled, and then end in order (rule 1)."""
    worker = f"jobs-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    workers = Workers(database)

    async def enter() -> Jobs:
        await workers.beat(worker, live_calls=0)  # rule 3
        engine = Jobs(url, work, executor=worker, at_once=at_once, look_s=look_s)
        await engine.open()
        return engine

    async with alone(lock_file(url)):
        await _migrated(url)
        engine = await _patiently(enter)
        try:
            log.info("the jobs are open", worker=worker, shared=engine.shared, at_once=at_once, **(about or {}))
            await Sweeper(engine, work, workers, worker=worker, reconcile_minutes=reconcile_minutes, pace=pace).run()
        finally:
            await engine.close(GRACE_S)
            with contextlib.suppress(StoreUnavailable):  # then our silence says the same a little later
                await workers.leave(worker)
            log.info("the jobs are closed", worker=worker)


async def _migrated(url: str) -> None:
    """Rule 2."""
    told: str | None = None
    while True:
        try:
            if await asyncio.to_thread(reading.revision, url) == migrate.head():
                return
            waiting = "the database is of another version than this code; the jobs wait for it. Run: callrow migrate"
        except reading.NotMigrated:
            waiting = "the database has no tables yet; the jobs wait for them. Run: callrow migrate"
        except StoreUnavailable:
            waiting = "the database is away; the jobs wait for it"
        if waiting != told:
            log.warning(waiting)
            told = waiting
        await asyncio.sleep(LOOK_S)


async def _patiently(enter: Callable[[], Awaitable[Jobs]]) -> Jobs:
    pause = LOOK_S
    while True:
        try:
            return await enter()
        except Exception as fault:
            log.error("the engine of the jobs does not start; tried again", fault=type(fault).__name__, at=logs.where(fault))
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


async def until_told(main: Callable[[], Awaitable[None]]) -> None:
    """Run it until it ends by itself or we are told to stop; rule 1."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(main())

    def on_signal() -> None:
        if not task.cancel() or task.cancelling() > 1:
            os._exit(0)
        log.info("told to stop; what is under way may end", seconds=GRACE_S)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    with contextlib.suppress(asyncio.CancelledError):
        await task
