"""What both paths promise, and what each promises alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.g711 import SILENCE, mulaw_to_pcm, pcm_to_mulaw
from app.audio.path import AudioPath, Passthrough, Transcoder, audio_path
from app.audio.resampling import Downsampler, Upsampler
from app.errors import BadSetting
from tests.audio.listening import decibels, in_pieces, rms, samples, split_tone, streamed, tone

FRAME_MS = 20
PATHS = pytest.mark.parametrize("name", ["transcode", "passthrough"])

cuts = st.lists(st.integers(0, 2_000), max_size=8)


def model_voice(path: AudioPath, ms: int, hz: float = 440) -> bytes:
    """A tone as the model would say it, in the path's format."""
    linear = {"audio/pcm": 24_000, "audio/pcmu": 8_000}[path.model_format]
    sound = tone(hz, linear, ms)
    return sound if path.model_format == "audio/pcm" else pcm_to_mulaw(sound)


def model_ears(path: AudioPath, sound: bytes) -> tuple[np.ndarray, int]:
    """What the model hears, linear, and its rate."""
    return (samples(sound), 24_000) if path.model_format == "audio/pcm" else (samples(mulaw_to_pcm(sound)), 8_000)


def line_voice(ms: int, hz: float = 440) -> bytes:
    return pcm_to_mulaw(tone(hz, 8_000, ms))


def said(path: AudioPath, *pieces: bytes) -> bytes:
    """What the caller hears of an utterance."""
    return streamed(path.model_to_caller, path.flush_to_caller, pieces)


def heard(path: AudioPath, *pieces: bytes) -> bytes:
    """What the model hears of the caller."""
    return streamed(path.caller_to_model, path.flush_to_model, pieces)


# ---- both


@PATHS
@pytest.mark.parametrize("frames", [1, 2, 50])
def test_the_model_hears_the_caller_for_as_long_as_the_caller_spoke(name, frames):
    path = audio_path(name)
    sound = heard(path, *[line_voice(FRAME_MS)] * frames)
    assert len(sound) == frames * FRAME_MS * path.bytes_per_ms_model


@PATHS
@pytest.mark.parametrize("ms", [1, 20, 100, 1_000])
def test_the_caller_hears_the_model_for_as_long_as_the_model_spoke(name, ms):
    path = audio_path(name)
    voice = model_voice(path, ms)
    assert len(voice) == ms * path.bytes_per_ms_model
    assert len(said(path, voice)) == 8 * ms


@PATHS
def test_a_running_call_is_never_more_than_3_ms_late_in_either_direction(name):
    path = audio_path(name)
    to_model = to_caller = 0
    for frame in range(1, 11):
        to_model += len(path.caller_to_model(line_voice(FRAME_MS)))
        to_caller += len(path.model_to_caller(model_voice(path, FRAME_MS)))
        assert frame * FRAME_MS - 3 <= to_model / path.bytes_per_ms_model <= frame * FRAME_MS
        assert frame * FRAME_MS - 3 <= to_caller / 8 <= frame * FRAME_MS


@PATHS
@given(sizes=cuts)
def test_it_does_not_matter_how_the_model_cuts_its_speech(name, sizes):
    path = audio_path(name)
    voice = model_voice(path, 150)
    assert said(path, *in_pieces(voice, sizes)) == said(audio_path(name), voice)


@PATHS
@given(sizes=cuts)
def test_it_does_not_matter_how_the_carrier_cuts_the_callers_speech(name, sizes):
    path = audio_path(name)
    voice = line_voice(150)
    assert heard(path, *in_pieces(voice, sizes)) == heard(audio_path(name), voice)


@PATHS
def test_an_utterance_that_was_cut_off_is_not_in_the_next(name):
    path = audio_path(name)
    path.model_to_caller(model_voice(path, 33, hz=900)[:-1])
    path.restart_to_caller()
    assert said(path, model_voice(path, 100)) == said(audio_path(name), model_voice(path, 100))


@PATHS
def test_cutting_the_agent_off_takes_nothing_from_the_caller(name):
    path, undisturbed = audio_path(name), audio_path(name)
    voice = line_voice(60)
    before = path.caller_to_model(voice[:200])
    path.model_to_caller(model_voice(path, 40))
    path.restart_to_caller()
    assert before + path.caller_to_model(voice[200:]) + path.flush_to_model() == heard(undisturbed, voice)


@PATHS
def test_after_a_flush_there_is_nothing_left(name):
    path = audio_path(name)
    said(path, model_voice(path, 30))
    heard(path, line_voice(30))
    assert path.flush_to_caller() == path.flush_to_model() == b""


@PATHS
def test_a_tone_is_the_same_tone_on_the_other_side(name):
    path = audio_path(name)
    linear, rate = model_ears(path, heard(path, line_voice(500)))
    wanted, unwanted = split_tone(linear[300:-300], 440, rate)
    assert decibels(rms(wanted) / rms(unwanted)) > 30  # what G.711 leaves of it
    wanted, unwanted = split_tone(samples(mulaw_to_pcm(said(path, model_voice(path, 500))))[100:-100], 440, 8_000)
    assert decibels(rms(wanted) / rms(unwanted)) > 30


@PATHS
def test_silence_arrives_as_silence(name):
    path = audio_path(name)
    linear, _ = model_ears(path, heard(path, SILENCE * 800))
    assert not linear.any()
    quiet = bytes(4_800) if name == "transcode" else SILENCE * 800
    assert said(path, quiet) == SILENCE * 800


@PATHS
def test_each_call_has_a_path_of_its_own(name):
    assert audio_path(name) is not audio_path(name)


# ---- each


@given(st.binary(max_size=400))
def test_passthrough_is_byte_exact_and_keeps_nothing(sound):
    path = Passthrough()
    assert path.caller_to_model(sound) == path.model_to_caller(sound) == sound
    assert path.flush_to_caller() == path.flush_to_model() == b""


def test_transcoding_is_g711_around_the_resamplers():
    voice, speech = line_voice(60), tone(440, 24_000, 60)
    assert heard(Transcoder(), voice) == streamed(Upsampler().feed, lambda: b"", [mulaw_to_pcm(voice), bytes(24)])
    assert said(Transcoder(), speech) == pcm_to_mulaw(Downsampler().feed(speech + bytes(72)))


def test_a_path_says_what_the_model_is_to_speak():
    assert (Transcoder.model_format, Transcoder.bytes_per_ms_model) == ("audio/pcm", 48)
    assert (Passthrough.model_format, Passthrough.bytes_per_ms_model) == ("audio/pcmu", 8)


def test_a_path_that_does_not_exist_is_refused_by_the_settings_name():
    with pytest.raises(BadSetting, match="AUDIO_PATH: no such path: 'transcoding'"):
        audio_path("transcoding")
