"""The ledger of what was heard."""

from hypothesis import given
from hypothesis import strategies as st

from app.call.playout import Cut, Playout


def queue(playout: Playout, utterance: str, ms: int, at: int = 0) -> list[str]:
    return [mark for _, mark in playout.queue(utterance, ms * 8, at=at) if mark]


def test_a_mark_stands_behind_the_first_20_ms_then_behind_each_full_100_ms_then_behind_the_end():
    playout = Playout()
    pieces = list(playout.queue("a", 250 * 8, at=0))
    assert [(size // 8, mark is not None) for size, mark in pieces] == [(20, True), (80, True), (100, True), (50, False)]
    assert playout.end("a") is not None
    assert playout.end("a") is None  # one stands there now


def test_marks_are_spaced_the_same_however_the_audio_is_cut():
    whole, pieces = Playout(), Playout()
    marks = queue(whole, "a", 1_000)
    cut = [mark for _ in range(100) for mark in queue(pieces, "a", 10)]
    assert marks == cut


def test_only_a_mark_moves_audio_from_queued_to_heard():
    playout = Playout()
    first, second, *_ = queue(playout, "a", 500)
    assert playout.heard["a"] == 0
    assert playout.returned(first, at=30) == "a"
    assert playout.heard["a"] == 20 * 8
    playout.returned(second, at=130)
    assert playout.heard["a"] == 100 * 8


def test_a_mark_given_back_by_a_clear_says_nothing():
    playout = Playout()
    marks = queue(playout, "a", 500)
    playout.returned(marks[0], at=20)
    playout.clear(at=50)
    assert all(playout.returned(mark, at=60) is None for mark in marks)
    assert playout.heard["a"] == 20 * 8 + 30 * 8  # the mark, and the 30 ms since it


def test_the_time_since_the_last_mark_counts_for_the_cut_but_never_beyond_the_next_mark():
    playout = Playout()
    marks = queue(playout, "a", 500)
    playout.returned(marks[0], at=20)
    assert playout.heard_bytes("a", at=75) == (20 + 55) * 8
    assert playout.heard_bytes("a", at=9_000) == 100 * 8


def test_what_was_queued_behind_the_head_is_cut_at_nothing():
    playout = Playout()
    marks = queue(playout, "a", 200)
    queue(playout, "b", 300)
    playout.returned(marks[0], at=20)
    assert playout.clear(at=60) == [Cut("a", 60 * 8, 200 * 8), Cut("b", 0, 300 * 8)]
    assert not playout.is_audible


def test_the_line_is_quiet_when_the_last_mark_is_back():
    playout = Playout()
    marks = queue(playout, "a", 100)
    assert playout.is_audible and playout.audible_since == 0
    for mark in marks:
        playout.returned(mark, at=100)
    assert not playout.is_audible and playout.audible_since is None


def test_after_a_pause_the_clock_of_the_cut_begins_with_the_new_audio():
    playout = Playout()
    for mark in queue(playout, "a", 100):
        playout.returned(mark, at=100)
    queue(playout, "b", 500, at=5_000)
    assert playout.clear(at=5_010) == [Cut("b", 80, 500 * 8)]


def test_a_mark_returned_twice_or_never_sent_changes_nothing():
    playout = Playout()
    mark, *_ = queue(playout, "a", 200)
    assert playout.returned("0.99.160", at=5) is None
    assert playout.returned("nonsense", at=5) is None
    assert playout.returned(mark, at=20) == "a"
    assert playout.returned(mark, at=25) is None
    assert playout.heard["a"] == 160


@given(st.lists(st.tuples(st.sampled_from("qrcx"), st.integers(1, 4_000), st.sampled_from("abc")), max_size=60))
def test_heard_never_exceeds_queued_and_never_shrinks(steps):
    playout, waiting, at = Playout(), [], 0
    for step, number, utterance in steps:
        before = dict(playout.heard)
        at += number % 500
        if step == "q":
            waiting += [mark for _, mark in playout.queue(utterance, number, at=at) if mark]
        elif step == "r" and waiting:
            playout.returned(waiting.pop(number % len(waiting)), at=at)
        elif step == "c":
            playout.clear(at=at)
        elif step == "x" and utterance in playout.queued and (mark := playout.end(utterance)):
            waiting.append(mark)
        for name, queued in playout.queued.items():
            assert before.get(name, 0) <= playout.heard[name] <= queued
            assert playout.heard_bytes(name, at=at) <= queued
