"""The contract of the Realtime protocol as the `openai` package has it: every event of either side is checked against its types.

Rule 1: the union accepts extra fields and picks the model by `type`; so the type must be a member, the required fields must be
there, and nothing may be coerced. Fields beyond the types are allowed only where we know that the real server has them.
"""

from functools import cache
from typing import Any, get_args

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

EXTRA_FIELDS = frozenset({"phase", "expires_at", "id", "object", "rate", "previous_item_id", "note", "x_rehearsal"})
"""Seen on the live service, not in the types of 3.51.0."""


@cache
def _models(union: Any) -> dict[str, type[BaseModel]]:
    members: dict[str, type[BaseModel]] = {}
    for member in get_args(get_args(union)[0]) or get_args(union):
        for name in get_args(member.model_fields["type"].annotation):
            members[name] = member
    return members


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _complaints(event: Any, union: Any) -> list[str]:
    if not isinstance(event, dict):
        return ["an event is an object"]
    kind = event.get("type")
    model = _models(union).get(kind) if isinstance(kind, str) else None
    if model is None:
        return [f"no event of the type {kind!r}"]
    try:
        parsed = _adapter(model).validate_python(event, strict=True)
        _adapter(union).validate_python(event)
    except ValidationError as fault:
        return [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in fault.errors()]
    return _extras(parsed, kind)


def _extras(value: Any, place: str) -> list[str]:
    """Fields beyond the types, at any depth."""
    found: list[str] = []
    if isinstance(value, BaseModel):
        found += [f"{place}.{name}: not in the types" for name in value.model_extra or () if name not in EXTRA_FIELDS]
        for name in value.model_fields_set:
            found += _extras(getattr(value, name), f"{place}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            found += _extras(part, f"{place}[{number}]")
    return found


def server_event_complaints(event: Any) -> list[str]:
    """What is wrong with an event of the server's; empty if nothing is."""
    return _complaints(event, RealtimeServerEvent)


def client_event_complaints(event: Any) -> list[str]:
    """What is wrong with an event of the client's; empty if nothing is."""
    return _complaints(event, RealtimeClientEvent)


def valid_server_event(event: Any) -> bool:
    """Whether the server may say so."""
    return not server_event_complaints(event)


def valid_client_event(event: Any) -> bool:
    """Whether the client may say so."""
    return not client_event_complaints(event)
