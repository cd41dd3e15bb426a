"""Facts for the store's tests."""

import asyncio
import base64
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

from app.call.disposition import EndReason, Filed, Memory, Outcome, Slot, Turn, Usage, Utterance
from app.call.errands import ErrandContext
from app.errors import StoreUnavailable
from app.settings import LIST_PRICES, Price
from app.store.calls import Calls, NewCall
from app.store.writer import JournalLine, Writer

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
CALLER, CALLED = "+15550100001", "+15550100199"
PRICES = {name: Price(**price) for name, price in LIST_PRICES.items()}
PRICED = {"prices": PRICES, "prices_date": date(2026, 11, 20)}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **some: float) -> None:
        self.now += timedelta(**some)


def new_call(sid: str | None = "CA1", **other: Any) -> NewCall:
    known = {"account_sid": "AC1", "from_number": CALLER, "to_number": CALLED, "agent": "front-desk", "model": "gpt-realtime-2.1"}
    return NewCall(carrier_call_sid=sid, **(known | other))


def memory(**other: Any) -> Memory:
    known = {
        "agent": "sales",
        "agent_path": ("front-desk", "sales"),
        "slots": (
            Slot(name="name", value="Maria Lopez", utterance="u1", agent="front-desk", confirmed=True, at=4_000),
            Slot(name="urgency", value="high", agent="front-desk", at=5_000),
        ),
        "usage": Usage(text_in=1_000, text_cached=400, audio_in=2_000, audio_cached=500, text_out=100, audio_out=300, responses=3),
        "disposition": "sales_lead",
        "intent": "buy",
        "summary": "Maria wants a larger garden.",
        "next_action": "Call Maria back.",
    }
    return Memory(**(known | other))


def filed(**other: Any) -> Filed:
    known = {"outcome": Outcome.COMPLETED, "end_reason": EndReason.AGENT_ENDED, "memory": memory(), "ended_at": 61_500}
    return Filed(**(known | other))


def utterance(key: str, started_at: int = 0, **other: Any) -> Utterance:
    known = {"speaker": "caller", "started_at": started_at, "ended_at": started_at + 900, "heard": "Hello there."}
    return Utterance(key=key, **(known | other))


def turn(number: int, latency_ms: int | None = 800, **other: Any) -> Turn:
    known = {
        "agent": "front-desk",
        "utterance": f"u{number}",
        "speech_ended_at": 1_000,
        "committed_at": 1_500,
        "requested_at": 1_510,
        "first_audio_at": 1_700,
        "audible_at": 1_800,
    }
    return Turn(number=number, latency_ms=latency_ms, **(known | other))


def context(call_id: str, epoch: int = 1) -> ErrandContext:
    return ErrandContext(call_id=call_id, epoch=epoch, agent="front-desk", caller_number=CALLER, slots={})


def line(seq: int, **other: object) -> JournalLine:
    known = {"at": seq * 20, "name": "MarkReturned", "data": {"mark": f"m{seq}"}, "private": None, "commands": ""}
    return JournalLine(seq=seq, **(known | other))


@asynccontextmanager
async def running(writer: Writer):
    async with asyncio.TaskGroup() as house:
        house.create_task(writer.run())
        yield
        await writer.close()


async def until(true) -> None:
    async with asyncio.timeout(60):
        while not await true():
            await asyncio.sleep(0.01)


async def count(calls: Calls, call_id: str, lines: int) -> bool:
    try:
        return len(await calls.events(call_id)) == lines
    except StoreUnavailable:
        return False
