"""The pretend model's ears: who speaks when, by media time, and what was said.

Rule 1: time is what was appended. 8 samples at 8 kHz are one millisecond, however fast they came.
Rule 2: a frame of 20 ms is voiced if the detector says so and it is loud enough: above the threshold's floor, and within 15 dB of
the loudest recent speech, which fades by 1.5 dB a second (so that a voice from the next room opens no turn).
Rule 3: three voiced frames of four are a start; `silence_ms` without one is a stop.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pocketsphinx
from numpy.typing import NDArray

from app.rehearsal import ulaw
from app.rehearsal.hearing import LINE_RATE, Recognisers, Utterance
from app.rehearsal.rates import Resampler

FRAME_MS = 20
SAMPLES_PER_MS = LINE_RATE // 1_000
FRAME = FRAME_MS * SAMPLES_PER_MS

ONSET = (3, 4)
"""So many voiced frames out of so many are a start."""
GATE_DB = 15.0
FADE_DB = 1.5 * FRAME_MS / 1_000
LONGEST_MS = 30_000
"""An utterance longer than this is not listened to any further; it goes on nevertheless."""


@dataclass(frozen=True, slots=True)
class Detection:
    """When speech begins and ends. `threshold` 0 to 1: the higher, the louder it must be; 0.5 is about -42 dBFS."""

    threshold: float = 0.5
    prefix_ms: int = 300
    silence_ms: int = 500

    @property
    def floor_db(self) -> float:
        """The level, in dB of full scale, below which nothing is speech."""
        return -62.0 + 40.0 * self.threshold


@dataclass(frozen=True, slots=True)
class Started:
    """Speech began. `start_ms` includes the prefix padding."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """Speech ended. `end_ms` includes the silence that it took to be sure; `text` is empty if nothing was understood."""

    start_ms: int
    end_ms: int
    text: str


class Ears:
    """One caller's audio. `detection` None: nothing is detected, and what is said is heard when the buffer is taken."""

    def __init__(self, recognisers: Recognisers) -> None:
        self._recognisers = recognisers
        self._utterance: Utterance | None = None
        self._vad = pocketsphinx.Vad(3, LINE_RATE, FRAME_MS / 1_000)
        self._detection: Detection | None = Detection()
        self._state = "request"
        self._down: Resampler | None = None
        self._rest: NDArray[np.int16] = np.zeros(0, np.int16)
        self._frames: deque[NDArray[np.int16]] = deque()
        """The uncommitted frames that may still be needed."""
        self._kept_from = 0
        self._at = 0
        """Frames heard so far."""
        self._recent: deque[bool] = deque(maxlen=ONSET[1])
        self._loudest = -100.0
        self._began: int | None = None
        self._last_voiced = 0
        self._buffer_from = 0

    # ---- what the session orders

    def take_format(self, kind: str) -> None:
        """`audio/pcmu`, or `audio/pcm` (24 kHz)."""
        self._down = Resampler(24_000, LINE_RATE) if kind == "audio/pcm" else None
        self._rest = np.zeros(0, np.int16)

    def detect(self, detection: Detection | None) -> None:
        """How turns are detected from now on."""
        if detection is None:
            self._forget_speech()
        self._detection = detection

    def expect(self, state: str) -> None:
        """What is likely to be said next: a state of the grammar. It holds from the next utterance on."""
        self._state = state

    # ---- what comes in

    def hear(self, payload: bytes) -> Iterator[Started | Stopped]:
        """The next stretch of audio, in the format taken; what it tells, in order."""
        if self._down is not None:
            samples = np.frombuffer(payload[: len(payload) & ~1], "<i2")
            line = np.clip(np.rint(self._down.feed(samples)), -32_768, 32_767).astype(np.int16)
        else:
            line = ulaw.to_linear(payload)
        self._rest = np.concatenate([self._rest, line])
        while len(self._rest) >= FRAME:
            frame, self._rest = self._rest[:FRAME], self._rest[FRAME:]
            self._frames.append(frame)
            self._at += 1
            if self._detection is not None:
                yield from self._listen(frame, self._detection)

    @property
    def now_ms(self) -> int:
        """How much was heard since the beginning."""
        return self._at * FRAME_MS + len(self._rest) // SAMPLES_PER_MS

    @property
    def uncommitted_ms(self) -> int:
        """How much was heard since the buffer was last taken or cleared."""
        return self.now_ms - self._buffer_from

    @property
    def speaking(self) -> bool:
        """An utterance has begun and not ended."""
        return self._began is not None

    def clear(self) -> None:
        """Drop what was not taken."""
        self._forget_speech()
        self._drop_frames(0)
        self._buffer_from = self.now_ms

    def take(self) -> Stopped:
        """The buffer as an utterance, by the client's order."""
        if self._began is not None:
            return self._stop()
        start_ms = self._buffer_from
        text = ""
        if self._detection is None:
            utterance = self._recognisers.begin(self._state)
            for frame in list(self._frames)[: LONGEST_MS // FRAME_MS]:
                utterance.feed(frame)
            text = utterance.end()
        return self._taken(start_ms, self.now_ms, text)

    # ---- detection

    def _listen(self, frame: NDArray[np.int16], detection: Detection) -> Iterator[Started | Stopped]:
        voiced = self._is_voiced(frame, detection)
        self._recent.append(voiced)
        if voiced:
            self._last_voiced = self._at
        if self._began is None:
            if sum(self._recent) >= ONSET[0]:
                yield self._start(detection)
            else:
                self._drop_frames(detection.prefix_ms // FRAME_MS + ONSET[1])
            return
        if self._utterance is not None and (self._at - self._began) * FRAME_MS < LONGEST_MS:
            self._utterance.feed(frame)
        self._drop_frames(0)
        if (self._at - self._last_voiced) * FRAME_MS >= detection.silence_ms:
            yield self._stop()

    def _is_voiced(self, frame: NDArray[np.int16], detection: Detection) -> bool:
        level = 10 * np.log10(np.mean(frame.astype(np.float64) ** 2) / 32_768**2 + 1e-12)
        self._loudest -= FADE_DB
        if not self._vad.is_speech(frame.astype("<i2").tobytes()):
            return False
        self._loudest = max(self._loudest, level)
        return bool(level >= max(detection.floor_db, self._loudest - GATE_DB))

    def _start(self, detection: Detection) -> Started:
        first = self._at - len(self._recent) + list(self._recent).index(True)
        self._began = max(first - detection.prefix_ms // FRAME_MS, self._kept_from)
        self._utterance = self._recognisers.begin(self._state)
        for frame in list(self._frames)[self._began - self._kept_from :]:
            self._utterance.feed(frame)
        self._drop_frames(0)
        return Started(self._began * FRAME_MS)

    def _stop(self) -> Stopped:
        assert self._began is not None
        start_ms, self._began = self._began * FRAME_MS, None
        # What of an append has not been looked at yet is behind the end.
        return self._taken(start_ms, self._at * FRAME_MS, self._understood())

    def _taken(self, start_ms: int, end_ms: int, text: str) -> Stopped:
        self._recent.clear()
        self._drop_frames(0)
        self._buffer_from = end_ms
        return Stopped(start_ms, end_ms, text)

    def _understood(self) -> str:
        utterance, self._utterance = self._utterance, None
        return utterance.end() if utterance is not None else ""

    def _forget_speech(self) -> None:
        self._understood()
        self._began = None
        self._recent.clear()

    def _drop_frames(self, keep: int) -> None:
        while len(self._frames) > keep:
            self._frames.popleft()
        self._kept_from = self._at - len(self._frames)
