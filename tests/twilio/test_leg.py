"""The caller's leg over a scripted socket: what it makes of good and bad messages."""

import asyncio
import json

import anyio
import pytest

from app.call.commands import ClearPlayout, PlayAudio, SendMark
from app.call.events import DigitPressed, MarkReturned, StreamEnded
from app.errors import BadCarrierMessage
from app.twilio import leg as leg_module
from app.twilio.leg import CallerLeg
from tests.twilio.test_wire import recorded


class Socket:
    """An ASGI socket whose peer sends what it is told and then goes."""

    def __init__(self, *messages: str | bytes | dict, patient: bool = False) -> None:
        self._messages = [
            message if isinstance(message, dict)
            else {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}
            for message in messages
        ]  # fmt: skip
        self._patient = patient
        self.sent: list[dict] = []

    async def receive(self):
        if self._messages:
            return self._messages.pop(0)
        if self._patient:
            await asyncio.Event().wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message):
        self.sent.append(message)


async def met(*messages, **more) -> tuple[CallerLeg, Socket]:
    socket = Socket(recorded("connected"), recorded("start"), *messages, **more)
    leg = CallerLeg(socket.receive, socket.send)
    await leg.meet()
    return leg, socket


async def pumped(leg: CallerLeg):
    events, heard = [], []
    await leg.pump(events.append, heard.append)
    return events, b"".join(heard)


async def test_everything_a_stream_says_reaches_the_call_in_order():
    leg, _ = await met(recorded("media_20ms"), recorded("mark"), recorded("dtmf"), recorded("media_20ms"), recorded("stop"))
    events, heard = await pumped(leg)
    assert events == [MarkReturned("0.7.4960"), DigitPressed("1"), StreamEnded(clean=True)]
    assert heard == bytes(range(160)) * 2


async def test_a_socket_that_breaks_is_an_unclean_end():
    leg, _ = await met(recorded("media_20ms"))
    events, _ = await pumped(leg)
    assert events == [StreamEnded(clean=False)]


async def test_garbage_is_counted_and_survived():
    garbage = ["{", '{"event":"dance"}', b"\x00\x01", "x" * 70_000, recorded("start"), '{"event":"media","media":{"payload":"!"}}']
    leg, _ = await met(*garbage, recorded("media_20ms"), recorded("stop"))
    events, heard = await pumped(leg)
    assert events == [StreamEnded(clean=True)] and len(heard) == 160
    assert leg.faults == {"malformed": 1, "unknown": 1, "binary": 1, "oversize": 1, "repeated": 1, "media": 1}


async def test_sound_faster_than_it_can_have_been_spoken_is_dropped_and_counted():
    leg, _ = await met(*[recorded("media_20ms")] * 1_000, recorded("stop"))
    _, heard = await pumped(leg)
    assert len(heard) <= 3 * 8_000  # two seconds ahead, and what passed meanwhile
    assert leg.faults["flood"] >= 1_000 - 150


@pytest.mark.parametrize("first", [recorded("media_20ms"), recorded("mark"), "garbage", recorded("stop")])
async def test_a_socket_that_does_not_begin_with_its_start_is_refused(first):
    socket = Socket(recorded("connected"), first, patient=True)
    with pytest.raises(BadCarrierMessage):
        await CallerLeg(socket.receive, socket.send).meet()


async def test_a_socket_that_says_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(leg_module, "START_WITHIN_S", 0.05)
    socket = Socket(recorded("connected"), patient=True)
    with pytest.raises(BadCarrierMessage, match="late start"):
        await CallerLeg(socket.receive, socket.send).meet()


async def test_a_socket_that_only_says_hello_is_refused():
    socket = Socket(*[recorded("connected")] * 50, patient=True)
    with pytest.raises(BadCarrierMessage, match="absent start"):
        await CallerLeg(socket.receive, socket.send).meet()


async def test_orders_carry_the_streams_own_sid():
    leg, socket = await met(patient=True)
    pumping = asyncio.create_task(leg.pump(lambda event: None, lambda mulaw: None))
    for command in (PlayAudio("u", b"\x00" * 160, 160), SendMark("0.1.160"), ClearPlayout()):
        leg.send(command)
    with anyio.fail_after(20):
        while len(socket.sent) < 3:
            await asyncio.sleep(0)
    pumping.cancel()
    assert [json.loads(message["text"])["event"] for message in socket.sent] == ["media", "mark", "clear"]
    assert {json.loads(message["text"])["streamSid"] for message in socket.sent} == {"MZ18ad3ab5a668481ce02b83e7395059f0"}


async def test_nothing_is_sent_after_the_end():
    leg, socket = await met()
    await leg.close()
    leg.send(ClearPlayout())
    await leg.close()
    assert [message["type"] for message in socket.sent] == ["websocket.close"]


async def test_a_socket_that_is_gone_while_we_write_does_not_raise():
    leg, _ = await met(patient=True)
    tried = asyncio.Event()

    async def gone(_message):
        tried.set()
        raise RuntimeError("socket closed")

    leg._send = gone
    pumping = asyncio.create_task(leg.pump(lambda event: None, lambda mulaw: None))
    leg.send(ClearPlayout())
    with anyio.fail_after(20):
        await tried.wait()
    await leg.close()
    pumping.cancel()


async def test_a_peer_that_reads_nothing_cannot_keep_us_from_closing(monkeypatch):
    monkeypatch.setattr(leg_module, "CLOSE_S", 0.05)
    aborted = []

    class Tap:
        class transport:
            abort = staticmethod(lambda: aborted.append(True))

    async def stuck(_message):
        await asyncio.Event().wait()

    leg = CallerLeg(Socket().receive, stuck, Tap())
    with anyio.fail_after(20):
        await leg.close()
    assert aborted == [True]
