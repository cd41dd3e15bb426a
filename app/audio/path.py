"""How sound goes between the line and the model: transcoded, or untouched. One `AudioPath` a call, both ways in it.

Rule 1: each way is a stream. It may be cut anywhere on its way in; what comes out is what is due, and may be empty.
Rule 2: a stretch that has been flushed is as long on the other side as it was, so bytes may be counted as milliseconds.
Rule 3: to the caller, each utterance is a stream of its own: flushed when the model has said its last, restarted when
it is cut off.
"""

from typing import Final, Protocol

from app.audio import g711
from app.audio.resampling import Downsampler, Upsampler
from app.errors import BadSetting


class AudioPath(Protocol):
    """Sound in both directions. The line is G.711 mu-law at 8 kHz; the model has its `model_format`."""

    @property
    def model_format(self) -> str:
        """What the model speaks and hears: `audio/pcm` (PCM16, little-endian, 24 kHz) or `audio/pcmu` (mu-law, 8 kHz)."""

    @property
    def bytes_per_ms_model(self) -> int:
        """How many bytes of the model's format are a millisecond: 48 or 8."""

    def caller_to_model(self, mulaw: bytes) -> bytes:
        """Gives what is due for the model after the next stretch from the caller."""

    def flush_to_model(self) -> bytes:
        """Gives the last of the caller's sound, and begins anew."""

    def model_to_caller(self, sound: bytes) -> bytes:
        """Gives what is due for the caller after the next stretch from the model, cut anywhere, also within a sample."""

    def flush_to_caller(self) -> bytes:
        """Gives the last of an utterance, and begins anew."""

    def restart_to_caller(self) -> None:
        """Forgets an utterance that was cut off, so that nothing of it is in the next."""


class Transcoder:
    """Linear, band-limited sound for the model. Each way is 1.5 ms late."""

    model_format: Final = "audio/pcm"
    bytes_per_ms_model: Final = 48

    def __init__(self) -> None:
        self._up = Upsampler()
        self._down = Downsampler()

    def caller_to_model(self, mulaw: bytes) -> bytes:
        return self._up.feed(g711.mulaw_to_pcm(mulaw))

    def flush_to_model(self) -> bytes:
        return self._up.flush()

    def model_to_caller(self, sound: bytes) -> bytes:
        return g711.pcm_to_mulaw(self._down.feed(sound))

    def flush_to_caller(self) -> bytes:
        return g711.pcm_to_mulaw(self._down.flush())

    def restart_to_caller(self) -> None:
        self._down.reset()


class Passthrough:
    """The line's own bytes for the model, which takes mu-law too. Nothing is decoded, kept or late."""

    model_format: Final = "audio/pcmu"
    bytes_per_ms_model: Final = g711.BYTES_PER_MS

    def caller_to_model(self, mulaw: bytes) -> bytes:
        return mulaw

    def flush_to_model(self) -> bytes:
        return b""

    def model_to_caller(self, sound: bytes) -> bytes:
        return sound

    def flush_to_caller(self) -> bytes:
        return b""

    def restart_to_caller(self) -> None:
        """There is nothing to forget."""


_PATHS: dict[str, type[Transcoder] | type[Passthrough]] = {"transcode": Transcoder, "passthrough": Passthrough}


def audio_path(name: str) -> AudioPath:
    """A fresh path for a call: `transcode` or `passthrough`. Raises BadSetting for any other name."""
    if name not in _PATHS:
        raise BadSetting([("AUDIO_PATH", f"no such path: {name!r}", f"set it to one of {', '.join(_PATHS)}")])
    return _PATHS[name]()
