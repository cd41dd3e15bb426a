"""The shelf of calls: born once, one stream at a time, finished once; on both databases, with many at it."""

import asyncio
import itertools
import json
import sys
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.call.commands import KeepTool, KeepTurn, KeepUtterance
from app.call.disposition import EndReason, Intent, Outcome, Slot, Usage
from app.errors import Fenced
from app.store.calls import Calls
from app.store.engine import Database
from app.store.tables import calls as table
from app.store.writer import Writer
from tests.store.shelf import CALLED, CALLER, PRICED, Clock, filed, memory, new_call, turn, utterance


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(database: Database, clock: Clock) -> Calls:
    return Calls(database, clock=clock)


# ---- born


async def test_a_call_is_born_to_talk_in_its_first_epoch(calls, clock):
    state, made = await calls.born(new_call())
    assert made
    assert len(state.call_id) == 26
    assert (state.epoch, state.claimed_epoch, state.resume_attempts) == (1, 0, 0)
    assert (state.next_step, state.transfer_to, state.final) == (Intent.TALK, None, False)
    assert (state.from_number, state.to_number, state.agent) == (CALLER, CALLED, "front-desk")
    assert (state.channel, state.direction, state.memory, state.carrier_status) == ("phone", "inbound", None, None)
    assert state.started_at == clock.now and state.started_at.tzinfo is UTC
    assert await calls.find(state.call_id) == await calls.find_by_sid("CA1") == state


async def test_a_call_nobody_knows_is_not_found(calls):
    assert await calls.find("nobody") is None
    assert await calls.find_by_sid("nobody") is None
    assert await calls.row("nobody") is None
    assert await calls.history("nobody") == []
    assert await calls.events("nobody") == []


async def test_a_repeated_webhook_finds_the_row_as_it_stands(calls, clock):
    first, _ = await calls.born(new_call())
    assert await calls.advance(first.call_id, 1)
    clock.pass_(seconds=3)
    again, made = await calls.born(new_call(agent="sales"))
    assert not made
    assert (again.call_id, again.epoch, again.agent, again.started_at) == (first.call_id, 2, "front-desk", first.started_at)


async def test_many_webhooks_at_once_make_one_row(calls, database):
    born = await asyncio.gather(*(calls.born(new_call()) for _ in range(25)))
    assert [made for _, made in born].count(True) == 1
    assert len({state.call_id for state, _ in born}) == 1
    async with database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar() == 1


async def test_calls_without_a_carrier_each_have_their_own_row(calls):
    born = [
        await calls.born(new_call(None, channel="browser", from_number=None, to_number=None, account_sid=None)) for _ in range(2)
    ]
    assert [made for _, made in born] == [True, True]
    assert born[0][0].call_id != born[1][0].call_id
    assert born[0][0].channel == "browser"


async def test_a_call_that_was_named_before_its_row_could_be_made_keeps_its_name(calls):
    assert (await calls.born(new_call(), "01HNAMEDWHILEWEWEREAWAY000"))[1]
    state, made = await calls.born(new_call(None), "01HNAMEDWHILEWEWEREAWAY000")
    assert not made and state.carrier_call_sid == "CA1"


async def test_names_of_calls_sort_as_the_calls_began(calls, clock):
    names = []
    for number in range(20):
        names.append((await calls.born(new_call(f"CA{number}")))[0].call_id)
        clock.pass_(milliseconds=1)
    assert names == sorted(names) and len(set(names)) == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"channel": "fax"},
        {"direction": "sideways"},
        {"audio_path": "carrier-pigeon"},
    ],
)
async def test_a_word_outside_a_closed_list_is_refused(calls, wrong):
    with pytest.raises(sa.exc.StatementError):
        await calls.born(new_call(**wrong))
    assert await calls.find_by_sid("CA1") is None


# ---- one stream at a time


async def test_one_of_many_claims_the_stream(calls):
    state, _ = await calls.born(new_call())
    claims = await asyncio.gather(*(calls.claim(state.call_id, 1, worker=f"w{n}", stream_sid=f"MZ{n}") for n in range(25)))
    assert claims.count(True) == 1
    row = await calls.row("CA1")
    assert (row["claimed_epoch"], row["worker"], row["stream_sid"]) == (1, f"w{claims.index(True)}", f"MZ{claims.index(True)}")


CLAIMER = """
import asyncio, sys
from app.store.calls import Calls
from app.store.engine import Database

async def main(url, call_id, name):
    database = Database(url)
    calls = Calls(database)
    await calls.find(call_id)
    print("ready", flush=True)
    sys.stdin.readline()
    won = await asyncio.gather(*(calls.claim(call_id, 1, worker=name, stream_sid=None) for _ in range(10)))
    await database.close()
    print(won.count(True), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_one_of_many_processes_claims_the_stream(calls, database_url):
    state, _ = await calls.born(new_call())
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLAIMER, database_url, state.call_id, f"w{number}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(3)
    ]
    for process in processes:
        assert await process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"go\n")
    won = [int((await process.communicate())[0]) for process in processes]
    assert sorted(won) == [0, 0, 1]
    assert (await calls.find(state.call_id)).worker == f"w{won.index(1)}"


async def test_only_the_current_epoch_of_a_live_call_can_be_claimed(calls):
    state, _ = await calls.born(new_call())
    take = {"worker": "w", "stream_sid": None}
    assert not await calls.claim(state.call_id, 2, **take)
    assert await calls.advance(state.call_id, 1)
    assert not await calls.claim(state.call_id, 1, **take)
    assert await calls.claim(state.call_id, 2, **take)
    assert not await calls.claim(state.call_id, 2, **take)
    assert await calls.advance(state.call_id, 2)
    assert await calls.finish(state.call_id, filed(), epoch=3, **PRICED)
    assert not await calls.claim(state.call_id, 3, **take)


async def test_the_call_was_answered_when_its_first_stream_was_claimed(calls, clock):
    state, _ = await calls.born(new_call())
    clock.pass_(seconds=1)
    answered_at = clock.now
    await calls.claim(state.call_id, 1, worker="w", stream_sid="MZ1")
    clock.pass_(seconds=9)
    await calls.advance(state.call_id, 1)
    await calls.claim(state.call_id, 2, worker="w", stream_sid="MZ2")
    assert (await calls.row("CA1"))["answered_at"] == answered_at.isoformat()


async def test_what_follows_is_stored_for_the_current_epoch_only(calls):
    state, _ = await calls.born(new_call())
    await calls.plan(state.call_id, 1, Intent.TRANSFER, "sales")
    planned = await calls.find(state.call_id)
    assert (planned.next_step, planned.transfer_to) == (Intent.TRANSFER, "sales")
    await calls.plan(state.call_id, 1, Intent.HANG_UP)
    assert (await calls.find(state.call_id)).transfer_to is None
    await calls.advance(state.call_id, 1)
    with pytest.raises(Fenced):
        await calls.plan(state.call_id, 1, Intent.TALK)
    await calls.finish(state.call_id, filed(), epoch=2, **PRICED)
    with pytest.raises(Fenced):
        await calls.plan(state.call_id, 2, Intent.TALK)


async def test_one_of_many_opens_the_next_epoch_and_it_is_to_talk(calls):
    state, _ = await calls.born(new_call())
    await calls.plan(state.call_id, 1, Intent.TRANSFER, "sales")
    opened = await asyncio.gather(*(calls.advance(state.call_id, 1) for _ in range(25)))
    assert opened.count(True) == 1
    now = await calls.find(state.call_id)
    assert (now.epoch, now.resume_attempts, now.next_step, now.transfer_to) == (2, 1, Intent.TALK, None)


async def test_a_healthy_stream_forgives_the_attempts_before_it(calls):
    state, _ = await calls.born(new_call())
    await calls.advance(state.call_id, 1)
    await calls.advance(state.call_id, 2)
    await calls.healthy(state.call_id, 2)
    assert (await calls.find(state.call_id)).resume_attempts == 2
    await calls.healthy(state.call_id, 3)
    assert (await calls.find(state.call_id)).resume_attempts == 0


# ---- the carrier's statuses

STATUSES = [("ringing", 1, None), ("in-progress", 2, None), ("completed", 3, 42)]


@pytest.mark.parametrize(
    "order", list(itertools.permutations(STATUSES)), ids=lambda order: "-".join(status for status, *_ in order)
)
async def test_statuses_in_any_order_and_twice_come_to_the_same(calls, order):
    await calls.born(new_call())
    for status, sequence, duration_s in (*order, *order):
        state = await calls.carrier_status("CA1", status, sequence=sequence, duration_s=duration_s)
        assert state.carrier_call_sid == "CA1"
    row = await calls.row("CA1")
    assert (row["carrier_status"], row["carrier_sequence"], row["carrier_duration_s"]) == ("completed", 3, 42)


@pytest.mark.parametrize("order", list(itertools.permutations([("busy", None), ("completed", 2), ("failed", 4)])))
async def test_of_two_last_words_the_later_in_sequence_stands(calls, order):
    await calls.born(new_call())
    for status, sequence in order:
        await calls.carrier_status("CA1", status, sequence=sequence)
    assert (await calls.find_by_sid("CA1")).carrier_status == "failed"


async def test_statuses_that_come_all_at_once_come_to_the_same(calls):
    await calls.born(new_call())
    await asyncio.gather(
        *(
            calls.carrier_status("CA1", status, sequence=sequence, duration_s=duration)
            for status, sequence, duration in STATUSES * 5
        )
    )
    row = await calls.row("CA1")
    assert (row["carrier_status"], row["carrier_sequence"], row["carrier_duration_s"]) == ("completed", 3, 42)


async def test_an_unknown_status_changes_nothing_and_an_unknown_call_is_none(calls):
    await calls.born(new_call())
    assert (await calls.carrier_status("CA1", "levitating", sequence=9)).carrier_status is None
    assert await calls.carrier_status("CA2", "completed", sequence=1) is None


async def test_a_status_after_the_end_adds_the_duration_and_changes_nothing_else(calls):
    state, _ = await calls.born(new_call())
    await calls.finish(state.call_id, filed(), epoch=1, **PRICED)
    before = await calls.row("CA1")
    await calls.carrier_status("CA1", "completed", sequence=3, duration_s=61)
    after = await calls.row("CA1")
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {"carrier_status", "carrier_sequence", "carrier_duration_s", "updated_at"}
    assert after["carrier_duration_s"] == 61


# ---- finished


async def test_a_finished_row_says_everything_that_is_known(calls, clock, database):
    state, _ = await calls.born(new_call(audio_path="transcode", prompt_version="abc", attestation="TN-Validation-Passed-A"))
    await calls.claim(state.call_id, 1, worker="w", stream_sid="MZ1")
    writer = Writer(database, clock=clock)
    for number, latency in enumerate([900, 700, 800, None, 4_000]):
        writer.put(
            state.call_id, 1, KeepTurn(turn(number, latency, interrupted=number == 2, utterance=f"u{number}" if number else None))
        )
    writer.put(state.call_id, 1, KeepUtterance(utterance("u2", 5_000)))
    writer.put(state.call_id, 1, KeepUtterance(utterance("u1", 1_000)))
    writer.put(state.call_id, 1, KeepTool("t1", "note_slot", "front-desk", False, '{"name": "urgency"}', '"noted"'))
    writer.put(state.call_id, 1, KeepTool("t2", "note_slot", "front-desk", True, "{not json", '"no"'))
    await writer.flush()
    clock.pass_(seconds=70)
    assert await calls.finish(state.call_id, filed(), epoch=1, **PRICED)

    row = await calls.row(state.call_id)
    assert json.loads(json.dumps(row)) == row == await calls.row("CA1")
    assert (row["state"], row["outcome"], row["end_reason"]) == ("final", "completed", "agent_ended")
    assert (row["disposition"], row["intent"], row["urgency"], row["escalated"]) == ("sales_lead", "buy", "high", False)
    assert (row["agent"], row["agent_path"]) == ("sales", ["front-desk", "sales"])
    assert (row["summary"], row["next_action"]) == ("Maria wants a larger garden.", "Call Maria back.")
    assert row["slots"]["name"] == {
        "value": "Maria Lopez",
        "confirmed": True,
        "utterance": "u1",
        "agent": "front-desk",
        "at": 4_000,
    }
    assert row["duration_ms"] == 61_500
    assert datetime.fromisoformat(row["ended_at"]) == state.started_at + timedelta(milliseconds=61_500)
    assert row["finished_at"] == clock.now.isoformat()
    assert (row["turns"], row["barge_ins"], row["latency_p50_ms"], row["latency_p95_ms"]) == (4, 1, 800, 4_000)
    assert (row["tokens_in"], row["tokens_out"], row["prices_date"]) == (3_000, 400, "2026-11-20")
    assert row["usage"]["openai"]["audio_cached"] == 500
    # 600 text at 4, 400 cached at 0.4, 100 out at 24; 1,500 audio at 32, 500 cached at 0.4, 300 out at 64
    assert row["cost_usd"] == pytest.approx((2_400 + 160 + 2_400 + 48_000 + 200 + 19_200) / 1e6, abs=1e-9)
    assert (row["model"], row["prompt_version"], row["audio_path"]) == ("gpt-realtime-2.1", "abc", "transcode")
    assert row["caller_attestation"] == "TN-Validation-Passed-A"
    unknown = (
        "sentiment",
        "lead_score",
        "escalation_reason",
        "analyzed_at",
        "carrier_status",
        "carrier_duration_s",
        "forwarded_from",
    )
    assert {row[name] for name in unknown} == {None}
    assert [said["key"] for said in row["utterances"]] == ["u1", "u2"]
    assert [turn["number"] for turn in row["turn_list"]] == [0, 1, 2, 3, 4]
    tools = [(tool["tool_call"], tool["status"], tool["arguments"], tool["result"]) for tool in row["tool_invocations"]]
    assert tools == [("t1", "done", {"name": "urgency"}, "noted"), ("t2", "refused", "{not json", "no")]
    assert "memory" not in row and "from_index" not in row


async def test_a_row_is_finished_once_however_many_try(calls):
    state, _ = await calls.born(new_call())
    endings = [filed(end_reason=reason, outcome=Outcome.FAILED) for reason in EndReason]
    done = await asyncio.gather(*(calls.finish(state.call_id, ending, epoch=None, **PRICED) for ending in endings))
    assert done.count(True) == 1
    row = await calls.row("CA1")
    assert row["end_reason"] == endings[done.index(True)].end_reason
    assert not await calls.finish(state.call_id, filed(), epoch=None, **PRICED)
    assert await calls.row("CA1") == row


async def test_an_old_stream_cannot_finish_the_row_but_the_carrier_can(calls):
    state, _ = await calls.born(new_call())
    await calls.advance(state.call_id, 1)
    assert not await calls.finish(state.call_id, filed(), epoch=1, **PRICED)
    assert not (await calls.find(state.call_id)).final
    assert await calls.finish(state.call_id, filed(), epoch=None, **PRICED)
    assert (await calls.find(state.call_id)).final


async def test_a_call_that_does_not_exist_is_not_finished(calls):
    assert not await calls.finish("nobody", filed(), epoch=None, **PRICED)


async def test_a_finished_call_remembers_what_it_knew(calls):
    state, _ = await calls.born(new_call())
    await calls.finish(state.call_id, filed(), epoch=1, **PRICED)
    assert (await calls.find(state.call_id)).memory == memory()


async def test_a_call_without_turns_has_no_latency_and_a_model_without_price_no_cost(calls):
    state, _ = await calls.born(new_call(model="somebody-elses"))
    await calls.finish(state.call_id, filed(), epoch=1, **PRICED)
    row = await calls.row("CA1")
    assert (row["latency_p50_ms"], row["latency_p95_ms"], row["cost_usd"]) == (None, None, None)
    assert (row["turns"], row["tokens_in"]) == (0, 3_000)


async def test_the_counts_of_the_memory_stand_where_the_ledger_lost_its_last(calls):
    state, _ = await calls.born(new_call())
    known = memory(caller_turns=7, barge_ins=2, usage=Usage(), escalated=True, transfer_to="manager")
    await calls.finish(
        state.call_id, filed(memory=known, outcome=Outcome.TRANSFERRED, end_reason=EndReason.TRANSFERRED), epoch=1, **PRICED
    )
    row = await calls.row("CA1")
    assert (row["turns"], row["barge_ins"], row["escalated"], row["transfer_to"], row["cost_usd"]) == (7, 2, True, "manager", 0)


async def test_a_machine_that_miscounted_its_end_does_not_keep_the_row_open(calls):
    state, _ = await calls.born(new_call())
    assert await calls.finish(state.call_id, filed(ended_at=-20), epoch=1, **PRICED)
    assert (await calls.row("CA1"))["duration_ms"] == 0


async def test_what_no_database_keeps_does_not_cost_the_row(calls):
    state, _ = await calls.born(new_call("CA\x001", attestation="a\ud800b"))
    slots = (Slot(name="urgency", value="hi\x00gh\ud800"), Slot(name="na\x00me", value="\udfff"))
    strange = memory(slots=slots, disposition="a\x00", intent="\ud800", summary="\x00s", next_action="\ud800", agent="sa\x00les")
    assert await calls.finish(state.call_id, filed(memory=strange), epoch=1, **PRICED)
    row = await calls.row("CA1")
    assert (row["urgency"], row["disposition"], row["intent"], row["agent"]) == ("high?", "a", "?", "sales")
    assert (row["summary"], row["slots"]["name"]["value"]) == ("s", "?")
    assert await calls.find("\x00") is await calls.row("\ud800") is None


async def test_a_number_that_no_column_holds_does_not_cost_the_carriers_word(calls):
    await calls.born(new_call())
    assert (await calls.carrier_status("CA1", "completed", sequence=-1, duration_s=2**40)).carrier_status == "completed"
    assert (await calls.row("CA1"))["carrier_duration_s"] is None


async def test_the_database_itself_refuses_a_final_row_that_does_not_say_how_it_ended(calls, database):
    await calls.born(new_call())
    with pytest.raises(sa.exc.IntegrityError, match="final_says_how_it_ended"):
        async with database.write() as connection:
            await connection.execute(sa.text("UPDATE calls SET state = 'final'"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("lead_score", 101), ("lead_score", -1), ("epoch", 0), ("claimed_epoch", 2), ("turns", -1), ("duration_ms", -1)),
        *(("sentiment", "'furious'"), ("outcome", "'Outcome.COMPLETED'"), ("next_step", "'TALK'"), ("cost_usd", -0.01)),
    ],
)
async def test_the_database_itself_refuses_what_cannot_be(calls, database, column, value):
    await calls.born(new_call())
    with pytest.raises(sa.exc.IntegrityError):
        async with database.write() as connection:
            await connection.execute(sa.text(f"UPDATE calls SET {column} = {value}"))


# ---- reading


async def test_unfinished_calls_are_found_the_oldest_first(calls, clock):
    for sid in ("CA1", "CA2", "CA3"):
        await calls.born(new_call(sid))
        clock.pass_(minutes=10)
    await calls.finish((await calls.find_by_sid("CA2")).call_id, filed(), epoch=1, **PRICED)
    await calls.born(new_call("CA4"))
    assert [state.carrier_call_sid for state in await calls.unfinished(timedelta(minutes=5))] == ["CA1", "CA3"]
    assert [state.carrier_call_sid for state in await calls.unfinished(timedelta(minutes=15))] == ["CA1"]


async def test_the_transcript_is_in_order_over_all_epochs(calls, database):
    state, _ = await calls.born(new_call())
    writer = Writer(database)
    said = [
        (
            1,
            utterance(
                "a1", 0, speaker="agent", agent="front-desk", unheard="and so on", heard_ms=700, generated_ms=900, interrupted=True
            ),
        ),
        (1, utterance("c1", 700)),
        (2, utterance("a1", 9_000, speaker="agent", agent="front-desk")),
        (2, utterance("c2", 9_500, heard=None, untranscribed=True)),
        (2, utterance("c3", 9_500)),
    ]
    for epoch, one in (said[2], said[0], said[3], said[1], said[4]):
        writer.put(state.call_id, epoch, KeepUtterance(one))
    await writer.flush()
    assert await calls.history(state.call_id) == [one for _, one in said]


async def test_the_latest_calls_come_first_and_without_what_belongs_to_them(calls, clock):
    for sid in ("CA1", "CA2", "CA3"):
        await calls.born(new_call(sid))
        clock.pass_(seconds=1)
    rows = await calls.latest(2)
    assert [row["carrier_call_sid"] for row in rows] == ["CA3", "CA2"]
    assert "utterances" not in rows[0] and json.dumps(rows)


async def test_everything_of_a_call_goes_when_its_row_goes(calls, database):
    state, _ = await calls.born(new_call())
    writer = Writer(database)
    writer.put(state.call_id, 1, KeepUtterance(utterance("u1")))
    await writer.flush()
    async with database.write() as connection:
        await connection.execute(sa.delete(table))
    assert await calls.history(state.call_id) == []


async def test_a_price_list_is_dated(calls):
    state, _ = await calls.born(new_call())
    await calls.finish(state.call_id, filed(), epoch=1, **(PRICED | {"prices_date": date(2027, 1, 2)}))
    assert (await calls.row("CA1"))["prices_date"] == "2027-01-02"
