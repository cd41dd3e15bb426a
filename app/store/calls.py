"""The shelf of calls: born once, one stream at a time, finished once.

Rule 1: every change is one UPDATE that says in its WHERE what it relies on (the epoch, that the row is live). Who changes no row
has lost, and is told so. Nothing is read first and written afterwards without a lock.
Rule 2: the row is finished by whoever changes `live` to `final`; what comes later fills what is still empty, and no more.
Rule 3: moments are read from this shelf's clock, in UTC; times inside facts are milliseconds since the call's birth.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.call.disposition import Filed, Intent, Utterance
from app.errors import Fenced
from app.settings import TRANSCRIPTION_PER_MINUTE, Price
from app.store import changes, reading
from app.store.changes import RANK, STATE, TERMINAL, Pricing
from app.store.engine import Database
from app.store.facts import CallState, NewCall, call_state, newborn_columns, utc_now
from app.store.identity import new_call_id
from app.store.tables import RowState, calls

__all__ = ["RANK", "TERMINAL", "CallState", "Calls", "NewCall"]


class Calls:
    """All calls of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def born(self, new: NewCall, call_id: str | None = None) -> tuple[CallState, bool]:
        """Make the call's row, or find it by its `carrier_call_sid` if it is there; however many do so at once, there is one row.

        `call_id` is made here unless given (by who had to name the call while the database was away).

        Returns:
            The call, and whether it was made now.
        """
        now = self._clock()
        values = newborn_columns(call_id or new_call_id(now), new, now, self._database.blind_index)
        insert = self._database.insert(calls).values(**values).on_conflict_do_nothing()
        async with self._database.write("make the call's row") as connection:
            made = (await connection.execute(insert.returning(*STATE))).mappings().one_or_none()
            if made is not None:
                return call_state(made), True
            same = calls.c.call_id == values["call_id"]
            if new.carrier_call_sid is not None:
                same = calls.c.carrier_call_sid == new.carrier_call_sid
            return call_state((await connection.execute(sa.select(*STATE).where(same))).mappings().one()), False

    def age_ms(self, state: CallState) -> int:
        """How long ago the call was born, in ms; never negative."""
        return max(0, int((self._clock() - state.started_at).total_seconds() * 1_000))

    async def find(self, call_id: str) -> CallState | None:
        """The call of that name."""
        return await self._find(calls.c.call_id == call_id)

    async def find_by_sid(self, sid: str) -> CallState | None:
        """The call that the carrier calls by that name."""
        return await self._find(calls.c.carrier_call_sid == sid)

    async def claim(self, call_id: str, epoch: int, *, worker: str, stream_sid: str | None) -> bool:
        """Take the stream of this epoch: true for one taker only, and only while the epoch is current and the row is live."""
        taken = changes.claim(call_id, epoch, worker=worker, stream_sid=stream_sid, at=self._clock())
        return await self._change("claim the stream", taken)

    async def plan(self, call_id: str, epoch: int, next_step: Intent, transfer_to: str | None = None) -> None:
        """Store what is to follow when this stream ends. `transfer_to` is a name of the directory, never a number.

        Raises:
            Fenced: the call has another epoch now, or is finished.
        """
        planned = changes.plan(call_id, epoch, next_step, transfer_to, at=self._clock())
        if not await self._change("store what follows", planned):
            raise Fenced(call_id, epoch)

    async def advance(self, call_id: str, epoch: int) -> bool:
        """Open the next epoch, to talk on a new stream; counted in `resume_attempts`. False: it is open already, or finished."""
        return await self._change("open the next epoch", changes.advance(call_id, epoch, at=self._clock()))

    async def healthy(self, call_id: str, epoch: int) -> None:
        """This stream has carried sound for long enough: earlier attempts count no more."""
        await self._change("note a healthy stream", changes.healthy(call_id, epoch, at=self._clock()))

    async def carrier_status(
        self, sid: str, status: str, *, sequence: int | None = None, duration_s: int | None = None
    ) -> CallState | None:
        """Take in a status of the carrier's: in any order, any number of times, the same comes of it (Twilio's documentation).

        A status never goes back in rank; of two equal in rank the later in sequence stands. An unknown status changes nothing.
        Taken in after the row is finished as well: it says what the carrier saw and nothing else of the row.
        """
        async with self._database.write("take in a carrier's status") as connection:
            now = self._clock()
            return await changes.take_in_status(connection, sid, status, sequence=sequence, duration_s=duration_s, at=now)

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
        """Finish the row, once: true for the one who did. Flush the writer first: latencies are taken from the stored turns.

        With `epoch` given, only while it is current; None is for who stands outside every stream (the carrier's last word, the
        sweeper). `cost_usd` stays NULL when a part of the usage has no price.
        """
        pricing = Pricing(
            prices=prices, prices_date=prices_date, per_transcription_minute=per_transcription_minute, provider=provider
        )
        async with self._database.write("finish the row") as connection:
            return await changes.finish(connection, call_id, filed, epoch=epoch, pricing=pricing, at=self._clock())

    async def unfinished(self, older_than: timedelta) -> list[CallState]:
        """Live calls that were born longer ago than that, the oldest first."""
        born_before = self._clock() - older_than
        query = (
            sa.select(*STATE).where(calls.c.state == RowState.LIVE, calls.c.started_at < born_before).order_by(calls.c.started_at)
        )
        async with self._database.read("look for calls not finished") as connection:
            return [call_state(row) for row in (await connection.execute(query)).mappings()]

    async def history(self, call_id: str) -> list[Utterance]:
        """What was said, in order, over all epochs."""
        return await reading.history(self._database, call_id)

    async def row(self, name: str) -> dict[str, Any] | None:
        """The whole row of a call, by our name or by the carrier's, as JSON can say it.

        All columns of `calls` (times in ISO 8601; without `memory` and the blind indexes), and under `utterances`, `turn_list` and
        `tool_invocations` what belongs to it, in order (`turns` is the column: their number).
        """
        return await reading.row(self._database, name)

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        """The rows of the last calls, the newest first, without what belongs to them."""
        return await reading.latest(self._database, limit)

    async def events(self, call_id: str) -> list[dict[str, Any]]:
        """The journal of a call, by epoch and number: `epoch, seq, at, name, data, private, commands`."""
        return await reading.events(self._database, call_id)

    async def _find(self, which: sa.ColumnElement[bool]) -> CallState | None:
        async with self._database.read("find a call") as connection:
            row = (await connection.execute(sa.select(*STATE).where(which))).mappings().one_or_none()
        return None if row is None else call_state(row)

    async def _change(self, doing: str, update: sa.Update) -> bool:
        """Rule 1: one UPDATE of a live row; whether it changed one."""
        async with self._database.write(doing) as connection:
            return (await connection.execute(update)).rowcount == 1
