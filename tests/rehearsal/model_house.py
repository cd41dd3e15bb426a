"""A telephone line to a session, without a socket and without waiting: 20 ms of both directions at a time, on a clock of its own.

The client behaves as the product does: it takes the turns itself (both flags of the turn detection are false), answers tools, and
creates one response when the results are in.
"""

import base64
import heapq
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from app.rehearsal import ulaw
from app.rehearsal.hearing import Recognisers
from app.rehearsal.rates import Resampler
from app.rehearsal.realtime import Session, Stage
from app.rehearsal.realtime_faults import Misbehaviour
from app.rehearsal.voice import say
from tests.rehearsal.brain_house import INSTRUCTIONS, TOOLS, House
from tests.rehearsal.contract import client_event_complaints, server_event_complaints

FRAME_MS, FRAME = 20, 160
QUIET_MS = 600


class Alarm:
    """A call that was put off."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class HandClock:
    """A clock that somebody turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Alarm:
        alarm = Alarm(callback)
        heapq.heappush(self._alarms, (self.now + delay, next(self._count), alarm))
        return alarm

    def advance(self, seconds: float) -> None:
        """Time passes, and what is due happens in its order."""
        end = self.now + seconds
        while self._alarms and self._alarms[0][0] <= end + 1e-9:
            self.now, _, alarm = heapq.heappop(self._alarms)
            if alarm.callback is not None:
                callback, alarm.callback = alarm.callback, None
                callback()
        self.now = end


def message(role: str, text: str) -> dict[str, Any]:
    """A message item as a client makes it."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


class Line:
    """One session with a line to it. Every event both ways is checked against the contract."""

    def __init__(
        self,
        recognisers: Recognisers,
        misbehaviour: Misbehaviour | None = None,
        *,
        speed: float = 4.0,
        wide: bool = False,
        seed: int = 0,
    ) -> None:
        self.clock = HandClock()
        self.events: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.closed: tuple[int | None, str] | None = None
        self.unchecked = misbehaviour is not None and misbehaviour.unknown
        self.on_event: list[Callable[[dict[str, Any]], None]] = []
        self.wide = wide
        self._up = Resampler(8_000, 24_000)
        self._sent = itertools.count(1)
        stage = Stage(
            emit=self._emitted,
            close=lambda code, reason: setattr(self, "closed", (code, reason)),
            clock=self.clock,
            tell=self.told.append,
            now_s=lambda: 1_760_000_000.0,
            speed=speed,
            misbehaviour=misbehaviour or Misbehaviour(),
            seed=seed,
        )
        self.session = Session("sess_0123456789abcdef", "gpt-realtime-rehearsal", recognisers, stage)

    def _emitted(self, event: dict[str, Any]) -> None:
        event = json.loads(json.dumps(event))
        if not self.unchecked:
            assert server_event_complaints(event) == [], event["type"]
        self.events.append(event)
        for listener in self.on_event:
            listener(event)

    def send(self, kind: str, *, checked: bool = True, **content: Any) -> str:
        """Send an event; its id."""
        event = {"type": kind, "event_id": f"cli_{next(self._sent)}", **content}
        if checked:
            assert client_event_complaints(event) == [], event
        self.session.feed(event)
        return event["event_id"]

    def append(self, line: bytes) -> None:
        """Line audio, in the format of the session."""
        if self.wide:
            line = np.clip(np.rint(self._up.feed(ulaw.to_linear(line))), -32_768, 32_767).astype("<i2").tobytes()
        self.send("input_audio_buffer.append", audio=base64.b64encode(line).decode())

    def open(self, **turn: Any) -> None:
        """Start, and configure the session as the product does."""
        self.session.start()
        self.send("session.update", session=self.settings(**turn))

    def settings(self, **turn: Any) -> dict[str, Any]:
        """The product's session."""
        sound = {"type": "audio/pcm", "rate": 24_000} if self.wide else {"type": "audio/pcmu"}
        detection = {
            "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500, "idle_timeout_ms": None,
            "create_response": False, "interrupt_response": False,
        }  # fmt: skip
        return {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": INSTRUCTIONS,
            "audio": {
                "input": {
                    "format": sound,
                    "noise_reduction": None,
                    "transcription": {"model": "gpt-transcribe", "languages": ["en"]},
                    "turn_detection": detection | turn,
                },
                "output": {"format": sound, "voice": "marin"},
            },
            "tools": [
                {"type": "function", "name": name, "description": "", "parameters": schema} for name, schema in TOOLS.items()
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "reasoning": {"effort": "low"},
        }

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of some types."""
        return [event for event in self.events if event["type"] in kinds]

    @property
    def kinds(self) -> list[str]:
        """The types of all events."""
        return [event["type"] for event in self.events]

    @property
    def errors(self) -> list[str | None]:
        """The codes of all errors."""
        return [event["error"]["code"] for event in self.of("error")]

    def audio(self) -> bytes:
        """All of the agent's audio."""
        return b"".join(base64.b64decode(event["delta"]) for event in self.of("response.output_audio.delta"))

    def run(self, ms: int, sound: bytes = b"") -> None:
        """Time passes on the line; what is not said is silence."""
        for at in range(0, ms * 8, FRAME):
            frame = sound[at : at + FRAME]
            self.append(frame + ulaw.SILENCE * (FRAME - len(frame)))
            self.clock.advance(FRAME_MS / 1_000)


class Call(Line):
    """A line with the product's manners: a `House` answers the tools."""

    def __init__(self, recognisers: Recognisers, misbehaviour: Misbehaviour | None = None, **options: Any) -> None:
        super().__init__(recognisers, misbehaviour, **options)
        self.house = House()
        self.active: str | None = None
        self.owed: dict[str, Any] | None = None
        self.queued_ms = 0.0
        self.quiet_ms = 0
        self.ending = False
        self.on_event.append(self.see)

    def greet(self, sentence: str = "Linden Gardens, hello! How can I help you?") -> None:
        """Open the call."""
        self.open()
        self.speak(f'{INSTRUCTIONS}\n\nFor your next words only:\nSay exactly: "{sentence}"')

    def speak(self, instructions: str | None = None) -> None:
        """Create a response, now or as soon as none runs."""
        response: dict[str, Any] = {"output_modalities": ["audio"]}
        if instructions:
            response["instructions"] = instructions
        if self.active is None:
            self.active = "asked"
            self.send("response.create", response=response)
        else:
            self.owed = response

    def see(self, event: dict[str, Any]) -> None:
        """What the product does about an event."""
        match event:
            case {"type": "response.created"}:
                self.active = event["response"]["id"]
            case {"type": "response.output_audio.delta"}:
                self.queued_ms += len(base64.b64decode(event["delta"])) / (48 if self.wide else 8)
            case {"type": "input_audio_buffer.committed"}:
                self.speak()
            case {"type": "response.output_item.done", "item": {"type": "function_call", "status": "completed", **item}}:
                arguments = json.loads(item["arguments"])
                self.house.calls.append((item["name"], arguments))
                self.ending = self.ending or item["name"] in ("end_call", "transfer_to_human")
                output = json.dumps(self.house.result(item["name"], arguments))
                self.send(
                    "conversation.item.create", item={"type": "function_call_output", "call_id": item["call_id"], "output": output}
                )
                self.owed = None if self.ending else {"output_modalities": ["audio"]}
            case {"type": "response.done"}:
                self.active = None
                if (owed := self.owed) is not None:
                    self.owed = None
                    self.active = "asked"
                    self.clock.call_later(0.001, lambda: self.send("response.create", response=owed))

    def run(self, ms: int, sound: bytes = b"") -> None:
        for at in range(0, ms * 8, FRAME):
            super().run(FRAME_MS, sound[at : at + FRAME])
            self.queued_ms = max(0.0, self.queued_ms - FRAME_MS)
            self.quiet_ms = 0 if self.queued_ms or self.active else self.quiet_ms + FRAME_MS

    def listen(self) -> str:
        """Let the agent speak to its end; what it said since the last time."""
        before = len(self.told)
        waited = 0
        while self.quiet_ms < QUIET_MS and waited < 60_000:
            self.run(FRAME_MS)
            waited += FRAME_MS
        assert waited < 60_000, "the agent never stopped"
        del before
        said = " ".join(event["text"] for event in self.told[self._told_at :] if event["event"] == "agent_says")
        self._told_at = len(self.told)
        return said

    _told_at = 0

    def say(self, text: str, *, voice: str = "klatt5", pace: int = 150, noise: Any = None) -> str:
        """Say something, wait for the turn's end and for the answer; what the agent said."""
        samples = say(text, voice=voice, rate=8_000, words_per_minute=pace).astype(np.float64)
        samples = np.concatenate([samples, np.zeros(8 * 900)])
        if noise is not None:
            samples = samples + noise(len(samples))
        sound = ulaw.to_ulaw(np.clip(np.rint(samples), -32_768, 32_767).astype(np.int16))
        self.quiet_ms = 0
        self.run(-(-len(sound) // FRAME) * FRAME_MS, sound)
        return self.listen()

    @property
    def heard(self) -> list[str]:
        """What the model heard, in order."""
        return [event["text"] for event in self.told if event["event"] == "heard"]
