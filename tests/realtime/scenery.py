"""What the tests of the model's leg share: an agent, the options, and one recorded message of every kind.

The messages were written after the examples of OpenAI's guide, with invented content, and are held against the types of the
`openai` package.
"""

import json
from pathlib import Path
from typing import Any

import openai
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from app.call.agent import Agent, FloorPolicy, ToolKind, ToolSpec, TurnTaking
from app.realtime.session import SessionOptions

WIRE = Path(__file__).parents[1] / "wire" / "realtime"
CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

NOTE_SLOT = ToolSpec(
    name="note_slot",
    kind=ToolKind.CONTROL,
    description="Keep what was learnt.",
    parameters={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
)
DESK = Agent(name="front-desk", instructions="You answer the phone of Example Plumbing.", tools=(NOTE_SLOT,))
SALES = Agent(name="sales", instructions="You sell pipes.", voice="cedar", tools=())
HURRIED = Agent(name="hurried", instructions="You hurry.", floor=FloorPolicy(turn_taking=TurnTaking.PROVIDER))
AGENTS = {agent.name: agent for agent in (DESK, SALES, HURRIED)}

OPTIONS = SessionOptions(
    model="gpt-realtime-2.1", voice="marin", transcription_model="gpt-transcribe", transcription_languages=("en", "de")
)


def recorded(name: str) -> bytes:
    """A recorded message."""
    return (WIRE / f"{name}.json").read_bytes()


def client_event(message: bytes | dict[str, Any]) -> dict[str, Any]:
    """A message of ours, once it is known to be what the provider's own types know, in every key."""
    sent = json.loads(message) if isinstance(message, bytes) else message
    event = CLIENT_EVENT.validate_python(sent)
    assert event.type == sent["type"], f"{sent['type']} is read as {type(event).__name__}"
    assert _unknown(event) == []
    return sent


def _unknown(value: Any, where: str = "") -> list[str]:
    """Keys that the provider's types do not know. (They are ignorant on purpose of what stands inside a JSON Schema.)"""
    if isinstance(value, list):
        return [found for index, each in enumerate(value) for found in _unknown(each, f"{where}[{index}]")]
    if not isinstance(value, openai.BaseModel):
        return []
    extra = [f"{where}.{name}" for name in value.model_extra or {}]
    return extra + [found for name in type(value).model_fields for found in _unknown(getattr(value, name), f"{where}.{name}")]
