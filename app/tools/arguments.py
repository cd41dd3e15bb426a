"""What the model may send: the base class of all arguments, their JSON Schema, and the check, which names every fault at once.

Rule 1: nothing the model sent is repeated in a refusal, not even a field's name that we do not know: it may be what a caller said.
Rule 2: a schema is flat: no `$ref`, no title, every object closed. The Realtime API checks nothing for us.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from app.errors import OurFault, ToolRefused

LONGEST_ARGUMENTS = 16_000
"""Characters of JSON text."""
KINDS = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}
"""What pydantic misses, in the words of JSON."""


class Arguments(BaseModel):
    """What the model may choose. Closed, strict, and bounded even where a field forgot to say so."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, str_strip_whitespace=True, str_max_length=2_000, hide_input_in_errors=True,
        allow_inf_nan=False,
    )  # fmt: skip


def schema_of(model: type[Arguments]) -> dict[str, Any]:
    """The flat JSON Schema of some arguments (rule 2).

    Raises:
        OurFault: it cannot be flat (it contains itself), or an object in it is open.
    """
    full = model.model_json_schema()
    schema = _flat(full, full.get("$defs", {}), ())
    assert isinstance(schema, dict)
    schema.setdefault("required", [])
    return schema


def _flat(part: Any, definitions: dict[str, Any], inside: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_flat(item, definitions, inside) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        name = str(part["$ref"]).rsplit("/", 1)[-1]
        if name in inside:
            raise OurFault(f"the arguments {name} contain themselves, and no schema without references can say that")
        return _flat({**definitions[name], **{key: part[key] for key in part if key != "$ref"}}, definitions, (*inside, name))
    flat = {
        key: _flat(value, definitions, inside)
        for key, value in part.items()
        if key not in ("$defs", "title", "default", "properties")
    }
    if part.get("type") == "object":
        if part.get("additionalProperties") is not False:
            raise OurFault("an object in a tool's arguments takes any field: derive it from Arguments")
        flat["properties"] = {name: _flat(value, definitions, inside) for name, value in part.get("properties", {}).items()}
    return _without_choice_of_null(flat)


def _without_choice_of_null(part: dict[str, Any]) -> dict[str, Any]:
    """`anyOf` a plain type and null is one type that may be null."""
    choices = part.get("anyOf", [])
    others = [choice for choice in choices if choice != {"type": "null"}]
    if len(choices) != 2 or len(others) != 1 or not isinstance(others[0].get("type"), str) or "enum" in others[0]:
        return part
    rest = {key: value for key, value in part.items() if key != "anyOf"}
    return {**others[0], **rest, "type": [others[0]["type"], "null"]}


def check[A: Arguments](model: type[A], text: str) -> A:
    """The arguments, checked.

    Raises:
        ToolRefused: they are no JSON object or do not fit; the sentence names every fault and repeats no value.
    """
    if len(text) > LONGEST_ARGUMENTS:
        raise ToolRefused(f"The arguments are too long: at most {LONGEST_ARGUMENTS:,} characters.")
    try:
        return model.model_validate_json(text.strip() or "{}")
    except ValidationError as faults:
        found = faults.errors(include_url=False, include_input=False, include_context=True)
    known = _names(model)
    raise ToolRefused(" ".join(dict.fromkeys(_sentence(fault, known, model) for fault in found))) from None


def _names(model: type[Arguments]) -> set[str]:
    """Every name of a field in the schema: the only words of a fault's place that are ours."""
    names: set[str] = set()
    parts: list[Any] = [schema_of(model)]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            names |= set(part.get("properties", {}))
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return names


def _sentence(fault: ErrorDetails, known: set[str], model: type[Arguments]) -> str:
    where = ".".join(str(step) for step in fault["loc"] if isinstance(step, int) or step in known) or "The arguments"
    bounds = fault.get("ctx", {})
    match fault["type"]:
        case "json_invalid" | "string_unicode":
            return "The arguments are not valid JSON."
        case "extra_forbidden":
            fields = ", ".join(model.model_fields) or "none"
            return f"There is a field that this tool does not have. Its fields: {fields}."
        case "missing":
            return f"{where} is missing."
        case "string_too_long":
            return f"{where} must have at most {bounds['max_length']} characters."
        case "string_too_short":
            return f"{where} must have at least {bounds['min_length']} character(s)."
        case "too_long":
            return f"{where} must have at most {bounds['max_length']} entries."
        case "too_short":
            return f"{where} must have at least {bounds['min_length']} entries."
        case "greater_than_equal":
            return f"{where} must be at least {bounds['ge']}."
        case "less_than_equal":
            return f"{where} must be at most {bounds['le']}."
        case "literal_error" | "enum":
            return f"{where} must be {bounds['expected']}."
        case "string_pattern_mismatch":
            return f"{where} has the wrong form."
        case kind if kind in KINDS:
            return f"{where} must be {KINDS[kind]}."
        case _:
            return f"{where} cannot be understood."
