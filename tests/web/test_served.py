"""The doors behind the real server: what uvicorn makes of addresses, headers and upgrades is what we check signatures over."""

import asyncio
import contextlib
from urllib.parse import urlencode

import httpx2
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.web import sentences
from app.web.sockets import GuardedHttp
from tests.web.house import PUBLIC, SID, STANDARD, Document, sign

WIDE = 30.0
SOCKET = "wss://calls.example.com/twilio/media"


@pytest.fixture
async def port(sqlite_house):
    config = uvicorn.Config(
        sqlite_house.app, port=0, http=GuardedHttp, ws="websockets-sansio", lifespan="off", log_config=None, proxy_headers=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(WIDE):
        while not server.started:
            await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    async with asyncio.timeout(WIDE):
        await serving


@contextlib.asynccontextmanager
async def carrier(port):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WIDE, trust_env=False) as client:
        yield client


def signed(path, **fields):
    form = {**STANDARD, **fields}
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
        "x-twilio-signature": sign(f"{PUBLIC}/twilio/{path}", form.items()),
    }
    return {"url": f"/twilio/{path}", "content": urlencode(form), "headers": headers}


async def test_a_call_comes_in_and_its_stream_is_let_through(sqlite_house, port):
    async with carrier(port) as client:
        answer = await client.post(**signed("voice?agent=sales"))
        assert Document(answer.content).stream[1] == 1
        answer = await client.post(**signed("resume?epoch=1", CallStatus="in-progress"))
        assert Document(answer.content).stream[1] == 2
    async with connect(
        f"ws://127.0.0.1:{port}/twilio/media", additional_headers={"x-twilio-signature": sign(SOCKET, ())}, proxy=None
    ) as socket:
        await socket.wait_closed()
    assert ("media", "/twilio/media") in sqlite_house.board.asked


@pytest.mark.parametrize("headers", [{"x-twilio-signature": "A" * 27 + "="}, [("x-twilio-signature", sign(SOCKET, ()))] * 2])
async def test_a_wrong_upgrade_is_403_and_reaches_nobody(sqlite_house, port, headers):
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{port}/twilio/media", additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == 403
    assert sqlite_house.board.asked == []


async def test_without_a_signature_nothing_is_touched(sqlite_house, port):
    async with carrier(port) as client:
        for path in ("voice", "resume?epoch=1", "status", "fallback", "left?call=x", "stream-status"):
            request = signed(path)
            del request["headers"]["x-twilio-signature"]
            assert (await client.post(**request)).status_code == 403
            assert (await client.get(f"/twilio/{path}")).status_code == 405
    assert sqlite_house.calls.asked == []


async def test_two_hundred_calls_at_once_are_two_hundred_rows_or_sentences_and_never_an_error(sqlite_house, port):
    sqlite_house.board.capacity = 150

    async with carrier(port) as client:
        answers = await asyncio.gather(*(client.post(**signed("voice", CallSid=f"CA{number:032d}")) for number in range(200)))
    documents = [Document(answer.content) for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    said = [document for document in documents if document.said]
    assert len(documents) - len(said) <= 150
    assert {document.said for document in said} <= {sentences.FULL_HOUSE, sentences.OUT_OF_ORDER}
    assert sqlite_house.board.live <= 150
    streams = [document.stream[0] for document in documents if not document.said]
    assert len(set(streams)) == len(streams)


async def test_the_headers_a_stranger_may_send_say_nothing(sqlite_house, port):
    async with carrier(port) as client:
        request = signed("voice")
        request["headers"] |= {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "forwarded": "host=evil.example"}
        answer = await client.post(**request)
    assert answer.status_code == 200
    assert b"evil" not in answer.content
    assert (await sqlite_house.row(SID))["state"] == "live"
