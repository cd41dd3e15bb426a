"""Who is taken on, and who hears a sentence instead: by the loop's lag, the journal's room, the caller's own calls."""

import asyncio
import time

import pytest

from app.web import sentences
from app.web.admission import SHARES, TICK_S, WINDOW, Admission, LoopLag
from tests.web.house import House


@pytest.fixture
async def house(sqlite_house):
    return sqlite_house


def sid(number):
    return f"CA{number:032d}"


# ---- the lag


def lag(*late_ms, before=WINDOW):
    measured = LoopLag()
    for ms in [1.0] * before + list(late_ms):
        measured.saw(ms / 1_000)
    return measured.p90_ms


def test_before_the_first_tick_nothing_is_late():
    assert LoopLag().p90_ms == 0


def test_a_house_that_has_just_opened_cannot_tell_yet():
    assert lag(5_000, before=0) > 4_000 and lag(500, before=0) == 0


@pytest.mark.parametrize("late_ms", [[900], [500], [150] * 5])
def test_one_stall_says_nothing(late_ms):
    assert lag(*late_ms) < 60


@pytest.mark.parametrize("late_ms", [[300] * 15, [2_000], [900, 900, 900]])
def test_a_loop_that_is_late_again_and_again_or_for_long_is_late(late_ms):
    assert lag(*late_ms) > 200


def test_one_long_stop_counts_for_all_the_ticks_that_it_kept_from_coming():
    assert lag(2_000) == pytest.approx(2_000 - 20 * TICK_S * 1_000)
    LoopLag().saw(10**9)  # a machine that slept for years is not counted for years


def test_what_was_late_is_forgotten_after_ten_seconds():
    assert lag(*[5_000] * 3, *[1.0] * WINDOW) == 1.0


async def test_a_loop_that_is_kept_busy_is_seen_to_be_late():
    measured = LoopLag()
    watching = asyncio.create_task(measured.watch())
    await asyncio.sleep(TICK_S / 2)
    for _ in range(9):
        time.sleep(0.3)  # noqa: ASYNC251 (somebody's blocking code)
        await asyncio.sleep(TICK_S * 1.5)
    watching.cancel()
    assert measured.p90_ms > 150


# ---- the judgement


def test_what_we_place_ourselves_stops_first_then_the_browser_then_the_telephone():
    settings = House(None, MAX_CALLS="100", MAX_LOOP_LAG_MS="200").settings
    for live, taken in ((69, 3), (70, 2), (84, 2), (85, 1), (99, 1), (100, 0)):
        assert [Admission(settings).refuses(live, None, kind) for kind in SHARES].count(None) == taken, live
    for late, taken in ((140, 3), (150, 2), (171, 1), (200, 1), (201, 0)):
        judge = Admission(settings, lag_ms=lambda late=late: late)
        assert [judge.refuses(1, None, kind) for kind in SHARES].count(None) == taken, late
        assert [judge.refuses(0, None, kind) for kind in SHARES] == [None] * 3  # nobody would suffer
    assert list(SHARES) == ["outbound", "browser", "inbound"]


def test_one_number_may_call_so_often_a_minute_and_a_withheld_one_is_nobody():
    now = [0.0]
    settings = House(None, CALLS_A_MINUTE_PER_CALLER="3").settings
    judge = Admission(settings, clock=lambda: now[0])
    assert [judge.refuses(0, "+1") for _ in range(5)] == [None] * 3 + ["too many from one number"] * 2
    assert judge.refuses(0, "+2") is None
    assert [judge.refuses(0, None) for _ in range(50)] == [None] * 50
    now[0] += 20
    assert [judge.refuses(0, "+1") for _ in range(2)] == [None, "too many from one number"]


# ---- at the door


@pytest.mark.parametrize("why", ["lag_ms", "overwhelmed"])
async def test_while_live_calls_would_suffer_a_new_one_hears_a_sentence_and_may_leave_a_number(house, why):
    await house.call(sid(7), claimed=False)
    setattr(house, why, 201.0 if why == "lag_ms" else True)
    document = await house.twiml("voice")
    assert document.verbs == ["Gather", "Redirect"] and document.said == sentences.FULL_HOUSE
    assert house.board.live == 1
    await house.twiml(f"left?call={(await house.row())['call_id']}", Digits="2125550100")
    row = await house.row()
    assert (row["outcome"], row["end_reason"], row["slots"]["callback_number"]["value"]) == (
        "turned_away", "full_house", "+12125550100",
    )  # fmt: skip


async def test_a_call_that_was_taken_on_keeps_its_place_however_late_the_loop_is(house):
    call_id = await house.call()
    house.lag_ms, house.overwhelmed = 5_000.0, True
    assert (await house.twiml("resume?epoch=1", CallStatus="in-progress")).stream[:2] == (call_id, 2)
    house.lag_ms = house.overwhelmed = 0
    first = await house.twiml("voice", CallSid=sid(2))
    house.lag_ms = 5_000.0
    assert (await house.twiml("voice", CallSid=sid(2))).stream == first.stream  # a retry of what was answered


async def test_a_number_that_floods_us_hears_the_sentence_and_others_are_answered(database):
    house = House(database, CALLS_A_MINUTE_PER_CALLER="2")
    verbs = [(await house.twiml("voice", CallSid=sid(number))).verbs for number in range(4)]
    assert verbs == [["Connect", "Redirect"]] * 2 + [["Gather", "Redirect"]] * 2
    assert (await house.twiml("voice", CallSid=sid(3))).verbs == ["Gather", "Redirect"]
    assert (await house.twiml("voice", CallSid=sid(9), From="+15559990000")).stream
    assert await house.count() == 5


async def test_the_last_place_is_given_to_one_of_many_who_ask_at_once(house):
    house.board.capacity = 7
    answers = await asyncio.gather(*(house.twiml("voice", CallSid=sid(number)) for number in range(40)))
    assert [answer.verbs for answer in answers].count(["Connect", "Redirect"]) == 7
    assert house.board.live == 7 and await house.count() == 40
