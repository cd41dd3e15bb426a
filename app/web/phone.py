"""The carrier's doors: a call comes in, a stream is over, a status is told; and the media socket.

Rule 1: the row is born before the answer, and the answer is the same however often the carrier asks (T02, F18).
Rule 2: whoever cannot be talked with hears a sentence, and a row says why. Busy is for far above that only.
Rule 3: admission is here. A refusal at the media socket would be an answered, billed and broken call.
"""

import asyncio
import re
from collections import Counter, deque
from urllib.parse import parse_qs, urlsplit

import phonenumbers
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from app import logs
from app.call.agent import Agent
from app.call.disposition import EndReason, Intent, Slot
from app.errors import Fenced, StoreUnavailable
from app.store import ending
from app.store.calls import CallState, NewCall
from app.twilio.parties import shown
from app.twilio.signature import Upgrade
from app.twilio.twiml import Twiml
from app.web import sentences
from app.web.desk import Desk
from app.web.guard import Policy
from app.web.resume import Resume
from app.web.webhook import TERMINAL, Misshapen, SilentDoor, SpokenDoor, Webhook, whole

log = logs.logger("web")

# How long a caller who is turned away stays on the line, about: a sentence and the keys of a number.
TURNED_AWAY_MS = 60_000
SWEEP_S = 15.0
ATTESTATION = re.compile(r"[A-Za-z-]{1,64}")
STREAM_EVENTS = frozenset({"stream-started", "stream-stopped", "stream-error"})

STRANGERS = 500
"""Media sockets that may be open beside those of our calls, of which each may have two for a moment. A stranger's is closed after
five seconds."""
UNANSWERED = frozenset({"queued", "initiated", "ringing"})

TURNED_AWAY = {
    EndReason.UNKNOWN_AGENT: sentences.UNKNOWN_AGENT,
    EndReason.MODEL_UNAVAILABLE: sentences.MODEL_UNAVAILABLE,
    EndReason.DRAINED: sentences.DRAINING,
}


def routes(desk: Desk) -> list[BaseRoute]:
    """All doors of the carrier. Raises `BadSetting` if a template of `twiml/` is broken."""
    return Phone(desk).routes()


class Phone:
    """The carrier's doors over one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._twiml = Twiml(desk.settings.public_url, desk.settings.stream_url)
        self._resume = Resume(desk, self._twiml)
        self._turned_away: deque[int] = deque()
        self.streams: Counter[str] = Counter()
        """How often the carrier told of streams that started, stopped and failed."""

    def routes(self) -> list[BaseRoute]:
        """The route table."""
        desk = self._desk
        doors: dict[str, SpokenDoor | SilentDoor] = {
            "/twilio/voice": SpokenDoor(desk, self._voice, self._out_of_order),
            "/twilio/resume": SpokenDoor(desk, self._resume.answer, self._resume.on_fault),
            "/twilio/fallback": SpokenDoor(desk, self._fallback, self._out_of_order),
            "/twilio/left": SpokenDoor(desk, self._left, self._out_of_order),
            "/twilio/status": SilentDoor(desk, self._status),
            "/twilio/stream-status": SilentDoor(desk, self._stream_status),
        }
        posts = [Route(path, door, methods=["POST"], name=path.rpartition("/")[2]) for path, door in doors.items()]
        return [*posts, WebSocketRoute("/twilio/media", Media(desk), name="media")]

    async def look_after(self) -> None:
        """Now and then, finish the rows that nobody finished. Runs until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                if done := await self._resume.sweep():
                    log.warning("rows were finished that had been left", count=done)
            except StoreUnavailable:
                log.warning("no sweep: the database is away")
            except Exception as fault:
                log.error("a sweep failed", fault=type(fault).__name__, at=logs.where(fault))

    # ---- a call comes in

    async def _voice(self, webhook: Webhook) -> bytes:
        if webhook.status in TERMINAL:
            await self._resume.told(webhook)
            return self._twiml.nothing()
        name = (webhook.asked("agent") or self._desk.settings.first_agent)[:64]
        agent = self._desk.agents.get(name)
        state, created = await self._desk.calls.born(self._new_call(webhook, name, agent))
        if created:
            log.info("a call came in", call_id=state.call_id, call_sid=webhook.call_sid, agent=name)
        if state.final:
            return await self._same_again(state)
        if ending.turned_away(state):
            return self._twiml.leave_number(sentences.FULL_HOUSE, state.call_id)
        if created or state.claimed_epoch == 0:
            if agent is None:
                return await self._turn_away(state, EndReason.UNKNOWN_AGENT)
            if not self._desk.switchboard.model_available:
                return await self._turn_away(state, EndReason.MODEL_UNAVAILABLE)
            if self._desk.switchboard.draining:
                return await self._turn_away(state, EndReason.DRAINED)
            if created and (why := self._desk.admission.refuses(self._desk.switchboard.live, state.from_number)):
                return await self._no_slot(state, why)
            if not self._desk.switchboard.admit(state.call_id, state.epoch):
                return await self._no_slot(state, "full")
        token = self._desk.tokens.make(state.call_id, state.epoch, self._desk.clock())
        return self._twiml.answer(state.call_id, state.epoch, token)

    def _new_call(self, webhook: Webhook, name: str, agent: Agent | None) -> NewCall:
        settings = self._desk.settings
        attestation = webhook.one("StirVerstat") or ""
        return NewCall(
            carrier_call_sid=webhook.call_sid,
            account_sid=settings.twilio_account_sid,
            from_number=shown(webhook.one("From")),
            to_number=shown(webhook.one("To")),
            forwarded_from=shown(webhook.one("ForwardedFrom")),
            attestation=attestation if ATTESTATION.fullmatch(attestation) else None,
            agent=name,
            audio_path=settings.audio_path.value,
            model=settings.realtime_model,
            prompt_version=(agent.version or None) if agent else None,
        )

    async def _no_slot(self, state: CallState, why: str) -> bytes:
        now = self._desk.clock()
        while self._turned_away and not 0 <= now - self._turned_away[0] < TURNED_AWAY_MS:
            self._turned_away.popleft()
        on_the_line = self._desk.switchboard.live + len(self._turned_away)
        if on_the_line >= self._desk.settings.reject_above:
            log.warning("call rejected as busy", call_id=state.call_id, on_the_line=on_the_line, why=why)
            await self._resume.finish(state, EndReason.FULL_HOUSE)
            return self._twiml.reject()
        self._turned_away.append(now)
        log.warning("full house", call_id=state.call_id, live=self._desk.switchboard.live, why=why)
        try:
            # The row stays live until the number is left or the caller has gone; this tells everybody what kind of call it is.
            await self._desk.calls.plan(state.call_id, state.epoch, Intent.HANG_UP)
        except Fenced:
            log.info("a call turned away is over already", call_id=state.call_id)
        return self._twiml.leave_number(sentences.FULL_HOUSE, state.call_id)

    async def _turn_away(self, state: CallState, reason: EndReason) -> bytes:
        log.warning("call turned away", call_id=state.call_id, reason=reason)
        await self._resume.finish(state, reason)
        return self._twiml.say(TURNED_AWAY[reason])

    async def _same_again(self, state: CallState) -> bytes:
        """The carrier repeats its question about a call that was turned away at once: it did not hear the answer."""
        row = await self._desk.calls.row(state.call_id)
        reason = EndReason(row["end_reason"]) if row else None
        if state.claimed_epoch == 0 and reason is EndReason.FULL_HOUSE:
            return self._twiml.reject()
        sentence = TURNED_AWAY.get(reason) if reason and state.claimed_epoch == 0 else None
        return self._twiml.say(sentence) if sentence else self._twiml.hang_up()

    def _out_of_order(self, webhook: Webhook) -> bytes:
        if webhook.form.get("CallStatus") in TERMINAL:
            return self._twiml.nothing()
        return self._twiml.say(sentences.OUT_OF_ORDER)

    # ---- what goes wrong at the carrier

    async def _fallback(self, webhook: Webhook) -> bytes:
        """The carrier could not get or read a document of ours. A live call goes on; one without a row is answered now."""
        about = urlsplit(webhook.one("ErrorUrl") or "").path[:64]
        log.error("the carrier fell back", call_sid=webhook.call_sid, code=webhook.number("ErrorCode"), about=about)
        if webhook.status in TERMINAL:
            await self._resume.told(webhook)
            return self._twiml.nothing()
        try:
            state = await self._desk.calls.find_by_sid(webhook.call_sid)
        except StoreUnavailable:
            return await self._fallback_in_the_dark(webhook)
        if state is None or (state.claimed_epoch == 0 and state.epoch == 1):
            return await self._voice(webhook)
        # What failed may have been carried out, with its answer lost: an epoch that is open is not opened again.
        epoch = state.epoch if state.claimed_epoch == state.epoch else state.epoch - 1
        return await self._resume.follow(state, epoch, webhook)

    async def _fallback_in_the_dark(self, webhook: Webhook) -> bytes:
        """Nobody can say what call this is. One that still rings is answered; about one whose stream is over we are asked again."""
        if webhook.status in UNANSWERED:
            return await self._voice(webhook)
        failed = urlsplit(webhook.one("ErrorUrl") or "")
        epoch = whole(next(iter(parse_qs(failed.query).get("epoch", ())), None))
        if epoch and failed.path.endswith("/twilio/resume"):
            return self._twiml.say_and_resume(sentences.ONE_MOMENT, epoch, 1)
        return self._out_of_order(webhook)

    # ---- a number left by keys

    async def _left(self, webhook: Webhook) -> bytes:
        state = await self._desk.calls.find(webhook.asked("call") or "")
        if state is None or state.carrier_call_sid != webhook.call_sid:
            raise Misshapen
        digits = webhook.one("Digits") or ""
        number = dialable(digits, self._desk.settings.default_country_code)
        if not state.final:
            memory = ending.remembered(state)
            if number:
                slot = Slot(name="callback_number", value=number, at=self._desk.calls.age_ms(state))
                memory = ending.with_slot(memory, slot)
            await self._resume.finish(state, EndReason.FULL_HOUSE, memory)
        if webhook.status in TERMINAL:
            return self._twiml.nothing()
        return self._twiml.say(sentences.NUMBER_TAKEN if number else sentences.NO_NUMBER)

    # ---- callbacks

    async def _status(self, webhook: Webhook) -> None:
        if parent := webhook.one("ParentCallSid"):
            return await self._second_leg(webhook, parent)
        return await self._resume.told(webhook)

    async def _second_leg(self, webhook: Webhook, parent: str) -> None:
        """The person that a caller is being transferred to has answered: the agent's part of this call is over."""
        state = await self._desk.calls.find_by_sid(parent)
        if state is None:
            log.warning("a second leg of a call that we do not know", call_sid=parent)
        elif webhook.status == "in-progress" and state.next_step is Intent.TRANSFER and not state.final:
            await self._resume.finish(state, EndReason.TRANSFERRED)

    async def _stream_status(self, webhook: Webhook) -> None:
        event = webhook.one("StreamEvent") or ""
        event = event if event in STREAM_EVENTS else "unknown"
        self.streams[event] += 1
        level = log.warning if event == "stream-error" else log.info
        level(
            "the carrier's word on a stream", call_sid=webhook.call_sid, what=event, error=(webhook.one("StreamError") or "")[:200]
        )


class Media:
    """The media socket's door: the upgrade's signature here, the stream's token behind it."""

    policy = Policy.SIGNED_UPGRADE

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open = 0
        self._most = 2 * desk.settings.max_calls + STRANGERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        signed = self._desk.signatures.upgrade(scope)
        required = self._desk.settings.twilio_require_stream_signature
        crowded = self._open >= self._most
        if crowded or signed is Upgrade.WRONG or (signed is Upgrade.ABSENT and required):
            log.warning("a media socket was refused", signature=signed, crowded=crowded)
            await receive()  # websocket.connect
            await send({"type": "websocket.close", "code": 1008})  # before accept: the server answers 403
            return
        self._open += 1
        try:
            await self._desk.switchboard.media(scope, receive, send)
        finally:
            self._open -= 1


def dialable(digits: str, country_code: str) -> str | None:
    """A number pressed on the keypad, in E.164 if it can be one; None if it is none that could be dialled."""
    if not re.fullmatch(r"[0-9]{5,20}", digits):
        return None
    region = phonenumbers.region_code_for_country_code(int(country_code))
    for text in (digits, f"+{digits}"):
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_possible_number(number):
            return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    return None
