"""The long form: N people telephone, the database goes away for a while, and afterwards every word is looked for.

    python -m tests.faults.outage --calls 30 --away 30 --seed 1 [--postgres] [--workers 3] [--kill]

Half of the calls begin before the outage, half in it; they end before it is over, or after. With `--kill` the service is a process
of its own and is killed (SIGKILL) in the midst of the outage; its supervisor starts it again, and the calls go on with it. Prints
one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
from websockets.exceptions import ConnectionClosed

from app.store import migrate
from app.store.calls import Calls
from app.store.engine import Database
from tests import postgres
from tests.faults.in_process import Outage, Phone, Service, service


@dataclass
class Told:
    """What was said on one call, by the model's own books."""

    phone: Phone
    caller: list[str] = field(default_factory=list)
    turned_away: bool = False
    at: dict[str, float] = field(default_factory=dict)
    resumed: int = 0
    gaps: list[float] = field(default_factory=list)


async def one_call(house: Service, number: int, dice: random.Random, begin: float, end: float, clock: Callable[[], float]) -> Told:
    await asyncio.sleep(begin)
    phone = Phone(house, f"CA{number:032d}", f"+1555{number:07d}")
    told = Told(phone)
    while phone.socket is None and not phone.said:
        try:
            await phone.rings()
        except httpx2.TransportError:
            await asyncio.sleep(0.2)
    if phone.socket is None:
        told.turned_away = True
        return told
    said = 0
    while clock() < end:
        if phone.lost:  # the stream broke: the carrier asks what follows
            began = time.monotonic()
            await phone.goes_on()
            told.resumed += 1
            told.gaps.append(time.monotonic() - began)
        session = await house.model.of(phone)
        if session is None:
            continue
        answers = max(1, session.answered)
        await phone.heard_out(session, answers)
        await asyncio.sleep(dice.uniform(0.2, 1.0))
        if phone.lost:
            continue
        said += 1
        word = f"call {number} word {said}"
        with contextlib.suppress(ConnectionClosed):
            await session.caller_says(word)
            await phone.heard_out(session, answers + 1)
        if not phone.lost:  # what was answered was heard; of what was said into a dying session nobody knows
            told.caller.append(word)
            told.at[word] = time.monotonic()
    await phone.hangs_up()
    return told


async def lag(into: list[float]) -> None:
    while True:
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        into.append((time.monotonic() - due) * 1_000)


def rank(values: list[float], of: float) -> float:
    return round(sorted(values)[max(0, math.ceil(of * len(values)) - 1)], 1) if values else 0.0


async def run(url: str, folder: Path, administration: str | None, plan: argparse.Namespace) -> dict[str, Any]:
    dice = random.Random(plan.seed)
    outage = Outage(url, administration)
    begin = time.monotonic()
    before, away = 6.0, plan.away

    def clock() -> float:
        return time.monotonic() - begin

    late: list[float] = []
    process = plan.kill or plan.workers > 1
    async with service(url, folder, seed=plan.seed, process=process, MAX_CALLS="500", WORKERS=str(plan.workers)) as house:
        begin, killed_at = time.monotonic(), None
        calls = []
        for number in range(plan.calls):
            starts = dice.uniform(0, before - 1) if number % 2 else dice.uniform(before + 1, before + away - 5)
            ends = dice.uniform(starts + 4, before + away + 8)
            calls.append(asyncio.create_task(one_call(house, number, random.Random(plan.seed + number), starts, ends, clock)))
        await asyncio.sleep(before)
        await outage.away()
        measuring = asyncio.create_task(lag(late))
        if plan.kill:
            await asyncio.sleep(away / 2)
            house.kill()
            killed_at = time.monotonic()
            await asyncio.sleep(away / 2)
        else:
            await asyncio.sleep(away)
        measuring.cancel()
        outage.back()
        told = await asyncio.gather(*calls)
        result = await books(url, told, killed_at)
    result |= {"workers": plan.workers, "calls": plan.calls, "away_s": away, "seed": plan.seed, "killed": plan.kill}
    result["loop_lag_ms_during_outage"] = {"p50": rank(late, 0.5), "p99": rank(late, 0.99), "max": rank(late, 1.0)}
    result["spool_files_left"] = [path.name for path in (folder / "spool").glob("*")]
    return result


async def books(url: str, told: list[Told], killed_at: float | None) -> dict[str, Any]:
    """The rows, against what was said. Of a word that was lost to a kill: how many ms before it."""
    database = Database(url)
    calls = Calls(database)
    found: dict[str, Any] = {"rows": 0, "final": 0, "words_said": 0, "words_lost": 0, "lines": 0, "gaps_in_journals": 0}
    lost = []
    until = time.monotonic() + 60
    for one in told:
        row = await calls.row(one.phone.sid)
        while (row is None or row["state"] != "final") and time.monotonic() < until:
            await asyncio.sleep(0.1)
            row = await calls.row(one.phone.sid)
        found["words_said"] += len(one.caller)
        if row is None:
            lost += [(word, None) for word in one.caller]
            continue
        found["rows"] += 1
        found["final"] += row["state"] == "final"
        if row["state"] != "final":
            found.setdefault("live", []).append(
                {name: row[name] for name in ("call_id", "epoch", "claimed_epoch", "next_step", "carrier_status")}
            )
        heard = {said["heard"] for said in row["utterances"]}
        lost += [
            (word, round((killed_at - one.at[word]) * 1_000) if killed_at else None) for word in one.caller if word not in heard
        ]
        events = await calls.events(row["call_id"])
        found["lines"] += len(events)
        for epoch in {line["epoch"] for line in events}:
            numbers = [line["seq"] for line in events if line["epoch"] == epoch]
            found["gaps_in_journals"] += numbers != list(range(1, len(numbers) + 1))
    found["words_lost"], found["lost"] = len(lost), lost[:10]
    found["turned_away"] = sum(one.turned_away for one in told)
    found["streams_resumed"] = sum(one.resumed for one in told)
    found["resume_s"] = {"p50": rank(gaps := [gap for one in told for gap in one.gaps], 0.5), "max": rank(gaps, 1.0)}
    found["all_rows"] = len(await calls.latest(10_000))
    await database.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--away", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--workers", type=int, default=1, help="more than one with --postgres only")
    parser.add_argument("--log", action="store_true", help="print the killed service's log")
    plan = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="outage"))
    stop, administration = (lambda: None), None
    try:
        if plan.postgres:
            server, stop = postgres.start()
            administration = server
            head, tail = server.split("?", 1)
            url = f"{head.rsplit('/', 1)[0]}/callrow?{tail}"
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute("CREATE DATABASE callrow")
        else:
            url = f"sqlite:///{folder}/callrow.db"
        migrate.upgrade(url)
        os.environ.setdefault("LOG_LEVEL", "warning")
        print(json.dumps(asyncio.run(run(url, folder, administration, plan))))
    finally:
        if plan.log and (folder / "service.log").exists():
            print((folder / "service.log").read_text(), file=sys.stderr)
        stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
