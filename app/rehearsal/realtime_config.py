"""A session's configuration: the defaults, and what `session.update` and `response.create` may say.

Rule 1: an update is taken whole or not at all; only what it says changes.
Rule 2: a key that is not in the tables is `unknown_parameter`, with its path; so a name of the beta is a fault.
"""

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from app.rehearsal.realtime_faults import Refused

VOICES = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")
FORMATS: Mapping[str, int] = {"audio/pcm": 48, "audio/pcmu": 8}
"""Bytes of a millisecond. A-law is understood by the real thing; we have no use for it and refuse it."""

type Check = Callable[[str, Any], Any]
"""Takes a path and a value; gives the value to keep, or raises Refused."""


def default_session(model: str, session_id: str, expires_at: int) -> dict[str, Any]:
    """What a session is before anybody has said anything."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "You are a helpful, witty, and friendly AI. Talk quickly.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": expires_at,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    # The type documentation says 500, the example of `session.created` 200: who cares sets it.
                    "silence_duration_ms": 200,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin", "speed": 1.0},
        },
        "include": None,
    }


def updated(session: Mapping[str, Any], update: Any, *, voice_is_locked: bool) -> dict[str, Any]:
    """The session with an update in it (rule 1). Raises Refused."""
    if not isinstance(update, dict):
        raise Refused("missing_required_parameter", "Missing required parameter: 'session'.", "session")
    if "type" not in update:
        raise Refused("missing_required_parameter", "Missing required parameter: 'session.type'.", "session.type")
    new = copy.deepcopy(dict(session))
    _merge(new, update, "session", _SESSION)
    if new["model"] != session["model"]:
        raise Refused("invalid_value", "The model of a session cannot be changed.", "session.model")
    if voice_is_locked and new["audio"]["output"]["voice"] != session["audio"]["output"]["voice"]:
        raise Refused(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            "session.audio.output.voice",
        )
    return new


def response_settings(session: Mapping[str, Any], asked: Any, *, voice_is_locked: bool) -> dict[str, Any]:
    """What holds for one response: the session's, and what `response.create` says instead. Raises Refused."""
    if asked is None:
        asked = {}
    if not isinstance(asked, dict):
        raise Refused("invalid_type", "Invalid type for 'response': expected an object.", "response")
    settings: dict[str, Any] = {
        name: copy.deepcopy(session[name])
        for name in ("output_modalities", "instructions", "tools", "tool_choice", "max_output_tokens")
    }
    settings |= {"audio": {"output": copy.deepcopy(session["audio"]["output"])}}
    settings |= {"conversation": "auto", "metadata": None, "input": None}
    _merge(settings, asked, "response", _RESPONSE)
    if voice_is_locked and settings["audio"]["output"]["voice"] != session["audio"]["output"]["voice"]:
        raise Refused(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            "response.audio.output.voice",
        )
    return settings


def _merge(target: dict[str, Any], update: Mapping[str, Any], path: str, table: Mapping[str, Any]) -> None:
    for key, value in update.items():
        place = f"{path}.{key}"
        rule = table.get(key)
        if rule is None:
            raise Refused("unknown_parameter", f"Unknown parameter: '{place}'.", place)
        if not isinstance(rule, dict):
            target[key] = rule(place, value)
            continue
        if not isinstance(value, dict):
            raise Refused("invalid_type", f"Invalid type for '{place}': expected an object.", place)
        inner = target.get(key)
        target[key] = inner if isinstance(inner, dict) else {}
        _merge(target[key], value, place, rule)


# ---- checks


def _wrong(path: str, expected: str) -> Refused:
    return Refused("invalid_value", f"Invalid value for '{path}': expected {expected}.", path)


def _one_of(*values: Any) -> Check:
    def check(path: str, value: Any) -> Any:
        if not any(value == allowed and type(value) is type(allowed) for allowed in values):
            raise _wrong(path, "one of " + ", ".join(map(repr, values)))
        return value

    return check


def _a(kind: type | tuple[type, ...], expected: str) -> Check:
    def check(path: str, value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Refused("invalid_type", f"Invalid type for '{path}': expected {expected}.", path)
        return value

    return check


def _between(low: float, high: float, *, whole: bool = True) -> Check:
    def check(path: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
            raise _wrong(path, f"a number from {low} to {high}")
        return value

    return check


def _or_none(inner: Check) -> Check:
    return lambda path, value: None if value is None else inner(path, value)


def _either(first: Check, second: Check) -> Check:
    def check(path: str, value: Any) -> Any:
        try:
            return first(path, value)
        except Refused:
            return second(path, value)

    return check


def _anything(_path: str, value: Any) -> Any:
    return value


def _object(table: Mapping[str, Check], *, required: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None) -> Check:
    """An object that replaces the one before."""

    def check(path: str, value: Any) -> Any:
        if not isinstance(value, dict):
            raise Refused("invalid_type", f"Invalid type for '{path}': expected an object.", path)
        kept = dict(defaults or {})
        _merge(kept, value, path, table)
        for name in required:
            if name not in value:
                raise Refused("missing_required_parameter", f"Missing required parameter: '{path}.{name}'.", f"{path}.{name}")
        return kept

    return check


_string, _flag = _a(str, "a string"), _a(bool, "a boolean")
_format_table: dict[str, Check] = {"type": _one_of(*FORMATS), "rate": _one_of(24_000)}


def _format(path: str, value: Any) -> Any:
    kept = _object(_format_table, required=("type",))(path, value)
    if kept["type"] == "audio/pcmu" and "rate" in kept:
        raise Refused("unknown_parameter", f"Unknown parameter: '{path}.rate'.", f"{path}.rate")
    return kept | {"rate": 24_000} if kept["type"] == "audio/pcm" else kept


def _turn_detection(path: str, value: Any) -> Any:
    if value is None:
        return None
    semantic = isinstance(value, dict) and value.get("type") == "semantic_vad"
    both: dict[str, Check] = {"type": _one_of("server_vad", "semantic_vad"), "create_response": _flag, "interrupt_response": _flag}
    if semantic:
        table = both | {"eagerness": _one_of("low", "medium", "high", "auto")}
        defaults: dict[str, Any] = {"eagerness": "auto", "create_response": True, "interrupt_response": True}
        return _object(table, required=("type",), defaults=defaults)(path, value)
    table = both | {
        "threshold": _between(0, 1, whole=False),
        "prefix_padding_ms": _between(0, 5_000),
        "silence_duration_ms": _between(0, 10_000),
        "idle_timeout_ms": _or_none(_between(5_000, 30_000)),
    }
    defaults = {
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
    return _object(table, required=("type",), defaults=defaults)(path, value)


def _voice(path: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _object({"id": _string}, required=("id",))(path, value)
    return _one_of(*VOICES)(path, value)


def _tools(path: str, value: Any) -> Any:
    function: dict[str, Check] = {
        "type": _one_of("function"),
        "name": _string,
        "description": _string,
        "parameters": _a(dict, "an object"),
    }
    for number, tool in enumerate(_a(list, "an array")(path, value)):
        place = f"{path}[{number}]"
        _object(function, required=("type", "name"))(place, tool)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool["name"]):
            raise _wrong(f"{place}.name", "letters, digits, _ and -, at most 64")
    return value


def _tool_choice(path: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _object({"type": _one_of("function"), "name": _string}, required=("type", "name"))(path, value)
    return _one_of("auto", "none", "required")(path, value)


def _modalities(path: str, value: Any) -> Any:
    if value not in (["audio"], ["text"]):
        raise _wrong(path, "['audio'] or ['text']")
    return value


def _metadata(path: str, value: Any) -> Any:
    pairs = _a(dict, "an object")(path, value)
    if len(pairs) > 16 or not all(isinstance(text, str) and len(name) <= 64 and len(text) <= 512 for name, text in pairs.items()):
        raise _wrong(path, "at most 16 pairs, keys of 64 and values of 512 characters")
    return value


_TRANSCRIPTION = _object(
    {
        "model": _string,
        "language": _string,
        "languages": _a(list, "an array"),
        "keywords": _a(list, "an array"),
        "prompt": _string,
        "delay": _string,
    }
)
_TOKENS = _either(_one_of("inf"), _between(1, 4_096))
_OUTPUT: dict[str, Any] = {"format": _format, "voice": _voice}
_SESSION: dict[str, Any] = {
    "type": _one_of("realtime"),
    "model": _string,
    "output_modalities": _modalities,
    "instructions": _string,
    "audio": {
        "input": {
            "format": _format,
            "noise_reduction": _or_none(
                _object({"type": _one_of("near_field", "far_field"), "strength": _between(0, 1, whole=False)})
            ),
            "transcription": _or_none(_TRANSCRIPTION),
            "turn_detection": _turn_detection,
        },
        "output": _OUTPUT | {"speed": _between(0.25, 1.5, whole=False)},
    },
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _flag,
    "reasoning": _object({"effort": _one_of("minimal", "low", "medium", "high", "xhigh")}),
    "max_output_tokens": _TOKENS,
    "truncation": _either(_one_of("auto", "disabled"), _a(dict, "an object")),
    "tracing": _or_none(_either(_one_of("auto"), _a(dict, "an object"))),
    "prompt": _or_none(_a(dict, "an object")),
    "include": _or_none(_a(list, "an array")),
}
_RESPONSE: dict[str, Any] = {
    "audio": {"output": _OUTPUT},
    "conversation": _one_of("auto", "none"),
    "input": _a(list, "an array"),
    "instructions": _string,
    "max_output_tokens": _TOKENS,
    "metadata": _or_none(_metadata),
    "output_modalities": _modalities,
    "parallel_tool_calls": _flag,
    "prompt": _or_none(_anything),
    "reasoning": _object({"effort": _one_of("minimal", "low", "medium", "high", "xhigh")}),
    "tool_choice": _tool_choice,
    "tools": _tools,
}
