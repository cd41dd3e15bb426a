import math

import audioop
import pytest

from app.audio.g711 import BYTES_PER_MS, QUIETEST_DB, SILENCE, level_db, mulaw_to_pcm, pcm_to_mulaw
from tests.audio.listening import FULL_SCALE, decibels, pcm, rms, samples, tone

EVERY_CODE = bytes(range(256))


def decoded_by_the_book(code: int) -> int:
    """ITU-T G.711, table 2, for 16 bits: the code's bits are inverted, then sign, 3 bits of chord, 4 bits of step."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 0x07)) - 0x84
    return -magnitude if code & 0x80 else magnitude


def test_every_code_is_decoded_as_the_recommendation_says():
    assert samples(mulaw_to_pcm(EVERY_CODE)).tolist() == [decoded_by_the_book(code) for code in EVERY_CODE]


def test_every_code_survives_decoding_and_encoding_but_for_the_second_zero():
    assert pcm_to_mulaw(mulaw_to_pcm(EVERY_CODE)) == EVERY_CODE.replace(b"\x7f", SILENCE)


def test_silence_is_silent_both_ways():
    assert mulaw_to_pcm(SILENCE) == bytes(2)
    assert pcm_to_mulaw(bytes(2)) == SILENCE


def test_what_is_too_loud_for_the_code_becomes_its_loudest():
    assert samples(mulaw_to_pcm(pcm_to_mulaw(pcm([FULL_SCALE, -FULL_SCALE - 1])))).tolist() == [32_124, -32_124]


def test_speech_is_heard_well_above_the_noise_of_the_code():
    sent = tone(1_000, 8_000)
    heard = samples(mulaw_to_pcm(pcm_to_mulaw(sent)))
    assert decibels(rms(samples(sent)) / rms(heard - samples(sent))) > 35


def test_half_a_sample_is_refused():
    with pytest.raises(audioop.error):
        pcm_to_mulaw(b"\x00\x00\x00")


@pytest.mark.parametrize("ms", [1, 20, 100])
def test_a_millisecond_is_eight_bytes(ms):
    assert len(pcm_to_mulaw(tone(440, 8_000, ms))) == BYTES_PER_MS * ms


@pytest.mark.parametrize("amplitude", [300, 3_000, 30_000])
def test_the_level_of_a_tone_is_three_decibels_below_its_peak(amplitude):
    frame = pcm_to_mulaw(tone(400, 8_000, 20, amplitude))
    assert level_db(frame) == pytest.approx(20 * math.log10(amplitude / 32_768) - 3.01, abs=0.3)


@pytest.mark.parametrize("nothing", [b"", SILENCE * 160, b"\x7f" * 160])
def test_the_level_of_silence_is_the_quietest_there_is(nothing):
    assert level_db(nothing) == QUIETEST_DB
    assert level_db(pcm_to_mulaw(pcm([8] * 160))) > QUIETEST_DB
