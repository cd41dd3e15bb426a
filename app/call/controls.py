"""The tools that act inside the call: note a slot, hand off, transfer, end, wait. Decided here, carried out by the machine.

Rule 1: arguments are the model's word and hostile until checked; a wrong one is answered with a sentence, never an exception.
Rule 2: whom a caller can be put through to is a name of the server's directory, never a number.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.call.agent import Agent
from app.call.disposition import EndReason, Intent, Memory
from app.call.errands import error
from app.call.slots import SlotRefused, Slots

LONGEST = 1_000


@dataclass(slots=True)
class Goodbye:
    """What is to happen when the agent's last sentence has been heard."""

    intent: Intent
    end_reason: EndReason
    sentence: str
    """The instruction for that last sentence, if the agent has not said one by itself."""
    target: str | None = None
    response: str | None = None
    """The response in which it was decided: what that one says may be the last sentence."""
    asked: bool = False
    said: bool = False
    final: bool = False
    """There is nobody left to talk with: a caller who speaks on takes nothing back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a control comes to: the answer for the model, and what the machine does."""

    result: str = field(repr=False)
    refused: bool = False
    speak: bool = True
    """The model is to speak about the answer."""
    memory: Memory | None = field(default=None, repr=False)
    hand_to: str | None = None
    goodbye: Goodbye | None = None


def refuse(sentence: str) -> Verdict:
    """The control is not carried out, for a reason the model may read."""
    return Verdict(result=error(sentence), refused=True)


def decide(
    name: str,
    arguments: Mapping[str, Any],
    *,
    agent: Agent,
    memory: Memory,
    slots: Slots,
    directory: Collection[str],
    utterance: str | None,
    at: int,
) -> Verdict:
    """What a control of this name comes to."""
    match name:
        case "note_slot":
            return _note(arguments, agent, memory, slots, utterance, at)
        case "hand_off":
            return _hand_off(arguments, agent, memory)
        case "transfer_to_human":
            return _transfer(arguments, memory, directory)
        case "end_call":
            return _end(arguments, agent, memory)
        case "wait_for_caller":
            return Verdict(result=json.dumps({"waiting": True}), speak=False)
    return refuse("there is no such tool")


def _note(arguments: Mapping[str, Any], agent: Agent, memory: Memory, slots: Slots, utterance: str | None, at: int) -> Verdict:
    spec = next((spec for spec in agent.slots if spec.name == arguments.get("slot")), None)
    if spec is None:
        return refuse("slot is one of: " + ", ".join(spec.name for spec in agent.slots))
    value, confirmed = arguments.get("value"), arguments.get("confirmed", False)
    if not isinstance(value, str) or not isinstance(confirmed, bool):
        return refuse("value is a string and confirmed is true or false")
    try:
        slot = slots.note(
            spec, value, confirmed=confirmed, utterance=utterance, agent=agent.name, caller_turns=memory.caller_turns, at=at
        )
    except SlotRefused as refused:
        return refuse(str(refused))
    result = {"noted": slot.name, "value": slot.value, "confirmed": slot.confirmed, "missing": slots.missing(agent.slots)}
    if spec.read_back and not slot.confirmed:
        result["next"] = "read it back, hear the caller agree, then note it again as confirmed"
    return Verdict(result=json.dumps(result), memory=replace(memory, slots=slots.all))


def _hand_off(arguments: Mapping[str, Any], agent: Agent, memory: Memory) -> Verdict:
    to = arguments.get("to")
    if to not in agent.hands_off_to:
        return refuse("to is one of: " + ", ".join(agent.hands_off_to))
    path = (*memory.agent_path, str(to))
    return Verdict(result=json.dumps({"handed_to": to}), memory=replace(memory, agent=str(to), agent_path=path), hand_to=str(to))


def _transfer(arguments: Mapping[str, Any], memory: Memory, directory: Collection[str]) -> Verdict:
    to = arguments.get("to")
    if to not in directory:
        if not directory:
            return refuse("nobody can be reached at the moment; offer to take a message")
        return refuse("to is one of: " + ", ".join(sorted(directory)))
    goodbye = Goodbye(
        Intent.TRANSFER,
        EndReason.TRANSFERRED,
        "Tell the caller in one short sentence that you are putting them through now.",
        target=str(to),
    )
    return Verdict(
        result=json.dumps({"transferring": True}),
        memory=replace(memory, escalated=True, transfer_to=str(to)),
        goodbye=goodbye,
        speak=False,
    )


def _end(arguments: Mapping[str, Any], agent: Agent, memory: Memory) -> Verdict:
    tool = agent.tool("end_call")
    properties = tool.parameters.get("properties", {}) if tool else {}
    chosen: dict[str, str | None] = {}
    for key in ("disposition", "intent"):
        value, allowed = arguments.get(key), properties.get(key, {}).get("enum")
        if value is not None and (not isinstance(value, str) or (allowed is not None and value not in allowed)):
            return refuse(f"{key} is one of: {', '.join(allowed or ())}")
        chosen[key] = value
    texts = {key: arguments.get(key) for key in ("summary", "next_action")}
    if any(text is not None and not isinstance(text, str) for text in texts.values()):
        return refuse("summary and next_action are strings")
    changed = replace(
        memory,
        disposition=chosen["disposition"] or memory.disposition,
        intent=chosen["intent"] or memory.intent,
        summary=(texts["summary"] or "").strip()[:LONGEST] or memory.summary,
        next_action=(texts["next_action"] or "").strip()[:LONGEST] or memory.next_action,
    )
    goodbye = Goodbye(Intent.HANG_UP, EndReason.AGENT_ENDED, "Say goodbye to the caller in one short sentence.")
    return Verdict(result=json.dumps({"ending": True}), memory=changed, goodbye=goodbye, speak=False)
