"""G.711 mu-law by table, written apart from the service's own (ITU-T G.711, 14 bit, bias 33).

Arithmetic only. A silent line is 0xFF, not 0x00.
"""

import numpy as np
from numpy.typing import NDArray

SILENCE = b"\xff"

_BIAS = 0x84
_CLIP = 32_635


def _expansion() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8) & 0xFF
    magnitude = (((code & 0x0F).astype(np.int32) << 3) + _BIAS << ((code & 0x70).astype(np.int32) >> 4)) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _compression() -> NDArray[np.uint8]:
    linear = np.arange(-32_768, 32_768, dtype=np.int32)
    magnitude = np.minimum(np.abs(linear), _CLIP) + _BIAS
    segment = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    code = (segment << 4) | ((magnitude >> (segment + 3)) & 0x0F)
    return (~np.where(linear < 0, code | 0x80, code) & 0xFF).astype(np.uint8)


_TO_LINEAR = _expansion()
_TO_ULAW = _compression()


def to_linear(payload: bytes) -> NDArray[np.int16]:
    """The samples of a mu-law payload, 8 kHz, full 16-bit scale."""
    return _TO_LINEAR[np.frombuffer(payload, dtype=np.uint8)]


def to_ulaw(samples: NDArray[np.int16]) -> bytes:
    """The mu-law payload of 16-bit samples; one byte a sample."""
    return _TO_ULAW[samples.astype(np.int32) + 32_768].tobytes()
