import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from app.audio.path import AudioPath, audio_path
from app.call import events as e
from app.call.commands import Brief, CancelSpeech, CloseModel, FinishHearing, GiveResult, Speak, StopSpeaking, TakeOver
from app.call.disposition import Usage
from app.errors import BadModelMessage
from app.realtime import messages
from app.realtime.wire import FOR_NOW, Complaint, SessionCreated, SessionUpdated, Wire
from tests.realtime.scenery import DESK, WIRE, client_event, recorded

SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
FRAME = bytes((i * 37 + 11) % 256 for i in range(160))
TOKENS = Usage(text_in=119, text_cached=60, audio_in=13, audio_cached=4, text_out=30, audio_out=91, responses=1)
ALL = sorted(path.stem for path in WIRE.glob("*.json"))


def a_wire(path: AudioPath | None = None) -> Wire:
    return Wire(path or audio_path("passthrough"), prefix_ms=300, silence_ms=500)


def audio_delta(sound: bytes, item: str = "item_a", **more: object) -> bytes:
    delta = base64.b64encode(sound).decode()
    message = {"type": "response.output_audio.delta", "response_id": "resp_1", "item_id": item, "delta": delta, **more}
    return json.dumps(message, separators=(",", ":")).encode()


def audio_done(item: str = "item_a", **more: object) -> bytes:
    return json.dumps({"type": "response.output_audio.done", "response_id": "resp_1", "item_id": item, **more}).encode()


# ---- what the server says


@pytest.mark.parametrize("path", ["passthrough", "transcode"])
def test_a_response_is_silence_until_it_sounds_and_a_voice_from_then_on(path):
    wire = a_wire(audio_path(path))
    silence, voice = (b"\xff" * 800, FRAME * 5) if path == "passthrough" else (bytes(4_800), FRAME * 30)
    said = [event for sound in (silence, silence, voice, silence) for event in wire.decode(audio_delta(sound))]
    assert [type(event) for event in said] == [e.AgentSilence, e.AgentSilence, e.AgentAudio, e.AgentAudio]
    other = wire.decode(audio_delta(silence, item="item_b").replace(b"resp_1", b"resp_2"))
    assert [type(event) for event in other] == [e.AgentSilence], "each response has to sound for itself"


@pytest.mark.parametrize("name", ALL)
def test_the_recorded_messages_are_what_the_provider_says_it_sends(name):
    message = json.loads(recorded(name))
    if name != "brand_new":
        message["event_id"] = message.get("event_id") or "event_000"  # it has been seen to be null, whatever the types say
        assert SERVER_EVENT.validate_python(message).type == message["type"]


def test_every_kind_the_provider_knows_is_read_or_knowingly_skipped():
    kinds = {option.model_fields["type"].annotation.__args__[0] for option in RealtimeServerEvent.__origin__.__args__}
    read = set(a_wire()._readers)
    assert kinds - read - messages.UNUSED == set()
    assert read & messages.UNUSED == set()
    assert {json.loads(recorded(name))["type"] for name in ALL} >= read, "one recorded message of every kind that is read"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("committed", [e.CallerTurnCommitted("item_caller_1")]),
        (
            "transcription_completed_seconds",
            [e.CallerTranscribed("item_caller_1", "I need a plumber on Tuesday — café Söhne.", Usage(transcription_seconds=2.5))],
        ),
        (
            "transcription_completed_tokens",
            [e.CallerTranscribed("item_caller_2", "Yes.", Usage(transcription_tokens_in=17, transcription_tokens_out=9))],
        ),
        ("transcription_completed_of_noise", [e.CallerTranscribed("item_caller_3", "", Usage(transcription_seconds=0.4))]),
        ("transcription_failed", [e.CallerUntranscribed("item_caller_4")]),
        ("response_created", [e.ResponseStarted("resp_1")]),
        ("audio_delta", [e.AgentAudio("resp_1", "item_agent_1", 160)]),
        ("audio_delta_other_order", [e.AgentAudio("resp_1", "item_agent_1#1", 160)]),
        ("audio_delta_late", [e.AgentAudio("resp_0", "item_agent_0", 160)]),
        ("transcript_delta", [e.AgentWords("resp_1", "item_agent_1", " on Tuesday")]),
        ("audio_done", [e.AgentUtteranceEnded("resp_1", "item_agent_1")]),
        (
            "output_item_done_tool",
            [e.ToolCalled("resp_2", "call_sHlR7iaFwQ2YQOqm", "book_appointment", '{"day":"2026-12-01","hour":10}')],
        ),
        ("output_item_done_tool_cut_short", []),
        ("output_item_done_message", []),
        ("response_done", [e.ResponseEnded("resp_1", "completed", usage=TOKENS)]),
        ("response_done_turn_detected", [e.ResponseEnded("resp_1", "cancelled", "turn_detected", usage=TOKENS)]),
        ("response_done_client_cancelled", [e.ResponseEnded("resp_1", "cancelled", "client_cancelled", usage=TOKENS)]),
        ("response_done_max_tokens", [e.ResponseEnded("resp_1", "incomplete", "max_output_tokens", usage=TOKENS)]),
        ("response_done_content_filter", [e.ResponseEnded("resp_1", "incomplete", "content_filter", usage=TOKENS)]),
        ("response_done_rate_limited", [e.ResponseEnded("resp_9", "failed", "rate_limit_exceeded", 86_400)]),
        ("response_done_no_credit", [e.ResponseEnded("resp_1", "failed", "insufficient_quota")]),
        ("response_done_server_error", [e.ResponseEnded("resp_1", "failed", "server_error")]),
        ("error_active_response", [Complaint("conversation_already_has_active_response")]),
        ("error_of_our_update", [Complaint("unknown_parameter", "session_1")]),
        ("error_without_code", [Complaint("invalid_request_error")]),
        ("error_nothing_to_cancel", [Complaint("response_cancel_not_active")]),
        ("error_of_server", [Complaint("server_error")]),
        ("error_session_expired", [e.ModelLost("session_expired")]),
        ("error_beta_shape", [e.ModelLost("beta_api_shape_disabled", fatal=True)]),
    ],
)
def test_a_recorded_message_is_understood(name, said):
    wire = a_wire()
    assert wire.decode(recorded(name)) == said
    assert wire.unknown_events == 0


@pytest.mark.parametrize("name", [name for name in ALL if json.loads(recorded(name))["type"] in messages.UNUSED])
def test_what_is_known_and_of_no_use_says_nothing_and_is_not_counted(name):
    wire = a_wire()
    assert (wire.decode(recorded(name)), wire.unknown_events) == ([], 0)


def test_what_nobody_has_heard_of_is_counted_and_skipped():
    wire = a_wire()
    assert (wire.decode(recorded("brand_new")), wire.unknown_events) == ([], 1)


def test_the_session_in_force_is_handed_on_as_it_came():
    [said] = a_wire().decode(recorded("session_updated_pcm"))
    assert isinstance(said, SessionUpdated)
    assert json.loads(said.session) == json.loads(recorded("session_updated_pcm"))["session"]


def test_the_agents_voice_comes_out_as_line_audio_untouched_when_the_model_speaks_mu_law():
    [said] = a_wire().decode(recorded("audio_delta"))
    assert said.payload == FRAME


def test_the_same_message_in_another_order_of_keys_is_the_same_voice():
    [said] = a_wire().decode(recorded("audio_delta_other_order"))
    assert said.payload == FRAME


@pytest.mark.parametrize("cuts", [[960], [1], [481, 479], [7, 953, 3]])
def test_a_transcoded_utterance_is_as_long_as_it_was_generated_however_it_was_cut(cuts):
    wire = a_wire(audio_path("transcode"))
    sound = bytes(960) * 5
    said, at = [], 0
    while at < len(sound):
        cut = cuts[len(said) % len(cuts)]
        said += wire.decode(audio_delta(sound[at : at + cut]))
        at += cut
    said += wire.decode(audio_done())
    *audio, end = said
    assert end == e.AgentUtteranceEnded("resp_1", "item_a")
    assert all(isinstance(event, e.AgentAudio) and event.size == len(event.payload) > 0 for event in audio)
    assert sum(event.size for event in audio) == 5 * 160


def test_the_rest_of_an_utterance_that_was_cut_off_is_not_heard_in_the_next():
    loud, quiet = (b"\x00\x60" * 480), bytes(960)
    fresh, after = a_wire(audio_path("transcode")), a_wire(audio_path("transcode"))
    after.decode(audio_delta(loud, "item_cut"))
    [heard], [wanted] = after.decode(audio_delta(quiet, "item_next")), fresh.decode(audio_delta(quiet, "item_next"))
    assert heard.payload == wanted.payload


def test_the_end_of_an_old_utterance_does_not_flush_the_one_that_speaks_now():
    wire = a_wire(audio_path("transcode"))
    wire.decode(audio_delta(bytes(960), "item_now"))
    assert wire.decode(audio_done("item_old")) == [e.AgentUtteranceEnded("resp_1", "item_old")]
    assert len(wire.decode(audio_done("item_now"))) == 2
    assert wire.decode(audio_done("item_now")) == [e.AgentUtteranceEnded("resp_1", "item_now")], "said twice, flushed once"


def test_a_tool_is_called_once_however_often_it_is_told():
    wire = a_wire()
    assert len(wire.decode(recorded("output_item_done_tool"))) == 1
    assert wire.decode(recorded("output_item_done_tool")) == []


@pytest.mark.parametrize(("path", "per_ms"), [("passthrough", 8), ("transcode", 48)])
def test_when_speech_began_and_ended_is_told_by_the_audio_that_was_appended(path, per_ms):
    wire = a_wire(audio_path(path))
    wire.appended = 3_600 * per_ms
    # It began at 1700 + 300 of padding and ended at 3500 - 500 of silence.
    assert wire.decode(recorded("speech_started")) == [e.CallerSpeechStarted("item_caller_1", 1_600)]
    assert wire.decode(recorded("speech_stopped")) == [e.CallerSpeechStopped("item_caller_1", 600)]


@pytest.mark.parametrize("start", [-5_000_000, 9_000_000, 1e300, 1.5, None])
def test_a_position_that_cannot_be_is_never_before_the_call_or_after_now(start):
    wire = a_wire()
    wire.appended = 1_000 * 8
    message = {"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": start}
    [said] = wire.decode(json.dumps(message).encode())
    assert 0 <= said.ago_ms <= 1_000


@pytest.mark.parametrize(
    ("message", "ms"),
    [
        ("Please try again in 6.232s.", 6_232),
        ("Please try again in 174ms. Visit", 174),
        ("try again in 1m26.4s", 86_400),
        ("try again in 20s", 20_000),
        ("try again in 2m", 120_000),
        ("try again in 1h2m3s", 3_723_000),
        ("try again in 0.2ms", 1),
        ("try again in a while", None),
        ("try again later", None),
        ("", None),
    ],
)
def test_the_provider_says_how_long_to_wait(message, ms):
    failed = {"error": {"type": "tokens", "code": "rate_limit_exceeded", "message": message}}
    done = {"type": "response.done", "response": {"id": "r", "status": "failed", "status_details": failed}}
    [said] = a_wire().decode(json.dumps(done).encode())
    assert said.retry_ms == ms


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ({"usage": {"input_tokens": "many"}}, e.ResponseEnded("r")),
        ({"usage": {"input_tokens": 7, "output_tokens": 3}}, e.ResponseEnded("r", usage=Usage(text_in=7, text_out=3, responses=1))),
        ({"usage": []}, e.ResponseEnded("r")),
        ({"status": "cancelled", "status_details": "gone"}, e.ResponseEnded("r", "cancelled")),
        ({"status": "exploded"}, e.ResponseEnded("r", "failed", "unknown")),
        (
            {"status": "failed", "status_details": {"error": {"code": "said: my card is 4111"}}},
            e.ResponseEnded("r", "failed", "unknown"),
        ),
    ],
)
def test_that_a_response_ended_is_not_lost_with_its_details(response, said):
    done = {"type": "response.done", "response": {"id": "r", "status": "completed", **response}}
    assert a_wire().decode(json.dumps(done).encode()) == [said]


# ---- what cannot be read


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", "unreadable"),
        (b"4111", "unreadable"),
        (b"{", "unreadable"),
        (b"\xff\xfe", "unreadable"),
        (b'{"type":7}', "unreadable"),
        (b'{"item_id":"4111"}', "unreadable"),
        (b'{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"4111!"}', "response.output_audio.delta"),
        (b'{"type":"response.output_audio.delta","delta":"QUJD"}', "response.output_audio.delta"),
        (b'{"delta":"=41","response_id":"r","item_id":"i","type":"response.output_audio.delta"}', "response.output_audio.delta"),
        (b'{"type":"response.done","response":{"status":"4111"}}', "response.done"),
        (b'{"type":"response.output_item.done","response_id":"r","item":{"type":"function_call","status":"completed"}}',
         "response.output_item.done"),
        (b'{"type":"error","error":"4111"}', "error"),
        (b'{"type":"response.created","response":' + b'{"id":' * 100_000, "unreadable"),
        (b'{"type":"session.updated","session":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "unreadable"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_names_its_kind_and_none_of_its_content(message, kind):
    with pytest.raises(BadModelMessage) as caught:
        a_wire().decode(message)
    assert caught.value.kind == kind
    assert str(caught.value) == f"unreadable {kind} message from the model"
    assert caught.value.__suppress_context__


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def skips_or_reads(message: bytes) -> None:
    for path in ("transcode", "passthrough"):
        try:
            said = a_wire(audio_path(path)).decode(message)
        except BadModelMessage:
            continue
        assert all(isinstance(event, (*e.EVENTS, SessionCreated, SessionUpdated, Complaint)) for event in said)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_wire(message):
    skips_or_reads(message)


@given(st.sampled_from(ALL), st.data())
def test_no_message_with_a_wrong_value_breaks_the_wire(name, data):
    message = json.loads(recorded(name))
    at = message
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [value for value in at.values() if isinstance(value, dict) and value]
        if not inner:
            break
        at = data.draw(st.sampled_from(inner))
    at[data.draw(st.sampled_from(sorted(at)))] = data.draw(json_values)
    skips_or_reads(json.dumps(message, ensure_ascii=False, allow_nan=False).encode(errors="surrogatepass"))


@given(st.sampled_from(ALL), st.data())
def test_no_message_cut_or_scratched_breaks_the_wire(name, data):
    message = bytearray(recorded(name))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    skips_or_reads(bytes(message[: data.draw(st.integers(0, len(message)))]))


# ---- what we say


@pytest.mark.parametrize("path", ["passthrough", "transcode"])
def test_the_callers_sound_is_appended_and_counted(path):
    wire = a_wire(audio_path(path))
    sent = b""
    for _ in range(10):
        sent += base64.b64decode(client_event(wire.append(FRAME))["audio"])
    sent += base64.b64decode(client_event(wire.append_last(0))["audio"])
    assert wire.appended == len(sent)
    assert wire.appended_ms == 200
    if path == "passthrough":
        assert sent == FRAME * 10


def test_nothing_is_appended_when_nothing_is_due():
    wire = a_wire(audio_path("transcode"))
    assert wire.append(FRAME[:8]) == b""
    assert wire.appended == 0


@pytest.mark.parametrize(("path", "silence"), [("passthrough", b"\xff"), ("transcode", b"\x00")])
def test_the_last_silence_is_silence_in_the_models_format(path, silence):
    wire = a_wire(audio_path(path))
    sound = base64.b64decode(client_event(wire.append_last(700))["audio"])
    assert sound == silence * len(sound)
    assert wire.appended_ms == 700


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (Speak(), {"type": "response.create", "response": {"output_modalities": ["audio"]}}),
        (
            Speak("Greet the caller.", may_use_tools=False),
            {
                "type": "response.create",
                "response": {
                    "output_modalities": ["audio"],
                    "instructions": f"{DESK.instructions}\n\n{FOR_NOW}\nGreet the caller.",
                    "tool_choice": "none",
                },
            },
        ),
        (CancelSpeech("resp_1"), {"type": "response.cancel", "response_id": "resp_1"}),
        (
            GiveResult("call_1", '{"booked":true}'),
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": "call_1", "output": '{"booked":true}'},
            },
        ),
        (
            Brief("The line was bad."),
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "The line was bad."}]},
            },
        ),
        (
            Brief("Keys: 42", from_caller=True),
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Keys: 42"}]},
            },
        ),
    ],
)
def test_a_command_is_a_message_that_the_provider_knows(command, sent):
    [message] = a_wire().encode(command, DESK)
    assert client_event(message) == sent


@pytest.mark.parametrize("command", [TakeOver("sales"), FinishHearing(), CloseModel()])
def test_what_is_about_the_session_is_left_to_the_leg(command):
    assert a_wire().encode(command, DESK) == []


@pytest.mark.parametrize(("heard_ms", "asked_ms"), [(0, 0), (15, 15), (20, 20), (500, 20), (-3, 0)])
def test_truncation_never_asks_for_more_than_there_was(heard_ms, asked_ms):
    wire = a_wire()
    wire.decode(audio_delta(FRAME, "item_x"))
    [message] = wire.encode(StopSpeaking("item_x", heard_ms), DESK)
    assert client_event(message) == {
        "type": "conversation.item.truncate",
        "item_id": "item_x",
        "content_index": 0,
        "audio_end_ms": asked_ms,
    }


def test_a_transcoded_utterance_is_truncated_by_the_models_own_length():
    wire = a_wire(audio_path("transcode"))
    wire.decode(audio_delta(bytes(48 * 20 + 40), "item_x"))  # 20.8 ms of the model's, which are 21 of the line's, rounded up
    [message] = wire.encode(StopSpeaking("item_x", math.ceil(20.8)), DESK)
    assert client_event(message)["audio_end_ms"] == 20


def test_a_later_part_of_an_item_is_truncated_by_its_own_index():
    wire = a_wire()
    wire.decode(audio_delta(FRAME, "item#x", content_index=2))
    [message] = wire.encode(StopSpeaking("item#x#2", 7), DESK)
    assert (client_event(message)["item_id"], client_event(message)["content_index"]) == ("item#x", 2)


def test_what_never_had_a_sound_is_not_truncated():
    wire = a_wire()
    wire.decode(recorded("transcript_delta"))
    assert wire.encode(StopSpeaking("item_agent_1", 0), DESK) == []
