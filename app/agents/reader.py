"""Reads the folder of agent files, and checks everything at once: each complaint with its file, its line and a sentence.

A file is front matter (TOML between two lines of `+++`) and instructions in Markdown. What the model is given is the house rules,
then what the slots say, then the file's own text.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from app.agents import front_matter
from app.agents.controls import CONTROLS, controls
from app.agents.front_matter import FrontMatter, Unreadable
from app.call.agent import Agent, FloorPolicy, SlotKind, SlotSpec, ToolSpec, TurnTaking
from app.errors import BadAgent, BadSetting

NO_AGENTS = ("readme.md", "house-rules.md")
HOUSE_RULES = Path(__file__).with_name("house-rules.md")
LONGEST_TOKENS = 16_384
"""Instructions and tools together; what a Realtime session takes (OpenAI's Realtime documentation)."""
CHARACTERS_A_TOKEN = 4
"""An estimate for English; the provider has the last word."""

type Complain = Callable[[int, str], None]

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
SlotName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Word = Annotated[str, Field(min_length=1, max_length=80)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Floor(_Keys):
    turn_taking: Literal["ours", "provider"] = "ours"
    interruptible: bool = True
    protected_ms: int = Field(default=0, ge=0, le=10_000)
    min_turn_ms: int = Field(default=0, ge=0, le=2_000)
    silence_ms: int = Field(default=2_000, ge=2_000, le=60_000)
    silence_prompts: int = Field(default=0, ge=0, le=5)


class _Slot(_Keys):
    name: SlotName
    kind: Literal["text", "phone", "choice"] = "text"
    choices: list[Word] = Field(default=[], max_length=50)
    required: bool = False
    read_back: bool = False
    description: str = Field(default="", max_length=500)


class _Front(_Keys):
    """The keys an agent file may have. What is not set is left to the defaults of `Agent`, `FloorPolicy` and `SlotSpec`."""

    name: Name
    voice: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    greeting: str = Field(default="", max_length=1_000)
    tools: list[str] = []
    hands_off_to: list[str] = []
    transfer: bool = False
    floor: _Floor = _Floor()
    slots: list[_Slot] = Field(default=[], max_length=32)


KEYS: Mapping[str, type[_Keys]] = {"": _Front, "floor": _Floor, "slots": _Slot}


@dataclass(frozen=True, slots=True)
class _File:
    """One agent file that could be read; `front` is None when its keys are wrong."""

    path: Path
    name: str
    raw: bytes
    matter: FrontMatter
    front: _Front | None


def read_agents(
    folder: Path,
    *,
    errands: Mapping[str, ToolSpec],
    directory: Collection[str],
    dispositions: Collection[str],
    intents: Collection[str],
    first: str | None = None,
) -> dict[str, Agent]:
    """Every agent of a folder, by name. `first` is who answers, who has to be among them.

    `errands` are the tools there are, by name; `directory` the names that a call may be transferred to; `dispositions` and
    `intents` the business's own words for how a call came out and what was wanted.

    Raises:
        BadAgent: one or more files are wrong; everything that is wrong with any of them is in it.
        BadSetting: there is no agent `first`.
    """
    complaints: list[tuple[str, int, str]] = []
    files: list[_File] = []
    names: dict[str, Path] = {}
    paths = sorted(path for path in folder.glob("*.md") if path.is_file() and path.name.lower() not in NO_AGENTS)
    if not paths:
        complaints.append((str(folder), 1, "the folder holds no agent file (*.md)"))
    for path in paths:
        complain = _complainer(path, complaints)
        file = _read_file(path, complain)
        name = file.name if file else path.stem  # so that nobody who hands off to a broken file is blamed for it
        if name in names:
            complain(file.matter.line("name") if file else 1, f"the name {name} is taken by {names[name].name}")
        names.setdefault(name, path)
        if file:
            files.append(file)

    agents: dict[str, Agent] = {}
    for file in files:
        complain = _complainer(file.path, complaints)
        _check_names(file, complain, errands=errands, agents=names)
        _check_slots(file, complain)
        if file.front is not None:
            agent = _agent(file, file.front, errands=errands, directory=directory, dispositions=dispositions, intents=intents)
            _check_text(file, agent, complain)
            agents[agent.name] = agent
    if complaints:
        raise BadAgent(sorted(complaints))
    if first is not None and first not in agents:
        raise BadSetting(
            [("FIRST_AGENT", f"there is no agent {first}", f"FIRST_AGENT=... with one of: {', '.join(sorted(agents))}")]
        )
    return agents


def _complainer(path: Path, complaints: list[tuple[str, int, str]]) -> Complain:
    return lambda line, sentence: complaints.append((str(path), line, sentence))


def _read_file(path: Path, complain: Complain) -> _File | None:
    try:
        raw = path.read_bytes()
        matter = front_matter.read(raw.decode("utf-8-sig"))
    except OSError as fault:
        complain(1, f"the file cannot be read: {(fault.strerror or 'unknown reason').lower()}")
        return None
    except UnicodeDecodeError as fault:
        complain(fault.object.count(b"\n", 0, fault.start) + 1, "the file is not UTF-8 text")
        return None
    except Unreadable as fault:
        complain(fault.line, fault.sentence)
        return None
    values = matter.values if "name" in matter.values else {**matter.values, "name": path.stem}
    front = None
    try:
        front = _Front.model_validate(values)
    except ValidationError as faults:
        for wrong in faults.errors(include_url=False):
            complain(matter.line(*wrong["loc"]), _sentence(wrong))
    name = values["name"] if isinstance(values["name"], str) else path.stem
    return _File(path=path, name=name, raw=raw, matter=matter, front=front)


def _sentence(fault: ErrorDetails) -> str:
    """pydantic's finding, in the words of someone who writes an agent file."""
    loc: tuple[str | int, ...] = fault["loc"]
    key = f"`{'.'.join(str(part) for part in loc if isinstance(part, str))}`"
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            known = list(KEYS[str(loc[0]) if len(loc) > 1 else ""].model_fields)
            close = difflib.get_close_matches(str(loc[-1]), known, n=1)
            return f"unknown key {key}; " + (f"is `{close[0]}` meant?" if close else f"the keys here are {_listed(known)}")
        case "missing":
            return f"{key} is missing"
        case "string_type":
            return f"{key} must be a string"
        case "bool_type":
            return f"{key} must be true or false"
        case "int_type":
            return f"{key} must be a whole number"
        case "list_type":
            return f"{key} must be an array"
        case "model_type" | "dict_type":
            return f"{key} must be a table"
        case "literal_error":
            return f"{key} must be {context['expected']}"
        case "greater_than_equal":
            return f"{key} must be at least {context['ge']:,}"
        case "less_than_equal":
            return f"{key} must be at most {context['le']:,}"
        case "string_too_short":
            return f"{key} must not be empty"
        case "string_too_long":
            return f"{key} must have at most {context['max_length']:,} characters"
        case "too_long":
            return f"{key} must have at most {context['max_length']:,} entries"
        case "string_pattern_mismatch":
            return f"{key} must match {context['pattern']}"
        case _:
            return f"{key}: {fault['msg']}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _strings(values: Any) -> list[str]:
    """The strings of an array, also of one that has other faults: so that one complaint does not hide another."""
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _repeated(values: Sequence[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})


def _check_names(file: _File, complain: Complain, *, errands: Mapping[str, ToolSpec], agents: Collection[str]) -> None:
    values, line = file.matter.values, file.matter.line
    tools, colleagues = _strings(values.get("tools")), _strings(values.get("hands_off_to"))
    for tool in dict.fromkeys(tools):
        if tool in CONTROLS:
            complain(line("tools"), f"{tool} is a control, which every agent that can use it has: take it out of `tools`")
        elif tool not in errands:
            complain(line("tools"), f"unknown tool {tool}; the tools are {_listed(errands)}")
    for tool in _repeated(tools):
        complain(line("tools"), f"the tool {tool} stands in `tools` twice")
    for colleague in dict.fromkeys(colleagues):
        if colleague == file.name:
            complain(line("hands_off_to"), "an agent cannot hand off to itself")
        elif colleague not in agents:
            complain(line("hands_off_to"), f"unknown agent {colleague}; the agents are {_listed(agents)}")
    for colleague in _repeated(colleagues):
        complain(line("hands_off_to"), f"the agent {colleague} stands in `hands_off_to` twice")


def _check_slots(file: _File, complain: Complain) -> None:
    slots = file.matter.values.get("slots")
    if not isinstance(slots, list):
        return
    seen: set[str] = set()
    for number, slot in enumerate(slots):
        if not isinstance(slot, dict):
            continue
        name, kind, choices = slot.get("name"), slot.get("kind", "text"), slot.get("choices", [])
        if isinstance(name, str):
            if name in seen:
                complain(file.matter.line("slots", number, "name"), f"there are two slots with the name {name}")
            seen.add(name)
        if kind == "choice" and not choices:
            complain(file.matter.line("slots", number, "kind"), "a slot of the kind choice needs `choices`")
        if kind != "choice" and choices:
            complain(file.matter.line("slots", number, "choices"), '`choices` are for a slot with kind = "choice"')
        for choice in _repeated([choice.casefold() for choice in _strings(choices)]):
            complain(file.matter.line("slots", number, "choices"), f"the choice {choice} stands there twice")


def _check_text(file: _File, agent: Agent, complain: Complain) -> None:
    if not file.matter.text:
        complain(file.matter.text_line, "the instructions are empty: say below the front matter what this agent does")
    tools = json.dumps([[tool.name, tool.description, tool.parameters] for tool in agent.tools], ensure_ascii=False)
    tokens = (len(agent.instructions) + len(tools)) // CHARACTERS_A_TOKEN
    if tokens > LONGEST_TOKENS:
        complain(
            file.matter.text_line,
            f"instructions and tools are too long: about {tokens:,} tokens, of which a session takes {LONGEST_TOKENS:,}",
        )


def _agent(
    file: _File,
    front: _Front,
    *,
    errands: Mapping[str, ToolSpec],
    directory: Collection[str],
    dispositions: Collection[str],
    intents: Collection[str],
) -> Agent:
    slots = tuple(_slot(slot) for slot in front.slots)
    floor = front.floor.model_dump(exclude_unset=True)
    if "turn_taking" in floor:
        floor["turn_taking"] = TurnTaking(floor["turn_taking"])
    return Agent(
        name=front.name,
        instructions=_instructions(file.matter.text, slots),
        greeting=front.greeting.strip(),
        voice=front.voice,
        tools=(
            *(errands[tool] for tool in front.tools if tool in errands),
            *controls(
                slots=slots,
                hands_off_to=front.hands_off_to,
                directory=directory if front.transfer else (),
                dispositions=dispositions,
                intents=intents,
            ),
        ),
        hands_off_to=tuple(front.hands_off_to),
        slots=slots,
        floor=FloorPolicy(**floor),
        version=hashlib.sha256(file.raw).hexdigest()[:12],
    )


def _slot(slot: _Slot) -> SlotSpec:
    given = slot.model_dump(exclude_unset=True)
    return SlotSpec(**{**given, "kind": SlotKind(slot.kind), "choices": tuple(slot.choices)})


def _instructions(text: str, slots: Sequence[SlotSpec]) -> str:
    """House rules, slots, and the file's own text, in this order: what all agents share comes first, for the provider's cache."""
    parts = [HOUSE_RULES.read_text("utf-8").strip()]
    if slots:
        parts.append("# What to find out\n\nNote each with note_slot.\n\n" + "\n".join(_slot_line(slot) for slot in slots))
    return "\n\n".join([*parts, text])


def _slot_line(slot: SlotSpec) -> str:
    traits = [slot.kind if slot.kind is not SlotKind.CHOICE else f"one of: {', '.join(slot.choices)}"]
    traits += ["required"] if slot.required else []
    traits += ["read it back and hear a yes"] if slot.read_back else []
    return f"- {slot.name} ({'; '.join(traits)})" + (f": {slot.description}" if slot.description else "")
