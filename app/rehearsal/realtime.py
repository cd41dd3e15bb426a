"""One session of the pretend model: OpenAI's Realtime protocol (GA) without a socket. Events in by `feed`, events out by `emit`.

It keeps the contract of OpenAI's Realtime documentation; both flags of the turn detection are obeyed in all four combinations.

Rule 1: time on the caller's side is media time: what was appended. Only pacing and lateness use the clock, which is given.
Rule 2: an event that cannot be taken is answered with `error` and changes nothing; the session lives on.
Rule 3: one response at a time writes to the default conversation.
"""

import base64
import binascii
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.rehearsal import brain
from app.rehearsal.brain_memory import Line
from app.rehearsal.ears import Detection, Ears, Started, Stopped
from app.rehearsal.hearing import Recognisers
from app.rehearsal.realtime_config import default_session, response_settings, updated
from app.rehearsal.realtime_faults import Misbehaviour, Refused
from app.rehearsal.realtime_items import Conversation, Item
from app.rehearsal.realtime_response import Response
from app.rehearsal.realtime_transcripts import Transcripts

SHORTEST_COMMIT_MS = 100
LARGEST_APPEND = 15 * 2**20
LIFE_S = 3_600.0
EXPIRED = "Your session hit the maximum duration of 60 minutes."
SPEED = 4.0
_EAGERNESS = {"low": 2_000, "medium": 1_000, "auto": 1_000, "high": 500}
"""How long semantic turn detection waits here, in ms: we have only the silence to go by."""

type Event = dict[str, Any]


class Timer(Protocol):
    """A call that was put off."""

    def cancel(self) -> None:
        """It will not be made."""


class Clock(Protocol):
    """Who makes calls later. `asyncio`'s loop is one."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Make a call after so many seconds."""

    def time(self) -> float:
        """Seconds since some beginning."""


def _nothing(_event: Event) -> None:
    """Nobody listens."""


@dataclass(kw_only=True)
class Stage:
    """What a session is given. `emit` sends an event, `close` ends the socket (None: drops it), `tell` shows what goes on."""

    emit: Callable[[Event], None]
    close: Callable[[int | None, str], None]
    clock: Clock
    stall: Callable[[], None] = lambda: None  # read nothing more, not even pings
    tell: Callable[[Event], None] = _nothing
    now_s: Callable[[], float] = lambda: 0.0
    """Seconds since 1970, for `expires_at`."""
    speed: float = SPEED
    """How many times faster than it plays the audio comes."""
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    seed: int = 0


class Session:
    """One session. Call `start` once, then `feed`; `end` when the socket is gone."""

    def __init__(self, session_id: str, model: str, recognisers: Recognisers, stage: Stage) -> None:
        self.id = session_id
        self._stage, self._clock, self._script = stage, stage.clock, stage.misbehaviour
        self._dice = random.Random(stage.seed)
        self._counts: dict[str, int] = {}
        self._conversation = Conversation(self._new_id("conv"))
        self._ears, self._recognisers = Ears(recognisers), recognisers
        self._session = default_session(model, session_id, int(stage.now_s() + (self._script.lasts_s or LIFE_S)))
        self._responses: dict[str, Response] = {}
        """Those that run."""
        self._begun = 0
        self._deltas = 0
        self._last_input = (0, 0)
        self._voice_is_locked = False
        self._speech_item: str | None = None
        self._transcripts = Transcripts(self._emit, self._later, self._script)
        self._idle: Timer | None = None
        self._timers: set[Timer] = set()
        self._over = self._is_hole = False
        self._emitted: dict[str, int] = {}  # by kind
        self._takers: Mapping[str, Callable[[Event], None]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create_item,
            "conversation.item.delete": self._delete_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }

    # ---- from outside

    def start(self) -> None:
        """The connection stands."""
        self._hear_by_settings()
        if self._script.no_session:
            self._become_a_hole()
        self._later(self._script.late_session_ms / 1_000, self._created)
        self._later(LIFE_S if self._script.expire_ms is None else self._script.expire_ms / 1_000, self._expire)

    def feed(self, event: Any) -> None:
        """Take one event of the client's."""
        if self._over or self._is_hole:
            return
        try:
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                raise Refused("missing_required_parameter", "Missing required parameter: 'type'.", "type")
            taker = self._takers.get(event["type"])
            if taker is None:
                known = ", ".join(repr(name) for name in self._takers)
                raise Refused("invalid_value", f"Invalid value: '{event['type']}'. Supported values are: {known}.", "type")
            taker(event)
        except Refused as refused:
            self._refuse(refused, event)

    def end(self) -> None:
        """The connection is gone."""
        self._over = True
        for timer in [*self._timers, *filter(None, [self._idle])]:
            timer.cancel()
        self._timers.clear()
        self._ears.clear()

    # ---- sending

    def _emit(self, event: Event) -> None:
        if self._over or self._is_hole:
            return
        kind, rest = event["type"], {name: value for name, value in event.items() if name != "type"}
        event = {"type": kind, "event_id": self._new_id("event"), **rest}
        if self._script.unknown:
            event["x_rehearsal"] = {"note": "a field nobody knows"}
            if self._counts["event"] % 7 == 0:
                self._stage.emit({"type": "rehearsal.unheard_of", "event_id": self._new_id("event"), "detail": {}})
        self._stage.emit(event)
        if kind == "response.output_audio.delta":
            self._count_delta()
        if self._script.drop_at is not None:
            self._emitted[kind] = self._emitted.get(kind, 0) + 1
            if self._script.drop_at == (kind, self._emitted[kind]):
                self._close(None, "")

    def _count_delta(self) -> None:
        self._deltas += 1
        self._voice_is_locked = True
        if self._script.drop_after_deltas is not None and self._deltas >= self._script.drop_after_deltas:
            self._close(None, "")
        elif self._script.close_after_deltas is not None and self._deltas >= self._script.close_after_deltas[0]:
            self._close(self._script.close_after_deltas[1], "by script")
        elif self._script.hole_after_deltas is not None and self._deltas >= self._script.hole_after_deltas:
            self._become_a_hole()

    def _become_a_hole(self) -> None:
        self._is_hole = True
        self._stage.stall()

    def _close(self, code: int | None, reason: str) -> None:
        self.end()
        self._stage.close(code, reason)

    def _refuse(self, refused: Refused, event: Any = None) -> None:
        event_id = event.get("event_id") if isinstance(event, dict) and not self._script.forget_event_ids else None
        error = {
            "type": "invalid_request_error",
            "code": refused.code,
            "message": refused.message,
            "param": refused.param,
            "event_id": event_id if isinstance(event_id, str) else None,
        }
        self._tell("refused", code=refused.code, param=refused.param)
        self._emit({"type": "error", "error": error})

    def _tell(self, kind: str, **facts: Any) -> None:
        self._stage.tell({"event": kind, "session": self.id, **facts})

    def _new_id(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self.id[-10:]}_{self._counts[kind]:05}"

    def _later(self, seconds: float, callback: Callable[[], None]) -> Timer | None:
        if seconds <= 0:
            callback()
            return None
        timer: Timer

        def due() -> None:
            self._timers.discard(timer)
            if not self._over and not self._is_hole:
                callback()

        timer = self._clock.call_later(seconds, due)
        self._timers.add(timer)
        return timer

    # ---- the session

    def _created(self) -> None:
        self._emit({"type": "session.created", "session": self._shown_session()})
        self._emit(
            {"type": "conversation.created", "conversation": {"id": self._conversation.id, "object": "realtime.conversation"}}
        )

    def _shown_session(self) -> Event:
        return {name: value for name, value in self._session.items() if name != "include" or value is not None}

    def _expire(self) -> None:
        error = {"type": "invalid_request_error", "code": "session_expired", "message": EXPIRED, "param": None, "event_id": None}
        self._emit({"type": "error", "error": error})
        self._close(1001, EXPIRED.rstrip("."))

    def _update(self, event: Event) -> None:
        before = self._session
        self._session = updated(before, event.get("session"), voice_is_locked=self._voice_is_locked)
        if self._session["audio"]["input"] != before["audio"]["input"]:
            self._hear_by_settings(before)
        self._tell("session_updated", tools=[tool["name"] for tool in self._session["tools"]])
        self._emit({"type": "session.updated", "session": self._shown_session()})

    @property
    def _turn_detection(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._session["audio"]["input"]["turn_detection"]
        return found

    def _hear_by_settings(self, before: dict[str, Any] | None = None) -> None:
        settings = self._session["audio"]["input"]
        if before is None or before["audio"]["input"]["format"] != settings["format"]:
            self._ears.take_format(settings["format"]["type"])
        turn = self._turn_detection
        if turn is None:
            self._ears.detect(None)
        elif turn["type"] == "semantic_vad":
            self._ears.detect(Detection(silence_ms=_EAGERNESS[turn["eagerness"]]))
        else:
            self._ears.detect(Detection(turn["threshold"], turn["prefix_padding_ms"], turn["silence_duration_ms"]))

    # ---- the caller's audio

    def _append(self, event: Event) -> None:
        audio = event.get("audio")
        if not isinstance(audio, str):
            raise Refused("missing_required_parameter", "Missing required parameter: 'audio'.", "audio")
        try:
            sound = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise Refused("invalid_value", "Invalid 'audio'. Expected base64-encoded audio bytes.", "audio") from None
        if len(sound) > LARGEST_APPEND:
            raise Refused("invalid_value", "Invalid 'audio': at most 15 MiB in one event.", "audio")
        for heard in self._ears.hear(sound):
            if isinstance(heard, Started):
                self._speech_started(heard)
            else:
                self._speech_stopped(heard)

    def _speech_started(self, heard: Started) -> None:
        self._stop_idling()
        self._speech_item = self._new_id("item")
        self._tell("caller_starts", start_ms=heard.start_ms)
        self._emit({"type": "input_audio_buffer.speech_started", "audio_start_ms": heard.start_ms, "item_id": self._speech_item})
        turn = self._turn_detection
        if turn is not None and turn["interrupt_response"] and (running := self._running()) is not None:
            self._stop(running, "turn_detected")

    def _speech_stopped(self, heard: Stopped) -> None:
        item_id = self._speech_item or self._new_id("item")
        self._emit({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": heard.end_ms, "item_id": item_id})
        self._committed(heard, item_id)
        turn = self._turn_detection
        if turn is not None and turn["create_response"]:
            self._respond_by_itself()

    def _respond_by_itself(self) -> None:
        try:
            self._respond(None)
        except Refused as refused:
            self._refuse(refused)

    def _commit(self, _event: Event) -> None:
        if self._ears.uncommitted_ms < SHORTEST_COMMIT_MS:
            raise Refused(
                "input_audio_buffer_commit_empty",
                f"Error committing input audio buffer: buffer too small. Expected at least {SHORTEST_COMMIT_MS}ms of audio, "
                f"but buffer only has {self._ears.uncommitted_ms:.2f}ms of audio.",
            )
        self._committed(self._ears.take(), self._speech_item or self._new_id("item"))

    def _clear(self, _event: Event) -> None:
        self._ears.clear()
        self._speech_item = None
        self._emit({"type": "input_audio_buffer.cleared"})

    def _committed(self, heard: Stopped, item_id: str) -> None:
        self._speech_item = None
        wire = {"id": item_id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user",
                "content": [{"type": "input_audio", "transcript": None}]}  # fmt: skip
        item = Item(wire, heard=heard.text, heard_ms=heard.end_ms - heard.start_ms)
        previous = self._conversation.add(item)
        self._tell("heard", text=heard.text, ms=item.heard_ms)
        self._emit({"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": previous})
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._emit({"type": kind, "previous_item_id": previous, "item": item.shown()})
        if (transcription := self._session["audio"]["input"]["transcription"]) is not None:
            self._transcripts.write(item, str(transcription.get("model", "gpt-transcribe")))

    # ---- items

    def _create_item(self, event: Event) -> None:
        item = self._conversation.made(event.get("item"), self._new_id("item"))
        previous = self._conversation.add(item, previous=event.get("previous_item_id"))
        self._listen_to(item)
        if item.wire["type"] == "function_call_output":
            self._tell("tool_answered", call_id=item.wire["call_id"], output=item.wire["output"])
        elif item.wire["type"] == "message":
            self._tell(
                "item_created", role=item.wire["role"], text=" ".join(str(part.get("text", "")) for part in item.wire["content"])
            )
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._emit({"type": kind, "previous_item_id": previous, "item": item.shown()})
        self._expect()

    def _listen_to(self, item: Item) -> None:
        """An item may bring audio along, in the session's input format."""
        audio = next((part["audio"] for part in item.wire.get("content", ()) if part.get("type") == "input_audio"), None)
        if audio is None:
            return
        ears = Ears(self._recognisers)  # the session's own may be in the middle of an utterance
        ears.take_format(self._session["audio"]["input"]["format"]["type"])
        ears.detect(None)
        ears.expect(brain.state_of(self._conversation.lines()))
        try:
            list(ears.hear(base64.b64decode(audio, validate=True)))
        except (binascii.Error, ValueError):
            raise Refused(
                "invalid_value", "Invalid 'audio'. Expected base64-encoded audio bytes.", "item.content[0].audio"
            ) from None
        heard = ears.take()
        item.heard, item.heard_ms = heard.text, heard.end_ms

    def _delete_item(self, event: Event) -> None:
        item = self._conversation.find(event.get("item_id"))
        self._conversation.remove(item)
        self._emit({"type": "conversation.item.deleted", "item_id": item.id})

    def _retrieve_item(self, event: Event) -> None:
        self._emit({"type": "conversation.item.retrieved", "item": self._conversation.find(event.get("item_id")).shown()})

    def _truncate_item(self, event: Event) -> None:
        self._conversation.truncate(event.get("item_id"), event.get("content_index"), event.get("audio_end_ms"))
        place = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
        self._tell("truncated", ms=event["audio_end_ms"])
        self._emit({"type": "conversation.item.truncated", **place})

    # ---- responses

    def _running(self) -> Response | None:
        """The response that writes to the default conversation, if there is one."""
        return next((response for response in self._responses.values() if response.in_conversation), None)

    def _create_response(self, event: Event) -> None:
        self._respond(event.get("response"))

    def _respond(self, asked: Any) -> None:
        settings = response_settings(self._session, asked, voice_is_locked=self._voice_is_locked)
        outside = settings["conversation"] == "none"
        if not outside and (running := self._running()) is not None:
            raise Refused(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {running.id}. Wait until the response is "
                "finished before creating a new one.",
            )
        self._stop_idling()
        lines = self._conversation.lines() if settings["input"] is None else self._given(settings["input"])
        acts = brain.respond(lines, self._order(settings))
        self._begun += 1
        tokens = self._input_tokens(settings)
        cached = min(tokens[0], self._last_input[0]), min(tokens[1], self._last_input[1])
        self._last_input = tokens
        response = Response(
            self._begun,
            settings,
            acts,
            conversation=None if outside else self._conversation,
            emit=self._emit,
            new_id=self._new_id,
            misbehaviour=self._script,
            dice=self._dice,
            speed=self._stage.speed,
            input_tokens=tokens,
            cached_tokens=cached,
        )
        self._responses[response.id] = response
        self._tell_acts(response, acts)
        self._run(response, response.run())

    def _given(self, items: list[Any]) -> list[Line]:
        """The items that a response is told to go by, instead of the conversation's."""
        lines: list[Line] = []
        apart = Conversation("")
        for given in items:
            if isinstance(given, dict) and given.get("type") == "item_reference":
                lines += self._conversation.find(given.get("id")).lines()
            else:
                lines += apart.made(given, "item_given").lines()
        return lines

    def _order(self, settings: Mapping[str, Any]) -> brain.Order:
        general, here = self._session["instructions"], settings["instructions"]
        now = "" if here == general else here.removeprefix(general)
        tools = {tool["name"]: tool.get("parameters", {}) for tool in settings["tools"]}
        return brain.Order(general, now, tools, settings["tool_choice"] != "none")

    def _input_tokens(self, settings: Mapping[str, Any]) -> tuple[int, int]:
        text, audio = self._conversation.tokens()
        return text + (len(settings["instructions"]) + len(str(settings["tools"]))) // 4, audio

    def _tell_acts(self, response: Response, acts: list[brain.Act]) -> None:
        for act in acts:
            if isinstance(act, brain.Say):
                self._tell("agent_says", text=act.text, response=response.id)
            else:
                self._tell("tool_called", name=act.name, arguments=dict(act.arguments), response=response.id)

    def _run(self, response: Response, steps: Iterator[float]) -> None:
        """One step after another, until it is over or was stopped."""
        wait = 0.0
        while wait <= 0 and not response.is_over and not self._over:
            shown = len(response.output)
            wait = next(steps, -1.0)
            if len(response.output) != shown:
                self._expect()
            if wait < 0:
                break
        if response.is_over:
            self._ended(response)
        elif wait > 0:
            self._later(wait, lambda: self._run(response, steps))

    def _ended(self, response: Response) -> None:
        if self._responses.pop(response.id, None) is None:
            return
        self._tell("response_done", response=response.id, status=response.status)
        self._expect()
        turn = self._turn_detection
        if response.in_conversation and turn is not None and turn.get("idle_timeout_ms"):
            # The server cannot know what was heard: it counts the audio that it sent.
            ahead_ms = response.audio_ms * (1 - 1 / self._stage.speed)
            self._idle = self._clock.call_later((ahead_ms + turn["idle_timeout_ms"]) / 1_000, self._idled)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idled(self) -> None:
        self._idle = None
        if self._over or self._ears.speaking:
            return
        heard = self._ears.take()
        item_id = self._new_id("item")
        place = {"audio_start_ms": heard.start_ms, "audio_end_ms": heard.end_ms, "item_id": item_id}
        self._emit({"type": "input_audio_buffer.timeout_triggered", **place})
        self._committed(heard, item_id)
        self._respond_by_itself()

    def _cancel_response(self, event: Event) -> None:
        named = event.get("response_id")
        response = self._responses.get(named) if named is not None else self._running()
        if response is None:
            raise Refused("response_cancel_not_active", "Cancellation failed: no active response found")
        self._stop(response, "client_cancelled")

    def _stop(self, response: Response, reason: str) -> None:
        response.finish("cancelled", {"type": "cancelled", "reason": reason})
        self._ended(response)
        for _ in range(self._script.late_deltas):
            response.late_delta()

    def _expect(self) -> None:
        """Whatever changes the conversation may change what is likely to be said next."""
        self._ears.expect(brain.state_of(self._conversation.lines()))
