"""What the model is told that it may send: flat schemas, closed objects, nothing about who somebody is."""

from enum import StrEnum
from typing import Literal

import pytest
from pydantic import Field

from app.errors import OurFault, ToolRefused
from app.tools.arguments import Arguments, check, schema_of
from app.tools.business import business_tools


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Tree(Arguments):
    title: str = Field(min_length=1, max_length=9, pattern="^[a-z]+$", description="Its name.")
    size: Size = Size.SMALL


class Order(Arguments):
    """What is ordered."""

    trees: list[Tree] = Field(min_length=1, max_length=3)
    first: Tree | None = None
    when: str | None = Field(default=None, max_length=5, description="When.")
    how: Literal["fast", "slow"] | None = None
    heavy: bool = False
    boxes: int = Field(default=1, ge=1, le=9)


TREE = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[a-z]+$", "description": "Its name."},
        "size": {"type": "string", "enum": ["small", "large"]},
    },
    "required": ["title"],
    "additionalProperties": False,
}


def test_a_schema_is_flat_and_every_object_in_it_is_closed():
    assert schema_of(Order) == {
        "description": "What is ordered.",
        "type": "object",
        "properties": {
            "trees": {"type": "array", "items": TREE, "minItems": 1, "maxItems": 3},
            "first": {**TREE, "type": ["object", "null"]},
            "when": {"type": ["string", "null"], "maxLength": 5, "description": "When."},
            "how": {"anyOf": [{"type": "string", "enum": ["fast", "slow"]}, {"type": "null"}]},
            "heavy": {"type": "boolean"},
            "boxes": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["trees"],
        "additionalProperties": False,
    }


class Nest(Arguments):
    inside: "list[Nest]"


class Loose(Arguments):
    anything: dict[str, str]


@pytest.mark.parametrize("model", [Nest, Loose])
def test_what_no_flat_closed_schema_can_say_is_our_fault(model):
    with pytest.raises(OurFault):
        schema_of(model)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"trees": [{"title": "oak"}, {"title": "Oak"}]}', "trees.1.title has the wrong form."),
        ('{"trees": [{"title": "a", "size": "huge"}]}', "trees.0.size must be 'small' or 'large'."),
        ('{"trees": [{"title": "a"}], "how": "soon"}', "how must be 'fast' or 'slow'."),
        ('{"trees": [], "boxes": 0}', "trees must have at least 1 entries. boxes must be at least 1."),
        ('{"trees": [{"title": "a"}], "boxes": 10}', "boxes must be at most 9."),
        ('{"trees": [{"title": ""}]}', "trees.0.title must have at least 1 character(s)."),
        ('{"trees": {}}', "trees must be an array."),
        ('{"trees": ["oak"]}', "trees.0 must be an object."),
        ('{"trees": [{"title": "a"}], "heavy": "yes"}', "heavy must be true or false."),
        ('{"trees": [{"title": "a"},{"title": "a"},{"title": "a"},{"title": "a"}]}', "trees must have at most 3 entries."),
    ],
)
def test_a_fault_is_named_by_its_place_and_what_would_be_right(text, sentence):
    with pytest.raises(ToolRefused) as caught:
        check(Order, text)
    assert str(caught.value) == sentence


def test_what_fits_is_understood_as_it_was_meant():
    order = check(Order, '{"trees": [{"title": " oak ", "size": "large"}], "when": null, "how": "fast"}')
    assert order == Order(trees=[Tree(title="oak", size=Size.LARGE)], how="fast")


def test_no_argument_of_a_shipped_tool_says_who_somebody_is():
    for tool in business_tools(None, clock=None, zone=None):
        for name in tool.spec.parameters["properties"]:
            assert not {"name", "number", "phone", "customer", "caller", "id", "email"} & set(name.split("_")), tool.name


def test_every_text_that_a_shipped_tool_takes_is_bounded_and_described():
    for tool in business_tools(None, clock=None, zone=None):
        for schema in tool.spec.parameters["properties"].values():
            assert schema["maxLength"] <= 1_000
            assert schema["description"]
