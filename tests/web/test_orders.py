"""The carrier's callbacks in every order, with every loss: 720 orders of six, times 64 ways to lose some of them.

An order with losses is no more than the order of what is left, and many leave the same: the 46,080 are 1,957 different ones, for
each of five kinds of call. A sample is played here, all of them by `scripts/fuzz --orders`: past HTTP, the handlers, over the real
store.
"""

import itertools
import random

import pytest
from starlette.datastructures import ImmutableMultiDict

from app.call.disposition import Intent
from app.web.phone import Phone
from app.web.resume import LEFT_ALONE
from app.web.webhook import Webhook
from tests.web.house import House

CALLBACKS = {
    "ringing": ("status", {"CallStatus": "ringing", "SequenceNumber": "0"}),
    "answered": ("status", {"CallStatus": "in-progress", "SequenceNumber": "1"}),
    "completed": ("status", {"CallStatus": "completed", "SequenceNumber": "2", "CallDuration": "12"}),
    "what follows": ("resume", {"CallStatus": "in-progress"}),
    "what follows, and it is over": ("resume", {"CallStatus": "completed"}),
    "fallback": ("fallback", {"CallStatus": "completed", "ErrorCode": "11200"}),
}
LAST_WORDS = {"completed", "what follows, and it is over", "fallback"}
ORDERS = [order for count in range(7) for order in itertools.permutations(CALLBACKS, count)]
KINDS = ["not claimed", "claimed", "to hang up", "transferring", "turned away"]


def test_the_orders_are_all_there_are():
    whole = {
        tuple(callback for callback, lost in zip(order, losses, strict=True) if not lost)
        for order in itertools.permutations(CALLBACKS)
        for losses in itertools.product((False, True), repeat=6)
    }
    assert whole == set(ORDERS) and len(ORDERS) == 1_957


class Doors:
    """The handlers, asked as the doors ask them."""

    def __init__(self, house: House):
        self.house = house
        self.phone = Phone(house.desk)
        self.resume = self.phone._resume

    async def ask(self, sid, callback, epoch=1):
        path, fields = CALLBACKS[callback]
        query = {"epoch": str(epoch)} if path == "resume" else {}
        webhook = Webhook(ImmutableMultiDict({"CallSid": sid, **fields}), ImmutableMultiDict(query))
        handlers = {"status": self.phone._status, "resume": self.resume.answer, "fallback": self.phone._fallback}
        return await handlers[path](webhook)

    async def begin(self, sid, kind):
        house = self.house
        house.board.capacity = 0 if kind == "turned away" else 10**6
        form = {"CallSid": sid, "CallStatus": "ringing", "From": "+15551230000", "To": "+15559870000"}
        await self.phone._voice(Webhook(ImmutableMultiDict(form), ImmutableMultiDict({})))
        call_id = (await house.calls.find_by_sid(sid)).call_id
        if kind in ("claimed", "to hang up", "transferring"):
            await house.calls.claim(call_id, 1, worker="w1", stream_sid="MZ1")
        if kind == "to hang up":
            await house.calls.plan(call_id, 1, Intent.HANG_UP)
        if kind == "transferring":
            await house.calls.plan(call_id, 1, Intent.TRANSFER, "sales")


async def check(house, sid, order, kind):
    """R1, R2, R3, R7 of the reference; and that the last word of the carrier's is the end."""
    state = await house.calls.find_by_sid(sid)
    row = await house.calls.row(state.call_id)
    heard = [CALLBACKS[callback][1]["CallStatus"] for callback in order]
    statuses = [status for callback, status in zip(order, heard, strict=True) if callback != "what follows"]
    rank = {"ringing": 1, "in-progress": 2, "completed": 3}
    assert row["carrier_status"] == (max(statuses, key=rank.__getitem__) if statuses else None), (kind, order)
    assert row["carrier_duration_s"] == (12 if "completed" in order else None)
    assert (row["state"] == "final") == bool(LAST_WORDS & set(order)), (kind, order)
    if row["state"] == "final":
        assert row["outcome"] and row["end_reason"] and row["duration_ms"] >= 0
        before = row
        for callback in ("completed", "ringing", "what follows"):  # again, and too late
            await Doors(house).ask(sid, callback)
        after = await house.calls.row(state.call_id)
        told = {"carrier_status", "carrier_sequence", "carrier_duration_s", "updated_at"}
        assert {k: v for k, v in after.items() if k not in told} == {k: v for k, v in before.items() if k not in told}


async def play(house, orders, kind):
    """Each order, on a call of its own of that kind."""
    doors = Doors(house)
    for number, order in enumerate(orders):
        sid = f"CA{number:032d}"
        await doors.begin(sid, kind)
        for callback in order:
            await doors.ask(sid, callback)
        await check(house, sid, order, kind)
    assert await house.count() == len(orders)


@pytest.mark.parametrize("kind", KINDS)
async def test_in_every_order_and_with_every_loss_one_row_says_how_it_ended(sqlite_house, kind):
    await play(sqlite_house, random.Random(KINDS.index(kind)).sample(ORDERS, 40), kind)


async def test_each_may_be_told_five_times(house):
    dice = random.Random(7)
    doors = Doors(house)
    for number in range(10):
        sid = f"CA{number:032d}"
        await doors.begin(sid, "claimed")
        order = dice.sample(list(CALLBACKS) * 5, 30)
        for callback in order:
            await doors.ask(sid, callback)
        row = await house.row(sid)
        assert (row["state"], row["carrier_status"], row["carrier_duration_s"]) == ("final", "completed", 12)
    assert await house.count() == 10


async def test_a_row_whose_last_word_was_lost_is_finished_when_it_comes_late(house):
    doors = Doors(house)
    await doors.begin("CA" + "1" * 32, "claimed")
    house.now += int(LEFT_ALONE.total_seconds() * 1_000) * 10
    assert await doors.resume.sweep() == 0
    await doors.ask("CA" + "1" * 32, "completed")
    assert (await house.row())["state"] == "final"


async def test_words_of_calls_that_we_never_had_are_taken_and_make_no_row(house):
    doors = Doors(house)
    for callback in ("ringing", "answered", "completed", "what follows, and it is over"):
        await doors.ask("CA" + "9" * 32, callback)
    assert await house.count() == 0
