"""The rehearsal's voice: text to samples by espeak-ng, through the library that `espeakng-loader` carries.

Rule 1: espeak-ng keeps its state for the whole process. Voice, parameters and synthesis stand behind one lock.
Rule 2: espeak-ng is GPL-3. Only processes of the rehearsal import this module, never the service.
Rule 3: a sentence is made whole: 7 s of speech take about 10 ms, so streaming it would gain nothing.
Rule 4: the same text, voice and pace give the same samples, in every process. espeak-ng carries phases and noise
over from one sentence to the next and has no call to reset them, so the library is loaded afresh for each, which takes
about a millisecond.

POSIX only: the standard library unloads a shared library nowhere else.
"""

import _ctypes
import ctypes
import re
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from app.errors import WorldFault
from app.rehearsal.rates import resample

type Samples = NDArray[np.int16]

WORDS_PER_MINUTE = 165


@dataclass(frozen=True, slots=True)
class _Timbre:
    """An espeak-ng voice with variant, and its pitch and range of pitch (0 to 99)."""

    variant: str
    pitch: int = 50
    melody: int = 50


# klatt4 to klatt6 are what the recogniser understands over a telephone line; the accents are hopeless as callers.
_CALLERS = {
    "klatt4": _Timbre("en-us+klatt4"),
    "klatt5": _Timbre("en-us+klatt5"),
    "klatt6": _Timbre("en-us+klatt6"),
}
# The ten built-in voices of the model that we stand in for. Nobody but people has to understand them; they differ
# audibly, that is all.
_AGENTS = {
    "alloy": _Timbre("en-us+klatt2", 45),
    "ash": _Timbre("en-us+m3", 40),
    "ballad": _Timbre("en+m2", 55),
    "cedar": _Timbre("en-us+m7", 35),
    "coral": _Timbre("en-us+f4", 55),
    "echo": _Timbre("en-us+m1", 45),
    "marin": _Timbre("en-us+f2", 50),
    "sage": _Timbre("en+f3", 45),
    "shimmer": _Timbre("en-us+f5", 60),
    "verse": _Timbre("en-gb-scotland+m4", 50),
}
VOICES = _CALLERS | _AGENTS
"""Every voice by name: callers' (klatt4 to klatt6) and agents' (the model's ten)."""

_LEVEL = 3_000.0
"""Root mean square of the voiced parts, out of 32,768: an ordinary telephone talker (about -21 dBFS)."""
_PEAK = 30_000.0
_QUIET = 60
"""A sample below this at either end of a sentence is silence, and trimmed."""

_HUMS = re.compile(r"\bmm?-hmm?\b", re.IGNORECASE)
"""espeak-ng would spell a hum; what it is given instead sounds like one."""

_RETRIEVE, _UTF8, _AT_CHARACTER = 1, 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_END_OF_LIST, _EVENT_WORD = 0, 1


class VoiceUnavailable(WorldFault):
    """espeak-ng said no. `doing` is a constant, `code` is its own status."""

    def __init__(self, doing: str, code: int) -> None:
        self.doing, self.code = doing, code
        super().__init__(doing, code)

    def __str__(self) -> str:
        return f"espeak-ng could not {self.doing}: status {self.code}"


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Espeak:
    """One sentence's synthesiser: loaded, used once, unloaded (rule 4)."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate: int = self._library.espeak_Initialize(_RETRIEVE, 0, espeakng_loader.get_data_path().encode(), 0)
        if self.rate <= 0:
            raise VoiceUnavailable("start", self.rate)
        self._chunks: list[bytes] = []
        self._words: list[tuple[int, int]] = []
        # Kept as an attribute: the library holds only the pointer.
        self._callback = _Heard(self._take)
        self._library.espeak_SetSynthCallback(self._callback)
        # Its own dice, and those of the C library, which the klatt voices throw.
        self._library.espeak_ng_SetRandSeed(1)
        ctypes.CDLL(None).srand(1)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, count * 2))
        at = 0
        while events[at].type != _EVENT_END_OF_LIST:
            if events[at].type == _EVENT_WORD:
                self._words.append((events[at].text_position - 1, events[at].sample))
            at += 1
        return 0

    def speak(self, text: str, timbre: _Timbre, words_per_minute: int) -> tuple[Samples, list[tuple[int, int]]]:
        """Samples at `rate`, and for each word espeak saw its (first character from 0, first sample)."""
        library, raw = self._library, _HUMS.sub(lambda hum: "um-hum" if len(hum[0]) > 5 else "umhum", text).encode()
        self._order("take the voice", library.espeak_SetVoiceByName(timbre.variant.encode()))
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, timbre.pitch), (_RANGE, timbre.melody)):
            self._order("set a parameter", library.espeak_SetParameter(parameter, value, 0))
        self._order("speak", library.espeak_Synth(raw, len(raw) + 1, 0, _AT_CHARACTER, 0, _UTF8, None, None))
        self._order("finish", library.espeak_Synchronize())
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16), self._words

    def unload(self) -> None:
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)

    @staticmethod
    def _order(doing: str, code: int) -> None:
        if code != 0:
            raise VoiceUnavailable(doing, code)


_one_at_a_time = Lock()


def _synthesised(text: str, timbre: _Timbre, words_per_minute: int) -> tuple[Samples, list[tuple[int, int]], int]:
    with _one_at_a_time:  # rule 1
        espeak = _Espeak()
        try:
            return *espeak.speak(text, timbre, words_per_minute), espeak.rate
        finally:
            espeak.unload()


def _levelled(samples: Samples) -> NDArray[np.float32]:
    sound = samples.astype(np.float32)
    voiced = sound[np.abs(sound) > 2 * _QUIET]
    if not voiced.size:
        return sound
    gain = _LEVEL / float(np.sqrt(np.mean(voiced**2)))
    return sound * min(gain, _PEAK / float(np.abs(sound).max()))


def _starts(text: str, events: list[tuple[int, int]], length: int) -> list[tuple[str, int]]:
    """The first sample of each written word. espeak joins small words ("of the"); those begin with the one before."""
    words: list[tuple[str, int]] = []
    at, cursor, begun = 0, 0, 0
    events = sorted(events)
    for word in text.split():
        at = text.index(word, at)
        at += len(word)
        first: int | None = None
        while cursor < len(events) and events[cursor][0] < at:
            first = events[cursor][1] if first is None else first
            cursor += 1
        begun = max(begun, first if first is not None else begun)
        words.append((word, min(begun, length)))
    return words


@lru_cache(maxsize=512)
def _spoken(text: str, voice: str, rate: int, words_per_minute: int) -> tuple[Samples, tuple[tuple[str, int], ...]]:
    timbre = VOICES[voice]
    if not text.strip():
        return np.zeros(0, np.int16), ()
    samples, events, source = _synthesised(text, timbre, words_per_minute)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _QUIET)
    if not loud.size:
        return np.zeros(0, np.int16), tuple((word, 0) for word in text.split())
    margin = source // 50
    first, last = max(0, int(loud[0]) - margin), min(len(samples), int(loud[-1]) + margin)
    sound = resample(_levelled(samples[first:last]), source, rate)
    whole = np.clip(np.rint(sound), -32_768, 32_767).astype(np.int16)
    whole.setflags(write=False)
    starts = _starts(text, [(at, max(0, sample - first)) for at, sample in events], last - first)
    return whole, tuple((word, round(sample * 1000 / source)) for word, sample in starts)


def say(text: str, *, voice: str = "klatt5", rate: int = 24_000, words_per_minute: int = WORDS_PER_MINUTE) -> Samples:
    """Speak a text: 16-bit samples at `rate` Hz, silence at both ends trimmed to 20 ms. Read-only: they are kept.

    `voice` is one of `VOICES` (KeyError otherwise), `words_per_minute` 80 to 450. Raises VoiceUnavailable if espeak-ng
    refuses.
    """
    return _spoken(text, voice, rate, words_per_minute)[0]


def say_with_words(
    text: str, *, voice: str = "klatt5", rate: int = 24_000, words_per_minute: int = WORDS_PER_MINUTE
) -> tuple[Samples, list[tuple[str, int]]]:
    """As `say`, and beside it each written word with the millisecond it begins at, by espeak's own word events."""
    samples, words = _spoken(text, voice, rate, words_per_minute)
    return samples, list(words)
