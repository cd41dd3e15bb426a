"""The caller's leg: one media socket, and a pump that understands nothing but its messages.

Rule 1: garbage is counted and survived; it is logged once a kind, without content.
Rule 2: the pump never raises into the bridge: it ends by posting that the stream has ended.
Rule 3: no task, no log line and no queue of our own a frame: raw ASGI messages in, one ASGI message out an order.
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
from app.twilio.wire import Connected, Dtmf, Encoder, Mark, Media, Start, Stop, decode

log = logger("twilio")

type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

START_WITHIN_S = 5.0
MESSAGES_BEFORE_START = 10
LARGEST = 65_536
BYTES_A_SECOND = 8_000
FASTEST = 1.5
AHEAD = 2 * BYTES_A_SECOND
"""Sound may run ahead of the clock by two seconds and by half again its own speed."""


class CallerLeg:
    """One stream's socket, already accepted."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._encoder = Encoder("")
        self._open = True
        self._bytes = 0
        self._allowed = AHEAD
        self._began = 0.0
        self.sending_since: float | None = None
        """The loop's time at which a send began that has not ended: a peer that reads nothing shows here."""
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
        receive = self._receive
        clean = False
        try:
            while not clean:
                message = await receive()
                if message["type"] != "websocket.receive":
                    break
                text = message.get("text")
                if text is None or len(text) > LARGEST:
                    self._fault("binary" if text is None else "oversize")
                    continue
                try:
                    fact = decode(text)
                except BadCarrierMessage as fault:
                    self._fault(fault.kind)
                    continue
                kind = type(fact)
                if kind is Media:
                    self._hear(fact.media.payload, hear)  # type: ignore[union-attr]
                elif kind is Mark:
                    post(MarkReturned(fact.mark.name))  # type: ignore[union-attr]
                elif kind is Dtmf:
                    post(DigitPressed(fact.dtmf.digit))  # type: ignore[union-attr]
                elif kind is Stop:
                    clean = True
                else:
                    self._fault("repeated")
        finally:
            self._open = clean and self._open
            post(StreamEnded(clean=clean))

    def _hear(self, mulaw: bytes, hear: Callable[[bytes], None]) -> None:
        self._bytes += len(mulaw)
        if self._bytes > self._allowed:
            elapsed = asyncio.get_running_loop().time() - self._began
            self._allowed = int(elapsed * BYTES_A_SECOND * FASTEST) + AHEAD
            if self._bytes > self._allowed:  # rule 4
                self._bytes -= len(mulaw)
                self._fault("flood")
                return
        hear(mulaw)

    async def send(self, command: PlayAudio | SendMark | ClearPlayout) -> None:
        """Carry out an order. One for a stream that has ended is dropped."""
        kind = type(command)
        if kind is PlayAudio:
            text = self._encoder.media(command.payload)  # type: ignore[union-attr]
        elif kind is SendMark:
            text = self._encoder.mark(command.mark)  # type: ignore[union-attr]
        else:
            text = self._encoder.clear
        if not self._open:
            return
        self.sending_since = asyncio.get_running_loop().time()
        try:
            await self._send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError):  # the socket went while we wrote; the pump says so
            self._open = False
        self.sending_since = None

    async def close(self, code: int = 1000) -> None:
        """Close the socket: the carrier goes on with its next instruction."""
        if not self._open:
            return
        self._open = False
        try:
            await self._send({"type": "websocket.close", "code": code})
        except (OSError, RuntimeError):
            log.info("the media socket was gone before it was closed")

    def _fault(self, kind: str) -> None:
        self.faults[kind] += 1
        if self.faults[kind] == 1:  # rule 1
            log.warning("skipped a message of the carrier", kind=kind)
