"""OpenAI Realtime in our words and back: the server's messages to events, commands to the client's messages. Pure.

One `Wire` is one session: it keeps what the session's counting needs (how much audio went in, how much of which utterance came out)
and the state of the audio path.

Rule 1: a message is decoded only as far as it is used. What we do not know is counted and skipped; what we know but cannot read is
a BadModelMessage, which names the kind and nothing of the content.
Rule 2: what is a help only (usage, status details) is decoded apart, so that its loss does not lose the fact.
Rule 3: an utterance of ours is a content part of theirs: `item` for the first part of an item, `item#2` for the third.
Rule 4: the provider's times count the audio that we appended; so "ago" is counted in bytes appended, and needs no clock.
Rule 5: a word of the provider's that leaves this room (a code, a reason) has the form of an identifier, or it is `unknown`.
Rule 6: a response is a voice from its first sound on. What comes before it is told as silence; the level is measured until then
and no longer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import msgspec
import pybase64

from app.audio import g711
from app.audio.path import AudioPath
from app.call.agent import Agent
from app.call.commands import Brief, CancelSpeech, GiveResult, ModelCommand, Speak, StopSpeaking
from app.call.disposition import Usage
from app.call.events import (
    AgentAudio,
    AgentSilence,
    AgentUtteranceEnded,
    AgentWords,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerTranscribed,
    CallerTurnCommitted,
    CallerUntranscribed,
    Event,
    ModelLost,
    ResponseEnded,
    ResponseStarted,
    ToolCalled,
)
from app.errors import BadModelMessage
from app.realtime import messages as m
from app.realtime.session import result_item

SESSION_ENDING = {"session_expired": False, "beta_api_shape_disabled": True}
"""Error codes that end a session, and whether another session would fail likewise. Any other error ends nothing."""

SILENCE_DB = -55.0
"""dBov: a stretch that is quieter holds no voice. Speech on the telephone lies at -20 to -30, the code's quietest step at -72."""

STATUSES = frozenset({"completed", "cancelled", "incomplete", "failed"})


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """The provider's answer to `session.update`: `session`, as it came, is what is in force."""

    session: bytes


@dataclass(frozen=True, slots=True)
class Complaint:
    """The provider's `error` event. `event_id` is that of our message which caused it, if we set one and it could be linked."""

    code: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """The provider's first word: `session`, as it came, is what is in force before we asked for anything."""

    session: bytes


type Said = Event | SessionCreated | SessionUpdated | Complaint


_AUDIO_DELTA = "response.output_audio.delta"
_AUDIO_DELTA_HEAD = b'{"type":"response.output_audio.delta"'
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_AGAIN = re.compile(r"try again in (?:(\d{1,3})h)?(?:(\d{1,4})m(?!s))?(?:(\d{1,6}(?:\.\d{1,6})?)(ms|s))?")


class Wire:
    """One session's two languages. `prefix_ms` and `silence_ms` are the turn detection's, as configured."""

    def __init__(self, path: AudioPath, *, prefix_ms: int, silence_ms: int) -> None:
        self._path = path
        self._prefix_ms, self._silence_ms = prefix_ms, silence_ms
        self._speaking = ""
        self._received: dict[str, int] = {}
        self._parts: dict[str, tuple[str, int]] = {}
        self._called: set[str] = set()
        self.appended = 0
        """Bytes of the caller's audio that the provider was given in this session, in the model's format."""
        self.unknown_events = 0
        self.behind_ms = 0
        """How much of the caller's sound waits to be appended: what the provider has just heard was spoken so much earlier."""
        self._sounding = ""
        self._readers: dict[str, Callable[[bytes], list[Said]]] = {
            _AUDIO_DELTA: self._agent_audio,
            "response.output_audio_transcript.delta": self._agent_words,
            "response.output_audio.done": self._utterance_ended,
            "input_audio_buffer.speech_started": self._speech_started,
            "input_audio_buffer.speech_stopped": self._speech_stopped,
            "input_audio_buffer.committed": self._committed,
            "conversation.item.input_audio_transcription.completed": self._transcribed,
            "conversation.item.input_audio_transcription.failed": self._untranscribed,
            "response.created": self._response_started,
            "response.output_item.done": self._item_done,
            "response.done": self._response_ended,
            "error": self._complaint,
            "session.created": self._session_created,
            "session.updated": self._session_updated,
        }

    @property
    def appended_ms(self) -> float:
        """How much audio the provider was given, in milliseconds."""
        return self.appended / self._path.bytes_per_ms_model

    # ---- from the server

    def decode(self, message: bytes) -> list[Said]:
        """What a message says: nothing, one event, or two.

        Raises:
            BadModelMessage: it is of a kind that we read, or of none, and cannot be read.
        """
        kind = _AUDIO_DELTA
        try:
            if message.startswith(_AUDIO_DELTA_HEAD):  # the only kind that is both frequent and long: read once, not twice
                return self._agent_audio(message)
            kind = "unreadable"
            type_ = m.read_kind(message).type
            if reader := self._readers.get(type_):
                kind = type_
                return reader(message)
        except _UNREADABLE:
            raise BadModelMessage(kind) from None  # the cause may quote the content
        if type_ not in m.UNUSED:
            self.unknown_events += 1
        return []

    def _agent_audio(self, message: bytes) -> list[Said]:
        delta = m.read_audio_delta(message)
        sound = pybase64.b64decode(delta.delta, validate=True)
        utterance = self._utterance(delta.item_id, delta.content_index)
        if utterance != self._speaking:
            self._path.restart_to_caller()
            self._speaking = utterance
        self._received[utterance] = self._received.get(utterance, 0) + len(sound)
        line = self._path.model_to_caller(sound)
        if not line:
            return []
        if delta.response_id != self._sounding:  # rule 6
            if g711.level_db(line) < SILENCE_DB:
                return [AgentSilence(delta.response_id, utterance, len(line), line)]
            self._sounding = delta.response_id
        return [AgentAudio(delta.response_id, utterance, len(line), line)]

    def _agent_words(self, message: bytes) -> list[Said]:
        part = m.read_part(message)
        return [AgentWords(part.response_id, self._utterance(part.item_id, part.content_index), part.delta)] if part.delta else []

    def _utterance_ended(self, message: bytes) -> list[Said]:
        part = m.read_part(message)
        utterance = self._utterance(part.item_id, part.content_index)
        said: list[Said] = []
        if utterance == self._speaking:
            self._speaking = ""
            if line := self._path.flush_to_caller():
                said.append(AgentAudio(part.response_id, utterance, len(line), line))
        said.append(AgentUtteranceEnded(part.response_id, utterance))
        return said

    def _speech_started(self, message: bytes) -> list[Said]:
        item = m.read_caller_item(message)
        # The start "includes the `prefix_padding_ms`" (openai.types.realtime, InputAudioBufferSpeechStartedEvent).
        start = None if item.audio_start_ms is None else item.audio_start_ms + self._prefix_ms
        return [CallerSpeechStarted(item.item_id, self._ago(start))]

    def _speech_stopped(self, message: bytes) -> list[Said]:
        item = m.read_caller_item(message)
        # The end "includes the `min_silence_duration_ms`" (openai.types.realtime, InputAudioBufferSpeechStoppedEvent).
        end = None if item.audio_end_ms is None else item.audio_end_ms - self._silence_ms
        return [CallerSpeechStopped(item.item_id, self._ago(end))]

    def _committed(self, message: bytes) -> list[Said]:
        return [CallerTurnCommitted(m.read_caller_item(message).item_id)]

    def _transcribed(self, message: bytes) -> list[Said]:
        heard = m.read_transcript(message)
        usage = None
        if raw := _help(heard.usage, m.TranscriptUsage):
            usage = Usage(
                transcription_seconds=max(raw.seconds, 0.0),
                transcription_tokens_in=max(raw.input_tokens, 0),
                transcription_tokens_out=max(raw.output_tokens, 0),
            )
        return [CallerTranscribed(heard.item_id, heard.transcript, usage)]

    def _untranscribed(self, message: bytes) -> list[Said]:
        return [CallerUntranscribed(m.read_caller_item(message).item_id)]

    def _response_started(self, message: bytes) -> list[Said]:
        return [ResponseStarted(m.read_of_response(message).response.id)]

    def _item_done(self, message: bytes) -> list[Said]:
        done = m.read_item_done(message)
        item = done.item
        if item.type != "function_call" or item.status != "completed":  # a cancelled response leaves calls that are `incomplete`
            return []
        if item.call_id is None or item.name is None or item.arguments is None:
            raise ValueError
        if item.call_id in self._called:
            return []
        self._called.add(item.call_id)
        return [ToolCalled(done.response_id, item.call_id, item.name, item.arguments)]

    def _response_ended(self, message: bytes) -> list[Said]:
        response = m.read_of_response(message).response
        details = _help(response.status_details, m.StatusDetails) or m.StatusDetails()
        fault = details.error or m.Fault()
        status = response.status if response.status in STATUSES else "failed"
        reason = fault.code or fault.type or details.reason
        return [
            ResponseEnded(
                response.id,
                status,
                None if reason is None and status == response.status else _word(reason),
                _retry_ms(fault.message or ""),
                _usage(_help(response.usage, m.ResponseUsage)),
            )
        ]

    def _complaint(self, message: bytes) -> list[Said]:
        fault = m.read_error(message).error
        code = _word(fault.code or fault.type)
        if code in SESSION_ENDING:
            return [ModelLost(code, SESSION_ENDING[code])]
        return [Complaint(code, fault.event_id)]

    def _session_created(self, message: bytes) -> list[Said]:
        return [SessionCreated(bytes(m.read_session(message).session))]

    def _session_updated(self, message: bytes) -> list[Said]:
        return [SessionUpdated(bytes(m.read_session(message).session))]

    def _utterance(self, item: str, content_index: int) -> str:
        if not content_index:
            return item
        utterance = f"{item}#{content_index}"
        self._parts[utterance] = item, content_index
        return utterance

    def _ago(self, position_ms: float | None) -> int:
        if position_ms is None:
            return 0
        return int(max(0, min(self.appended_ms - position_ms, self.appended_ms))) + self.behind_ms

    # ---- to the server

    def append(self, mulaw: bytes) -> bytes:
        """The next stretch of the caller's line audio; empty if the audio path has nothing due."""
        sound = self._path.caller_to_model(mulaw)
        self.appended += len(sound)
        return b'{"type":"input_audio_buffer.append","audio":"' + pybase64.b64encode(sound) + b'"}' if sound else b""

    def append_last(self, silence_ms: int) -> bytes:
        """So much silence, and whatever the audio path still held."""
        sound = self._path.caller_to_model(g711.SILENCE * (silence_ms * g711.BYTES_PER_MS)) + self._path.flush_to_model()
        self.appended += len(sound)
        return b'{"type":"input_audio_buffer.append","audio":"' + pybase64.b64encode(sound) + b'"}'

    def encode(self, command: ModelCommand, agent: Agent) -> list[bytes]:
        """A command as messages, of which there may be none. `agent` is who speaks now.

        TakeOver, FinishHearing and CloseModel are the leg's: they are about the session and not about the conversation.
        """
        match command:
            case Speak(instructions, may_use_tools):
                response: dict[str, object] = {"output_modalities": ["audio"]}
                if instructions:
                    # They take the place of the session's for this response; so the session's go with them, first and unchanged,
                    # which keeps the provider's prompt cache useful.
                    response["instructions"] = f"{agent.instructions}\n\n{FOR_NOW}\n{instructions}"
                if not may_use_tools:
                    response["tool_choice"] = "none"
                return [_encode({"type": "response.create", "response": response})]
            case CancelSpeech(response_id):
                return [_encode({"type": "response.cancel", "response_id": response_id})]
            case StopSpeaking(utterance, heard_ms):
                return self._truncate(utterance, heard_ms)
            case GiveResult(tool_call, result):
                return [create_item(result_item(tool_call, result))]
            case Brief(text, from_caller):
                role = "user" if from_caller else "system"
                return [create_item({"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]})]
            case _:
                return []

    def _truncate(self, utterance: str, heard_ms: int) -> list[bytes]:
        """Past the end of the audio, or without any audio, truncation is refused and nothing is cut: so it is never asked for."""
        generated_ms = self._received.get(utterance, 0) // self._path.bytes_per_ms_model
        if not generated_ms:
            return []
        item, content_index = self._parts.get(utterance, (utterance, 0))
        message = {
            "type": "conversation.item.truncate",
            "item_id": item,
            "content_index": content_index,
            "audio_end_ms": max(0, min(heard_ms, generated_ms)),
        }
        return [_encode(message)]


FOR_NOW = "For your next words only:"
"""Stands between an agent's own instructions and those of one response."""


def create_item(item: dict[str, object]) -> bytes:
    """The message that appends an item to the conversation."""
    return _encode({"type": "conversation.item.create", "item": item})


def update_session(session: dict[str, object], event_id: str) -> bytes:
    """The message that changes the session; a refusal names `event_id`."""
    return _encode({"type": "session.update", "event_id": event_id, "session": session})


def _word(text: str | None) -> str:
    return text if text and _WORD.fullmatch(text) else "unknown"  # rule 5


def _help[T](raw: msgspec.Raw, shape: type[T]) -> T | None:
    """Rule 2: absent, null and unreadable are the same."""
    try:
        return msgspec.json.decode(raw, type=shape | None) if raw else None
    except _UNREADABLE:
        return None


def _retry_ms(message: str) -> int | None:
    """The wait in `try again in 6.232s`, `174ms`, `1m26.4s`; None if there is none."""
    if not (found := _AGAIN.search(message)) or not any(found.groups()):
        return None
    hours, minutes, rest, unit = found.groups()
    milliseconds = float(rest or 0) * (1 if unit == "ms" else 1_000)
    return ceil(milliseconds) + 60_000 * int(minutes or 0) + 3_600_000 * int(hours or 0)


def _usage(raw: m.ResponseUsage | None) -> Usage | None:
    """Cached tokens are a part of the input tokens. What is not broken down counts as text."""
    if raw is None:
        return None
    came, went = raw.input_token_details, raw.output_token_details
    cached = (came and came.cached_tokens_details) or m.Tokens()
    came = came or m.Tokens(text_tokens=raw.input_tokens)
    went = went or m.Tokens(text_tokens=raw.output_tokens)
    return Usage(
        text_in=came.text_tokens or 0,
        text_cached=cached.text_tokens or 0,
        audio_in=came.audio_tokens or 0,
        audio_cached=cached.audio_tokens or 0,
        text_out=went.text_tokens or 0,
        audio_out=went.audio_tokens or 0,
        responses=1,
    )
