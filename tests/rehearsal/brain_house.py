"""A text-only house for the brain: the product's tools by their real schemas, answered as the product answers them."""

import json
from collections.abc import Mapping
from typing import Any

from app.rehearsal.brain import Call, Order, Say, respond, state_of
from app.rehearsal.brain_memory import Answered, Called, Heard, Line, Said, Told

LAST = frozenset({"end_call", "wait_for_caller", "transfer_to_human"})
"""After these the product asks for no further response by itself."""
SLOTS = ["name", "callback_number", "reason", "urgency"]


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _text(description: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


TOOLS: dict[str, dict[str, Any]] = {
    "note_slot": _object(
        {"slot": _text(enum=SLOTS), "value": _text(), "confirmed": {"type": "boolean"}}, ["slot", "value", "confirmed"]
    ),
    "hand_off": _object({"to": _text(enum=["sales"]), "reason": _text()}, ["to", "reason"]),
    "transfer_to_human": _object({"to": _text(enum=["manager", "office"]), "reason": _text()}, ["to", "reason"]),
    "end_call": _object(
        {
            "disposition": _text(enum=["appointment_booked", "message_taken", "sales_lead", "wrong_number", "other"]),
            "intent": _text(enum=["book_appointment", "buy", "complaint", "leave_message", "wrong_number", "other"]),
            "summary": _text(),
            "next_action": _text(),
        },
        ["disposition", "summary"],
    ),
    "wait_for_caller": _object({}, []),
    "find_customer": _object({}, []),
    "offer_appointments": _object({"day": {"type": ["string", "null"]}}, []),
    "book_appointment": _object({"opening": _text()}, ["opening"]),
    "take_message": _object({"message": _text()}, ["message"]),
}

INSTRUCTIONS = 'You are Ivy, at the desk. When there is nothing else: "Thank you for\ncalling Linden. Goodbye!" Then end the call.'


class House:
    """One conversation in text. `calls` are the tools that were called, `says` what was said, both in order."""

    def __init__(self, *without: str, instructions: str = INSTRUCTIONS) -> None:
        self.tools = {name: schema for name, schema in TOOLS.items() if name not in without}
        self.instructions = instructions
        self.lines: list[Line] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.says: list[str] = []
        self.together: list[list[str]] = []
        """The names of the tools of each response that called any."""
        self.slots: dict[str, dict[str, Any]] = {}
        self.openings = ["Tuesday at 9 in the morning", "Tuesday at 10 in the morning"]
        self.taken = 0
        self.answers: dict[str, Any] = {}
        """Results that replace the house's own, by tool."""

    def tell(self, now: str = "", *, may_call: bool = True) -> str:
        """One response, and those that its tools' results need; what was said in all."""
        said: list[str] = []
        for _ in range(6):
            acts = respond(self.lines, Order(self.instructions, now, self.tools, may_call))
            now = ""
            calls = [act for act in acts if isinstance(act, Call)]
            for act in acts:
                if isinstance(act, Say):
                    said.append(act.text)
                    self.lines.append(Said(act.text))
            for act in calls:
                call = f"call_{len(self.calls)}"
                self.calls.append((act.name, dict(act.arguments)))
                self.lines.append(Called(call, act.name, act.arguments))
                self.lines.append(Answered(call, json.dumps(self.result(act.name, act.arguments))))
            if calls:
                self.together.append([act.name for act in calls])
            names = {act.name for act in calls}
            if not calls or (names & LAST and "error" not in str(self.lines[-1])):
                break
        self.says += said
        return " ".join(said)

    def hear(self, text: str) -> str:
        """The caller says something; what the agent says to it."""
        self.lines.append(Heard(text))
        return self.tell()

    def told(self, text: str) -> None:
        """A system item."""
        self.lines.append(Told(text))

    @property
    def state(self) -> str:
        """The grammar's state for the caller's next words."""
        return state_of(self.lines)

    def result(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a tool of the product answers."""
        if name in self.answers:
            answer = self.answers[name]
            return dict(answer.pop(0) if isinstance(answer, list) else answer)
        match name:
            case "note_slot":
                self.slots[arguments["slot"]] = {"value": arguments["value"], "confirmed": arguments["confirmed"]}
                needed = [slot for slot in SLOTS[:3] if slot not in self.slots]
                if "callback_number" in self.slots and not self.slots["callback_number"]["confirmed"]:
                    needed.append("callback_number")
                return {"noted": arguments["slot"], "missing": needed, **self.slots[arguments["slot"]]}
            case "hand_off":
                return {"handed_to": arguments["to"]}
            case "transfer_to_human":
                return {"transferring": True}
            case "end_call":
                return {"ending": True}
            case "find_customer":
                return {"found": False}
            case "offer_appointments":
                return {
                    "openings": [
                        {"opening": f"2026-11-24T{9 + at:02}:00", "spoken": spoken} for at, spoken in enumerate(self.openings)
                    ]
                }
            case "book_appointment":
                return {"booked": True, "spoken": self.openings[int(arguments["opening"][11:13]) - 9]}
            case "take_message":
                return {"taken": True}
            case _:
                return {"waiting": True}
