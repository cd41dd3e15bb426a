"""The house's own lines as they are shipped, and the caller's last sound."""

import hashlib
from pathlib import Path

import pytest

from app.audio import lines as room
from app.audio.g711 import level_db
from app.audio.lines import Lines, clip_name
from app.audio.recent import SLACK, Recent
from app.call.sentences import LINES
from app.rehearsal.make_lines import make


def test_every_line_that_the_call_may_ask_for_is_shipped_with_its_words():
    assert set(Lines(None, "m").texts) == set(LINES)


@pytest.mark.parametrize("name", LINES)
def test_a_shipped_clip_is_speech_of_the_length_of_its_sentence(name: str):
    line = Lines(None, "m").find(name, "marin")
    words = len(line.text.split())
    assert 0.15 < len(line.sound) / 8_000 / words < 0.6, "seconds a word"
    assert -30 < level_db(line.sound) < -12


def test_the_shipped_clips_are_what_the_script_makes_of_the_sentences(tmp_path: Path):
    (tmp_path / "sentences.toml").write_bytes((room.SHIPPED / room.SENTENCES).read_bytes())
    made = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in make(tmp_path)}
    shipped = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in room.SHIPPED.glob("*.ulaw")}
    assert made == shipped


@pytest.mark.parametrize("sound", [b"", b"\x33" * 800, b"\x33" * 200_000])
def test_a_learned_clip_that_cannot_be_a_sentence_is_not_used(tmp_path: Path, sound: bytes):
    text = Lines(None, "m").texts["one_moment"]
    (tmp_path / clip_name("one_moment", text, voice="marin", model="m")).write_bytes(sound)
    assert not Lines(tmp_path, "m").is_learned("one_moment", "marin")


def test_a_learned_clip_belongs_to_its_voice_its_model_and_its_words(tmp_path: Path):
    text = Lines(None, "m").texts["one_moment"]
    (tmp_path / clip_name("one_moment", text, voice="marin", model="m")).write_bytes(b"\x33" * 8_000)
    assert Lines(tmp_path, "m").find("one_moment", "marin").sound == b"\x33" * 8_000
    assert not Lines(tmp_path, "m").is_learned("one_moment", "cedar")
    assert not Lines(tmp_path, "other").is_learned("one_moment", "marin")
    (tmp_path / "sentences.toml").write_text('one_moment = "A moment."')
    assert not Lines(tmp_path, "m").is_learned("one_moment", "marin")


def test_a_folder_that_is_not_there_is_no_fault(tmp_path: Path):
    assert Lines(tmp_path / "nothing", "m").find("goodbye", "marin").sound


# ---- the caller's last sound


def test_the_last_sound_is_kept_as_asked_and_moved_rarely():
    recent, moved = Recent(), 0
    for number in range(1_000):
        if recent.add(bytes([number % 251]) * 160):
            recent.keep(700)
            moved += 1
        assert len(recent.last(60_000)) <= 700 * 8 + SLACK + 160
    assert moved <= 11
    assert recent.last(40) == bytes([998 % 251]) * 160 + bytes([999 % 251]) * 160
    assert (recent.last(0), recent.last(-5)) == (b"", b"")


def test_nothing_is_thrown_away_while_it_may_still_be_needed():
    recent = Recent()
    for number in range(500):
        if recent.add(bytes([number % 251]) * 160):
            recent.keep((number + 1) * 20)
    assert len(recent.last(60_000)) == 500 * 160
