"""The long form of the fuzz runs, against a service in a process of its own. `scripts/fuzz --seed 1 --runs 100000`.

`--orders` plays all orders and losses of the carrier's callbacks instead; `--idle N` opens N sockets that say nothing, or drip.
Prints one JSON object; exit code 1 if anything came of it that may not.
"""

import argparse
import asyncio
import json
import math
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.store import migrate
from app.store.engine import Database
from tests.faults import fuzz
from tests.faults.in_process import Phone, Service, service
from tests.web import test_orders as orders
from tests.web.house import House

OURS = {
    "a webhook failed",
    "a callback failed",
    "the call's machine failed; its stream is given up",
    "a task of the call failed",
    "an errand failed",
    "a sweep failed",
    "a flush failed",
    "the database refused an item",
    "an item cannot be put into words",
    "a worker died; the spare takes its place",
}


def faults_in(log: Path) -> list[str]:
    """What the service says of itself that should not be: faults of ours, exceptions, deaths."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            found.append(line[:200])
            continue
        event = str(said.get("event", ""))
        if event in OURS or "Exception" in event or "exception" in event or "died" in event or said.get("level") == "critical":
            found.append(line[:300])
    return found


def worker_of(house: Service) -> int:
    opened = [json.loads(line) for line in house.log.read_text().splitlines() if '"event": "open"' in line]
    return int(opened[-1]["worker"].rsplit("-", 2)[1])


async def nonsense(plan: argparse.Namespace, folder: Path, url: str) -> dict[str, Any]:
    async with service(
        url, folder, seed=plan.seed, process=True, MAX_CALLS="2000", REJECT_ABOVE="10000", TRANSFER_TO="sales=+15551230001"
    ) as house:
        await fuzz.run(
            house, seed=plan.seed + 1, runs=min(plan.runs, 4_000)
        )  # so that all is loaded, and memory is measured from there
        pid, before = worker_of(house), fuzz.resident_mb(worker_of(house))
        began = time.monotonic()
        found = await fuzz.run(house, seed=plan.seed, runs=plan.runs)
        took = time.monotonic() - began
        phone, session = await house.call()  # and a call goes as ever
        await phone.heard_out(session, 1)
        await session.caller_says("hello")
        await phone.heard_out(session, 2)
        await phone.hangs_up()
        same, after = worker_of(house) == pid, fuzz.resident_mb(worker_of(house))
        ours = faults_in(house.log)
        if plan.log:
            print(house.log.read_text(), file=sys.stderr)
    facts = asdict(found)
    facts["answers"], facts["closes"] = dict(sorted(found.answers.items())), dict(sorted(found.closes.items()))
    facts["bad_documents"], facts["bad_answers"] = found.bad_documents[:20], found.bad_answers[:20]
    return facts | {
        "seed": plan.seed,
        "crashes": len(ours) + (not same) + len(found.bad_answers) + len(found.bad_documents),
        "faults": ours[:20],
        "seconds": round(took, 1),
        "resident_mb": [round(before, 1), round(after, 1)],
    }


async def all_orders(url: str) -> dict[str, Any]:
    played, began = 0, time.monotonic()
    for kind in orders.KINDS:
        migrate.upgrade(f"{url}.{orders.KINDS.index(kind)}")
        database = Database(f"{url}.{orders.KINDS.index(kind)}")
        house = House(database)
        await orders.play(house, orders.ORDERS, kind)
        await house.client.aclose()
        await database.close()
        played += len(orders.ORDERS)
    return {"orders": played, "stand_for": 46_080 * len(orders.KINDS), "crashes": 0, "seconds": round(time.monotonic() - began, 1)}


async def idle(plan: argparse.Namespace, folder: Path, url: str) -> dict[str, Any]:
    async def webhooks(house: Service, first: int) -> list[float]:
        took = []
        for number in range(first, first + 60):
            began = time.monotonic()
            await Phone(house, f"CA{number:032d}").post("status", CallStatus="ringing")
            took.append((time.monotonic() - began) * 1_000)
        return sorted(took)

    async with service(url, folder, process=True) as house:
        target = urlsplit(house.url)
        await webhooks(house, 0)
        before, memory = await webhooks(house, 100), fuzz.resident_mb(worker_of(house))
        closed: list[float] = []

        async def one(number: int) -> None:
            reader, writer = await asyncio.open_connection(target.hostname, target.port)
            began = time.monotonic()
            if number % 3 == 1:
                writer.write(b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\n")
            elif number % 3 == 2:
                writer.write(b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
            try:
                async with asyncio.timeout(60):
                    while True:
                        try:
                            async with asyncio.timeout(0.5):
                                if not await reader.read(65_536):
                                    break
                        except TimeoutError:
                            if number % 3:
                                writer.write(b"x: y\r\n" if number % 3 == 1 else b"x")
            except ConnectionError:
                pass
            closed.append(time.monotonic() - began)
            writer.transport.abort()

        crowd = [asyncio.create_task(one(number)) for number in range(plan.idle)]
        await asyncio.sleep(0.5)
        during = await webhooks(house, 200)
        largest = fuzz.resident_mb(worker_of(house))
        await asyncio.gather(*crowd)
    at95 = math.ceil(0.95 * 60) - 1
    return {
        "sockets": plan.idle,
        "closed_within_s": round(max(closed), 2),
        "webhook_p95_ms": {"before": round(before[at95], 1), "during": round(during[at95], 1)},
        "resident_mb": [round(memory, 1), round(largest, 1)],
        "crashes": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="names all that is sent, default 1")
    parser.add_argument("--runs", type=int, default=10_000, help="frames and requests together, default 10,000")
    parser.add_argument("--orders", action="store_true", help="all orders and losses of the callbacks instead")
    parser.add_argument("--idle", type=int, default=0, metavar="N", help="N sockets that say nothing, or drip, instead")
    parser.add_argument("--log", action="store_true", help="print the service's log as well")
    plan = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        url = f"sqlite:///{folder}/callrow.db"
        migrate.upgrade(url)
        if plan.orders:
            result = asyncio.run(all_orders(url))
        elif plan.idle:
            result = asyncio.run(idle(plan, folder, url))
        else:
            result = asyncio.run(nonsense(plan, folder, url))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    sys.exit(1 if result["crashes"] else 0)


if __name__ == "__main__":
    main()
