"""A caller who plays a scene: speaks its lines, waits, interrupts, presses keys, hangs up.

Rule 1: all lines are made into sound before the call begins, so that no synthesis delays the line's clock.
Rule 2: what the agent said is known from outside (`agent_said`). Where nobody tells, questions are answered in the order of the
scene's answers.
Rule 3: a caller who is stuck says why (`troubles`) and hangs up; waiting is bounded by the step.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.rehearsal import ulaw
from app.rehearsal.carrier_caller import Handset, LineDead
from app.rehearsal.carrier_plans import CallPlan, DialPlan
from app.rehearsal.line import BYTES_PER_MS
from app.rehearsal.scenes import WITHIN_MS, Noise, Person, Reply, Scene, Step

VOICE_LEVEL = 3_000.0
"""Root mean square of a caller's voice; noise is measured against it."""
BED_SECONDS = 20
PATIENCE = 6
"""How often a caller gives the same answer."""

type Speak = Callable[[str, Person], bytes]
"""Line audio of a caller's sentence."""


class Stuck(Exception):
    """The scene does not go on as written."""


def noise_bed(noise: Noise, seed: int) -> NDArray[np.int16] | None:
    """Some seconds of noise, to be repeated: `room` and `white` are flat, `pink` falls 3 dB an octave; `none` is None."""
    if noise.kind == "none":
        return None
    dice = np.random.default_rng(seed)
    count = BED_SECONDS * 8_000
    sound = dice.standard_normal(count)
    if noise.kind == "pink":
        spectrum = np.fft.rfft(sound)
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 50 * BED_SECONDS))  # flat below 50 Hz
        sound = np.fft.irfft(spectrum, count)
    level = VOICE_LEVEL / 10 ** (noise.snr_db / 20)
    return np.clip(np.rint(sound * level / sound.std()), -32_768, 32_767).astype(np.int16)


def call_plan(scene: Scene, speak: Speak) -> CallPlan:
    """How the carrier carries this scene."""
    dials = {
        number: DialPlan(
            outcome=plan.outcome,
            ring_ms=plan.ring_ms,
            talk_ms=plan.talk_ms,
            says=speak(plan.says, scene.person) if plan.says else b"",
        )
        for number, plan in scene.dials.items()
    }
    return CallPlan(from_number=scene.person.number, dials=dials, time_limit_ms=scene.time_limit_ms)


class SceneCaller:
    """The scene's caller. `tell` reports what is done, as an event."""

    def __init__(self, scene: Scene, speak: Speak, tell: Callable[[str, Mapping[str, Any]], None]) -> None:
        self.scene = scene
        self.noise = noise_bed(scene.person.noise, scene.person.seed)
        self.troubles: list[str] = []
        self.agent_known = False
        """Whether anybody tells us what the agent says."""
        self._tell = tell
        self._sounds = {text: speak(text, scene.person) for text in scene.lines}
        self._dice = random.Random(scene.person.seed)
        self._agent_text: list[str] = []
        self._used = [0] * len(scene.replies)
        self._since_ms = 0
        """When the caller last fell silent; what is waited for was heard after that."""

    def agent_said(self, text: str) -> None:
        """Hear from outside what the agent says; it may come before the sound does."""
        self.agent_known = True
        self._agent_text.append(text)

    async def run(self, phone: Handset) -> None:
        """Play the scene. At its end the caller stays on the line and says nothing."""
        try:
            await phone.answered()
            for step in self.scene.steps:
                await self._step(phone, step)
        except Stuck as stuck:
            self.troubles.append(str(stuck))
            self._tell("stuck", {"why": str(stuck)})
            phone.hang_up()

    async def _step(self, phone: Handset, step: Step) -> None:
        match step.word:
            case "say":
                await self._say(phone, step.value, hang_up_after_ms=step.hang_up_after_ms)
            case "wait_for_agent":
                await self._listen(phone, step.value, step.within_ms)
            case "interrupt":
                await self._interrupt(phone, step)
            case "pause":
                await phone.pause(step.value)
            case "press":
                await self._press(phone, step.value)
            case "hang_up":
                self._tell("caller_hangs_up", {})
                phone.hang_up()
            case "expect_silence":
                await self._silence(phone, step.value)
            case "converse":
                await self._converse(phone, step)
            case other:
                raise ValueError(f"no such step: {other}")

    async def _say(self, phone: Handset, text: str, *, hang_up_after_ms: int | None = None) -> None:
        self._agent_text.clear()
        sound = self._sounds[text]
        self._tell("caller_says", {"text": text, "ms": len(sound) // BYTES_PER_MS})
        if hang_up_after_ms is not None:
            if hang_up_after_ms * BYTES_PER_MS >= len(sound):
                raise Stuck(f"{text!r} lasts only {len(sound) // BYTES_PER_MS} ms; no hanging up in it after {hang_up_after_ms} ms")
            phone.begin(sound)
            await phone.pause(hang_up_after_ms)
            phone.hang_up()
            raise LineDead
        await phone.say(sound)
        self._since_ms = phone.now_ms

    async def _press(self, phone: Handset, digits: str) -> None:
        self._agent_text.clear()
        await phone.press(digits)
        self._since_ms = phone.now_ms

    async def _listen(self, phone: Handset, quiet_ms: int, within_ms: int) -> None:
        """Wait until the agent has been heard, and then until it is quiet; each within the bound."""
        since = self._since_ms
        if not await phone.until(lambda: phone.heard_since(since), within_ms=within_ms):
            raise Stuck(f"the agent was not heard within {within_ms} ms")
        if not await phone.until(lambda: phone.quiet_ms >= quiet_ms, within_ms=max(within_ms, WITHIN_MS)):
            raise Stuck(f"the agent spoke on for {within_ms} ms without a pause of {quiet_ms} ms")

    async def _interrupt(self, phone: Handset, step: Step) -> None:
        since = self._since_ms
        speaking = await phone.until(
            lambda: phone.heard_since(since) and phone.agent_spoke_ms >= step.after_ms, within_ms=step.within_ms
        )
        if not speaking:
            raise Stuck(f"the agent did not speak for {step.after_ms} ms within {step.within_ms} ms, so nobody could interrupt")
        await self._say(phone, step.value)

    async def _silence(self, phone: Handset, ms: int) -> None:
        began = phone.now_ms
        if await phone.until(lambda: phone.heard_since(began + 20), within_ms=ms):
            raise Stuck(f"the agent spoke {phone.now_ms - began} ms into {ms} ms of expected silence")

    async def _converse(self, phone: Handset, step: Step) -> None:
        for _ in range(step.turns):
            await self._listen(phone, step.quiet_ms, step.within_ms)
            text = " ".join(self._agent_text)
            if step.until is not None and step.until.search(text):
                return
            if (reply := self._reply_to(text)) is None:
                self._since_ms = phone.now_ms  # perhaps the agent goes on: "One moment." and then the question
                continue
            await phone.pause(reply.pause_ms + self._dice.randrange(0, 120))
            await self._answer(phone, reply)
        raise Stuck(f"after {step.turns} turns the conversation was still not over")

    def _reply_to(self, text: str) -> Reply | None:
        for at, reply in enumerate(self.scene.replies):
            if reply.when.search(text) if self.agent_known else not self._used[at]:
                return reply
        return None

    async def _answer(self, phone: Handset, reply: Reply) -> None:
        at = self.scene.replies.index(reply)
        nth, self._used[at] = self._used[at], self._used[at] + 1
        if nth >= PATIENCE:
            raise Stuck(f"the agent asked for the same thing {nth + 1} times: {' '.join(self._agent_text)!r}")
        if reply.then_stay_silent:
            self._agent_text.clear()
            self._since_ms = phone.now_ms
        if reply.say:
            await self._say(phone, reply.say[min(nth, len(reply.say) - 1)])
        if reply.press:
            await self._press(phone, reply.press)
        if reply.hang_up:
            self._tell("caller_hangs_up", {})
            phone.hang_up()
            raise LineDead


def spoken(text: str, person: Person) -> bytes:
    """Line audio of a sentence in the caller's voice. Imports the voice, so only a process of the rehearsal may call it."""
    from app.rehearsal.voice import say

    return ulaw.to_ulaw(say(text, voice=person.voice, rate=8_000, words_per_minute=person.words_per_minute))
