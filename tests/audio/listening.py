"""The tests' own ears and voice: tones made and measured with what the room under test has no part in."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

type Samples = npt.NDArray[np.float64]

FULL_SCALE = 32_767
SETTLING = 200
"""Samples at either end in which a tone that begins or ends abruptly is heard as more than a tone."""


def tone(hz: float, rate: int, ms: int = 500, amplitude: float = 16_000) -> bytes:
    return pcm(amplitude * np.sin(2 * np.pi * hz * np.arange(rate * ms // 1000) / rate))


def pcm(samples: npt.ArrayLike) -> bytes:
    return np.rint(np.asarray(samples, np.float64)).astype("<i2").tobytes()


def samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def steady(pcm: bytes) -> Samples:
    return samples(pcm)[SETTLING:-SETTLING]


def rms(heard: Samples) -> float:
    return float(np.sqrt(np.mean(heard**2)))


def decibels(ratio: float) -> float:
    return float(20 * np.log10(ratio))


def split_tone(heard: Samples, hz: float, rate: int) -> tuple[Samples, Samples]:
    """The tone of exactly this pitch (least squares), and all else."""
    angle = 2 * np.pi * hz * np.arange(len(heard)) / rate
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    found = basis @ np.linalg.lstsq(basis, heard)[0]
    return found, heard - found


def in_pieces(sound: bytes, sizes: Iterable[int]) -> list[bytes]:
    """The sound, cut into pieces of these sizes; what remains is the last."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(sound[at : at + size])
        at += size
    return [*pieces, sound[at:]]


def streamed(feed: Callable[[bytes], bytes], flush: Callable[[], bytes], pieces: Iterable[bytes]) -> bytes:
    return b"".join([*(feed(piece) for piece in pieces), flush()])
