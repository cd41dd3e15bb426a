"""`scripts/jobs-killed`: calls end all the time, the process that reads and delivers them is killed again and again, and at the end
everything is counted: in our tables, and at the receiver.

The process is `callrow jobs` as an operator runs it. The receiver verifies every signature, keeps the keys it has seen as a CRM
should, and misbehaves: it is slow, says 500 after it has taken a message in, or goes away without an answer.

Rule 1: what is random follows from the seed, but for the moments at which processes of one machine come to do something.
Rule 2: what is counted is what stands in the tables and what came over the wire, never what the process says of itself.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import sqlalchemy as sa

from app.settings import Settings
from app.store import migrate
from app.store.engine import Database
from app.store.facts import utc_now
from app.wrapup.jobs import engine_url
from tests import postgres
from tests.wrapup.ended import MESSAGE, TALK, ended
from tests.wrapup.receivers import Receiver, Request, is_reset, receiving, says

SECRET = "whsec_" + "a2lsbGVkLWluLXRoZS1taWRzdC1vZi1hLXNlbnRlbmNl"
LIVES_S = 2.5
"""So long at most a process lives when it is at work."""
DIES_YOUNG = 0.2
"""So many die before that, while they start."""
REFUSES, GOES_AWAY, SLOW_S = 0.1, 0.1, 1.0
"""The receiver, at the first sight of a message: one in ten, one in ten, and at most so slow."""
PATIENCE_S = 300.0
"""So long nothing happens before it is held that nothing will."""
ANGRY = (
    "ivy: Linden Gardens, hello! How can I help you?",
    "caller: This is the third time nobody came. I will speak to my lawyer about it.",
    "ivy: I am sorry to hear that. Somebody will call you back.",
    "caller: My name is Peter Grant. Good bye.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    url: str
    folder: Path
    kills: int
    seed: int
    processes: int = 1
    calls_a_second: float = 4.0


@dataclass(slots=True, kw_only=True)
class Count:
    """What came of it."""

    kills: int = 0
    cut_off: int = 0
    """Jobs that were under way in a process when it was killed."""
    calls: int = 0
    analysed: int = 0
    never_analysed: int = 0
    never_delivered: int = 0
    """Calls of which the receiver does not know that they are finished."""
    readings_doubled: int = 0
    settled_twice: int = 0
    """Calls whose row was changed more than once by their reading, or judged twice in a field."""
    finished_doubled: int = 0
    """Calls with more than one delivery `call.finished`."""
    effects_doubled: int = 0
    """Calls, or calls and alerts, that the receiver knows twice after it has looked at the keys."""
    unlike: int = 0
    """Messages whose bytes were not the same at every attempt."""
    unsigned: int = 0
    messages: int = 0
    on_the_wire: int = 0
    sent_again_by_refusal: int = 0
    """Because the receiver had said 500, or nothing."""
    sent_again_by_kill: int = 0
    """All others: sent, and killed before it was written down."""
    left_in_the_engine: dict[str, int] = field(default_factory=dict)
    """Jobs that have not ended well, by their state."""
    seconds: float = 0.0
    exit_codes: list[int] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Aim: 0."""
        return self.never_analysed + self.never_delivered

    @property
    def doubled(self) -> int:
        """Aim: 0."""
        return (
            self.readings_doubled + self.settled_twice + self.finished_doubled + self.effects_doubled + self.unlike + self.unsigned
        )


class Crm:
    """A receiver that misbehaves by the dice, at the first sight of a message only."""

    def __init__(self, receiver: Receiver, dice: random.Random) -> None:
        self.receiver, self._dice = receiver, dice
        self.refused: Counter[str] = Counter()
        self._known: set[str] = set()
        receiver.will(self.answer)

    async def answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, roll = request.headers["idempotency-key"], self._dice.random()
        first = key not in self._known
        self._known.add(key)
        await asyncio.sleep(self._dice.uniform(0, SLOW_S))
        if first and roll < REFUSES + GOES_AWAY:
            self.refused[key] += 1
            await (says(500) if roll < REFUSES else is_reset())(request, reader, writer)
        else:
            await says(204)(request, reader, writer)


class Shift:
    """One place in which a process works, and is killed, and another is put."""

    def __init__(self, plan: Plan, env: dict[str, str], number: int) -> None:
        self._env, self._log = env, plan.folder / f"jobs-{number}.log"
        self._begun = 0
        self.process: asyncio.subprocess.Process | None = None

    async def begin(self) -> None:
        self._begun = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "app.cli", "jobs"), cwd=self._log.parent, env=self._env, stdout=log, stderr=log
            )

    async def at_work(self) -> None:
        """Wait until it is."""
        async with asyncio.timeout(PATIENCE_S):
            while b"the jobs are open" not in self._log.read_bytes()[self._begun :]:
                if self.process is not None and self.process.returncode is not None:  # by itself
                    raise RuntimeError(f"callrow jobs ended with {self.process.returncode}")
                await asyncio.sleep(0.05)

    async def end(self, *, kill: bool) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            (self.process.kill if kill else self.process.terminate)()
        return await self.process.wait()


async def run(plan: Plan) -> Count:
    """Do it, and count."""
    count, dice, began = Count(), random.Random(plan.seed), time.monotonic()
    database = Database(plan.url)
    async with receiving(SECRET) as crm_side, receiving() as chat_side:
        crm, chat = Crm(crm_side, dice), Crm(chat_side, dice)
        env = _environment(plan, crm_side.url, chat_side.url)
        shifts = [Shift(plan, env, number) for number in range(plan.processes)]
        for shift in shifts:
            await shift.begin()
        calling = asyncio.create_task(_calls(plan, database, count, dice))
        try:
            for _ in range(plan.kills):
                shift, young = dice.choice(shifts), dice.random() < DIES_YOUNG
                if not young:
                    await shift.at_work()
                await asyncio.sleep(dice.uniform(0, LIVES_S) / plan.processes)
                pid = shift.process.pid if shift.process is not None else 0
                await shift.end(kill=True)
                count.kills += 1
                count.cut_off += _under_way(plan.url, pid)
                await shift.begin()
                if calling.done():
                    calling.result()
            calling.cancel()
            await asyncio.wait({calling})
            await _all_done(database)
        finally:
            calling.cancel()
            count.exit_codes = [await shift.end(kill=False) for shift in shifts]
    await _look(database, plan, count)
    _compare(crm, chat, count)
    await database.close()
    count.seconds = round(time.monotonic() - began, 1)
    return count


def _environment(plan: Plan, crm: str, chat: str) -> dict[str, str]:
    ours = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours} | {
        "DATABASE_URL": plan.url,
        "ANALYZER": "rules",
        "WEBHOOK_URL": crm,
        "WEBHOOK_SECRET": SECRET,
        "CHAT_WEBHOOK_URL": chat,
        "ALERTS": "escalation",
        "RECONCILE_MINUTES": "0",
        "LOG_LEVEL": "info",
    }


async def _calls(plan: Plan, database: Database, count: Count, dice: random.Random) -> None:
    """Calls end, at random moments."""
    while True:
        angry = dice.random() < 0.3
        lines, tools = (ANGRY, (MESSAGE,)) if angry else (TALK, ())
        # What has begun is ended and counted, also when the shop is shut meanwhile.
        writing = asyncio.ensure_future(ended(database, utc_now, *lines, sid=f"CA{plan.seed:08x}{count.calls:024x}", tools=tools))  # type: ignore[arg-type]
        count.calls += 1
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            raise
        await asyncio.sleep(dice.expovariate(plan.calls_a_second))


async def _all_done(database: Database) -> None:
    """Wait until nothing is due any more, as long as it becomes less."""
    least, since = sys.maxsize, time.monotonic()
    while time.monotonic() - since < PATIENCE_S:
        async with database.read() as connection:
            waiting = await connection.execute(sa.text("SELECT count(*) FROM calls WHERE analysis = 'waiting'"))
            pending = await connection.execute(sa.text("SELECT count(*) FROM deliveries WHERE state = 'pending'"))
        left = waiting.scalar_one() + pending.scalar_one()
        if left == 0:
            return
        if left < least:
            least, since = left, time.monotonic()
        await asyncio.sleep(0.5)


def _under_way(url: str, pid: int) -> int:
    """Jobs that the engine believes to be under way in a process that is no more."""
    address = engine_url(url)
    engine = sa.create_engine(address)
    try:
        with engine.connect() as connection:
            if address.get_backend_name() == "sqlite":
                query = sa.text("SELECT count(*) FROM workflow_status WHERE status = 'PENDING'")
                return int(connection.execute(query).scalar_one())
            query = sa.text("SELECT count(*) FROM dbos.workflow_status WHERE status = 'PENDING' AND executor_id LIKE :who")
            return int(connection.execute(query, {"who": f"jobs-%-{pid}-%"}).scalar_one())
    except sa.exc.DBAPIError:  # killed before it had made its tables
        return 0
    finally:
        engine.dispose()


async def _look(database: Database, plan: Plan, count: Count) -> None:
    """What stands in our tables."""

    async def number(query: str) -> int:
        async with database.read() as connection:
            return int((await connection.execute(sa.text(query))).scalar_one())

    assert await number("SELECT count(*) FROM calls WHERE state = 'final'") == count.calls
    count.analysed = await number("SELECT count(*) FROM calls WHERE analysis = 'done' AND analyzed_at IS NOT NULL")
    count.never_analysed = count.calls - count.analysed
    twice = "SELECT count(*) FROM (SELECT 1 FROM {} GROUP BY {} HAVING count(*) > 1) AS twice"
    count.readings_doubled = await number(twice.format("readings", "call_id, batch"))
    count.settled_twice = await number("SELECT count(*) FROM calls WHERE revision <> 2 AND analysis = 'done'")
    count.settled_twice += await number(twice.format("judgements", "call_id, field, source"))
    count.finished_doubled = await number(twice.format("deliveries WHERE event = 'call.finished'", "call_id"))
    async with database.read() as connection:
        if database.embedded:
            assert (await connection.execute(sa.text("PRAGMA integrity_check"))).scalar() == "ok"
    engine = sa.create_engine(engine_url(plan.url))
    schema = "" if database.embedded else "dbos."
    with engine.connect() as connection:
        query = f"SELECT status, count(*) FROM {schema}workflow_status WHERE status <> 'SUCCESS' GROUP BY status"
        count.left_in_the_engine = {status: number for status, number in connection.execute(sa.text(query))}
        if database.embedded:
            assert connection.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"
    engine.dispose()


def _compare(crm: Crm, chat: Crm, count: Count) -> None:
    """What the receivers know."""
    told = Counter(str(message["data"]["call_id"]) for message in crm.receiver.taken.values())
    count.never_delivered = count.calls - len(told)
    count.effects_doubled = sum(times > 1 for times in told.values())
    count.effects_doubled += sum(
        times > 1 for times in Counter(message["text"] for message in chat.receiver.taken.values()).values()
    )
    count.unsigned = crm.receiver.refused
    for side in (crm, chat):
        requests = Counter(request.headers["idempotency-key"] for request in side.receiver.requests)
        bodies = {(request.headers["idempotency-key"], request.body) for request in side.receiver.requests}
        count.unlike += len(bodies) - len(requests)
        count.messages += len(requests)
        count.on_the_wire += requests.total()
        again = Counter({key: times - 1 for key, times in requests.items()})
        count.sent_again_by_refusal += sum(min(times, side.refused[key]) for key, times in again.items())
        count.sent_again_by_kill += sum(max(0, times - side.refused[key]) for key, times in again.items())


@contextlib.contextmanager
def place(kind: str) -> Iterator[str]:
    """A migrated database of that kind, gone afterwards."""
    with contextlib.ExitStack() as stack:
        if kind == "postgres":
            url, stop = postgres.start()
            stack.callback(stop)
        else:
            url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='jobs-killed-'))}/callrow.db"
        migrate.upgrade(url)
        yield url


def lines(kind: str, count: Count) -> Sequence[str]:
    """The count, for people."""
    lost = {"not analysed": count.never_analysed, "not delivered": count.never_delivered}
    doubled = {
        "readings": count.readings_doubled,
        "rows settled": count.settled_twice,
        "call.finished": count.finished_doubled,
        "effects": count.effects_doubled,
        "bytes that differ": count.unlike,
        "signatures": count.unsigned,
    }
    return (
        f"database                {kind}",
        f"kills                   {count.kills:,}, with {count.cut_off:,} jobs under way",
        f"calls                   {count.calls:,}",
        f"rows analysed           {count.analysed:,}",
        f"lost                    {count.lost:,} ({', '.join(f'{name} {number:,}' for name, number in lost.items())})",
        f"doubled                 {count.doubled:,} ({', '.join(f'{name} {number:,}' for name, number in doubled.items())})",
        f"messages                {count.messages:,}, on the wire {count.on_the_wire:,}",
        f"  again, refused        {count.sent_again_by_refusal:,}",
        f"  again, killed         {count.sent_again_by_kill:,}",
        f"jobs left in the engine {count.left_in_the_engine or 'none'}",
        f"seconds                 {count.seconds:,}",
    )


def main() -> int:
    """Exit code 0: nothing lost, nothing doubled."""
    parser = argparse.ArgumentParser(prog="scripts/jobs-killed", description="Kill the jobs process again and again, and count.")
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--calls-a-second", type=float, default=4.0, metavar="R")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    with place(given.database) as url, tempfile.TemporaryDirectory(prefix="jobs-killed-") as folder:
        plan = Plan(
            url=url,
            folder=Path(folder),
            kills=given.kills,
            seed=given.seed,
            processes=2 if given.database == "postgres" else 1,
            calls_a_second=given.calls_a_second,
        )
        count = asyncio.run(run(plan))
        if count.lost or count.doubled:
            sys.stderr.writelines(path.read_text()[-4_000:] for path in sorted(plan.folder.glob("*.log")))
    print(
        json.dumps(asdict(count) | {"lost": count.lost, "doubled": count.doubled})
        if given.json
        else "\n".join(lines(given.database, count))
    )
    return 1 if count.lost or count.doubled else 0


if __name__ == "__main__":
    raise SystemExit(main())
