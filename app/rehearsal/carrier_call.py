"""One inbound call at the pretend carrier: its webhooks, its documents, its streams, its end.

Rule 1: one loop (`_conduct`) carries out one step at a time. What interrupts it (the caller hangs up, the account updates the call,
the time limit) comes through one queue, abandons the document, and says what is next.
Rule 2: the end is reached once. Afterwards only callbacks are under way, and sometimes the `action` of what was interrupted.
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from app.rehearsal import carrier_forms as forms
from app.rehearsal import twiml
from app.rehearsal.carrier_callbacks import Courier
from app.rehearsal.carrier_caller import Caller, Handset, LineDead
from app.rehearsal.carrier_plans import TERMINAL, Account, CallPlan, Number
from app.rehearsal.carrier_stream import MediaStream, StreamEnd, StreamPlan
from app.rehearsal.carrier_verbs import Announcement, Leg, dial, fetch_sound, gather
from app.rehearsal.carrier_web import HONEST, Answer, Fields, Origins, Tampering, WebhookFailed, Webhooks
from app.rehearsal.line import Line
from app.rehearsal.twiml import Alert, Document, Target, Unreadable

APOLOGY = "We are sorry, an application error has occurred. Goodbye."
MOST_DOCUMENTS = 50
"""Of one call. A service whose documents lead in a circle would otherwise keep us busy for ever."""
EXPECTED_ALERTS = frozenset({31921})
"""Logged on every close by the service, also intended ones: no violation."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Request the next document."""

    target: Target
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Carry out a document."""

    document: Document


@dataclass(frozen=True, slots=True)
class Stop:
    """End the call with this status."""

    status: str
    by: str


type Step = Ask | Run | Stop


class Call:
    """A call that the carrier places to the service. The carrier runs it; tests and scenes look at it and steer it."""

    def __init__(
        self,
        caller: Caller,
        plan: CallPlan,
        *,
        account: Account,
        number: Number,
        origins: Origins,
        webhooks: Webhooks,
        dice: random.Random,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        self.sid = f"CA{secrets.token_hex(16)}"  # never one that the service has seen before, whatever the seed
        self.caller, self.plan, self.account, self.number = caller, plan, account, number
        self.status = "ringing"
        self.created = datetime.now(UTC)
        self.answered_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.handset = Handset(self, caller.noise)
        self.line = Line(self.handset)
        self.streams: list[MediaStream] = []
        self.events: list[dict[str, Any]] = []
        self.alerts: list[Alert] = []
        self.documents: list[Document] = []
        self.dialed: list[dict[str, Any]] = []
        self.legs: list[Leg] = []
        self.announced: list[str] = []
        """What the carrier itself said to the caller."""
        self.over = asyncio.Event()
        """Set when the call has ended and its callbacks have been delivered."""
        self.dice = dice
        self.origins, self.webhooks = origins, webhooks
        self.courier = Courier(webhooks, plan, dice, self.alert)
        self._on_event = on_event
        self._news = asyncio.Event()
        self._began = time.monotonic()
        self._orders: asyncio.Queue[Step] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        """Who runs it; set by the carrier."""
        self._clock: asyncio.Task[None] | None = None
        self._stream: MediaStream | None = None
        self._stream_order: twiml.Stream | None = None
        self.keys: asyncio.Queue[str] | None = None
        """Where keys go while `<Gather>` listens."""

    # ---- what others ask

    @property
    def violations(self) -> list[Alert]:
        """What the debugger complained of, without what is expected of any call."""
        return [alert for alert in self.alerts if alert.code not in EXPECTED_ALERTS]

    @property
    def stream(self) -> MediaStream | None:
        """The live stream, if there is one."""
        return self._stream

    async def happened(self, kind: str, nth: int = 1) -> dict[str, Any]:
        """Wait for the nth event of a kind. Raises `LineDead` if the call ends without it; the caller of this sets the bound."""
        while len(events := [event for event in self.events if event["event"] == kind]) < nth:
            if self.over.is_set():
                raise LineDead
            self._news.clear()
            await self._news.wait()
        return events[nth - 1]

    async def streaming(self, nth: int = 1) -> MediaStream:
        """Wait for the start of the call's nth stream."""
        await self.happened("stream_started", nth)
        stream = self.streams[nth - 1]
        await stream.connected.wait()
        return stream

    def tell(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """Report that something happened; `at_ms` is since the call was placed."""
        event = {"event": kind, "call_sid": self.sid, "at_ms": round((time.monotonic() - self._began) * 1_000), **(facts or {})}
        self.events.append(event)
        self._news.set()
        self._on_event(event)

    def alert(self, alert: Alert) -> None:
        """A line in the carrier's debugger."""
        self.alerts.append(alert)
        self.tell("alert", {"code": alert.code, "about": alert.about})

    # ---- what others order

    def update(self, step: Step) -> None:
        """Abandon what is under way and do this instead: the REST update, the time limit, the caller's hang-up."""
        self._orders.put_nowait(step)

    def hang_up(self) -> None:
        """The caller hangs up."""
        self.update(Stop("completed", "caller"))

    def press(self, digit: str) -> None:
        """The caller presses a key; who listens just now gets it."""
        self.tell("dtmf", {"digit": digit})
        if self._stream is not None:
            self._stream.press(digit)
        elif self.keys is not None:
            self.keys.put_nowait(digit)

    async def ended(self) -> Self:
        """Wait for the end, callbacks included; raises what the caller's script raised. The caller of this sets the bound."""
        if self.task is None:
            raise ValueError("the call has not been placed")
        await asyncio.shield(self.task)
        return self

    async def second_socket(self) -> StreamEnd:
        """Open another socket with the live stream's own parameters, as a thief would; how it ended."""
        if self._stream is None:
            raise LineDead
        thief = MediaStream(
            self._stream.order,
            call_sid=self.sid,
            account_sid=self.account.sid,
            token=self.account.token,
            origins=self.origins,
            line=Line(Handset(self)),
            tell=lambda kind, facts: None,
            alert=lambda alert: None,
            plan=StreamPlan(),
        )
        return await thief.run()

    # ---- its life

    async def run(self) -> None:
        """Place the call and see it to its end."""
        person = asyncio.create_task(self._live())
        limit = asyncio.get_running_loop().call_later(self.plan.time_limit_ms / 1_000, self.update, Stop("completed", "time limit"))
        try:
            await self._conduct()
        finally:
            limit.cancel()
            person.cancel()
            await asyncio.wait({person})
            self._hang_up_line()
            if self._clock is not None:
                await self._clock
            await self.courier.settled()
            self.over.set()
            self._news.set()
        if not person.cancelled() and (fault := person.exception()) is not None:
            raise fault

    async def _live(self) -> None:
        with contextlib.suppress(LineDead):
            try:
                await self.caller.run(self.handset)
            except Exception:
                self.hang_up()
                raise

    def _hang_up_line(self) -> None:
        self.line.hang_up()
        self.handset.dead()

    async def _conduct(self) -> None:
        self.tell("ringing", {"from": self.plan.from_number})
        if self.number.voice_url is None:
            raise ValueError("the number has no voice address")
        step: Step = Ask(Target(self.number.voice_url, self.number.voice_method))
        interruption = asyncio.create_task(self._orders.get())
        try:
            while not isinstance(step, Stop):
                work = asyncio.create_task(self._carry_out(step))
                await asyncio.wait({work, interruption}, return_when=asyncio.FIRST_COMPLETED)
                if interruption.done():
                    step = interruption.result()
                    interruption = asyncio.create_task(self._orders.get())
                    if isinstance(step, Stop):
                        await self._end(step, work)
                        return
                    await self._abandon(work)
                else:
                    step = work.result()
            await self._end(step, None)
        finally:
            interruption.cancel()
            await asyncio.wait({interruption})

    async def _abandon(self, work: asyncio.Task[Step]) -> None:
        """The document ends here: `stop` to the stream, and neither `action` nor the verbs that follow."""
        if self._stream is not None:
            await self._stream.finish()
        work.cancel()
        await asyncio.wait({work})

    async def _end(self, stop: Stop, work: asyncio.Task[Step] | None) -> None:
        """Nothing is sure about the order of `stop`, `action` and status callback: the dice say."""
        order, by_caller = self._stream_order, stop.by == "caller"
        unanswered = self.answered_at is None
        self.status = "canceled" if unanswered and stop.status == "completed" else stop.status
        self.ended_at = datetime.now(UTC)
        self._hang_up_line()
        if self.number.status_callback is not None:
            target = Target(self.number.status_callback, self.number.status_callback_method)
            self.courier.send(target, forms.status(self.fields(), self.duration_s, 0))
        if work is not None:
            await asyncio.sleep(self.dice.uniform(0, 0.1))
            await self._abandon(work)
        still_asked = self.dice.random() < self.plan.action_after_hang_up
        if by_caller and order is not None and order.action is not None and still_asked:
            await asyncio.sleep(self.dice.uniform(0, 0.1))
            await self._request(order.action, self.fields())
        self.tell("ended", {"status": self.status, "by": stop.by, "duration_s": self.duration_s})

    async def _request(self, target: Target, fields: Fields) -> None:
        """Request an address whose document has no audience any more."""
        try:
            await self.webhooks.ask(target, fields)
        except WebhookFailed as fault:
            self.alert(Alert(fault.code, f"{target.url}: {fault.about}"))

    # ---- documents

    async def _carry_out(self, step: Step) -> Step:
        match step:
            case Ask():
                return await self._ask(step)
            case Run(document=document):
                return await self._run(document)
            case Stop():
                return step

    async def _ask(self, ask: Ask) -> Step:
        if len(self.documents) >= MOST_DOCUMENTS:
            self.alert(Alert(12000, "the documents lead in a circle"))
            return Stop("completed", "application error")
        first = not self.documents
        fields = [*self.fields(), *ask.extra]
        tampering: Tampering = self.plan.webhook if first else HONEST
        idempotency = secrets.token_hex(16) if first and self.plan.duplicate_webhook else None
        try:
            answer = await self.webhooks.ask(ask.target, fields, idempotency=idempotency, tampering=tampering)
            if idempotency is not None:
                answer = await self.webhooks.ask(ask.target, fields, idempotency=idempotency, tampering=tampering)
            return self._read(answer)
        except WebhookFailed as fault:
            return await self._fall_back(fault.code, fault.about, ask.target)
        except Unreadable as fault:
            return await self._fall_back(fault.code, fault.about, ask.target)

    def _read(self, answer: Answer) -> Run:
        if answer.content_type.split(";")[0].strip().lower() not in ("text/xml", "application/xml"):
            raise Unreadable(12300, f"content type {answer.content_type or 'missing'}")
        document = twiml.parse(answer.body, answer.url)
        self.documents.append(document)
        for alert in document.alerts:
            self.alert(alert)
        self.tell("document", {"verbs": [type(verb).__name__ for verb in document.verbs]})
        return Run(document)

    async def _fall_back(self, code: int, about: str, failed: Target) -> Step:
        self.alert(Alert(code, f"{failed.url}: {about}"))
        if self.number.voice_fallback_url is not None and failed.url != self.number.voice_fallback_url:
            target = Target(self.number.voice_fallback_url, self.number.voice_fallback_method)
            self.tell("fallback", {"code": code})
            return Ask(target, (("ErrorCode", str(code)), ("ErrorUrl", failed.url)))
        self.answer()
        await self.announce(APOLOGY)
        return Stop("completed", "application error")

    async def _run(self, document: Document) -> Step:
        for verb in document.verbs:
            if (onward := await self.verb(verb)) is not None:
                return onward
        return Stop("completed", "end of document")

    async def verb(self, verb: twiml.Verb) -> Step | None:
        """Carry out one verb; None: go on with the next."""
        match verb:
            case twiml.Say(text=text, loop=loop):
                self.answer()
                for _ in range(max(1, loop)):
                    await self.announce(text)
            case twiml.Play(url=url, loop=loop):
                self.answer()
                if url is not None:
                    sound = await fetch_sound(self, url)
                    for _ in range(max(1, loop)):
                        await self.play(sound)
            case twiml.Pause(ms=ms):
                await asyncio.sleep(ms / 1_000)
            case twiml.Gather():
                self.answer()
                entered = await gather(self, verb)
                return None if entered is None else Ask(verb.action, tuple(entered))
            case twiml.Redirect(to=target):
                return Ask(target)
            case twiml.Hangup():
                self.answer()  # as the first verb it answers too; only <Reject> does not
                return Stop("completed", "hang-up verb")
            case twiml.Reject(reason=reason):
                # The status of a rejected call is not documented; busy and no-answer are what its reasons sound like.
                return Stop("busy" if reason == "busy" else "no-answer", "reject verb")
            case twiml.Start():
                return None
            case twiml.Stream():
                return await self._connect(verb)
            case twiml.Dial():
                if not verb.answer_on_bridge:
                    self.answer()
                extra = await dial(self, verb)
                return None if verb.action is None else Ask(verb.action, tuple(extra))
        return None

    def answer(self) -> None:
        """Answer the call, if it still rings; the line's clock begins."""
        if self.answered_at is None:
            self.answered_at = datetime.now(UTC)
            self.status = "in-progress"
            self._clock = asyncio.create_task(self.line.run())
            self.tell("answered")

    async def announce(self, text: str) -> None:
        """The carrier says something to the caller."""
        self.announced.append(text)
        self.tell("announced", {"text": text})
        await self.play(self.account.speak(text))

    async def play(self, audio: bytes) -> None:
        """Let the caller hear line audio and wait for its end."""
        if not audio:
            return
        announcement = Announcement(audio, self.line.now)
        self.line.attach(announcement)
        try:
            await announcement.over.wait()
        finally:
            if self.line.player is announcement:
                self.line.attach(None)

    async def _connect(self, verb: twiml.Stream) -> Step | None:
        self.answer()
        stream = MediaStream(
            verb,
            call_sid=self.sid,
            account_sid=self.account.sid,
            token=self.account.token,
            origins=self.origins,
            line=self.line,
            tell=self.tell,
            alert=self.alert,
            plan=self.plan.stream,
        )
        self._stream, self._stream_order = stream, verb
        self.streams.append(stream)
        self.tell("stream_started", {"stream_sid": stream.sid, "nth": len(self.streams)})
        self._stream_status(stream, "stream-started")
        end = StreamEnd.FINISHED
        try:
            end = await stream.run()
        finally:
            self._stream = None
            self._stream_ended(stream, end)
        await asyncio.sleep(self._recovery(end))
        self._stream_order = None
        if verb.action is not None and self.plan.honour_action:
            return Ask(verb.action)
        return None

    def _stream_ended(self, stream: MediaStream, end: StreamEnd) -> None:
        self.tell("stream_ended", {"stream_sid": stream.sid, "how": end.name.lower()})
        if end.value is not None:
            self.alert(Alert(end.value, f"the stream ended: {end.name.lower()}"))
        clean = end in (StreamEnd.FINISHED, StreamEnd.CLOSED)
        self._stream_status(stream, "stream-stopped" if clean else "stream-error", None if clean else str(end.value))

    def _recovery(self, end: StreamEnd) -> float:
        """Seconds from a stream's end to what follows; for a broken connection nothing is documented."""
        if self.plan.recover_ms is not None:
            return self.plan.recover_ms / 1_000
        return self.dice.uniform(0, 2.0 if end is StreamEnd.LOST else 0.3)

    # ---- forms

    @property
    def duration_s(self) -> int:
        """Answered seconds until now or the end, rounded up as the carrier does."""
        if self.answered_at is None:
            return 0
        return -int(-((self.ended_at or datetime.now(UTC)) - self.answered_at).total_seconds() // 1)

    def fields(self) -> list[tuple[str, str]]:
        """The standard fields of every request."""
        return forms.standard(self.account.sid, self.sid, self.status, self.plan.from_number, self.number.phone_number)

    def _stream_status(self, stream: MediaStream, event: str, error: str | None = None) -> None:
        if stream.order.status is not None:
            fields = forms.stream_status(self.account.sid, self.sid, stream.sid, stream.order.name, event, error)
            self.courier.send(stream.order.status, fields)

    @property
    def finished(self) -> bool:
        """Whether the call has a terminal status."""
        return self.status in TERMINAL
