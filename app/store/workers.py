"""Who is at work: each worker's sign of life, so that workers find each other and a lost one is noticed."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from app.store.changes import STATE
from app.store.engine import Database
from app.store.facts import CallState, call_state, utc_now
from app.store.house_tables import workers
from app.store.tables import RowState, calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker, as it last said of itself."""

    id: str
    address: str | None
    """Where other workers reach it: a loopback or Unix address."""
    started_at: datetime
    heartbeat_at: datetime
    live_calls: int


class Workers:
    """All workers of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def beat(self, worker: str, *, live_calls: int, address: str | None = None) -> None:
        """A sign of life; the first one begins the worker's life."""
        now = self._clock()
        insert = self._database.insert(workers).values(
            id=worker, address=address, started_at=now, heartbeat_at=now, live_calls=live_calls
        )
        new = {name: insert.excluded[name] for name in ("address", "heartbeat_at", "live_calls")}
        async with self._database.write("give a sign of life") as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=new))

    async def list(self, *, seen_within: timedelta | None = None) -> list[Worker]:
        """The workers in the order in which they began; with `seen_within` only those who gave a sign of life since then."""
        query = sa.select(workers).order_by(workers.c.started_at, workers.c.id)
        if seen_within is not None:
            query = query.where(workers.c.heartbeat_at >= self._clock() - seen_within)
        async with self._database.read("list the workers") as connection:
            return [Worker(**row) for row in (await connection.execute(query)).mappings()]

    async def is_alive(self, worker: str, *, within: timedelta) -> bool:
        """Whether this worker gave a sign of life so recently."""
        query = sa.select(workers.c.id).where(workers.c.id == worker, workers.c.heartbeat_at >= self._clock() - within)
        async with self._database.read("look for a worker") as connection:
            return (await connection.execute(query)).first() is not None

    async def left_behind(
        self, alive: Collection[str], *, lease: timedelta, unclaimed: timedelta, most: int
    ) -> Sequence[CallState]:
        """Live calls that none of these workers carries, those longest unchanged first: their stream's worker is another and the
        row has not changed for a `lease`, or their stream was never claimed, for as long as `unclaimed`.
        """
        now = self._clock()
        lost = sa.and_(
            calls.c.claimed_epoch == calls.c.epoch, calls.c.worker.not_in(sorted(alive)), calls.c.updated_at < now - lease
        )
        never_came = sa.and_(calls.c.claimed_epoch < calls.c.epoch, calls.c.updated_at < now - unclaimed)
        query = sa.select(*STATE).where(calls.c.state == RowState.LIVE, sa.or_(lost, never_came))
        async with self._database.read("look for calls left behind") as connection:
            found = await connection.execute(query.order_by(calls.c.updated_at).limit(most))
            return [call_state(row) for row in found.mappings()]

    async def take_over(self, call_id: str, epoch: int, *, lost: str | None, taker: str) -> bool:
        """The calls of a lost worker are somebody else's to look after: true for one taker only."""
        update = (
            sa.update(calls)
            .where(
                calls.c.call_id == call_id,
                calls.c.epoch == epoch,
                calls.c.state == RowState.LIVE,
                calls.c.worker.is_not_distinct_from(lost),
            )
            .values(worker=taker, updated_at=self._clock())
        )
        if lost == taker:  # our own redirect did not arrive: once more, after a lease
            update = update.where(calls.c.updated_at < self._clock() - timedelta(seconds=10))
        async with self._database.write("take over a lost call") as connection:
            return (await connection.execute(update)).rowcount == 1

    async def leave(self, worker: str) -> None:
        """This worker ends, in good order."""
        async with self._database.write("leave") as connection:
            await connection.execute(sa.delete(workers).where(workers.c.id == worker))

    async def forget(self, not_seen_for: timedelta) -> int:
        """Strike out who has given no sign of life for so long; how many they were."""
        stale = sa.delete(workers).where(workers.c.heartbeat_at < self._clock() - not_seen_for)
        async with self._database.write("forget lost workers") as connection:
            return (await connection.execute(stale)).rowcount
