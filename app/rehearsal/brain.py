"""The pretend model's brain: a small dialogue by rules, which speaks short polite English and uses whatever tools the session has.

It follows the session: tools by their names and schemas, the agent's name and goodbye from the instructions, and what one
response is told to say. It knows no scene and no business.

Rule 1: one question at a time, and only one that helps the caller's goal. `_next_step` is the whole road.
Rule 2: nothing is said to be done before the tool's result says so.
Rule 3: what was not understood is asked again; a number that fails twice is asked for on the keypad.
Rule 4: calls that do not wait for each other go into one response. Before a tool that takes time, a few words; before a note, none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.rehearsal import brain_words as words
from app.rehearsal.brain_memory import Line, Memory, Topic, remember

SORRY = "I am sorry, I did not understand that."
HELP = "How can I help you?"
MORE = "Is there anything else?"
WAIT = "One moment, please."
GOODBYE = "Thank you for calling. Goodbye!"
KEYPAD = "Please enter your number on the keypad, followed by the hash key."
NOBODY = "I am sorry, nobody can be reached right now. May I take a message?"

GIVE_UP: Mapping[Topic, int] = {"name": 3, "number": 5, "reason": 3, "urgency": 2}
"""After so many useless answers in a row, we go on without."""
KEYPAD_AFTER = 2

SLOW = frozenset({"offer_appointments", "book_appointment", "take_message"})
_STATES: Mapping[Topic, str] = {"message_ok": "yesno", "book": "yesno", "offer_message": "yesno"}
"""The grammar's state by what was asked, where they differ."""


@dataclass(frozen=True, slots=True)
class Say:
    """Something to be spoken."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to be called."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


type Act = Say | Call


@dataclass(frozen=True, slots=True)
class Order:
    """What one response is to be made by. `now` is what it alone is told; `tools` are parameters' schemas by name."""

    instructions: str = ""
    now: str = ""
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    may_call: bool = True

    def choices(self, tool: str, argument: str) -> list[str]:
        """The values that a tool's argument may have; empty if any, or if there is no such tool."""
        properties = self.tools.get(tool, {}).get("properties", {})
        return [str(value) for value in properties.get(argument, {}).get("enum", ())]


def respond(conversation: Sequence[Line], order: Order) -> list[Act]:
    """What to say and which tools to call, in order. Possibly nothing."""
    memory = remember(conversation)
    acts = _directed(memory, order) or _answer(memory, order)
    if order.may_call:
        return acts
    return [act for act in acts if isinstance(act, Say) and act.text != WAIT] or [_question(memory, order)]


def state_of(conversation: Sequence[Line]) -> str:
    """The grammar's state for what is likely to be said next."""
    memory = remember(conversation)
    asked = memory.asked or "request"
    if asked == "reason" and memory.goal == "message":
        return "message"
    return _STATES.get(asked, asked)


# ---- what one response is told


def _directed(memory: Memory, order: Order) -> list[Act]:
    now = " ".join(order.now.split())
    if quoted := re.search(r'["“]\s*([^"“”]*\w[^"“”]*\s[^"“”]*?)\s*["”]', now):
        return [Say(quoted[1])]
    for pattern, act in _DIRECTIONS:
        if re.search(pattern, now, re.IGNORECASE):
            return [Say(act(memory, order))]
    return []


def _introduction(memory: Memory, order: Order) -> str:
    name = re.search(r"\bYou are ([A-Z][a-z]+)\b", order.instructions)
    return f"Hello, this is {name[1] if name else 'a colleague'}. {_question(memory, order).text}"


def _after_a_break(memory: Memory, order: Order) -> str:
    if memory.goal == "person":
        return f"I am sorry for the interruption. {NOBODY}"
    return f"I am sorry, we were cut off. {_question(memory, order).text}"


_DIRECTIONS = (
    (r"still there", lambda memory, order: "Are you still there?"),
    (r"says nothing.*goodbye", lambda memory, order: "I cannot hear you, so I will hang up now. Goodbye!"),
    (r"has to end", lambda memory, order: "I am sorry, we have to end the call now. Goodbye!"),
    (r"goodbye|good-bye", lambda memory, order: _goodbye(order)),
    (r"putting (?:them|the caller) through", lambda memory, order: "I am putting you through now."),
    (r"nobody could be reached", lambda memory, order: NOBODY),
    (r"taken over", _introduction),
    (r"cut off|interrupted", _after_a_break),
    (r"\bgreet", lambda memory, order: f"Hello, thank you for calling. {HELP}"),
)


# ---- what the conversation asks for


def _answer(memory: Memory, order: Order) -> list[Act]:
    if memory.fresh:
        acts = _reply(memory, memory.fresh[-1].lower().strip(" .?!"), order)
        if acts:
            return acts
    elif "transfer_to_human" in memory.results and not memory.no_transfer:
        return [Say("I am putting you through now.")]
    elif "wait_for_caller" in memory.results:
        return []
    return _next_step(memory, order)


def _reply(memory: Memory, text: str, order: Order) -> list[Act]:
    """To what needs an answer of its own; nothing if the road goes on."""
    asked = memory.asked
    if memory.is_checking and (words.answer_of(text) == "yes" or words.is_hum(text) or words.is_greeting(text)):
        return [_question(memory, order)]
    if not text:
        return [_again(memory, order, SORRY)]
    if words.is_pardon(text):
        return [_question(memory, order)]
    if words.is_hold(text):
        return _wait(order, "Take your time.")
    if memory.goal == "wrong":
        return _end(memory, order, "No problem. Goodbye!")
    if memory.goal == "person":
        return _transfer(memory, order)
    if _is_done(asked, text):
        return _end(memory, order)
    if words.is_greeting(text) and memory.goal is None:
        return [Say(f"Hello! {HELP}")]
    if words.is_hum(text) and asked in (None, "request", "name", "number", "reason", "day", "choice") and not memory.mentioned:
        return [_question(memory, order)] if memory.was_cut else _wait(order, _question(memory, order).text)
    if memory.failed(asked) and not _calls(memory, order) and not _is_looking(memory):
        return [_again(memory, order, SORRY)]
    return []


def _is_done(asked: Topic | None, text: str) -> bool:
    """In the middle of the road "that is all" may be the end of an answer; there, only a goodbye is a goodbye."""
    if asked in ("more", "request", None):
        return words.is_farewell(text) or (asked == "more" and words.answer_of(text) == "no")
    return re.search(r"\b(?:good)?bye\b", text) is not None


def _next_step(memory: Memory, order: Order) -> list[Act]:
    """The road: what is known is noted, what can be looked up is, and then comes the next question."""
    if calls := _calls(memory, order):
        takes_time = any(call.name in SLOW for call in calls) and memory.last_said != WAIT
        return [Say(WAIT), *calls] if takes_time else [*calls]
    if memory.goal == "person":
        return [Say(NOBODY)] if memory.no_transfer else _transfer(memory, order)
    if _is_looking(memory):
        return [Say("One moment, I am still looking.")]
    if memory.goal == "buy" and (colleague := _colleague(order)):
        reason = memory.reason or "something new"
        hand_off = Call("hand_off", {"to": colleague, "reason": f"The caller is interested in {reason}."})
        return [Say(f"I will put you through to {colleague.replace('-', ' ')}."), hand_off]
    return [_question(memory, order)]


def _calls(memory: Memory, order: Order) -> list[Call]:
    """Everything that can be called now (rule 4)."""
    if memory.goal in (None, "person", "wrong"):
        return []
    if memory.goal == "buy" and _colleague(order):
        return []
    calls = list(_notes(memory, order))
    under_way = {call.name for call in memory.pending.values()}
    if _books(memory, order):
        if "find_customer" in order.tools and "find_customer" not in memory.tried:
            calls.append(Call("find_customer"))
        if memory.day and memory.openings is None and "offer_appointments" not in under_way:
            calls.append(Call("offer_appointments", {} if memory.day == "any" else {"day": memory.day}))
        if memory.chosen and "book" in memory.mentioned and "book_appointment" not in under_way:
            calls.append(Call("book_appointment", {"opening": memory.chosen.key}))
    elif memory.wording_ok and not memory.taken and "take_message" not in under_way:
        calls.append(Call("take_message", {"message": _message(memory)}))
    return calls


def _is_looking(memory: Memory) -> bool:
    return any(call.name in SLOW for call in memory.pending.values())


def _notes(memory: Memory, order: Order) -> list[Call]:
    known = order.choices("note_slot", "slot")
    notes = []
    for slot in known:
        confirmed = slot == "callback_number" and "confirmed_number" in memory.mentioned and slot not in memory.mentioned
        value = memory.mentioned["confirmed_number"] if confirmed else memory.mentioned.get(slot)
        if slot == "urgency" and value is None and "reason" in memory.mentioned and slot not in memory.slots:
            value = "normal"
        if value is not None and memory.refused.get(slot, 0) < 3:
            notes.append(Call("note_slot", {"slot": slot, "value": _choice_of_urgency(value, order) if slot == "urgency" else value,
                                            "confirmed": confirmed}))  # fmt: skip
    return notes


def _choice_of_urgency(value: str, order: Order) -> str:
    """Our three steps, in the words of the instructions if they have others."""
    listed = re.search(r"urgency[^\n]*?\(?one of:? ([\w-]+(?:, [\w-]+)+)", order.instructions)
    choices = listed[1].split(", ") if listed else ["low", "normal", "high"]
    if value in choices:
        return value
    return choices[{"low": 0, "normal": len(choices) // 2, "high": -1}[value]]


def _again(memory: Memory, order: Order, sorry: str) -> Say:
    """The same question, after an answer of no use."""
    question = _question(memory, order).text
    if memory.asked == "request" and memory.failed("request") >= 3:
        return Say("I am sorry, I still do not understand. May I take a message?")
    return Say(question if question.startswith("I am sorry") else f"{sorry} {question}")


def _question(memory: Memory, order: Order) -> Say:
    """The next thing to ask, or to tell and ask."""
    if memory.goal is None:
        return Say(HELP)
    if memory.goal == "wrong":
        return Say("Goodbye!")
    if memory.goal == "person":
        return Say(NOBODY)
    if slot := _slot_question(memory, order):
        return Say(slot)
    if _books(memory, order):
        return Say(_visit_question(memory))
    if "take_message" in order.tools and not memory.taken:
        return Say(f"I will pass on: {_message(memory)}. Is that right?")
    done = "I have passed that on." if memory.taken else "I have noted that."
    return Say(f"{done} Somebody will call you back. {MORE}")


def _slot_question(memory: Memory, order: Order) -> str | None:
    slots = order.choices("note_slot", "slot")
    order_of_asking = ("name", "callback_number", "reason") if memory.goal == "message" else ("reason", "name", "callback_number")
    for slot in order_of_asking:
        topic: Topic = "number" if slot == "callback_number" else "name" if slot == "name" else "reason"
        if slot not in slots or memory.failed(topic) >= GIVE_UP[topic] or memory.refused.get(slot, 0) >= 3:
            continue
        known = memory.slots.get(slot)
        if known is None and slot not in memory.mentioned:
            return _asking(memory, topic)
        if slot == "callback_number" and (known is None or not known.confirmed) and memory.failed("readback") < 5:
            return f"Your number is {words.in_groups(memory.mentioned.get(slot) or (known.value if known else ''))}. Is that right?"
    if "urgency" in (memory.missing or ()) and memory.failed("urgency") < GIVE_UP["urgency"]:
        return "Is it urgent, or can it wait?"
    return None


def _asking(memory: Memory, topic: Topic) -> str:
    if topic == "name":
        return "May I have your name, please?"
    if topic == "reason":
        return "What is the message?" if memory.goal == "message" else "What is it about?"
    if memory.part:
        return "What is the rest of the number?"
    if (
        memory.failed("number") >= KEYPAD_AFTER
        or memory.refused.get("callback_number", 0) >= KEYPAD_AFTER
        or memory.failed("readback") >= 3
    ):
        return KEYPAD
    return "I am sorry. What is the right number?" if memory.failed("readback") else "What is your phone number?"


def _visit_question(memory: Memory) -> str:
    if memory.booked:
        return f"{memory.booked} is booked. {MORE}"
    if memory.chosen:
        return f"{memory.chosen.spoken}. Shall I book that?"
    sorry = "I am sorry, that one is gone. " if memory.is_gone else ""
    if memory.openings is None:
        return f"{sorry}Which day suits you?"
    if not memory.openings:
        return "I am sorry, there is nothing free then. Which other day suits you?"
    first, *others = memory.openings
    if not others:
        return f"{sorry}I can offer {first.spoken}. Shall I book that?"
    return f"{sorry}I can offer {first.spoken}, or {others[0].spoken}. Which one suits you better?"


def _books(memory: Memory, order: Order) -> bool:
    return memory.goal in ("book", "buy") and {"offer_appointments", "book_appointment"} <= order.tools.keys()


def _message(memory: Memory) -> str:
    return memory.reason or "please call back"


# ---- the ways out


def _wait(order: Order, otherwise: str) -> list[Act]:
    return [Call("wait_for_caller")] if "wait_for_caller" in order.tools else [Say(otherwise)]


def _colleague(order: Order) -> str | None:
    """Who looks after those who want something new, if that is not us."""
    return next((name for name in order.choices("hand_off", "to") if re.search(r"sale|project|offer", name)), None)


def _transfer(memory: Memory, order: Order) -> list[Act]:
    people = order.choices("transfer_to_human", "to")
    if not people or memory.no_transfer:
        return [Say(NOBODY)]
    to = next((name for name in people if re.search(r"human|office|front|manager|team|support", name)), people[0])
    sorry = "I am sorry about that. " if memory.is_angry else ""
    reason = "The caller is upset and asked for a person." if memory.is_angry else "The caller asked for a person."
    return [Say(f"{sorry}I will put you through to a person."), Call("transfer_to_human", {"to": to, "reason": reason})]


def _goodbye(order: Order) -> str:
    """In the agent's own words, if the instructions give them."""
    own = re.search(r'"(Thank you[^"]*Goodbye[^"]*)"', order.instructions)
    return " ".join(own[1].split()) if own else GOODBYE


def _end(memory: Memory, order: Order, goodbye: str | None = None) -> list[Act]:
    said = Say(goodbye or _goodbye(order))
    if "end_call" not in order.tools:
        return [said]
    kind = (
        "wrong" if memory.goal == "wrong"
        else "booked" if memory.booked
        else "message" if memory.taken
        else "sale" if memory.goal == "buy"
        else "other"
    )  # fmt: skip
    arguments: dict[str, Any] = {
        "disposition": _pick(order.choices("end_call", "disposition"), _DISPOSITIONS[kind]),
        "intent": _pick(order.choices("end_call", "intent"), _INTENTS[memory.goal or "other"]),
        "summary": _summary(memory),
        "next_action": {"message": "Call the caller back.", "sale": "Call the caller back with an offer."}.get(kind),
    }
    required = order.tools["end_call"].get("required", ())
    given = {name: value or "none" for name, value in arguments.items() if value or name in required}
    return [said, Call("end_call", given)]


_DISPOSITIONS = {
    "wrong": r"wrong",
    "booked": r"book|appoint",
    "message": r"message",
    "sale": r"sale|lead",
    "other": r"information|other|complete|resolved",
}
_INTENTS = {
    "wrong": r"wrong",
    "person": r"complain|support|other",
    "message": r"message",
    "buy": r"buy|sale|price",
    "book": r"book|appoint",
    "other": r"other",
}


def _pick(values: Sequence[str], pattern: str) -> str | None:
    """The first value that fits, else the last, which by custom is the vaguest."""
    return next((value for value in values if re.search(pattern, value)), values[-1] if values else None)


def _summary(memory: Memory) -> str:
    if memory.goal == "wrong":
        return "The caller had dialled a wrong number."
    who = memory.slots["name"].value if "name" in memory.slots else "A caller"
    if memory.taken:
        return f"{who} left a message: {_message(memory)}."
    about = f" It is about: {memory.reason}." if memory.reason else ""
    done = f"booked {memory.booked}" if memory.booked else "called, and nothing was booked"
    return f"{who} {done}.{about}"
