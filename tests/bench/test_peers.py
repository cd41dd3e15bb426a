"""The peers measure what they say: against the standards they speak, and against a perfect bridge with one fault at a time.

No socket carries anything here and no time passes: the peers' writes are taken from their hands, the clock is moved by the test.
"""

import base64
import heapq
import json
import socket
from collections.abc import Callable, Iterator
from itertools import count

import audioop
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from app.audio.g711 import mulaw_to_pcm, pcm_to_mulaw
from app.audio.resampling import Downsampler, Upsampler
from tests.bench import carrier, loop, model, report, wire
from tests.bench.carrier import Phone, Stream, signature
from tests.bench.facts import Call, Facts
from tests.bench.model import Model
from tests.bench.playout import Playout
from tests.bench.sound import CALLER_RING, FRAME, PCM, PCMU, VOICE_OF, VOICES, code_of_pcm, delta

TRANSPARENT, TELEPHONE = "passthrough", "transcode"


# ---- framing


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_of_ours_is_understood_by_websockets(size: int) -> None:
    server = ServerProtocol(state=OPEN, max_size=None)
    server.receive_data(wire.frame(b"x" * size, masked=True))
    (received,) = server.events_received()
    assert isinstance(received, Frame)
    assert (received.opcode, received.data) == (Opcode.TEXT, b"x" * size)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_masked_frame_of_websockets_is_understood_by_us(size: int) -> None:
    client = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=OPEN)
    client.send_text(b"y" * size)
    assert wire.split(b"".join(client.data_to_send())) == ([(wire.TEXT, b"y" * size)], b"")


def test_frames_cut_anywhere_come_out_whole_and_in_order() -> None:
    payloads = [b"", b"a" * 5, b"b" * 125, b"c" * 126, b"d" * 700]
    stream = b"".join(wire.frame(payload, masked=bool(place % 2)) for place, payload in enumerate(payloads))
    for size in (1, 2, 3, 7, 128, 1_000):
        rest, got = b"", []
        for at in range(0, len(stream), size):
            frames, rest = wire.split(rest + stream[at : at + size])
            got += [payload for _, payload in frames]
        assert (got, rest) == (payloads, b"")


def test_a_message_in_pieces_is_refused() -> None:
    with pytest.raises(wire.BrokenFrame):
        wire.split(b"\x01\x03abc")


def test_the_upgrade_is_answered_as_rfc_6455_says() -> None:
    assert wire.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_signature_is_twilios() -> None:
    form = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+12349013030",
        "Digits": "1234",
        "From": "+12349013030",
        "To": "+18005551212",
    }
    assert signature("12345", "https://calls.example.com/voice/incoming", form) == "g9metIsZWfhICOSJyMsOe1y3Ydk="
    assert signature("12345", "wss://calls.example.com/media", {}) == "m+yylahm3KkzjghVZbNFHWVxaUI="


def test_the_stream_is_found_in_the_twiml() -> None:
    stream = Stream(
        b'<?xml version="1.0"?><Response><Connect action="/r"><Stream url="ws://127.0.0.1:1/twilio/media">'
        b'<Parameter name="token" value="a&amp;b" /></Stream></Connect><Redirect>/r</Redirect></Response>'
    )
    assert (stream.url, stream.parameters) == ("ws://127.0.0.1:1/twilio/media", {"token": "a&b"})
    with pytest.raises(ValueError, match="no <Connect><Stream>"):
        Stream(b"<Response><Say>busy</Say></Response>")


# ---- playout


def test_audio_sounds_in_real_time_however_fast_it_comes() -> None:
    phone = Playout()
    phone.queue("a", 800, 10.0)
    phone.queue("a", 800, 10.01)
    assert phone.ends_at == pytest.approx(10.2)
    assert phone.heard_ms("a", 10.05) == pytest.approx(50)
    assert phone.heard_ms("a", 10.15) == pytest.approx(150)
    assert phone.heard_ms("a", 11.0) == pytest.approx(200)


def test_a_gap_is_not_heard() -> None:
    phone = Playout()
    phone.queue("a", 800, 10.0)
    phone.queue("a", 800, 10.5)
    assert phone.ends_at == pytest.approx(10.6)
    assert phone.heard_ms("a", 10.55) == pytest.approx(150)


def test_who_is_queued_behind_another_is_not_heard_before_its_turn() -> None:
    phone = Playout()
    phone.queue("a", 800, 10.0)
    phone.queue("b", 800, 10.0)
    assert phone.heard_ms("b", 10.1) == 0
    phone.clear(10.15)
    assert phone.heard_ms("a", 11.0) == pytest.approx(100)
    assert phone.heard_ms("b", 11.0) == pytest.approx(50)


def test_a_clear_silences_at_once_and_what_follows_sounds_at_once() -> None:
    phone = Playout()
    phone.queue("a", 8_000, 10.0)
    phone.clear(10.3)
    assert phone.ends_at == 10.3
    phone.queue("b", 800, 10.4)
    assert phone.ends_at == pytest.approx(10.5)
    assert phone.heard_ms("a", 12.0) == pytest.approx(300)


def test_a_mark_is_due_when_all_before_it_has_sounded() -> None:
    phone = Playout()
    assert phone.mark(b"at once", 10.0)
    phone.queue("a", 800, 10.0)
    assert not phone.mark(b"first", 10.0)
    phone.queue("a", 800, 10.0)
    assert not phone.mark(b"second", 10.0)
    assert phone.due(10.099) == []
    assert phone.due(10.101) == [b"first"]
    assert phone.clear(10.15) == [b"second"]
    assert phone.due(20.0) == []


# ---- sound


def test_every_level_is_known_again_in_both_formats() -> None:
    assert len(set(CALLER_RING)) == 128
    for code in CALLER_RING:
        assert code_of_pcm(audioop.ulaw2lin(bytes([code]), 2)) == code
    for voice, code in enumerate(VOICES):
        assert VOICE_OF[code] == voice
        assert set(base64.b64decode(delta(voice, PCMU))) == {code}
        assert set(pcm_to_mulaw(base64.b64decode(delta(voice, PCM)))) == {code}
        assert len(base64.b64decode(delta(voice, PCM))) == 6 * len(base64.b64decode(delta(voice, PCMU)))


# ---- the peers against a perfect bridge


class Clock:
    """The peers' clock and loop, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self._timers: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._turn = count()

    def now(self) -> float:
        return self.seconds

    def after(self, seconds: float, func: Callable[..., None], *args: object) -> None:
        self.at(self.seconds + seconds, func, *args)

    def at(self, when: float, func: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._timers, (when, next(self._turn), func, args))

    def watch(self, link: object) -> None:
        """Nothing arrives by itself."""

    forget = watch

    def next_due(self, until: float) -> bool:
        """Run the next timer due by then; false if there is none."""
        if not self._timers or self._timers[0][0] > until:
            self.seconds = until
            return False
        when, _, func, args = heapq.heappop(self._timers)
        self.seconds = max(self.seconds, when)
        func(*args)
        return True


class Bridge:
    """A bridge without delay or fault, that cheats: it knows the phone's playout. A test breaks one thing of it."""

    def __init__(self, clock: Clock, path: str, server: socket.socket) -> None:
        self.clock, self.facts = clock, Facts()
        self.call = Call(0, self.facts)
        self.call.webhook_at = clock.seconds
        self.written: list[tuple[loop.Link, bytes]] = []
        address = f"ws://127.0.0.1:{server.getsockname()[1]}"
        self.phone = Phone(clock, self.call, Stream(twiml(address)), "AC0", "token", lambda: None)  # type: ignore[arg-type]
        self.call.phone = self.phone
        self.model = Model(clock, socket.create_connection(server.getsockname()), self.call)  # type: ignore[arg-type]
        self.transcodes = path == TELEPHONE
        self.up, self.down = Upsampler(), Downsampler()
        self.dropped: set[str] = set()
        self.first_at: dict[str, float] = {}
        self.speaking = ("", "")
        self.frames = 0
        self.on_frame: Callable[[int, bytes], list[bytes]] = lambda _, payload: [payload]
        self.on_delta: Callable[[int, bytes], list[bytes]] = lambda _, payload: [payload]
        self.deltas = 0
        self.lets_late_deltas_through = False

    def begin(self, *, ours: bool) -> None:
        """Open both sides; `ours` takes the turns itself."""
        self.ours = ours
        self.written.clear()
        self.phone.received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", self.clock.seconds)
        self.model.begin()
        kind = {"type": PCM, "rate": 24_000} if self.transcodes else {"type": PCMU}
        turns = {"type": "server_vad", "create_response": not ours, "interrupt_response": not ours}
        audio = {"input": {"format": kind, "turn_detection": turns}, "output": {"format": kind}}
        self.to_model({"type": "session.update", "session": {"type": "realtime", "audio": audio}})
        self.to_model({"type": "response.create"})
        self.pump()

    def run(self, seconds: float) -> None:
        """Let media time pass."""
        for _ in range(int(seconds * 50)):
            until = self.clock.seconds + 0.02
            while self.clock.next_due(until):
                self.pump()
            self.phone.send_frame()
            self.pump()

    def pump(self) -> None:
        """Take what the peers wrote and do as a bridge does, until nothing is left."""
        while self.written:
            link, data = self.written.pop(0)
            messages, rest = wire.split(data)
            assert not rest
            for opcode, text in messages:
                if opcode == wire.TEXT:
                    message = json.loads(text)
                    self.from_phone(message) if link is self.phone else self.from_model(message)

    def to_model(self, message: dict[str, object]) -> None:
        self.model.received(wire.frame(json.dumps(message).encode(), masked=True), self.clock.seconds)

    def to_phone(self, event: str, **fields: object) -> None:
        message = {"event": event, "streamSid": self.call.stream_sid, **fields}
        self.phone.received(wire.frame(json.dumps(message).encode()), self.clock.seconds)

    def from_phone(self, message: dict[str, dict[str, str]]) -> None:
        if message["event"] == "media":
            payload = base64.b64decode(message["media"]["payload"])
            for piece in self.on_frame(self.frames, payload):
                sound = self.up.feed(mulaw_to_pcm(piece)) if self.transcodes else piece
                self.to_model({"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()})
            self.frames += 1

    def from_model(self, message: dict[str, str]) -> None:
        kind = message["type"]
        if kind == "response.output_audio.delta":
            self.speaking = (message["response_id"], message["item_id"])
            if message["response_id"] in self.dropped and not self.lets_late_deltas_through:
                return
            sound = base64.b64decode(message["delta"])
            for piece in self.on_delta(self.deltas, sound):
                self.play(pcm_to_mulaw(self.down.feed(piece)) if self.transcodes else piece)
            self.deltas += 1
            self.first_at.setdefault(message["item_id"], self.clock.seconds)
        elif kind == "response.output_audio.done" and self.transcodes and self.speaking[0] not in self.dropped:
            self.play(pcm_to_mulaw(self.down.flush()))
        elif kind == "input_audio_buffer.speech_started":
            self.caller_speaks()
        elif kind == "input_audio_buffer.committed" and self.ours:
            self.to_model({"type": "response.create"})

    def play(self, sound: bytes) -> None:
        self.to_phone("media", media={"payload": base64.b64encode(sound).decode()})
        self.to_phone("mark", mark={"name": "m"})

    def caller_speaks(self) -> None:
        response, item = self.speaking
        if self.phone.playout.ends_at <= self.clock.seconds:
            return
        heard_ms = round((self.clock.seconds - self.first_at[item]) * 1_000)
        self.to_phone("clear")
        self.dropped.add(response)
        self.down.reset()
        if self.ours and self.model.active is not None:
            self.to_model({"type": "response.cancel"})
        self.to_model({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": heard_ms})


def twiml(address: str) -> bytes:
    return f'<Response><Connect><Stream url="{address}/twilio/media" /></Connect></Response>'.encode()


@pytest.fixture
def make_bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Bridge]]:
    clock = Clock()
    bridges: list[Bridge] = []
    for module in (carrier, model):
        monkeypatch.setattr(module, "now", clock.now)

    def write(link: loop.Link, data: bytes) -> None:
        for bridge in bridges:
            bridge.written.append((link, data))

    monkeypatch.setattr(loop.Link, "write", write)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def make(path: str) -> Bridge:
            bridges.append(Bridge(clock, path, server))
            return bridges[0]

        yield make
    for bridge in bridges:
        bridge.phone.sock.close()
        bridge.model.sock.close()


HARM = (
    "lost_in", "invented_in", "altered_in", "unknown_in", "lost_out", "invented_out", "altered_out", "unknown", "leaked",
)  # fmt: skip


def harm(bridge: Bridge) -> dict[str, int]:
    return {name: bridge.facts.counts[f"{name}_samples"] for name in HARM if bridge.facts.counts[f"{name}_samples"]}


@pytest.mark.parametrize("ours", [False, True], ids=["the model takes the turns", "the bridge takes the turns"])
@pytest.mark.parametrize("path", [TRANSPARENT, TELEPHONE])
def test_a_perfect_bridge_is_found_to_do_no_harm(make_bridge: Callable[[str], Bridge], path: str, ours: bool) -> None:
    bridge = make_bridge(path)
    bridge.begin(ours=ours)
    bridge.run(100)
    facts = bridge.facts
    assert harm(bridge) == {}
    assert not facts.complaints
    assert 8 <= facts.counts["barge_ins"] <= 12
    assert len(facts.barge_in) == len(facts.truncation_ms) == facts.counts["clears"] == facts.counts["barge_ins"]
    assert facts.counts["late_deltas"] > 0
    assert max(abs(error) for error in facts.truncation_ms) <= 1
    assert 0.49 < facts.heard_ms / 100_000 < 0.59
    assert len(facts.inbound) == bridge.call.frames_sent == 5_000
    # A filter's reach of 1.5 ms is no delay of a frame; the clock stood still between the two ends.
    assert max(facts.inbound) == max(facts.outbound) == max(facts.barge_in) == 0


def test_a_lost_frame_is_found(make_bridge: Callable[[str], Bridge]) -> None:
    bridge = make_bridge(TELEPHONE)
    bridge.on_frame = lambda number, payload: [] if number == 100 else [payload]
    bridge.begin(ours=True)
    bridge.run(10)
    assert harm(bridge) == {"lost_in": FRAME}


def test_an_invented_frame_is_found(make_bridge: Callable[[str], Bridge]) -> None:
    bridge = make_bridge(TELEPHONE)
    bridge.on_frame = lambda number, payload: [payload, payload] if number == 100 else [payload]
    bridge.begin(ours=True)
    bridge.run(10)
    assert harm(bridge) == {"invented_in": FRAME}


def test_an_altered_frame_is_found_where_audio_passes_through(make_bridge: Callable[[str], Bridge]) -> None:
    bridge = make_bridge(TRANSPARENT)
    bridge.on_frame = lambda number, payload: [payload[:-1] + b"\x00"] if number == 100 else [payload]
    bridge.begin(ours=True)
    bridge.run(10)
    assert harm(bridge) == {"altered_in": FRAME}


def test_frames_that_come_together_are_not_lost(make_bridge: Callable[[str], Bridge]) -> None:
    bridge = make_bridge(TRANSPARENT)
    held: list[bytes] = []

    def by_fives(_: int, payload: bytes) -> list[bytes]:
        held.append(payload)
        if len(held) < 5:
            return []
        together = b"".join(held)
        held.clear()
        return [together]

    bridge.on_frame = by_fives
    bridge.begin(ours=True)
    bridge.run(10)
    assert harm(bridge) == {}
    assert len(bridge.facts.inbound) == 500
    assert max(bridge.facts.inbound) == pytest.approx(0.08)


def test_what_was_trimmed_before_the_session_was_ready_is_told_from_what_was_lost(make_bridge: Callable[[str], Bridge]) -> None:
    bridge = make_bridge(TRANSPARENT)
    bridge.on_frame = lambda number, payload: [] if number < 30 else [payload]
    bridge.begin(ours=True)
    bridge.run(10)
    assert harm(bridge) == {}
    assert bridge.facts.counts["trimmed_frames"] == 30


@pytest.mark.parametrize("path", [TRANSPARENT, TELEPHONE])
def test_a_lost_delta_is_found(make_bridge: Callable[[str], Bridge], path: str) -> None:
    bridge = make_bridge(path)
    bridge.on_delta = lambda number, sound: [] if number == 3 else [sound]
    bridge.begin(ours=True)
    bridge.run(10)
    assert harm(bridge) == {"lost_out": 800}


@pytest.mark.parametrize("path", [TRANSPARENT, TELEPHONE])
def test_a_delta_played_after_the_clear_is_found(make_bridge: Callable[[str], Bridge], path: str) -> None:
    bridge = make_bridge(path)
    bridge.lets_late_deltas_through = True
    bridge.begin(ours=False)
    bridge.run(100)
    late = bridge.facts.counts["late_deltas"]
    assert late > 0
    # A resampler holds the last 1.5 ms back; they leak with the next delta, and that is an utterance that was not cut.
    held_back = 12 if path == TELEPHONE else 0
    assert late * (800 - held_back) <= bridge.facts.counts["leaked_samples"] <= late * 800


def test_a_delta_that_comes_late_is_late(make_bridge: Callable[[str], Bridge]) -> None:
    bridge = make_bridge(TRANSPARENT)
    held: list[bytes] = []

    def one_behind(_: int, sound: bytes) -> list[bytes]:
        held.append(sound)
        return [held.pop(0)] if len(held) > 1 else []

    bridge.on_delta = one_behind
    bridge.begin(ours=True)
    bridge.run(1)
    assert bridge.facts.outbound
    assert min(bridge.facts.outbound) == pytest.approx(0.025, abs=1e-6)


def test_a_second_response_is_refused_while_one_is_active(make_bridge: Callable[[str], Bridge]) -> None:
    bridge = make_bridge(TRANSPARENT)
    bridge.begin(ours=True)
    bridge.to_model({"type": "response.create"})
    assert bridge.facts.complaints == {"the model refused response.create: conversation_already_has_active_response": 1}


# ---- the report


def one_run(cpu: float, inbound: float) -> dict[str, object]:
    spread = {"n": 3, "p50": inbound, "p99": inbound, "max": inbound, "abs_p50": 1.0, "abs_p99": 2.0}
    return {
        "calls": 10, "seconds": 30.0, "cpu_seconds": cpu, "megabytes_per_call": 0.1, "agent_audible": 0.54,
        "turns": 60, "barge_ins": 3, "others_on_the_core": 0.0,
        "latency_ms": {name: spread for name in ("inbound", "outbound", "barge_in", "first_audio")}, "truncation_error_ms": spread,
        "stalled_calls": 0, "samples": {f"{name}": 0 for name in HARM}, "complaints": {"x": 1},
        "load": {"cpu": 0.1, "tick_late_ms": spread},
    }  # fmt: skip


def test_runs_of_one_cell_are_taken_together_and_compared() -> None:
    ours, yardstick = report.cell([one_run(1.0, 1.0), one_run(2.0, 3.0)]), report.cell([one_run(3.0, 4.0)])
    assert ours["cpu_seconds_per_call_minute"] == pytest.approx(0.3)
    assert ours["latency_ms"]["inbound"]["p50"] == 2.0
    assert (ours["barge_ins"], ours["unanswered_barge_ins"], ours["complaints"]) == (6, 0, {"x": 2})
    ratios = report.ratios(ours, yardstick)
    assert (ratios["cpu"], ratios["inbound_p99"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert any(
        "CPU to the yardstick's 0.50, aim at most 0.6: reached" in line
        for line in report.judgement("passthrough", 10, ours, yardstick)
    )
    ours["samples"]["leaked"] = 8
    assert any("leaked 8, aim at most 0: NOT reached" in line for line in report.judgement("passthrough", 10, ours, yardstick))
