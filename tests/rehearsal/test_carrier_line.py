"""The playout buffer and the line's clock, on media time: positions are bytes, 8 to the millisecond."""

import wave

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.rehearsal import ulaw
from app.rehearsal.line import FRAME, Line, Playout, Recording


def test_what_is_queued_is_played_at_eight_bytes_a_millisecond():
    playout = Playout()
    playout.append(b"abcdefgh" * 10, at=0)
    pieces, marks = playout.advance(40)
    assert pieces == [(0, b"abcdefgh" * 5)]
    assert marks == []
    assert playout.queued == 40


def test_a_mark_comes_back_when_everything_before_it_was_played_and_not_earlier():
    playout = Playout()
    playout.append(b"x" * 160, at=0)
    playout.mark("first")
    playout.append(b"y" * 160, at=0)
    playout.mark("second")
    assert playout.advance(159)[1] == []
    assert playout.next_mark == 160
    assert playout.advance(160)[1] == ["first"]
    assert playout.advance(319)[1] == []
    assert playout.advance(5_000)[1] == ["second"]


def test_a_mark_on_an_empty_buffer_comes_back_at_once():
    playout = Playout()
    playout.mark("now")
    assert playout.advance(0)[1] == ["now"]


def test_a_clear_drops_the_audio_and_gives_every_waiting_mark_back():
    playout = Playout()
    playout.append(b"x" * 800, at=0)
    playout.mark("a")
    playout.append(b"y" * 800, at=0)
    playout.mark("b")
    playout.advance(300)
    assert playout.clear() == ["a", "b"]
    assert playout.thrown_away == 1_300
    assert playout.advance(10_000) == ([], [])


def test_audio_after_a_clear_plays_from_when_it_came():
    playout = Playout()
    playout.append(b"x" * 800, at=0)
    playout.advance(100)
    playout.clear()
    playout.advance(400)
    playout.append(b"z" * 8, at=400)
    assert playout.advance(500)[0] == [(400, b"z" * 8)]


def test_idle_time_is_not_played_into_what_comes_later():
    playout = Playout()
    playout.advance(8_000)
    playout.append(b"x" * 16, at=8_000)
    assert playout.advance(8_008)[0] == [(8_000, b"x" * 8)]


step = st.one_of(
    st.tuples(st.just("append"), st.binary(max_size=400)),
    st.tuples(st.just("mark"), st.text(max_size=3)),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("pass"), st.integers(0, 500)),
)


@given(st.lists(step, max_size=60))
def test_no_byte_is_lost_or_invented_and_every_mark_comes_back_once_in_order(steps):
    playout = Playout()
    now, sent, heard, lost = 0, b"", b"", 0
    placed: list[str] = []
    came: list[str] = []
    last_end = 0
    for number, (kind, value) in enumerate(steps):
        if kind == "pass":
            now += value
        pieces, marks = playout.advance(now)
        for at, piece in pieces:
            assert at >= last_end
            assert at + len(piece) <= now
            last_end = at + len(piece)
            heard += piece
        came += marks
        match kind:
            case "append":
                playout.append(value, at=now)
                sent += value
            case "mark":
                playout.mark(f"{number}")
                placed.append(f"{number}")
            case "clear":
                before = playout.queued
                came += playout.clear()
                sent = heard  # what is left of what was sent
                lost += before
        assert sent.startswith(heard)
        assert len(sent) == len(heard) + playout.queued
    pieces, marks = playout.advance(now + 1_000_000)
    assert heard + b"".join(piece for _, piece in pieces) == sent
    assert came + marks == placed
    assert playout.thrown_away == lost


class Spoken:
    """A telephone whose microphone counts its frames."""

    def __init__(self) -> None:
        self.frames = 0
        self.ticks: list[int] = []

    def frame(self) -> bytes:
        self.frames += 1
        return bytes([self.frames % 256]) * FRAME

    def hear(self, at: int, payload: bytes) -> None:
        pass

    def tick(self, now: int) -> None:
        self.ticks.append(now)


async def test_a_late_line_catches_up_and_does_not_drift():
    """The clock jumps by a second twice, as on a machine that stood still; no frame is left out and none is invented."""
    seconds = iter([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    phone = Spoken()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now = next(seconds, now)
        if now == 2.0 and phone.frames >= 100:
            line.over = True
        return now

    line = Line(phone, clock=clock)
    await line.run()
    assert phone.frames == 100
    assert len(line.recording.said) == 100 * FRAME
    assert line.late_frames > 0


def test_the_recording_is_stereo_with_silence_where_nothing_was_played(tmp_path):
    recording = Recording()
    recording.said += ulaw.to_ulaw(np.full(400, 1_000, np.int16))
    recording.hear(80, ulaw.to_ulaw(np.full(80, -2_000, np.int16)))
    recording.hear(160, ulaw.to_ulaw(np.full(40, -2_000, np.int16)))
    assert [(at, len(piece)) for at, piece in recording.heard] == [(80, 120)]
    recording.save(tmp_path / "call.wav")
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8_000, 2)
        samples = np.frombuffer(file.readframes(-1), "<i2").reshape(-1, 2)
    assert len(samples) == 400
    assert set(np.abs(samples[:, 0] - 1_000)) == {int(abs(samples[0, 0] - 1_000))}
    assert not samples[:80, 1].any()
    assert not samples[200:, 1].any()
    assert (samples[80:200, 1] < -1_900).all()
