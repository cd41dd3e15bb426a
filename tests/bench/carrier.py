"""The pretend carrier of the bench: webhook, media socket, and a phone that plays what it is sent. It has no voice and no opinions.

Protocol: Twilio's documentation. What Twilio would ignore and warn of (codes 31950, 31951) is counted as a complaint.
"""

import base64
import hashlib
import hmac
import json
import socket
import xml.etree.ElementTree as ET
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from urllib.parse import urlencode, urlsplit

from tests.bench.facts import FILTER_MS, Call, Utterance
from tests.bench.loop import Link, Loop, now
from tests.bench.playout import Playout
from tests.bench.sound import BYTES_PER_MS, CALLER_BASE64, FRAME_MS, RING, VOICE_OF, VOICES
from tests.bench.wire import CLOSE, PING, PONG, TEXT, BrokenFrame, frame, split

CALLED = "+15550100000"
_FILTER_BYTES = FILTER_MS * BYTES_PER_MS


def signature(token: str, url: str, form: Mapping[str, str]) -> str:
    """X-Twilio-Signature (Twilio's documentation)."""
    signed = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5)


class Webhook(Link):
    """One signed POST, as the carrier makes it; `done` gets the status and the body."""

    __slots__ = ("_done", "_got")

    def __init__(self, loop: Loop, url: str, form: Mapping[str, str], token: str, done: Callable[[int, bytes], None]) -> None:
        super().__init__(loop, connect(url))
        self._done, self._got = done, bytearray()
        parts, body = urlsplit(url), urlencode(form).encode()
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        self.write(
            f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: TwilioProxy/1.1\r\nConnection: close\r\n"
            f"Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\nContent-Length: {len(body)}\r\n"
            f"X-Twilio-Signature: {signature(token, url, form)}\r\n\r\n".encode()
            + body
        )

    def received(self, data: bytes, at: float) -> None:
        self._got += data

    def ended(self, at: float) -> None:
        head, _, body = bytes(self._got).partition(b"\r\n\r\n")
        words = head.split(None, 2)
        self._done(int(words[1]) if len(words) > 1 else 0, body)


class Stream:
    """What the TwiML says of the stream."""

    def __init__(self, twiml: bytes) -> None:
        root = ET.fromstring(twiml)
        stream = root.find("./Connect/Stream")
        if stream is None:
            raise ValueError(f"no <Connect><Stream> in the answer: {[element.tag for element in root]}")
        self.url = stream.attrib["url"]
        self.parameters = {parameter.attrib["name"]: parameter.attrib["value"] for parameter in stream.findall("Parameter")}


class Phone(Link):
    """The media socket of one call, and the ear behind it."""

    __slots__ = ("_account", "_call", "_opened", "_seq", "_sid", "_tail", "_talking", "hearing", "is_open", "parameters", "playout")

    def __init__(self, loop: Loop, call: Call, stream: Stream, account: str, token: str, opened: Callable[[], None]) -> None:
        super().__init__(loop, connect(stream.url))
        self._call, self._account, self._opened = call, account, opened
        self._sid, self._seq, self._tail = call.stream_sid.encode(), 0, b""
        self.is_open = self._talking = False
        self.parameters = stream.parameters
        self.playout = Playout()
        self.hearing: Utterance | None = None
        parts = urlsplit(stream.url)
        key = base64.b64encode(call.number.to_bytes(16)).decode()
        self.write(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"x-twilio-signature: {signature(token, stream.url, {})}\r\n\r\n".encode()
        )

    # ---- towards the service

    def send(self, message: Mapping[str, object]) -> None:
        self.write(frame(json.dumps(message, separators=(",", ":")).encode(), masked=True))

    def send_frame(self) -> None:
        """The next 20 ms of the caller's line. The hot path: 50 times a second and call."""
        if not self._talking:
            return
        call, number = self._call, self._call.frames_sent
        self._seq += 1
        message = (
            b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%b"},"streamSid":"%b"}'
            % (self._seq, number + 1, number * FRAME_MS, CALLER_BASE64[number % RING], self._sid)
        )
        call.frames_sent = number + 1
        call.sent_at[number % len(call.sent_at)] = now()
        self.write(b"\x81\xfe%b\0\0\0\0%b" % (len(message).to_bytes(2), message))

    def _begin(self) -> None:
        self.send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        self._seq = 1
        begin = {
            "accountSid": self._account,
            "streamSid": self._call.stream_sid,
            "callSid": self._call.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self.parameters,
        }
        self.send({"event": "start", "sequenceNumber": "1", "start": begin, "streamSid": self._call.stream_sid})
        self._talking = True

    def hang_up(self) -> None:
        """The caller hangs up: `stop`, then the socket is closed as Twilio closes it."""
        if not self._talking:
            return
        self._talking = False
        self._seq += 1
        stop = {"accountSid": self._account, "callSid": self._call.call_sid}
        self.send({"event": "stop", "sequenceNumber": str(self._seq), "streamSid": self._call.stream_sid, "stop": stop})
        self.write(frame((1000).to_bytes(2), CLOSE, masked=True))

    def _return_mark(self, name: bytes) -> None:
        self._seq += 1
        message = b'{"event":"mark","sequenceNumber":"%d","streamSid":"%b","mark":{"name":%b}}' % (self._seq, self._sid, name)
        self.write(frame(message, masked=True))

    def _marks_due(self) -> None:
        if self.fd >= 0 and self._talking:
            for name in self.playout.due(now()):
                self._return_mark(name)

    # ---- from the service

    def received(self, data: bytes, at: float) -> None:
        data = self._tail + data
        if not self.is_open:
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank:
                self._tail = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(f"the media socket was refused: {head.split(b'\r\n')[0].decode(errors='replace')}")
            self.is_open = True
            self._begin()
            self._opened()
        try:
            messages, self._tail = split(data)
        except BrokenFrame as fault:
            raise ConnectionError(f"the media socket: {fault}") from None
        for opcode, message in messages:
            if opcode == TEXT:
                self._heard(message, at)
            elif opcode == PING:
                self.write(frame(message, PONG, masked=True))
            elif opcode == CLOSE:
                self.close()
                self._talking = False
                if not self._call.hung_up:
                    self._call.facts.complaints["the service closed a media socket"] += 1
                return

    def ended(self, at: float) -> None:
        self._talking = False
        if not self._call.hung_up:
            self._call.facts.complaints["the service dropped a media socket"] += 1

    def _heard(self, message: bytes, at: float) -> None:
        facts = self._call.facts
        if self._sid not in message:
            facts.complaints["31951: a message without the stream's sid"] += 1
            return
        key = message.find(b'"payload"')
        if key >= 0:
            begin = message.index(b'"', key + 9) + 1
            self._play(a2b_base64(message[begin : message.index(b'"', begin)]), at)
            return
        order = json.loads(message)
        if order["event"] == "mark":
            name = json.dumps(order["mark"]["name"]).encode()
            facts.counts["marks"] += 1
            if self.playout.mark(name, at):
                self._return_mark(name)
            else:
                self._loop.at(self.playout.marks[-1][0], self._marks_due)
        elif order["event"] == "clear":
            self._clear(at)
        else:
            facts.complaints["31951: an unknown event"] += 1

    def _play(self, audio: bytes, at: float) -> None:
        call, facts = self._call, self._call.facts
        if call.hung_up:
            return
        voice = VOICE_OF[audio[-1]]
        utterance = self.hearing
        if utterance is None or utterance.voice != voice:
            utterance = self._recognise(voice, audio, at)
            if utterance is None:
                facts.counts["unknown_samples"] += len(audio)
                return
        size = len(audio)
        if call.model.passes_through and audio.count(VOICES[utterance.voice]) != size:
            facts.counts["altered_out_samples"] += size
        facts.counts["played_messages"] += 1
        utterance.received += size
        if utterance.cut:
            facts.counts["leaked_samples"] += size
        reached, deltas = utterance.received + _FILTER_BYTES, utterance.deltas
        while deltas and deltas[0][0] <= reached:
            facts.outbound.append(at - deltas.popleft()[1])
        self.playout.queue(utterance, size, at)

    def _recognise(self, voice: int, audio: bytes, at: float) -> Utterance | None:
        """Whose audio begins here: of an utterance that is on its way, of one that was cut, or the end of a filter's ringing."""
        call, before = self._call, self.hearing
        first = 0 if before is None else before.number + 1
        utterance = next((u for u in call.utterances[first:] if u.voice == voice), None)
        if utterance is None:
            # Not recognised: it rings on after what was heard last. Recognised but old: the one that was cut.
            old = next((u for u in reversed(call.utterances[:first]) if u.voice == voice), None) if voice >= 0 else None
            return old or before
        if before is not None and before.cut:
            head = audio[:_FILTER_BYTES]
            call.facts.counts["leaked_samples"] += sum(VOICE_OF[code] == before.voice for code in head)
        self.hearing = utterance
        utterance.first_at = at
        if not utterance.number:
            call.facts.first_audio.append(at - call.webhook_at)
        call.model.is_heard(utterance)
        return utterance

    def _clear(self, at: float) -> None:
        call, utterance = self._call, self.hearing
        call.facts.counts["clears"] += 1
        for name in self.playout.clear(at):
            self._return_mark(name)
        if utterance is None or utterance.cut:
            return
        utterance.cut = True
        utterance.deltas.clear()
        utterance.heard_ms = self.playout.heard_ms(utterance, at)
        call.facts.heard_ms += utterance.heard_ms
        if utterance.barged_at is not None:
            call.facts.barge_in.append(at - utterance.barged_at)
        call.settle_truncation(utterance)
