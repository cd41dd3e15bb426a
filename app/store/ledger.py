"""The ledger of errands: what was to be done, and what became of it. What has an effect begins only after its `intended` is here.

Rule 1: at most once by call and tool call, over all epochs and workers: whoever writes `intended` does it, everybody else is told
how it stands.
Rule 2: `intended` is committed at once, outside the batch, and only while the call's epoch is current and its row is live.
Rule 3: an outcome is a fact and needs no epoch. The first one stands; only `unknown` may still become known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.call.agent import ToolKind
from app.call.errands import ErrandContext
from app.errors import Fenced, StoreUnavailable
from app.store.engine import Database
from app.store.facts import utc_now
from app.store.tables import RowState, ToolStatus, calls, tool_invocations

__all__ = ["Ledger", "Standing", "ToolStatus"]

OPEN = (ToolStatus.INTENDED, ToolStatus.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an errand stands in the ledger."""

    new: bool
    """True: it is yours to do. False: somebody has written it down before; do nothing."""
    status: ToolStatus
    """`intended` and not new: it is running elsewhere, or whoever ran it is gone; nobody knows whether it took effect."""
    result: str | None = field(default=None, repr=False)
    """JSON text, when done."""
    reason: str | None = None
    """Why not, when failed, refused or unknown."""


class Ledger:
    """All errands of one database. `is_behind` says of a call that what is written of it waits for the database elsewhere."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime] = utc_now,
        is_behind: Callable[[str], bool] = lambda call_id: False,
    ) -> None:
        self._database = database
        self._clock = clock
        self._is_behind = is_behind

    async def intend(self, context: ErrandContext, tool_call: str, name: str, arguments: str, effect: bool) -> Standing:
        """Write down that this is going to be done; committed when it returns.

        Raises:
            Fenced: the call has another epoch now, or is finished. Do nothing.
            StoreUnavailable: nothing may have been written. An errand with an effect must not begin.
        """
        if self._is_behind(context.call_id):  # known to be away, or the call's row not made yet: nobody need wait to learn it
            raise StoreUnavailable("write down an errand")
        row = self._row(context, tool_call, name, arguments, effect)
        insert = self._database.insert(tool_invocations).values(row | {"status": ToolStatus.INTENDED})
        async with self._database.write("write down an errand") as connection:
            # the lock holds the epoch still until `intended` is committed
            fence = sa.select(calls.c.epoch, calls.c.state).where(calls.c.call_id == context.call_id).with_for_update(read=True)
            call = (await connection.execute(fence)).one_or_none()
            if call is None or call.epoch != context.epoch or call.state is RowState.FINAL:
                raise Fenced(context.call_id, context.epoch)
            once = insert.on_conflict_do_nothing(index_elements=["call_id", "tool_call"]).returning(tool_invocations.c.id)
            if (await connection.execute(once)).first() is not None:
                return Standing(new=True, status=ToolStatus.INTENDED)
            found = sa.select(tool_invocations).where(_this(context, tool_call))
            known = (await connection.execute(found)).mappings().one()
            return Standing(new=False, status=known["status"], result=known["result"], reason=known["reason"])

    async def done(self, context: ErrandContext, tool_call: str, result: str, *, attempts: int = 1) -> bool:
        """It was done. `result` is JSON text. False: another outcome stands already, or it was never intended."""
        return await self._close(context, tool_call, ToolStatus.DONE, attempts, result=result)

    async def failed(self, context: ErrandContext, tool_call: str, reason: str, *, attempts: int = 1) -> bool:
        """It was not done, for certain. `reason` holds nothing private."""
        return await self._close(context, tool_call, ToolStatus.FAILED, attempts, reason=reason)

    async def unknown(self, context: ErrandContext, tool_call: str, reason: str, *, attempts: int = 1) -> bool:
        """It was begun, and nobody can say whether it took effect."""
        return await self._close(context, tool_call, ToolStatus.UNKNOWN, attempts, reason=reason)

    async def refused(
        self, context: ErrandContext, tool_call: str, name: str, arguments: str, reason: str, *, effect: bool = False
    ) -> bool:
        """It was asked for and not begun: a wish against the rules. False: the tool call is in the ledger already.

        Raises:
            Fenced: there is no such call.
        """
        row = self._row(context, tool_call, name, arguments, effect)
        outcome = {
            "status": ToolStatus.REFUSED,
            "reason": reason,
            "finished_at": row["started_at"],
            "duration_ms": 0,
            "attempts": 0,
        }
        insert = self._database.insert(tool_invocations).values(row | outcome)
        once = insert.on_conflict_do_nothing(index_elements=["call_id", "tool_call"]).returning(tool_invocations.c.id)
        async with self._database.write("write down a refusal") as connection:
            if (await connection.execute(sa.select(calls.c.call_id).where(calls.c.call_id == context.call_id))).first() is None:
                raise Fenced(context.call_id, context.epoch)
            return (await connection.execute(once)).first() is not None

    async def standing(self, call_id: str, tool_call: str) -> Standing | None:
        """How it stands now; None: it was never written down."""
        query = sa.select(tool_invocations).where(tool_invocations.c.call_id == call_id, tool_invocations.c.tool_call == tool_call)
        async with self._database.read("read the ledger") as connection:
            known = (await connection.execute(query)).mappings().one_or_none()
        if known is None:
            return None
        return Standing(new=False, status=known["status"], result=known["result"], reason=known["reason"])

    def _row(self, context: ErrandContext, tool_call: str, name: str, arguments: str, effect: bool) -> dict[str, Any]:
        return {
            "call_id": context.call_id,
            "epoch": context.epoch,
            "tool_call": tool_call,
            "name": name,
            "agent": context.agent,
            "kind": ToolKind.ERRAND,
            "effect": effect,
            "arguments": arguments,
            "started_at": self._clock(),
            "attempts": 0,
        }

    async def _close(self, context: ErrandContext, tool_call: str, status: ToolStatus, attempts: int, **outcome: str) -> bool:
        now = self._clock()
        async with self._database.write("write down what became of an errand") as connection:
            found = sa.select(tool_invocations.c.started_at).where(_this(context, tool_call)).with_for_update()
            started_at = (await connection.execute(found)).scalar_one_or_none()
            if started_at is None:
                return False
            duration_ms = max(0, round((now - started_at).total_seconds() * 1_000))  # the wall clock may have been set back
            update = (
                sa.update(tool_invocations)
                .where(_this(context, tool_call), tool_invocations.c.status.in_(OPEN))
                .values(
                    {
                        "status": status,
                        "finished_at": now,
                        "duration_ms": duration_ms,
                        "attempts": attempts,
                        "reason": None,
                        **outcome,
                    }
                )
            )
            return (await connection.execute(update)).rowcount == 1


def _this(context: ErrandContext, tool_call: str) -> sa.ColumnElement[bool]:
    return (tool_invocations.c.call_id == context.call_id) & (tool_invocations.c.tool_call == tool_call)
