"""One session without a socket: the contract of OpenAI's Realtime documentation Every event both ways is held against the types."""

import base64
import json

import numpy as np
import pytest

from app.rehearsal import ulaw
from app.rehearsal.voice import say
from tests.rehearsal.contract import valid_client_event, valid_server_event
from tests.rehearsal.model_house import Line, message

TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]


def speech(text, voice="klatt5"):
    return ulaw.to_ulaw(say(text, voice=voice, rate=8_000, words_per_minute=150))


def length_ms(text, voice="klatt5"):
    return -(-len(speech(text, voice)) // 160) * 20


@pytest.fixture
def line(recognisers):
    return Line(recognisers)


def caller_says(line, text, *, then_ms=900):
    line.run(length_ms(text), speech(text))
    line.run(then_ms)


def agent_says(line, sentence="Hello, this is a sentence of some length, so that it takes a while.", **response):
    line.send("response.create", response={"instructions": f'Say: "{sentence}"', **response})


# ---- the validators themselves


def test_the_contract_knows_what_is_missing_what_is_too_much_and_what_nobody_says():
    good = {"type": "input_audio_buffer.cleared", "event_id": "event_1"}
    assert valid_server_event(good)
    assert not valid_server_event({"type": "input_audio_buffer.cleared"})
    assert not valid_server_event(good | {"colour": "red"})
    assert not valid_server_event({"type": "input_audio_buffer.danced", "event_id": "event_1"})
    assert not valid_server_event(
        {"type": "conversation.item.truncated", "event_id": "e", "item_id": "i", "content_index": "0", "audio_end_ms": 5}
    )
    assert valid_client_event({"type": "response.cancel"})
    assert not valid_client_event({"type": "conversation.item.truncate", "item_id": "i", "content_index": 0})
    assert not valid_client_event(good)


# ---- the session


def test_the_first_event_is_the_session_with_its_defaults(line):
    line.session.start()
    first = line.events[0]
    assert first["type"] == "session.created"
    assert first["session"]["expires_at"] == 1_760_003_600
    assert first["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert first["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert "rehearsal" in first["session"]["model"]


def test_an_update_changes_what_it_says_and_nothing_else(line):
    line.session.start()
    before = line.events[0]["session"]
    line.send("session.update", session={"type": "realtime", "instructions": "Be brief.", "audio": {"output": {"voice": "cedar"}}})
    after = line.events[-1]["session"]
    assert line.events[-1]["type"] == "session.updated"
    assert (after["instructions"], after["audio"]["output"]["voice"]) == ("Be brief.", "cedar")
    before["instructions"], before["audio"]["output"]["voice"] = "Be brief.", "cedar"
    assert after == before


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"instructions": "x"}, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "voice": "alloy"}, "unknown_parameter", "session.voice"),
        ({"type": "realtime", "input_audio_format": "g711_ulaw"}, "unknown_parameter", "session.input_audio_format"),
        ({"type": "realtime", "temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"type": "realtime", "audio": {"input": {"formats": {}}}}, "unknown_parameter", "session.audio.input.formats"),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/opus"}}}},
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu", "rate": 24_000}}}},
            "unknown_parameter",
            "session.audio.input.format.rate",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "invalid_value",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 100}}}},
            "invalid_value",
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
        ({"type": "realtime", "output_modalities": ["audio", "text"]}, "invalid_value", "session.output_modalities"),
        ({"type": "realtime", "audio": {"output": {"voice": "fable"}}}, "invalid_value", "session.audio.output.voice"),
        ({"type": "realtime", "audio": {"output": {"speed": 3.0}}}, "invalid_value", "session.audio.output.speed"),
        ({"type": "realtime", "tools": [{"type": "function", "name": "a b"}]}, "invalid_value", "session.tools[0].name"),
        (
            {"type": "realtime", "tools": [{"type": "function", "name": "ab", "strict": True}]},
            "unknown_parameter",
            "session.tools[0].strict",
        ),
        ({"type": "realtime", "model": "gpt-4o"}, "invalid_value", "session.model"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
    ],
)
def test_an_update_with_a_fault_is_refused_whole(line, session, code, param):
    line.session.start()
    event_id = line.send("session.update", checked=False, session={"instructions": "changed", **session})
    error = line.events[-1]["error"]
    assert (error["code"], error["param"], error["event_id"]) == (code, param, event_id)
    line.send("session.update", session={"type": "realtime"})
    assert line.events[-1]["session"] == line.events[0]["session"]


def test_null_takes_away_and_an_empty_list_empties(line):
    line.open()
    line.send(
        "session.update",
        checked=False,
        session={"type": "realtime", "tools": [], "audio": {"input": {"turn_detection": None, "transcription": None}}},
    )
    session = line.events[-1]["session"]
    assert session["tools"] == [] and session["audio"]["input"]["turn_detection"] is None
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}


def test_the_voice_is_locked_once_the_agent_has_spoken(line):
    line.open()
    voice = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    agent_says(line)
    line.run(3_000)
    line.send("session.update", session=voice)
    assert line.errors == ["cannot_update_voice"]
    line.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": "marin"}}})
    assert line.events[-1]["type"] == "session.updated"
    line.send("response.create", response={"audio": {"output": {"voice": "cedar"}}})
    assert line.errors == ["cannot_update_voice"] * 2


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "session.dance"}, "invalid_value", "type"),
        ({"no": "type"}, "missing_required_parameter", "type"),
        (None, "missing_required_parameter", "type"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "%%"}, "invalid_value", "audio"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "response.create", "response": {"modalities": ["audio"]}}, "unknown_parameter", "response.modalities"),
        ({"type": "response.create", "response": {"conversation": "other"}}, "invalid_value", "response.conversation"),
        ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
    ],
)
def test_nonsense_is_answered_and_survived(line, event, code, param):
    line.session.start()
    line.session.feed(event)
    assert (line.events[-1]["error"]["code"], line.events[-1]["error"]["param"]) == (code, param)
    line.send("session.update", session={"type": "realtime"})
    assert line.events[-1]["type"] == "session.updated"


def test_after_an_hour_the_session_expires(line):
    line.open()
    line.clock.advance(3_599)
    assert line.closed is None
    line.clock.advance(2)
    assert line.errors == ["session_expired"]
    assert line.closed == (1001, "Your session hit the maximum duration of 60 minutes")


# ---- turns


def test_a_turn_comes_in_order_and_its_transcript_apart(line):
    line.open()
    line.run(500)
    caller_says(line, "hello, i would like to book an appointment please", then_ms=540)
    turn = [event for event in line.events if event["type"] in TURN]
    assert [event["type"] for event in turn] == TURN
    started, stopped, committed, added, done = turn
    assert started["item_id"] == stopped["item_id"] == committed["item_id"] == added["item"]["id"] == done["item"]["id"]
    assert committed["previous_item_id"] is None
    assert 0 <= started["audio_start_ms"] < stopped["audio_end_ms"]
    assert "conversation.item.input_audio_transcription.completed" not in line.kinds
    line.run(400)
    transcript = line.of("conversation.item.input_audio_transcription.completed")[0]
    assert transcript["transcript"] == "Hello i would like to book an appointment please"
    assert transcript["usage"]["seconds"] == pytest.approx((stopped["audio_end_ms"] - started["audio_start_ms"]) / 1_000, abs=0.06)


def test_without_a_transcription_model_there_is_no_transcript(line):
    line.open()
    line.send("session.update", checked=False, session={"type": "realtime", "audio": {"input": {"transcription": None}}})
    caller_says(line, "yes please")
    assert not [kind for kind in line.kinds if "transcription" in kind]


@pytest.mark.parametrize("creates", [False, True])
@pytest.mark.parametrize("interrupts", [False, True])
def test_both_flags_are_obeyed_in_all_four_combinations(line, creates, interrupts):
    line.open(create_response=creates, interrupt_response=interrupts)
    agent_says(line, "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen. " * 3)
    line.run(100)
    assert line.kinds.count("response.created") == 1 and "response.done" not in line.kinds
    line.run(length_ms("yes please"), speech("yes please"))
    assert "input_audio_buffer.speech_started" in line.kinds
    done = line.of("response.done")
    if interrupts:
        assert [event["response"]["status"] for event in done] == ["cancelled"]
        assert done[0]["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert line.kinds.index("response.done") > line.kinds.index("input_audio_buffer.speech_started")
    else:
        assert done == []
    line.run(900)
    if creates and interrupts:
        assert line.kinds.count("response.created") == 2
    elif creates:
        assert line.errors == ["conversation_already_has_active_response"]
    else:
        assert line.kinds.count("response.created") == 1 and line.errors == []
    line.run(12_000)
    assert len(line.of("response.done")) == line.kinds.count("response.created")


def test_without_turn_detection_the_client_commits(line):
    line.open()
    line.send("session.update", checked=False, session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    line.send("input_audio_buffer.commit")
    assert line.errors == ["input_audio_buffer_commit_empty"]
    caller_says(line, "i would like to leave a message please", then_ms=200)
    assert not set(TURN) & set(line.kinds)
    line.send("input_audio_buffer.commit")
    line.run(400)
    assert "response.created" not in line.kinds
    assert (
        line.of("conversation.item.input_audio_transcription.completed")[0]["transcript"]
        == "I would like to leave a message please"
    )
    line.send("input_audio_buffer.commit")
    line.run(60)
    assert line.kinds.count("input_audio_buffer.committed") == 2, "400 ms of silence are a buffer too"


def test_cleared_audio_is_never_heard(line):
    line.open()
    line.run(length_ms("yes please"), speech("yes please"))
    line.send("input_audio_buffer.clear")
    line.run(1_500)
    assert "input_audio_buffer.cleared" in line.kinds and "input_audio_buffer.committed" not in line.kinds


def test_idle_time_ends_in_a_silent_item_and_an_ordinary_response(line):
    line.open(idle_timeout_ms=5_000, create_response=True)
    agent_says(line, "How can I help you?")
    line.run(5_000)
    assert "input_audio_buffer.timeout_triggered" not in line.kinds
    line.run(2_500)
    tail = line.kinds[line.kinds.index("input_audio_buffer.timeout_triggered") :]
    assert tail[1:4] == TURN[2:]
    assert "response.created" in tail


# ---- responses


def test_a_response_comes_in_order_and_faster_than_it_plays(line):
    line.open()
    text = "Hello, this is a sentence of some length, so that it takes a while."
    agent_says(line, text)
    line.run(2_000)
    kinds = [kind for kind in line.kinds if kind.startswith(("response", "rate_limits", "conversation.item"))]
    edges = [kind for kind in kinds if not kind.endswith("delta")]
    assert edges == [
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert kinds[-1] == "response.done"
    deltas = line.of("response.output_audio.delta")
    sizes = [len(base64.b64decode(delta["delta"])) for delta in deltas]
    assert len(deltas) > 10 and all(100 * 8 <= size <= 200 * 8 for size in sizes[:-1])
    assert sum(sizes) > 3_000 * 8, "it plays longer than it took"
    words = "".join(event["delta"] for event in line.of("response.output_audio_transcript.delta"))
    assert words == text == line.of("response.output_audio_transcript.done")[0]["transcript"]
    first_words = line.kinds.index("response.output_audio_transcript.delta")
    assert first_words < line.kinds.index("response.output_audio.delta"), "words run ahead of their sound"
    assert np.abs(ulaw.to_linear(line.audio()).astype(int)).max() > 5_000


def test_audio_of_either_format_is_the_same_speech(recognisers):
    lengths = []
    for wide in (False, True):
        line = Line(recognisers, wide=wide)
        line.open()
        agent_says(line, "Hello, this is a test.")
        line.run(3_000)
        lengths.append(len(line.audio()) / (48 if wide else 8))
    assert lengths[0] == pytest.approx(lengths[1], abs=2)


def test_formats_of_both_directions_are_independent(line):
    line.open()
    line.send(
        "session.update", session={"type": "realtime", "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24_000}}}}
    )
    agent_says(line, "Hello.")
    line.run(2_000)
    assert len(line.audio()) > 8 * 3 * 2 * 8 * 10
    caller_says(line, "yes please")
    assert "input_audio_buffer.committed" in line.kinds


def test_tokens_are_counted_by_time(line):
    line.open()
    caller_says(line, "hello, i would like to book an appointment please")
    agent_says(line, "Hello, this is a sentence of some length.")
    line.run(2_500)
    usage = line.of("response.done")[0]["response"]["usage"]
    heard_ms = line.told[[event["event"] for event in line.told].index("heard")]["ms"]
    assert usage["input_token_details"]["audio_tokens"] == -(-heard_ms // 100)
    assert usage["output_token_details"]["audio_tokens"] == -(-int(len(line.audio()) / 8) // 50)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == sum(usage["input_token_details"][name] for name in ("text_tokens", "audio_tokens"))
    agent_says(line, "And another one.")
    line.run(2_500)
    again = line.of("response.done")[1]["response"]["usage"]["input_token_details"]
    assert again["cached_tokens"] == usage["input_tokens"] <= again["text_tokens"] + again["audio_tokens"]


def test_one_response_at_a_time_writes_to_the_conversation_and_others_beside_it(line):
    line.open()
    agent_says(line)
    agent_says(line)
    assert line.errors == ["conversation_already_has_active_response"]
    running = line.of("response.created")[0]["response"]["id"]
    assert running in line.of("error")[0]["error"]["message"]
    aside = {
        "conversation": "none",
        "output_modalities": ["text"],
        "metadata": {"topic": "mood"},
        "input": [message("user", "hello")],
    }
    agent_says(line, "It is calm.", **aside)
    line.run(3_000)
    done = {event["response"]["id"]: event["response"] for event in line.of("response.done")}
    beside = next(response for response in done.values() if response["metadata"])
    assert len(done) == 2 and beside["conversation_id"] is None and beside["metadata"] == {"topic": "mood"}
    assert beside["output"][0]["content"] == [{"type": "output_text", "text": "It is calm."}]
    assert beside["output"][0]["id"] not in {event["item"]["id"] for event in line.of("conversation.item.added")}


def test_a_cancelled_response_ends_with_everything_it_began(line):
    line.open()
    agent_says(line)
    line.run(200)
    line.send("response.cancel", response_id=line.of("response.created")[0]["response"]["id"])
    response = line.of("response.done")[0]["response"]
    assert (response["status"], response["status_details"]["reason"]) == ("cancelled", "client_cancelled")
    assert response["output"][0]["status"] == "incomplete"
    for kind in ("response.output_audio.done", "response.content_part.done", "response.output_item.done", "conversation.item.done"):
        assert kind in line.kinds
    count = len(line.events)
    line.run(2_000)
    assert len(line.events) == count
    line.send("response.cancel")
    assert line.errors == ["response_cancel_not_active"]


def test_a_response_that_speaks_and_calls_says_which_part_is_what(line):
    line.open()
    line.send("conversation.item.create", item=message("user", "i would like to book an appointment for the garden on tuesday"))
    line.send("response.create")
    line.run(3_000)
    response = line.of("response.done")[0]["response"]
    assert [item["type"] for item in response["output"]] == ["message"] + ["function_call"] * 4
    assert response["output"][0]["phase"] == "commentary"
    for item in response["output"][1:]:
        own = [
            event for event in line.events if event.get("item_id") == item["id"] or event.get("item", {}).get("id") == item["id"]
        ]
        assert [event["type"] for event in own if "delta" not in event["type"]] == [
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "conversation.item.done",
        ]
        deltas = "".join(event["delta"] for event in own if event["type"].endswith("arguments.delta"))
        assert deltas == item["arguments"] and json.loads(deltas) is not None
        assert item["status"] == "completed"


def test_tools_of_one_response_are_those_it_was_given(line):
    line.open()
    line.send("conversation.item.create", item=message("user", "oh sorry i have the wrong number"))
    line.send("response.create", response={"tools": []})
    line.run(3_000)
    assert {item["type"] for item in line.of("response.done")[0]["response"]["output"]} == {"message"}


def test_at_most_so_many_tokens_are_spoken(line):
    line.open()
    agent_says(line, max_output_tokens=10)
    line.run(3_000)
    response = line.of("response.done")[0]["response"]
    assert (response["status"], response["status_details"]["reason"]) == ("incomplete", "max_output_tokens")
