"""Everything that can happen to a call. An event is a frozen fact, named in the past; no vendor's word in it.

Rule 1: times inside an event are milliseconds *ago*, so that an event needs no clock and can be replayed.
Rule 2: a field with `private` in its metadata holds what a person said, pressed or is called; it is never logged.
Rule 3: audio payloads ride along unseen: not compared, not printed, not journaled.
Line audio is G.711 mu-law at 8 kHz: 8 bytes are one millisecond. It is counted in bytes, never in rounded milliseconds.
"""

from dataclasses import dataclass, field

from app.call.disposition import Usage

PRIVATE = {"private": True}


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The caller's leg is attached: we can be heard."""


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The caller's leg is gone. Not yet the end of the call. `clean`: the carrier said so; else the socket just broke."""

    clean: bool


@dataclass(frozen=True, slots=True)
class CarrierEnded:
    """The carrier reported a terminal status: `completed`, `busy`, `failed`, `no-answer` or `canceled`."""

    status: str


@dataclass(frozen=True, slots=True)
class StreamMovedOn:
    """Another stream of the same call has been opened, with a higher epoch: this machine's part is over."""


@dataclass(frozen=True, slots=True)
class MarkReturned:
    """A bookmark came back: what stood before it was played, if it is of the present generation."""

    mark: str


@dataclass(frozen=True, slots=True)
class DigitPressed:
    """The caller pressed a key: one of 0-9 * # A-D."""

    digit: str = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class ModelReady:
    """The model's session is configured as asked, and proved so. `lasts_ms`: how long it will last by the provider's word."""

    lasts_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ModelLost:
    """The model's session is gone, or could not be had. `reason` is a short constant; `fatal`: another would fail likewise."""

    reason: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class SpareReady:
    """A session beside the one in force is configured, and waits for its turn."""

    lasts_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SpareLost:
    """The session beside the one in force is gone, or could not be had."""

    reason: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class LineFound:
    """A sentence of the house's own, as sound. `line` is its name, `size` in bytes of line audio."""

    utterance: str
    line: str
    size: int
    text: str = field(metadata=PRIVATE, repr=False)
    payload: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ModelComplained:
    """The model's side reported an error that ends nothing. `code` is the provider's word or `unknown`."""

    code: str


@dataclass(frozen=True, slots=True)
class CallerSpeechStarted:
    """The caller began an utterance, `ago_ms` before now by media time."""

    utterance: str
    ago_ms: int = 0


@dataclass(frozen=True, slots=True)
class CallerSpeechStopped:
    """The caller's utterance ended, `ago_ms` before now by media time (so the detector's silence window is inside it)."""

    utterance: str
    ago_ms: int = 0


@dataclass(frozen=True, slots=True)
class CallerTurnCommitted:
    """The caller's utterance is now a part of the conversation; an answer may be asked for."""

    utterance: str


@dataclass(frozen=True, slots=True)
class CallerTranscribed:
    """The caller's words, which may come long after the turn. An empty text is legal (noise)."""

    utterance: str
    text: str = field(metadata=PRIVATE, repr=False)
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class CallerUntranscribed:
    """The caller's words could not be transcribed."""

    utterance: str


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model began a response."""

    response: str


@dataclass(frozen=True, slots=True)
class AgentAudio:
    """A stretch of the agent's voice: generated, not yet heard. `size` is in bytes of line audio (8 a millisecond)."""

    response: str
    utterance: str
    size: int
    payload: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AgentSilence(AgentAudio):
    """A stretch of a response in which nothing has sounded yet: digital silence, in the form of a voice."""


@dataclass(frozen=True, slots=True)
class AgentWords:
    """The next words of an utterance's text, as generated."""

    response: str
    utterance: str
    text: str = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class AgentUtteranceEnded:
    """The model generated the last of an utterance."""

    response: str
    utterance: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model calls a tool; `arguments` is the JSON text as it came, hostile until checked."""

    response: str
    tool_call: str
    name: str
    arguments: str = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """The model's response ended. `status`: completed, cancelled, incomplete, failed; `reason` says why; `retry_ms` how long to
    wait if the provider asked for it."""

    response: str
    status: str = "completed"
    reason: str | None = None
    retry_ms: int | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ErrandReturned:
    """An errand is back with its result, as JSON text."""

    tool_call: str
    result: str = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class ErrandFailed:
    """An errand failed. `reason` is a sentence the model may read; it holds nothing private."""

    tool_call: str
    reason: str


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The process is to stop: bring the call to an end or to another worker."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The call's own deadline has come."""


type CarriersEvent = StreamStarted | StreamEnded | CarrierEnded | StreamMovedOn | MarkReturned | DigitPressed
type SessionEvent = ModelReady | ModelLost | ModelComplained | SpareReady | SpareLost
type CallersEvent = CallerSpeechStarted | CallerSpeechStopped | CallerTurnCommitted | CallerTranscribed | CallerUntranscribed
type AgentsEvent = ResponseStarted | AgentAudio | AgentSilence | AgentWords | AgentUtteranceEnded | ToolCalled | ResponseEnded
type HouseEvent = ErrandReturned | ErrandFailed | LineFound | DrainRequested | DeadlinePassed
type Event = CarriersEvent | SessionEvent | CallersEvent | AgentsEvent | HouseEvent

EVENTS: tuple[type, ...] = tuple(kind for group in Event.__value__.__args__ for kind in group.__value__.__args__)
