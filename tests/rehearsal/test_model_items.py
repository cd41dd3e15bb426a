"""The items of a session and their truncation: the contract of OpenAI's Realtime documentation, points 7, 9 and 10."""

import base64

import pytest

from app.rehearsal import ulaw
from app.rehearsal.voice import say
from tests.rehearsal.model_house import Line, message


def speech(text):
    return ulaw.to_ulaw(say(text, voice="klatt5", rate=8_000, words_per_minute=150))


@pytest.fixture
def line(recognisers):
    return Line(recognisers)


def agent_says(line):
    line.send(
        "response.create", response={"instructions": 'Say: "Hello, this is a sentence of some length, so that it takes a while."'}
    )


# ---- making them


def test_items_are_put_where_they_belong(line):
    line.open()
    line.send("conversation.item.create", item={"id": "second", **message("user", "two")})
    line.send("conversation.item.create", item={"id": "first", **message("system", "one")}, previous_item_id="root")
    line.send("conversation.item.create", item={"id": "middle", **message("assistant", "one and a half")}, previous_item_id="first")
    assert [event["previous_item_id"] for event in line.of("conversation.item.added")] == [None, None, "first"]
    assert [event["type"] for event in line.events[-2:]] == ["conversation.item.added", "conversation.item.done"]
    line.send("conversation.item.retrieve", item_id="middle")
    assert line.events[-1]["item"]["content"] == [{"type": "output_text", "text": "one and a half"}]
    line.send("conversation.item.delete", item_id="first")
    line.send("conversation.item.create", item={"id": "last", **message("user", "three")})
    assert line.of("conversation.item.added")[-1]["previous_item_id"] == "second"


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({"id": "x" * 33, **message("user", "a")}, "string_above_max_length", "item.id"),
        ({"type": "function_call_output", "call_id": "nobody", "output": "{}"}, "invalid_tool_call_id", "item.call_id"),
        ({"type": "function_call", "call_id": "y" * 33, "name": "a", "arguments": "{}"}, "string_above_max_length", "item.call_id"),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "a"}]},
            "missing_required_parameter",
            "item.content[0].text",
        ),
        ({"type": "message", "role": "user", "content": [{"type": "text", "text": "a"}]}, "invalid_value", "item.content[0].type"),
        ({"type": "message", "role": "robot", "content": [{"type": "input_text", "text": "a"}]}, "invalid_value", "item.role"),
        ({"type": "message", "role": "user", "content": []}, "missing_required_parameter", "item.content"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text"}]},
            "missing_required_parameter",
            "item.content[0].text",
        ),
        ({"type": "poem"}, "invalid_value", "item.type"),
        ({**message("user", "a"), "colour": "red"}, "unknown_parameter", "item.colour"),
    ],
)
def test_an_item_with_a_fault_is_refused(line, item, code, param):
    line.open()
    event_id = line.send("conversation.item.create", checked=False, item=item)
    assert line.events[-1]["error"] | {"message": ""} == {
        "type": "invalid_request_error",
        "code": code,
        "param": param,
        "event_id": event_id,
        "message": "",
    }
    assert "conversation.item.added" not in line.kinds


def test_an_id_stands_once_and_an_unknown_place_is_refused(line):
    line.open()
    line.send("conversation.item.create", item={"id": "one", **message("user", "a")})
    line.send("conversation.item.create", item={"id": "one", **message("user", "b")})
    line.send("conversation.item.create", item=message("user", "b"), previous_item_id="nowhere")
    for kind in ("delete", "retrieve"):
        line.send(f"conversation.item.{kind}", item_id="nowhere")
    line.send("conversation.item.truncate", item_id="nowhere", content_index=0, audio_end_ms=0)
    assert line.errors == ["invalid_value"] * 5


def test_an_item_of_audio_is_heard(line):
    line.open()
    sound = base64.b64encode(ulaw.SILENCE * 1_600 + speech("oh, sorry, i have the wrong number") + ulaw.SILENCE * 1_600).decode()
    line.send(
        "conversation.item.create", item={"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": sound}]}
    )
    line.send("response.create")
    line.run(3_000)
    assert [item.get("name") for item in line.of("response.done")[0]["response"]["output"]][-1] == "end_call"


# ---- truncation


def spoken_item(line):
    return line.of("response.output_item.added")[-1]["item"]["id"]


def test_truncating_takes_away_the_sound_and_the_words_that_were_not_heard(line):
    line.open()
    agent_says(line)
    line.run(2_500)
    line.send("conversation.item.truncate", item_id=spoken_item(line), content_index=0, audio_end_ms=700)
    truncated = line.events[-1]
    assert (truncated["type"], truncated["audio_end_ms"]) == ("conversation.item.truncated", 700)
    line.send("conversation.item.retrieve", item_id=spoken_item(line))
    assert "transcript" not in line.events[-1]["item"]["content"][0]
    line.send("conversation.item.truncate", item_id=spoken_item(line), content_index=0, audio_end_ms=701)
    assert line.of("error")[-1]["error"]["message"] == "Audio content of 700 ms is already shorter than 701 ms"


def test_truncating_past_the_end_or_where_there_is_no_audio_is_refused_with_the_known_texts(line):
    line.open()
    agent_says(line)
    line.run(2_500)
    length = int(len(line.audio()) / 8)
    line.send("conversation.item.truncate", item_id=spoken_item(line), content_index=0, audio_end_ms=length + 1)
    assert line.of("error")[-1]["error"]["message"] == f"Audio content of {length} ms is already shorter than {length + 1} ms"
    line.send("conversation.item.create", item={"id": "text", **message("assistant", "hello")})
    line.send("conversation.item.truncate", item_id="text", content_index=0, audio_end_ms=0)
    assert line.of("error")[-1]["error"]["code"] == "unsupported_content_type"
    assert line.of("error")[-1]["error"]["message"].startswith("Only model output audio messages can be truncated")
    line.send("conversation.item.truncate", item_id=spoken_item(line), content_index=0, audio_end_ms=length)
    assert line.events[-1]["type"] == "conversation.item.truncated"


def test_truncating_while_it_is_still_spoken_goes_by_what_was_sent(line):
    line.open()
    agent_says(line)
    line.run(200)
    sent = int(len(line.audio()) / 8)
    line.send("response.cancel")
    line.send("conversation.item.truncate", item_id=spoken_item(line), content_index=0, audio_end_ms=sent + 50)
    line.send("conversation.item.truncate", item_id=spoken_item(line), content_index=0, audio_end_ms=sent)
    assert [event["type"] for event in line.events[-2:]] == ["error", "conversation.item.truncated"]
