"""From 8 kHz to 24 kHz and back, as the sound flows.

Both ways need one and the same low-pass filter at 24 kHz. On the way up each sample is followed by two zeros, which
repeats the speech, mirrored, around 8 kHz: the filter takes these images away. On the way down two of three samples are
dropped, which folds all above 4 kHz into the speech: the filter takes it away first. It is a windowed sinc (Kaiser) of
73 taps, 6 dB down near 3.9 kHz. What a telephone carries, up to 3.4 kHz, it leaves alone; what would be mistaken for
that, from 4.6 kHz on, it puts 66 dB down.

The zeros are not multiplied and the dropped samples not computed (polyphase). What remains, three outputs on the way up
and one on the way down, is a weighted sum over a window of the input, and the next is the same sum one step further on.
So the sound is laid out in overlapping rows; rows times a small banded (Toeplitz) matrix are the output: one product in
BLAS instead of a loop.

Rule 1: an output is made as soon as its window is full. The window reaches 1.5 ms ahead; that is the whole delay, and
nothing else is held back. Only `flush` knows that nothing more comes, and goes on as if silence did.
Rule 2: input and output keep the same time: sample k at 8 kHz is sample 3k at 24 kHz. With the flush, n samples become
3n on the way up and n/3, rounded up, on the way down; so on either side bytes may be counted as milliseconds.
Rule 3: where the sound was cut cannot be heard, not in one bit. BLAS adds in an order that depends on the size; so
every tap is a whole multiple of 2**-24, and a sum of such taps times 16-bit samples is exact in a double, in any order
(it needs 41 of its 53 bits).
Rule 4: what is too loud for 16 bits is saturated; it never wraps around.
"""

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

type Doubles = npt.NDArray[np.float64]

# Times are in ticks of 1/24,000 s: samples at 24 kHz are one tick apart, samples at 8 kHz three.
_FINE, _COARSE = 1, 3
_REACH = 36
"""How far the filter reaches to either side of an output: 1.5 ms."""
_ROW = 48
"""The sound in a row: 2 ms. In longer rows more is multiplied by zero, shorter ones are more work to lay out."""
_ROWS_AT_ONCE = 100
"""200 ms. OpenBLAS spreads products above 2**18 multiplications (136 rows) over threads. That gains nothing at this size,
and the other cores carry other calls."""

_CUTOFF = 3_900 / 24_000
"""Cycles per tick."""
_KAISER_BETA = 6.5
_TAPS_PER_UNIT = 2**24

_PCM16: Final = np.dtype("<i2")
_WIDTH: Final = _PCM16.itemsize
_LOWEST, _HIGHEST = np.array(-32_768.0), np.array(32_767.0)


def _low_pass() -> Doubles:
    """The filter, from -36 to +36 ticks, with a sum of 1."""
    ticks = np.arange(-_REACH, _REACH + 1)
    taps = np.sinc(2 * _CUTOFF * ticks) * np.kaiser(len(ticks), _KAISER_BETA)
    whole: Doubles = np.rint(taps / taps.sum() * _TAPS_PER_UNIT)
    return whole / _TAPS_PER_UNIT  # rule 3


@cache
def _weights(spacing_in: int, spacing_out: int) -> Doubles:
    """The matrix from a row of input to its output: the tap that stands as far from the middle as the two stand apart."""
    inputs = np.arange(0, _ROW - _COARSE + 2 * _REACH + 1, spacing_in)
    outputs = np.arange(0, _ROW, spacing_out) + _REACH
    apart = outputs - inputs[:, np.newaxis]
    taps = np.where(np.abs(apart) <= _REACH, _low_pass()[np.clip(apart + _REACH, 0, 2 * _REACH)], 0.0)
    weights: Doubles = taps * spacing_in  # with two zeros after each sample, a third of the sound is left
    return weights


class _Table:
    """Where so many rows are laid out and multiplied; kept from piece to piece, as most pieces of a stream are equally long."""

    def __init__(self, rows: int, weights: Doubles, row_step: int) -> None:
        row_in, row_out = weights.shape
        self.rows = rows
        self._weights = weights
        sound = np.zeros(rows * row_step // _WIDTH + row_in, _PCM16)
        self._bytes = memoryview(sound).cast("B")
        self._overlapping = np.ndarray((rows, row_in), _PCM16, sound, 0, (row_step, _WIDTH))
        self._laid_out = np.empty((rows, row_in))
        self._made = np.empty((rows, row_out))
        self._rounded = np.empty((rows, row_out), _PCM16)

    def multiply(self, sound: bytes) -> bytes:
        """The output of all rows; where `sound` ends before the last row does, what is made of the remainder has no meaning."""
        self._bytes[: len(sound)] = sound
        self._laid_out[...] = self._overlapping
        made = self._laid_out.dot(self._weights, self._made)
        np.rint(made, made)
        made.clip(_LOWEST, _HIGHEST, made)  # rule 4
        self._rounded[...] = made
        return self._rounded.tobytes()


class _Resampler:
    """One direction of one stream of PCM16, mono, little-endian. Not to be shared between threads."""

    def __init__(self, spacing_in: int, spacing_out: int) -> None:
        self._weights = _weights(spacing_in, spacing_out)
        # All in bytes: a window, the step to the next, what is made of one, the step to the next row, the filter's reach.
        self._window = (2 * _REACH // spacing_in + 1) * _WIDTH
        self._step = _COARSE // spacing_in * _WIDTH
        self._made = _COARSE // spacing_out * _WIDTH
        self._row_step = _ROW // spacing_in * _WIDTH
        self._reach = bytes(_REACH // spacing_in * _WIDTH)
        self._kept = self._reach
        self._table = _Table(1, self._weights, self._row_step)

    def feed(self, pcm: bytes) -> bytes:
        """Takes the next stretch, of any length, and gives what is due. Half a sample at its end waits for its other half."""
        at_once = _ROWS_AT_ONCE * self._row_step
        if len(pcm) > at_once:
            return b"".join(self.feed(pcm[at : at + at_once]) for at in range(0, len(pcm), at_once))
        sound = self._kept + pcm
        windows = (len(sound) - self._window) // self._step + 1
        if windows <= 0:
            self._kept = sound
            return b""
        used = windows * self._step
        self._kept = sound[used:]
        rows = -(-used // self._row_step)
        if rows != self._table.rows:
            self._table = _Table(rows, self._weights, self._row_step)
        return self._table.multiply(sound)[: windows * self._made]

    def flush(self) -> bytes:
        """Gives the rest, as if silence followed, and begins anew. Half a sample is no sound and is dropped."""
        self._kept = self._kept[: len(self._kept) // _WIDTH * _WIDTH]
        rest = self.feed(self._reach)
        self.reset()
        return rest

    def reset(self) -> None:
        """Forgets the stream; what is fed next is the beginning of another."""
        self._kept = self._reach


class Upsampler(_Resampler):
    """From 8 kHz to 24 kHz: three samples for each."""

    def __init__(self) -> None:
        super().__init__(_COARSE, _FINE)


class Downsampler(_Resampler):
    """From 24 kHz to 8 kHz: one sample for each three."""

    def __init__(self) -> None:
        super().__init__(_FINE, _COARSE)
