"""Sound that says where it is from, so that a stretch of audio can be recognised at the far end of any bridge.

A caller's frame (20 ms) holds one level throughout, and the levels of following frames run through a ring of 128: whoever meets a
sample from the middle of a frame knows the frame's number, modulo 128 (2.56 s). The agent's responses hold one level each, out of
ten that lie far apart. A constant survives any resampler: only where the level changes does a filter ring, for its own length. So
one and the same sound serves passing through (where every byte must be the sent one) and transcoding (where samples are counted).

Units: line bytes are G.711 mu-law at 8 kHz, 8 a millisecond; PCM is 16 bit, 24 kHz, 48 bytes a millisecond, 6 for each line byte.
"""

import base64

import audioop

FRAME = 160
FRAME_MS = 20
BYTES_PER_MS = 8
DELTA_MS = 100
RING = 128

PCMU = "audio/pcmu"
PCM = "audio/pcm"
BYTES_PER_LINE_BYTE = {PCMU: 1, PCM: 6}

SILENCE = 0xFF

# Codes 0x10 to 0x4F and 0x90 to 0xCF: the loud half of either sign, so that a filter's ripple cannot reach the next level.
# Neighbours in time are neighbours in level, but for one jump in the ring, so a filter has little to ring about.
CALLER_RING = bytes((*range(0x10, 0x50), *range(0xCF, 0x8F, -1)))
CALLER_PLACE = tuple(CALLER_RING.index(code) if code in CALLER_RING else -1 for code in range(256))

CALLER_BASE64 = tuple(base64.b64encode(bytes([code]) * FRAME) for code in CALLER_RING)

VOICES = bytes((0x18, 0x28, 0x38, 0x48, 0x58, 0x98, 0xA8, 0xB8, 0xC8, 0xD8))


def linear(code: int) -> int:
    """The 16-bit value of a mu-law code."""
    return int.from_bytes(audioop.ulaw2lin(bytes([code]), 2), "little", signed=True)


def _voice_of(code: int) -> int:
    """Which voice a received code is: the level within 3 %, else -1 (the voices lie a factor of two apart)."""
    value = linear(code)
    for place, voice in enumerate(VOICES):
        meant = linear(voice)
        if abs(value - meant) <= abs(meant) * 0.03:
            return place
    return -1


VOICE_OF = tuple(_voice_of(code) for code in range(256))


def delta(voice: int, media_type: str) -> bytes:
    """One delta (100 ms) of a voice, in base64, as the model would send it."""
    size = DELTA_MS * BYTES_PER_MS
    if media_type == PCMU:
        return base64.b64encode(bytes([VOICES[voice]]) * size)
    return base64.b64encode(linear(VOICES[voice]).to_bytes(2, "little", signed=True) * (size * 3))


def code_of_pcm(sample: bytes) -> int:
    """The mu-law code nearest to one 16-bit sample."""
    return audioop.lin2ulaw(sample, 2)[0]
