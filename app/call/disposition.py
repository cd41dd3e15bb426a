"""How a call ended, as a filed fact: the closed technical lists, and what becomes the finished row.

`disposition` and `intent` are the business's own words, from the settings; `outcome` and `end_reason` are ours and closed.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Intent(StrEnum):
    """What is to follow when a stream ends; stored, and carried out by the one address that decides it."""

    TALK = "talk"
    HANG_UP = "hang_up"
    TRANSFER = "transfer"
    APOLOGISE = "apologise"
    """A spoken sentence that we cannot go on, then the end."""


class Outcome(StrEnum):
    """What kind of call it was, technically."""

    COMPLETED = "completed"
    """Caller and agent talked; one of them ended it."""
    TRANSFERRED = "transferred"
    ABANDONED = "abandoned"
    """The caller hung up without having said anything."""
    NO_SPEECH = "no_speech"
    """The line stayed silent and we ended it."""
    TURNED_AWAY = "turned_away"
    """Answered with a sentence only: full house, unknown agent, missing provider."""
    FAILED = "failed"
    """We could not carry the call to its end."""


class EndReason(StrEnum):
    """Who or what ended it."""

    AGENT_ENDED = "agent_ended"
    CALLER_HUNG_UP = "caller_hung_up"
    SILENCE = "silence"
    TRANSFERRED = "transferred"
    TIME_LIMIT = "time_limit"
    FULL_HOUSE = "full_house"
    UNKNOWN_AGENT = "unknown_agent"
    MODEL_UNAVAILABLE = "model_unavailable"
    NEVER_CONNECTED = "never_connected"
    """The carrier never opened the stream, or did not open another within five seconds."""
    CARRIER_ENDED = "carrier_ended"
    """The carrier reported busy, failed, no-answer or canceled."""
    DRAINED = "drained"
    WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One thing learnt from the caller, with where it came from."""

    name: str
    value: str
    utterance: str | None = None
    """The caller's utterance it was heard in."""
    agent: str = ""
    confirmed: bool = False
    """The caller was heard again after the value had been noted, and the same value was noted as confirmed."""
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and seconds of one provider. Cached tokens are a part of the input tokens."""

    text_in: int = 0
    text_cached: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    text_out: int = 0
    audio_out: int = 0
    transcription_seconds: float = 0.0
    transcription_tokens_in: int = 0
    transcription_tokens_out: int = 0
    responses: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """The sum, field by field."""
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a call knows of itself; kept in the store at every change, so that another stream can go on from it."""

    agent: str
    agent_path: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = ()
    barge_ins: int = 0
    turns: int = 0
    caller_turns: int = 0
    """Those of the turns that the caller began."""
    usage: Usage = Usage()
    disposition: str | None = None
    intent: str | None = None
    summary: str | None = field(default=None, repr=False)
    next_action: str | None = field(default=None, repr=False)
    escalated: bool = False
    transfer_to: str | None = None
    caller_spoke: bool = False
    reconnects: int = 0
    """How often a session with the model was lost, and the call went on in another."""
    handed_over: bool = False
    """The stream was left in order, in a pause, for another worker to go on with the call: there is nothing to apologise for."""


def outcome_of(reason: EndReason, *, caller_spoke: bool) -> Outcome:
    """What kind of call it was, given how it ended and whether the caller ever said or typed anything."""
    match reason:
        case EndReason.AGENT_ENDED | EndReason.TIME_LIMIT:
            return Outcome.COMPLETED
        case EndReason.CALLER_HUNG_UP:
            return Outcome.COMPLETED if caller_spoke else Outcome.ABANDONED
        case EndReason.SILENCE:
            return Outcome.COMPLETED if caller_spoke else Outcome.NO_SPEECH
        case EndReason.TRANSFERRED:
            return Outcome.TRANSFERRED
        case EndReason.FULL_HOUSE | EndReason.UNKNOWN_AGENT:
            return Outcome.TURNED_AWAY
    return Outcome.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """The finished fact of one call. What we do not know stays None; nothing is invented."""

    outcome: Outcome
    end_reason: EndReason
    memory: Memory
    ended_at: int = 0
    """Milliseconds since the machine's zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A stretch of speech by one party. For the agent, `heard` and `unheard` together are what it generated, and it starts when it
    is first heard, not when it is generated.

    Times are milliseconds since the machine's zero. `key` is unique within the call and its epoch.
    """

    key: str
    speaker: str
    """`caller` or `agent`."""
    agent: str | None = None
    started_at: int
    ended_at: int
    heard: str | None = field(default=None, repr=False)
    """What was said and heard. None for a caller whose words were never transcribed."""
    unheard: str | None = field(default=None, repr=False)
    """What the agent had generated and the caller did not hear."""
    heard_ms: int | None = None
    generated_ms: int | None = None
    interrupted: bool = False
    untranscribed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange: the caller's turn and the agent's answer, with its times by stage (ms since the machine's zero).

    `latency_ms` runs from the caller's end of speech, by media time and so with the whole silence window of the turn detection in
    it, to the first audible frame that the carrier acknowledged.
    """

    number: int
    agent: str
    utterance: str | None
    """The caller's; None for the greeting and for what the agent says of itself."""
    speech_ended_at: int | None
    committed_at: int | None
    requested_at: int
    first_audio_at: int | None
    audible_at: int | None
    latency_ms: int | None
    tools: int = 0
    interrupted: bool = False
