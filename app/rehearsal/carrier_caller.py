"""Who calls: the telephone in the caller's hand, and callers without a voice of their own for tests and load.

The telephone works on the call's media clock: what "after 600 ms" means is counted in audio, not on the wall. Its waits end with
`LineDead` when the call is over, so that a caller's script simply stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.rehearsal import ulaw
from app.rehearsal.line import BYTES_PER_MS, FRAME

LOUD = 250
"""A sample above this (of 32,768; -42 dBFS) is sound, below it is the line."""
BREATH_MS = 350
"""A gap shorter than this, inside what the agent says, is no end of it."""

_LOUD = np.abs(ulaw.to_linear(bytes(range(256))).astype(np.int32)) > LOUD


class LineDead(Exception):
    """The call is over; nobody can be heard any more."""


class Switch(Protocol):
    """What the telephone is connected to."""

    def hang_up(self) -> None:
        """The receiver was put down."""

    def press(self, digit: str) -> None:
        """A key was pressed."""

    def tell(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """Something was noticed on the telephone."""


class Handset:
    """Microphone, ear, keys and cradle. Times are milliseconds of the call's media clock."""

    def __init__(self, switch: Switch, noise: NDArray[np.int16] | None = None) -> None:
        self._switch = switch
        self._noise, self._noise_at = noise, 0
        self._speech = bytearray()
        self._now = 0
        self._loud_from: int | None = None
        self._loud_to: int | None = None
        self._audible = False
        self._frames = 0
        self._fell_silent: int | None = None
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._over = False
        self.said_bytes = 0
        """Speech that has left the microphone."""

    # ---- the line's side

    def frame(self) -> bytes:
        """The microphone's next 20 ms."""
        speech = bytes(self._speech[:FRAME])
        del self._speech[:FRAME]
        self._frames += 1
        if speech:
            self.said_bytes += len(speech)
            self._fell_silent = (self._frames - 1) * FRAME + len(speech)
        speech += ulaw.SILENCE * (FRAME - len(speech))
        if self._noise is None:
            return speech
        bed = np.take(self._noise, np.arange(self._noise_at, self._noise_at + FRAME), mode="wrap")
        self._noise_at += FRAME
        mixed = ulaw.to_linear(speech).astype(np.int32) + bed
        return ulaw.to_ulaw(np.clip(mixed, -32_768, 32_767).astype(np.int16))

    def hear(self, at: int, payload: bytes) -> None:
        """The ear: note from when to when there was sound."""
        loud = np.flatnonzero(_LOUD[np.frombuffer(payload, np.uint8)])
        if not loud.size:
            return
        first, last = at + int(loud[0]), at + int(loud[-1])
        if self._loud_to is None or first - self._loud_to > BREATH_MS * BYTES_PER_MS:
            self._loud_from = first
            waited = None if self._fell_silent is None else (first - self._fell_silent) // BYTES_PER_MS
            self._switch.tell("agent_audible", {"after_caller_ms": waited})
            self._audible = True
        self._loud_to = last

    def tick(self, now: int) -> None:
        """The clock has come to `now`: wake whoever waits for what has come true."""
        self._now = now
        if self._audible and self.quiet_ms > BREATH_MS:
            self._audible = False
            self._switch.tell("agent_quiet", {"spoke_ms": ((self._loud_to or 0) - (self._loud_from or 0)) // BYTES_PER_MS})
        for entry in [entry for entry in self._waiting if entry[0]()]:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)

    def dead(self) -> None:
        """The call is over."""
        self._over = True
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(LineDead())
        self._waiting.clear()

    # ---- the caller's side

    @property
    def now_ms(self) -> int:
        """The media clock."""
        return self._now // BYTES_PER_MS

    @property
    def agent_spoke_ms(self) -> int:
        """How long what is being heard now has lasted; 0 while nobody is heard."""
        if self._loud_from is None or self._loud_to is None or self.quiet_ms > BREATH_MS:
            return 0
        return (self._loud_to - self._loud_from) // BYTES_PER_MS

    @property
    def quiet_ms(self) -> int:
        """How long nothing has been heard; since the beginning, if nothing ever was."""
        return (self._now - (self._loud_to or 0)) // BYTES_PER_MS

    def heard_since(self, at_ms: int) -> bool:
        """Whether anything was heard after `at_ms`."""
        return self._loud_to is not None and self._loud_to >= at_ms * BYTES_PER_MS

    async def until(self, true: Callable[[], bool], *, within_ms: int | None = None) -> bool:
        """Wait for something to come true, at most so long; whether it did. Raises `LineDead` when the call ends."""
        if self._over:
            raise LineDead
        deadline = None if within_ms is None else self._now + within_ms * BYTES_PER_MS
        met = False

        def due() -> bool:
            nonlocal met
            met = true()
            return met or (deadline is not None and self._now >= deadline)

        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((due, future))
        await future
        return met

    async def pause(self, ms: int) -> None:
        """Let time pass on the line; before the answer there is no time."""
        end = self._now + ms * BYTES_PER_MS
        await self.until(lambda: self._now >= end)

    async def answered(self) -> None:
        """Wait until the call has been answered."""
        await self.until(lambda: self._now > 0)

    def begin(self, speech: bytes) -> None:
        """Begin to speak; who is speaking already goes on first."""
        self._speech += speech

    def stop_speaking(self) -> None:
        """Fall silent in mid-word."""
        self._speech.clear()

    async def say(self, speech: bytes) -> None:
        """Speak and wait until the last of it has left."""
        self.begin(speech)
        await self.until(lambda: not self._speech)

    async def press(self, digits: str, *, gap_ms: int = 250) -> None:
        """Press keys one after the other."""
        for digit in digits:
            if self._over:
                raise LineDead
            self._switch.press(digit)
            await self.pause(gap_ms)

    def hang_up(self) -> None:
        """Put the receiver down."""
        self._switch.hang_up()


class Caller(Protocol):
    """Somebody who calls. `noise` is heard all the time in the caller's microphone, in a loop; None is a quiet room."""

    noise: NDArray[np.int16] | None

    async def run(self, phone: Handset) -> None:
        """Live through the call. To come back is to stay silent on the line, not to hang up."""


@dataclass(slots=True)
class Scripted:
    """A caller without a voice: given bytes of line audio, keys, and a time to hang up.

    `audio` is sent from the answer on, then silence, or again and again with `loop`. `script` is run instead of all that.
    """

    audio: bytes = field(default=b"", repr=False)
    loop: bool = False
    digits: str = ""
    hang_up_after_ms: int | None = None
    script: Callable[[Handset], Awaitable[None]] | None = None
    noise: NDArray[np.int16] | None = None

    async def run(self, phone: Handset) -> None:
        """Do as written."""
        await phone.answered()
        if self.script is not None:
            await self.script(phone)
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._speak(phone))
            if self.digits:
                tasks.create_task(phone.press(self.digits))
            if self.hang_up_after_ms is not None:
                await phone.pause(self.hang_up_after_ms)
                phone.hang_up()

    async def _speak(self, phone: Handset) -> None:
        if self.audio:
            await phone.say(self.audio)
            while self.loop:
                await phone.say(self.audio)
