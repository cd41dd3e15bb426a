"""A carrier without a voice, for many calls at once, and the people who telephone over it.

It follows documents as Twilio does: a stream that ends leads to `action`; a request that fails, once, to the fallback address;
a second failure ends the call; a status is told once and not again.
"""

import asyncio
import base64
import contextlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.faults.killing_model import AGENT, CALLER, FRAME, SORRY, frame, read
from tests.web.house import ACCOUNT, sign

SPOKEN_FRAMES = 10
SILENCE = base64.b64encode(b"\xff" * FRAME).decode()
CARRIER_PATIENCE_S = 15.0
"""So long Twilio waits for a document (its documentation)."""
QUIET_EVERY_S = 0.2
SAYS_AGAIN_S = 6.0
"""Who gets no answer says it again, in the same stream."""
STORED_S = 1.0
"""What was heard so long ago is stored: the journal is written some twenty times a second, on a machine that is not busy."""


@dataclass
class Gap:
    """What a caller heard of one interruption. Seconds of the monotonic clock."""

    broke_at: float
    was_speaking: bool
    """The agent was in mid-word when the stream broke."""
    last_sound_at: float
    sound_at: float | None = None
    agent_at: float | None = None
    heard: list[int] = field(default_factory=list)
    """The words that the caller had heard to their end, `STORED_S` before it broke or earlier."""
    started: int = 0
    """The last word of which anything was heard."""
    repeated: int | None = None
    """The word that stood in "sorry, we were cut off"."""
    is_planned: bool = False
    """The service ended the stream in order (1000): a hand-over."""


class Caller:
    """One caller, and the carrier's part of that call."""

    def __init__(self, carrier: "Carrier", call: int, turns: int, pause_s: Callable[[], float]) -> None:
        self.carrier, self.call, self._turns, self._pause_s = carrier, call, turns, pause_s
        self.sid, self.number = f"CA{call:032x}", f"+1555{call:07d}"
        self.status, self.ended = "ringing", ""
        """`ended`: how the call ended at the carrier: `hung up`, `service`, `dropped` (no document could be had)."""
        self.gaps: list[Gap] = []
        self.said: list[str] = []
        self.streams = 0
        self.heard: dict[int, float] = {}
        """Words heard to their end, and when."""
        self.lines = self.said_again = 0
        self.is_streaming = False
        self._answered: set[int] = set()
        self._ends_at = self._last_sound = 0.0
        self._last_word = self._turn = 0
        self._redirect: str | None = None
        self._socket: ClientConnection | None = None
        self._hung_up = False
        self._heard_something = asyncio.Event()

    # ---- documents

    async def run(self) -> None:
        """From the first ring to the end."""
        document = await self._ask(f"{self.carrier.url}/twilio/voice")
        while document is not None:
            document = await self._follow(document)
        self.ended = self.ended or "service"
        self.status = "completed" if self.status == "in-progress" else "failed"
        await self.carrier.tell(self)

    async def _ask(self, url: str) -> ElementTree.Element | None:
        """The document at an address; at the fallback address if that fails; None if there is no document to be had."""
        for address, more in ((url, {}), (f"{self.carrier.url}/twilio/fallback", {"ErrorCode": "11205", "ErrorUrl": url})):
            try:
                return ElementTree.fromstring(await self.carrier.post(address, self, **more))
            except (httpx2.TransportError, httpx2.HTTPStatusError, ElementTree.ParseError):
                self.carrier.failed_requests += 1
        self.ended = "dropped"
        return None

    async def _follow(self, document: ElementTree.Element) -> ElementTree.Element | None:
        for verb in document:
            url = None
            if verb.tag == "Say":
                self.said.append(verb.text or "")
                self._sound(time.monotonic(), agent=False)
                await asyncio.sleep(0.5)
            elif verb.tag == "Pause":
                await asyncio.sleep(float(verb.attrib["length"]))
            elif verb.tag == "Connect":
                self.status = "in-progress"
                await self._stream(verb.find("Stream"))
                if self._redirect is None:
                    url = verb.attrib["action"]
            elif verb.tag == "Redirect":
                url = verb.text
            elif verb.tag in ("Hangup", "Reject"):
                return None
            elif verb.tag == "Gather":  # leaves no number
                url = verb.attrib["action"]
            if self._redirect is not None:
                url, self._redirect = self._redirect, None
            if self._hung_up:
                self.status = "completed"
                self.ended = "hung up"
                with contextlib.suppress(httpx2.TransportError, httpx2.HTTPStatusError):
                    await self.carrier.post(url or f"{self.carrier.url}/twilio/resume?epoch=1", self)
                return None
            if url is not None:
                return await self._ask(url)
        return None

    def redirect(self, url: str) -> None:
        """The carrier was told by REST to fetch another document: the stream ends at once."""
        self._redirect = url
        if self._socket is not None:
            self._socket.transport.abort()

    # ---- a stream

    async def _stream(self, stream: ElementTree.Element | None) -> None:
        assert stream is not None
        self.streams += 1
        url, name = stream.attrib["url"], f"MZ{self.streams:032d}"
        parameters = {it.attrib["name"]: it.attrib["value"] for it in stream.findall("Parameter")}
        try:
            async with connect(
                url,
                additional_headers={"x-twilio-signature": sign(url, ())},
                proxy=None,
                compression=None,
                ping_interval=None,
                open_timeout=CARRIER_PATIENCE_S,
                close_timeout=0.5,
            ) as socket:
                self._socket = socket
                await self._start(socket, name, parameters)
                self.is_streaming = True
                speaking = asyncio.create_task(self._talk(socket, name))
                try:
                    await self._listen(socket, name)
                finally:
                    speaking.cancel()
                    self.is_streaming = False
                    await asyncio.wait({speaking})
                self._broke(socket)
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
            self._broke(None)
        finally:
            self._socket = None

    async def _start(self, socket: ClientConnection, name: str, parameters: dict[str, str]) -> None:
        await socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        start = {
            "accountSid": ACCOUNT,
            "streamSid": name,
            "callSid": self.sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        }
        await socket.send(json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": name}))

    async def _listen(self, socket: ClientConnection, name: str) -> None:
        loop, later = asyncio.get_running_loop(), set()
        self._ends_at = 0.0
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message, now = json.loads(text), time.monotonic()
                if message["event"] == "media":
                    self._play(base64.b64decode(message["media"]["payload"]), now)
                elif message["event"] == "clear":
                    self._ends_at = now
                elif message["event"] == "mark":

                    def back(mark: dict[str, str] = message["mark"]) -> None:
                        task = asyncio.ensure_future(self._send(socket, {"event": "mark", "streamSid": name, "mark": mark}))
                        later.add(task)
                        task.add_done_callback(later.discard)

                    loop.call_later(max(0.0, self._ends_at - now), back)

    def _play(self, sound: bytes, now: float) -> None:
        self._ends_at = max(self._ends_at, now) + len(sound) / 8_000
        found = read(sound[:FRAME])
        self._sound(now, agent=found is not None)
        if found is None:
            self.lines += 1
            return
        kind, call, word = found
        if call != self.call:
            self.carrier.mixed_up += 1
        if kind == SORRY and self.gaps and self.gaps[-1].repeated is None:
            self.gaps[-1].repeated = word
        if kind == AGENT:
            self._last_word = max(self._last_word, word)
            self.heard[word] = self._ends_at
            self._answered.add(word)
        self._heard_something.set()

    def _sound(self, now: float, *, agent: bool) -> None:
        if self.gaps:
            gap = self.gaps[-1]
            gap.sound_at = gap.sound_at or now
            if agent:
                gap.agent_at = gap.agent_at or now

    def _broke(self, socket: ClientConnection | None) -> None:
        if self._hung_up:
            return
        now = time.monotonic()
        heard = [word for word, ends_at in self.heard.items() if ends_at < now - STORED_S]
        for word in [word for word, ends_at in self.heard.items() if ends_at > now]:
            del self.heard[word]  # thrown away with the stream
        if self.gaps and self.gaps[-1].sound_at is None:
            return  # still the same silence
        self.gaps.append(
            Gap(now, self._ends_at > now, min(self._ends_at, now), heard=heard, started=self._last_word)
            if socket is None or socket.close_code != 1000
            else Gap(now, self._ends_at > now, min(self._ends_at, now), heard=heard, started=self._last_word, is_planned=True)
        )

    async def _send(self, socket: ClientConnection, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(json.dumps(message))

    async def _frame(self, socket: ClientConnection, payload: str) -> None:
        media = {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": payload}
        await self._send(socket, {"event": "media", "sequenceNumber": "2", "media": media})

    # ---- the person

    async def _talk(self, socket: ClientConnection, name: str) -> None:
        """Wait for the agent, say something, and so on. What was not answered when the line broke is said again."""
        self._heard_something.clear()
        if self.streams > 1 and self.gaps and self.gaps[-1].is_planned:
            self._heard_something.set()  # nobody apologises for what was not noticed
        await self._quietly(socket, self._heard_something.is_set)
        said_last = 0
        while True:
            until = max(time.monotonic(), self._ends_at) + self._pause_s()
            await self._quietly(socket, lambda until=until: time.monotonic() >= until)
            if self._turn in self._answered or self._turn == 0:
                if self._turn == self._turns:
                    break
                self._turn += 1
            sound = base64.b64encode(frame(CALLER, self.call, self._turn)).decode()
            for _ in range(SPOKEN_FRAMES):
                await self._frame(socket, sound)
            self.said_again += self._turn == said_last
            said_last = self._turn
            again = time.monotonic() + SAYS_AGAIN_S
            await self._quietly(socket, lambda again=again: self._turn in self._answered or time.monotonic() > again)
        self._hung_up = True
        await self._send(socket, {"event": "stop", "streamSid": name, "stop": {}})
        await socket.close()

    async def _quietly(self, socket: ClientConnection, true: Callable[[], bool]) -> None:
        while not true():
            await self._frame(socket, SILENCE)
            await asyncio.sleep(QUIET_EVERY_S)


class Carrier:
    """The carrier: signs, asks, tells, and takes orders by REST."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.callers: dict[str, Caller] = {}
        self.failed_requests = self.callbacks_lost = self.mixed_up = 0
        self.redirects: list[tuple[str, str]] = []
        self._client = httpx2.AsyncClient(
            timeout=CARRIER_PATIENCE_S, trust_env=False, limits=httpx2.Limits(max_connections=500, max_keepalive_connections=0)
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def post(self, url: str, caller: Caller, **more: str) -> bytes:
        """A signed request about a call; its answer. Raises what `httpx2` raises, also for an answer that is not 200."""
        form = {
            "AccountSid": ACCOUNT,
            "CallSid": caller.sid,
            "From": caller.number,
            "To": "+15559870000",
            "CallStatus": caller.status,
            "Direction": "inbound",
        } | more
        headers = {
            "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
            "x-twilio-signature": sign(url, form.items()),
        }
        answer = await self._client.post(url, content=urlencode(form), headers=headers)
        return answer.raise_for_status().content

    async def tell(self, caller: Caller) -> None:
        """A status: told once (Twilio's documentation), and lost if nobody takes it."""
        try:
            await self.post(f"{self.url}/twilio/status", caller, CallDuration="7", SequenceNumber="3")
        except (httpx2.TransportError, httpx2.HTTPStatusError):
            self.callbacks_lost += 1

    async def rest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The REST interface, as far as a call is looked up and redirected."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            form = dict(parse_qsl((await reader.readexactly(int(length[1]))).decode())) if length else {}
            sid = re.search(r"/Calls/(CA[0-9a-f]{32})\.json", head)
            caller = self.callers.get(sid[1]) if sid else None
            body: dict[str, Any]
            if caller is None:
                status, body = "404 Not Found", {"code": 20404, "status": 404}
            elif form and caller.status not in ("ringing", "in-progress"):
                status, body = "400 Bad Request", {"code": 21220, "status": 400}
            else:
                status, body = "200 OK", {"sid": caller.sid, "status": caller.status, "direction": "inbound"}
                if "Url" in form:
                    self.redirects.append((caller.sid, form["Url"]))
                    caller.redirect(form["Url"])
            text = json.dumps(body).encode()
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n"
                "connection: close\r\n\r\n".encode()
                + text
            )
            await writer.drain()
        writer.close()


async def until(true: Callable[[], Any], within_s: float = 60.0) -> None:
    """Wait for something, generously."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.02)
