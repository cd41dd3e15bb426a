"""Microseconds a frame of the audio path alone, without a socket: ours against `audioop.ratecv`, whose aliasing we do not accept.

Up is one caller's frame (20 ms) from Twilio's base64 to the model's. Down is 20 ms of the agent's voice, out of a delta of 100 ms.
CPU time, the best of several rounds: noise only ever adds.
"""

import base64
import time
from collections.abc import Callable

import audioop
import pybase64

from app.audio.g711 import mulaw_to_pcm, pcm_to_mulaw
from app.audio.resampling import Downsampler, Upsampler
from tests.bench.sound import DELTA_MS, FRAME, FRAME_MS, PCM, delta

_ROUNDS = 9
_FRAMES = 1_000

_CALLER = base64.b64encode(bytes(range(96, 256)))
_AGENT = delta(3, PCM)
assert len(base64.b64decode(_CALLER)) == FRAME


def _ours_up() -> Callable[[], object]:
    upsampler = Upsampler()
    return lambda: pybase64.b64encode(upsampler.feed(mulaw_to_pcm(pybase64.b64decode(_CALLER))))


def _ours_down() -> Callable[[], object]:
    downsampler = Downsampler()
    return lambda: pybase64.b64encode(pcm_to_mulaw(downsampler.feed(pybase64.b64decode(_AGENT))))


def _ratecv_up() -> Callable[[], object]:
    state = None

    def frame() -> object:
        nonlocal state
        pcm, state = audioop.ratecv(audioop.ulaw2lin(base64.b64decode(_CALLER), 2), 2, 1, 8_000, 24_000, state)
        return base64.b64encode(pcm)

    return frame


def _ratecv_down() -> Callable[[], object]:
    state = None

    def frame() -> object:
        nonlocal state
        pcm, state = audioop.ratecv(base64.b64decode(_AGENT), 2, 1, 24_000, 8_000, state)
        return base64.b64encode(audioop.lin2ulaw(pcm, 2))

    return frame


def _microseconds(make: Callable[[], Callable[[], object]], pieces: int) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        piece = make()
        began = time.process_time()
        for _ in range(pieces):
            piece()
        best = min(best, (time.process_time() - began) / pieces)
    return best * 1e6


def measure() -> dict[str, float]:
    """Microseconds for each 20 ms."""
    in_a_delta = DELTA_MS // FRAME_MS
    return {
        "up": _microseconds(_ours_up, _FRAMES),
        "up_ratecv": _microseconds(_ratecv_up, _FRAMES),
        "down": _microseconds(_ours_down, _FRAMES // in_a_delta) / in_a_delta,
        "down_ratecv": _microseconds(_ratecv_down, _FRAMES // in_a_delta) / in_a_delta,
    }
