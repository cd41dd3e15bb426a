"""The short cut for media frames, in a real uvicorn, against a real WebSocket client and raw frames."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.speedups import apply_mask

from app.twilio.socket import EXTENSION, MediaSocket

SOON = 20.0


class App:
    """Takes the first message by ASGI, then attaches; sends back what it is told."""

    def __init__(self) -> None:
        self.first: str | None = None
        self.got: list[bytes] = []
        self.ended: dict | None = None
        self.attached = asyncio.Event()
        self.over = asyncio.Event()
        self.socket: MediaSocket

    async def __call__(self, scope, receive, send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        self.first = (await receive())["text"]
        await asyncio.sleep(0.02)  # so that something waits in the queue when we attach
        self.socket = scope["extensions"][EXTENSION]
        self.socket.attach(self.got.append)
        self.attached.set()
        self.ended = await receive()
        self.over.set()

    async def until(self, count: int) -> list[bytes]:
        with anyio.fail_after(SOON):
            while len(self.got) < count:
                await asyncio.sleep(0.002)
        return self.got


@asynccontextmanager
async def served(app: App) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, ws=MediaSocket, lifespan="off", log_level="error", ws_max_size=65_536, ws_per_message_deflate=False, port=0
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def frame(payload: bytes, *, opcode: int = 1, fin: bool = True, masked: bool = True) -> bytes:
    size, mask = len(payload), os.urandom(4)
    head = bytes([opcode | (0x80 if fin else 0)])
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65_536 else b"\x7f" + size.to_bytes(8)
    if not masked:
        return head + length + payload
    return head + bytes([length[0] | 0x80]) + length[1:] + mask + apply_mask(payload, mask)


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /m HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_messages_come_in_order_the_first_by_asgi_and_the_rest_directly():
    app = App()
    async with served(app) as port, connect(f"ws://127.0.0.1:{port}/m") as client:
        for number in range(200):
            await client.send(f"message {number}" + "x" * (number * 11))
        got = await app.until(199)
        assert app.first == "message 0"
        assert [text.split(b"x")[0] for text in got] == [b"message %d" % number for number in range(1, 200)]


async def test_what_is_sent_arrives_whole_at_every_length():
    app = App()
    async with served(app) as port, connect(f"ws://127.0.0.1:{port}/m", max_size=2**24) as client:
        await client.send("start")
        await app.attached.wait()
        texts = [bytes(65 + i % 26 for i in range(size)) for size in (0, 1, 125, 126, 127, 65_535, 65_536, 300_000)]
        assert all(app.socket.send_text(text) for text in texts)
        assert [await client.recv(decode=False) for _ in texts] == texts


async def test_pings_are_answered_fragments_joined_and_a_close_is_a_close():
    app = App()
    async with served(app) as port, raw(port) as (reader, writer):
        writer.write(frame(b"start"))
        await app.attached.wait()
        writer.write(frame(b"one") + frame(b"hello", opcode=9) + frame(b"tw", fin=False) + frame(b"", opcode=9))
        writer.write(frame(b"o", opcode=0) + frame(b"three"))
        assert await reader.readexactly(7) == b"\x8a\x05hello"
        assert await reader.readexactly(2) == b"\x8a\x00"
        # A joined message comes by ASGI's queue, since uvicorn joined it: it ends this application's wait.
        await app.until(2)
        assert app.got == [b"one", b"three"]
        with anyio.fail_after(SOON):
            await app.over.wait()
        assert app.ended == {"type": "websocket.receive", "text": "two"}


async def test_a_close_frame_ends_the_wait():
    app = App()
    async with served(app) as port, raw(port) as (reader, writer):
        writer.write(frame(b"start"))
        await app.attached.wait()
        writer.write(frame(b"last") + frame((1000).to_bytes(2), opcode=8) + frame(b"after the end"))
        with anyio.fail_after(SOON):
            await app.over.wait()
        assert app.got == [b"last"] and app.ended["type"] == "websocket.disconnect" and app.ended["code"] == 1000
        assert (await reader.read())[:2] == b"\x88\x02"
        assert not app.socket.send_text(b"too late")


async def test_a_connection_that_drops_ends_the_wait():
    app = App()
    async with served(app) as port, raw(port) as (_, writer):
        writer.write(frame(b"start"))
        await app.attached.wait()
        writer.transport.abort()
        with anyio.fail_after(SOON):
            await app.over.wait()
        assert app.ended["type"] == "websocket.disconnect"


@pytest.mark.parametrize(
    "breach",
    [frame(b"unmasked text", masked=False), frame(b"x" * 70_000), frame(b"\x00", opcode=3), b"\xff\xff" + bytes(30)],
    ids=["unmasked", "too big", "reserved opcode", "nonsense"],
)
async def test_a_breach_of_the_protocol_is_closed_by_the_server(breach):
    app = App()
    async with served(app) as port, raw(port) as (reader, writer):
        writer.write(frame(b"start"))
        await app.attached.wait()
        writer.write(frame(b"good") + breach)
        with anyio.fail_after(SOON):
            rest = await reader.read()
            await app.over.wait()
        assert rest[:1] == b"\x88" and app.got == [b"good"] and app.ended["type"] == "websocket.disconnect"


async def test_a_client_that_offers_compression_is_not_given_any():
    app = App()
    async with served(app) as port, connect(f"ws://127.0.0.1:{port}/m", compression="deflate") as client:
        assert client.protocol.extensions == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=12), st.lists(st.integers(1, 700), min_size=1, max_size=40))
def test_however_the_network_cuts_the_bytes_the_messages_are_the_same(sizes, cuts):
    async def play() -> None:
        app = App()
        async with served(app) as port, raw(port) as (_, writer):
            writer.write(frame(b"start"))
            await app.attached.wait()
            texts = [bytes(97 + (i + size) % 26 for i in range(size)) for size in sizes]
            data, at, turn = b"".join(map(frame, texts)), 0, 0
            while at < len(data):
                step = cuts[turn % len(cuts)]
                writer.write(data[at : at + step])
                await writer.drain()
                await asyncio.sleep(0)
                at, turn = at + step, turn + 1
            assert await app.until(len(texts)) == texts

    asyncio.run(play())


async def test_a_leg_that_detaches_is_told_that_the_stream_is_over():
    app = App()
    async with served(app) as port, connect(f"ws://127.0.0.1:{port}/m") as client:
        await client.send("start")
        await app.attached.wait()
        app.socket.detach()
        with anyio.fail_after(SOON):
            await app.over.wait()
        assert app.ended == {"type": "websocket.disconnect", "code": 1000}
        with pytest.raises(ConnectionClosed):
            await client.recv()


@pytest.fixture
def quick_pings(monkeypatch):
    monkeypatch.setattr(MediaSocket, "ping_s", 1.0)  # a busy machine may stop for some of it


async def test_a_peer_of_whom_nothing_comes_is_cut_although_it_takes_nothing_off_us(quick_pings):
    app = App()
    async with served(app) as port, raw(port) as (_, writer):
        writer.write(frame(b"start"))
        await app.attached.wait()
        while app.socket.takes_more:  # as on a line that is dead: what we send piles up
            app.socket.send_text(b"x" * 60_000)
        with anyio.fail_after(SOON):
            await app.over.wait()
        assert app.ended["type"] == "websocket.disconnect"


async def test_a_peer_that_answers_no_ping_and_sends_frames_lives(quick_pings):
    app = App()
    async with served(app) as port, raw(port) as (_, writer):
        writer.write(frame(b"start"))
        await app.attached.wait()
        for _ in range(60):
            writer.write(frame(b"sound"))
            await asyncio.sleep(0.05)
        assert len(await app.until(60)) == 60 and app.ended is None


async def test_a_peer_that_answers_pings_and_sends_nothing_else_lives(quick_pings):
    app = App()
    async with served(app) as port, connect(f"ws://127.0.0.1:{port}/m", ping_interval=None) as client:
        await client.send("start")
        await app.attached.wait()
        await asyncio.sleep(3)
        assert app.ended is None
        await client.send("still here")
        assert await app.until(1) == [b"still here"]
