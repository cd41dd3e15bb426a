"""What becomes of one errand, in the ledger: asked before it begins, written when it has ended, whatever the ending.

Rule 1: an errand with an effect does not begin unless its `intended` is committed. One without waits a moment for the ledger, and
then goes without it: that the database is away is no reason not to look something up elsewhere.
Rule 2: an outcome is written by a task of its own, which tries again while the database is away. The errand waits for it a moment
only, so that neither a slow database nor the end of the call loses it.
Rule 3: only who was given an errand by the ledger writes what became of it. Who never got an answer does not know whose it is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import stamina

from app.call.commands import RunErrand
from app.call.errands import ErrandContext
from app.errors import Fenced, StoreUnavailable, ToolRefused
from app.logs import logger
from app.store.ledger import Standing, ToolStatus
from app.tools.arguments import LONGEST_ARGUMENTS

log = logger("tools")

READING_WAITS_S = 1.0
"""So long an errand without an effect waits for the ledger (rule 1)."""
WRITING_WAITS_S = 0.5
"""So long a result waits for its outcome to be written (rule 2); below the second that the bridge adds to a budget."""
WRITING_GIVES_UP_S = 30.0
WRITING_ATTEMPTS = 10

NO_LEDGER = "Nothing can be booked or changed at the moment, and nothing was done. Say so, and offer that somebody calls back."
MOVED_ON = "This was not done: the call has moved on."
NOT_CERTAIN = (
    "It is not certain whether this was done. Say so, do not try it again, and say that somebody will check and call back."
)
TRIED_BEFORE = "This was tried before and did not work."


class Ledger(Protocol):
    """The store's ledger, as the toolbox needs it."""

    async def intend(self, context: ErrandContext, tool_call: str, name: str, arguments: str, effect: bool) -> Standing: ...

    async def done(self, context: ErrandContext, tool_call: str, result: str, *, attempts: int = 1) -> bool: ...

    async def failed(self, context: ErrandContext, tool_call: str, reason: str, *, attempts: int = 1) -> bool: ...

    async def unknown(self, context: ErrandContext, tool_call: str, reason: str, *, attempts: int = 1) -> bool: ...

    async def refused(
        self, context: ErrandContext, tool_call: str, name: str, arguments: str, reason: str, *, effect: bool = False
    ) -> bool: ...


class Recorder:
    """Writes down all the errands of one process."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._writing: set[asyncio.Task[None]] = set()

    async def write(self, call_id: str, write: Callable[[], Awaitable[bool]]) -> None:
        """Have an outcome written, and wait for it a moment (rule 2)."""
        task = asyncio.create_task(_write(call_id, write))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.wait({task}, timeout=WRITING_WAITS_S)

    async def settled(self) -> None:
        """Wait until every outcome has been written, or given up on."""
        while self._writing:
            await asyncio.wait(set(self._writing))


async def _write(call_id: str, write: Callable[[], Awaitable[bool]]) -> None:
    try:
        async for attempt in stamina.retry_context(
            on=StoreUnavailable,
            attempts=WRITING_ATTEMPTS,
            timeout=WRITING_GIVES_UP_S,
            wait_initial=0.2,
            wait_max=5.0,
            wait_jitter=0.2,
        ):
            with attempt:
                await write()
    except Exception as fault:  # the row stays `intended`, which is as good as unknown and is swept as such
        log.error("what became of an errand could not be written", call_id=call_id, fault=type(fault).__name__)


class Record:
    """One errand's place in the ledger. Of a tool that there is not, `name` is not the model's word, which may be anything."""

    def __init__(self, recorder: Recorder, order: RunErrand, context: ErrandContext, *, name: str, effect: bool) -> None:
        self._recorder, self._ledger = recorder, recorder.ledger
        self.order, self.context, self.name, self._effect = order, context, name, effect
        self.attempts = 0
        """How often the tool was begun."""
        self._ours = False
        self._overdue = False
        """The errand went without the ledger: it is written down when it is over."""

    async def intend(self) -> str | None:
        """Write down what is going to be done. None: go and do it; a text: it has been done, and this was the result.

        Raises:
            ToolRefused: it may not be done, or must not be done again.
        """
        try:
            async with asyncio.timeout(None if self._effect else READING_WAITS_S) as patience:
                standing = await self._intend()
        except Fenced:
            raise ToolRefused(MOVED_ON) from None
        except StoreUnavailable:
            log.warning("the ledger is away", call_id=self.context.call_id, tool=self.name, effect=self._effect)
            if self._effect:
                raise ToolRefused(NO_LEDGER) from None
            self._overdue = True
            return None
        except TimeoutError:
            if not patience.expired():
                raise
            self._overdue = True
            return None
        if standing.new:
            self._ours = True
            return None
        return await self._stands(standing)

    async def _intend(self) -> Standing:
        return await self._ledger.intend(self.context, self.order.tool_call, self.name, self.order.arguments, self._effect)

    async def _stands(self, standing: Standing) -> str | None:
        """What follows from somebody having written this errand down before us."""
        if standing.status is ToolStatus.DONE:
            return standing.result
        if standing.status in (ToolStatus.FAILED, ToolStatus.REFUSED):
            raise ToolRefused(standing.reason or TRIED_BEFORE)
        if not self._effect:
            self._ours = True  # whoever began it is gone, and looking again does no harm
            return None
        if standing.status is ToolStatus.INTENDED:  # begun, and not in this process; if it still comes to an end, that stands
            await self._recorder.write(self.context.call_id, lambda: self._unknown(NOT_CERTAIN))
        raise ToolRefused(NOT_CERTAIN)

    async def refused(self, reason: str) -> None:
        """It was not begun: a wish against the rules."""
        arguments = self.order.arguments[:LONGEST_ARGUMENTS]
        await self._recorder.write(
            self.context.call_id,
            lambda: self._ledger.refused(self.context, self.order.tool_call, self.name, arguments, reason, effect=self._effect),
        )

    async def done(self, result: str) -> None:
        """It was done."""
        await self._close(lambda: self._ledger.done(self.context, self.order.tool_call, result, attempts=self.attempts))

    async def failed(self, reason: str) -> None:
        """It was not done, for certain."""
        await self._close(lambda: self._ledger.failed(self.context, self.order.tool_call, reason, attempts=self.attempts))

    async def unknown(self, reason: str) -> None:
        """It was begun, and nobody can say whether it took effect."""
        await self._close(lambda: self._unknown(reason))

    def _unknown(self, reason: str) -> Awaitable[bool]:
        return self._ledger.unknown(self.context, self.order.tool_call, reason, attempts=self.attempts)

    async def _close(self, write: Callable[[], Awaitable[bool]]) -> None:
        if self._ours:
            await self._recorder.write(self.context.call_id, write)
        elif self._overdue:
            await self._recorder.write(self.context.call_id, lambda: self._late(write))

    async def _late(self, write: Callable[[], Awaitable[bool]]) -> bool:
        await self._intend()
        return await write()
