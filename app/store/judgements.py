"""What was said about finished calls, and by whom: readings, the agent's notes, the word of operators; and what follows from it.

Rule 1: whatever changes a finished row is one transaction: the row is locked, the judgement is written, the columns are computed
anew from all that is in force (`projection.py`), the revision steps, what is to be told is written beside it, and the audit line.
Rule 2: everything may be repeated, by anybody at once: who finds it done changes nothing, tells nobody, and is told False.
Rule 3: a judgement is never changed or removed. An operator's word is taken back by another line.
Rule 4: the first thing told of a row is `call.finished`, when it has been read or given up; what changes before that is in it.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import OurFault
from app.store import projection, reading, rescoring, search
from app.store.after_facts import ForReading, NewJudgement, NewReading
from app.store.after_tables import AFTER_CALL, Source, judgements, readings
from app.store.audit import AuditLog, actor
from app.store.deliveries import NewDelivery, post
from app.store.engine import Database
from app.store.facts import plain, utc_now
from app.store.identity import new_call_id
from app.store.rescoring import Difference
from app.store.tables import AnalysisState, RowState, calls

__all__ = [
    "CHANGED",
    "FINISHED",
    "Difference",
    "ForReading",
    "Judgements",
    "NewJudgement",
    "NewReading",
    "NotFinished",
    "Outbox",
    "Source",
    "no_outbox",
]

FINISHED, CHANGED = "call.finished", "call.changed"

type Outbox = Callable[[Mapping[str, Any], str], Sequence[NewDelivery]]
"""Given the row exactly as `Calls.row` gives it after the change, and the event: what is to be told to whom. Pure."""


def no_outbox(row: Mapping[str, Any], event: str) -> Sequence[NewDelivery]:
    """Nobody is told anything."""
    return ()


class NotFinished(OurFault):
    """There is no finished call of that name: nothing can be judged."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        super().__init__(call_id)

    def __str__(self) -> str:
        return f"call {self.call_id} is not a finished call"


_NEW_READING = ("call_id", "batch", "analyzer", "model", "prompt_version", "rubric", "tokens_in", "tokens_out", "review_reasons")
_NEW_JUDGEMENT = ("field", "value", "confidence", "analyzer", "model", "prompt_version", "reasons", "dropped", "source")
_NOTHING = dict.fromkeys(
    ("reading_id", "value", "confidence", "analyzer", "model", "prompt_version", "reasons", "dropped", "said_by", "note")
)


class Judgements:
    """All judgements of one database."""

    def __init__(self, database: Database, outbox: Outbox = no_outbox, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._audit = AuditLog(database, clock=clock)

    # ---- the reading after the call

    async def due(self, limit: int) -> list[tuple[str, int]]:
        """What is to be read now, the longest due first: the call and the number of the attempt to make, from 1."""
        query = (
            sa.select(calls.c.call_id, calls.c.analysis_attempts)
            .where(
                calls.c.analysis_due_at <= self._clock(),
                calls.c.analysis == AnalysisState.WAITING,
                calls.c.state == RowState.FINAL,
            )
            .order_by(calls.c.analysis_due_at, calls.c.call_id)
            .limit(limit)
        )
        async with self._database.read("look for calls to be read") as connection:
            return [(row.call_id, row.analysis_attempts + 1) for row in await connection.execute(query)]

    async def failed(self, limit: int) -> list[str]:
        """Calls whose reading was given up, the oldest first."""
        query = sa.select(calls.c.call_id).where(calls.c.analysis == AnalysisState.FAILED).order_by(calls.c.call_id).limit(limit)
        async with self._database.read("look for calls that were not read") as connection:
            return list((await connection.execute(query)).scalars())

    async def for_reading(self, call_id: str) -> ForReading | None:
        """What an analyzer needs of a call; None if there is no such call."""
        async with self._database.read("read a call for its analysis") as connection:
            return await reading.for_reading(connection, call_id)

    async def keep(self, new: NewReading) -> str:
        """Keep a reading, without applying it. Once a call and batch: whoever comes later is given the id of the first.

        With a call's first reading the agent's own notes are kept beside it.

        Raises:
            NotFinished: there is no finished call of that name.
        """
        now = self._clock()
        row = {name: getattr(new, name) for name in _NEW_READING} | {"id": new_call_id(now), "created_at": now}
        async with self._database.write("keep a reading") as connection:
            call = await self._locked(connection, new.call_id)
            if call is None:
                raise NotFinished(new.call_id)
            same = sa.select(readings.c.id).where(readings.c.call_id == new.call_id, readings.c.batch == new.batch)
            known: str | None = (await connection.execute(same)).scalar_one_or_none()
            if known is not None:
                return known
            await connection.execute(sa.insert(readings).values(row))
            rows = await self._agents_notes(connection, call)
            for each in new.judgements:
                said = {name: getattr(each, name) for name in _NEW_JUDGEMENT}
                rows.append(said | {"evidence": list(each.evidence), "reading_id": row["id"]})
            if rows:
                common = {"call_id": new.call_id, "at": now, "retracts": False}
                await connection.execute(sa.insert(judgements), [_NOTHING | each | common for each in rows])
            return str(row["id"])

    async def settle(self, call_id: str, reading_id: str) -> bool:
        """Put a reading in force. False: it is already, it was withdrawn, or there is no such reading of a finished call."""
        now = self._clock()
        async with self._database.write("put a reading in force") as connection:
            call = await self._locked(connection, call_id)
            which = sa.select(readings).where(readings.c.id == reading_id, readings.c.call_id == call_id)
            found = (await connection.execute(which)).mappings().one_or_none()
            if call is None or found is None:
                return False
            if found["applied_at"] is not None and call["analysis"] is AnalysisState.DONE:
                return False
            await self._put_in_force(connection, call, reading_id, now)
            event = FINISHED if call["analyzed_at"] is None else CHANGED
            await self._project(
                connection,
                call,
                event,
                now,
                analysis=AnalysisState.DONE,
                analyzed_at=now,
                analysis_due_at=None,
                analysis_fault=None,
            )
            return True

    async def later(self, call_id: str, attempt: int, due_at: datetime, fault: str) -> bool:
        """This attempt was in vain; the next is at `due_at`. `fault` is a short constant.

        Returns:
            False: this attempt is accounted for already, or the call waits for no reading.
        """
        update = (
            sa.update(calls)
            .where(*_waits_for(call_id, attempt))
            .values(analysis_attempts=attempt, analysis_due_at=due_at, analysis_fault=fault, updated_at=self._clock())
        )
        async with self._database.write("put off a reading") as connection:
            return (await connection.execute(update)).rowcount == 1

    async def give_up(self, call_id: str, attempt: int, fault: str) -> bool:
        """This attempt was in vain and there is no other: the row stands as the agent left it, and is told of. As `later`."""
        now = self._clock()
        async with self._database.write("give up a reading") as connection:
            call = await self._locked(connection, call_id)
            if call is None or call["analysis"] is not AnalysisState.WAITING or call["analysis_attempts"] != attempt - 1:
                return False
            failed: dict[str, Any] = {
                "analysis": AnalysisState.FAILED,
                "analysis_attempts": attempt,
                "analysis_fault": fault,
                "analysis_due_at": None,
            }
            if call["analyzed_at"] is None:
                await self._project(connection, call, FINISHED, now, **failed, analyzed_at=now)
            else:  # given up before, and told; nothing of the row has changed
                await self._write(connection, call, now, **failed)
            return True

    async def again(self, call_id: str, by: str) -> bool:
        """Have a call read whose reading was given up, or which was finished before there was any. False: it needs none."""
        now = self._clock()
        never_due = (calls.c.analysis == AnalysisState.WAITING) & calls.c.analysis_due_at.is_(None)
        update = (
            sa.update(calls)
            .where(
                calls.c.call_id == call_id,
                calls.c.state == RowState.FINAL,
                (calls.c.analysis == AnalysisState.FAILED) | never_due,
            )
            .values(analysis=AnalysisState.WAITING, analysis_due_at=now, updated_at=now)
        )
        async with self._database.write("ask for a reading again") as connection:
            if (await connection.execute(update)).rowcount != 1:
                return False
            await self._noted(connection, by, "again", call_id)
            return True

    # ---- the operator's word

    async def correct(
        self, call_id: str, field: str, value: Any, *, by: str, note: str | None = None, evidence: Sequence[str] = ()
    ) -> bool:
        """An operator says what is right. It stands from now on, beside whatever a machine says.

        `value` is checked against the lists by the caller; None says that there is nothing of the kind.

        Returns:
            False: an operator said the same already, or there is no finished call of that name.

        Raises:
            ValueError: no such field.
        """
        said = {
            "field": _known(field),
            "value": list(value) if isinstance(value, tuple) else value,
            "evidence": list(evidence),
            "retracts": False,
            "said_by": by,
            "note": note,
        }
        return await self._said(call_id, "correct", said)

    async def retract(self, call_id: str, field: str, *, by: str) -> bool:
        """Take the operators' word back: what the reading or the agent said stands again. False: they said nothing."""
        return await self._said(call_id, "retract", {"field": _known(field), "evidence": [], "retracts": True, "said_by": by})

    async def reviewed(self, call_id: str, *, by: str) -> bool:
        """A person has looked at the row as it stands. False: that is known, or there is no finished call of that name."""
        now = self._clock()
        async with self._database.write("note a review") as connection:
            call = await self._locked(connection, call_id)
            if call is None or (call["reviewed_at"] is not None and not call["needs_review"]):
                return False
            applied = sa.select(sa.func.max(readings.c.applied_at)).where(readings.c.call_id == call_id)
            last: datetime | None = (await connection.execute(applied)).scalar_one()
            seen = now if last is None else max(now, last)  # the wall clock may have been set back
            await self._project(connection, call, _once_told(call), now, reviewed_at=seen, reviewed_by=by)
            await self._noted(connection, by, "reviewed", call_id)
            return True

    async def of_call(self, call_id: str) -> list[dict[str, Any]]:
        """All that was ever judged of a call, the oldest first, as JSON can say it."""
        query = (
            sa.select(judgements, readings.c.batch, readings.c.applied_at, readings.c.withdrawn_at)
            .join_from(judgements, readings, judgements.c.reading_id == readings.c.id, isouter=True)
            .where(judgements.c.call_id == call_id)
            .order_by(judgements.c.id)
        )
        async with self._database.read("read the judgements of a call") as connection:
            return [plain(row) for row in (await connection.execute(query)).mappings()]

    # ---- rescoring

    async def apply(self, batch: str, *, by: str, call_ids: Collection[str] | None = None) -> int:
        """Put the readings of a rescoring in force, also those that were withdrawn; each call for itself. How many it were.

        A row is told of only where it has changed. Stopped halfway, it goes on where it was.

        Raises:
            ValueError: the batch is no rescoring.
        """
        _rescoring_only(batch)
        async with self._database.read("look for what can be applied") as connection:
            found = (await connection.execute(rescoring.not_in_force(batch))).all()
        wanted = [row for row in found if call_ids is None or row.call_id in call_ids]
        return sum([await self._switch(row.call_id, row.id, batch, by, in_force=True) for row in wanted])

    async def withdraw(self, batch: str, *, by: str) -> int:
        """Take a rescoring back: what stood before stands again, and corrections stand as they do. How many calls it were.

        Raises:
            ValueError: the batch is no rescoring.
        """
        _rescoring_only(batch)
        which = sa.select(readings.c.call_id, readings.c.id).where(readings.c.batch == batch, rescoring.IN_FORCE)
        async with self._database.read("look for what can be withdrawn") as connection:
            found = (await connection.execute(which.order_by(readings.c.call_id))).all()
        return sum([await self._switch(row.call_id, row.id, batch, by, in_force=False) for row in found])

    async def batches(self) -> list[dict[str, Any]]:
        """The rescorings there are, the oldest first: `batch`, `calls`, `applied`, `withdrawn`, by whom and when."""
        return await rescoring.batches(self._database)

    def differences(self, batch: str) -> AsyncIterator[Difference]:
        """For each call of a batch that is not in force: what applying it would change."""
        return rescoring.differences(self._database, batch)

    # ---- the one transaction (rule 1)

    async def _locked(self, connection: AsyncConnection, call_id: str) -> sa.RowMapping | None:
        """The row of a finished call, nobody else's until the transaction ends. Journals of other streams may still refer to it."""
        row = sa.select(calls).where(calls.c.call_id == call_id, calls.c.state == RowState.FINAL).with_for_update(key_share=True)
        return (await connection.execute(row)).mappings().one_or_none()

    async def _project(
        self,
        connection: AsyncConnection,
        call: sa.RowMapping,
        event: str | None,
        now: datetime,
        *,
        only_news: bool = False,
        **new: Any,
    ) -> list[str]:
        """Compute the row anew, step its revision, write what is to be told. The names of the judged columns that changed.

        With `only_news` a row of which nothing changed but who read it keeps its revision, and nobody is told.
        """
        columns = projection.columns(await projection.load(connection, {**call, **new}))
        changed = [name for name, value in columns.items() if call[name] != value]
        if call["analyzed_at"] is None or "summary" in changed:
            words = [*await search.heard(connection, call["call_id"]), columns.get("summary", call["summary"])]
            await search.index_call(connection, call["call_id"], words)
        if only_news and not set(changed) - {"analyzer"}:
            await self._write(connection, call, now, **columns, **new)
            return changed
        await self._write(connection, call, now, **columns, **new, revision=call["revision"] + 1)
        if event is not None:
            row = await reading.row_on(connection, call["call_id"])
            assert row is not None
            await post(connection, self._database, call["call_id"], self._outbox(row, event), now)
        return changed

    async def _write(self, connection: AsyncConnection, call: sa.RowMapping, now: datetime, **new: Any) -> None:
        await connection.execute(sa.update(calls).where(calls.c.call_id == call["call_id"]).values(updated_at=now, **new))

    async def _put_in_force(self, connection: AsyncConnection, call: sa.RowMapping, reading_id: str, now: datetime) -> None:
        """Applied last, whatever the wall clock says: after every reading that was applied, and after the last review."""
        applied = sa.select(sa.func.max(readings.c.applied_at)).where(readings.c.call_id == call["call_id"])
        before = [at for at in ((await connection.execute(applied)).scalar_one(), call["reviewed_at"]) if at is not None]
        at = max([now, *(moment + timedelta(microseconds=1) for moment in before)])
        update = sa.update(readings).where(readings.c.id == reading_id)
        await connection.execute(update.values(applied_at=at, withdrawn_at=None, withdrawn_by=None))

    async def _said(self, call_id: str, action: str, said: Mapping[str, Any]) -> bool:
        now = self._clock()
        async with self._database.write("keep an operator's word") as connection:
            call = await self._locked(connection, call_id)
            if call is None:
                return False
            before = (await projection.load(connection, call)).said.get(said["field"])
            if before is None if said["retracts"] else before is not None and _alike(before["value"], said["value"]):
                return False
            row = {**_NOTHING, **said, "call_id": call_id, "source": Source.OPERATOR, "at": now}
            await connection.execute(sa.insert(judgements).values(row))
            await self._project(connection, call, _once_told(call), now)
            await self._noted(connection, said["said_by"], action, call_id, field=said["field"])
            return True

    async def _switch(self, call_id: str, reading_id: str, batch: str, by: str, *, in_force: bool) -> bool:
        """One call of a rescoring: its reading comes into force, or goes out of it."""
        now = self._clock()
        async with self._database.write("apply a rescoring" if in_force else "withdraw a rescoring") as connection:
            call = await self._locked(connection, call_id)
            stands = sa.select(readings.c.id).where(readings.c.id == reading_id, rescoring.IN_FORCE)
            if call is None or ((await connection.execute(stands)).first() is not None) is in_force:
                return False
            if in_force:
                await self._put_in_force(connection, call, reading_id, now)
            else:
                update = sa.update(readings).where(readings.c.id == reading_id)
                await connection.execute(update.values(withdrawn_at=now, withdrawn_by=by))
            changed = await self._project(connection, call, CHANGED, now, only_news=True)
            await self._noted(connection, by, "apply" if in_force else "withdraw", call_id, batch=batch, fields=changed)
            return True

    async def _agents_notes(self, connection: AsyncConnection, call: sa.RowMapping) -> list[dict[str, Any]]:
        """What the agent noted, as judgements; nothing if they are kept already."""
        kept = sa.select(judgements.c.id).where(judgements.c.call_id == call["call_id"], judgements.c.source == Source.AGENT)
        if (await connection.execute(kept.limit(1))).first() is not None:
            return []
        known = await reading.for_reading(connection, call["call_id"])
        assert known is not None
        notes: dict[str, tuple[Any, list[str]]] = {
            slot.name: (slot.value, [slot.utterance] if slot.utterance else []) for slot in known.slots
        }
        for name in ("disposition", "intent", "summary", "next_action"):
            if known.filed[name] is not None:
                notes[name] = (known.filed[name], [])
        if known.filed["escalated"]:
            notes[projection.ESCALATION] = (True, [])
        return [
            {"field": name, "value": value, "evidence": evidence, "source": Source.AGENT}
            for name, (value, evidence) in notes.items()
        ]

    async def _noted(self, connection: AsyncConnection, by: str, action: str, call_id: str, **details: Any) -> None:
        await self._audit.append_on(connection, actor(by), action, call_id, details or None)


def _known(field: str) -> str:
    if field not in projection.FIELDS:
        raise ValueError("no judged field is called so")
    return field


def _rescoring_only(batch: str) -> None:
    if batch == AFTER_CALL:
        raise ValueError("the reading that every call gets is no rescoring")


def _once_told(call: sa.RowMapping) -> str | None:
    """Rule 4."""
    return None if call["analyzed_at"] is None else CHANGED


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where true is not 1."""
    return type(one) is type(other) and bool(one == other)


def _waits_for(call_id: str, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        calls.c.call_id == call_id,
        calls.c.state == RowState.FINAL,
        calls.c.analysis == AnalysisState.WAITING,
        calls.c.analysis_attempts == attempt - 1,
    )
