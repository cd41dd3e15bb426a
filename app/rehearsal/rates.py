"""Sound at another rate: a polyphase FIR of the rehearsal's own, for a whole stretch and for a stream. Arithmetic only."""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

type Sound = NDArray[np.float32]

_HALF = 24
"""Weights on either side, in samples of the lower rate."""
_CUTOFF = 0.465
"""Where the pass band ends, in cycles per sample of the lower rate; the stop band is about 70 dB down."""


@cache
def _kernels(source: int, target: int) -> NDArray[np.float32]:
    """For each phase the weights of a Kaiser-windowed sinc."""
    up, down = _ratio(source, target)
    taps = 2 * _half(source, target) + 1
    cutoff = _CUTOFF * min(source, target) / source
    offset = np.arange(taps)[None, :] - (taps - 1) / 2 - (np.arange(up) * down % up)[:, None] / up
    inside = np.clip(1 - (2 * offset / taps) ** 2, 0, None)
    weights = 2 * cutoff * np.sinc(2 * cutoff * offset) * np.i0(7.0 * np.sqrt(inside)) / np.i0(7.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _ratio(source: int, target: int) -> tuple[int, int]:
    common = math.gcd(source, target)
    return target // common, source // common


def _half(source: int, target: int) -> int:
    return math.ceil(_HALF * source / min(source, target))


def resample(samples: NDArray[Any], source: int, target: int) -> Sound:
    """A whole stretch of sound at another rate (Hz), band-limited. The ends are padded with silence."""
    if source == target:
        return samples.astype(np.float32)
    stream = Resampler(source, target)
    count = math.ceil(len(samples) * stream.up / stream.down)
    half = _half(source, target)
    padded = np.concatenate([samples.astype(np.float32), np.zeros(half + stream.down, np.float32)])
    return stream.feed(padded)[:count]


class Resampler:
    """One stream of sound on its way to another rate. What comes out lags by `_HALF` samples of the lower rate."""

    def __init__(self, source: int, target: int) -> None:
        self._kernels = _kernels(source, target)
        self.up, self.down = _ratio(source, target)
        self._taps = 2 * _half(source, target) + 1
        self._held: Sound = np.zeros(self._taps // 2, np.float32)
        self._next = 0
        """The next output's place, in output samples, counted from the first held input sample."""

    def feed(self, samples: NDArray[Any]) -> Sound:
        """What the samples so far allow to be computed, and was not yet."""
        sound = np.concatenate([self._held, samples.astype(np.float32)])
        if len(sound) < self._taps:
            self._held = sound
            return np.zeros(0, np.float32)
        windows = sliding_window_view(sound, self._taps)
        # Output n begins at input n * down // up; as many n as begin within the windows there are.
        end = -(-len(windows) * self.up // self.down)
        out = np.zeros(end - self._next, np.float32)
        for lane in range(min(self.up, len(out))):
            first = self._next + lane
            rows = windows[first * self.down // self.up :: self.down]
            room = len(out[lane :: self.up])
            out[lane :: self.up] = rows[:room] @ self._kernels[first % self.up]
        # Drop whole periods, so that phases stay as they are.
        periods = min(end // self.up, len(windows) // self.down)
        self._held = sound[periods * self.down :].copy()
        self._next = end - periods * self.up
        return out
