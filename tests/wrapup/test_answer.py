"""The schema that a model is held to, and the reading of what it answers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai.lib._pydantic import to_strict_json_schema

from app.wrapup import answer
from app.wrapup.facts import Field
from app.wrapup.faults import AnswerUnreadable
from tests.wrapup.provider import judged, whole
from tests.wrapup.scenery import LISTS, talk

SHAPE = answer.shape(LISTS)
SCHEMA = answer.schema(SHAPE)
CALL = talk("agent: Hello!", "caller: I'd like a pond, ten metres long.")


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from parts(part)


def proposals(said: dict[str, Any] | str) -> list[Any]:
    text = said if isinstance(said, str) else json.dumps(said)
    return answer.proposals(text, SHAPE, CALL, LISTS, analyzer="test", model="m", prompt_version="p-1")


def test_the_schema_keeps_the_rules_of_strict_schemas():
    # OpenAI's guide to structured outputs.
    assert SCHEMA["type"] == "object" and "anyOf" not in SCHEMA
    for part in parts(SCHEMA):
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])
        assert not {"allOf", "not", "if", "then", "else", "default", "minimum", "maximum"} & set(part)
        assert set(part) == {"$ref"} or "$ref" not in part
    assert sum(len(part.get("properties", {})) for part in parts(SCHEMA)) <= 5_000
    assert sum(len(part.get("enum", [])) for part in parts(SCHEMA)) <= 1_000


def test_the_schema_is_what_the_providers_own_package_makes_of_the_shape():
    assert answer._untitled(to_strict_json_schema(SHAPE)) == SCHEMA


def test_the_lists_of_the_business_stand_in_the_schema():
    lists = [tuple(part["enum"]) for part in parts(SCHEMA) if "enum" in part]
    assert LISTS.dispositions in lists and LISTS.intents in lists
    assert tuple(criterion.name for criterion in LISTS.rubric.criteria) in lists


def test_evidence_stands_before_the_value_that_rests_on_it():
    for part in parts(SCHEMA):
        keys = list(part.get("properties", {}))
        if "value" in keys:
            assert keys.index("lines") < keys.index("value")


def test_numbers_of_lines_become_keys_of_utterances():
    found = proposals(whole(intent=judged("buy", 2, 77, -1)))
    intent = next(judgement for judgement in found if judgement.field is Field.INTENT)
    assert (intent.value, intent.evidence) == ("buy", ("u2",))
    assert (intent.analyzer, intent.model, intent.prompt_version) == ("test", "m", "p-1")


def test_a_field_is_proposed_for_every_column():
    assert {judgement.field for judgement in proposals(whole())} == set(Field)


def test_the_score_is_counted_from_the_criteria_and_says_by_which_rubric():
    lead = {"reasons": [{"lines": [2], "because": "a pond", "criterion": "wants_work"}], "confidence": 1}
    score = next(judgement for judgement in proposals(whole(lead=lead)) if judgement.field is Field.LEAD_SCORE)
    assert score.value == 25
    assert score.prompt_version == f"p-1+{LISTS.rubric.version}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", '"fine"', "I can't help with that.", json.dumps(whole())[:-20]),
        json.dumps({key: value for key, value in whole().items() if key != "intent"}),
        json.dumps(whole(intent={"lines": ["2"], "value": "buy", "confidence": 1})),
        json.dumps(whole(intent={"lines": [2], "value": ["buy"], "confidence": 1})),
        json.dumps(whole(escalation={"concerns": [], "lines": [], "value": "no", "confidence": 1})),
    ],
)
def test_what_is_no_answer_of_our_shape_is_a_fault_that_may_be_tried_again(text: str):
    with pytest.raises(AnswerUnreadable) as caught:
        proposals(text)
    assert caught.value.retryable
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_keys_that_nobody_asked_for_are_not_read():
    found = proposals({**whole(), "lead_score": 100, "vip": True})
    assert next(judgement for judgement in found if judgement.field is Field.LEAD_SCORE).value is None
