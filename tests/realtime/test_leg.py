import asyncio
import base64
import contextlib
import functools

import pytest
from websockets.exceptions import ConnectionClosed

from app.call import events as e
from app.call.commands import Brief, CancelSpeech, CloseModel, FinishHearing, GiveResult, Speak, StopSpeaking, TakeOver
from app.errors import ModelUnavailable
from app.realtime import socket
from app.realtime.wire import FOR_NOW
from tests.realtime.provider import FRAME, WAIT_S, Inbox, a_leg, granted, refused, talking
from tests.realtime.scenery import DESK, HURRIED, SALES, recorded

# ---- the caller's sound


@pytest.mark.parametrize("path", ["passthrough", "transcode"])
async def test_every_frame_of_the_caller_goes_out_at_once_and_is_counted(path):
    async with talking(path=path) as (leg, provider, _, _):
        for _ in range(50):
            leg.append(FRAME)
        sent = await provider.got(50, "input_audio_buffer.append")
        sound = b"".join(base64.b64decode(message["audio"]) for message in sent)
        assert leg.appended_ms == len(sound) / (8 if path == "passthrough" else 48)
        assert 995 <= leg.appended_ms <= 1_000


@pytest.mark.parametrize(("path", "per_ms", "silence"), [("passthrough", 8, b"\xff"), ("transcode", 48, b"\x00")])
async def test_the_last_words_are_followed_by_silence_and_then_by_nothing(path, per_ms, silence):
    async with talking(path=path) as (leg, provider, connection, inbox):
        leg.append(FRAME)
        leg.send(FinishHearing())
        leg.append(FRAME)
        assert not leg._held
        leg.send(FinishHearing())
        leg.send(Brief("the end"))
        *_, last = [m for m in await provider.got(4) if m["type"] == "input_audio_buffer.append"]
        sound = base64.b64decode(last["audio"])
        assert sound.endswith(silence * (700 - 20) * per_ms)
        assert leg.appended_ms == 20 + 700
        assert len(provider.received) == 4
        await connection.send(recorded("transcription_completed_tokens").decode())
        assert isinstance(await inbox.next(), e.CallerTranscribed)


async def test_the_last_words_are_not_answered_by_a_provider_that_takes_the_turns():
    async with talking(agent=HURRIED) as (leg, provider, _, _):
        leg.send(FinishHearing())
        _, update, silence = await provider.got(3)
    assert update["session"]["audio"]["input"]["turn_detection"]["create_response"] is False
    assert silence["type"] == "input_audio_buffer.append"


# ---- orders


async def test_orders_go_out_in_order():
    async with talking() as (leg, provider, connection, inbox):
        await connection.send(recorded("audio_delta").decode())
        await inbox.next()
        for command in (
            CancelSpeech("resp_1"),
            StopSpeaking("item_agent_1", 15),
            GiveResult("call_1", "{}"),
            Brief("a fact"),
            Speak("Say goodbye."),
        ):
            leg.send(command)
        _, *sent = await provider.got(6)
    assert [message["type"] for message in sent] == [
        "response.cancel",
        "conversation.item.truncate",
        "conversation.item.create",
        "conversation.item.create",
        "response.create",
    ]
    assert sent[-1]["response"]["instructions"] == f"{DESK.instructions}\n\n{FOR_NOW}\nSay goodbye."


async def test_another_agent_takes_over_in_the_same_session():
    async with talking() as (leg, provider, _, inbox):
        leg.send(TakeOver("sales"))
        leg.send(Speak("Say hello."))
        _, update, speak = await provider.got(3)
        assert update["session"] == {"type": "realtime", "instructions": SALES.instructions, "tools": []}
        assert speak["response"]["instructions"].startswith(SALES.instructions)
    assert inbox.events == [e.ModelReady()]


async def test_a_takeover_that_is_refused_or_otherwise_than_asked_is_complained_of():
    async with talking() as (leg, provider, connection, inbox):
        provider.answer = refused("unknown_parameter")
        leg.send(TakeOver("sales"))
        assert await inbox.next() == e.ModelComplained("unknown_parameter")
        provider.answer = lambda m: granted(m | {"session": m["session"] | {"tools": [1, 2]}})
        leg.send(TakeOver("sales"))
        assert await inbox.next() == e.ModelComplained("other_tools")
        provider.answer = granted
        leg.send(TakeOver("front-desk"))
        await provider.got(4)
        await connection.send(recorded("committed").decode())
        assert await inbox.next() == e.CallerTurnCommitted("item_caller_1"), "and the third was as asked"


# ---- what comes back


async def test_what_the_model_says_comes_in_order():
    async with talking() as (_, _, connection, inbox):
        for name in ("response_created", "audio_delta", "transcript_delta", "audio_done", "output_item_done_tool", "response_done"):
            await connection.send(recorded(name).decode())
        said = [await inbox.next() for _ in range(6)]
    assert [type(event) for event in said] == [
        e.ResponseStarted,
        e.AgentAudio,
        e.AgentWords,
        e.AgentUtteranceEnded,
        e.ToolCalled,
        e.ResponseEnded,
    ]
    assert said[1].payload == FRAME


async def test_a_message_in_fragments_with_pings_between_is_one_message():
    async with talking() as (_, _, connection, inbox):
        text = recorded("response_done").decode()
        await connection.send([text[:50], text[50:60], text[60:]])
        pong = await connection.ping()
        async with asyncio.timeout(WAIT_S):
            await pong
        assert isinstance(await inbox.next(), e.ResponseEnded)


async def test_the_unknown_and_the_unreadable_are_counted_and_the_call_lives_on():
    async with talking() as (leg, _, connection, inbox):
        await connection.send(recorded("brand_new").decode())
        for _ in range(3):
            await connection.send('{"type":"response.done","response":"4111"}')
        await connection.send("4111")
        await connection.send(recorded("rate_limits_updated").decode())
        await connection.send(recorded("committed").decode())
        assert await inbox.next() == e.CallerTurnCommitted("item_caller_1")
        assert (leg.unknown_events, leg.bad_messages) == (1, 4)


async def test_an_error_that_ends_nothing_is_told_by_its_code():
    async with talking() as (leg, provider, connection, inbox):
        await connection.send(recorded("error_active_response").decode())
        assert await inbox.next() == e.ModelComplained("conversation_already_has_active_response")
        leg.send(Speak())
        await provider.got(1, "response.create")


async def test_nothing_private_is_in_the_log(capsys):
    async with talking() as (_, _, connection, inbox):
        await connection.send('{"type":"response.done","response":"4111"}')
        await connection.send('{"type":"error","error":{"type":"x","code":"4111 4111","message":"4111","event_id":"4111"}}')
        assert await inbox.next() == e.ModelComplained("unknown")
    seen = capsys.readouterr()
    assert "unreadable message from the model" in seen.out + seen.err
    assert "4111" not in seen.out + seen.err


# ---- the end


@pytest.mark.parametrize(
    ("code", "reason", "lost"),
    [
        (1000, "", e.ModelLost("closed_1000")),
        (1001, "Your session hit the maximum duration of 60 minutes.", e.ModelLost("session_expired")),
        (1001, "going away", e.ModelLost("closed_1001")),
        (1011, "", e.ModelLost("closed_1011")),
        (1012, "", e.ModelLost("closed_1012")),
        (1008, "", e.ModelLost("closed_1008", fatal=True)),
        (4000, "beta_api_shape_disabled", e.ModelLost("closed_4000", fatal=True)),
        (3000, "", e.ModelLost("closed_3000", fatal=True)),
    ],
)
async def test_a_session_that_is_closed_is_lost_once(code, reason, lost):
    async with talking() as (leg, _, connection, inbox):
        await connection.close(code, reason)
        assert await inbox.next() == lost
        leg.append(FRAME)
        leg.send(Speak())
        leg.send(CloseModel())
        await leg.close()
    assert inbox.events == [e.ModelReady(), lost]


async def test_a_session_that_expires_is_lost_once_though_it_is_said_twice():
    async with talking() as (_, _, connection, inbox):
        await connection.send(recorded("error_session_expired").decode())
        await connection.close(1001, "Your session hit the maximum duration of 60 minutes.")
        assert await inbox.next() == e.ModelLost("session_expired")
    assert inbox.events == [e.ModelReady(), e.ModelLost("session_expired")]


async def test_a_dropped_connection_is_a_lost_session():
    async with talking() as (_, _, connection, inbox):
        connection.transport.abort()
        assert await inbox.next() == e.ModelLost("dropped")
    assert len(inbox.events) == 2


async def test_a_provider_that_takes_no_more_audio_is_lost(monkeypatch):
    monkeypatch.setattr(socket, "connect", functools.partial(socket.connect, stall_s=0.2))
    async with talking() as (leg, _, connection, inbox):
        connection.transport.pause_reading()
        for _ in range(300):
            leg.append(FRAME * 250)
        assert await inbox.next() == e.ModelLost("stalled")


@pytest.mark.parametrize("by_command", [True, False])
async def test_a_session_that_we_end_is_not_lost(by_command):
    async with talking() as (leg, _, connection, inbox):
        if by_command:
            leg.send(CloseModel())
        await leg.close()
        await connection.wait_closed()
        assert connection.close_code == 1000
        leg.append(FRAME)
        leg.send(Speak())
    assert inbox.events == [e.ModelReady()]


async def test_what_comes_after_our_close_is_not_told():
    async with talking() as (leg, _, connection, inbox):
        leg.send(CloseModel())
        with contextlib.suppress(ConnectionClosed):
            await connection.send(recorded("committed").decode())
        await leg.close()
    assert inbox.events == [e.ModelReady()]


async def test_a_leg_that_was_never_opened_is_closed_without_harm():
    leg = a_leg("ws://127.0.0.1:9/", Inbox())
    leg.append(FRAME)
    await leg.close()
    with pytest.raises(ModelUnavailable):
        await leg.open(DESK)
