"""The journal, and any call watched again."""

import dataclasses
import json

import pytest

from app.call import events as e
from app.call.commands import SendMark
from app.call.journal import Line, build, digest, plain, replay
from app.call.talk import House
from tests.call.scene import Scene, house, talking
from tests.call.test_machine import ending


def through_json(lines: list[Line]) -> list[Line]:
    return [Line(**json.loads(json.dumps(dataclasses.asdict(line)))) for line in lines]


def played() -> Scene:
    scene = talking()
    scene.tell(e.DigitPressed("7"))
    scene.tell(e.DigitPressed("#"))
    scene.answer("Seven it is.", ms=2_000)
    scene.hear(9, at=scene.at + 820)
    scene.caller_says("u9", at=scene.at + 40)
    response = scene.begin_response()
    scene.tool("note_slot", "t0", slot="name", value="Ann")
    scene.tell(e.ResponseEnded(response))
    scene.answer("Thank you, Ann.")
    scene.hear_all(at=scene.at + 1_000)
    ending(scene)
    scene.hear_all(at=scene.at + 900)
    scene.tell(e.StreamEnded(clean=True))
    return scene.listened_on()


def test_a_calls_journal_replays_to_the_same_commands():
    scene = played()
    assert scene.call.over
    assert list(replay(through_json(scene.journal()))) == []


def test_a_changed_line_is_found():
    lines = through_json(played().journal())
    index = next(i for i, line in enumerate(lines) if line.name == "CallerTurnCommitted")
    lines[index] = dataclasses.replace(lines[index], commands="deadbeef")
    (difference,) = replay(lines)
    assert (difference.seq, difference.recorded) == (lines[index].seq, "deadbeef")


def test_a_missing_line_is_found():
    lines = through_json(played().journal())
    del lines[next(i for i, line in enumerate(lines) if line.name == "AgentAudio")]
    assert list(replay(lines))


def test_of_a_run_of_marks_only_the_last_is_kept_and_replay_is_the_same():
    scene = talking()
    scene.caller_says("u1")
    scene.answer(ms=3_000)
    sent = len(scene.marks)
    scene.hear_all(at=scene.at + 3_000)
    scene.caller_says("u2", at=scene.at + 100)
    lines = scene.journal()
    kept = [line for line in lines if line.name == "MarkReturned"]
    assert sent > 25 and len(kept) < 8
    assert list(replay(through_json(lines))) == []


def test_no_payload_is_kept_and_what_is_private_stands_apart():
    scene = talking()
    scene.caller_says("u1", "my name is Ann")
    scene.answer("Hello Ann.")
    scene.tell(e.DigitPressed("4"))
    for line in scene.journal():
        assert "payload" not in line.data
        assert "Ann" not in json.dumps(line.data)
    assert {"text": "my name is Ann"} in [line.private for line in scene.journal()]
    assert {"digit": "4"} in [line.private for line in scene.journal()]


def test_nothing_that_was_said_is_printed():
    assert "Ann" not in repr(e.CallerTranscribed("u", "Ann")) + repr(e.ToolCalled("r", "t", "n", "Ann")) + repr(
        e.DigitPressed("Ann")
    )


def test_the_house_survives_the_journal_but_for_its_instructions():
    before = house(max_ms=123_000)
    after = build(House, json.loads(json.dumps(plain(before))))
    assert after.agents["desk"] == dataclasses.replace(before.agents["desk"], instructions="")
    assert (after.directory, after.max_ms) == (before.directory, before.max_ms)


def test_a_journal_without_its_first_line_cannot_be_replayed():
    with pytest.raises(ValueError, match="does not begin with its opening line"):
        list(replay(played().journal()[1:]))


def test_the_digest_tells_commands_apart_and_no_command_is_nothing():
    assert digest([]) == ""
    assert digest([SendMark("0.1.160")]) != digest([SendMark("0.1.161")])
