"""The sweeper alone, with an engine that only remembers what it was asked for."""

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.errors import StoreUnavailable
from app.store.workers import Worker
from app.wrapup import sweeper as module
from app.wrapup.jobs import Job, Kind, State, Work
from app.wrapup.sweeper import Pace, Sweeper

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Scene:
    """Everything a sweeper asks, in one: the engine, the workers, the reading, the deliveries."""

    shared, executor = True, "me"

    def __init__(self) -> None:
        self.now = 0.0
        self.known: dict[Job, State] = {}
        self.did: list[Any] = []
        self.reads: list[tuple[str, int]] = []
        self.sends: list[tuple[str, int]] = []
        self.limits: list[int] = []
        self.working: set[str] = set()
        self.alive: dict[str, datetime] = {}
        self.away = False

    def sweeper(self, **more: Any) -> Sweeper:
        piles = [Pile(self, lambda: self.reads), Pile(self, lambda: self.sends)]
        work = Work(reading=self, delivering=self, judgements=piles[0], deliveries=piles[1], reconcile=self.reconcile)
        return Sweeper(self, work, self, worker="me", clock=lambda: NOON + timedelta(seconds=self.now), **more)

    def asked(self, *words: str) -> list[Any]:
        return [done for done in self.did if done[0] in words]

    async def reconcile(self) -> None: ...

    async def ask(self, call_id: str) -> dict[str, Any]:
        raise NotImplementedError

    send = ask

    async def settle(self, call_id: str, attempt: int, verdict: dict[str, Any]) -> None:
        self.did.append(("settle", call_id, attempt, verdict["fault"], verdict["retryable"]))

    async def record(self, delivery_id: str, attempt: int, sent: dict[str, Any]) -> None:
        self.did.append(("record", delivery_id, attempt, sent["fault"], sent["final"]))

    async def begin(self, job: Job) -> None:
        self.did.append(("begin", job.name))
        self.known[job] = State.UNDER_WAY

    async def again(self, job: Job) -> None:
        self.did.append(("again", job.name))
        self.known[job] = State.UNDER_WAY

    async def states(self, jobs: Collection[Job]) -> dict[Job, State]:
        return {job: self.known[job] for job in jobs if job in self.known}

    async def at_work(self) -> set[str]:
        return self.working

    async def take_over(self, lost: Collection[str]) -> int:
        self.did.append(("take over", *lost))
        self.working -= set(lost)
        return len(lost)

    async def forget(self, what: datetime | timedelta) -> int:
        self.did.append(("forget jobs" if isinstance(what, datetime) else "forget workers", what))
        return 0

    async def beat(self, worker: str, *, live_calls: int, address: str | None = None) -> None:
        self.alive[worker] = NOON + timedelta(seconds=self.now)

    async def list(self, *, seen_within: timedelta | None = None) -> list[Worker]:
        assert seen_within is not None
        since = NOON + timedelta(seconds=self.now) - seen_within
        return [
            Worker(id=id, address=None, started_at=NOON, heartbeat_at=at, live_calls=0)
            for id, at in self.alive.items()
            if at >= since
        ]


class Pile:
    def __init__(self, scene: Scene, due: Callable[[], list[tuple[str, int]]]) -> None:
        self._scene, self._due = scene, due

    async def due(self, limit: int) -> list[tuple[str, int]]:
        if self._scene.away:
            raise StoreUnavailable("look")
        self._scene.limits.append(limit)
        return self._due()[:limit]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene()
    monkeypatch.setattr(module, "_now", lambda: made.now)
    return made


async def test_what_is_due_is_begun_once_under_a_name_that_follows_from_it(scene: Scene):
    sweeper = scene.sweeper()
    scene.reads, scene.sends = [("c1", 1)], [("d1", 3)]
    await sweeper.sweep()
    await sweeper.sweep()
    assert scene.asked("begin") == [("begin", "read:c1:1"), ("begin", "deliver:d1:3")]


async def test_a_job_that_has_ended_with_its_work_still_due_is_begun_again_after_pauses_that_grow(scene: Scene):
    sweeper, job = scene.sweeper(pace=Pace(again_after_s=60)), Job(Kind.READ, "c1", 1)
    scene.reads, scene.known[job] = [("c1", 1)], State.ENDED
    await sweeper.sweep()
    assert scene.asked("again") == [], "it may have been settled between the two looks"
    begun_at = []
    for second in range(1, 400):
        scene.now, scene.known[job] = second, State.ENDED
        before = len(scene.did)
        await sweeper.sweep()
        begun_at += [second] * len([done for done in scene.did[before:] if done[0] == "again"])
    assert begun_at == [1, 61, 181]


async def test_a_job_settled_between_the_two_looks_is_left_alone(scene: Scene):
    sweeper, job = scene.sweeper(), Job(Kind.READ, "c1", 1)
    scene.reads, scene.known[job] = [("c1", 1)], State.ENDED
    await sweeper.sweep()
    scene.reads = []
    await sweeper.sweep()
    scene.reads = [("c1", 2)]
    await sweeper.sweep()
    assert scene.asked("again", "begin") == [("begin", "read:c1:2")]


async def test_a_job_that_kills_its_processes_is_filed_as_a_fault_of_its_attempt(scene: Scene):
    sweeper = scene.sweeper()
    scene.reads, scene.sends = [("c1", 2)], [("d1", 1)]
    scene.known = {Job(Kind.READ, "c1", 2): State.LOST, Job(Kind.DELIVER, "d1", 1): State.LOST}
    await sweeper.sweep()
    await sweeper.sweep()
    assert scene.asked("settle", "record") == [
        ("settle", "c1", 2, "ProcessLost", True),
        ("record", "d1", 1, "ProcessLost", False),
    ]
    assert scene.asked("again", "begin") == []


async def test_what_is_stuck_does_not_stand_in_the_way_of_the_rest(scene: Scene):
    sweeper = scene.sweeper(pace=Pace(limit=2))
    scene.reads = [("stuck-1", 1), ("stuck-2", 1), ("c1", 1)]
    scene.known = {Job(Kind.READ, name, 1): State.ENDED for name in ("stuck-1", "stuck-2")}
    await sweeper.sweep()
    assert scene.asked("begin") == []
    await sweeper.sweep()
    assert scene.asked("begin") == [("begin", "read:c1:1")]


async def test_a_job_that_nothing_helps_does_not_keep_the_others_waiting(scene: Scene):
    async def broken(job: Job) -> None:
        raise ValueError("private words")

    sweeper, scene.again = scene.sweeper(), broken
    scene.reads, scene.known = [("c1", 1)], {Job(Kind.READ, "c1", 1): State.ENDED}
    await sweeper.sweep()
    scene.reads.append(("c2", 1))
    with capture_logs() as logged:
        await sweeper.sweep()
    assert scene.asked("begin") == [("begin", "read:c2:1")]
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["a job is stuck"]
    assert "private words" not in str(logged)


async def test_the_jobs_of_a_process_without_a_sign_of_life_are_taken_over_and_of_no_other(scene: Scene):
    sweeper = scene.sweeper()
    scene.alive = {"me": NOON, "there": NOON}
    scene.working = {"me", "there", "gone"}
    await sweeper.sweep()
    assert scene.asked("take over") == [("take over", "gone")]


async def test_whoever_has_not_seen_the_database_for_a_while_does_not_judge_others_by_their_silence(scene: Scene):
    sweeper = scene.sweeper()
    scene.alive = {"me": NOON, "there": NOON}
    await sweeper._once()
    scene.working, scene.away = {"there"}, True
    scene.now = 40
    await sweeper._once()
    scene.away = False
    for scene.now in range(41, 70):  # "there" gives no sign of life: it has not found back yet
        await sweeper._once()
    assert scene.asked("take over") == []
    scene.now = 75
    await sweeper._once()
    assert scene.asked("take over") == [("take over", "there")]


async def test_an_outage_is_said_once_and_its_end(scene: Scene):
    sweeper = scene.sweeper()
    scene.reads, scene.away = [("c1", 1)], True
    with capture_logs() as logged:
        for _ in range(5):
            await sweeper._once()
        scene.away = False
        await sweeper._once()
    assert [line["event"] for line in logged] == [
        "the database is away; the jobs wait for it",
        "the database is back; the jobs go on",
    ]
    assert scene.asked("begin") == [("begin", "read:c1:1")]


async def test_calls_are_compared_with_the_carriers_once_in_a_period_and_never_where_the_period_is_none(scene: Scene):
    sweeper, never = scene.sweeper(reconcile_minutes=60), scene.sweeper(reconcile_minutes=0)
    for scene.now in (0, 1, 3_599, 3_600, 3_700):
        await sweeper.sweep()
        await never.sweep()
    first = int(NOON.timestamp()) // 3_600
    assert scene.asked("begin") == [("begin", f"reconcile:3600s:{first}"), ("begin", f"reconcile:3600s:{first + 1}")]


async def test_ended_jobs_and_lost_workers_are_forgotten_now_and_then(scene: Scene):
    sweeper = scene.sweeper()
    for scene.now in (0, 1, 3_000, 3_600):
        await sweeper.sweep()
    days = timedelta(days=2)
    assert scene.asked("forget jobs") == [("forget jobs", NOON - days), ("forget jobs", NOON + timedelta(hours=1) - days)]
    assert scene.asked("forget workers") == [("forget workers", days)] * 2


async def test_a_fault_nobody_foresaw_ends_one_sweep_and_not_the_loop(scene: Scene):
    async def broken() -> set[str]:
        raise ValueError("private words")

    scene.at_work, scene.reads = broken, [("c1", 1)]
    sweeper = scene.sweeper(pace=Pace(sweep_s=0.001))
    with capture_logs() as logged:
        task = asyncio.create_task(sweeper.run())
        async with asyncio.timeout(30):
            while len(scene.limits) < 6:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
    assert [line["event"] for line in logged] == ["a sweep failed; the next one is soon"]
    assert "private words" not in str(logged)
    assert "me" in scene.alive
