"""Rows that nobody finished: a worker was lost after the carrier's last word."""

import pytest

from app.twilio.twiml import Twiml
from app.web.resume import LEFT_ALONE, Resume
from tests.web.house import PUBLIC, SID

LATER_MS = 2 * int(LEFT_ALONE.total_seconds() * 1_000)


@pytest.fixture
def resume(house) -> Resume:
    return Resume(house.desk, Twiml(PUBLIC, house.settings.stream_url))


async def test_a_row_left_live_after_the_carriers_last_word_is_finished_once(house, resume):
    await house.call()
    house.others = {"w1"}  # another worker seems to take care of it, but it is dead and its heartbeat not old enough to tell
    await house.knock("status", CallStatus="completed")
    assert (await house.row())["state"] == "live"
    house.now += LATER_MS
    assert await resume.sweep() == 1
    row = await house.row()
    assert (row["state"], row["outcome"], row["end_reason"]) == ("final", "abandoned", "caller_hung_up")
    assert await resume.sweep() == 0


async def test_a_row_whose_bridge_lives_here_is_left_to_it(house, resume):
    house.board.bridges.add(await house.call())
    await house.knock("status", CallStatus="completed")
    house.now += LATER_MS
    assert await resume.sweep() == 0
    assert (await house.row())["state"] == "live"


async def test_a_call_that_goes_on_is_left_alone(house, resume):
    await house.call()
    house.now += 3_600_000
    assert await resume.sweep() == 0


async def test_a_row_that_changed_just_now_is_left_alone(house, resume):
    await house.call()
    house.others = {"w1"}
    house.now += LATER_MS
    await house.knock("status", CallStatus="completed")
    assert await resume.sweep() == 0
    assert (await house.calls.find_by_sid(SID)).final is False
