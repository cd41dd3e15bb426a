"""The telephone line of one pretend call: its media clock, the carrier's playout buffer, and what was said and heard on it.

Rule 1: positions are bytes of line audio since the call was answered (G.711 mu-law at 8 kHz: 8 bytes are one millisecond). The
clock is monotonic; a late line catches up and never drifts.
Rule 2: the playout buffer is a true one. Audio is appended, played at 8 bytes a millisecond, and what the caller heard is known to
the byte. A mark is echoed when everything before it was played, at once if nothing is queued; a clear drops the audio and gives all
outstanding marks back at once (twilio.com, Media Streams, WebSocket messages).
Rule 3: nobody may stop the clock. Whoever is slow is written to by a task of its own.
"""

import asyncio
import time
import wave
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from app.rehearsal import ulaw

BYTES_PER_MS = 8
FRAME = 160
"""20 ms."""


class Playout:
    """The carrier's buffer between a peer's media messages and the caller's ear. Pure: the time is an argument."""

    def __init__(self, at: int = 0) -> None:
        self._at = at
        self._queue: deque[bytes | str] = deque()
        self._head = 0
        self.queued = 0
        """Bytes waiting to be played."""
        self.thrown_away = 0
        """Bytes that clears dropped."""

    def append(self, payload: bytes, *, at: int) -> None:
        """Queue audio that arrived at `at`. Call `advance(at)` first, so that idle time is not played."""
        if not self.queued:
            self._at = max(self._at, at)
        if payload:
            self._queue.append(payload)
            self.queued += len(payload)

    def mark(self, name: str) -> None:
        """Put a bookmark behind what is queued."""
        self._queue.append(name)

    def clear(self) -> list[str]:
        """Drop all audio; the outstanding marks, in order, which go back at once."""
        marks = [entry for entry in self._queue if isinstance(entry, str)]
        self._queue.clear()
        self.thrown_away += self.queued
        self.queued, self._head = 0, 0
        return marks

    def advance(self, to: int) -> tuple[list[tuple[int, bytes]], list[str]]:
        """Play up to position `to`: the pieces heard with where each began, and the marks that are due."""
        pieces: list[tuple[int, bytes]] = []
        marks: list[str] = []
        while self._queue:
            entry = self._queue[0]
            if isinstance(entry, str):
                marks.append(entry)
                self._queue.popleft()
                continue
            room = to - self._at
            if room <= 0:
                break
            piece = entry[self._head : self._head + room]
            pieces.append((self._at, piece))
            self._at += len(piece)
            self._head += len(piece)
            self.queued -= len(piece)
            if self._head == len(entry):
                self._queue.popleft()
                self._head = 0
        return pieces, marks

    @property
    def next_mark(self) -> int | None:
        """The position at which the next mark will be due; None if there is none."""
        ahead = -self._head
        for entry in self._queue:
            if isinstance(entry, str):
                return self._at + ahead
            ahead += len(entry)
        return None


class Player(Protocol):
    """What is on the other end of the line just now: a media stream, or the carrier's own announcement."""

    playout: Playout

    def caller_audio(self, frame: bytes) -> None:
        """The caller's next 20 ms."""

    def marks_due(self, names: list[str]) -> None:
        """These bookmarks were reached, in this order."""


class Phone(Protocol):
    """The caller's end of the line."""

    def frame(self) -> bytes:
        """The microphone's next 20 ms: 160 bytes."""

    def hear(self, at: int, payload: bytes) -> None:
        """The caller hears this, from position `at` on."""

    def tick(self, now: int) -> None:
        """The clock has come to `now`."""


class Recording:
    """Both sides of a call on its own clock, byte-exact: what the caller said, and what the caller heard."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.heard: list[tuple[int, bytes]] = []
        """What was played, with where it began; contiguous pieces are joined."""
        self._end = -1

    def hear(self, at: int, piece: bytes) -> None:
        """Add what the caller heard from `at` on."""
        if at == self._end:
            begun, before = self.heard[-1]
            self.heard[-1] = (begun, before + piece)
        else:
            self.heard.append((at, piece))
        self._end = at + len(piece)

    @property
    def heard_bytes(self) -> int:
        """How much was played to the caller."""
        return sum(len(piece) for _, piece in self.heard)

    def right(self) -> bytes:
        """The caller's ear as one stretch of mu-law, silence where nothing was played."""
        length = max(len(self.said), *(at + len(piece) for at, piece in self.heard), 0)
        ear = bytearray(ulaw.SILENCE * length)
        for at, piece in self.heard:
            ear[at : at + len(piece)] = piece
        return bytes(ear)

    def save(self, path: Path) -> None:
        """Write a stereo WAV, 16 bit, 8 kHz: the caller left, what the caller heard right."""
        right = ulaw.to_linear(self.right())
        left = np.zeros(len(right), np.int16)
        left[: len(self.said)] = ulaw.to_linear(bytes(self.said))
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(1_000 * BYTES_PER_MS)
            file.writeframes(np.column_stack([left, right]).astype("<i2").tobytes())


class Line:
    """The clock of an answered call. `run` it as a task; it lasts until `hang_up`."""

    def __init__(self, phone: Phone, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._phone, self._clock = phone, clock
        self._began: float | None = None
        self._frames = 0
        self._player: Player | None = None
        self._wake = asyncio.Event()
        self.recording = Recording()
        self.over = False
        self.late_frames = 0
        """Frames sent more than one frame's time too late: this process was too slow to be a fair carrier."""

    @property
    def now(self) -> int:
        """Where the clock stands."""
        return 0 if self._began is None else int((self._clock() - self._began) * 1_000 * BYTES_PER_MS)

    @property
    def player(self) -> Player | None:
        """Who is on the other end just now."""
        return self._player

    def attach(self, player: Player | None) -> None:
        """Connect the caller with someone else, or with nobody; what the one before had queued is lost."""
        self.play()
        if self.over:
            return
        self._player = player
        self._wake.set()

    def play(self) -> None:
        """Bring the playout to the present moment. Whoever is about to change the buffer calls this first."""
        if (player := self._player) is None:
            return
        pieces, marks = player.playout.advance(self.now)
        for at, piece in pieces:
            self.recording.hear(at, piece)
            self._phone.hear(at, piece)
        if marks:
            player.marks_due(marks)

    def changed(self) -> None:
        """A mark was queued or thrown away: the clock may have to look earlier than at the next frame."""
        self._wake.set()

    def hang_up(self) -> None:
        """End the clock."""
        self.play()
        self._player = None
        self.over = True
        self._wake.set()

    async def run(self) -> None:
        """Keep time: a frame every 20 ms, each mark when it is due."""
        self._began = self._clock()
        while not self.over:
            self._catch_up()
            due = (self._frames + 1) * FRAME
            if self._player is not None and (mark := self._player.playout.next_mark) is not None:
                due = min(due, mark)
            # One byte more, since the clock is cut down to whole bytes: waking a hair early would only wake us again.
            wait = self._began + (due + 1) / (1_000 * BYTES_PER_MS) - self._clock()
            self._wake.clear()
            if wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)

    def _catch_up(self) -> None:
        now = self.now
        while (self._frames + 1) * FRAME <= now:
            self._frames += 1
            if now - self._frames * FRAME > FRAME:
                self.late_frames += 1
            frame = self._phone.frame()
            self.recording.said += frame
            if self._player is not None:
                self._player.caller_audio(frame)
        self.play()
        self._phone.tick(now)
