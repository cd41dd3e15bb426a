"""Our calls beside the carrier's call log: what differs, put right where the carrier's word settles it.

Rule 1: only what is over is judged: at the carrier for `SETTLED` at least, so that whoever is about to file the row has done so.
Rule 2: the carrier's books say what the carrier did (status, answered seconds, price, and when a call ended that we lost sight of).
What was said and how our own bridge saw the end, they do not know; that is reported and not overwritten.
Rule 3: each repair is one conditional change. Who loses to another looks again. If the carrier goes away in the midst, what was
repaired is whole, and the rest is for next time.
Rule 4: a window is walked by days: in memory is one page of calls, and the names of one day's.

Which calls of the carrier's are ours: those that have a row, whatever they are; and without a row, those that came in (`inbound`,
no leg of another call) to a number that the account has set to call this service. A leg that a transfer dialled belongs to its
parent's row, and a call that another program of the account placed is none of our business.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import batched
from urllib.parse import parse_qs, urlsplit

from app import logs
from app.call.disposition import EndReason, Filed, Intent, Memory, outcome_of
from app.errors import BadCarrierMessage
from app.settings import Settings
from app.store import ending
from app.store.calls import TERMINAL, Calls
from app.store.engine import Database
from app.store.facts import NewCall, utc_now
from app.store.reconciling import Booked, Facts, Reconciling
from app.twilio.carrier import CALL_SID, Carrier, CarrierCall, NumberConfiguration
from app.twilio.parties import shown
from app.wrapup.gaps import Difference, Gap, Kind, Reconciliation, differences

log = logs.logger("wrapup")

SETTLED = timedelta(minutes=2)
SLACK = timedelta(minutes=10)
"""The carrier's beginning of a call and ours are seldom the same, and may lie on two sides of a midnight."""
TOLERANCE_MS = 2_000
"""The carrier counts whole seconds from the answer, we count milliseconds from its question what to do."""
PAGE = 200
GROUP = 50
"""So many rows are changed in one transaction: a live call's writer waits for no more than that."""
MAX_RACES = 3


class Reconciler:
    """Compares the calls of one database with those of one account.

    `progress` is told, now and then, how far a comparison has come: the day, and what it has found so far.
    """

    def __init__(
        self,
        database: Database,
        carrier: Carrier,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = utc_now,
        progress: Callable[[datetime, Reconciliation], None] = lambda day, so_far: None,
    ) -> None:
        self._shelf, self._calls = Reconciling(database, clock=clock), Calls(database, clock=clock)
        self._carrier, self._settings, self._clock, self._progress = carrier, settings, clock, progress

    async def run(self, since: datetime, until: datetime, *, repair: bool = True) -> Reconciliation:
        """Compare the calls that began in `since <= start < until`; both have a time zone, and what is to come is left out.

        Without `repair` nothing is written anywhere.

        Raises:
            CarrierRefused: the carrier said no, or nothing (then it is `CarrierUnreachable`).
            BadCarrierMessage: what it said is no answer.
            StoreUnavailable: the database cannot be had.
            ValueError: the window is empty, or has no time zone.
        """
        until = min(until, self._clock())
        if since >= until:
            raise ValueError("there is no time between the two")
        comparison = _Comparison(
            self._shelf, self._calls, self._carrier, self._settings, self._clock(), since, until, repair=repair
        )
        for begin, end in days(since, until):
            async for _ in comparison.day(begin, end):
                self._progress(begin, comparison.result)
        result = comparison.result
        if repair:
            await self._shelf.keep(result.kept())
        log.info(
            "calls were compared with the carrier's log",
            since=since.isoformat(),
            until=until.isoformat(),
            repair=repair,
            compared=result.compared,
            gaps=result.gaps,
            repaired=result.repaired,
            remaining=result.remaining,
            cut_off=result.cut_off,
        )
        return result


class _Comparison:
    """One comparison: the window, what was found so far."""

    def __init__(
        self,
        shelf: Reconciling,
        calls: Calls,
        carrier: Carrier,
        settings: Settings,
        now: datetime,
        since: datetime,
        until: datetime,
        *,
        repair: bool,
    ) -> None:
        self._shelf, self._calls, self._carrier, self._settings = shelf, calls, carrier, settings
        self._settled_before = now - SETTLED
        self._numbers: Mapping[str, str] | None = None
        self._agreeing: list[str] = []
        self.result = Reconciliation(since=since, until=until, repair=repair)

    async def day(self, begin: datetime, end: datetime) -> AsyncIterator[None]:
        """Compare what began in `begin <= start < end`, both ways; a pause for progress after every page."""
        known = set[bytes]()
        page: list[CarrierCall] = []
        listed = self._carrier.calls(begin - SLACK, end + SLACK)
        async for call in listed:
            name, began = _name(call.sid), call.start_time or call.end_time
            if name is None or began is None or name in known:
                continue
            known.add(name)
            if begin <= began < end:
                page.append(call)
            if len(page) == PAGE:
                await self._from_the_log(page)
                page = []
                yield
        await self._from_the_log(page)
        self.result.malformed += listed.malformed
        yield
        if listed.cut_off:
            self.result.cut_off = True
            return
        behind: Booked | None = None
        while rows := await self._shelf.began(begin, end, account_sid=self._settings.twilio_account_sid, behind=behind, limit=PAGE):
            for row in rows:
                if _name(row.carrier_call_sid) not in known and row.started_at <= self._settled_before:
                    await self._not_in_the_log(row, begin, end)
            behind = rows[-1]
            yield

    # ---- what the carrier has

    async def _from_the_log(self, listed: Sequence[CarrierCall]) -> None:
        over = [call for call in listed if self._is_settled(call)]
        self.result.under_way += len(listed) - len(over)
        rows = await self._shelf.by_sid([call.sid for call in over])
        beside: list[tuple[Booked, CarrierCall]] = []
        for call in over:
            row = rows.get(call.sid)
            if row is None and await self._is_ours(call):
                row = await self._unknown(call)
            elif row is None:
                self.result.others += 1
            if row is not None:
                beside.append((row, call))
        news = [(row, _facts(call)) for row, call in beside if row.final and differences(row, call)]
        entered = set[str]()
        if self.result.repair:
            for group in batched(news, GROUP, strict=False):
                entered |= await self._shelf.enter(group)
        for row, call in beside:
            await self._beside(row, call, entered=row.call_id in entered)
        await self._agree()

    async def _unknown(self, call: CarrierCall) -> Booked | None:
        """A call of ours without a row. The row, if somebody else has made it meanwhile."""
        began = call.start_time or call.end_time
        assert began is not None  # or it would not be in the log of a day
        call_id = None
        if self.result.repair:
            agent = (await self._our_numbers())[call.to]
            reason = EndReason.NEVER_CONNECTED if call.status == "completed" else EndReason.CARRIER_ENDED
            filed = Filed(
                outcome=outcome_of(reason, caller_spoke=False),
                end_reason=reason,
                memory=Memory(agent=agent, agent_path=(agent,)),
                ended_at=max(0, int(((call.ended_at or began) - began).total_seconds() * 1_000)),
            )
            new = NewCall(
                carrier_call_sid=call.sid,
                account_sid=self._settings.twilio_account_sid,
                from_number=shown(call.from_ or None),
                to_number=shown(call.to or None),
                agent=agent,
            )
            prices_date = self._settings.prices_date
            call_id = await self._shelf.born_over(new, filed, began, _facts(call), prices_date=prices_date)
            if call_id is None:
                return (await self._shelf.by_sid([call.sid])).get(call.sid)
        self.result.note(Gap(Kind.UNKNOWN_TO_US, call_id, call.sid, call_id is not None, call.status))
        return None

    async def _is_ours(self, call: CarrierCall) -> bool:
        """See the head of this file."""
        if call.direction != "inbound" or call.parent_call_sid is not None:
            return False
        return call.to in await self._our_numbers()

    async def _our_numbers(self) -> Mapping[str, str]:
        """The numbers that call this service, and the agent that answers each."""
        if self._numbers is None:
            ours = [it for it in await self._carrier.number_configuration() if rings_here(it, self._settings.public_url)]
            self._numbers = {it.number: answered_by(it) or self._settings.first_agent for it in ours}
        return self._numbers

    # ---- what we have

    async def _not_in_the_log(self, row: Booked, begin: datetime, end: datetime) -> None:
        try:
            call = await self._carrier.fetch(row.carrier_call_sid) if CALL_SID.fullmatch(row.carrier_call_sid) else None
        except BadCarrierMessage:
            self.result.malformed += 1
            return
        if call is None:
            await self._unknown_to_carrier(row)
            return
        began = call.start_time or call.end_time
        if began is not None and self.result.since <= began < self.result.until and not begin - SLACK <= began < end + SLACK:
            return  # it is in the log of another day of this window
        if self._is_settled(call):
            await self._beside(row, call)
            await self._agree()
        else:
            self.result.under_way += 1

    async def _unknown_to_carrier(self, row: Booked) -> None:
        if row.reconciled_at is not None:
            self.result.forgotten += 1
        elif row.seen_by_a_person:
            self.result.accepted += 1
        else:
            if self.result.repair:
                await self._shelf.flag(row.call_id)
            self.result.note(Gap(Kind.UNKNOWN_TO_CARRIER, row.call_id, row.carrier_call_sid, False))

    # ---- both

    async def _beside(self, row: Booked, call: CarrierCall, *, entered: bool = False) -> None:
        """A row beside its call that is over. `entered`: what differs is in the row by now. Who loses to another looks again."""
        self.result.compared += 1
        found = self._between(row, call)
        for _ in range(MAX_RACES):
            if entered or not found or not self.result.repair:
                break
            if row.final:
                entered = bool(await self._shelf.enter([(row, _facts(call))]))
            else:
                entered = await self._finish(row, call)
            if not entered:
                again = (await self._shelf.by_sid([call.sid])).get(call.sid)
                if again is None:
                    return
                row, found = again, self._between(again, call)
        for difference in found:
            self.result.note(Gap(difference.kind, row.call_id, call.sid, entered, difference.about))
        if not found:
            self._agreeing.append(row.call_id)
        if row.final:
            await self._our_own_duration(row, call)
        if call.price is None and row.carrier_price is None:
            self.result.unrated += 1

    def _between(self, row: Booked, call: CarrierCall) -> list[Difference]:
        return differences(row, call) if row.final else [Difference(Kind.NEVER_FINISHED, call.status)]

    async def _agree(self) -> None:
        """Note for a page's rows that they were compared and say the same."""
        if self._agreeing and self.result.repair:
            await self._shelf.agreed(self._agreeing)
        self._agreeing = []

    async def _finish(self, row: Booked, call: CarrierCall) -> bool:
        """Finish a row as the doors would have, at the moment the carrier tells. False: somebody else has, or the call goes on."""
        state = await self._calls.find(row.call_id)
        if state is None or state.final:
            return False
        dialled, ended_at = None, call.ended_at
        if state.next_step is Intent.TRANSFER:
            for leg in await self._carrier.legs(call.sid):
                if leg.status in ending.TAKEN:
                    dialled, ended_at = leg.status, leg.start_time or ended_at  # the agent's part was over when a person answered
        filed = ending.filed(state, ending.reason_of(state, call.status, dialled), _ms(ended_at or state.started_at))
        done = await self._calls.finish(
            state.call_id,
            filed,
            epoch=state.epoch,
            prices=self._settings.prices,
            prices_date=self._settings.prices_date,
            per_transcription_minute=self._settings.per_transcription_minute,
        )
        if done and (finished := (await self._shelf.by_sid([call.sid])).get(call.sid)) is not None:
            await self._shelf.enter([(finished, _facts(call))])
        return done

    async def _our_own_duration(self, row: Booked, call: CarrierCall) -> None:
        """Rule 2. A bridge that heard the end of the call knows when it was; where none did, our duration is no measurement.

        A transferred caller talks on after our part is over.
        """
        if row.duration_ms is None or call.duration_s is None or not row.claimed_epoch or row.end_reason is EndReason.TRANSFERRED:
            return
        if abs(row.duration_ms - call.duration_s * 1_000) <= TOLERANCE_MS:
            return
        if await self._shelf.heard_its_end(row.call_id, row.duration_ms):
            about = f"{row.duration_ms / 1_000:.1f} s by our clock, {call.duration_s} s there"
            self.result.note(Gap(Kind.DURATION_DIFFERS, row.call_id, call.sid, False, about))

    def _is_settled(self, call: CarrierCall) -> bool:
        """Rule 1."""
        ended_at = call.ended_at
        return call.status in TERMINAL and (ended_at is None or ended_at <= self._settled_before)


def days(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The window in pieces that end at midnight, UTC."""
    begin = since.astimezone(UTC)
    while begin < until:
        midnight = datetime.combine(begin.date() + timedelta(days=1), time(), UTC)
        end = min(midnight, until.astimezone(UTC))
        yield begin, end
        begin = end


def rings_here(number: NumberConfiguration, public_url: str) -> bool:
    """Whether a call to that number comes to this service: its own address is used, and it is ours."""
    if number.trunk_sid or number.voice_application_sid:
        return False
    return number.voice_url.partition("?")[0].rstrip("/") == f"{public_url}/twilio/voice"


def answered_by(number: NumberConfiguration) -> str | None:
    """The agent that the number's address asks for."""
    asked = parse_qs(urlsplit(number.voice_url).query).get("agent")
    return asked[0][:64] if asked else None


def _facts(call: CarrierCall) -> Facts:
    price = None if call.price is None else float(call.price)
    return Facts(status=call.status, duration_s=call.duration_s, price=price, price_unit=call.price_unit)


def _name(sid: str) -> bytes | None:
    """A sid in sixteen bytes; None of what is no sid."""
    return bytes.fromhex(sid[2:]) if CALL_SID.fullmatch(sid) else None


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000)
