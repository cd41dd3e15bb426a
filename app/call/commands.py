"""Everything a call may order. A command is a frozen order, in the imperative; no vendor's word in it.

Who carries it out: the caller's leg, the model's leg, an errand, or the store. See `LEGS` at the end.
"""

from dataclasses import dataclass, field

from app.call.conversation import Remembered
from app.call.disposition import Filed, Intent, Memory, Slot, Turn, Utterance
from app.call.events import PRIVATE

# ---- to the caller's leg


@dataclass(frozen=True, slots=True)
class PlayAudio:
    """Queue a stretch of the agent's voice, as line audio."""

    utterance: str
    payload: bytes = field(repr=False, compare=False)
    size: int = 0


@dataclass(frozen=True, slots=True)
class SendMark:
    """Put a bookmark behind what was queued."""

    mark: str


@dataclass(frozen=True, slots=True)
class ClearPlayout:
    """Throw away what is queued."""


@dataclass(frozen=True, slots=True)
class LeaveStream:
    """Store what is to follow, then close the caller's stream; the carrier asks us what follows."""

    intent: Intent
    target: str | None = None
    """For a transfer: the directory's name, never a number."""


# ---- to the model's leg


@dataclass(frozen=True, slots=True)
class Speak:
    """Ask the model for its next response; `instructions` are for this one only."""

    instructions: str | None = None
    may_use_tools: bool = True


@dataclass(frozen=True, slots=True)
class CancelSpeech:
    """Stop a response that is still being generated."""

    response: str


@dataclass(frozen=True, slots=True)
class StopSpeaking:
    """Tell the model how much of an utterance was heard; the rest leaves its memory."""

    utterance: str
    heard_ms: int


@dataclass(frozen=True, slots=True)
class GiveResult:
    """Answer a tool call, with JSON text."""

    tool_call: str
    result: str = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class Brief:
    """Tell the model something that nobody said: a fact about the call, or the keys that the caller pressed."""

    text: str = field(metadata=PRIVATE, repr=False)
    from_caller: bool = False


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Let another agent go on in the same session: its instructions and its tools."""

    agent: str


@dataclass(frozen=True, slots=True)
class OpenModel:
    """Open a session with the model, in the place of the one in force if there is any; `beside`: as a spare.

    It is given the caller's sound of the last `hear_again_ms` and of the time until it is ready, together at most `hold_ms`. The
    opening is put off by a time between nothing and `spread_ms`, by the dice: many calls that lose their sessions together do not
    all come back at once. `tries` counts from 1.
    """

    beside: bool = False
    tries: int = 1
    hear_again_ms: int = 0
    hold_ms: int = 0
    spread_ms: int = 0


@dataclass(frozen=True, slots=True)
class SwapModel:
    """Let the spare session take the place of the one in force, which is closed. It hears the caller's last `hear_again_ms`."""

    hear_again_ms: int = 0


@dataclass(frozen=True, slots=True)
class Recall:
    """Tell a new session what is known, and what has been said and done in this stream, in that order."""

    slots: tuple[Slot, ...] = field(metadata=PRIVATE, repr=False)
    said: tuple[Remembered, ...] = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class FinishHearing:
    """The caller is gone: let the model hear the end of the last words, and ask for no answer."""


@dataclass(frozen=True, slots=True)
class CloseModel:
    """End the session with the model."""


# ---- errands


@dataclass(frozen=True, slots=True)
class RunErrand:
    """Run a tool outside the call; it comes back as an event, also when it fails."""

    tool_call: str
    name: str
    agent: str
    arguments: str = field(metadata=PRIVATE, repr=False)
    budget_ms: int = 5_000


# ---- to the house


@dataclass(frozen=True, slots=True)
class SayLine:
    """Fetch a sentence of the house's own, by its name; it comes back as LineFound."""

    line: str


# ---- to the store


@dataclass(frozen=True, slots=True)
class KeepUtterance:
    """Write an utterance to the transcript; a later one with the same key replaces it."""

    utterance: Utterance = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class KeepTurn:
    """Write a turn to the latency ledger; a later one with the same number replaces it."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class KeepTool:
    """Write down that a control was called and how it was answered (errands are written by the ledger of `tools/`)."""

    tool_call: str
    name: str
    agent: str
    refused: bool
    arguments: str = field(metadata=PRIVATE, repr=False)
    result: str = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class KeepMemory:
    """Write what the call knows of itself."""

    memory: Memory = field(metadata=PRIVATE, repr=False)


@dataclass(frozen=True, slots=True)
class FileCall:
    """Finish the row, exactly once."""

    filed: Filed = field(metadata=PRIVATE, repr=False)


type CallerCommand = PlayAudio | SendMark | ClearPlayout | LeaveStream
type ModelCommand = Speak | CancelSpeech | StopSpeaking | GiveResult | Brief | Recall | TakeOver | FinishHearing | CloseModel
type SessionCommand = OpenModel | SwapModel
type StoreCommand = KeepUtterance | KeepTurn | KeepTool | KeepMemory | FileCall
type Command = CallerCommand | ModelCommand | SessionCommand | StoreCommand | RunErrand | SayLine

CALLER = CallerCommand.__value__.__args__
MODEL = ModelCommand.__value__.__args__
STORE = StoreCommand.__value__.__args__
