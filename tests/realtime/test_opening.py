import asyncio
import base64
import json
import time
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from app.call import events as e
from app.call.commands import FinishHearing, Recall, Speak
from app.call.conversation import Said, Used
from app.call.disposition import Slot, Utterance
from app.errors import ModelUnavailable
from app.realtime import leg as leg_module
from app.realtime import socket
from tests.realtime.provider import FRAME, Inbox, Provider, a_leg, granted, refused, serving, talking
from tests.realtime.scenery import DESK, SALES, recorded

# ---- opening


@pytest.mark.parametrize(("path", "kind"), [("passthrough", "audio/pcmu"), ("transcode", "audio/pcm")])
async def test_a_session_is_opened_configured_and_proved(path, kind):
    provider, inbox = Provider(), Inbox()
    provider.before_update = [recorded("session_created"), recorded("conversation_created"), recorded("speech_started")]
    async with serving(provider) as url:
        leg = a_leg(url, inbox, path, safety_identifier="hash-of-somebody")
        await leg.open(DESK)
        assert inbox.events == [e.ModelReady()]
        [update] = await provider.got(1)
        assert update["session"]["audio"]["input"]["format"]["type"] == kind
        headers = (await provider.connections.get()).request.headers
        assert headers["Authorization"] == "Bearer sk-test"
        assert headers["OpenAI-Safety-Identifier"] == "hash-of-somebody"
        assert "OpenAI-Beta" not in headers
        await leg.close()


async def test_without_a_safety_identifier_none_is_sent():
    async with talking() as (_, _, connection, _):
        assert "OpenAI-Safety-Identifier" not in connection.request.headers


ERROR = b'{"error":{"type":"invalid_request_error","code":"%s","message":"No."}}'


@pytest.mark.parametrize(
    ("status", "body", "code", "retryable"),
    [
        (401, ERROR % b"invalid_api_key", "invalid_api_key", False),
        (401, b"", "http_401", False),
        (403, b"<html>", "http_403", False),
        (404, ERROR % b"model_not_found", "model_not_found", False),
        (429, ERROR % b"rate_limit_exceeded", "rate_limit_exceeded", True),
        (429, ERROR % b"insufficient_quota", "insufficient_quota", False),
        (500, b'{"error":"what"}', "http_500", True),
        (503, ERROR % b"said: my card is 4111", "http_503", True),
        (302, b"", "http_302", False),
    ],
)
async def test_a_refused_upgrade_says_why_and_whether_to_try_again(status, body, code, retryable):
    provider, inbox = Provider(), Inbox()
    provider.refusal = status, body
    async with serving(provider) as url:
        with pytest.raises(ModelUnavailable) as fault:
            await a_leg(url, inbox).open(DESK)
    assert (fault.value.reason, fault.value.code, fault.value.retryable) == ("refused", code, retryable)
    assert inbox.events == []


async def test_nobody_there_is_worth_another_try():
    async with serving(Provider()) as url:
        pass
    with pytest.raises(ModelUnavailable, match="unreachable") as fault:
        await a_leg(url, Inbox()).open(DESK)
    assert fault.value.retryable


@pytest.mark.parametrize(
    ("code", "retryable"), [("unknown_parameter", False), ("server_error", True), ("rate_limit_exceeded", True)]
)
@pytest.mark.parametrize("linked", [True, False])
async def test_a_refused_session_fails_the_opening_whether_or_not_the_refusal_names_it(linked, code, retryable):
    provider, inbox = Provider(), Inbox()
    provider.answer = refused(code, linked=linked)
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        with pytest.raises(ModelUnavailable) as fault:
            await leg.open(DESK)
        leg.append(FRAME)
        assert not leg._held
        leg.send(Speak())
        await leg.close()
    assert (fault.value.reason, fault.value.code, fault.value.retryable) == ("rejected_session", code, retryable)
    assert inbox.events == []
    assert [message["type"] for message in provider.received] == ["session.update"]


async def test_a_voice_that_cannot_be_changed_is_not_insisted_on():
    provider = Provider()
    provider.answer = lambda m: refused("cannot_update_voice")(m) if "voice" in m["session"]["audio"]["output"] else granted(m)
    async with talking(provider):
        first, second = await provider.got(2, "session.update")
    del first["session"]["audio"]["output"]["voice"]
    assert first["session"] == second["session"]
    assert first["event_id"] != second["event_id"]


@pytest.mark.parametrize(
    ("where", "value", "code"),
    [
        (("audio", "input", "format"), {"type": "audio/pcm", "rate": 24_000}, "other_input_format"),
        (("audio", "output", "format"), {"type": "audio/pcm", "rate": 24_000}, "other_output_format"),
        (("audio", "input", "turn_detection"), {"create_response": True, "interrupt_response": True}, "other_turn_detection"),
        (("tools",), [], "other_tools"),
    ],
)
async def test_a_session_otherwise_than_asked_is_none(where, value, code):
    def otherwise(message: dict[str, Any]) -> dict[str, Any]:
        at = message["session"]
        for step in where[:-1]:
            at = at[step]
        at[where[-1]] = value
        return granted(message)

    provider, inbox = Provider(), Inbox()
    provider.answer = otherwise
    async with serving(provider) as url:
        with pytest.raises(ModelUnavailable) as fault:
            await a_leg(url, inbox).open(DESK)
    assert (fault.value.reason, fault.value.code) == ("rejected_session", code)
    assert inbox.events == []


async def test_a_provider_that_never_answers_the_update_is_given_up(monkeypatch):
    monkeypatch.setattr(leg_module, "READY_WITHIN_S", 0.3)
    provider = Provider()
    provider.answer = lambda _: None
    async with serving(provider) as url:
        with pytest.raises(ModelUnavailable) as fault:
            await a_leg(url, Inbox()).open(DESK)
        connection = await provider.connections.get()
        await connection.wait_closed()
    assert (fault.value.reason, fault.value.code, fault.value.retryable) == ("timeout", "session_update", True)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("code", "retryable"), [(1011, True), (4000, False)])
async def test_a_close_before_the_proof_fails_the_opening(at_once, code, retryable):
    provider, inbox = Provider(), Inbox()
    provider.answer = lambda _: None

    async def close(connection: ServerConnection) -> None:
        if not at_once:
            await provider.got(1)
        await connection.close(code)

    async with serving(provider) as url:
        opening = asyncio.ensure_future(a_leg(url, inbox).open(DESK))
        await close(await provider.connections.get())
        with pytest.raises(ModelUnavailable) as fault:
            await opening
    assert (fault.value.reason, fault.value.code, fault.value.retryable) == ("closed", f"closed_{code}", retryable)
    assert inbox.events == []


async def test_a_close_that_overtakes_our_first_word_fails_the_opening(monkeypatch):
    connect = socket.connect

    async def connect_late(*args: Any, **more: Any) -> socket.Socket:
        opened = await connect(*args, **more)
        await opened.closed
        return opened

    monkeypatch.setattr(socket, "connect", connect_late)
    provider, inbox = Provider(), Inbox()
    async with serving(provider) as url:
        opening = asyncio.ensure_future(a_leg(url, inbox).open(DESK))
        await (await provider.connections.get()).close(1013)
        with pytest.raises(ModelUnavailable, match="closed_1013"):
            await opening
    assert inbox.events == []


async def test_a_session_that_is_proved_and_gone_at_once_is_never_ready():
    inbox = Inbox()
    async with serving(Provider()) as url:
        leg = a_leg(url, inbox)
        heard = leg._heard

        def heard_and_closed(message: bytes) -> None:
            heard(message)
            leg._closed(1011, "")

        leg._heard = heard_and_closed
        with pytest.raises(ModelUnavailable, match="closed_1011"):
            await leg.open(DESK)
    assert inbox.events == []


async def test_a_call_that_answers_ready_at_once_is_heard():
    provider, inbox = Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        leg._post = lambda _: leg.send(Speak())
        await leg.open(DESK)
        await provider.got(1, "response.create")
        await leg.close()


async def test_an_expired_session_before_the_proof_fails_the_opening():
    provider = Provider()
    provider.answer = lambda _: json.loads(recorded("error_session_expired"))
    async with serving(provider) as url:
        with pytest.raises(ModelUnavailable) as fault:
            await a_leg(url, Inbox()).open(DESK)
    assert (fault.value.reason, fault.value.code) == ("closed", "session_expired")


async def test_we_may_hang_up_while_the_session_is_being_opened():
    provider, inbox = Provider(), Inbox()
    provider.answer = lambda _: None
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        opening = asyncio.ensure_future(leg.open(DESK))
        await provider.got(1)
        await leg.close()
        with pytest.raises(ModelUnavailable, match="by_us"):
            await opening
    assert inbox.events == []


async def test_we_may_hang_up_before_there_is_a_connection():
    provider, inbox = Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        opening = asyncio.ensure_future(leg.open(DESK))
        await asyncio.sleep(0)
        await leg.close()
        with pytest.raises(ModelUnavailable, match="by_us"):
            await opening
        await (await provider.connections.get()).wait_closed()
    assert provider.received == []


async def test_an_opening_that_is_given_up_leaves_no_connection():
    provider = Provider()
    provider.answer = lambda _: None
    async with serving(provider) as url:
        opening = asyncio.ensure_future(a_leg(url, Inbox()).open(DESK))
        connection = await provider.connections.get()
        await provider.got(1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await connection.wait_closed()


async def test_a_call_that_goes_on_is_told_before_anybody_is_heard():
    provider, inbox = Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        leg.append(FRAME)
        await leg.open(
            DESK,
            [
                Utterance(key="a", speaker="agent", started_at=0, ended_at=1, heard="Good morning."),
                Utterance(key="b", speaker="caller", started_at=2, ended_at=3, heard="My tap drips."),
            ],
        )
        kinds = [(m["type"], m.get("item", {}).get("role")) for m in await provider.got(4)]
        await leg.close()
    assert kinds == [
        ("session.update", None),
        ("conversation.item.create", "assistant"),
        ("conversation.item.create", "user"),
        ("input_audio_buffer.append", None),
    ]


async def test_what_the_call_recalls_when_it_is_ready_comes_before_what_the_caller_said_meanwhile():
    provider, inbox = Provider(), Inbox()
    recall = Recall((Slot(name="name", value="Ann"),), (Said(True, "My tap drips."), Used("call_1", "look_up", "{}", None)))
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        leg.append(FRAME)
        leg._post = lambda _: leg.send(recall)
        await leg.open(DESK)
        _, *items, heard = await provider.got(5)
        await leg.close()
    assert [(m["item"]["type"], m["item"].get("role")) for m in items] == [
        ("message", "system"),
        ("message", "user"),
        ("function_call", None),
    ]
    assert heard["type"] == "input_audio_buffer.append"


async def test_a_session_is_asked_for_in_the_voice_that_the_caller_knows():
    provider, inbox = Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        await leg.open(SALES, voice="marin")
        [update] = await provider.got(1)
        await leg.close()
    assert SALES.voice == "cedar" and update["session"]["audio"]["output"]["voice"] == "marin"


@pytest.mark.parametrize(
    ("ends_in_s", "lasts"), [(3_600, True), (None, False), (0, False), (-50, False), (10_000_000, False), ("soon", False)]
)
@pytest.mark.parametrize("told", ["created", "updated"])
async def test_how_long_a_session_will_last_is_taken_from_the_provider_if_it_can_be_believed(told, ends_in_s, lasts):
    expires_at = time.time() + ends_in_s if isinstance(ends_in_s, int) and ends_in_s else ends_in_s
    provider, inbox = Provider(), Inbox()
    if told == "created":
        provider.before_update = [json.dumps({"type": "session.created", "session": {"expires_at": expires_at}}).encode()]
    else:
        provider.answer = lambda m: granted(m | {"session": m["session"] | {"expires_at": expires_at}})
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        await leg.open(DESK)
        await leg.close()
    [ready] = inbox.events
    assert (ready.lasts_ms is not None) == lasts
    if lasts:
        assert 3_500_000 < ready.lasts_ms <= 3_600_000


async def test_of_a_caller_who_speaks_before_the_proof_the_last_second_is_kept():
    provider, inbox = Provider(), Inbox()
    provider.answer = lambda _: None
    frames = [bytes([i]) * 160 for i in range(75)]
    async with serving(provider) as url:
        leg = a_leg(url, inbox, hold_ms=1_000)
        for frame in frames[:25]:
            leg.append(frame)
        opening = asyncio.ensure_future(leg.open(DESK))
        [update] = await provider.got(1)
        for frame in frames[25:74]:
            leg.append(frame)
        assert len(provider.received) == 1, "nobody is heard before the proof"
        await (await provider.connections.get()).send(json.dumps(granted(update)))
        await opening
        leg.append(frames[74])
        leg.append(FRAME)
        leg.append(FRAME)
        sent = [base64.b64decode(m["audio"]) for m in await provider.got(4, "input_audio_buffer.append")]
        await leg.close()
    assert b"".join(sent) == b"".join(frames[24:75]) + 2 * FRAME, "nothing is lost, doubled or out of order"
    assert [len(piece) // 8 for piece in sent] == [400, 400, 240, 20], "it catches up, and is live again"


async def test_what_was_kept_is_told_to_have_been_spoken_when_it_was_and_not_when_it_is_heard():
    provider, inbox = Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox, hold_ms=30_000)
        leg.append(FRAME * 100)
        await leg.open(DESK)
        await inbox.next()
        connection = await provider.connections.get()
        await provider.got(1, "input_audio_buffer.append")
        # The detector's word includes the 300 ms before the speech, so it began with the 300th millisecond of two seconds.
        started = {"type": "input_audio_buffer.speech_started", "event_id": "e", "audio_start_ms": 0, "item_id": "item_1"}
        await connection.send(json.dumps(started))
        assert await inbox.next() == e.CallerSpeechStarted("item_1", ago_ms=1_700)
        await leg.close()


async def test_last_words_that_were_still_waiting_are_heard_before_the_silence():
    provider, inbox = Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox, hold_ms=30_000)
        leg.append(FRAME * 100)
        await leg.open(DESK)
        leg.send(FinishHearing())
        sent = [base64.b64decode(m["audio"]) for m in await provider.got(6, "input_audio_buffer.append")]
        await leg.close()
    assert b"".join(sent[:-1]) == FRAME * 100 and set(sent[-1]) == {0xFF}
