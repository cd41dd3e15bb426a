"""The controls of an agent: tools that act inside the call machine. Their names and schemas are fixed; what may stand in an enum
comes from the agent's file and the settings, so that the model cannot name a slot, a colleague or a person that is not there.
"""

from collections.abc import Collection, Sequence
from typing import Any

from app.call.agent import SlotSpec, ToolKind, ToolSpec

CONTROLS = ("note_slot", "hand_off", "transfer_to_human", "end_call", "wait_for_caller")


def controls(
    *,
    slots: Sequence[SlotSpec],
    hands_off_to: Sequence[str],
    directory: Collection[str],
    dispositions: Collection[str],
    intents: Collection[str],
) -> tuple[ToolSpec, ...]:
    """The controls one agent gets. Without slots, hand-offs or a directory the control that would need them is left out."""
    given = []
    if slots:
        given.append(_note_slot(slots))
    if hands_off_to:
        given.append(_hand_off(hands_off_to))
    if directory:
        given.append(_transfer_to_human(directory))
    return (*given, _end_call(dispositions, intents), _wait_for_caller())


def _control(name: str, description: str, properties: dict[str, Any], required: Sequence[str]) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return ToolSpec(name=name, kind=ToolKind.CONTROL, description=description, parameters=schema)


def _enum(values: Collection[str], description: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values), "description": description}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _note_slot(slots: Sequence[SlotSpec]) -> ToolSpec:
    return _control(
        "note_slot",
        "Note one thing the caller has told you, as soon as you hear it. Say nothing about noting it. Note it again when the "
        "caller corrects it. A slot that must be read back is noted first with confirmed false; after you have read it back and "
        "the caller has said yes, note the same value again with confirmed true.",
        {
            "slot": _enum([slot.name for slot in slots], "What was learnt."),
            "value": _text("The value as the caller means it. A telephone number in digits only; a choice in its exact word."),
            "confirmed": {"type": "boolean", "description": "True only if the caller has just said yes to this very value."},
        },
        ("slot", "value", "confirmed"),
    )


def _hand_off(hands_off_to: Sequence[str]) -> ToolSpec:
    return _control(
        "hand_off",
        "Let a colleague, another assistant of ours, go on with this call. What was noted goes along. Announce it in one short "
        "sentence, then call this and say nothing more.",
        {
            "to": _enum(hands_off_to, "The colleague."),
            "reason": _text("What the caller wants, in one sentence for the colleague."),
        },
        ("to", "reason"),
    )


def _transfer_to_human(directory: Collection[str]) -> ToolSpec:
    return _control(
        "transfer_to_human",
        "Connect the caller with a person: when the caller asks for one, is upset and stays so, or needs what you cannot do. "
        "Announce it in one short sentence first.",
        {
            "to": _enum(directory, "The person or team."),
            "reason": _text("Why, in one sentence for the person who takes over."),
        },
        ("to", "reason"),
    )


def _end_call(dispositions: Collection[str], intents: Collection[str]) -> ToolSpec:
    return _control(
        "end_call",
        "End the call, after the caller has said that nothing else is needed and you have said goodbye. The line is cut once the "
        "goodbye has been heard; if the caller speaks on, the call goes on.",
        {
            "disposition": _enum(dispositions, "How the call came out."),
            "intent": _enum(intents, "What the caller wanted."),
            "summary": _text("The call in one or two sentences: who, what was wanted, what was done. Only what really happened."),
            "next_action": _text("What somebody of ours has to do now. Leave it out if nothing."),
        },
        ("disposition", "summary"),
    )


def _wait_for_caller() -> ToolSpec:
    return _control(
        "wait_for_caller",
        "Stay silent and go on listening. Use it instead of an answer when what you heard was not meant for you: noise, music, "
        "somebody else in the room, or a caller who asked you to hold on.",
        {},
        (),
    )
