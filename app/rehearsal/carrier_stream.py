"""One media stream of the pretend carrier: the client side of the carrier's WebSocket protocol.

The messages are those of the public documentation ("Media Streams, WebSocket Messages"): numbers as strings, `connected` without a
sequence number, `start` with number 1, one more for every later message; 20 ms of mu-law in each `media`.

Rule 1: what the carrier would warn about (31950, 31951) is ignored like there, and reported, so that a scene can fail on it.
Rule 2: one task writes and one reads; the line's clock never waits for the peer.
Rule 3: how a stream ended is a fact, not an exception: `StreamEnd`.
"""

import asyncio
import base64
import binascii
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from app.rehearsal.carrier_web import HONEST, Origins, Tampering, signature
from app.rehearsal.line import BYTES_PER_MS, FRAME, Line, Playout
from app.rehearsal.twiml import Alert, Stream

type Tell = Callable[[str, Mapping[str, Any]], None]
"""Report an event: its kind and its facts."""

HEADERS = (b"RIFF", b"ID3", b"OggS", b"fLaC", b".snd")
"""How files with a header begin. Played as they are, they click."""

_SHAPES = {
    "media": ({"event", "streamSid", "media"}, "media", {"payload"}),
    "mark": ({"event", "streamSid", "mark"}, "mark", {"name"}),
    "clear": ({"event", "streamSid"}, None, set[str]()),
}
LONGEST_BACKLOG = 500
"""Frames (10 s) that wait for a peer that does not read; then the oldest way out is dropped, as a real line would."""


class StreamEnd(Enum):
    """How a stream ended, and the carrier's debugger code if there is one."""

    FINISHED = None
    """The carrier ended it: the caller hung up, or the call was updated."""
    CLOSED = 31921
    """The service closed the socket; logged on every such close, also intended ones."""
    LOST = 31903
    """The connection broke without a close."""
    REFUSED = 31920
    """The upgrade was not answered with 101."""
    UNREACHABLE = 31902
    TIMED_OUT = 31901
    SCHEME = 31922
    """Neither wss, nor ws on loopback."""
    MALFORMED = 31923
    """The address is not absolute, or has a query string."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a stream may misbehave on purpose."""

    upgrade: Tampering = HONEST
    late_start_ms: int = 0
    """Time between `connected` and `start`."""
    garbage: tuple[str | bytes, ...] = ()
    """Raw frames sent after `start`."""
    skip_every: int = 0
    """Leave out every n-th media message (its chunk number and time are left out too); 0 leaves out none."""
    swap_every: int = 0
    """Send every n-th media message after the one that follows it; 0 keeps the order."""


class MediaStream:
    """A bidirectional stream of one call. `run` it to its end."""

    def __init__(
        self,
        order: Stream,
        *,
        call_sid: str,
        account_sid: str,
        token: str,
        origins: Origins,
        line: Line,
        tell: Tell,
        alert: Callable[[Alert], None],
        plan: StreamPlan,
        sid: str | None = None,
    ) -> None:
        self.sid = sid or "MZ" + secrets.token_hex(16)
        self.order, self.plan = order, plan
        self.playout = Playout()
        self.echoed: list[str] = []
        """Marks that came back because their audio was played."""
        self.returned: list[str] = []
        """Marks that came back because of a clear."""
        self.received_bytes = 0
        self.clears = 0
        self.dropped_frames = 0
        self.connected = asyncio.Event()
        """Set once `start` has been sent."""
        self._call_sid, self._account_sid = call_sid, account_sid
        self._token, self._origins, self._line = token, origins, line
        self._tell, self._alert = tell, alert
        self._socket: ClientConnection | None = None
        self._writer: asyncio.Task[None] | None = None
        self._outbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._sequence = 0
        self._chunk = 0
        self._held: str | None = None
        self._finished = False
        self._running = asyncio.Event()
        self._running.set()

    async def run(self) -> StreamEnd:
        """Connect, talk, and say how it ended."""
        if (refusal := self._unfit()) is not None:
            return refusal
        stamp = self.plan.upgrade.apply(signature(self._token, self.order.url))
        try:
            socket = await connect(
                self._origins.reach(self.order.url),
                additional_headers={} if stamp is None else {"x-twilio-signature": stamp},
                user_agent_header="Twilio.TmeWs/1.0",
                compression=None,
                ping_interval=None,
                max_size=None,
                open_timeout=10,
                close_timeout=2,
                proxy=None,
            )
        except InvalidStatus:
            return StreamEnd.REFUSED
        except InvalidURI:
            return StreamEnd.MALFORMED
        except TimeoutError:
            return StreamEnd.TIMED_OUT
        except InvalidHandshake:
            return StreamEnd.REFUSED
        except OSError:
            return StreamEnd.UNREACHABLE
        self._socket = socket
        self._writer = asyncio.create_task(self._write(socket))
        try:
            return await self._talk(socket)
        finally:
            if self._line.player is self:
                self._line.attach(None)
            self._writer.cancel()
            await asyncio.wait({self._writer})
            await socket.close()

    def _unfit(self) -> StreamEnd | None:
        parts = urlsplit(self.order.url)
        if not parts.scheme or not parts.hostname:
            return StreamEnd.MALFORMED
        loopback = parts.hostname == "localhost" or parts.hostname == "::1" or parts.hostname.startswith("127.")
        if parts.scheme != "wss" and not (parts.scheme == "ws" and loopback):
            return StreamEnd.SCHEME
        return StreamEnd.MALFORMED if parts.query else None

    async def _talk(self, socket: ClientConnection) -> StreamEnd:
        self._outbox.put_nowait(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        if self.plan.late_start_ms:
            await asyncio.sleep(self.plan.late_start_ms / 1_000)
        self._outbox.put_nowait(self._numbered("start", self._start()))
        for raw in self.plan.garbage:
            self._outbox.put_nowait(raw)
        self._line.attach(self)
        self.connected.set()
        try:
            async for message in socket:
                self._take(message)
                if not self._running.is_set():
                    await self._running.wait()
        except ConnectionClosed:
            return self._ended(socket)
        return self._ended(socket)

    def _ended(self, socket: ClientConnection) -> StreamEnd:
        if self._finished:
            return StreamEnd.FINISHED
        return StreamEnd.LOST if socket.close_code in (None, 1006) else StreamEnd.CLOSED

    def _start(self) -> dict[str, Any]:
        return {
            "accountSid": self._account_sid,
            "streamSid": self.sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(self.order.parameters),
        }

    @property
    def heard_bytes(self) -> int:
        """What the caller heard of this stream."""
        return self.received_bytes - self.playout.queued - self.playout.thrown_away

    # ---- to the service

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while (message := await self._outbox.get()) is not None:
                await self._running.wait()
                await socket.send(message)
        except ConnectionClosed:
            return  # the reader says how it ended

    def _numbered(self, event: str, content: Mapping[str, Any]) -> str:
        self._sequence += 1
        message = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.sid, event: content}
        return json.dumps(message, separators=(",", ":"))

    def caller_audio(self, frame: bytes) -> None:
        """Send the caller's next 20 ms; the line's clock calls this."""
        self._chunk += 1
        if self.plan.skip_every and self._chunk % self.plan.skip_every == 0:
            return
        if self._outbox.qsize() > LONGEST_BACKLOG:
            self.dropped_frames += 1
            return
        self._sequence += 1
        message = (
            f'{{"event":"media","sequenceNumber":"{self._sequence}","streamSid":"{self.sid}","media":{{"track":"inbound",'
            f'"chunk":"{self._chunk}","timestamp":"{(self._chunk - 1) * FRAME // BYTES_PER_MS}",'
            f'"payload":"{base64.b64encode(frame).decode()}"}}}}'
        )
        if self.plan.swap_every and self._held is None and self._chunk % self.plan.swap_every == 0:
            self._held = message
            return
        self._outbox.put_nowait(message)
        if self._held is not None:
            self._outbox.put_nowait(self._held)
            self._held = None

    def marks_due(self, names: list[str]) -> None:
        """Echo bookmarks whose audio was played; the line's clock calls this."""
        for name in names:
            self.echoed.append(name)
            self._outbox.put_nowait(self._numbered("mark", {"name": name}))

    def press(self, digit: str) -> None:
        """The caller pressed one key: 0-9 * # A-D."""
        self._outbox.put_nowait(self._numbered("dtmf", {"track": "inbound_track", "digit": digit}))

    def send_raw(self, message: str | bytes) -> None:
        """Send anything at all, as it is."""
        self._outbox.put_nowait(message)

    async def finish(self) -> None:
        """The carrier ends the stream: `stop`, then the socket is closed."""
        if self._finished or self._socket is None:
            return
        self._finished = True
        self._running.set()
        self._line.play()
        self.send_raw(self._numbered("stop", {"accountSid": self._account_sid, "callSid": self._call_sid}))
        self._outbox.put_nowait(None)
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=5)
        await self._socket.close()

    def cut(self) -> None:
        """Break the connection without `stop` and without a close."""
        if self._socket is not None:
            self._socket.transport.abort()

    def freeze(self) -> None:
        """Neither read nor write any more, with the connection open."""
        self._running.clear()

    def thaw(self) -> None:
        """Go on after `freeze`."""
        self._running.set()

    # ---- from the service

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._alert(Alert(31950, "a binary frame"))
            return
        try:
            content = json.loads(message)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self._invalid("not a JSON object")
            return
        event = content.get("event")
        if not isinstance(event, str) or event not in _SHAPES:
            self._invalid("an unknown event")
            return
        keys, part, inner = _SHAPES[event]
        body = {} if part is None else content.get(part)
        if content.get("streamSid") != self.sid:
            self._invalid(f"{event} with a {'wrong' if 'streamSid' in content else 'missing'} streamSid")
        elif set(content) - keys:
            self._invalid(f"{event} with unknown fields")
        elif not isinstance(body, dict) or set(body) != inner or not all(isinstance(it, str) for it in body.values()):
            self._invalid(f"{event} without its {part}, or with unknown fields in it")
        elif event == "media":
            self._media(body["payload"])
        elif event == "mark":
            self._mark(body["name"])
        else:
            self._clear()

    def _invalid(self, about: str) -> None:
        self._alert(Alert(31951, about))

    def _media(self, text: str) -> None:
        try:
            payload = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            self._invalid("media with bad base64")
            return
        if payload.startswith(HEADERS):
            self._invalid("media with a file header; it is played as a click")
        self.received_bytes += len(payload)
        self._line.play()
        self.playout.append(payload, at=self._line.now)

    def _mark(self, name: str) -> None:
        self._line.play()
        self.playout.mark(name)
        self._line.play()  # with nothing queued it comes back at once
        self._line.changed()

    def _clear(self) -> None:
        self._line.play()
        unheard = self.playout.queued
        marks = self.playout.clear()
        self.clears += 1
        self._tell("clear", {"unheard_ms": unheard // BYTES_PER_MS})
        for name in marks:
            self.returned.append(name)
            self._outbox.put_nowait(self._numbered("mark", {"name": name}))
        self._line.changed()
