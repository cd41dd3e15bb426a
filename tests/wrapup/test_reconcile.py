"""Our rows beside the carrier's log, both real: a database (each of the two), and the pretend carrier's REST on a socket."""

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from app.call.disposition import EndReason, Intent, Outcome
from app.rehearsal import carrier_books
from app.rehearsal.carrier import CallPlan, Number
from app.store.engine import Database
from app.store.tables import calls as table
from app.store.writer import Writer
from app.twilio.carrier import NumberConfiguration
from app.wrapup import reconcile
from app.wrapup.reconcile import rings_here
from tests.store.shelf import line
from tests.wrapup import booked
from tests.wrapup.booked import ACCOUNT, NOW, OURS, THEIRS, counts, dialled, took_place

HOUR_AGO = NOW - timedelta(hours=1)
IN_LINE = ("completed", 60, 0.0085, "USD")
SAID = ("carrier_status", "carrier_duration_s", "carrier_price", "carrier_price_unit")


@pytest.fixture
async def house(database):
    async with booked.house(database) as opened:
        yield opened


@pytest.fixture
async def lite(sqlite_url):
    """For what is about the carrier's side alone."""
    database = Database(sqlite_url)
    async with booked.house(database) as opened:
        yield opened
    await database.close()


# ---- what is the same, and what the row lacks


async def test_a_row_that_says_what_the_carrier_says_has_no_gap_and_is_marked_as_compared(house):
    call_id = await house.in_line(took_place(house.peer, HOUR_AGO))
    found = await house.run()
    assert (found.compared, found.gaps, found.remaining) == (1, 0, 0)
    assert await house.column(call_id, *SAID, "reconciled_at") == (*IN_LINE, NOW)


async def test_what_the_carrier_tells_and_the_row_lacks_is_filled_and_stays_filled(house):
    call_id = await house.row_of(took_place(house.peer, HOUR_AGO))
    found = await house.run()
    assert counts(found) == {"status_differs": (1, 1), "duration_differs": (1, 1), "price_missing": (1, 1)}
    assert (found.remaining, [gap.call_id for gap in found.listed]) == (0, [call_id] * 3)
    assert await house.column(call_id, *SAID, "reconciled_at") == (*IN_LINE, NOW)
    before = await house.everything()
    assert (await house.run()).gaps == 0
    assert await house.everything() == before


async def test_what_differs_is_entered_as_the_carrier_has_it_and_nothing_else_changes(house):
    call = took_place(house.peer, HOUR_AGO, 61)
    call_id = await house.row_of(call)
    await house.at(NOW).carrier_status(call.sid, "failed", duration_s=99)
    async with house.database.write() as connection:
        await connection.execute(sa.update(table).values(carrier_price=0.5, carrier_price_unit="EUR"))
    untouched = ("state", "outcome", "end_reason", "ended_at", "finished_at", "duration_ms", "summary", "revision", "analysis")
    before = await house.column(call_id, *untouched)
    assert counts(await house.run()) == {"status_differs": (1, 1), "duration_differs": (1, 1), "price_differs": (1, 1)}
    assert await house.column(call_id, *SAID) == ("completed", 61, 0.017, "USD")
    assert await house.column(call_id, *untouched) == before


async def test_a_price_that_is_not_there_yet_is_no_gap_and_is_filled_when_it_comes(house):
    call = took_place(house.peer, HOUR_AGO, rated=False)
    call_id = await house.in_line(call)
    found = await house.run()
    assert (found.gaps, found.unrated) == (0, 1)
    call.plan = CallPlan(rated_after_ms=0)
    assert counts(await house.run()) == {"price_missing": (1, 1)}
    assert await house.column(call_id, "carrier_price", "carrier_price_unit") == (0.0085, "USD")


async def test_a_call_that_nobody_answered_lacks_neither_duration_nor_price(lite):
    await lite.row_of(took_place(lite.peer, HOUR_AGO, None, "no-answer"), claimed=False)
    assert counts(await lite.run()) == {"status_differs": (1, 1)}


# ---- what we did not know


async def test_a_call_that_only_the_carrier_knows_gets_a_finished_row_that_goes_the_ordinary_way(house):
    expected = [("completed", 42, "never_connected"), ("no-answer", None, "carrier_ended"), ("busy", None, "carrier_ended")]
    made = [took_place(house.peer, HOUR_AGO, seconds, status) for status, seconds, _ in expected]
    found = await house.run()
    assert counts(found) == {"unknown_to_us": (3, 3)}
    named = {gap.sid: gap.call_id for gap in found.listed}
    for call, (status, seconds, reason) in zip(made, expected, strict=True):
        row = await house.at(NOW).row(call.sid)
        length = seconds or 20
        assert row["call_id"] == named[call.sid]
        assert (row["state"], row["outcome"], row["end_reason"]) == ("final", "failed", reason)
        assert (row["from_number"], row["to_number"], row["account_sid"]) == ("+15551230000", OURS, ACCOUNT)
        assert datetime.fromisoformat(row["started_at"]) == HOUR_AGO
        assert datetime.fromisoformat(row["ended_at"]) == HOUR_AGO + timedelta(seconds=length)
        assert (row["duration_ms"], row["carrier_duration_s"], row["carrier_status"]) == (length * 1_000, seconds, status)
        assert row["carrier_price"] == (None if seconds is None else 0.0085)
        assert (row["agent"], row["answered_at"], row["turns"], row["cost_usd"], row["model"]) == ("front-desk", None, 0, 0, None)
        assert (row["analysis"], row["revision"], datetime.fromisoformat(row["analysis_due_at"])) == ("waiting", 1, NOW)
        assert datetime.fromisoformat(row["reconciled_at"]) == NOW
    found = await house.run()
    assert (found.gaps, found.compared) == (0, 3)


async def test_a_withheld_number_is_none_and_the_numbers_address_says_who_was_to_answer(lite):
    lite.peer.configure(Number(phone_number=OURS, voice_url=f"{booked.PUBLIC}/twilio/voice?agent=sales"))
    call = took_place(lite.peer, HOUR_AGO, caller="+266696687")
    await lite.run()
    row = await lite.at(NOW).row(call.sid)
    assert (row["from_number"], row["agent"], row["agent_path"]) == (None, "sales", ["sales"])


async def test_legs_and_calls_to_other_numbers_are_not_ours(lite):
    ours = took_place(lite.peer, HOUR_AGO)
    await lite.in_line(ours)
    dialled(ours, 20, 30)
    took_place(lite.peer, HOUR_AGO, number=Number(phone_number=THEIRS, voice_url="https://elsewhere.example/voice"))
    found = await lite.run()
    assert (found.compared, found.others, found.gaps) == (1, 2, 0)
    assert len(await lite.everything()) == 1


async def test_a_call_that_another_program_placed_is_not_ours(lite, monkeypatch):
    as_json = carrier_books.call_as_json
    monkeypatch.setattr(carrier_books, "call_as_json", lambda call: as_json(call) | {"direction": "outbound-api"})
    took_place(lite.peer, HOUR_AGO)
    found = await lite.run()
    assert (found.others, found.gaps) == (1, 0)


@pytest.mark.parametrize(
    ("number", "ours"),
    [
        ({"voice_url": "https://calls.example.com/twilio/voice"}, True),
        ({"voice_url": "https://calls.example.com/twilio/voice/?agent=sales"}, True),
        ({"voice_url": "https://calls.example.com/other/voice"}, False),
        ({"voice_url": "https://calls.example.com.evil.example/twilio/voice"}, False),
        ({"voice_url": ""}, False),
        ({"voice_url": "https://calls.example.com/twilio/voice", "trunk_sid": "TK1"}, False),
        ({"voice_url": "https://calls.example.com/twilio/voice", "voice_application_sid": "AP1"}, False),
    ],
)
def test_a_number_is_ours_if_its_own_address_is_used_and_is_ours(number, ours):
    assert rings_here(NumberConfiguration(sid="PN1", number=OURS, **number), "https://calls.example.com") is ours


# ---- what was never finished


async def test_a_live_row_of_a_call_that_is_over_is_finished_as_the_doors_would_have_at_the_carriers_moment(house):
    call = took_place(house.peer, HOUR_AGO, 42)
    call_id = await house.row_of(call, final=False)
    assert counts(await house.run()) == {"never_finished": (1, 1)}
    row = await house.at(NOW).row(call_id)
    assert (row["state"], row["outcome"], row["end_reason"]) == ("final", "abandoned", "caller_hung_up")
    assert datetime.fromisoformat(row["ended_at"]) == HOUR_AGO + timedelta(seconds=42)
    assert datetime.fromisoformat(row["finished_at"]) == NOW
    assert (row["carrier_status"], row["carrier_duration_s"], row["carrier_price"]) == ("completed", 42, 0.0085)
    assert (row["analysis"], row["revision"]) == ("waiting", 1)
    assert row["reconciled_at"] is not None
    assert (await house.run()).gaps == 0


async def test_whether_a_lost_transfer_was_taken_is_asked_of_its_leg(house):
    expected = [(30, "transferred", 20), (None, "abandoned", 60)]
    lost = []
    for talked, _, _ in expected:
        call = took_place(house.peer, HOUR_AGO, 60)
        dialled(call, 20, talked)
        lost.append(await house.row_of(call, final=False))
        await house.at(HOUR_AGO).plan(lost[-1], 1, Intent.TRANSFER, "sales")
    assert counts(await house.run()) == {"never_finished": (2, 2)}
    for call_id, (_, outcome, ended_after) in zip(lost, expected, strict=True):
        row = await house.at(NOW).row(call_id)
        assert row["outcome"] == outcome
        assert datetime.fromisoformat(row["ended_at"]) == HOUR_AGO + timedelta(seconds=ended_after)


async def test_a_call_that_rang_in_vain_is_finished_as_the_carriers_end(lite):
    call = took_place(lite.peer, HOUR_AGO, None, "no-answer")
    call_id = await lite.row_of(call, final=False, claimed=False)
    await lite.run()
    assert await lite.column(call_id, "outcome", "end_reason") == (Outcome.FAILED, EndReason.CARRIER_ENDED)


async def test_what_is_not_over_or_only_just_is_not_judged(lite):
    took_place(lite.peer, NOW - timedelta(seconds=150), 60)  # over for 90 s
    took_place(lite.peer, HOUR_AGO, 60, "in-progress")
    live = took_place(lite.peer, HOUR_AGO, 60, "in-progress")
    await lite.row_of(live, final=False)
    found = await lite.run()
    assert (found.under_way, found.compared, found.gaps) == (3, 0, 0)
    lite.clock.pass_(seconds=30)
    assert counts(await lite.run()) == {"unknown_to_us": (1, 1)}


# ---- what the carrier does not know


async def test_a_row_that_the_carrier_does_not_know_is_flagged_and_kept_until_a_person_has_looked(house):
    call_id = await house.vanished(HOUR_AGO)
    for _ in range(2):
        found = await house.run()
        assert counts(found) == {"unknown_to_carrier": (1, 0)}
        assert found.remaining == 1
    wants = ("state", "needs_review", "review_reasons", "reconciled_at")
    assert [*await house.column(call_id, *wants)][1:] == [True, {"carrier": "unknown_to_carrier"}, None]
    async with house.database.write() as connection:
        await connection.execute(sa.update(table).values(needs_review=False, reviewed_at=NOW, reviewed_by="ann"))
    found = await house.run()
    assert (found.gaps, found.accepted) == (0, 1)
    assert (await house.column(call_id, "needs_review")) == (False,)


async def test_a_flag_stands_beside_what_the_reading_found_and_an_earlier_review_has_not_seen_it(house):
    call_id = await house.vanished(HOUR_AGO)
    async with house.database.write() as connection:
        seen = {"needs_review": False, "reviewed_at": HOUR_AGO, "reviewed_by": "ann"}
        await connection.execute(sa.update(table).values(review_reasons={"name": "values_differ"}, **seen))
    await house.run()
    reasons, needs_review, reviewed_at = await house.column(call_id, "review_reasons", "needs_review", "reviewed_at")
    assert reasons == {"name": "values_differ", "carrier": "unknown_to_carrier"}
    assert (needs_review, reviewed_at) == (True, None)  # ann looked before


async def test_rows_of_one_moment_are_all_looked_for_whatever_the_page(house, monkeypatch):
    monkeypatch.setattr(reconcile, "PAGE", 2)
    gone = {await house.vanished(HOUR_AGO) for _ in range(5)}
    assert {gap.call_id for gap in (await house.run()).listed} == gone


async def test_a_call_that_was_compared_once_may_vanish_from_the_carriers_books(lite):
    call = took_place(lite.peer, HOUR_AGO)
    await lite.in_line(call)
    await lite.run()
    del lite.peer.calls[call.sid]
    found = await lite.run()
    assert (found.gaps, found.forgotten) == (0, 1)


async def test_rows_of_another_account_of_the_browser_and_of_just_now_are_not_looked_for(house):
    await house.vanished(HOUR_AGO, account_sid="AC" + "9" * 32)
    await house.at(HOUR_AGO).born(booked.new_call(None, channel="browser", account_sid=None))
    await house.at(NOW - timedelta(seconds=60)).born(booked.new_call("CA" + "a" * 32, account_sid=ACCOUNT))
    assert (await house.run()).gaps == 0


async def test_a_row_whose_name_cannot_be_the_carriers_is_unknown_to_it(lite):
    await lite.at(HOUR_AGO).born(booked.new_call("no-sid", account_sid=ACCOUNT))
    assert counts(await lite.run()) == {"unknown_to_carrier": (1, 0)}


async def test_a_call_that_is_not_in_the_log_is_fetched_before_it_is_said_to_be_unknown(lite, monkeypatch):
    call = took_place(lite.peer, HOUR_AGO, 42)
    call_id = await lite.row_of(call, final=False)
    entries = carrier_books.entries
    monkeypatch.setattr(carrier_books, "entries", lambda it: () if it is call else entries(it))
    assert counts(await lite.run()) == {"never_finished": (1, 1)}
    assert (await lite.column(call_id, "outcome"))[0] is Outcome.ABANDONED


# ---- our own clock


async def journal_until(house, call_id, ms):
    writer = Writer(house.database)
    for number in range(3):
        writer.put(call_id, 1, line(number, at=ms * number // 2))
    await writer.flush()


async def test_a_duration_that_a_bridge_measured_otherwise_is_told_and_left(house):
    """The last of them: the journal ends before the call, so no bridge was there to measure it."""
    measured = [(62_000, 62_000, False), (62_001, 62_001, True), (57_000, 57_100, True), (75_000, 50_000, False)]
    rows = {}
    for ours_ms, journal_ms, _ in measured:
        rows[ours_ms] = await house.row_of(took_place(house.peer, HOUR_AGO, 60), ended_at=ours_ms)
        await journal_until(house, rows[ours_ms], journal_ms)
    await house.run()  # fills the carrier's own columns
    found = await house.run()
    assert counts(found) == {"duration_differs": (2, 0)}
    assert {gap.call_id for gap in found.listed} == {rows[ours_ms] for ours_ms, _, differs in measured if differs}
    for ours_ms, call_id in rows.items():
        assert await house.column(call_id, "duration_ms", "carrier_duration_s") == (ours_ms, 60)


async def test_a_transferred_caller_talks_on_after_our_part(lite):
    call = took_place(lite.peer, HOUR_AGO, 600)
    ended = {"ended_at": 60_000, "outcome": Outcome.TRANSFERRED, "end_reason": EndReason.TRANSFERRED}
    call_id = await lite.row_of(call, **ended)
    await journal_until(lite, call_id, 60_000)
    await lite.run()
    assert (await lite.run()).gaps == 0
