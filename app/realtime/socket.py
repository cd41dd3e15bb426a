"""A client's WebSocket with nothing between the frame and whoever reads it: no queue, no task, no future a message.

The protocol is that of `websockets`' own sans-I/O `ClientProtocol`. Beside it are two short cuts, for the two things that happen
fifty times a second on every call:

Rule 1: what arrives is cut at the borders of its frames here. A whole, unmasked, final text frame between two messages is handed on
as it is; whatever else it may be (a fragment, a ping, a close, a breach of RFC 6455) goes to the sans-I/O protocol, whole.
Rule 2: a text of 126 to 65,535 bytes is framed here (RFC 6455, 5.2); any other by the sans-I/O protocol.
Rule 3: `on_close` is called exactly once, if the socket was ever open. After it, or `close`, or `abort`, nothing is handed on.
Rule 4: text is handed on as bytes. Whether it is UTF-8 is checked by whoever decodes it.
"""

import asyncio
import functools
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.speedups import apply_mask
from websockets.uri import WebSocketURI, parse_uri

MAX_SIZE = 2**24
"""Bytes of one incoming message. The longest we know of, a delta of some seconds, is below 2**20."""
OPEN_S = 5.0
PING_S = 2.5
"""Between two pings; a ping unanswered until the next one is due, and a little longer, ends the connection."""
LATE_PONG_S = 0.5
"""The little longer: after a pause of our own making, what waits on the socket is read before it is missed."""
STALL_S = 3.0
"""How long the peer may take nothing off us, with our buffers full, before we give it up."""
CLOSE_S = 1.0
UNACKED_MS = 10_000
"""How long the kernel may retransmit in vain. Without it a dead network is noticed only by the second ping."""

ABNORMAL = 1006
"""RFC 6455, 7.4.1: never on the wire; here with a reason of ours: `stalled`, `no_pong`, `protocol_error`, or none for a drop."""

_FINAL_TEXT = 0x81
_LONG, _LONGER, _MASKED = 126, 127, 128
_HEAD_LIMIT = 65_536

# Its debug lines hold what goes over the wire.
_frames_log = logging.getLogger(__name__)
_frames_log.setLevel(logging.WARNING)


@functools.cache
def _trust() -> ssl.SSLContext:
    # Reading the machine's certificates takes tens of milliseconds: once a process, not once a call.
    return ssl.create_default_context()


async def connect(
    url: str,
    headers: Mapping[str, str],
    on_text: Callable[[bytes], None],
    on_close: Callable[[int, str], None],
    *,
    tls: ssl.SSLContext | None = None,
    open_s: float = OPEN_S,
    ping_s: float = PING_S,
    stall_s: float = STALL_S,
) -> "Socket":
    """Opens a connection; proxies of the environment are not used, compression is not offered.

    `on_text` and `on_close` are called from the event loop and must not block. `on_close` gets the close code and the peer's
    reason, or ABNORMAL and ours.

    Raises:
        TimeoutError: not open within `open_s` seconds.
        OSError: no connection (`ssl.SSLError` is one).
        websockets.exceptions.InvalidHandshake: the server answered, but not with a WebSocket.
        websockets.exceptions.InvalidURI: `url` is not ws:// or wss://.
    """
    uri = parse_uri(url)
    async with asyncio.timeout(open_s):
        _, opening = await asyncio.get_running_loop().create_connection(
            lambda: Socket(uri, headers, on_text, on_close, ping_s, stall_s),
            uri.host,
            uri.port,
            ssl=(tls or _trust()) if uri.secure else None,
        )
        try:
            await opening.opened
        except BaseException:
            opening.abort("never_open")
            raise
    return opening


def _fresh_masks() -> Iterator[bytes]:
    """Masks for our frames, four bytes each, from the system's own randomness: asked for a thousand at a time, since each
    asking is a system call."""
    while True:
        drawn = os.urandom(4_096)
        for at in range(0, 4_096, 4):
            yield drawn[at : at + 4]


_masks = _fresh_masks()


class Socket(asyncio.Protocol):
    """One connection. Made by `connect`."""

    def __init__(
        self,
        uri: WebSocketURI,
        headers: Mapping[str, str],
        on_text: Callable[[bytes], None],
        on_close: Callable[[int, str], None],
        ping_s: float,
        stall_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = ClientProtocol(uri, max_size=MAX_SIZE, logger=_frames_log)
        self._headers = headers
        self._on_text, self._on_close = on_text, on_close
        self._ping_s, self._stall_s = ping_s, stall_s
        self._transport: asyncio.Transport
        self._open = False
        self._was_open = False
        self._answered = False
        self._cutting = False
        self._rest = b""
        self._fragments: list[bytes] = []
        self._pong_due = False
        self._why = ""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is gone, whoever ended it."""
        self.paused = False
        """The peer, or the way to it, takes nothing more for now; what is sent piles up in our memory."""

    # ---- for whoever holds it

    def send_text(self, text: bytes) -> None:
        """Sends UTF-8 text, at once. Dropped if the connection is not open."""
        if not self._open:
            return
        size = len(text)
        if _LONG <= size < 65_536:
            mask = next(_masks)
            self._transport.write(b"\x81\xfe" + size.to_bytes(2) + mask + apply_mask(text, mask))
        else:
            self._protocol.send_text(text)
            self._write()

    def close(self) -> None:
        """Begins the closing handshake; `closed` is done after it, in any case within CLOSE_S seconds."""
        if self._open:
            self._open = False
            self._protocol.send_close(1000)
            self._write()
            self._set_timer("close", CLOSE_S, self.abort, "")

    def abort(self, why: str) -> None:
        """Drops the connection; `on_close` will get ABNORMAL and `why`, if it was ever open."""
        self._open = False
        self._why = self._why or why
        self._transport.abort()

    # ---- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        if (raw := transport.get_extra_info("socket")) is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MS)
        request = self._protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._write()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = 0
        if not self._answered:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                if len(data) < _HEAD_LIMIT:
                    self._rest = data
                    return
                at = len(data)
            self._answered = True
            self._hand_over(data[:at])
            self._cutting = self._open
        if self._cutting:
            at = self._cut(data, at)
            self._rest = data[at:]
        else:
            self._hand_over(data[at:])  # what explains a refusal, or follows a breach

    def pause_writing(self) -> None:
        self.paused = True
        self._set_timer("stall", self._stall_s, self.abort, "stalled")

    def resume_writing(self) -> None:
        self.paused = False
        self._timers.pop("stall").cancel()

    def eof_received(self) -> None:
        self._open = False
        self._protocol.receive_eof()
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self._open = self._was_open, False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._protocol.receive_eof()
        if not self.opened.done():
            self._fail_opening(self._protocol.handshake_exc or exc or ConnectionResetError())
        if not self.closed.done():
            self.closed.set_result(None)
        if was_open:
            self._on_close(*self._ending())

    # ---- frames

    def _cut(self, data: bytes, at: int) -> int:
        """Takes the whole frames that begin at `at` (rules 1 and 3); gives where the first that is not whole begins."""
        end = len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size >= _LONG:
                start += 2 if size == _LONG else 8
                if size < _MASKED:
                    if start > end:
                        break
                    size = int.from_bytes(data[at + 2 : start])
                if size > MAX_SIZE or data[at + 1] >= _MASKED:
                    self._cutting = False
                    self._hand_over(data[at:])
                    return end
            stop = start + size
            if stop > end:
                break
            if data[at] == _FINAL_TEXT and self._open and not self._fragments:
                self._on_text(data[start:stop])
            else:
                self._hand_over(data[at:stop])
            at = stop
        return at

    def _hand_over(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
            elif isinstance(event, Response) and self._protocol.state is State.OPEN and not self.opened.done():
                self._open = self._was_open = True
                self._set_timer("ping", self._ping_s, self._ping)
                self.opened.set_result(None)
        if self._protocol.handshake_exc is not None and not self.opened.done():
            self._fail_opening(self._protocol.handshake_exc)
        self._write()
        if self._was_open and self._protocol.close_expected():
            self._open = False
            self._set_timer("close", CLOSE_S, self.abort, "")

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self._pong_due = False
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                text = b"".join(self._fragments)
                self._fragments.clear()
                if self._open:
                    self._on_text(text)

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()

    # ---- beginnings and endings

    def _ping(self) -> None:
        if self._pong_due:
            self._set_timer("ping", LATE_PONG_S, self._last_chance)
        elif self._open:
            self._pong_due = True
            self._protocol.send_ping(b"")
            self._write()
            self._set_timer("ping", self._ping_s, self._ping)

    def _last_chance(self) -> None:
        if self._pong_due:
            self.abort("no_pong")
        else:
            self._ping()

    def _set_timer(self, name: str, seconds: float, what: Callable[..., None], *args: object) -> None:
        if (running := self._timers.get(name)) is not None:
            running.cancel()
        self._timers[name] = self._loop.call_later(seconds, what, *args)

    def _fail_opening(self, why: Exception) -> None:
        self.opened.set_exception(why)
        self.opened.exception()  # so that an opening nobody waits for any more does not complain when it is collected

    def _ending(self) -> tuple[int, str]:
        if self._why:
            return ABNORMAL, self._why
        if self._protocol.close_rcvd is not None:
            return int(self._protocol.close_rcvd.code), self._protocol.close_rcvd.reason
        broken = self._protocol.parser_exc is not None and not isinstance(self._protocol.parser_exc, EOFError)
        return ABNORMAL, "protocol_error" if broken else ""
