"""What follows a stream: `/twilio/resume?epoch=E`, the one place that decides it.

It is the `action` of every `<Connect>` and every `<Dial>`, the verb behind it, and the target of every REST redirect. So it is
asked twice, late, and by several at once. What it answers depends on the stored row alone:

| the row                                   | the answer                                                             |
|-------------------------------------------|------------------------------------------------------------------------|
| CallStatus is terminal                    | nothing; the row is finished, unless a live bridge does so             |
| finished, to apologise                    | a sentence, then the end                                               |
| finished                                  | hang up                                                                |
| epoch = E, to hang up                     | hang up                                                                |
| epoch = E, to apologise                   | a sentence, then the end                                               |
| epoch = E, to transfer, not dialled yet   | dial                                                                   |
| epoch = E, to transfer, taken             | finished as transferred; hang up                                       |
| epoch = E, to transfer, not taken         | as to talk: the agent goes on                                          |
| epoch = E, to talk                        | E + 1 by compare-and-set, and its stream; the fourth time an apology   |
| epoch = E + 1, its stream not claimed yet | the stream of E + 1 once more: the first answer was lost               |
| any other epoch                           | nothing: an old document's request                                     |

Rule 1: never judged by CallSid and CallStatus alone; two requests that look the same may mean two streams.
Rule 2: a caller is on the line. When the database cannot be had, they are asked to wait and we are asked again, a few times.
"""

from datetime import UTC, datetime, timedelta

from app import logs
from app.call.disposition import EndReason, Intent, Memory
from app.errors import Fenced, StoreUnavailable
from app.store import ending
from app.store.calls import CallState
from app.twilio.twiml import Twiml
from app.web import sentences
from app.web.desk import Desk
from app.web.webhook import TERMINAL, Misshapen, Webhook, whole

log = logs.logger("web")

MAX_ATTEMPTS = 3
MAX_ASKED_AGAIN = 3
# Every lost race is another request's step forward; there are not many of them for one call.
MAX_RACES = 5
LEFT_ALONE = timedelta(seconds=20)
"""A bridge that hears of its call's end has filed it long before."""


class Resume:
    """Answers the carrier's question what to do now."""

    def __init__(self, desk: Desk, twiml: Twiml) -> None:
        self._desk, self._twiml = desk, twiml

    async def answer(self, webhook: Webhook) -> bytes:
        """The document that follows. Raises `StoreUnavailable`, and `Misshapen` for an address that we never gave."""
        epoch = whole(webhook.asked("epoch"))
        if not epoch:
            raise Misshapen
        if webhook.status in TERMINAL:
            await self.told(webhook)
            return self._twiml.nothing()
        state = await self._desk.calls.find_by_sid(webhook.call_sid)
        if state is None:
            log.error("a stream ended of a call that has no row", call_sid=webhook.call_sid)
            return self._twiml.say(sentences.APOLOGY)
        return await self.follow(state, epoch, webhook)

    def on_fault(self, webhook: Webhook) -> bytes:
        """Rule 2. Only values that we gave ourselves, and that were signed, go back into the address."""
        epoch, again = whole(webhook.query.get("epoch")), whole(webhook.query.get("again")) or 0
        if webhook.form.get("CallStatus") in TERMINAL:
            return self._twiml.nothing()
        if not epoch or again >= MAX_ASKED_AGAIN:
            return self._twiml.say(sentences.APOLOGY)
        return self._twiml.say_and_resume(sentences.ONE_MOMENT, epoch, again + 1)

    async def follow(self, state: CallState, epoch: int, webhook: Webhook) -> bytes:
        """The table above, for a call that has a row."""
        dialled = webhook.one("DialCallStatus")
        for _ in range(MAX_RACES):
            try:
                document = await self._step(state, epoch, dialled)
            except Fenced:
                document = None
            if document is not None:
                return document
            found = await self._desk.calls.find(state.call_id)
            if found is None:
                break
            state = found
        log.error("no way on for a call", call_id=state.call_id, epoch=epoch)
        return self._twiml.say(sentences.APOLOGY)

    async def told(self, webhook: Webhook) -> None:
        """Take in the carrier's word on a call. Its last: finish the row, unless a bridge that lives will, with all it knows."""
        desk, sid, status = self._desk, webhook.call_sid, webhook.status
        sequence, duration_s = webhook.number("SequenceNumber"), webhook.number("CallDuration")
        state = await desk.calls.carrier_status(sid, status, sequence=sequence, duration_s=duration_s)
        if state is None:
            log.warning("a status of a call that we do not know", call_sid=sid, status=status)
            return
        if status not in TERMINAL or desk.switchboard.carrier_ended(state.call_id, status):
            return
        desk.switchboard.release(state.call_id)
        try:
            if state.final or await self._is_carried_elsewhere(state):
                return
        except StoreUnavailable:  # the word itself is kept; nobody can say now who else lives, and the sweep will
            log.info("the end of a call waits for the database", call_id=state.call_id)
            return
        await self.finish(state, ending.reason_of(state, status, webhook.one("DialCallStatus")))

    async def sweep(self) -> int:
        """Finish what nobody finished: calls that the carrier ended some time ago, and whose bridge was lost before it could.

        Returns:
            How many rows were finished.
        """
        done, now = 0, datetime.fromtimestamp(self._desk.clock() / 1_000, UTC)
        for state in await self._desk.calls.unfinished(LEFT_ALONE):
            status = state.carrier_status or ""
            if status not in TERMINAL or now - state.updated_at < LEFT_ALONE:
                continue
            if not self._desk.switchboard.carrier_ended(state.call_id, status):
                done += await self.finish(state, ending.reason_of(state, status))
        return done

    async def finish(self, state: CallState, reason: EndReason, memory: Memory | None = None) -> bool:
        """Finish a row, from what is stored or from `memory`. False: somebody else has."""
        settings = self._desk.settings
        filed = ending.filed(state, reason, ending.born(state) + self._desk.calls.age_ms(state), memory)
        done = await self._desk.calls.finish(
            state.call_id,
            filed,
            epoch=None,
            prices=settings.prices,
            prices_date=settings.prices_date,
            per_transcription_minute=settings.per_transcription_minute,
        )
        if done:
            log.info("row finished by the doors", call_id=state.call_id, outcome=filed.outcome, end_reason=filed.end_reason)
        return done

    async def _is_carried_elsewhere(self, state: CallState) -> bool:
        """Another worker, that lives, has the present stream: it hears the end itself and knows more than we do.

        Not during a transfer: there the bridge has left the call to us.
        """
        lives_elsewhere = self._desk.lives_elsewhere
        if lives_elsewhere is None or state.worker is None or state.claimed_epoch != state.epoch:
            return False
        return state.next_step is not Intent.TRANSFER and await lives_elsewhere(state.worker)

    async def _step(self, state: CallState, epoch: int, dialled: str | None) -> bytes | None:
        """One try. None: another request was quicker, look again."""
        if state.final:  # its bridge files the row as soon as the stream is closed, which may be before we are asked
            sorry = state.epoch == epoch and state.next_step is Intent.APOLOGISE
            return self._twiml.say(sentences.APOLOGY) if sorry else self._twiml.hang_up()
        if state.epoch == epoch + 1 and state.claimed_epoch < state.epoch:
            return self._open(state.call_id, state.epoch)
        if state.epoch != epoch:
            log.info("an old document asked what follows", call_id=state.call_id, epoch=state.epoch, asked=epoch)
            return self._twiml.nothing()
        match state.next_step:
            case Intent.HANG_UP:
                return self._twiml.hang_up()
            case Intent.APOLOGISE:
                return self._twiml.say(sentences.APOLOGY)
            case Intent.TRANSFER if dialled in ending.TAKEN:
                await self.finish(state, EndReason.TRANSFERRED)
                return self._twiml.hang_up()
            case Intent.TRANSFER if dialled is None:
                if number := self._desk.settings.transfer_to.get(state.transfer_to or ""):
                    return self._twiml.dial(number, epoch)
                log.error("a transfer to nobody in the directory", call_id=state.call_id, to=state.transfer_to)
        return await self._talk_on(state)

    async def _talk_on(self, state: CallState) -> bytes | None:
        desk = self._desk
        if state.resume_attempts >= MAX_ATTEMPTS:
            await desk.calls.plan(state.call_id, state.epoch, Intent.APOLOGISE)
            await self.finish(state, self._why_no_talk(state))
            log.error("a call could not be resumed", call_id=state.call_id, epoch=state.epoch, attempts=state.resume_attempts)
            return self._twiml.say(sentences.APOLOGY)
        if not await desk.calls.advance(state.call_id, state.epoch):
            return None
        epoch = state.epoch + 1
        desk.switchboard.moved_on(state.call_id, epoch)
        log.info("call resumed", call_id=state.call_id, epoch=epoch, attempt=state.resume_attempts + 1)
        return self._open(state.call_id, epoch)

    def _open(self, call_id: str, epoch: int) -> bytes:
        """A stream for this epoch; if there is no slot here just now, the same question again soon, counted as an attempt."""
        if not self._desk.switchboard.admit(call_id, epoch):
            log.warning("no slot to resume a call", call_id=call_id, epoch=epoch)
            return self._twiml.say_and_resume(sentences.ONE_MOMENT, epoch)
        return self._twiml.answer(call_id, epoch, self._desk.tokens.make(call_id, epoch, self._desk.clock()))

    def _why_no_talk(self, state: CallState) -> EndReason:
        if state.claimed_epoch == 0:
            return EndReason.NEVER_CONNECTED
        return EndReason.WORKER_LOST if self._desk.switchboard.model_available else EndReason.MODEL_UNAVAILABLE
