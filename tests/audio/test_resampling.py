"""The resamplers are judged on linear PCM, alone: what the filter does must not hide in the noise of G.711."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.resampling import Downsampler, Upsampler, _weights
from tests.audio.listening import (
    FULL_SCALE,
    SETTLING,
    decibels,
    in_pieces,
    pcm,
    rms,
    samples,
    split_tone,
    steady,
    streamed,
    tone,
)

LOW, HIGH = 8_000, 24_000
BOTH = pytest.mark.parametrize("resampler", [Upsampler, Downsampler])
MAX_DELAY_MS = 3
DOWN_60_DB = 1 / 1_000

noise = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def whole(resampler, sound):
    return streamed(resampler.feed, resampler.flush, [sound])


def up(sound):
    return whole(Upsampler(), sound)


def down(sound):
    return whole(Downsampler(), sound)


# ---- what is heard


@pytest.mark.parametrize("hz", [*range(4_600, 5_000, 100), *range(5_000, 12_000, 500)])
def test_a_tone_that_the_line_cannot_carry_is_60_db_down(hz):
    sent = tone(hz, HIGH, amplitude=30_000)
    assert rms(steady(down(sent))) < rms(steady(sent)) * DOWN_60_DB


@pytest.mark.parametrize("hz", [300, 1_000, 2_000, 3_000, 3_400])
def test_the_way_up_adds_no_image_within_60_db(hz):
    heard = steady(up(tone(hz, LOW, amplitude=30_000)))
    spectrum = np.abs(np.fft.rfft(heard * np.kaiser(len(heard), 14)))
    above = np.fft.rfftfreq(len(heard), 1 / HIGH) >= 4_600
    assert spectrum[above].max() < spectrum.max() * DOWN_60_DB


@pytest.mark.parametrize(("way", "rate_in", "rate_out"), [(up, LOW, HIGH), (down, HIGH, LOW)])
class TestBothWays:
    @pytest.mark.parametrize("hz", [300, 1_000, 2_500])
    def test_a_tone_stands_60_db_above_all_that_it_is_not(self, way, rate_in, rate_out, hz):
        wanted, unwanted = split_tone(steady(way(tone(hz, rate_in))), hz, rate_out)
        assert decibels(rms(wanted) / rms(unwanted)) > 60

    @pytest.mark.parametrize(("hz", "within_db"), [(100, 0.1), (1_000, 0.1), (3_000, 0.5), (3_400, 1.0)])
    def test_what_a_telephone_carries_keeps_its_strength(self, way, rate_in, rate_out, hz, within_db):
        sent = tone(hz, rate_in)
        assert decibels(rms(steady(way(sent))) / rms(steady(sent))) == pytest.approx(0, abs=within_db)

    def test_a_full_scale_square_wave_saturates_and_never_wraps_around(self, way, rate_in, rate_out):
        period_ms, periods = 10, 20
        high = rate_in * period_ms // 2000
        sent = np.tile(np.repeat([FULL_SCALE, -FULL_SCALE - 1], high), periods)
        heard = samples(way(pcm(sent)))
        assert heard.max() == FULL_SCALE and heard.min() == -FULL_SCALE - 1
        ideal = np.tile(np.repeat([1, -1], rate_out * period_ms // 2000), periods)
        at_an_edge = np.convolve(np.abs(np.diff(ideal, prepend=-1, append=1)), np.ones(7), "same")[:-1] > 0
        assert ((heard * ideal)[~at_an_edge] > FULL_SCALE / 2).all()

    @pytest.mark.parametrize("level", [1, -1, 2_000, -15_000])
    def test_a_steady_level_stays_what_it_is_to_the_last_step(self, way, rate_in, rate_out, level):
        assert steady(way(pcm([level] * rate_in))).tolist() == [level] * (rate_out - 2 * SETTLING)

    def test_silence_stays_silent(self, way, rate_in, rate_out):
        assert way(bytes(2 * rate_in)) == bytes(2 * rate_out)


# ---- when it is heard


@pytest.mark.parametrize(("way", "ratio"), [(up, 3), (down, 1 / 3)])
def test_input_and_output_keep_the_same_time(way, ratio):
    click = np.zeros(960)
    click[480] = 30_000
    assert np.argmax(samples(way(pcm(click)))) == 480 * ratio


@BOTH
@pytest.mark.parametrize("piece", [1, 2, 3, 6, 7, 320, 960])
def test_a_sound_is_late_by_no_more_than_the_filter(resampler, piece):
    rate_in, rate_out = (LOW, HIGH) if resampler is Upsampler else (HIGH, LOW)
    stream, fed, given = resampler(), 0, 0
    for part in in_pieces(tone(500, rate_in, 100), [piece] * 50):
        fed += len(part)
        given += len(stream.feed(part))
        late_ms = fed / (2 * rate_in) - given / (2 * rate_out)
        assert 0 <= late_ms * 1000 <= 1.5 + 3_000 / HIGH <= MAX_DELAY_MS


@given(st.integers(0, 2_000))
def test_every_sample_becomes_three_on_the_way_up(count):
    assert len(up(bytes(2 * count))) == 2 * 3 * count


@given(st.integers(0, 6_000))
def test_every_three_samples_begun_become_one_on_the_way_down(count):
    assert len(down(bytes(2 * count))) == 2 * -(-count // 3)


# ---- however it is cut


@BOTH
@given(
    noise=noise,
    count=st.integers(0, 3_000),
    sizes=st.lists(st.integers(0, 1_500) | st.sampled_from([320, 960, 4_800]), max_size=12),
)
def test_where_a_sound_was_cut_cannot_be_heard_in_one_bit(resampler, noise, count, sizes):
    sound = pcm(noise.integers(-FULL_SCALE - 1, FULL_SCALE, count, endpoint=True))
    stream = resampler()
    assert streamed(stream.feed, stream.flush, in_pieces(sound, sizes)) == whole(resampler(), sound)


@BOTH
def test_a_sound_can_come_byte_by_byte(resampler):
    sound = pcm(np.random.default_rng(7).integers(-9_000, 9_000, 700))
    stream = resampler()
    assert streamed(stream.feed, stream.flush, [bytes([byte]) for byte in sound]) == whole(resampler(), sound)


@BOTH
def test_a_minute_at_once_is_the_same_as_frame_by_frame(resampler):
    sound = pcm(np.random.default_rng(8).integers(-9_000, 9_000, 8_000 * 60))
    stream = resampler()
    frames = [sound[at : at + 320] for at in range(0, len(sound), 320)]
    assert streamed(stream.feed, stream.flush, frames) == whole(resampler(), sound)


@pytest.mark.parametrize(("way", "spread", "kept"), [(up, 3, 1), (down, 1, 3)])
def test_the_rows_compute_what_the_plain_filter_computes(way, spread, kept):
    """Zeros put in, one long convolution, samples dropped: the textbook's way, with the filter as an impulse shows it."""
    fine_taps = samples(up(pcm([0] * 20 + [30_000] + [0] * 20)))[60 - 36 : 60 + 37] / 30_000 / 3
    sent = np.random.default_rng(9).integers(-12_000, 12_000, 600)
    spread_out = np.zeros(600 * spread)
    spread_out[::spread] = sent * spread
    expected = np.convolve(spread_out, fine_taps)[36:-36][::kept]
    # The impulse shows each tap to half a step in 90,000 only.
    assert np.abs(samples(way(pcm(sent))) - expected).max() < 12_000 * 73 * 0.5 / 90_000 * spread


@pytest.mark.parametrize("spacings", [(3, 1), (1, 3)])
def test_every_sum_is_exact_in_a_double_so_that_the_order_of_adding_does_not_matter(spacings):
    units = _weights(*spacings) * 2**24
    assert (units == np.rint(units)).all()
    assert np.abs(units).sum(axis=0).max() * (FULL_SCALE + 1) < 2**53


# ---- beginnings and ends


@BOTH
def test_a_reset_or_flushed_stream_begins_anew(resampler):
    sound = tone(700, HIGH, 50)
    stream = resampler()
    stream.feed(tone(900, HIGH, 33) + b"\x55")
    stream.reset()
    assert whole(stream, sound) == whole(resampler(), sound)
    assert whole(stream, sound) == whole(resampler(), sound)


@BOTH
def test_half_a_sample_at_the_end_is_no_sound(resampler):
    sound = tone(700, HIGH, 10)
    assert whole(resampler(), sound + b"\x55") == whole(resampler(), sound)


@BOTH
def test_streams_do_not_hear_each_other(resampler):
    ours, theirs = tone(700, HIGH, 40), tone(1_900, HIGH, 40)
    one, other = resampler(), resampler()
    heard = b""
    for mine, foreign in zip(in_pieces(ours, [320] * 4), in_pieces(theirs, [320] * 4), strict=True):
        heard += one.feed(mine)
        other.feed(foreign)
    assert heard + one.flush() == whole(resampler(), ours)
