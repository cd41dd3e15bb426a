"""The shelf of calls, also while the database is away: what happens then is put down here first and entered in the rows later.

Rule 1: the database is asked as long as it answers. Once it does not, nobody waits for it any more, until the writer has found it
back: each question is answered from what this process knows of its own calls.
Rule 2: what is changed here is changed late in the row, by the same conditions (`late.py`). A call that has something waiting is
changed here until that is written: nothing overtakes.
Rule 3: a call that nobody on this machine knows is not invented: `StoreUnavailable`. But one that comes in is born here, under a
name of ours, and the same however often the carrier asks. What other processes know is read from their spools: all that was told to
anybody is there.
Rule 4: what is remembered is bounded; calls that go on are forgotten last.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

from app import logs
from app.call.commands import KeepMemory, KeepUtterance
from app.call.disposition import Filed, Intent, Utterance
from app.errors import Fenced, StoreUnavailable
from app.settings import TRANSCRIPTION_PER_MINUTE, Price
from app.store import late
from app.store.calls import Calls
from app.store.engine import Database
from app.store.facts import CallState, NewCall, utc_now
from app.store.identity import new_call_id
from app.store.late import Advanced, CarrierSaid, Change, Claimed, Fact, Finished, Healthy, Kept, Known, Planned
from app.store.writer import Writer

log = logs.logger("store")

PATIENCE_S = 2.0
"""So long a caller is kept waiting for the database, once."""
KEEP_WITHIN_S = 1.0
REMEMBERED = 60
"""Utterances of each call: what another session of the model can make use of."""
MOST = 5_000
OVER = timedelta(minutes=2)
"""So long a finished call is remembered: the carrier may still speak of it."""


class _Call:
    """What this process knows of a call."""

    __slots__ = ("birth", "born", "said", "state")

    def __init__(self, state: CallState, born: float) -> None:
        self.state, self.born = state, born
        self.birth: tuple[NewCall, datetime] | None = None
        """As another process put it down, whose row may not be there when we have something to write."""
        self.said: deque[Utterance] = deque(maxlen=REMEMBERED)

    def becomes(self, state: CallState | None) -> bool:
        """Takes on a state; False if there is none to take on."""
        if state is None:
            return False
        self.state = state
        if state.final:
            self.said.clear()
        return True

    def hear(self, said: Utterance) -> None:
        """A later one with the same key replaces it."""
        for place in range(len(self.said) - 1, -1, -1):
            if self.said[place].key == said.key:
                self.said[place] = said
                return
        self.said.append(said)


class Daybook(Calls):
    """All calls of one database, and what this process knows of its own.

    Args:
        patience_s: how long the database may take to answer before it is taken to be away.
        steady: seconds that only ever go forward, whatever becomes of the clock on the wall.
        most: calls remembered at most.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        *,
        clock: Callable[[], datetime] = utc_now,
        patience_s: float = PATIENCE_S,
        steady: Callable[[], float] = time.monotonic,
        most: int = MOST,
    ) -> None:
        super().__init__(database, clock=clock)
        self._writer = writer
        self._patience_s, self._steady, self._most = patience_s, steady, most
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._by_sid: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        writer.on_away.append(self._tell_who_comes_after)
        writer.on_found.append(self._learn)
        writer.on_fact.append(self._hear)

    # ---- the shelf

    def age_ms(self, state: CallState) -> int:
        """As `Calls.age_ms`; of a call that was known here before the clock on the wall was set, as if it had not been."""
        known = self._calls.get(state.call_id)
        return super().age_ms(state) if known is None else max(0, round((self._steady() - known.born) * 1_000))

    async def born(self, new: NewCall, call_id: str | None = None) -> tuple[CallState, bool]:
        """As `Calls.born`. While the database is away the call is named here, and its row is made late."""
        sid, now = new.carrier_call_sid, self._clock()
        known = self._calls.get(self._by_sid.get(sid or "", ""))
        if known is not None and self._writer.is_behind(known.state.call_id):
            return known.state, False
        call_id = call_id or new_call_id(now)
        try:
            state, made = await self._ask(super().born(new, call_id))
        except StoreUnavailable:
            await self._writer.look_around()
            known = self._calls.get(self._by_sid.get(sid or "", ""))  # another request, or process, may have been quicker
            if known is not None:
                return known.state, False
            state = late.newborn(call_id, new, now)
            self._remember(state)
            self._writer.put(call_id, 1, new)
            await self._kept(call_id)
            log.warning("a call is answered without the database", call_id=call_id)
            return state, True
        self._remember(state)
        return state, made

    async def find(self, call_id: str) -> CallState | None:
        """As `Calls.find`; while the database is away, from what is known here. Raises StoreUnavailable for what is not."""
        return await self._found(super().find(self._writer.real_name(call_id)), lambda: self._calls.get(call_id))

    async def find_by_sid(self, sid: str) -> CallState | None:
        """As `find`."""
        return await self._found(super().find_by_sid(sid), lambda: self._calls.get(self._by_sid.get(sid, "")))

    async def claim(self, call_id: str, epoch: int, *, worker: str, stream_sid: str | None) -> bool:
        """As `Calls.claim`. While the database is away a stream is taken once by this process."""
        taking = super().claim(self._writer.real_name(call_id), epoch, worker=worker, stream_sid=stream_sid)
        return await self._do(call_id, epoch, Claimed(worker=worker, stream_sid=stream_sid), taking)

    async def plan(self, call_id: str, epoch: int, next_step: Intent, transfer_to: str | None = None) -> None:
        """As `Calls.plan`."""

        async def planning() -> bool:
            await super(Daybook, self).plan(self._writer.real_name(call_id), epoch, next_step, transfer_to)
            return True

        if not await self._do(call_id, epoch, Planned(next_step=next_step, transfer_to=transfer_to), planning()):
            raise Fenced(call_id, epoch)

    async def advance(self, call_id: str, epoch: int) -> bool:
        """As `Calls.advance`."""
        return await self._do(call_id, epoch, Advanced(), super().advance(self._writer.real_name(call_id), epoch))

    async def healthy(self, call_id: str, epoch: int) -> None:
        """As `Calls.healthy`."""

        async def noting() -> bool:
            await super(Daybook, self).healthy(self._writer.real_name(call_id), epoch)
            return True

        await self._do(call_id, epoch, Healthy(), noting())

    async def carrier_status(
        self, sid: str, status: str, *, sequence: int | None = None, duration_s: int | None = None
    ) -> CallState | None:
        """As `Calls.carrier_status`. While the database is away it is kept also of a call that is not known here: None, then."""
        taking = super().carrier_status(sid, status, sequence=sequence, duration_s=duration_s)
        known = self._calls.get(self._by_sid.get(sid, ""))
        if known is None or not self._writer.is_behind(known.state.call_id):
            try:
                return self._remember_if(await self._ask(taking))
            except StoreUnavailable:
                pass
        taking.close()
        await self._writer.look_around()
        known = self._calls.get(self._by_sid.get(sid, ""))
        said = CarrierSaid(sid=sid, status=status, sequence=sequence, duration_s=duration_s)
        if known is None:
            self._writer.put("", 0, said)
        else:
            self._put(known, known.state.epoch, said)
        await self._kept("")
        return None if known is None else known.state

    async def finish(
        self,
        call_id: str,
        filed: Filed,
        *,
        epoch: int | None,
        prices: Mapping[str, Price],
        prices_date: date,
        per_transcription_minute: float | None = TRANSCRIPTION_PER_MINUTE["gpt-transcribe"],
        provider: str = "openai",
    ) -> bool:
        """As `Calls.finish`. A row finished late is finished when all that belongs to it is there, at the prices of then."""
        finishing = super().finish(
            self._writer.real_name(call_id),
            filed,
            epoch=epoch,
            prices=prices,
            prices_date=prices_date,
            per_transcription_minute=per_transcription_minute,
            provider=provider,
        )
        known = self._calls.get(call_id)
        current = epoch if epoch is not None else known.state.epoch if known is not None else 0
        return await self._do(call_id, current, Finished(filed=filed, fenced=epoch is not None), finishing)

    async def history(self, call_id: str) -> list[Utterance]:
        """As `Calls.history`; while the database is away the last of it, as far as it was said here."""
        known = self._calls.get(call_id)
        asking = super().history(self._writer.real_name(call_id))
        if known is not None and self._writer.is_behind(call_id):
            asking.close()
            return sorted(known.said, key=lambda said: said.started_at)
        try:
            return await self._ask(asking)
        except StoreUnavailable:
            if known is None:
                raise
            return sorted(known.said, key=lambda said: said.started_at)

    # ---- asking, and doing without

    async def _ask[T](self, question: Coroutine[Any, Any, T]) -> T:
        """The database's answer. Raises StoreUnavailable; at once, as long as it is known to be away (rule 1)."""
        if self._writer.is_away:
            question.close()
            raise StoreUnavailable("ask it")
        task = asyncio.create_task(question)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait({task}, timeout=self._patience_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            task.cancel()  # and nobody waits for that either: a driver may take its time
            self._writer.went_away(task)
            raise StoreUnavailable("wait for it")
        try:
            return task.result()
        except StoreUnavailable:
            self._writer.went_away()
            raise

    async def _found(self, asking: Coroutine[Any, Any, CallState | None], here: Callable[[], _Call | None]) -> CallState | None:
        known = here()
        if known is None or not self._writer.is_behind(known.state.call_id):
            try:
                return self._remember_if(await self._ask(asking))
            except StoreUnavailable:
                pass
        asking.close()
        await self._writer.look_around()
        known = here()
        if known is None:
            raise StoreUnavailable("find a call")
        return known.state

    async def _do(self, call_id: str, epoch: int, change: Change, making: Coroutine[Any, Any, bool]) -> bool:
        """Make a change in the row, or here and late (rule 2); whether it was made."""
        known = self._calls.get(call_id)
        if known is not None and self._writer.is_behind(call_id):
            making.close()
            return self._put(known, epoch, change) and await self._kept(call_id)
        try:
            made = await self._ask(making)
        except StoreUnavailable:
            known = self._calls.get(call_id)
            if known is None:
                raise
            return self._put(known, epoch, change) and await self._kept(call_id)
        if made and known is not None:
            known.becomes(late.after(known.state, epoch, change, self._clock()))
        return made

    def _put(self, known: _Call, epoch: int, change: Change) -> bool:
        made = known.becomes(late.after(known.state, epoch, change, self._clock()))
        if not made and not isinstance(change, CarrierSaid):  # a word of the carrier's is for the row to weigh
            return False
        if known.birth is not None:
            (new, at), known.birth = known.birth, None
            self._writer.put(known.state.call_id, 1, new, at=at)
        self._writer.put(known.state.call_id, epoch, change)
        return True

    async def _kept(self, call_id: str) -> bool:
        """What was put down is on the disk before anybody is told that it is so, if the disk takes it soon."""
        with suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(KEEP_WITHIN_S):
                await self._writer.flush(call_id)
        return True

    # ---- what is known

    def _remember_if(self, state: CallState | None) -> CallState | None:
        return None if state is None else self._remember(state)

    def _remember(self, state: CallState) -> CallState:
        known = self._calls.get(state.call_id)
        if known is None:
            known = self._calls[state.call_id] = _Call(state, self._steady() - super().age_ms(state) / 1_000)
            if state.carrier_call_sid is not None:
                self._by_sid[state.carrier_call_sid] = state.call_id
            self._forget()
        known.becomes(state)
        self._calls.move_to_end(state.call_id)
        return state

    def _forget(self) -> None:
        """Rule 4: two are looked at for each that is new, so that those that are over do not gather."""
        for _ in range(2):
            oldest, known = next(iter(self._calls.items()))
            long_over = known.state.final and self._clock() - known.state.updated_at > OVER
            if len(self._calls) > self._most or (long_over and not self._writer.is_behind(oldest)):
                del self._calls[oldest]
                if self._by_sid.get(known.state.carrier_call_sid or "") == oldest:
                    del self._by_sid[known.state.carrier_call_sid or ""]
            else:
                self._calls.move_to_end(oldest)

    def _hear(self, call_id: str, epoch: int, fact: Fact) -> None:
        """What is put to the writer is what a call knows of itself, and what was said."""
        known = self._calls.get(call_id)
        if known is None:
            return
        if isinstance(fact, KeepUtterance):
            known.hear(fact.utterance)
        elif isinstance(fact, KeepMemory):
            known.becomes(late.after(known.state, epoch, fact, self._clock()))

    def _tell_who_comes_after(self) -> None:
        """The database has gone: whoever should find our spool is told of the calls that go on here."""
        for call_id, known in list(self._calls.items()):
            if not known.state.final:
                self._writer.put(call_id, known.state.epoch, Known(state=known.state, said=tuple(known.said)))

    def _learn(self, kept: Kept) -> None:
        """A fact out of another process's spool."""
        call_id, epoch, _, at, fact = kept
        if isinstance(fact, NewCall):
            if fact.carrier_call_sid not in self._by_sid:
                self._remember(late.newborn(call_id, fact, at))
                self._calls[call_id].birth = fact, at
        elif isinstance(fact, Known):
            if call_id not in self._calls:
                self._remember(fact.state)
                self._calls[call_id].said.extend(fact.said)
        elif (known := self._calls.get(call_id)) is not None:
            if isinstance(fact, KeepUtterance):
                known.hear(fact.utterance)
            else:
                known.becomes(late.after(known.state, epoch, fact, at))
