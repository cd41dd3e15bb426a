"""The other end of a socket, for the tests: byte by byte, or no network at all."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from app.realtime import socket
from app.realtime.socket import Socket

WAIT_S = 20
TEXT, CONT, BINARY, CLOSE, PING, PONG = (
    Opcode.TEXT, Opcode.CONT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG,
)  # fmt: skip


def frame(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


class Log:
    """What a socket hands on."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.closes: list[tuple[int, str]] = []
        self._change = asyncio.Event()

    def text(self, text: bytes) -> None:
        self.texts.append(text)
        self._change.set()

    def close(self, code: int, reason: str) -> None:
        self.closes.append((code, reason))
        self._change.set()

    async def until(self, *, texts: int = 0, closes: int = 0) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.texts) < texts or len(self.closes) < closes:
                self._change.clear()
                await self._change.wait()


class Peer:
    """The other end of a socket, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._protocol = ServerProtocol()
        self._frames: list[Frame] = []

    async def shake(self, *, with_bytes: bytes = b"") -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self._protocol.receive_data(head)
        [self.request] = self._protocol.events_received()
        self._protocol.send_response(self._protocol.accept(self.request))
        self.writer.write(b"".join(self._protocol.data_to_send()) + with_bytes)

    async def frame(self) -> tuple[Opcode, bytes]:
        """The next frame, which must be masked."""
        async with asyncio.timeout(WAIT_S):
            while not self._frames:
                data = await self.reader.read(65_536)
                assert data, "the other side has gone"
                self._protocol.receive_data(data)
                self._protocol.data_to_send()  # this end answers nothing by itself
                self._frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]
        got = self._frames.pop(0)
        return got.opcode, bytes(got.data)

    async def gone(self) -> None:
        """Returns when the other side has closed or dropped the connection."""
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65_536):
                    pass


@contextlib.asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, asyncio.Queue[Peer]]]:
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        peers.put_nowait(Peer(reader, writer))

    server = await asyncio.start_server(came, "127.0.0.1", 0, ssl=tls, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/v1/realtime?model=m", peers
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def connected(log: Log, **options: float) -> AsyncIterator[tuple[Socket, Peer]]:
    async with listening() as (url, peers):
        opening = asyncio.ensure_future(socket.connect(url, {"X-Who": "us"}, log.text, log.close, **options))
        peer = await peers.get()
        await peer.shake()
        ours = await opening
        try:
            yield ours, peer
        finally:
            ours.abort("test_over")
            await ours.closed


class Transport:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, _name: str) -> None:
        return None


def unconnected() -> tuple[Transport, Socket, Log]:
    """A socket that is open and has no network; the handshake is over and forgotten."""
    log, transport = Log(), Transport()
    ours = Socket(parse_uri("ws://model/"), {}, log.text, log.close, 1_000.0, 1_000.0)
    ours.connection_made(transport)
    server = ServerProtocol()
    server.receive_data(b"".join(transport.written))
    [request] = server.events_received()
    server.send_response(server.accept(request))
    ours.data_received(b"".join(server.data_to_send()))
    transport.written.clear()
    return transport, ours, log
