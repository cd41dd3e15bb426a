"""The ears: speech by media time, in both formats, and what was said."""

import numpy as np
import pytest

from app.rehearsal import ulaw
from app.rehearsal.ears import FRAME_MS, Detection, Ears, Started, Stopped
from app.rehearsal.rates import resample
from app.rehearsal.voice import say


def line(*parts, noise=0.0, level=1.0, voice="klatt5", seed=1):
    """Samples at 8 kHz: a number is so many milliseconds of quiet, a text is spoken."""
    sounds = [
        np.zeros(part * 8) if isinstance(part, int) else say(part, voice=voice, rate=8_000, words_per_minute=150) * level
        for part in parts
    ]
    sound = np.concatenate(sounds)
    sound = sound + np.random.default_rng(seed).normal(0, noise, len(sound))
    return np.clip(np.rint(sound), -32_768, 32_767).astype(np.int16)


def hear(ears, samples, *, piece=160):
    payload = ulaw.to_ulaw(samples)
    return [fact for at in range(0, len(payload), piece) for fact in ears.hear(payload[at : at + piece])]


@pytest.fixture
def ears(recognisers):
    return Ears(recognisers)


def test_an_utterance_starts_with_its_prefix_and_stops_after_the_silence(ears):
    ears.expect("more")
    samples = line(1_000, "No, thank you, that is all.", 1_500)
    spoke_ms = len(samples) // 8 - 2_500
    started, stopped = hear(ears, samples)
    assert isinstance(started, Started) and isinstance(stopped, Stopped)
    assert started.start_ms == pytest.approx(1_000 - 300, abs=80)
    assert stopped.end_ms == pytest.approx(1_000 + spoke_ms + 500, abs=120)
    assert stopped.start_ms == started.start_ms
    assert stopped.text == "no thank you that is all"


@pytest.mark.parametrize(("prefix_ms", "silence_ms"), [(0, 300), (100, 1_000), (600, 700)])
def test_prefix_and_silence_are_those_of_the_settings(ears, prefix_ms, silence_ms):
    ears.detect(Detection(prefix_ms=prefix_ms, silence_ms=silence_ms))
    samples = line(1_000, "yes", 1_500)
    started, stopped = hear(ears, samples)
    assert started.start_ms == pytest.approx(1_000 - prefix_ms, abs=80)
    spoken_ms = len(samples) // 8 - 2_500
    assert stopped.end_ms - 1_000 - spoken_ms == pytest.approx(silence_ms, abs=120)


def test_a_pause_shorter_than_the_silence_is_no_stop(ears):
    ears.expect("number")
    facts = hear(ears, line(500, "five five five,", 350, "one two three,", 350, "four five six seven.", 900))
    assert [type(fact) for fact in facts] == [Started, Stopped]
    assert facts[1].text == "five five five one two three four five six seven"


def test_time_is_what_was_appended_in_pieces_of_any_size(recognisers):
    samples = line(700, "my name is anna miller", 900, "yes", 900)
    told = []
    for piece in (8, 160, 1_000, len(samples)):
        ears = Ears(recognisers)
        ears.expect("name")
        told.append(hear(ears, samples, piece=piece))
        assert ears.now_ms == len(samples) // 8
    assert told[0] == told[1] == told[2] == told[3]
    assert [fact.text for fact in told[0] if isinstance(fact, Stopped)] == ["my name is anna miller", "yes"]


def test_what_is_left_uncommitted_begins_at_the_last_stop(ears):
    facts = hear(ears, line(500, "yes", 2_000))
    assert ears.uncommitted_ms == ears.now_ms - facts[-1].end_ms > 1_000
    ears.clear()
    assert ears.uncommitted_ms == 0


def test_wide_band_audio_is_heard_as_well(ears):
    ears.take_format("audio/pcm")
    ears.expect("number")
    samples = line(600, "my number is five five five, one two three, four five six seven", 900)
    wide = np.clip(np.rint(resample(samples, 8_000, 24_000)), -32_768, 32_767).astype("<i2").tobytes()
    facts = [fact for at in range(0, len(wide), 4_800) for fact in ears.hear(wide[at : at + 4_800])]
    assert facts[-1].text == "my number is five five five one two three four five six seven"
    assert facts[0].start_ms == pytest.approx(300, abs=90)


def test_a_higher_threshold_needs_a_louder_voice(ears):
    quiet = line(500, "yes, please", 900, level=0.1)
    assert hear(ears, quiet) != []
    ears.detect(Detection(threshold=0.9))
    assert hear(ears, quiet) == []
    assert hear(ears, line(500, "yes, please", 900, level=2.0)) != []


def test_a_voice_from_the_next_room_opens_no_turn(ears):
    hear(ears, line(500, "yes, that is right", 700))
    assert hear(ears, line(100, "this is somebody else", 700, level=0.08)) == []


def test_noise_alone_opens_no_turn(ears):
    assert hear(ears, line(6_000, noise=250)) == []


def test_speech_in_noise_is_still_two_turns(ears):
    ears.expect("readback")
    facts = hear(ears, line(800, "yes, that is right", 1_200, "no, that is wrong", 1_200, noise=90))
    assert [type(fact) for fact in facts] == [Started, Stopped] * 2
    assert [fact.text for fact in facts if isinstance(fact, Stopped)] == ["yes that is right", "no that is wrong"]


def test_without_detection_the_buffer_is_heard_when_it_is_taken(ears):
    ears.detect(None)
    ears.expect("day")
    assert hear(ears, line(200, "tuesday please", 200)) == []
    whole = ears.now_ms
    taken = ears.take()
    assert (taken.start_ms, taken.end_ms, taken.text) == (0, whole, "tuesday please")
    assert ears.uncommitted_ms == 0


def test_taking_in_mid_speech_ends_the_utterance_there(ears):
    samples = line(400, "yes that is right")
    hear(ears, samples)
    assert ears.speaking
    taken = ears.take()
    assert not ears.speaking and taken.end_ms == pytest.approx(len(samples) // 8, abs=FRAME_MS)


def test_callers_who_speak_at_the_same_time_share_recognisers_and_are_not_mixed_up(recognisers):
    callers = [Ears(recognisers) for _ in range(3)]
    states, texts = ("name", "day", "name"), ("my name is anna miller", "tuesday please", "my name is peter smith")
    sounds = [ulaw.to_ulaw(line(500, text, 2_500)) for text in texts]
    heard = [[], [], []]
    for ears, state in zip(callers, states, strict=True):
        ears.expect(state)
    for at in range(0, min(map(len, sounds)), 160):
        for ears, sound, facts in zip(callers, sounds, heard, strict=True):
            facts += ears.hear(sound[at : at + 160])
    assert tuple(facts[-1].text for facts in heard) == texts


@pytest.mark.parametrize("voice", ["klatt4", "klatt5", "klatt6"])
@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("request", "hello, i would like to book an appointment please"),
        ("request", "this is ridiculous, i want to speak to a human now"),
        ("name", "my name is laura davis"),
        ("number", "my number is five five five, nine eight seven, six five four three"),
        ("readback", "no, that is wrong"),
        ("choice", "the first one please"),
        ("more", "mm-hm"),
    ],
)
def test_callers_are_understood(ears, voice, state, text):
    ears.expect(state)
    *_, stopped = hear(ears, line(500, text, 900, voice=voice))
    assert stopped.text == text.replace(",", "")


@pytest.mark.parametrize(
    "text",
    [
        "purple elephants dance beneath old bridges every single night",
        "he drove through the tunnel before the storm hit",
        "football results came in late after the second half",
    ],
)
@pytest.mark.parametrize("state", ["request", "name", "number", "readback"])
def test_what_is_none_of_the_sentences_is_not_understood(ears, state, text):
    ears.expect(state)
    *_, stopped = hear(ears, line(500, text, 900))
    assert stopped.text == ""
