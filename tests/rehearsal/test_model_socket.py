"""The pretend model over a real socket: the door, the drop, and the process of its own."""

import asyncio
import base64
import contextlib
import json
import signal
import sys

import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from app.rehearsal.model import Model
from tests.rehearsal.contract import server_event_complaints
from tests.rehearsal.model_house import message

KEY = {"Authorization": "Bearer sk-anything"}
PATIENCE_S = 60.0


@contextlib.asynccontextmanager
async def running(script=None, speed=20.0):
    told = []
    model = Model(tell=told.append, script=script, speed=speed)
    await model.start()
    try:
        yield model, told
    finally:
        await model.close()


def address(model, query="?model=gpt-realtime-2.1"):
    return model.base_url.replace("http://", "ws://") + f"/realtime{query}"


async def receive(socket, kind):
    """Events until one of a type; all of them."""
    events = []
    async with asyncio.timeout(PATIENCE_S):
        while not events or events[-1]["type"] != kind:
            events.append(json.loads(await socket.recv()))
            assert server_event_complaints(events[-1]) == []
    return events


async def refusal(model, query="?model=gpt-realtime-2.1", headers=KEY):
    with pytest.raises(InvalidStatus) as refused:
        async with asyncio.timeout(PATIENCE_S), connect(address(model, query), additional_headers=headers):
            pass
    return refused.value.response.status_code, json.loads(refused.value.response.body)["error"]["code"]


async def test_a_session_over_a_socket():
    async with running() as (model, told), connect(address(model), additional_headers=KEY) as socket:
        created = await receive(socket, "conversation.created")
        assert created[0]["type"] == "session.created"
        assert created[0]["session"]["model"] == "gpt-realtime-2.1-rehearsal"
        await socket.send(json.dumps({"type": "session.update", "event_id": "u1", "session": {"type": "realtime"}}))
        await receive(socket, "session.updated")
        await socket.send(
            json.dumps({"type": "conversation.item.create", "item": message("user", "oh sorry i have the wrong number")})
        )
        await socket.send(json.dumps({"type": "response.create"}))
        events = await receive(socket, "response.done")
        assert (
            sum(len(base64.b64decode(event["delta"])) for event in events if event["type"] == "response.output_audio.delta")
            > 20_000
        )
        assert ("agent_says", "No problem. Goodbye!") in [(event["event"], event.get("text")) for event in told]
    assert {event["session"] for event in told} == {created[0]["session"]["id"]}


async def test_the_door():
    async with running() as (model, told):
        assert await refusal(model, headers={}) == (401, "missing_api_key")
        assert await refusal(model, headers={"Authorization": "Bearer "}) == (401, "missing_api_key")
        assert await refusal(model, headers={"Authorization": "Basic abc"}) == (401, "missing_api_key")
        assert await refusal(model, query="?call_id=rtc_1") == (404, "call_id_not_found")
        assert await refusal(model, query="") == (400, "missing_model")
        assert await refusal(model, query="/elsewhere?model=a") == (404, "not_found")
        assert told == []


async def test_the_dead_beta_is_told_so():
    async with running() as (model, _), connect(address(model), additional_headers=KEY | {"OpenAI-Beta": "realtime=v1"}) as socket:
        with pytest.raises(ConnectionClosedError) as closed:
            async with asyncio.timeout(PATIENCE_S):
                await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4000
        assert "beta_api_shape_disabled" in closed.value.rcvd.reason


async def test_each_connection_has_its_script():
    async with running('[{"refuse": 429}, {"refuse": 401}, null]') as (model, _):
        assert await refusal(model) == (429, "rate_limit_exceeded")
        assert await refusal(model) == (401, "invalid_api_key")
        async with connect(address(model), additional_headers=KEY) as socket:
            await receive(socket, "session.created")


async def test_a_drop_is_no_close():
    async with running('{"drop_after_deltas": 2}') as (model, told), connect(address(model), additional_headers=KEY) as socket:
        await receive(socket, "conversation.created")
        await socket.send(
            json.dumps({"type": "response.create", "response": {"instructions": 'Say: "one, two, three, four, five"'}})
        )
        with pytest.raises(ConnectionClosedError) as closed:
            await receive(socket, "response.done")
        assert closed.value.rcvd is None
        assert "session_closed" in [event["event"] for event in told] or await _soon(lambda: told[-1]["event"] == "session_closed")


async def _soon(true):
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)
    return True


async def test_an_expired_session_is_closed_with_the_known_reason():
    async with running('{"expire_ms": 50}') as (model, _), connect(address(model), additional_headers=KEY) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket, "never")
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "Your session hit the maximum duration of 60 minutes")


async def test_nonsense_on_the_socket_is_answered():
    async with running() as (model, _), connect(address(model), additional_headers=KEY) as socket:
        await receive(socket, "conversation.created")
        for nonsense in ("{", b"\x00\x01", "[]", '"a"', '{"type": 5}'):
            await socket.send(nonsense)
            assert (await receive(socket, "error"))[-1]["error"]["code"] == "missing_required_parameter"


async def test_openais_own_client_understands_every_word():
    kinds = []
    async with (
        running() as (model, _),
        AsyncOpenAI(base_url=model.base_url, api_key="any") as client,
        asyncio.timeout(PATIENCE_S),
        client.realtime.connect(model="gpt-realtime-2.1") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "instructions": "Be kind."})
        await connection.conversation.item.create(item=message("user", "oh sorry i have the wrong number"))
        await connection.response.create()
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.done":
                break
    assert event.response.status == "completed"
    assert event.response.output[0].content[0].transcript == "No problem. Goodbye!"
    assert "session.updated" in kinds and "error" not in kinds


async def test_sessions_run_side_by_side():
    async with running() as (model, _):

        async def speak(text):
            async with connect(address(model), additional_headers=KEY) as socket:
                await socket.send(json.dumps({"type": "response.create", "response": {"instructions": f'Say: "{text}"'}}))
                events = await receive(socket, "response.done")
                return next(event["transcript"] for event in events if event["type"] == "response.output_audio_transcript.done")

        texts = [f"This is number {number}." for number in range(5)]
        assert await asyncio.gather(*map(speak, texts)) == texts


async def _start(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.rehearsal.model", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def _ended(process):
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    return process.returncode, [json.loads(line) for line in out.splitlines()]


async def test_the_process_says_where_it_is_and_what_goes_on_and_ends_with_its_input(tmp_path):
    process = await _start("--log", str(tmp_path / "model.log"))
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        ready = json.loads(await process.stdout.readline())
    assert ready["event"] == "ready" and ready["base_url"].startswith("http://127.0.0.1:") and ready["base_url"].endswith("/v1")
    async with connect(ready["base_url"].replace("http", "ws", 1) + "/realtime?model=m", additional_headers=KEY) as socket:
        await receive(socket, "conversation.created")
    code, events = await _ended(process)
    assert code == 0
    assert [event["event"] for event in events] == ["session_opened", "session_closed"]
    logged = [json.loads(line) for line in (tmp_path / "model.log").read_text().splitlines()]
    assert logged == [ready, *events]


async def test_the_process_ends_on_a_signal_even_with_a_session_open():
    process = await _start()
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        ready = json.loads(await process.stdout.readline())
        async with connect(ready["base_url"].replace("http", "ws", 1) + "/realtime?model=m", additional_headers=KEY) as socket:
            await receive(socket, "conversation.created")
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await receive(socket, "never")
    assert (await _ended(process))[0] == 0


async def test_a_wrong_script_stops_the_process_before_it_listens():
    with pytest.raises(Exception, match="dance"):
        Model(tell=print, script='{"dance": 1}')
