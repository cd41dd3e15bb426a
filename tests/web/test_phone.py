"""A call comes in: one row however often it is told, and a sentence where there is no talk."""

import asyncio

import pytest

from app.call.disposition import Intent
from app.twilio.token import StreamTokens
from app.web import sentences
from app.web.phone import dialable, shown
from tests.web.house import ACCOUNT, NOW, PUBLIC, SID, TOKEN, House

# ---- the answer


async def test_a_call_that_comes_in_is_one_row_and_one_stream(house):
    document = await house.twiml("voice")
    call_id, epoch, token = document.stream
    assert epoch == 1
    assert StreamTokens(TOKEN).check(token, call_id, 1, NOW)
    assert house.board.asked == [("admit", call_id, 1)]
    row = await house.row()
    assert (row["call_id"], row["carrier_call_sid"], row["account_sid"], row["state"]) == (call_id, SID, ACCOUNT, "live")
    assert (row["from_number"], row["to_number"], row["direction"], row["channel"]) == (
        "+15551230000",
        "+15559870000",
        "inbound",
        "phone",
    )
    assert (row["agent"], row["prompt_version"], row["model"], row["audio_path"]) == (
        "front-desk",
        "v1",
        "gpt-realtime-2.1",
        "transcode",
    )
    assert (row["caller_attestation"], row["forwarded_from"], row["outcome"]) == ("TN-Validation-Passed-A", None, None)


async def test_a_number_of_its_own_may_ask_for_its_own_agent(house):
    await house.twiml("voice?agent=sales")
    assert (await house.row())["agent"] == "sales"


async def test_retries_and_concurrent_duplicates_are_one_row_and_the_same_stream(house):
    retry = [("i-twilio-idempotency-token", "2f0c")]
    answers = await asyncio.gather(*(house.twiml("voice", headers=retry) for _ in range(12)))
    house.now += 3_000
    answers.append(await house.twiml("voice", headers=retry))
    assert len({answer.stream[:2] for answer in answers}) == 1
    assert await house.count() == 1
    assert house.board.live == 1


async def test_two_calls_are_two_rows(house):
    one, other = await asyncio.gather(house.twiml("voice"), house.twiml("voice", CallSid="CA" + "2" * 32))
    assert one.stream[0] != other.stream[0]
    assert one.stream[2] != other.stream[2]
    assert await house.count() == 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("anonymous", None),
        ("Restricted", None),
        ("+266696687", None),
        ("+86282452253", None),
        ("", None),
        (None, None),
        ("+15551230000", "+15551230000"),
        ("client:alice", "client:alice"),
        ("sip:a@example.com", "sip:a@example.com"),
    ],
)
async def test_a_caller_need_not_have_a_number(house, given, kept):
    assert (await house.twiml("voice", From=given)).stream
    assert (await house.row())["from_number"] == kept
    assert shown(given or None) == kept


async def test_an_attestation_that_is_no_word_is_not_kept(house):
    await house.twiml("voice", StirVerstat="<script>")
    assert (await house.row())["caller_attestation"] is None


async def test_hostile_fields_change_no_verb(house):
    hostile = '"/></Stream></Connect><Dial>+19005550100</Dial>'
    document = await house.twiml("voice", From=hostile, To=hostile, ForwardedFrom=hostile, CallerName=hostile)
    assert document.stream
    document = await house.twiml("voice?agent=%3C%2FSay%3E%3CDial%3E1", CallSid="CA" + "2" * 32)
    assert document.verbs == ["Say", "Hangup"]


async def test_a_call_that_is_over_already_gets_nothing(house):
    assert (await house.twiml("voice", CallStatus="canceled")).verbs == []
    assert await house.count() == 0


# ---- no talk


async def turned_away(house, document, sentence, reason, outcome="turned_away"):
    assert document.verbs == ["Say", "Hangup"]
    assert document.said == sentence
    row = await house.row()
    assert (row["state"], row["outcome"], row["end_reason"]) == ("final", outcome, reason)
    assert row["ended_at"] is not None
    return row


async def test_an_unknown_agent_is_a_sentence_and_a_row(house):
    row = await turned_away(house, await house.twiml("voice?agent=nobody"), sentences.UNKNOWN_AGENT, "unknown_agent")
    assert (row["agent"], row["prompt_version"]) == ("nobody", None)
    assert house.board.asked == []


async def test_without_a_provider_there_is_a_sentence_and_a_row(house):
    house.board.model_available = False
    await turned_away(house, await house.twiml("voice"), sentences.MODEL_UNAVAILABLE, "model_unavailable")


async def test_while_draining_there_is_a_sentence_and_a_row(house):
    house.board.draining = True
    await turned_away(house, await house.twiml("voice"), sentences.DRAINING, "drained")


@pytest.mark.parametrize("path", ["voice?agent=nobody", "voice"])
async def test_a_retry_of_a_call_that_was_turned_away_hears_the_same_sentence(house, path):
    house.board.draining = True
    first = await house.twiml(path)
    house.board.draining = False
    again = await house.twiml(path)
    assert (again.verbs, again.said) == (first.verbs, first.said)
    assert await house.count() == 1
    assert house.board.live == 0


async def test_a_retry_of_a_call_that_was_talked_with_hangs_up(house):
    await house.call()
    await house.knock("status", CallStatus="completed")
    assert (await house.twiml("voice")).verbs == ["Hangup"]


# ---- full house


async def full(house):
    house.board.capacity = 0
    return await house.twiml("voice")


async def test_full_house_asks_for_a_number_and_the_row_waits_for_it(house):
    document = await full(house)
    call_id = (await house.row())["call_id"]
    assert document.verbs == ["Gather", "Redirect"]
    assert document.said == sentences.FULL_HOUSE
    assert document.root[0].get("action") == document.root[1].text == f"{PUBLIC}/twilio/left?call={call_id}"
    assert (await house.row())["state"] == "live"
    assert (await house.calls.find_by_sid(SID)).next_step is Intent.HANG_UP


@pytest.mark.parametrize(
    ("digits", "number"),
    [("5551230000", None), ("2125550100", "+12125550100"), ("442071838750", "+442071838750"), ("12125550100", "+12125550100")],
)
async def test_the_number_that_was_left_is_a_slot_of_the_row(house, digits, number):
    await full(house)
    call_id = (await house.row())["call_id"]
    house.now += 9_000
    document = await house.twiml(f"left?call={call_id}", Digits=digits, CallStatus="in-progress")
    assert document.verbs == ["Say", "Hangup"]
    row = await house.row()
    assert (row["outcome"], row["end_reason"], row["duration_ms"]) == ("turned_away", "full_house", 9_000)
    kept = number or f"+1{digits}"
    assert row["slots"]["callback_number"]["value"] == kept
    assert row["slots"]["callback_number"]["confirmed"] is False
    assert document.said == sentences.NUMBER_TAKEN
    again = await house.twiml(f"left?call={call_id}", Digits=digits, CallStatus="in-progress")
    assert again.said == document.said


@pytest.mark.parametrize("digits", [None, "", "12", "*", "5" * 40, "55512A0000", "٥٥٥١٢٣٠٠٠٠"])
async def test_without_a_number_the_row_says_only_that_we_were_full(house, digits):
    await full(house)
    call_id = (await house.row())["call_id"]
    document = await house.twiml(f"left?call={call_id}", Digits=digits)
    assert document.said == sentences.NO_NUMBER
    row = await house.row()
    assert (row["outcome"], row["end_reason"], row["slots"]) == ("turned_away", "full_house", {})


async def test_who_hangs_up_instead_leaves_a_row_as_well(house):
    await full(house)
    house.now += 4_000
    assert (await house.knock("status", CallStatus="completed", CallDuration="4")).status_code == 204
    row = await house.row()
    assert (row["outcome"], row["end_reason"], row["duration_ms"]) == ("turned_away", "full_house", 4_000)


async def test_a_retry_in_a_full_house_asks_for_the_number_again_although_there_is_room_now(house):
    first = await full(house)
    house.board.capacity = 10
    again = await house.twiml("voice")
    assert (again.verbs, again.said) == (first.verbs, first.said)
    assert house.board.live == 0


async def test_a_number_is_left_for_ones_own_call_only(house):
    await full(house)
    other = await house.call("CA" + "2" * 32, claimed=False)
    for call in (other, "", "nonsense"):
        assert (await house.knock(f"left?call={call}", Digits="2125550100")).status_code == 400
    assert (await house.row("CA" + "2" * 32))["state"] == "live"


async def test_far_above_it_is_busy_and_the_row_is_kept(database):
    house = House(database, REJECT_ABOVE="3")
    house.board.capacity = 1
    verbs = [(await house.twiml("voice", CallSid=f"CA{number:032d}")).verbs for number in range(5)]
    assert verbs == [["Connect", "Redirect"], ["Gather", "Redirect"], ["Gather", "Redirect"], ["Reject"], ["Reject"]]
    row = await house.row(f"CA{3:032d}")
    assert (row["state"], row["outcome"], row["end_reason"]) == ("final", "turned_away", "full_house")
    assert (await house.twiml("voice", CallSid=f"CA{3:032d}")).verbs == ["Reject"]
    house.now += 61_000  # who was turned away has hung up by now
    assert (await house.twiml("voice", CallSid=f"CA{9:032d}")).verbs == ["Gather", "Redirect"]


# ---- the fallback


async def test_a_call_that_never_reached_us_is_answered_at_the_fallback(house):
    document = await house.twiml("fallback", ErrorCode="11205", ErrorUrl=f"{PUBLIC}/twilio/voice?agent=sales")
    assert document.stream[1] == 1
    assert await house.count() == 1


async def test_a_live_call_goes_on_at_the_fallback(house):
    call_id = await house.call()
    document = await house.twiml("fallback", ErrorCode="11200", ErrorUrl="not an address \x00", CallStatus="in-progress")
    assert document.stream[:2] == (call_id, 2)
    assert ("moved_on", call_id, 2) in house.board.asked


async def test_a_call_to_be_hung_up_is_hung_up_at_the_fallback(house):
    call_id = await house.call()
    await house.calls.plan(call_id, 1, Intent.HANG_UP)
    assert (await house.twiml("fallback", CallStatus="in-progress")).verbs == ["Hangup"]


async def test_a_call_that_ended_is_finished_at_the_fallback(house):
    await house.call()
    assert (await house.twiml("fallback", CallStatus="completed")).verbs == []
    assert (await house.row())["state"] == "final"


@pytest.mark.parametrize(
    ("digits", "country", "number"),
    [
        ("3012345678", "49", "+493012345678"),
        ("03012345678", "49", "+493012345678"),
        ("2125550100", "1", "+12125550100"),
        ("123", "1", None),
        ("+12125550100", "1", None),
        ("", "1", None),
        ("00000000000000000000", "1", None),
    ],
)
def test_keys_are_a_number_only_if_it_can_be_dialled(digits, country, number):
    assert dialable(digits, country) == number


@pytest.mark.parametrize("hours", [-3, 3])
async def test_a_clock_that_is_set_makes_no_length_negative_and_no_caller_mute(house, hours):
    token = (await house.twiml("voice")).stream[2]
    house.now += hours * 3_600_000
    call_id = (await house.row())["call_id"]
    if hours > 0:  # its token is taken for an old one: the carrier asks what follows, and gets another
        assert not house.desk.tokens.check(token, call_id, 1, house.now)
    assert (await house.twiml("resume?epoch=1", CallStatus="in-progress")).stream[:2] == (call_id, 2)
    await house.knock("status", CallStatus="completed", CallDuration="4")
    row = await house.row()
    assert (row["state"], row["carrier_duration_s"]) == ("final", 4)
    assert row["duration_ms"] >= 0
