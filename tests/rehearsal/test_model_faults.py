"""Misbehaviour by script: each word does what it says, and the events stay within the contract."""

import json

import pytest

from app.rehearsal import ulaw
from app.rehearsal.realtime_faults import BadScript, Misbehaviour, scripts
from app.rehearsal.voice import say
from tests.rehearsal.model_house import Line, message

LONG = "Hello, this is a sentence of some length, so that it takes a while until it has been spoken to its end."


def opened(recognisers, **script):
    line = Line(recognisers, Misbehaviour.read(script))
    line.open()
    return line


def agent_says(line, text=LONG):
    line.send("response.create", response={"instructions": f'Say: "{text}"'})


def caller_says(line, text):
    sound = ulaw.to_ulaw(say(text, voice="klatt5", rate=8_000, words_per_minute=150))
    line.run(-(-len(sound) // 160) * 20, sound)
    line.run(900)


def statuses(line):
    return [event["response"]["status"] for event in line.of("response.done")]


def test_a_late_session_comes_late(recognisers):
    line = Line(recognisers, Misbehaviour(late_session_ms=2_000))
    line.session.start()
    line.clock.advance(1.9)
    assert line.events == []
    line.clock.advance(0.2)
    assert line.kinds[0] == "session.created"


def test_a_socket_is_dropped_in_mid_response(recognisers):
    line = opened(recognisers, drop_after_deltas=3)
    agent_says(line)
    line.run(2_000)
    assert line.kinds.count("response.output_audio.delta") == 3
    assert line.closed == (None, "") and "response.done" not in line.kinds


def test_a_socket_is_closed_in_mid_response(recognisers):
    line = opened(recognisers, close_after_deltas=[2, 1011])
    agent_says(line)
    line.run(2_000)
    assert line.closed is not None and line.closed[0] == 1011


@pytest.mark.parametrize("kind", ["session.created", "session.updated", "response.created", "response.done"])
def test_a_socket_is_dropped_behind_any_event(recognisers, kind):
    line = Line(recognisers, Misbehaviour.read({"drop_at": [kind, 1]}))
    line.open()
    agent_says(line)
    line.run(6_000)
    assert line.kinds[-1] == kind and line.closed == (None, "")


def test_a_socket_that_is_accepted_and_nothing_else(recognisers):
    line = Line(recognisers, Misbehaviour.read({"no_session": True, "expire_ms": 500}))
    line.session.start()
    line.send("session.update", session={"type": "realtime"})
    line.clock.advance(2.0)
    assert line.events == [] and line.closed is None


def test_a_black_hole_says_nothing_more_and_stays_open(recognisers):
    line = opened(recognisers, hole_after_deltas=3)
    agent_says(line)
    line.run(4_000)
    assert line.kinds.count("response.output_audio.delta") == 3 and line.kinds[-1] == "response.output_audio.delta"
    line.send("response.cancel")
    line.send("nonsense", checked=False)
    assert line.kinds[-1] == "response.output_audio.delta" and line.closed is None


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcm"])
def test_a_hushed_response_comes_whole_without_a_sound(recognisers, kind):
    line = opened(recognisers, hush=[1])
    if kind == "audio/pcm":
        line.send("session.update", session={"type": "realtime", "audio": {"output": {"format": {"type": kind, "rate": 24_000}}}})
    agent_says(line)
    line.run(4_000)
    assert statuses(line) == ["completed"] and len(line.audio()) > 8_000
    assert set(line.audio()) == ({0xFF} if kind == "audio/pcmu" else {0})
    words = "".join(event["delta"] for event in line.of("response.output_audio_transcript.delta"))
    assert words.split() == LONG.split()


def test_a_session_may_say_that_it_ends_soon(recognisers):
    soon, usual = (opened(recognisers, **script).of("session.created")[0]["session"] for script in ({"lasts_s": 90}, {}))
    assert usual["expires_at"] - soon["expires_at"] == 3_600 - 90


@pytest.mark.parametrize("wrong", ["response.done", ["response.done"], [1, "response.done"]])
def test_a_drop_needs_a_kind_and_a_number(wrong):
    with pytest.raises(BadScript):
        Misbehaviour.read({"drop_at": wrong})


def test_a_response_fails_for_the_rate_limit_and_the_next_does_not(recognisers):
    line = opened(recognisers, fail=1)
    agent_says(line)
    line.run(500)
    response = line.of("response.done")[0]["response"]
    assert response["status"] == "failed" and response["usage"] is None and response["output"] == []
    assert response["status_details"]["error"]["code"] == "rate_limit_exceeded"
    assert "try again in 1.2s" in response["status_details"]["error"]["message"]
    agent_says(line)
    line.run(2_500)
    assert statuses(line) == ["failed", "completed"]


def test_a_response_is_cut_short(recognisers):
    line = opened(recognisers, incomplete=[1])
    agent_says(line)
    line.run(2_500)
    assert statuses(line) == ["incomplete"]
    assert 600 < len(line.audio()) / 8 < 1_000


def test_a_silent_response_begins_and_ends_only_when_it_is_cancelled(recognisers):
    line = opened(recognisers, silent=[1])
    agent_says(line)
    line.run(5_000)
    assert line.kinds[-2:] == ["response.created", "rate_limits.updated"]
    line.send("response.cancel")
    assert statuses(line) == ["cancelled"]


def test_a_tool_call_has_broken_arguments(recognisers):
    line = opened(recognisers, broken_arguments=[1])
    line.send("conversation.item.create", item=message("user", "oh sorry i have the wrong number"))
    line.send("response.create")
    line.run(2_500)
    call = line.of("response.done")[0]["response"]["output"][-1]
    assert call["status"] == "completed"
    with pytest.raises(ValueError):
        json.loads(call["arguments"])


def test_one_text_comes_as_two_messages(recognisers):
    line = opened(recognisers, two_messages=[1])
    agent_says(line, "First this is said. And then that.")
    line.run(2_500)
    output = line.of("response.done")[0]["response"]["output"]
    assert [(item["phase"], item["content"][0]["transcript"]) for item in output] == [
        ("commentary", "First this is said."),
        ("final_answer", "And then that."),
    ]


def test_slow_audio_is_slower_than_it_plays(recognisers):
    line = opened(recognisers, speed=0.5)
    agent_says(line)
    line.run(2_000)
    assert len(line.audio()) / 8 < 1_300


def test_deltas_come_late_after_a_cancel(recognisers):
    line = opened(recognisers, late_deltas=2)
    agent_says(line)
    line.run(200)
    line.send("response.cancel")
    assert line.kinds[-3:] == ["response.done", "response.output_audio.delta", "response.output_audio.delta"]
    late = line.events[-1]
    assert late["response_id"] == line.of("response.done")[0]["response"]["id"]


@pytest.mark.parametrize(("how", "kinds"), [("missing", []), ("failed", ["failed"])])
def test_transcripts_fail_or_never_come(recognisers, how, kinds):
    line = opened(recognisers, transcription=how)
    caller_says(line, "yes please")
    line.run(1_000)
    assert [kind.rsplit(".", 1)[1] for kind in line.kinds if "transcription" in kind] == kinds


def test_transcripts_come_out_of_order(recognisers):
    line = opened(recognisers, transcription="swapped")
    caller_says(line, "hello")
    caller_says(line, "i have a complaint")
    line.run(1_000)
    items = [event["item_id"] for event in line.of("input_audio_buffer.committed")]
    transcribed = [event["item_id"] for event in line.of("conversation.item.input_audio_transcription.completed")]
    assert transcribed == items[::-1]


def test_transcripts_come_as_late_as_they_are_told(recognisers):
    line = opened(recognisers, transcription_ms=3_000)
    caller_says(line, "yes please")
    line.run(2_000)
    assert not line.of("conversation.item.input_audio_transcription.completed")
    line.run(1_500)
    assert line.of("conversation.item.input_audio_transcription.completed")


def test_unknown_events_and_fields_are_sprinkled_in(recognisers):
    line = opened(recognisers, unknown=True)
    agent_says(line)
    line.run(2_500)
    assert "rehearsal.unheard_of" in line.kinds and statuses(line) == ["completed"]
    assert all("x_rehearsal" in event for event in line.events if event["type"] != "rehearsal.unheard_of")


def test_errors_forget_whose_fault_they_answer(recognisers):
    line = opened(recognisers, forget_event_ids=True)
    line.send("response.cancel")
    assert line.events[-1]["error"]["event_id"] is None


def test_the_session_expires_early(recognisers):
    line = opened(recognisers, expire_ms=800)
    line.run(1_000)
    assert line.errors == ["session_expired"]
    assert line.closed is not None and line.closed[0] == 1001


def test_a_script_is_for_all_connections_or_for_each_its_own(tmp_path):
    assert scripts(None, 5) == Misbehaviour()
    assert scripts('{"fail": 2}', 7).fail == (2,)
    text = '[{"refuse": 429}, null, {"unknown": true}]'
    assert [scripts(text, number) for number in range(4)] == [
        Misbehaviour(refuse=429), Misbehaviour(), Misbehaviour(unknown=True), Misbehaviour(),
    ]  # fmt: skip
    file = tmp_path / "script.json"
    file.write_text('{"silent": [1]}')
    assert scripts(f"@{file}", 0).silent == (1,)
    file.write_text("{}")
    assert scripts(f"@{file}", 1).silent == ()


@pytest.mark.parametrize(
    "text", ['{"dance": 1}', "{", "[1]", '{"fail": ["one"]}', '{"transcription": "sung"}', "@/nowhere/at/all.json"]
)
def test_a_wrong_script_is_refused(text):
    with pytest.raises(BadScript):
        scripts(text, 0)
