"""Hostile and broken peers at the real doors: sockets without a token, two for one call, floods, giants, garbage.

Nothing of it costs another call anything. The whole service, on real sockets.
"""

import asyncio
import base64
import contextlib
import json
import time
from xml.etree import ElementTree

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app import switchboard
from app.store.calls import Calls
from app.store.engine import Database
from app.twilio import leg
from app.web import phone as doors
from tests.faults.in_process import FRAME, Phone, service, until
from tests.web.house import ACCOUNT, sign


@pytest.fixture
async def house(sqlite_url, tmp_path):
    async with service(sqlite_url, tmp_path) as house:
        yield house


async def row_of(url, sid):
    database = Database(url)
    try:
        async with asyncio.timeout(60):
            while (row := await Calls(database).row(sid)) is None or row["state"] != "final":
                await asyncio.sleep(0.05)
        return row
    finally:
        await database.close()


async def goes_on(phone, session):
    """The call is unharmed: it answers the next turn."""
    answers = session.answered
    await session.caller_says("are you still there")
    await phone.heard_out(session, answers + 1)
    assert session.answered > answers and not phone.lost


async def stream(house, parameters, *, sid="CA" + "1" * 32, account=ACCOUNT, **start):
    """A socket that says whose stream it would be; what became of it: its close code."""
    url = f"{house.url.replace('http', 'ws')}/twilio/media"
    async with connect(url, additional_headers={"x-twilio-signature": sign(url, ())}, proxy=None) as socket:
        await socket.send(json.dumps({"event": "connected"}))
        facts = {
            "accountSid": account,
            "streamSid": "MZ1",
            "callSid": sid,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        }
        await socket.send(json.dumps({"event": "start", "streamSid": "MZ1", "start": facts | start}))
        async with asyncio.timeout(60):
            await socket.wait_closed()
        return socket.close_code


def parameters_of(root):
    return {it.attrib["name"]: it.attrib["value"] for it in root.iter("Parameter")}


async def test_without_the_stream_token_of_this_call_nobody_gets_a_word_to_the_model(house, sqlite_url):
    phone, session = await house.call(1)
    await phone.heard_out(session, 1)
    waiting = Phone(house, f"CA{2:032d}")
    answer = await waiting.post("voice")
    theirs = parameters_of(document(answer))
    spent = parameters_of(phone.document)
    sessions = len(house.model.sessions)
    for parameters in (
        {},
        {"token": "x"},
        theirs | {"token": theirs["token"][:-1] + ("A" if theirs["token"][-1] != "A" else "B")},
        theirs | {"token": ""},
        theirs | {"token": theirs["token"] * 50},
        theirs | {"epoch": "2"},
        theirs | {"epoch": "-1"},
        theirs | {"epoch": "9" * 40},
        theirs | {"call_id": spent["call_id"]},
        theirs | {"call_id": "' OR 1=1 --\x00"},
        spent | {"token": theirs["token"]},
        spent,
    ):
        assert await stream(house, parameters, sid=waiting.sid) == 1008, parameters
    assert await stream(house, theirs, sid=phone.sid) == 1008
    assert await stream(house, theirs, sid=waiting.sid, account="AC" + "9" * 32) == 1008
    assert (
        await stream(house, theirs, sid=waiting.sid, mediaFormat={"encoding": "audio/wav", "sampleRate": 8000, "channels": 1})
        == 1008
    )
    assert len(house.model.sessions) == sessions
    await goes_on(phone, session)
    await waiting.follow(answer)  # its own token is still good
    await until(lambda: len(house.model.sessions) == sessions + 1)
    await waiting.hangs_up()
    await phone.hangs_up()


def document(answer):
    return ElementTree.fromstring(answer.content)


async def test_of_two_sockets_for_one_call_the_first_has_it(house, sqlite_url):
    phone = Phone(house, "CA" + "1" * 32)
    parameters = parameters_of(document(await phone.post("voice")))
    url = f"{house.url.replace('http', 'ws')}/twilio/media"
    both = await asyncio.gather(*(opened(phone, url, parameters) for _ in range(8)))
    await until(lambda: sum(socket.close_code == 1008 for socket in both) == 7)
    assert len(house.model.sessions) == 1
    await until(lambda: house.model.sessions[0].answered)
    for socket in both:
        await socket.close()
    phone.status = "completed"
    await phone.post("status", CallDuration="1")
    assert (await row_of(sqlite_url, phone.sid))["claimed_epoch"] == 1


async def opened(phone, url, parameters):
    socket = await connect(url, additional_headers={"x-twilio-signature": sign(url, ())}, proxy=None)
    facts = {"accountSid": ACCOUNT, "callSid": phone.sid, "customParameters": parameters}
    await socket.send(json.dumps({"event": "start", "streamSid": "MZ1", "start": facts}))
    return socket


async def test_garbage_in_a_stream_is_survived_by_its_own_call(house, sqlite_url):
    phone, session = await house.call()
    await phone.heard_out(session, 1)
    start = {"event": "start", "streamSid": "MZ9", "start": {"accountSid": ACCOUNT, "callSid": phone.sid}}
    deep = "[" * 30_000
    for text in (
        "",
        "{",
        "null",
        "[]",
        deep,
        '{"event":"media","media":{"payload":NaN}}',
        '{"event":"media","media":{"payload":"!!!!"}}',
        '{"event":"media","media":{"payload":"' + "A" * 60_000 + '"}}',
        '{"event":"mark","mark":{"name":"' + "9" * 300 + '"}}',
        '{"event":"mark","mark":{"name":"1.1.1"}}',
        '{"event":"dtmf","dtmf":{"digit":"11"}}',
        '{"event":"dance"}',
        json.dumps(start),
        json.dumps({"event": "connected"}),
        '{"event":"media","media":{"payload":"' + FRAME + '"},"sequenceNumber":' + "9" * 5_000 + "}",
    ):
        await phone.socket.send(text)
    await phone.socket.send(b"\x00\xff" * 5_000)
    await phone.socket.send(["frag", "ment", "ed"])
    await goes_on(phone, session)
    await phone.hangs_up()
    assert (await row_of(sqlite_url, phone.sid))["end_reason"] == "caller_hung_up"


async def test_a_giant_frame_ends_its_own_stream_and_no_other(house, sqlite_url):
    giant, _ = await house.call(1, caller="+15550000001")
    other, others = await house.call(2, caller="+15550000002")
    await other.heard_out(others, 1)
    with contextlib.suppress(ConnectionClosed):
        await giant.socket.send('{"event":"media","media":{"payload":"' + "A" * 70_000 + '"}}')
    await giant.closed()
    assert giant.socket.close_code == 1009
    await goes_on(other, others)
    await giant.goes_on()  # the carrier asks what follows: another stream
    assert giant.streams == 2
    for phone in (giant, other):
        await phone.hangs_up()
        assert (await row_of(sqlite_url, phone.sid))["state"] == "final"


async def test_sound_fifty_times_too_fast_is_cut_to_half_again_its_speed(house):
    began = time.monotonic()
    phone, session = await house.call()
    await phone.heard_out(session, 1)
    for _ in range(25):
        await phone.speaks(100)
    await goes_on(phone, session)
    took = time.monotonic() - began
    heard, most = house.model.heard, (took * leg.BYTES_A_SECOND * leg.FASTEST + leg.AHEAD) / 160
    assert 90 < heard <= most + 1
    await phone.hangs_up()


async def test_compression_is_not_agreed_to(house):
    url = f"{house.url.replace('http', 'ws')}/twilio/media"
    headers = {"x-twilio-signature": sign(url, ())}
    async with connect(url, additional_headers=headers, proxy=None, compression="deflate") as socket:
        assert "sec-websocket-extensions" not in socket.response.headers


async def test_sockets_that_say_nothing_are_closed_and_keep_nobody_waiting(house, monkeypatch):
    monkeypatch.setattr(leg, "START_WITHIN_S", 1.0)
    url = f"{house.url.replace('http', 'ws')}/twilio/media"
    idle = await asyncio.gather(*(connect(url, proxy=None) for _ in range(100)))
    phone, session = await house.call()
    await phone.heard_out(session, 1)
    async with asyncio.timeout(60):
        await asyncio.gather(*(socket.wait_closed() for socket in idle))
    assert {socket.close_code for socket in idle} == {1008}
    await goes_on(phone, session)
    await phone.hangs_up()


async def test_a_crowd_of_strangers_is_kept_before_the_door(sqlite_url, tmp_path, monkeypatch):
    monkeypatch.setattr(doors, "STRANGERS", 8)
    async with service(sqlite_url, tmp_path, MAX_CALLS="1") as house:
        url = f"{house.url.replace('http', 'ws')}/twilio/media"
        crowd = [await connect(url, proxy=None) for _ in range(10)]
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code == 403
        for socket in crowd:
            await socket.close()
        phone, session = await house.call()
        await phone.heard_out(session, 1)
        await phone.hangs_up()


async def test_a_stream_that_never_comes_holds_its_place_no_longer_than_its_token_lives(house, monkeypatch):
    monkeypatch.setattr(switchboard, "SLOT_S", 0.2)
    phone = Phone(house, "CA" + "1" * 32)
    for number in range(5):
        await Phone(house, f"CA{number + 10:032d}").post("voice")
    await asyncio.sleep(0.3)
    root = document(await phone.post("voice"))
    assert [verb.tag for verb in root] == ["Connect", "Redirect"]
    phone.status = "in-progress"
    for epoch in range(1, 4):  # and nothing comes: the carrier asks what follows, until we say that it is no use
        assert document(await phone.post(f"resume?epoch={epoch}")).find("Connect") is not None
    root = document(await phone.post("resume?epoch=4"))
    assert [verb.tag for verb in root] == ["Say", "Hangup"]


@pytest.mark.parametrize("capacity", [6])
async def test_many_who_call_at_once_are_taken_on_as_many_as_there_is_room_for(sqlite_url, tmp_path, capacity):
    async with service(sqlite_url, tmp_path, MAX_CALLS=str(capacity), REJECT_ABOVE="20") as house:
        phones = [Phone(house, f"CA{number:032d}", f"+1555{number:07d}") for number in range(40)]
        took = []

        async def rings(phone):
            began = time.monotonic()
            await phone.rings()
            took.append(time.monotonic() - began)

        await asyncio.gather(*(rings(phone) for phone in phones))
        verbs = [[verb.tag for verb in phone.document] for phone in phones]
        assert verbs.count(["Connect", "Redirect"]) == capacity
        assert verbs.count(["Gather", "Redirect"]) == 20 - capacity
        assert verbs.count(["Reject"]) == 20
        await until(lambda: sum(session.answered > 0 for session in house.model.sessions) == capacity)
        for phone in phones:
            if phone.socket is not None:
                await phone.hangs_up()
            else:
                phone.status = "completed"
                await phone.post("status", CallDuration="1")
    rows = await everything(sqlite_url)
    assert len(rows) == 40 and {row["state"] for row in rows} == {"final"}
    assert [row["end_reason"] for row in rows].count("full_house") == 40 - capacity


async def everything(url):
    database = Database(url)
    try:
        return await Calls(database).latest(1_000)
    finally:
        await database.close()


def test_a_frame_is_twenty_milliseconds():
    assert len(base64.b64decode(FRAME)) == 160
