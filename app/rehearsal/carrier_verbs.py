"""The verbs of the pretend carrier that take a while: its own announcements, `<Play>`, `<Gather>` and `<Dial>`.

Each is a coroutine that may be cancelled at any moment: the document was abandoned.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import wave
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from app.rehearsal import carrier_forms as forms
from app.rehearsal import twiml, ulaw
from app.rehearsal.carrier_plans import DialPlan
from app.rehearsal.carrier_web import WebhookFailed
from app.rehearsal.line import BYTES_PER_MS, Playout

if TYPE_CHECKING:
    from app.rehearsal.carrier_call import Call


class Announcement:
    """The carrier speaks to the caller itself."""

    def __init__(self, audio: bytes, at: int) -> None:
        self.playout = Playout(at)
        self.playout.append(audio, at=at)
        self.playout.mark("end")
        self.over = asyncio.Event()

    def caller_audio(self, frame: bytes) -> None:
        """Nobody listens."""

    def marks_due(self, names: list[str]) -> None:
        """The last sound was played."""
        self.over.set()


async def gather(call: Call, verb: twiml.Gather) -> list[tuple[str, str]] | None:
    """Play the prompts and collect keys; the fields for `action`, or None if nothing was pressed and nothing is asked."""
    call.keys = asyncio.Queue()
    prompts = asyncio.create_task(_prompt(call, verb))
    digits, finished = "", False
    waiting: set[asyncio.Task[Any]] = {prompts}
    try:
        while not finished and (verb.num_digits is None or len(digits) < verb.num_digits):
            key = asyncio.create_task(call.keys.get())
            waiting.add(key)
            await asyncio.wait({key, prompts}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({key}, timeout=verb.timeout_ms / 1_000)
            if not key.done():
                break
            waiting.discard(key)
            prompts.cancel()  # a key stops the prompt
            finished = key.result() == verb.finish_on_key
            digits += "" if finished else key.result()
    finally:  # also when the caller hangs up in the midst: nobody waits for a key then
        call.keys = None
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    if not digits and not verb.action_on_empty:
        return None
    return [("Digits", digits), ("FinishedOnKey", verb.finish_on_key if finished else "")]


async def _prompt(call: Call, verb: twiml.Gather) -> None:
    for nested in verb.nested:
        await call.verb(nested)


async def fetch_sound(call: Call, url: str) -> bytes:
    """The line audio of a file: a WAV of 16-bit samples at 8 kHz, mono, or raw mu-law. Nothing, and an alert, if it is neither."""
    try:
        answer = await call.webhooks.ask(twiml.Target(url, "GET"), [])
    except WebhookFailed as fault:
        call.alert(twiml.Alert(fault.code, f"{url}: {fault.about}"))
        return b""
    kind = answer.content_type.split(";")[0].strip().lower()
    if kind in ("audio/basic", "audio/x-mulaw"):
        return answer.body
    try:
        with wave.open(io.BytesIO(answer.body)) as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8_000):
                return ulaw.to_ulaw(np.frombuffer(file.readframes(-1), "<i2"))
    except (wave.Error, EOFError):
        pass
    call.alert(twiml.Alert(12300, f"{url}: this carrier plays WAV (16 bit, 8 kHz, mono) and raw mu-law, not {kind or 'nothing'}"))
    return b""


async def dial(call: Call, verb: twiml.Dial) -> list[tuple[str, str]]:
    """Ring another number; the fields that `action` is given. What happens there is the call's plan."""
    plan = call.plan.dials.get(verb.number) or call.plan.dials.get("any", DialPlan())
    child = f"CA{secrets.token_hex(16)}"
    if not (verb.number.startswith("+") and verb.number[1:].isdigit()):
        call.alert(twiml.Alert(13224, "the number to dial is no E.164 number"))
        plan = DialPlan(outcome="failed", ring_ms=0)
    record: dict[str, object] = {"number": verb.number, "leg_sid": child, "outcome": plan.outcome}
    call.dialed.append(record)
    call.tell("dial", {"number": verb.number, "leg_sid": child})
    leg = Leg(call, verb, child)
    call.legs.append(leg)
    try:
        leg.report("initiated", "initiated")
        leg.report("ringing", "ringing")
        ring_ms = min(plan.ring_ms, verb.timeout_ms)
        if call.answered_at is None:  # `answerOnBridge`: the caller's own telephone still rings
            await asyncio.sleep(ring_ms / 1_000)
        elif ring_ms:
            await call.play(_ringback(ring_ms))
        answered = plan.outcome == "answered"
        talked_ms = 0
        if answered:
            call.answer()
            call.tell("dial_answered", {"number": verb.number})
            leg.report("answered", "in-progress")
            talked_ms = await _talk(call, plan)
        status = "completed" if answered else plan.outcome
        record["talked_ms"] = talked_ms
        leg.report("completed", status, -(-talked_ms // 1_000))
    finally:
        leg.drop()  # if the document was abandoned
    call.tell("dial_ended", {"number": verb.number, "status": status})
    fields = [("DialCallStatus", status), ("DialCallSid", child), ("DialBridged", "true" if answered else "false")]
    return [*fields, ("DialCallDuration", str(-(-talked_ms // 1_000)))] if answered else fields


async def _talk(call: Call, plan: DialPlan) -> int:
    began = call.line.now
    if plan.says:
        await call.play(plan.says)
    if plan.talk_ms is None:
        await asyncio.Event().wait()  # until the caller hangs up
    elif (rest := plan.talk_ms - (call.line.now - began) // BYTES_PER_MS) > 0:
        await asyncio.sleep(rest / 1_000)
    return (call.line.now - began) // BYTES_PER_MS


class Leg:
    """A dialed leg: what the books say of it, and its status callbacks, for the events that the document asked for."""

    def __init__(self, call: Call, verb: twiml.Dial, sid: str) -> None:
        self.sid, self.to, self.caller = sid, verb.number, verb.caller_id or call.plan.from_number
        self.status = "queued"
        self.created = datetime.now(UTC)
        self.answered_at: datetime | None = None
        self.ended_at: datetime | None = None
        self._call, self._verb, self._sequence = call, verb, 0

    def drop(self) -> None:
        """End it, if it has not ended."""
        if self.ended_at is None:
            self.status = "canceled" if self.answered_at is None else "completed"
            self.ended_at = datetime.now(UTC)

    def report(self, event: str, status: str, seconds: int = 0) -> None:
        """It has come so far; whoever asked for it is told."""
        self.status = status
        if event == "answered":
            self.answered_at = datetime.now(UTC)
        elif event == "completed":
            self.ended_at = datetime.now(UTC)
        sequence, self._sequence = self._sequence, self._sequence + 1
        if self._verb.status is None or event not in self._verb.status_events:
            return
        fields = forms.standard(self._call.account.sid, self.sid, status, self.caller, self._verb.number)
        fields = [(name, "outbound-dial" if name == "Direction" else value) for name, value in fields]
        fields.append(("ParentCallSid", self._call.sid))
        self._call.courier.send(self._verb.status, forms.status(fields, seconds, sequence))


def _ringback(ms: int) -> bytes:
    """What a caller hears while it rings elsewhere: 440 and 480 Hz, two seconds on, four off (US)."""
    at = np.arange(ms * BYTES_PER_MS)
    tone = 1_500 * (np.sin(2 * np.pi * 440 * at / 8_000) + np.sin(2 * np.pi * 480 * at / 8_000))
    return ulaw.to_ulaw(np.where(at % 48_000 < 16_000, tone, 0).astype(np.int16))
