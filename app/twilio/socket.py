"""uvicorn's WebSocket with a short cut for the carrier's media: `Config(ws=MediaSocket)`.

uvicorn hands every message through a queue, wakes a task for it, and stops and starts reading around it. On a media stream that
happens fifty times a second on every call. So once a leg has attached itself, whole text frames go straight to it.

Rule 1: what arrives is cut at the borders of its frames. A whole, masked, final text frame goes to the attached leg; whatever else
it may be (a fragment, a ping, a close, a breach of RFC 6455), and everything before a leg is attached, goes to uvicorn, whole.
Rule 2: order is kept: what waits in uvicorn's queue when a leg attaches is handed on first.
Rule 3: a text is framed here and written at once (RFC 6455, 5.2); a server's frames bear no mask.
Rule 4: closing and the handshake are uvicorn's. A server that is not this one has no `EXTENSION`, and the leg uses ASGI.
Rule 5: a peer of whom nothing has come since a ping, no pong and no frame, is gone, and its connection is cut: it would take no
farewell either. Whether the carrier sends frames in silence, and whether it answers pings, need not both be so.
It leans on names inside uvicorn; `tests/twilio/test_socket.py` holds it against the installed version.
"""

from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.speedups import apply_mask

EXTENSION = "callrow.media"
"""The key of the short cut among an ASGI scope's extensions."""

_FINAL_TEXT = 0x81
_MASKED = 0x80
_LONG, _LONGER = 126, 127
_SHORTEST_FRAME = 6  # two bytes and the mask


class MediaSocket(WebSocketsSansIOProtocol):
    """One connection."""

    ping_s = 5.0
    """Between two pings, and from a ping until its peer is gone."""
    _on_text: Callable[[bytes], None] | None = None
    _rest = b""
    _upgraded = False
    _heard_at = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ping_interval = self.ping_timeout = self.ping_s

    # ---- for the leg

    def attach(self, on_text: Callable[[bytes], None]) -> None:
        """From here on every message goes to `on_text`, from the event loop; it must not block and must not raise.

        What arrived before is handed on first. The end of the socket still comes by ASGI's `receive`.
        """
        self._on_text = on_text
        waiting = []
        while not self.queue.empty():
            waiting.append(self.queue.get_nowait())
        for message in waiting:
            if message["type"] == "websocket.receive":
                text = message.get("text")
                on_text(text.encode() if text is not None else b"")
            else:
                self.queue.put_nowait(message)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def send_text(self, text: bytes) -> bool:
        """Sends UTF-8 text, at once; what the peer does not take piles up. False: the socket is closing, nothing was sent."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return False
        size = len(text)
        if size < _LONG:
            head = bytes((_FINAL_TEXT, size))
        elif size < 65_536:
            head = b"\x81\x7e" + size.to_bytes(2)
        else:
            head = b"\x81\x7f" + size.to_bytes(8)
        self.transport.write(head + text)
        return True

    @property
    def takes_more(self) -> bool:
        """The peer, and the way to it, take what is sent; else it piles up in our memory."""
        return self.writable.is_set()

    def detach(self) -> None:
        """No more messages; whoever waits for ASGI's `receive` is told that the stream is over."""
        self._on_text = None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1000})

    # ---- for the event loop

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # the handshake was sound, and the application is about to be asked
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    def handle_close(self, event: Frame) -> None:
        self._on_text = None
        super().handle_close(event)

    def keepalive_timeout(self) -> None:
        """Rule 5."""
        if self._heard_at >= self.ping_sent_at:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if not self._upgraded:  # uvicorn's HTTP side hands the request's head over, whole and alone
            self._upgraded = True
            super().data_received(data)
            return
        if self._rest:
            data = self._rest + data
        self._rest = data[self._cut(data) :]

    def _cut(self, data: bytes) -> int:
        """Takes the whole frames of `data` (rule 1); gives where the first begins that is not whole."""
        at, end = 0, len(data)
        while end - at >= _SHORTEST_FRAME:
            size, start = data[at + 1] & 0x7F, at + 6
            if size >= _LONG:
                start += 2 if size == _LONG else 8
                if start > end:
                    break
                size = int.from_bytes(data[at + 2 : start - 4])
            stop = start + size
            if not data[at + 1] & _MASKED or size > self.config.ws_max_size:
                super().data_received(data[at:])  # a breach: uvicorn closes, and says why
                return end
            if stop > end:
                break
            if data[at] == _FINAL_TEXT and self._on_text is not None and not self.frames:
                self._on_text(apply_mask(data[start:stop], data[start - 4 : start]))
            else:
                super().data_received(data[at:stop])
            at = stop
        return at
