"""The durable jobs: what is done after a call, on DBOS Transact, so that it goes on where it was when the process that did it died.

A job is one attempt at one thing, in two steps: to read a call, *ask* and *settle*; to deliver a message, *send* and *record*. The
first step meets the world, the second tells our own tables what came of it.

Rule 1: a job is given ids and the number of its attempt, and leaves ids, counts and short codes. Nothing of a call, no address and
no fault's own words are in the engine's tables.
Rule 2: a step runs at least once; when its result is kept it never runs again. So an effect outside carries its own key, and what
changes our tables compares before it sets.
Rule 3: attempts are counted in our own tables. What goes wrong in a first step ends as a fault of this attempt, which the second
step files like any other: tried again later, given up for good in the end, never stuck in the engine.
Rule 4: the engine's tables lie apart: in `<file>.jobs` beside SQLite's file, in the schema `dbos` of the same PostgreSQL.
Rule 5: on SQLite one process works at a time, whoever is second waits (`alone`): two live processes of one executor would run a
step twice. On PostgreSQL every process is an executor of its own, and what a dead one left is taken over (app/wrapup/sweeper.py).
"""

import asyncio
import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID, error
from sqlalchemy import event

from app import logs
from app.errors import OurFault, StoreUnavailable
from app.store.engine import make_folder, sync_url

log = logs.logger("jobs")

VERSION = "1"
"""Of the jobs' steps. To be changed only when a job that was begun before could not be ended after: the old ones then wait for a
process of the old version."""
EMBEDDED_EXECUTOR = "jobs"
SCHEMA = "dbos"
IN_NO_HURRY = 10
"""So many times less often the queue of the comparisons is looked into."""
PATIENCE = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0)
"""Seconds between tries of a step that cannot reach our database."""
MOST_DEATHS = 10
"""A job whose process has died under it more often is not begun again: it may be what kills it."""
FORGET_AT_ONCE = 500
CODE = re.compile(r"[A-Za-z0-9_.:+ -]{0,40}")
ENDED = ("SUCCESS", "ERROR", "CANCELLED")
DIED_TOO_OFTEN = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"

type Said = Mapping[str, Any]
"""What a first step says to the second."""


class Reads(Protocol):
    """Who reads calls: app/wrapup/reading.py."""

    async def ask(self, call_id: str) -> Said:
        """Have the call read, and keep the reading."""

    async def settle(self, call_id: str, attempt: int, verdict: dict[str, Any]) -> object:
        """Put what was read in force, or file the fault. Twice does no harm."""


class Delivers(Protocol):
    """Who delivers messages: app/wrapup/delivering.py."""

    async def send(self, delivery_id: str) -> Said:
        """Send it."""

    async def record(self, delivery_id: str, attempt: int, sent: dict[str, Any]) -> object:
        """File what came of it. Twice does no harm."""


class Due(Protocol):
    """Who knows what is to be done: app/store/judgements.py, app/store/deliveries.py."""

    async def due(self, limit: int) -> list[tuple[str, int]]:
        """The id, and the number of the attempt to make; what has waited longest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that there is to do, and by whom it is done."""

    reading: Reads
    delivering: Delivers
    judgements: Due
    deliveries: Due
    reconcile: Callable[[], Awaitable[object]] | None = None
    """Compare with the carrier; once for all processes in each period."""


class Kind(StrEnum):
    """What a job does; also the name of its queue, so that neither waits behind the other."""

    READ = "read"
    DELIVER = "deliver"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one thing."""

    kind: Kind
    of: str
    attempt: int

    @property
    def name(self) -> str:
        """By which the engine knows it; it is begun once, however often it is asked for."""
        return f"{self.kind}:{self.of}:{self.attempt}"


class State(StrEnum):
    """How far the engine is with a job."""

    UNDER_WAY = "under way"
    ENDED = "ended"
    LOST = "lost"
    """Its process died under it too often."""


class StepFailed(OurFault):
    """The last step of a job could not be done. Carries the kind of fault alone: the engine keeps what it is told (rule 1)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)

    def __str__(self) -> str:
        return self.kind


class Jobs:
    """The engine, in this process, on the loop that opens it. One to a process.

    Args:
        url: our own database; rule 4 says where the engine's tables are.
        work: what the steps do.
        executor: who we are to the engine. On SQLite it is always the same, on PostgreSQL nobody else's (rule 5).
        at_once: jobs of one kind that this process has under way at a time.
        look_s: seconds between two looks into a queue.
    """

    def __init__(self, url: str, work: Work, *, executor: str, at_once: int, look_s: float = 0.5) -> None:
        self._work = work
        self._at_once = at_once
        self._look_s = look_s
        self._engine = _engine(url, at_once)
        self.shared = self._engine.dialect.name != "sqlite"
        """Other processes may do the same work."""
        self.executor = executor if self.shared else EMBEDDED_EXECUTOR
        self._workflows: dict[Kind, Callable[..., Any]] = {}

    async def open(self) -> None:
        """Make the engine's tables if need be, go on with what this executor had under way, and begin to work.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be had; to be tried again with another `Jobs`.
        """
        _hush()
        config: DBOSConfig = {
            "name": "callrow",
            "system_database_engine": self._engine,
            "dbos_system_schema": SCHEMA,
            "executor_id": self.executor,
            "application_version": VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "use_listen_notify": False,  # no job waits for another's word; a connection less, and it works through a pooler
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        try:
            DBOS(config=config)
            self._register()
            DBOS.launch()  # on this thread: jobs then run on this loop, with our own engines
            for kind in Kind:
                alone = kind is Kind.RECONCILE
                await DBOS.register_queue_async(
                    kind.value,
                    worker_concurrency=1 if alone else self._at_once,
                    global_concurrency=1 if alone else None,
                    polling_interval_sec=self._look_s * (IN_NO_HURRY if alone else 1),
                    on_conflict="always_update",
                )
        except BaseException:
            await self.close(0)
            raise

    def _register(self) -> None:
        work, step = self._work, DBOS.run_step_async

        async def reading(call_id: str, attempt: int) -> None:
            verdict = await step({"name": "ask"}, self._first, lambda: work.reading.ask(call_id), faulty_verdict)
            await step({"name": "settle"}, self._last, lambda: work.reading.settle(call_id, attempt, verdict))

        async def delivering(delivery_id: str, attempt: int) -> None:
            sent = await step({"name": "send"}, self._first, lambda: work.delivering.send(delivery_id), failed_sending)
            await step({"name": "record"}, self._last, lambda: work.delivering.record(delivery_id, attempt, sent))

        async def reconciling(_of: str, _attempt: int) -> None:
            assert work.reconcile is not None
            await step({"name": "compare"}, self._compare, work.reconcile)

        for kind, workflow in ((Kind.READ, reading), (Kind.DELIVER, delivering), (Kind.RECONCILE, reconciling)):
            self._workflows[kind] = DBOS.workflow(name=kind.value, max_recovery_attempts=MOST_DEATHS)(workflow)

    async def _first(self, meet_the_world: Callable[[], Awaitable[Said]], otherwise: Callable[[str], Said]) -> dict[str, Any]:
        """Rule 3: what it says, or its fault as one of this attempt."""
        try:
            return plain(await self._patiently(meet_the_world))
        except Exception as fault:
            log.error("a step failed; it counts as an attempt", fault=type(fault).__name__, at=logs.where(fault))
            return plain(otherwise(type(fault).__name__))

    async def _last(self, tell_our_tables: Callable[[], Awaitable[object]]) -> None:
        try:
            await self._patiently(tell_our_tables)
        except Exception as fault:
            log.error("a step failed; its job is begun again there", fault=type(fault).__name__, at=logs.where(fault))
            raise StepFailed(type(fault).__name__) from None

    async def _compare(self, with_the_carrier: Callable[[], Awaitable[object]]) -> None:
        try:
            await with_the_carrier()
        except Exception as fault:  # nothing waits for it, and it is done again in the next period
            log.error("calls were not compared with the carrier's", fault=type(fault).__name__, at=logs.where(fault))
            raise StepFailed(type(fault).__name__) from None

    async def _patiently[T](self, step: Callable[[], Awaitable[T]]) -> T:
        """With our database away a step waits for it, silently: the sweeper has said so."""
        for pause in PATIENCE:
            try:
                return await step()
            except StoreUnavailable:
                await asyncio.sleep(pause)
        return await step()

    async def begin(self, job: Job) -> None:
        """Let a job be done. Twice does no harm."""
        with SetWorkflowID(job.name):
            await DBOS.enqueue_workflow_async(job.kind.value, self._workflows[job.kind], job.of, job.attempt)

    async def again(self, job: Job) -> None:
        """Let a job be done again that has ended, and whose thing is still to be done: from the step that failed, keeping what the
        steps before it said; from the start if none failed."""
        steps = await DBOS.list_workflow_steps_async(job.name)
        failed = min((step["function_id"] for step in steps if step["error"] is not None), default=1)
        try:
            await DBOS.rewind_workflow_async(job.name, start_step=failed, queue_name=job.kind.value)
        except error.DBOSException:
            log.info("a job is under way again already, or forgotten", job=job.name)  # by another process

    async def states(self, jobs: Collection[Job]) -> dict[Job, State]:
        """How far the engine is with these; what it does not know is left out."""
        if not jobs:
            return {}
        found = await DBOS.list_workflows_async(workflow_ids=[job.name for job in jobs], load_input=False, load_output=False)
        known = {one.workflow_id: one.status for one in found}
        return {job: _state(known[job.name]) for job in jobs if job.name in known}

    async def at_work(self) -> set[str]:
        """The executors that have jobs under way."""
        pending = await DBOS.list_workflows_async(status="PENDING", load_input=False, load_output=False)
        return {one.executor_id for one in pending if one.executor_id is not None}

    async def take_over(self, lost: Iterable[str]) -> int:
        """Put what these executors had under way back into its queues, where any process finds it; how many jobs.

        By the function that DBOS itself recovers with: it moves a job only while it is still theirs, so that two who take over at
        once do no harm, and it goes on counting deaths. `resume_workflows` does neither.
        """
        return len(await asyncio.to_thread(DBOS._recover_pending_workflows, list(lost)))

    async def forget(self, ended_before: datetime) -> int:
        """Strike out jobs that ended before then; how many."""
        count = 0
        while True:
            old = await DBOS.list_workflows_async(
                status=[*ENDED, DIED_TOO_OFTEN],
                completed_before=ended_before.isoformat(),
                limit=FORGET_AT_ONCE,
                load_input=False,
                load_output=False,
            )
            if not old:
                return count
            await DBOS.delete_workflows_async([one.workflow_id for one in old])
            count += len(old)

    async def close(self, grace_s: int) -> None:
        """Take no more work, let what is under way end for so many seconds, and leave the rest to whoever goes on with it."""

        def destroy() -> None:
            DBOS.destroy(workflow_completion_timeout_sec=grace_s, destroy_registry=True)

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as aside:  # not the loop's own: that is the engine's
            await loop.run_in_executor(aside, destroy)
        loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))  # the engine took its own with it
        self._engine.dispose()


def faulty_verdict(fault: str) -> Said:
    """A reading that failed for a reason nobody foresaw, as app/wrapup/reading.py says it."""
    return {"fault": fault, "code": None, "retryable": True, "retry_after_s": None}


def failed_sending(fault: str) -> Said:
    """A sending that failed for a reason nobody foresaw, as app/wrapup/delivering.py says it."""
    return {"status": None, "fault": fault, "retry_after_s": None, "final": False}


def plain(said: Said) -> dict[str, Any]:
    """Rule 1: numbers and short codes as they are; any other word is withheld.

    Raises:
        TypeError: something else was said.
    """
    kept: dict[str, Any] = {}
    for name, value in said.items():
        if isinstance(value, str):
            kept[name] = str(value) if CODE.fullmatch(value) else "withheld"
        elif value is None or isinstance(value, bool | int | float):
            kept[name] = value
        else:
            raise TypeError(f"a step says {type(value).__name__}")
    return kept


def _state(status: str) -> State:
    if status == DIED_TOO_OFTEN:
        return State.LOST
    return State.ENDED if status in ENDED else State.UNDER_WAY


def engine_url(url: str) -> sa.URL:
    """Where the engine's tables are; rule 4."""
    address = sync_url(url)
    return address.set(database=f"{address.database}.jobs") if address.get_backend_name() == "sqlite" else address


def _engine(url: str, at_once: int) -> sa.Engine:
    address = engine_url(url)
    if address.get_backend_name() != "sqlite":
        patience = {} if "connect_timeout" in address.query else {"connect_timeout": 5}
        # Two kinds of jobs, the looks into the queues, and ours: each holds a connection for a moment only.
        return sa.create_engine(
            address, pool_size=4, max_overflow=at_once + 4, pool_pre_ping=True, hide_parameters=True, connect_args=patience
        )
    make_folder(address)
    engine = sa.create_engine(address, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        if sqlite3.sqlite_version_info < (3, 42):  # before, unixepoch('subsec') is NULL, and DBOS's tables begin with it
            connection.create_function("unixepoch", -1, _unixepoch)

    return engine


def _unixepoch(*modifiers: str) -> float | None:
    return time.time() if modifiers in ((), ("subsec",)) else None


def lock_file(url: str) -> Path | None:
    """What whoever works on this database holds a lock on; None if many may (rule 5). Its folder is made."""
    address = engine_url(url)
    if address.get_backend_name() != "sqlite":
        return None
    make_folder(address)
    return Path(f"{address.database}.lock")


@asynccontextmanager
async def alone(lock: Path | None, *, look_s: float = 0.5) -> AsyncIterator[None]:
    """Rule 5: the block is entered when nobody else is in it. The kernel lets go of the lock however its holder ends."""
    if lock is None:
        yield
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    log.info("another process does the jobs of this database; this one waits for its end")
                    told = True
                await asyncio.sleep(look_s)
        yield
    finally:
        os.close(descriptor)


class EngineLines(logging.Handler):
    """What DBOS logs, as lines of ours: where in it, and which fault, never its words, which quote what passed through.

    One place reports an error once a minute, and all of it together one warning: with its database away it would fill a disk.
    """

    SILENCE_S = 60.0

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._spoke: dict[tuple[str, int] | None, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless its kind was written just now."""
        kind, now = (record.filename, record.lineno) if record.levelno >= logging.ERROR else None, time.monotonic()
        if now - self._spoke.get(kind, -self.SILENCE_S) < self.SILENCE_S:
            return
        self._spoke[kind] = now
        fault = record.exc_info[1] if record.exc_info else None
        log.log(
            record.levelno,
            "the engine of the jobs reports",
            at=f"{record.filename}:{record.lineno}",
            fault=type(fault).__name__ if fault is not None else None,
        )


def _hush() -> None:
    """DBOS gives its logger a handler of its own unless it has one."""
    theirs = logging.getLogger("dbos")
    theirs.propagate = False
    if not any(isinstance(handler, EngineLines) for handler in theirs.handlers):
        theirs.handlers = [EngineLines()]
