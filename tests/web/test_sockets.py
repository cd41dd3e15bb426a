"""The table of the threat model, against a real uvicorn on loopback. Limits are short here, bounds on waiting wide."""

import asyncio
import contextlib
import threading
import time

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from app.web.guard import BodyGuard
from app.web.sockets import GuardedHttp

SHORT = 0.4
LONG = 60
WIDE = 20.0
"""A connection that the guard does not cut would stay open for ever; a busy machine gets this long to cut it."""


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        while message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
            message = await receive()
        return
    message = await receive()
    await PlainTextResponse(str(len(message["body"])))(scope, receive, send)


@contextlib.contextmanager
def serving(*, head, body, keep_alive=LONG):
    """A real server in a thread of its own; its port."""

    class Http(GuardedHttp):
        head_seconds = head

    config = uvicorn.Config(
        BodyGuard(application, seconds=body),
        port=0,
        http=Http,
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    give_up = time.monotonic() + WIDE
    while not server.started:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(WIDE)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def port():
    """A patient server: what it cuts, it cuts for its size."""
    with serving(head=LONG, body=LONG) as port:
        yield port


@pytest.fixture(scope="module")
def hasty():
    """A server that waits for nothing."""
    with serving(head=SHORT, body=LONG, keep_alive=1) as port:
        yield port


@pytest.fixture(scope="module")
def hasty_for_bodies():
    with serving(head=LONG, body=SHORT, keep_alive=1) as port:
        yield port


async def until_closed(reader):
    """What came until the other side closed or cut the connection."""
    came = b""
    async with asyncio.timeout(WIDE):
        try:
            while chunk := await reader.read(65_536):
                came += chunk
        except ConnectionError:
            pass
    return came


async def drip(writer, pieces):
    """Send piece by piece until nobody takes it any more."""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(SHORT / 8)
    except ConnectionError:
        return


@contextlib.asynccontextmanager
async def connection(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def sent(port, *pieces, slowly=()):
    """Send the pieces at once, the others drop by drop; what came back until the connection was closed."""
    async with connection(port) as (reader, writer):
        dripping = asyncio.create_task(drip(writer, slowly))
        try:
            writer.writelines(pieces)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            return await until_closed(reader)
        finally:
            dripping.cancel()
            await asyncio.wait([dripping])


POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
AGES = 10_000


async def test_a_plain_request_is_answered(port):
    answer = await sent(port, POST + b"content-length: 3\r\nconnection: close\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"3")


async def test_a_connection_without_bytes_is_cut(hasty):
    assert await sent(hasty) == b""


async def test_a_head_that_comes_in_drops_is_cut(hasty):
    assert await sent(hasty, POST, slowly=[b"x: y\r\n"] * AGES) == b""
    assert await sent(hasty, b"GET /", slowly=[b"x"] * AGES) == b""


async def test_empty_lines_before_a_request_do_not_keep_it_open(hasty):
    assert await sent(hasty, slowly=[b"\r\n"] * AGES) == b""


async def test_a_body_that_comes_in_drops_is_told_so(hasty_for_bodies):
    answer = await sent(hasty_for_bodies, POST + b"content-length: 5000\r\n\r\n", slowly=[b"x"] * AGES)
    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_large_chunked_body_is_refused_long_before_its_end(port):
    block = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    answer = await sent(port, POST + b"transfer-encoding: chunked\r\n\r\n", *[block] * 1_000)
    # cut while we still send, or answered first: never taken
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413")


async def test_a_large_body_that_is_announced_is_refused_before_it_is_sent(port):
    answer = await sent(port, POST + b"content-length: 1000000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_head_without_end_is_cut(port):
    assert await sent(port, POST, *[b"x: " + b"y" * 8_000 + b"\r\n"] * 2_000) == b""
    assert await sent(port, b"GET /", *[b"y" * 8_000] * 2_000) == b""


async def test_trailers_without_end_are_cut(port):
    trailers = [b"x: " + b"y" * 8_000 + b"\r\n"] * 2_000
    answer = await sent(port, POST + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", *trailers)
    assert not answer.startswith(b"HTTP/1.1 200")


async def test_an_idle_connection_is_closed_after_its_answer(hasty_for_bodies):
    answer = await sent(hasty_for_bodies, POST + b"content-length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_second_request_in_drops_is_cut_too(hasty):
    answer = await sent(hasty, POST + b"content-length: 0\r\n\r\n" + POST, slowly=[b"x: y\r\n"] * AGES)
    assert answer.count(b"HTTP/1.1 200") <= 1


async def test_pipelined_requests_are_all_answered(port):
    one = POST + b"content-length: 1\r\n\r\nx"
    answer = await sent(port, one * 20 + POST + b"connection: close\r\ncontent-length: 1\r\n\r\nx")
    assert answer.count(b"HTTP/1.1 200") == 21


async def test_many_requests_on_one_connection_do_not_add_up(port):
    body = b"x" * 60_000
    async with connection(port) as (reader, writer):
        for _ in range(40):  # 2.4 MB in all
            writer.write(POST + b"content-length: 60000\r\n\r\n" + body)
            async with asyncio.timeout(WIDE):
                assert (await reader.readuntil(b"60000")).startswith(b"HTTP/1.1 200")


async def test_an_upgraded_socket_is_left_alone(hasty):
    give_up = time.monotonic() + WIDE
    while True:  # on a busy machine even our own head may come too late
        try:
            socket = await connect(f"ws://127.0.0.1:{hasty}/media", proxy=None)
            break
        except (OSError, InvalidMessage):
            assert time.monotonic() < give_up
    async with socket:
        await asyncio.sleep(SHORT * 3)
        for _ in range(40):  # far more bytes than a request may have
            await socket.send("x" * 60_000)
            async with asyncio.timeout(WIDE):
                assert len(await socket.recv()) == 60_000


async def test_many_idle_sockets_keep_nobody_from_being_answered(port):
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(connection(port))
        ask = POST + b"connection: close\r\ncontent-length: 1\r\n\r\nx"
        answers = await asyncio.gather(*(sent(port, ask) for _ in range(50)))
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
