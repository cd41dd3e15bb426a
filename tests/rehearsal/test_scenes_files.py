"""Scene files: what they may say, what is complained of, and that those we ship are in order."""

import pytest

from app.rehearsal.grammar import states_for
from app.rehearsal.scenes import EXPECTATIONS, STEPS, BadScene, load, read, shipped

SMALL = """
title = "Small"
[[step]]
wait_for_agent = 700
[[step]]
say = "hello"
"""


def complaints(text: str) -> list[tuple[str, str]]:
    with pytest.raises(BadScene) as bad:
        read(text, "bad")
    return bad.value.complaints


def test_a_scene_is_read_with_its_defaults():
    scene = read(SMALL, "small")
    assert [(step.word, step.value) for step in scene.steps] == [("wait_for_agent", 700), ("say", "hello")]
    assert scene.person.voice == "klatt5"
    assert scene.lines == ["hello"]


def test_everything_that_is_wrong_is_said_at_once_with_its_place():
    text = """
    colour = "red"
    [caller]
    noise = { kind = "thunder" }
    [[step]]
    say = "a"
    pause = 1
    [[step]]
    sing = "a"
    [[step]]
    pause = "long"
    [[answer]]
    say = "b"
    [[answer]]
    when = "("
    say = "c"
    [[answer]]
    when = "d"
    [expect]
    mood = "good"
    """
    assert {place for place, _ in complaints(text)} == {
        "colour", "title", "caller.noise kind", "step 1", "step 2", "step 3 pause", "answer 1 when", "answer 2 when", "answer 3",
        "expect mood",
    }  # fmt: skip


def test_answers_say_what_the_caller_knows_and_nothing_else():
    scene = read(SMALL + '[knows]\nname = "anna"\n[[answer]]\nwhen = "who"\nsay = ["this is {name}", "{name}"]\n', "knows")
    assert scene.replies[0].say == ("this is anna", "anna")
    [(place, wrong)] = complaints(SMALL + '[[answer]]\nwhen = "who"\nsay = "{name}"\n')
    assert (place, wrong) == ("answer 1 say", "the caller does not know {name}")


def test_shared_answers_come_after_the_scenes_own_and_only_those_the_caller_can_give():
    text = 'answers = "everyday"\n' + SMALL + '[knows]\nname = "anna"\n[[answer]]\nwhen = "name"\nsay = "guess"\n'
    replies = read(text, "shared").replies
    lines = [line for reply in replies for line in reply.say]
    assert lines[0] == "guess"
    assert "My name is anna." in lines
    assert not any("{" in line for line in lines)
    assert complaints('answers = "nobody"\n' + SMALL)[0][0] == "answers"


def test_what_is_no_toml_is_a_bad_scene_too():
    assert len(complaints("title = ")) == 1


def test_a_scene_nobody_knows_is_named_with_those_there_are():
    with pytest.raises(BadScene, match="booking"):
        load("no-such-scene")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scene_is_in_order_and_expects_something(name):
    scene = load(name)
    assert scene.about
    assert scene.expect
    assert {step.word for step in scene.steps} <= set(STEPS)
    assert set(scene.expect) <= set(EXPECTATIONS)


@pytest.mark.parametrize("name", shipped())
def test_every_line_of_a_shipped_scene_is_one_that_the_pretend_model_can_hear(name):
    """A line outside the grammar would be misheard every time, and the scene would test nothing but that."""
    assert [line for line in load(name).lines if not states_for(line)] == []


def test_at_least_twelve_scenes_come_with_us_and_no_two_callers_have_one_number():
    assert len(shipped()) >= 12
    numbers = [load(name).person.number for name in shipped()]
    assert len(set(numbers)) == len(numbers)
