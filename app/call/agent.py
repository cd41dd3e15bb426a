"""Who answers, as data: an agent, its tools, its slots, its manners on the floor; and what a leg is able to do.

`agents/` reads these from Markdown, `tools/` supplies the errands' specifications; the machine only reads them.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TurnTaking(StrEnum):
    """Who creates responses and decides on interruptions."""

    OURS = "ours"
    PROVIDER = "provider"


class SlotKind(StrEnum):
    """What a slot holds: any text, a telephone number, or one of a few words."""

    TEXT = "text"
    PHONE = "phone"
    CHOICE = "choice"


class ToolKind(StrEnum):
    """A control acts inside the call machine; an errand runs outside it and comes back as an event."""

    CONTROL = "control"
    ERRAND = "errand"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorPolicy:
    """An agent's manners: when it may be interrupted and how long it waits in silence."""

    turn_taking: TurnTaking = TurnTaking.OURS
    interruptible: bool = True
    protected_ms: int = 0
    """How long the agent's utterance may not be cut, once the caller can hear it. 0 to 10,000."""
    min_turn_ms: int = 100
    """Caller speech shorter than this, which did not interrupt anybody, is no turn and gets no answer. 0 to 2,000."""
    silence_ms: int = 8_000
    """Quiet on the line after which the agent asks whether the caller is still there. 2,000 to 60,000."""
    silence_prompts: int = 2
    """How often it asks before it says goodbye. 0 to 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSpec:
    """One thing that must be learnt from the caller."""

    name: str
    kind: SlotKind = SlotKind.TEXT
    choices: tuple[str, ...] = ()
    required: bool = False
    read_back: bool = False
    """The agent must read the value back and hear a yes before the slot counts as confirmed."""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as the model sees it (name, description, JSON Schema of its arguments) and as we run it."""

    name: str
    kind: ToolKind
    description: str
    parameters: dict[str, Any] = field(hash=False)
    budget_ms: int = 5_000
    """How long an errand may take, retries included, before the model is told that it failed. 100 to 60,000."""
    effect: bool = False
    """The errand changes something in the world: its `intended` is committed before it starts and it is never retried blindly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent: instructions for the model, and the rules that the machine holds it to."""

    name: str
    instructions: str = field(repr=False)
    greeting: str = ""
    """How to open the call; given to the model as an instruction for its first response."""
    voice: str | None = None
    """The provider's voice; None takes the setting's. It cannot change once the agent has spoken."""
    tools: tuple[ToolSpec, ...] = ()
    """The allow-list, controls included."""
    hands_off_to: tuple[str, ...] = ()
    slots: tuple[SlotSpec, ...] = ()
    floor: FloorPolicy = FloorPolicy()
    version: str = ""
    """A short hash of the file, kept in the row as the version of the prompt."""

    def tool(self, name: str) -> ToolSpec | None:
        """The tool of that name, if this agent may use it."""
        return next((tool for tool in self.tools if tool.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the legs of a call can do. The machine branches on these and on nothing a vendor is called."""

    can_truncate: bool = True
    """The model can be told how much of an utterance was heard."""
    marks: bool = True
    """The carrier says when a bookmark in the audio has been played."""
    voice_change: bool = False
    replay: bool = True
    """Another session can be given the history of this one."""
    audio_through_us: bool = True
