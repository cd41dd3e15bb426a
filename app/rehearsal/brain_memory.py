"""What the brain knows, read each time anew from the conversation: so a session that is given the history of another goes on
where that one was.

Rule 1: nothing is kept between two responses. What was asked last stands in the agent's own words, what was learnt in the tools'
calls and results, what was chosen in both.
Rule 2: only a result says that something is so. A call without one is under way.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.rehearsal import brain_words as words

type Topic = Literal[
    "request", "name", "number", "readback", "reason", "message_ok", "urgency", "day", "choice", "book", "more", "offer_message"
]
"""What a question of the agent's was about."""

# The last that is found in what the agent said is what it asked.
CUES: Mapping[Topic, str] = {
    "request": r"how (?:can|may) i help|what can i do for you|what do you have in mind|what would you like",
    "name": r"your (?:\w+ and \w+ |full )?name\b|who am i speaking",
    "number": r"\b(?:what|give|tell|say|have|enter|type|again)\b[^.?!]*\bnumber\b|the rest of (?:the|your) number",
    "readback": r"(?:zero|one|two|three|four|five|six|seven|eight|nine)[.?!]? is (?:that|this) (?:right|correct)",
    "message_ok": r"i will pass on:.*is that right",
    "reason": r"what is it about|what is the message|what would you like (?:me )?to (?:tell|pass)",
    "urgency": r"\burgent\b[^.]*\?",
    "day": r"\bwhich (?:other )?day\b",
    "choice": r"which one suits you",
    "book": r"shall i book",
    "more": r"anything else",
    "offer_message": r"(?:take|leave) a message\?",
}


@dataclass(frozen=True, slots=True)
class Heard:
    """The caller said or typed something. Empty: nothing was understood."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """The agent said something. `was_cut`: the caller did not hear all of it."""

    text: str
    was_cut: bool = False


@dataclass(frozen=True, slots=True)
class Called:
    """The agent called a tool."""

    call: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """A tool's answer, as text."""

    call: str
    output: str


@dataclass(frozen=True, slots=True)
class Told:
    """A system item: somebody other than the caller says what is so."""

    text: str


type Line = Heard | Said | Called | Answered | Told


@dataclass(slots=True)
class Slot:
    """A value that was noted."""

    value: str
    confirmed: bool = False


@dataclass(slots=True)
class Memory:
    """Where the conversation is."""

    goal: words.Goal | None = None
    asked: Topic | None = None
    was_cut: bool = False
    """The last thing the agent said was not heard to its end."""
    is_checking: bool = False
    """The last thing it said was whether the caller is still there."""
    fresh: list[str] = field(default_factory=list)
    """What the caller said since the agent last spoke or called a tool."""
    results: list[str] = field(default_factory=list)
    """Tools that answered since."""
    slots: dict[str, Slot] = field(default_factory=dict)
    mentioned: dict[str, str] = field(default_factory=dict)
    """Heard, and not noted yet."""
    missing: tuple[str, ...] | None = None
    """What the last note_slot said is missing."""
    refused: dict[str, int] = field(default_factory=dict)
    """How often a slot's value was refused."""
    part: str = ""
    """The beginning of a number that was said in two breaths."""
    failures: dict[Topic, int] = field(default_factory=dict)
    """How often an answer to a question was of no use, in a row."""
    pending: dict[str, Called] = field(default_factory=dict)
    """Calls without an answer."""
    tried: set[str] = field(default_factory=set)
    """Tools that were called at all."""
    day: str | None = None
    openings: list[words.Opening] | None = None
    """As they were last offered; empty if there were none."""
    chosen: words.Opening | None = None
    booked: str | None = None
    """What the result says is booked."""
    taken: bool = False
    """A message was taken."""
    wording_ok: bool = False
    """The caller agreed to the message's wording."""
    no_transfer: bool = False
    """Somebody was asked for and cannot be had."""
    is_gone: bool = False
    """The opening that was chosen is gone, and the caller has not been told."""
    last_said: str = ""
    """What the agent said last, if the caller has said nothing since."""
    is_angry: bool = False

    def failed(self, topic: Topic | None) -> int:
        """How often the answer to this question was of no use."""
        return self.failures.get(topic, 0) if topic else 0

    @property
    def reason(self) -> str | None:
        """Why the caller calls, noted or not."""
        return self.slots["reason"].value if "reason" in self.slots else self.mentioned.get("reason")


def remember(conversation: Sequence[Line]) -> Memory:
    """Read a conversation from its beginning."""
    memory = Memory()
    for line in conversation:
        match line:
            case Heard(text):
                _hear(memory, text)
            case Said(text, was_cut):
                _say(memory, text, was_cut)
            case Called():
                memory.fresh.clear()
                memory.results.clear()
                memory.pending[line.call] = line
                memory.tried.add(line.name)
                if line.name == "offer_appointments":
                    memory.openings = None
            case Answered(call, output):
                if (called := memory.pending.pop(call, None)) is not None:
                    memory.results.append(called.name)
                    _learn(memory, called, output)
            case Told(text):
                for name, value, confirmed in re.findall(r'^- (\w+): (".*")( \(confirmed\))?$', text, re.MULTILINE):
                    memory.slots[name] = Slot(str(json.loads(value)), bool(confirmed))
    return memory


def topic_of(text: str) -> Topic | None:
    """What a text of the agent's asks, by the last question in it."""
    found = [(match.end(), topic) for topic, cue in CUES.items() for match in re.finditer(cue, text.lower())]
    return max(found)[1] if found else None


def _say(memory: Memory, text: str, was_cut: bool) -> None:
    memory.fresh.clear()
    memory.results.clear()
    memory.was_cut, memory.last_said = was_cut, text
    memory.is_gone = memory.is_gone and "gone" not in text
    memory.is_checking = "still there" in text.lower()
    if not memory.is_checking:
        memory.asked = topic_of(text) or memory.asked
    if booked := re.search(r"\bis booked\b", text):
        memory.booked = memory.booked or text[: booked.start()].strip(" .,")
    if "passed that on" in text:
        memory.taken = True


def _hear(memory: Memory, text: str) -> None:
    memory.fresh.append(text)
    memory.last_said = ""
    asked, text = memory.asked, text.lower().strip(" .?!")
    memory.is_angry = memory.is_angry or words.is_angry(text)
    if not text or words.is_pardon(text) or words.is_hold(text):
        if not text:
            _fail(memory, asked)
        return
    goal = words.goal_of(text)
    if goal in ("wrong", "person") and not (
        asked in ("reason", "message_ok") and not words.wants_somebody(text) and goal == "person"
    ):
        memory.goal = goal
        return
    _HEARERS.get(asked or "request", _hear_request)(memory, text, goal)


def _fail(memory: Memory, topic: Topic | None) -> None:
    if topic is not None:
        memory.failures[topic] = memory.failed(topic) + 1


def _understood(memory: Memory, topic: Topic) -> None:
    memory.failures.pop(topic, None)


def _hear_request(memory: Memory, text: str, goal: words.Goal | None) -> None:
    """The request, with whatever else was said in one breath."""
    if words.is_farewell(text) and goal is None:
        return
    reason, name = words.reason_of(text), words.name_of(text, asked=False)
    if reason and goal is None:
        goal = "message" if words.is_for_the_office(reason) else "book"
    if goal == "buy" and memory.goal == "buy":
        memory.mentioned["reason"] = reason or text
    if goal is None:
        _fail(memory, memory.asked)
        return
    _understood(memory, memory.asked or "request")
    memory.goal = goal
    if goal != "message" or not re.match(r"(?:can|could|please|i would|i'd|i want|i need)\b.*(?:call|message)", text):
        memory.mentioned.setdefault("reason", reason) if reason else None
    if name:
        memory.mentioned["name"] = name
    if urgency := words.urgency_of(text):
        memory.mentioned["urgency"] = urgency
    day = words.day_of(text)
    if goal == "book" and day not in (None, "any"):
        memory.day = day


def _hear_name(memory: Memory, text: str, goal: words.Goal | None) -> None:
    if name := words.name_of(text, asked=True):
        memory.mentioned["name"] = name
        _understood(memory, "name")
    else:
        _fail(memory, "name")


def _hear_number(memory: Memory, text: str, goal: words.Goal | None) -> None:
    digits = memory.part + words.digits_of(text)
    typed = "keypad" in text
    if len(digits) >= 7:
        memory.mentioned["callback_number"] = digits
        memory.part = ""
        _understood(memory, "number")
    elif digits and not typed and words.digits_of(text):
        memory.part = digits
    else:
        memory.part = ""
        _fail(memory, "number")


def _hear_readback(memory: Memory, text: str, goal: words.Goal | None) -> None:
    digits = words.digits_of(text)
    if len(digits) >= 7:
        memory.mentioned["callback_number"] = digits
    elif words.answer_of(text) == "yes":
        slot = memory.slots.get("callback_number")
        if slot is not None:
            memory.mentioned["confirmed_number"] = slot.value
    elif words.answer_of(text) == "no" or digits:
        memory.slots.pop("callback_number", None)
        memory.mentioned.pop("callback_number", None)
        _fail(memory, "readback")
    else:
        _fail(memory, "readback")


def _hear_reason(memory: Memory, text: str, goal: words.Goal | None) -> None:
    if (reason := words.reason_of(text)) is None:
        _fail(memory, "reason")
        return
    memory.mentioned["reason"] = reason
    _understood(memory, "reason")
    if urgency := words.urgency_of(text):
        memory.mentioned["urgency"] = urgency
    if memory.goal is None:
        memory.goal = "message" if words.is_for_the_office(reason) else "book"


def _hear_urgency(memory: Memory, text: str, goal: words.Goal | None) -> None:
    if (urgency := words.urgency_of(text)) is None and (answer := words.answer_of(text)) is not None:
        urgency = "high" if answer == "yes" else "normal"
    if urgency is None:
        _fail(memory, "urgency")
    else:
        memory.mentioned["urgency"] = urgency


def _hear_day(memory: Memory, text: str, goal: words.Goal | None) -> None:
    if (day := words.day_of(text)) is None:
        _fail(memory, "day")
        return
    _understood(memory, "day")
    memory.day, memory.openings, memory.chosen = day, None, None


def _hear_choice(memory: Memory, text: str, goal: words.Goal | None) -> None:
    if chosen := words.choice_of(text, memory.openings or ()):
        memory.chosen = chosen
        _understood(memory, "choice")
        return
    day = words.day_of(text)
    if day is not None and not text.startswith("not "):
        _hear_day(memory, text, goal)
    elif words.answer_of(text) == "no" or re.search(r"\banother\b|\belse\b|\blater\b|\bearlier\b|^not ", text):
        memory.day = memory.openings = None
    else:
        _fail(memory, "choice")


def _hear_book(memory: Memory, text: str, goal: words.Goal | None) -> None:
    answer = words.answer_of(text)
    if answer == "yes":
        memory.mentioned["book"] = "yes"
        memory.chosen = memory.chosen or next(iter(memory.openings or ()), None)
    elif other := words.choice_of(text, memory.openings or ()):
        memory.chosen = other
    elif answer == "no":
        memory.chosen = memory.day = memory.openings = None
    else:
        _fail(memory, "book")


def _hear_more(memory: Memory, text: str, goal: words.Goal | None) -> None:
    if goal is not None and not words.is_farewell(text):
        memory.goal, memory.taken, memory.booked, memory.chosen, memory.openings = goal, False, None, None, None
        memory.wording_ok = False
        memory.asked = "request"
        for known in (memory.slots, memory.mentioned):
            known.pop("reason", None)
        _hear_request(memory, text, goal)
    elif words.answer_of(text) is None and not words.is_farewell(text):
        _fail(memory, "more")


def _hear_message_ok(memory: Memory, text: str, goal: words.Goal | None) -> None:
    answer = words.answer_of(text)
    if answer == "yes":
        memory.wording_ok = True
    elif answer == "no":
        memory.slots.pop("reason", None)
        memory.mentioned.pop("reason", None)
    else:
        _fail(memory, "message_ok")


def _hear_offer(memory: Memory, text: str, goal: words.Goal | None) -> None:
    if words.answer_of(text) == "yes" or goal == "message":
        memory.goal = "message"
    elif goal is not None:
        _hear_request(memory, text, goal)
    elif words.answer_of(text) == "no":
        memory.asked = "more"
    else:
        _fail(memory, "offer_message")


_HEARERS = {
    "request": _hear_request,
    "name": _hear_name,
    "number": _hear_number,
    "readback": _hear_readback,
    "reason": _hear_reason,
    "urgency": _hear_urgency,
    "day": _hear_day,
    "choice": _hear_choice,
    "book": _hear_book,
    "more": _hear_more,
    "message_ok": _hear_message_ok,
    "offer_message": _hear_offer,
}


def _learn(memory: Memory, called: Called, output: str) -> None:
    """What a tool's answer says (rule 2)."""
    try:
        result = json.loads(output)
    except ValueError:
        result = {}
    if not isinstance(result, dict):
        result = {}
    match called.name:
        case "note_slot":
            _learn_slot(memory, called, result)
        case "offer_appointments":
            offered = result.get("openings") or ()
            memory.openings = [words.Opening(str(one.get("opening")), str(one.get("spoken"))) for one in offered]
        case "book_appointment":
            memory.mentioned.pop("book", None)
            if result.get("booked") is True:
                memory.booked = str(result.get("spoken") or (memory.chosen.spoken if memory.chosen else "your appointment"))
            else:
                memory.is_gone = True
                memory.chosen = memory.openings = None
        case "take_message":
            memory.taken = result.get("taken") is True
            memory.wording_ok = False
        case "transfer_to_human" if "error" in result:
            memory.no_transfer = True


def _learn_slot(memory: Memory, called: Called, result: Mapping[str, Any]) -> None:
    name = str(called.arguments.get("slot"))
    if name == "callback_number":
        memory.mentioned.pop("confirmed_number", None)
    value = memory.mentioned.pop(name, None)
    if "error" in result or "noted" not in result:
        memory.refused[name] = memory.refused.get(name, 0) + 1
        return
    memory.slots[name] = Slot(str(result.get("value", value)), result.get("confirmed") is True)
    missing = result.get("missing")
    memory.missing = tuple(str(one) for one in missing) if isinstance(missing, list) else None
