"""What follows a stream: every row of the table, asked once, twice, late and by several at once."""

import asyncio
import itertools
from dataclasses import replace
from datetime import date

import pytest

from app.call.disposition import EndReason, Filed, Intent, Memory, Outcome
from app.errors import StoreUnavailable
from app.store import ending
from app.web import sentences
from app.web.resume import MAX_ASKED_AGAIN, MAX_ATTEMPTS
from tests.web.house import PUBLIC, SID, House

TERMINAL = ["completed", "busy", "failed", "no-answer", "canceled"]
ON = {"CallStatus": "in-progress"}


async def state(house, sid=SID):
    return await house.calls.find_by_sid(sid)


# ---- to talk


async def test_a_stream_that_ended_is_followed_by_the_next(house):
    call_id = await house.call()
    document = await house.twiml("resume?epoch=1", **ON)
    assert document.stream[:2] == (call_id, 2)
    assert house.desk.tokens.check(document.stream[2], call_id, 2, house.now)
    assert house.board.asked == [("moved_on", call_id, 2), ("admit", call_id, 2)]
    now = await state(house)
    assert (now.epoch, now.claimed_epoch, now.resume_attempts) == (2, 1, 1)


async def test_the_same_question_again_opens_the_same_stream_as_long_as_it_has_not_come(house):
    await house.call()
    answers = await asyncio.gather(*(house.twiml("resume?epoch=1", **ON) for _ in range(8)))
    house.now += 2_000
    answers.append(await house.twiml("resume?epoch=1", **ON))
    assert {answer.stream[1] for answer in answers} == {2}
    now = await state(house)
    assert (now.epoch, now.resume_attempts) == (2, 1)
    assert [asked[0] for asked in house.board.asked].count("moved_on") == 1


async def test_once_the_next_stream_has_come_a_late_question_gets_nothing(house):
    call_id = await house.call()
    await house.twiml("resume?epoch=1", **ON)
    assert await house.calls.claim(call_id, 2, worker="w1", stream_sid="MZ2")
    assert (await house.twiml("resume?epoch=1", **ON)).verbs == []
    assert (await state(house)).epoch == 2


@pytest.mark.parametrize("epoch", [1, 2, 4, 9])
async def test_any_other_epoch_gets_nothing_and_changes_nothing(house, epoch):
    await house.call(epoch=3)
    before = await state(house)
    assert (await house.twiml(f"resume?epoch={epoch}", **ON)).verbs == []
    assert await state(house) == before


async def test_a_stream_that_never_came_is_followed_as_well(house):
    await house.call(claimed=False)
    assert (await house.twiml("resume?epoch=1", **ON)).stream[1] == 2


async def test_after_three_attempts_in_a_row_we_apologise_and_the_row_is_finished(house):
    await house.call()
    for epoch in range(1, MAX_ATTEMPTS + 1):
        assert (await house.twiml(f"resume?epoch={epoch}", **ON)).stream[1] == epoch + 1
        await house.calls.claim((await state(house)).call_id, epoch + 1, worker="w1", stream_sid="MZ")
    document = await house.twiml(f"resume?epoch={MAX_ATTEMPTS + 1}", **ON)
    assert (document.verbs, document.said) == (["Say", "Hangup"], sentences.APOLOGY)
    row = await house.row()
    assert (row["state"], row["outcome"], row["end_reason"]) == ("final", "failed", "worker_lost")


@pytest.mark.parametrize(("available", "claimed", "reason"), [(False, True, "model_unavailable"), (True, False, "never_connected")])
async def test_the_apology_says_in_the_row_what_was_missing(house, available, claimed, reason):
    await house.call(claimed=claimed)
    house.board.model_available = available
    for epoch in range(1, MAX_ATTEMPTS + 2):
        document = await house.twiml(f"resume?epoch={epoch}", **ON)
    assert document.said == sentences.APOLOGY
    assert (await house.row())["end_reason"] == reason


async def test_a_stream_that_was_healthy_in_between_starts_the_count_anew(house):
    call_id = await house.call()
    for epoch in range(1, 9):
        assert (await house.twiml(f"resume?epoch={epoch}", **ON)).stream[1] == epoch + 1
        await house.calls.claim(call_id, epoch + 1, worker="w1", stream_sid="MZ")
        await house.calls.healthy(call_id, epoch + 1)
    assert (await state(house)).epoch == 9


async def test_without_a_slot_a_caller_waits_a_moment_and_not_for_ever(house):
    call_id = await house.call()
    house.board.capacity, house.board.slots = 0, {}
    document, epoch = None, 1
    for _ in range(MAX_ATTEMPTS):
        document = await house.twiml(f"resume?epoch={epoch}", **ON)
        assert document.verbs == ["Say", "Pause", "Redirect"]
        epoch += 1
        assert document.root[2].text == f"{PUBLIC}/twilio/resume?epoch={epoch}"
    assert (await house.twiml(f"resume?epoch={epoch}", **ON)).said == sentences.APOLOGY
    assert (await house.calls.find(call_id)).final


async def test_room_again_and_the_call_goes_on(house):
    call_id = await house.call()
    house.board.capacity, house.board.slots = 0, {}
    assert (await house.twiml("resume?epoch=1", **ON)).verbs == ["Say", "Pause", "Redirect"]
    house.board.capacity = 1
    assert (await house.twiml("resume?epoch=2", **ON)).stream[:2] == (call_id, 3)


# ---- to hang up, to apologise


@pytest.mark.parametrize(("intent", "verbs"), [(Intent.HANG_UP, ["Hangup"]), (Intent.APOLOGISE, ["Say", "Hangup"])])
async def test_what_was_planned_is_carried_out_every_time_it_is_asked(house, intent, verbs):
    call_id = await house.call()
    await house.calls.plan(call_id, 1, intent)
    for _ in range(3):
        assert (await house.twiml("resume?epoch=1", **ON)).verbs == verbs
    assert (await state(house)).epoch == 1
    assert house.board.asked == []


async def test_a_finished_call_is_hung_up(house):
    await house.call()
    await house.knock("status", CallStatus="completed")
    assert (await house.twiml("resume?epoch=1", **ON)).verbs == ["Hangup"]


async def test_an_apology_is_said_although_the_bridge_has_filed_the_row_already(house):
    call_id = await house.call()
    await house.calls.plan(call_id, 1, Intent.APOLOGISE)
    filed = Filed(outcome=Outcome.FAILED, end_reason=EndReason.MODEL_UNAVAILABLE, memory=Memory(agent="front-desk"))
    assert await house.calls.finish(call_id, filed, epoch=1, prices={}, prices_date=date(2026, 11, 20))
    assert (await house.twiml("resume?epoch=1", **ON)).said == sentences.APOLOGY
    assert (await state(house)).final


async def test_a_call_without_a_row_hears_an_apology(house):
    assert (await house.twiml("resume?epoch=1", **ON)).said == sentences.APOLOGY
    assert await house.count() == 0


@pytest.mark.parametrize(
    "query", ["", "?epoch=", "?epoch=0", "?epoch=-1", "?epoch=x", "?epoch=1&epoch=2", "?epoch=" + "9" * 30, "?epoch=%00"]
)
async def test_an_address_that_we_never_gave_is_refused(house, query):
    await house.call()
    before = await state(house)
    assert (await house.knock(f"resume{query}", **ON)).status_code == 400
    assert await state(house) == before


# ---- to transfer


async def transferring(house, to="sales"):
    call_id = await house.call()
    await house.calls.plan(call_id, 1, Intent.TRANSFER, to)
    return call_id


async def test_a_transfer_dials_the_number_of_the_directory(house):
    await transferring(house)
    for _ in range(2):  # the answer may be lost
        document = await house.twiml("resume?epoch=1", **ON)
        assert document.verbs == ["Dial"]
        assert document.root[0].get("action") == f"{PUBLIC}/twilio/resume?epoch=1"
        assert document.root[0][0].text == "+15551230001"
    assert (await state(house)).epoch == 1


@pytest.mark.parametrize("taken", ["completed", "answered"])
async def test_a_transfer_that_was_taken_ends_the_call_as_transferred(house, taken):
    await transferring(house)
    house.now += 60_000
    await house.twiml("resume?epoch=1", **ON)
    for _ in range(2):
        assert (await house.twiml("resume?epoch=1", DialCallStatus=taken, DialCallDuration="30", **ON)).verbs == ["Hangup"]
    row = await house.row()
    assert (row["outcome"], row["end_reason"], row["transfer_to"], row["duration_ms"]) == (
        "transferred",
        "transferred",
        "sales",
        60_000,
    )


@pytest.mark.parametrize("not_taken", ["busy", "no-answer", "failed", "canceled", "something-new"])
async def test_a_transfer_that_nobody_took_goes_on_with_the_agent(house, not_taken):
    call_id = await transferring(house)
    for _ in range(2):
        document = await house.twiml("resume?epoch=1", DialCallStatus=not_taken, **ON)
        assert document.stream[:2] == (call_id, 2)
    now = await state(house)
    assert (now.next_step, now.resume_attempts, now.final) == (Intent.TALK, 1, False)


async def test_a_transfer_to_nobody_in_the_directory_goes_on_with_the_agent(house):
    call_id = await transferring(house, to="the-moon")
    assert (await house.twiml("resume?epoch=1", **ON)).stream[:2] == (call_id, 2)


async def test_the_second_leg_says_that_somebody_took_it(house):
    await transferring(house)
    second = {"CallSid": "CA" + "7" * 32, "ParentCallSid": SID, "Direction": "outbound-dial"}
    assert (await house.knock("status", **second, CallStatus="ringing")).status_code == 204
    assert (await house.row())["state"] == "live"
    assert (await house.knock("status", **second, CallStatus="in-progress")).status_code == 204
    assert (await house.row())["outcome"] == "transferred"
    # the caller hangs up while talking to the person: still transferred
    assert (await house.knock("status", CallStatus="completed", CallDuration="90")).status_code == 204
    assert (await house.row())["outcome"] == "transferred"
    assert (await house.twiml("resume?epoch=1", DialCallStatus="completed", CallStatus="in-progress")).verbs == ["Hangup"]


async def test_a_second_leg_of_a_call_that_is_not_being_transferred_changes_nothing(house):
    await house.call()
    second = {"CallSid": "CA" + "7" * 32, "CallStatus": "in-progress"}
    assert (await house.knock("status", ParentCallSid=SID, **second)).status_code == 204
    assert (await house.knock("status", ParentCallSid="CA" + "8" * 32, **second)).status_code == 204
    assert (await house.row())["state"] == "live"


async def test_a_caller_who_hangs_up_while_it_rings_was_not_transferred(house):
    await transferring(house)
    assert (await house.twiml("resume?epoch=1", CallStatus="completed", DialCallStatus="no-answer")).verbs == []
    assert (await house.row())["end_reason"] == "caller_hung_up"


async def test_a_caller_who_hangs_up_on_the_person_was_transferred(house):
    await transferring(house)
    assert (await house.twiml("resume?epoch=1", CallStatus="completed", DialCallStatus="completed")).verbs == []
    assert (await house.row())["end_reason"] == "transferred"


# ---- the end of the call


@pytest.mark.parametrize("status", TERMINAL)
async def test_a_call_that_is_over_gets_nothing_and_its_row_is_finished(house, status):
    call_id = await house.call()
    house.now += 5_000
    assert (await house.twiml("resume?epoch=1", CallStatus=status)).verbs == []
    row = await house.row()
    expected = ("abandoned", "caller_hung_up") if status == "completed" else ("failed", "carrier_ended")
    assert (row["outcome"], row["end_reason"]) == expected
    assert (row["carrier_status"], row["duration_ms"]) == (status, 5_000)
    assert house.board.asked == [("carrier_ended", call_id, status), ("release", call_id)]


async def test_a_bridge_that_lives_here_finishes_its_own_row(house):
    call_id = await house.call()
    house.board.bridges.add(call_id)
    assert (await house.twiml("resume?epoch=1", CallStatus="completed")).verbs == []
    assert (await house.knock("status", CallStatus="completed")).status_code == 204
    row = await house.row()
    assert (row["state"], row["carrier_status"]) == ("live", "completed")
    assert ("release", call_id) not in house.board.asked


async def test_a_bridge_that_lives_in_another_worker_finishes_its_own_row(house):
    await house.call(worker="w2")
    house.others.add("w2")
    await house.knock("status", CallStatus="completed")
    assert (await house.row())["state"] == "live"
    house.others.clear()
    await house.knock("status", CallStatus="completed")
    assert (await house.row())["state"] == "final"


async def test_during_a_transfer_no_bridge_is_left_to_finish_the_row(house):
    await transferring(house)
    house.others.add("w1")
    await house.knock("status", CallStatus="completed")
    assert (await house.row())["end_reason"] == "caller_hung_up"


async def test_a_stream_that_has_not_come_is_carried_by_nobody(house):
    await house.call(worker="w2")
    house.others.add("w2")
    await house.twiml("resume?epoch=1", **ON)
    await house.knock("status", CallStatus="completed")
    assert (await house.row())["end_reason"] == "caller_hung_up"


@pytest.mark.parametrize(
    ("epoch", "claimed", "intent", "expected"),
    [
        (1, False, None, ("abandoned", "caller_hung_up")),
        (2, False, None, ("abandoned", "caller_hung_up")),
        (1, True, Intent.HANG_UP, ("completed", "agent_ended")),
        (1, True, Intent.APOLOGISE, ("failed", "model_unavailable")),
        (1, True, Intent.TRANSFER, ("abandoned", "caller_hung_up")),
    ],
)
async def test_without_a_bridge_the_row_says_what_is_stored(house, epoch, claimed, intent, expected):
    call_id = await house.call(epoch=epoch, claimed=claimed)
    if intent is not None:
        await house.calls.plan(call_id, epoch, intent, "sales" if intent is Intent.TRANSFER else None)
    await house.knock("status", CallStatus="completed")
    row = await house.row()
    assert (row["outcome"], row["end_reason"]) == expected


async def test_streams_that_were_opened_and_never_came_are_never_connected(house):
    await house.call(claimed=False)
    await house.twiml("resume?epoch=1", **ON)
    await house.knock("status", CallStatus="completed")
    row = await house.row()
    assert (row["outcome"], row["end_reason"]) == ("failed", "never_connected")


async def test_what_the_call_knew_of_itself_is_in_the_row(house):
    await house.call()
    now = replace(await state(house), memory=Memory(agent="sales", agent_path=("front-desk", "sales"), caller_spoke=True, turns=4))
    filed = ending.filed(now, ending.reason_of(now, "completed"), house.now + 10)
    assert (filed.outcome, filed.memory.agent_path, filed.ended_at) == ("completed", ("front-desk", "sales"), 10)
    assert ending.filed(now, ending.reason_of(now, "completed"), 0).ended_at == 0


async def test_in_whatever_order_the_end_is_told_there_is_one_finished_row(house):
    orders = list(itertools.permutations(["status", "resume", "ringing", "again"]))
    for number, order in enumerate(orders):
        sid = f"CA{number:032d}"
        await house.call(sid)
        for what in order:
            match what:
                case "status" | "again":
                    await house.knock("status", CallSid=sid, CallStatus="completed", CallDuration="12", SequenceNumber="3")
                case "resume":
                    assert (await house.twiml("resume?epoch=1", CallSid=sid, CallStatus="completed")).verbs == []
                case "ringing":
                    await house.knock("status", CallSid=sid, CallStatus="ringing", SequenceNumber="1")
        row = await house.row(sid)
        assert (row["outcome"], row["end_reason"]) == ("abandoned", "caller_hung_up"), order
        assert (row["carrier_status"], row["carrier_duration_s"]) == ("completed", 12), order
    assert await house.count() == len(orders)


async def test_a_finished_row_is_not_changed_by_replays(house):
    await house.call()
    await house.knock("status", CallStatus="completed", CallDuration="12", SequenceNumber="3")
    before = await house.row()
    for path, fields in [
        ("voice", {}),
        ("voice", {"CallStatus": "completed"}),
        ("resume?epoch=1", ON),
        ("resume?epoch=1", {"CallStatus": "completed"}),
        ("resume?epoch=2", ON),
        ("status", {"CallStatus": "ringing", "SequenceNumber": "1"}),
        ("status", {"CallStatus": "completed", "CallDuration": "12", "SequenceNumber": "3"}),
        ("fallback", {"ErrorCode": "11200", **ON}),
        ("left?call=" + before["call_id"], {"Digits": "2125550100"}),
    ] * 2:
        house.now += 1_000
        assert (await house.knock(path, **fields)).status_code in (200, 204)
    after = await house.row()
    assert {name for name in after if after[name] != before[name]} == set()
    assert await house.count() == 1


# ---- status


async def test_a_status_of_a_call_that_we_do_not_know_is_taken_calmly(house):
    for status in ("completed", "ringing", "something-new", ""):
        answer = await house.knock("status", CallSid="CA" + "9" * 32, CallStatus=status)
        assert (answer.status_code, answer.content) == (204, b"")
    assert await house.count() == 0


async def test_a_status_that_is_no_word_of_the_carriers_changes_nothing(house):
    await house.call()
    before = await house.row()
    assert (await house.knock("status", CallStatus="exploded", CallDuration="-5", SequenceNumber="9" * 40)).status_code == 204
    assert await house.row() == before


async def test_what_the_carrier_says_of_streams_is_counted(house):
    for event in ("stream-started", "stream-error", "stream-error", "stream-danced"):
        answer = await house.knock("stream-status", StreamEvent=event, StreamError="31921", StreamSid="MZ1")
        assert answer.status_code == 204
    (phone,) = {route.endpoint._heed.__self__ for route in house.routes if route.path == "/twilio/stream-status"}
    assert phone.streams == {"stream-started": 1, "stream-error": 2, "unknown": 1}
    assert house.calls.asked == []


# ---- without the database


async def test_without_the_database_a_caller_waits_a_few_times_and_is_then_told(house):
    await house.call()
    house.calls.broken = StoreUnavailable("find a call")
    path = "resume?epoch=1"
    for again in range(1, MAX_ASKED_AGAIN + 1):
        document = await house.twiml(path, **ON)
        assert document.verbs == ["Say", "Pause", "Redirect"]
        path = f"resume?epoch=1&again={again}"
        assert document.root[2].text == f"{PUBLIC}/twilio/{path}"
    assert (await house.twiml(path, **ON)).said == sentences.APOLOGY


async def test_when_the_database_is_back_the_call_goes_on(house):
    call_id = await house.call()
    house.calls.broken = StoreUnavailable("find a call")
    await house.twiml("resume?epoch=1", **ON)
    house.calls.broken = None
    assert (await house.twiml("resume?epoch=1&again=1", **ON)).stream[:2] == (call_id, 2)


async def test_without_the_database_a_call_that_is_over_gets_nothing(house):
    house.calls.broken = StoreUnavailable("find a call")
    assert (await house.twiml("resume?epoch=1", CallStatus="completed")).verbs == []


async def test_two_houses_on_one_database_open_one_next_stream(database):
    houses = [House(database), House(database)]
    await houses[0].call()
    answers = await asyncio.gather(*(house.twiml("resume?epoch=1", **ON) for house in houses for _ in range(4)))
    assert {answer.stream[1] for answer in answers} == {2}
    assert (await state(houses[0])).resume_attempts == 1
    assert sum(asked[0] == "moved_on" for house in houses for asked in house.board.asked) == 1
