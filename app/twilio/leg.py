"""The caller's leg: one media socket, and a pump that understands nothing but its messages.

Rule 1: garbage is counted and survived; it is logged once a kind, without content.
Rule 2: the pump never raises into the bridge: it ends by posting that the stream has ended.
Rule 3: no task, no log line and no queue a frame. Where the server offers the short cut of `socket.py`, messages come and go by
it; where it does not, they are raw ASGI messages.
Rule 4: sound that comes faster than it can have been spoken is dropped and counted.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app.call.commands import ClearPlayout, PlayAudio, SendMark
from app.call.events import DigitPressed, Event, MarkReturned, StreamEnded
from app.errors import BadCarrierMessage
from app.logs import logger
from app.twilio.socket import MediaSocket
from app.twilio.wire import Connected, Dtmf, Encoder, Mark, Media, Start, Stop, decode

log = logger("twilio")

type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

START_WITHIN_S = 5.0
CLOSE_S = 1.0
MESSAGES_BEFORE_START = 10
LARGEST = 65_536
BYTES_A_SECOND = 8_000
FASTEST = 1.5
AHEAD = 2 * BYTES_A_SECOND
"""Sound may run ahead of the clock by two seconds and by half again its own speed."""


class CallerLeg:
    """One stream's socket, already accepted."""

    def __init__(self, receive: Receive, send: Send, tap: MediaSocket | None = None) -> None:
        self._receive, self._send, self._tap = receive, send, tap
        self._post: Callable[[Event], None]
        self._to_hear: Callable[[bytes], None]
        self._stopped = False
        self._encoder = Encoder("")
        self._open = True
        self._bytes = 0
        self._allowed = AHEAD
        self._began = 0.0
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._sending_since: float | None = None
        self.faults: Counter[str] = Counter()
        """Messages that could not be read or used, by kind."""

    async def meet(self) -> Start:
        """Wait for the stream to say whose it is.

        Raises:
            BadCarrierMessage: it said something else, too much, or nothing within five seconds; `kind` says which.
        """
        try:
            async with asyncio.timeout(START_WITHIN_S):
                for _ in range(MESSAGES_BEFORE_START):
                    message = await self._receive()
                    if message["type"] != "websocket.receive":
                        raise BadCarrierMessage("absent start")
                    start = decode(message.get("text") or "")
                    if type(start) is Start:
                        self._encoder = Encoder(start.stream_sid)
                        self._began = asyncio.get_running_loop().time()
                        return start
                    if type(start) is not Connected:
                        raise BadCarrierMessage("early")
        except TimeoutError:
            raise BadCarrierMessage("late start") from None
        raise BadCarrierMessage("absent start")

    async def pump(self, post: Callable[[Event], None], hear: Callable[[bytes], None]) -> None:
        """Move messages until the stream ends: sound to `hear`, everything else to `post`."""
        self._post, self._to_hear = post, hear
        writing = None
        try:
            if self._tap is not None:
                self._tap.attach(self._take)
            else:
                writing = asyncio.create_task(self._write())
            while not self._stopped:
                message = await self._receive()
                if message["type"] != "websocket.receive":
                    break
                text = message.get("text")
                self._take(b"" if text is None else text.encode())
        finally:
            self._open = self._stopped and self._open
            if writing is not None:
                writing.cancel()
            post(StreamEnded(clean=self._stopped))

    def _take(self, text: bytes) -> None:
        """One message of the carrier."""
        if self._stopped:
            return
        if len(text) > LARGEST or not text:
            self._fault("oversize" if text else "binary")
            return
        try:
            fact = decode(text)
        except BadCarrierMessage as fault:
            self._fault(fault.kind)
            return
        kind = type(fact)
        if kind is Media:
            self._hear(fact.media.payload)  # type: ignore[union-attr]
        elif kind is Mark:
            self._post(MarkReturned(fact.mark.name))  # type: ignore[union-attr]
        elif kind is Dtmf:
            self._post(DigitPressed(fact.dtmf.digit))  # type: ignore[union-attr]
        elif kind is Stop:
            self._stopped = True
            if self._tap is not None:
                self._tap.detach()
        else:
            self._fault("repeated")

    def _hear(self, mulaw: bytes) -> None:
        self._bytes += len(mulaw)
        if self._bytes > self._allowed:
            elapsed = asyncio.get_running_loop().time() - self._began
            self._allowed = int(elapsed * BYTES_A_SECOND * FASTEST) + AHEAD
            if self._bytes > self._allowed:  # rule 4
                self._bytes -= len(mulaw)
                self._fault("flood")
                return
        self._to_hear(mulaw)

    def send(self, command: PlayAudio | SendMark | ClearPlayout) -> None:
        """Carry out an order, at once. One for a stream that has ended is dropped."""
        kind = type(command)
        if kind is PlayAudio:
            text = self._encoder.media(command.payload)  # type: ignore[union-attr]
        elif kind is SendMark:
            text = self._encoder.mark(command.mark)  # type: ignore[union-attr]
        else:
            text = self._encoder.clear
        if not self._open:
            return
        if self._tap is not None:
            self._open = self._tap.send_text(text)
        else:
            self._outbox.put_nowait(text)

    async def _write(self) -> None:
        """Send what is in the outbox, where the server has no short cut."""
        try:
            while self._open:
                text = await self._outbox.get()
                self._sending_since = asyncio.get_running_loop().time()
                await self._send({"type": "websocket.send", "text": text.decode()})
                self._sending_since = None
        except (OSError, RuntimeError):  # the socket went while we wrote; the pump says so
            self._open = False

    @property
    def sending_since(self) -> float | None:
        """The loop's time since when the peer takes nothing that we send; None while it does."""
        if self._tap is not None:
            if self._tap.takes_more:
                self._sending_since = None
            elif self._sending_since is None:
                self._sending_since = asyncio.get_running_loop().time()
        return self._sending_since

    async def close(self, code: int = 1000) -> None:
        """Close the socket: the carrier goes on with its next instruction."""
        if not self._open:
            return
        self._open = False
        try:
            async with asyncio.timeout(CLOSE_S):  # a peer that reads nothing does not let us say goodbye either
                await self._send({"type": "websocket.close", "code": code})
        except TimeoutError:
            if self._tap is not None:
                self._tap.transport.abort()
        except (OSError, RuntimeError):
            log.info("the media socket was gone before it was closed")

    def _fault(self, kind: str) -> None:
        self.faults[kind] += 1
        if self.faults[kind] == 1:  # rule 1
            log.warning("skipped a message of the carrier", kind=kind)
