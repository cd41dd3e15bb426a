"""G.711 mu-law (ITU-T G.711), the telephone line's own code: 8 kHz, mono, one byte a sample, 8 bytes a millisecond.

Linear audio beside it is PCM16: signed, 16 bit, little-endian.
"""

from math import log10

import audioop

BYTES_PER_MS = 8
SILENCE = b"\xff"
"""One sample of silence (the code of +0); `SILENCE * 160` is 20 ms of it."""

QUIETEST_DB = -127.0
"""The level of digital silence, as in RFC 6464."""

_SAMPLE_WIDTH = 2
_OVERLOAD = 32_768


def mulaw_to_pcm(mulaw: bytes) -> bytes:
    """Decodes; two bytes for each one. Every byte is legal."""
    return audioop.ulaw2lin(mulaw, _SAMPLE_WIDTH)


def pcm_to_mulaw(pcm: bytes) -> bytes:
    """Encodes; one byte for each two. Raises `audioop.error` if half a sample is left over."""
    return audioop.lin2ulaw(pcm, _SAMPLE_WIDTH)


def level_db(mulaw: bytes) -> float:
    """The rms level of a stretch in dBov (0 is a full-scale square wave, less is negative), QUIETEST_DB if nothing sounds."""
    rms = audioop.rms(audioop.ulaw2lin(mulaw, _SAMPLE_WIDTH), _SAMPLE_WIDTH)
    return 20 * log10(rms / _OVERLOAD) if rms else QUIETEST_DB
