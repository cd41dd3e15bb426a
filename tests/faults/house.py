"""People telephone, web workers are killed at random moments, and at the end everything is counted.

The service is `callrow serve` as an operator runs it: supervisor, workers, database; the peers are those of `killing_peers`, over
real sockets, in real time. What is random follows from the seed, but for the moments at which processes of one machine come to do
something.

Rule 1: what is counted is what stands in the tables, what the caller heard and what the model was told; never what the service says
of itself.
Rule 2: a kill is in mid-call if the worker had at least one live stream at that moment, by the carrier's books; its own log says
which calls.
"""

import asyncio
import contextlib
import functools
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from websockets.asyncio.server import serve

from app.settings import Settings
from app.store.engine import Database
from tests.faults.killing_model import Model
from tests.faults.killing_peers import Caller, Carrier, until
from tests.web.house import ACCOUNT, TOKEN

MOST_IN_A_ROW = 3
"""So often in a row the service takes a call up again; struck more often within 30 s, a call may be given up (decision 8)."""
ROWS_WITHIN_S = 120.0
WITH_SPARE = 0.95
"""So many of the faults wait until a spare stands ready, as it does but for the first seconds after a death."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    url: str
    folder: Path
    seed: int = 1
    kills: int = 0
    rolls: int = 0
    freezes: int = 0
    calls: int = 8
    """At once."""
    turns: int = 4
    workers: int = 1
    every_s: float = 4.0
    """A fault strikes so long, at most, after all workers are up again."""
    env: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Count:
    """What came of it."""

    kills: int = 0
    kills_in_mid_call: int = 0
    rolls: int = 0
    freezes: int = 0
    without_spare: int = 0
    streams_struck: int = 0
    """Streams that a kill or a freeze ended."""
    calls: int = 0
    calls_struck: int = 0
    resumed: int = 0
    """Interruptions after which the agent was heard again."""
    not_resumed: int = 0
    given_up: int = 0
    """Of those: struck more than three times in a row, or the carrier got no document twice in a row."""
    handed_over: int = 0
    cut: int = 0
    """Interruptions that neither a kill nor a freeze made: aim 0."""
    rows: int = 0
    lost: int = 0
    doubled: int = 0
    not_final: int = 0
    effects: int = 0
    effects_doubled: int = 0
    effects_left_undone: int = 0
    """Asked for by the model and not done: known as failed or unknown in the ledger."""
    slots_lost: int = 0
    agents_lost: int = 0
    words_not_replayed: int = 0
    wrong_first_words: int = 0
    said_again: int = 0
    """Turns that a caller had to repeat in the same stream."""
    mixed_up: int = 0
    failed_requests: int = 0
    callbacks_lost: int = 0
    redirects: int = 0
    final_after_s: list[float] = field(default_factory=list, repr=False)
    gap_s: list[float] = field(default_factory=list, repr=False)
    """From the moment the stream broke to the first sound."""
    gap_to_agent_s: list[float] = field(default_factory=list, repr=False)
    silence_s: list[float] = field(default_factory=list, repr=False)
    """From the last sound that was heard to the first sound after."""
    up_again_s: list[float] = field(default_factory=list, repr=False)
    hand_over_gap_s: list[float] = field(default_factory=list, repr=False)
    ended: dict[str, int] = field(default_factory=dict)
    end_reasons: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    exit_code: int = 0

    @property
    def wrong(self) -> int:
        """Aim: 0."""
        return (
            self.lost + self.doubled + self.not_final + self.effects_doubled + self.slots_lost + self.agents_lost + self.cut
        ) + (self.words_not_replayed + self.wrong_first_words + self.mixed_up + self.not_resumed - self.given_up)


class House:
    """`callrow serve`, running."""

    def __init__(self, plan: Plan, settings: dict[str, str]) -> None:
        self.plan, self._settings = plan, settings
        self.log = plan.folder / "service.log"
        self.process: asyncio.subprocess.Process

    async def begin(self) -> None:
        ours = {name.upper() for name in Settings.model_fields}
        env = {name: value for name, value in os.environ.items() if name not in ours} | self._settings
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "app.cli", "serve", "--no-jobs", "--workers", str(self.plan.workers)),
                env=env,
                cwd=self.plan.folder,
                stdout=log,
                stderr=log,
            )
        await until(lambda: len(self.opened()) >= self.plan.workers or self.process.returncode is not None, 120)
        if self.process.returncode is not None:
            raise RuntimeError(self.log.read_text())

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was logged of one kind."""
        wanted = f'"event":"{event}"'.encode()
        found = [line for line in self.log.read_bytes().splitlines() if wanted in line.replace(b'": "', b'":"')]
        return [json.loads(line) for line in found]

    def opened(self) -> list[int]:
        """The process ids of all workers that ever opened."""
        return [int(line["worker"].split("-")[-2]) for line in self.lines("open")]

    def has_opened(self, count: int) -> bool:
        """So many workers have opened."""
        return len(self.opened()) >= count

    def workers(self) -> list[int]:
        """The process ids of those that are open and live."""
        return [pid for pid in self.opened() if lives(pid)]

    def has_spare(self) -> bool:
        """A spare worker stands ready."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        with contextlib.suppress(OSError):
            return any(Path(f"/proc/{pid}/comm").read_text().strip() == "callrow-spare" for pid in pids)
        return False

    async def end(self) -> int:
        """Stop it in order; its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(60):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
        return await self.process.wait()


def lives(pid: int) -> bool:
    """Whether there is such a process; one that waits to be collected has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.asynccontextmanager
async def house(plan: Plan) -> AsyncIterator[tuple[House, Carrier, Model]]:
    """The service with its peers; ended in order."""
    model = Model()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    carrier = Carrier(f"http://127.0.0.1:{port}")
    rest = await asyncio.start_server(carrier.rest, "127.0.0.1", 0)
    async with serve(model.handle, "127.0.0.1", 0, ping_interval=None, close_timeout=0.2, compression=None) as provider:
        settings = {
            "PUBLIC_URL": carrier.url,
            "PORT": str(port),
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_API_URL": f"http://127.0.0.1:{rest.sockets[0].getsockname()[1]}",
            "OPENAI_API_KEY": "sk-x",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}/v1",
            "AUDIO_PATH": "passthrough",
            "DATABASE_URL": plan.url,
            "SPOOL_DIR": str(plan.folder / "spool"),
            "LINES_DIR": str(plan.folder / "lines"),
            "CALLS_A_MINUTE_PER_CALLER": "0",
            "MAX_LOOP_LAG_MS": "10000",
            **plan.env,
        }
        running = House(plan, settings)
        await running.begin()
        try:
            yield running, carrier, model
        finally:
            await running.end()
            await carrier.close()
            rest.close()


# ---- a run


async def run(plan: Plan) -> Count:
    """Do it, and count."""
    count, dice, began = Count(), random.Random(plan.seed), time.monotonic()
    ended: dict[str, float] = {}
    async with house(plan) as (running, carrier, model):
        stopping = asyncio.Event()
        lines = [
            asyncio.create_task(_one_after_another(plan, carrier, model, stopping, place, ended)) for place in range(plan.calls)
        ]
        watching = asyncio.create_task(_final_rows(plan, carrier, ended, stopping, count))
        try:
            await _strike(plan, running, carrier, count, dice)
        finally:
            stopping.set()
        await asyncio.gather(*lines)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROWS_WITHIN_S):
                await watching
        watching.cancel()
        count.exit_code = await running.end()
    _heard(list(carrier.callers.values()), model, count)
    count.failed_requests, count.callbacks_lost = carrier.failed_requests, carrier.callbacks_lost
    count.mixed_up, count.redirects = carrier.mixed_up + model.mixed_up, len(carrier.redirects)
    await _books(plan, carrier, model, count)
    count.seconds = round(time.monotonic() - began, 1)
    return count


async def _one_after_another(
    plan: Plan, carrier: Carrier, model: Model, stopping: asyncio.Event, place: int, ended: dict[str, float]
) -> None:
    """One telephone, from which one call after another is made."""
    dice = random.Random(plan.seed * 1_000 + place)
    await asyncio.sleep(dice.uniform(0, 2))
    number = 0
    while not stopping.is_set():
        number += 1
        call = place * 2_000 + number
        caller = Caller(carrier, call, plan.turns, lambda: dice.uniform(0.1, 0.6))
        model.expect(call, caller.number)
        carrier.callers[caller.sid] = caller
        await caller.run()
        ended[caller.sid] = time.monotonic()
        await asyncio.sleep(dice.uniform(0.1, 1.0))


async def _strike(plan: Plan, running: House, carrier: Carrier, count: Count, dice: random.Random) -> None:
    deeds = ["kill"] * plan.kills + ["roll"] * plan.rolls + ["freeze"] * plan.freezes
    dice.shuffle(deeds)
    await asyncio.sleep(dice.uniform(2, 4))
    for deed in deeds:
        before = len(running.opened())
        if deed == "roll":
            running.process.send_signal(signal.SIGHUP)
            count.rolls += 1
            await until(functools.partial(running.has_opened, before + plan.workers), 300)
            await asyncio.sleep(dice.uniform(0.5, plan.every_s))
            continue
        if dice.random() < WITH_SPARE:
            await until(running.has_spare, 120)
        else:
            count.without_spare += 1
        # The last to have opened live; those before them may be running out.
        victim = dice.choice(running.workers()[-plan.workers :])
        streaming = sum(caller.is_streaming for caller in carrier.callers.values())
        struck = time.monotonic()
        os.kill(victim, signal.SIGKILL if deed == "kill" else signal.SIGSTOP)
        if deed == "kill":
            count.kills += 1
            count.kills_in_mid_call += streaming > 0
        else:
            count.freezes += 1
        await until(functools.partial(running.has_opened, before + 1), 300)
        count.up_again_s.append(round(time.monotonic() - struck, 2))
        await asyncio.sleep(dice.uniform(0.2, plan.every_s))


async def _final_rows(plan: Plan, carrier: Carrier, ended: dict[str, float], stopping: asyncio.Event, count: Count) -> None:
    """How long after its end a call's row is final. Ends when there is nothing left to wait for and no call any more."""
    database, seen = Database(plan.url), set[str]()
    query = sa.text("SELECT carrier_call_sid FROM calls WHERE state = 'final' AND carrier_call_sid IN :sids")
    query = query.bindparams(sa.bindparam("sids", expanding=True))
    try:
        while True:
            await asyncio.sleep(0.5)
            waiting = [sid for sid in ended if sid not in seen]
            if waiting:
                async with database.read() as connection:
                    found = await connection.execute(query, {"sids": waiting})
                    for sid in found.scalars():
                        seen.add(sid)
                        count.final_after_s.append(round(time.monotonic() - ended[sid], 2))
            if stopping.is_set() and len(seen) == len(carrier.callers):
                return
    finally:
        await database.close()


def _heard(callers: Sequence[Caller], model: Model, count: Count) -> None:
    """What the callers heard, and what the model was told."""
    for caller in callers:
        count.ended[caller.ended] = count.ended.get(caller.ended, 0) + 1
        count.said_again += caller.said_again
        count.calls_struck += any(not gap.is_planned for gap in caller.gaps)
        for gap in caller.gaps:
            if gap.is_planned:
                count.handed_over += 1
                if gap.agent_at is not None and gap.was_speaking:
                    count.hand_over_gap_s.append(gap.agent_at - gap.broke_at)
                continue
            count.streams_struck += 1
            count.cut += not (count.kills or count.freezes)
            if gap.agent_at is None:
                count.not_resumed += 1
                if len(caller.gaps) > MOST_IN_A_ROW or caller.ended == "dropped":
                    count.given_up += 1
                else:
                    count.faults.append(f"call {caller.call} was not resumed: {caller.ended}, {caller.said}, {gap}")
                continue
            count.resumed += 1
            if gap.sound_at is not None:
                count.gap_s.append(gap.sound_at - gap.broke_at)
                count.silence_s.append(gap.sound_at - gap.last_sound_at)
            count.gap_to_agent_s.append(gap.agent_at - gap.broke_at)
            # Heard to the end is stored, and repeated; a word that was being heard may be.
            least = max(gap.heard, default=0)
            if gap.repeated is None or not least <= gap.repeated <= gap.started:
                count.wrong_first_words += 1
                count.faults.append(f"call {caller.call}: first words {gap.repeated}, heard {gap.heard}, begun {gap.started}")
        resumed = [session for session in model.sessions[caller.call][1:] if session.told.first]
        for gap, session in zip([gap for gap in caller.gaps if gap.agent_at is not None], resumed, strict=False):
            missing = set(gap.heard) - set(session.told.words)
            count.words_not_replayed += len(missing)
            if missing:
                count.faults.append(f"call {caller.call}: words {sorted(missing)} were not told again, of {gap.heard}")


async def _books(plan: Plan, carrier: Carrier, model: Model, count: Count) -> None:
    """What stands in the tables."""
    database = Database(plan.url)
    count.calls = len(carrier.callers)

    async def all_of(query: str) -> list[Any]:
        async with database.read() as connection:
            return [dict(row) for row in (await connection.execute(sa.text(query))).mappings()]

    rows = await all_of(
        "SELECT carrier_call_sid AS sid, state, end_reason, agent, slots, epoch, outcome, call_id, worker FROM calls"
    )
    by_sid: dict[str, list[Any]] = {}
    for row in rows:
        by_sid.setdefault(row["sid"], []).append(row)
    count.rows = len(rows)
    for sid, caller in carrier.callers.items():
        found = by_sid.get(sid, [])
        if not found:
            if caller.streams or caller.status == "completed":  # else the carrier could not be given a single document
                count.lost += 1
                count.faults.append(f"call {caller.call} has no row: {caller.ended}")
            continue
        count.doubled += len(found) - 1
        row = found[0]
        if row["state"] != "final":
            count.not_final += 1
            count.faults.append(f"call {caller.call} is not final: {caller.ended}, epoch {row['epoch']}")
            continue
        count.end_reasons[row["end_reason"]] = count.end_reasons.get(row["end_reason"], 0) + 1
        slots = row["slots"] if isinstance(row["slots"], dict) else json.loads(row["slots"] or "{}")
        if max(caller.heard, default=0) >= 1 and slots.get("name", {}).get("value") != f"Caller {caller.call}":
            count.slots_lost += 1
            count.faults.append(f"call {caller.call} has lost its slot: {slots}")
        if caller.call % 2 and max(caller.heard, default=0) >= 2 and row["agent"] != "sales":
            count.agents_lost += 1
            count.faults.append(f"call {caller.call} has lost its agent: {row['agent']}")
    messages = await all_of("SELECT text, count(*) AS times FROM business_messages GROUP BY text")
    count.effects = len(messages)
    count.effects_doubled = sum(row["times"] > 1 for row in messages)
    count.effects_left_undone = len(set(model.asked_for) - {row["text"] for row in messages})
    count.faults += [f"done {row['times']} times: {row['text']}" for row in messages if row["times"] > 1]
    if database.embedded:
        assert (await all_of("PRAGMA integrity_check"))[0]["integrity_check"] == "ok"
    await database.close()
