"""The rehearsal's voice and its mu-law tables: repeatable, distinguishable, timed by word."""

import threading

import numpy as np
import pytest

from app.rehearsal import ulaw
from app.rehearsal.rates import Resampler, resample
from app.rehearsal.voice import VOICES, _spoken, say, say_with_words

SENTENCE = "I would like to book an appointment for Tuesday."


def loudness(samples):
    return float(np.sqrt(np.mean(np.asarray(samples, dtype=np.float64) ** 2)))


def test_every_code_of_mu_law_survives_the_way_to_samples_and_back():
    codes = bytes(range(256))
    back = ulaw.to_ulaw(ulaw.to_linear(codes))
    # 0x7F and 0xFF are both zero; the encoder has only the positive one.
    assert back == codes.replace(b"\x7f", b"\xff")


def test_the_tables_agree_with_the_published_values():
    # ITU-T G.711, table 2a: the largest code, the first step above zero, silence.
    assert ulaw.to_linear(b"\x80\x00\xfe\xff").tolist() == [32_124, -32_124, 8, 0]


def test_mu_law_is_wrong_by_half_a_step_at_most():
    linear = np.arange(-32_600, 32_600, dtype=np.int16)
    error = np.abs(ulaw.to_linear(ulaw.to_ulaw(linear)).astype(int) - linear)
    # Half a step, and a step is a sixteenth of the segment's lower end; the bias of 132 counts as part of the sample.
    assert (error <= (np.abs(linear.astype(int)) + 132) / 32).all()


@pytest.mark.parametrize("voice", sorted(VOICES))
def test_the_same_text_is_spoken_the_same_way_whatever_was_said_before(voice):
    first = say(SENTENCE, voice=voice, rate=8_000)
    say("Something else in between.", voice="echo", rate=8_000)
    _spoken.cache_clear()
    assert np.array_equal(first, say(SENTENCE, voice=voice, rate=8_000))


def test_voices_differ():
    sounds = {say(SENTENCE, voice=voice, rate=8_000).tobytes() for voice in VOICES}
    assert len(sounds) == len(VOICES) == 13


def test_every_voice_is_as_loud_as_a_telephone_talker_and_never_clips():
    for voice in VOICES:
        samples = say(SENTENCE, voice=voice)
        assert 1_000 < loudness(samples) < 4_500, voice
        assert np.abs(samples.astype(int)).max() < 32_000, voice


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_the_rate_changes_the_count_of_samples_and_not_the_length_of_the_speech(rate):
    assert len(say(SENTENCE, rate=rate)) / rate == pytest.approx(len(say(SENTENCE, rate=22_050)) / 22_050, abs=0.001)


def test_speech_begins_and_ends_within_the_margin():
    samples = np.abs(say(SENTENCE, rate=8_000).astype(int))
    loud = np.flatnonzero(samples > 200)
    assert loud[0] < 8 * 60 and loud[-1] > len(samples) - 8 * 60


def test_a_slower_pace_takes_longer():
    assert len(say(SENTENCE, words_per_minute=120)) > 1.2 * len(say(SENTENCE, words_per_minute=180))


def test_each_written_word_has_its_start_in_order_and_within_the_speech():
    text = "Of the two, I take the one at 10 in the morning."
    samples, words = say_with_words(text, rate=8_000)
    assert [word for word, _ in words] == text.split()
    starts = [at for _, at in words]
    assert starts == sorted(starts) and starts[0] < 100 and starts[-1] < len(samples) / 8
    assert len(set(starts)) > 8


def test_a_word_starts_where_the_pause_before_it_ends():
    samples, words = say_with_words("Yes. Please wait.", rate=8_000)
    at = dict(words)["Please"] * 8
    assert loudness(samples[at - 800 : at - 160]) < 0.05 * loudness(samples[at : at + 1_600])


def test_text_without_speech_is_no_sound():
    assert len(say("  ")) == 0
    assert say_with_words("...")[1] == [("...", 0)]


def test_threads_that_speak_at_once_do_not_mix_their_voices():
    texts = [f"This is sentence number {number}." for number in range(6)]
    voices = ["klatt4", "marin", "echo", "klatt6", "sage", "ash"]
    alone = [say(text, voice=voice, rate=16_000).tobytes() for text, voice in zip(texts, voices, strict=True)]
    _spoken.cache_clear()
    together: dict[int, bytes] = {}

    def speak(number):
        together[number] = say(texts[number], voice=voices[number], rate=16_000).tobytes()

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(6)] == alone


@pytest.mark.parametrize(("tone", "rate", "kept"), [(1_000, 8_000, True), (3_000, 8_000, True), (5_000, 8_000, False)])
def test_the_resampler_keeps_what_the_lower_rate_can_carry_and_nothing_else(tone, rate, kept):
    wave = 10_000 * np.sin(2 * np.pi * tone * np.arange(22_050) / 22_050)
    level = 20 * np.log10(loudness(resample(wave, 22_050, rate)[400:-400]) / loudness(wave) + 1e-12)
    assert abs(level) < 0.1 if kept else level < -60


@pytest.mark.parametrize(("source", "target"), [(24_000, 8_000), (8_000, 16_000), (8_000, 24_000), (22_050, 8_000)])
def test_a_stream_in_pieces_of_any_size_is_the_same_sound_as_the_whole(source, target):
    dice = np.random.default_rng(1)
    whole = dice.normal(0, 5_000, source // 2)
    stream, pieces, at = Resampler(source, target), [], 0
    while at < len(whole):
        size = int(dice.integers(1, 700))
        pieces.append(stream.feed(whole[at : at + size]))
        at += size
    streamed = np.concatenate(pieces)
    assert len(streamed) >= target // 2 - 25 * target // min(source, target)
    np.testing.assert_allclose(streamed, resample(whole, source, target)[: len(streamed)], atol=0.5)
