"""The sweeper: sees what is due, and lets it be done. It decides nothing about a call and keeps nothing that matters.

What is due stands in our own tables, written in the transaction that made it due. So whatever is lost here, a sweep later it is
there again; and because a job's name follows from what it is for, it is never done twice over.

Rule 1: a job that has ended and whose work is still due at the same attempt is begun again, from the step that failed, after a
pause that grows. (Its work may have been settled between our two looks, so it must still be due at the next sweep.)
Rule 2: a job under which its process died too often is filed as a fault of its attempt, which is tried again later.
Rule 3: a process that gives no sign of life is lost, and what it had under way is taken over. Whoever has not seen the database for
a while does not judge others by their silence.
Rule 4: an outage of the database is said once and waited for.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from app import logs
from app.errors import StoreUnavailable
from app.store.facts import utc_now
from app.store.workers import Worker
from app.wrapup.jobs import Job, Kind, State, Work, failed_sending, faulty_verdict

log = logs.logger("jobs")

LONGEST_PAUSE_S = 3_600.0
LOST = "ProcessLost"
"""The fault of rule 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often, in seconds."""

    sweep_s: float = 1.0
    beat_s: float = 5.0
    lost_after_s: float = 30.0
    """Without a sign of life for so long, a process is lost. Several times `beat_s`."""
    again_after_s: float = 60.0
    """The first pause of rule 1."""
    forget_every_s: float = 3_600.0
    keep: timedelta = timedelta(days=2)
    """So long the engine keeps what has ended, and the list of workers who is gone. Longer than the longest period of
    reconciliation, whose jobs are known by it."""
    limit: int = 200
    """Of each kind, looked at in one sweep."""


class Engine(Protocol):
    """What the sweeper asks of `app.wrapup.jobs.Jobs`."""

    shared: bool
    executor: str

    async def begin(self, job: Job) -> None: ...
    async def again(self, job: Job) -> None: ...
    async def states(self, jobs: Collection[Job]) -> dict[Job, State]: ...
    async def at_work(self) -> set[str]: ...
    async def take_over(self, lost: Collection[str]) -> int: ...
    async def forget(self, ended_before: datetime) -> int: ...


class Register(Protocol):
    """What the sweeper asks of `app.store.workers.Workers`."""

    async def beat(self, worker: str, *, live_calls: int, address: str | None = None) -> None: ...
    async def forget(self, not_seen_for: timedelta) -> int: ...
    async def list(self, *, seen_within: timedelta | None = None) -> list[Worker]: ...


@dataclass(slots=True)
class Stuck:
    """A job that has ended, its work still due."""

    at: float
    """When it may be begun again."""
    pause: float
    times: int = field(default=0)


class Sweeper:
    """The loop of one process.

    Args:
        engine: lets jobs be done.
        work: knows what is due.
        workers: where processes give a sign of life.
        worker: this process's id there; where work is shared it is the executor's id.
        reconcile_minutes: the period of reconciliation, the same for all processes; 0 for never.
    """

    def __init__(
        self,
        engine: Engine,
        work: Work,
        workers: Register,
        *,
        worker: str,
        reconcile_minutes: int = 0,
        pace: Pace | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine, self._work, self._workers, self._worker = engine, work, workers, worker
        self._period_s = reconcile_minutes * 60 if work.reconcile is not None else 0
        self._pace = pace or Pace()
        self._clock = clock
        self._stuck: dict[Job, Stuck] = {}
        self._period: int | None = None
        self._swept_at: float | None = None
        self._steady_since: float | None = None
        """Since when sweeps have succeeded without a gap; None for: from the start."""
        self._away = False
        self._complained: tuple[str, float] | None = None
        self._forgotten_at: float | None = None
        self._took_over_at: float | None = None

    async def run(self) -> None:
        """Sweep until cancelled."""
        async with asyncio.TaskGroup() as house:
            house.create_task(self._beat())
            while True:
                await self._once()
                await asyncio.sleep(self._pace.sweep_s)

    async def _once(self) -> None:
        now = _now()
        try:
            await self.sweep()
        except StoreUnavailable:
            self._outage()
            return
        except Exception as fault:
            kind = type(fault).__name__
            if self._complained is None or self._complained[0] != kind or now - self._complained[1] > self._pace.again_after_s:
                log.error("a sweep failed; the next one is soon", fault=kind, at=logs.where(fault))
                self._complained = (kind, now)
            return
        if self._away:
            log.info("the database is back; the jobs go on")
            self._away = False
        self._complained, self._swept_at = None, _now()

    def _outage(self) -> None:
        """Rule 4."""
        if not self._away:
            log.warning("the database is away; the jobs wait for it")
        self._away = True

    async def _beat(self) -> None:
        while True:
            try:
                await self._workers.beat(self._worker, live_calls=0)
            except StoreUnavailable:  # the sweep may not know it yet: the engine waits for its database in silence
                self._outage()
            except Exception as fault:
                log.warning("no sign of life", fault=type(fault).__name__)
            await asyncio.sleep(self._pace.beat_s)

    async def sweep(self) -> None:
        """Let everything be done that is due. Raises `StoreUnavailable`."""
        limit = self._pace.limit + len(self._stuck)  # what is stuck must not stand in the way of the rest
        due = [Job(Kind.READ, *one) for one in await self._work.judgements.due(limit)]
        due += [Job(Kind.DELIVER, *one) for one in await self._work.deliveries.due(limit)]
        self._stuck = {job: self._stuck[job] for job in due if job in self._stuck}
        states = await self._engine.states(due)
        for job in due:
            match states.get(job):
                case None:
                    await self._engine.begin(job)
                case State.ENDED | State.LOST as state:
                    await self._unstick(job, state)
                case State.UNDER_WAY:
                    pass
        await self._reconcile()
        await self._take_over()
        await self._forget()

    async def _unstick(self, job: Job, state: State) -> None:
        """Rules 1 and 2."""
        now = _now()
        stuck = self._stuck.get(job)
        if stuck is None:
            self._stuck[job] = Stuck(now, self._pace.again_after_s)
            return
        if now < stuck.at:
            return
        stuck.at, stuck.pause, stuck.times = now + stuck.pause, min(2 * stuck.pause, LONGEST_PAUSE_S), stuck.times + 1
        try:
            if state is State.LOST:
                log.error("a job's process died under it too often; it counts as an attempt", job=job.name)
                await self._file_lost(job)
            else:
                log.warning("a job has ended and its work is still due; it is begun again", job=job.name, times=stuck.times)
                await self._engine.again(job)
        except StoreUnavailable:
            raise
        except Exception as fault:  # one job that nothing helps must not keep the others waiting
            log.error("a job is stuck", job=job.name, fault=type(fault).__name__, at=logs.where(fault))

    async def _file_lost(self, job: Job) -> None:
        if job.kind is Kind.READ:
            await self._work.reading.settle(job.of, job.attempt, dict(faulty_verdict(LOST)))
        else:
            await self._work.delivering.record(job.of, job.attempt, dict(failed_sending(LOST)))

    async def _reconcile(self) -> None:
        if not self._period_s:
            return
        period = int(self._clock().timestamp() // self._period_s)
        if period != self._period:
            await self._engine.begin(Job(Kind.RECONCILE, f"{self._period_s}s", period))
            self._period = period

    async def _take_over(self) -> None:
        """Rule 3."""
        if not self._engine.shared:
            return
        now, patience = _now(), self._pace.lost_after_s
        if self._swept_at is not None and now - self._swept_at > patience / 2:
            self._steady_since = now
        if self._steady_since is not None and now - self._steady_since < patience:
            return
        if self._took_over_at is not None and now - self._took_over_at < min(self._pace.beat_s, patience / 2):
            return
        self._took_over_at = now
        working = await self._engine.at_work() - {self._engine.executor}
        if not working:
            return
        alive = {worker.id for worker in await self._workers.list(seen_within=timedelta(seconds=patience))}
        if lost := working - alive:
            count = await self._engine.take_over(sorted(lost))
            log.warning("processes are lost; what they had under way is taken over", processes=len(lost), jobs=count)

    async def _forget(self) -> None:
        now = _now()
        if self._forgotten_at is not None and now - self._forgotten_at < self._pace.forget_every_s:
            return
        self._forgotten_at = now
        await self._workers.forget(self._pace.keep)
        count = await self._engine.forget(self._clock() - self._pace.keep)
        if count:
            log.info("ended jobs are forgotten", count=count)


def _now() -> float:
    return asyncio.get_running_loop().time()
