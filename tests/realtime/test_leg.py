import asyncio
import base64
import contextlib
import functools
import http
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.audio.path import audio_path
from app.call import events as e
from app.call.commands import Brief, CancelSpeech, CloseModel, FinishHearing, GiveResult, Speak, StopSpeaking, TakeOver
from app.call.disposition import Memory, Slot, Utterance
from app.errors import ModelUnavailable
from app.realtime import leg as leg_module
from app.realtime import socket
from app.realtime.leg import ModelLeg
from app.realtime.wire import FOR_NOW
from tests.realtime.scenery import AGENTS, DESK, HURRIED, OPTIONS, SALES, client_event, recorded

WAIT_S = 20
FRAME = bytes((i * 37 + 11) % 256 for i in range(160))


class Inbox:
    """What the leg posts."""

    def __init__(self) -> None:
        self.events: list[e.Event] = []
        self._queue: asyncio.Queue[e.Event] = asyncio.Queue()

    def post(self, event: e.Event) -> None:
        self.events.append(event)
        self._queue.put_nowait(event)

    async def next(self) -> e.Event:
        async with asyncio.timeout(WAIT_S):
            return await self._queue.get()

    async def until(self, kind: type[e.Event]) -> e.Event:
        while not isinstance(event := await self.next(), kind):
            pass
        return event


class Provider:
    """A real server that does what the test says. By itself it grants every session as it was asked."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.connections: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = granted
        self.refusal: tuple[int, bytes] | None = None
        self.before_update: list[bytes] = []
        self._news = asyncio.Event()

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.put_nowait(connection)
        for message in self.before_update:
            await connection.send(message.decode())
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                message = client_event(text.encode())  # whatever we send must be of the provider's own types
                self.received.append(message)
                self._news.set()
                if message["type"] == "session.update" and (answer := self.answer(message)) is not None:
                    await connection.send(json.dumps(answer))

    async def admit(self, connection: ServerConnection, _request: object) -> Any:
        if self.refusal is None:
            return None
        return connection.respond(http.HTTPStatus(self.refusal[0]), self.refusal[1].decode())

    async def got(self, count: int, kind: str | None = None) -> list[dict[str, Any]]:
        """The first so many messages (of a kind), once they have come."""
        async with asyncio.timeout(WAIT_S):
            while len(found := [m for m in self.received if kind in (None, m["type"])]) < count:
                self._news.clear()
                await self._news.wait()
        return found[:count]


def granted(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "session.updated", "event_id": "event_1", "session": message["session"]}


def refused(code: str, *, linked: bool = True) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def answer(message: dict[str, Any]) -> dict[str, Any]:
        error = {"type": "invalid_request_error", "code": code, "message": "No.", "param": None}
        return {"type": "error", "event_id": "event_1", "error": error | ({"event_id": message["event_id"]} if linked else {})}

    return answer


@contextlib.asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[str]:
    server = await serve(provider.handle, "127.0.0.1", 0, process_request=provider.admit, ping_interval=None, close_timeout=0.1)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime?model=gpt-realtime-2.1"


def a_leg(url: str, inbox: Inbox, path: str = "passthrough", **more: Any) -> ModelLeg:
    return ModelLeg(OPTIONS, audio_path(path), inbox.post, agents=AGENTS, url=url, api_key="sk-test", **more)


@contextlib.asynccontextmanager
async def talking(
    provider: Provider | None = None, *, agent: Any = DESK, path: str = "passthrough"
) -> AsyncIterator[tuple[ModelLeg, Provider, ServerConnection, Inbox]]:
    """A session that is open, with the server's side of it."""
    provider, inbox = provider or Provider(), Inbox()
    async with serving(provider) as url:
        leg = a_leg(url, inbox, path)
        try:
            await leg.open(agent)
            assert await inbox.next() == e.ModelReady()
            yield leg, provider, await provider.connections.get(), inbox
        finally:
            await leg.close()


# ---- opening


@pytest.mark.parametrize(("path", "kind"), [("passthrough", "audio/pcmu"), ("transcode", "audio/pcm")])
async def test_a_session_is_opened_configured_and_proved(path, kind):
    provider, inbox = Provider(), Inbox()
    provider.before_update = [recorded("session_created"), recorded("conversation_created")]
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


@pytest.mark.parametrize("linked", [True, False])
async def test_a_refused_session_fails_the_opening_whether_or_not_the_refusal_names_it(linked):
    provider, inbox = Provider(), Inbox()
    provider.answer = refused("unknown_parameter", linked=linked)
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        with pytest.raises(ModelUnavailable) as fault:
            await leg.open(DESK)
        leg.append(FRAME)
        leg.send(Speak())
        await leg.close()
    assert (fault.value.reason, fault.value.code, fault.value.retryable) == ("rejected_session", "unknown_parameter", False)
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
    monkeypatch.setattr(leg_module, "CONFIGURE_S", 0.05)
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
            Memory(agent="front-desk", slots=(Slot(name="name", value="Ann"),)),
        )
        kinds = [(m["type"], m.get("item", {}).get("role")) for m in await provider.got(5)]
        await leg.close()
    assert kinds == [
        ("session.update", None),
        ("conversation.item.create", "system"),
        ("conversation.item.create", "assistant"),
        ("conversation.item.create", "user"),
        ("input_audio_buffer.append", None),
    ]


# ---- the caller's sound


async def test_of_a_caller_who_speaks_before_the_proof_the_last_second_is_kept():
    provider, inbox = Provider(), Inbox()
    proof = asyncio.Event()
    provider.answer = lambda _: None
    frames = [bytes([i]) * 160 for i in range(75)]
    async with serving(provider) as url:
        leg = a_leg(url, inbox)
        for frame in frames[:25]:
            leg.append(frame)
        opening = asyncio.ensure_future(leg.open(DESK))
        [update] = await provider.got(1)
        for frame in frames[25:74]:
            leg.append(frame)
        assert len(provider.received) == 1, "nobody is heard before the proof"
        proof.set()
        await (await provider.connections.get()).send(json.dumps(granted(update)))
        await opening
        leg.append(frames[74])
        kept, live = await provider.got(2, "input_audio_buffer.append")
        await leg.close()
    assert base64.b64decode(kept["audio"]) == b"".join(frames[24:74])
    assert base64.b64decode(live["audio"]) == frames[74]
    assert leg.appended_ms == 1_020


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
    async with talking() as (leg, provider, _, inbox):
        provider.answer = refused("unknown_parameter")
        leg.send(TakeOver("sales"))
        assert await inbox.next() == e.ModelComplained("unknown_parameter")
        provider.answer = lambda m: granted(m | {"session": m["session"] | {"tools": [1, 2]}})
        leg.send(TakeOver("sales"))
        assert await inbox.next() == e.ModelComplained("other_tools")
        provider.answer = granted
        leg.send(TakeOver("front-desk"))
        leg.send(Brief("still there"))
        await provider.got(5)
    assert len(inbox.events) == 3


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
