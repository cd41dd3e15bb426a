"""The controls' schemas are a contract: the machine and the pretend model rely on them word by word."""

from app.agents.controls import CONTROLS, controls
from app.call.agent import SlotSpec, ToolKind


def given(**changed):
    settings = {
        "slots": [SlotSpec(name="name"), SlotSpec(name="reason")],
        "hands_off_to": ["sales"],
        "directory": {"manager": "+15550100001"},
        "dispositions": ("sold", "other"),
        "intents": ("buy",),
    }
    return {tool.name: tool for tool in controls(**{**settings, **changed})}


def shape(tool):
    """The schema without the descriptions, each of which must be there."""
    properties = {}
    for name, schema in tool.parameters["properties"].items():
        assert schema["description"]
        properties[name] = {key: value for key, value in schema.items() if key != "description"}
    return {**tool.parameters, "properties": properties}


TEXT = {"type": "string"}


def closed(properties, required):
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def test_the_five_controls_have_exactly_these_schemas():
    tools = given()
    assert tuple(tools) == CONTROLS
    assert all(tool.kind is ToolKind.CONTROL and tool.description for tool in tools.values())
    assert shape(tools["note_slot"]) == closed(
        {"slot": {"type": "string", "enum": ["name", "reason"]}, "value": TEXT, "confirmed": {"type": "boolean"}},
        ["slot", "value", "confirmed"],
    )
    assert shape(tools["hand_off"]) == closed({"to": {"type": "string", "enum": ["sales"]}, "reason": TEXT}, ["to", "reason"])
    assert shape(tools["transfer_to_human"]) == closed(
        {"to": {"type": "string", "enum": ["manager"]}, "reason": TEXT}, ["to", "reason"]
    )
    assert shape(tools["end_call"]) == closed(
        {
            "disposition": {"type": "string", "enum": ["sold", "other"]},
            "intent": {"type": "string", "enum": ["buy"]},
            "summary": TEXT,
            "next_action": TEXT,
        },
        ["disposition", "summary"],
    )
    assert shape(tools["wait_for_caller"]) == closed({}, [])


def test_no_number_of_the_directory_reaches_the_model():
    assert "5550100001" not in str(given())


def test_a_control_that_has_nothing_to_choose_from_is_left_out():
    assert "note_slot" not in given(slots=[])
    assert "hand_off" not in given(hands_off_to=[])
    assert "transfer_to_human" not in given(directory={})
    assert set(given(slots=[], hands_off_to=[], directory={})) == {"end_call", "wait_for_caller"}
