"""Runs one errand: may it, can it, has it been done already; then do it, within its budget, and write down what became of it.

Rule 1: the checks have an order, and the first that fails says no: how many, which tool, for this agent, its arguments, the ledger.
Rule 2: an errand with an effect begins only after its `intended` is committed. With the database down it does not begin.
Rule 3: what has an effect and ended in anything but a result or a plain refusal is `unknown`: nobody claims that it was not done.
Rule 4: the budget holds for asking the ledger, every attempt and every pause between them. The outcome is written beyond it.
Rule 5: nothing but `ToolRefused` leaves `run`, and the cancellation of whoever called it.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import stamina

from app.agents.controls import CONTROLS
from app.call.agent import ToolKind, ToolSpec
from app.call.commands import RunErrand
from app.call.errands import ErrandContext
from app.errors import OurFault, ToolRefused, WorldFault
from app.logs import logger
from app.tools.arguments import Arguments, check, schema_of
from app.tools.record import NOT_CERTAIN, Ledger, Record, Recorder

log = logger("tools")

MOST_ERRANDS = 30
"""Of one call."""
LONGEST_RESULT = 8_000
"""Characters of JSON text given to the model."""
ATTEMPTS = 3
CALLS_REMEMBERED = 20_000
"""How many calls the errands are counted of; twice what one process can have at once."""

TOO_MANY = "Too many tools have been used in this call. Go on without tools: offer that somebody calls back."
UNKNOWN_TOOL = "There is no such tool."
NOT_ALLOWED = "You cannot use this tool."
STILL_OUT = "This is still being carried out. Wait for its result."
TOO_LATE = "This took too long and was given up. Nothing was changed."
BROKEN = "This did not work."


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a tool is given beside its arguments: the call's state, and the key under which a repeat can be recognised."""

    context: ErrandContext
    tool_call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool[A: Arguments]:
    """A tool: what the model reads about it, what it may choose, what is done, and how carefully.

    Raises:
        OurFault: the declaration is wrong.
    """

    name: str
    description: str
    arguments: type[A]
    run: Callable[[A, Errand], Awaitable[Mapping[str, Any]]] = field(repr=False)
    budget_ms: int = 5_000
    """100 to 60,000, for everything."""
    effect: bool = False
    """It changes something in the world."""
    safe_to_retry: bool = False
    """Done twice it does no more than done once. Then it is tried again when the world says "not now" (`WorldFault.retryable`)."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", self.name) or self.name in CONTROLS:
            raise OurFault(f"{self.name!r} cannot be the name of a tool: a-z, 0-9 and _, and none of {', '.join(CONTROLS)}")
        if not 100 <= self.budget_ms <= 60_000:
            raise OurFault(f"the budget of {self.name} must be from 100 to 60,000 ms")
        if not self.description.strip():
            raise OurFault(f"{self.name} needs a description: the model knows nothing else about it")
        schema_of(self.arguments)

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return ToolSpec(
            name=self.name,
            kind=ToolKind.ERRAND,
            description=self.description,
            parameters=schema_of(self.arguments),
            budget_ms=self.budget_ms,
            effect=self.effect,
        )


class Toolbox:
    """All the errands there are, and the way to run one."""

    def __init__(self, ledger: Ledger, tools: Iterable[Tool[Any]]) -> None:
        self._recorder = Recorder(ledger)
        self._tools: dict[str, Tool[Any]] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise OurFault(f"two tools have the name {tool.name}")
            self._tools[tool.name] = tool
        self._specs = {tool.name: tool.spec for tool in self._tools.values()}
        self._out: set[tuple[str, str]] = set()
        self._counts: OrderedDict[str, int] = OrderedDict()

    def specs(self) -> dict[str, ToolSpec]:
        """Every errand as the model sees it, by name."""
        return dict(self._specs)

    async def run(self, order: RunErrand, context: ErrandContext, allowed: Collection[str]) -> str:
        """Run an errand and return its result as JSON text of at most 8,000 characters. `allowed` names the agent's tools.

        The same order of the same call again returns the stored result and does nothing.

        Raises:
            ToolRefused: it may not, could not, or did not end well; `reason` is for the model.
        """
        key = (context.call_id, order.tool_call)
        if key in self._out:
            raise ToolRefused(STILL_OUT)
        self._count(context.call_id)
        self._out.add(key)
        try:
            return await self._run(order, context, allowed)
        finally:
            self._out.discard(key)

    async def settled(self) -> None:
        """Wait until every outcome has been written, or given up on."""
        await self._recorder.settled()

    def _count(self, call_id: str) -> None:
        count = self._counts.get(call_id, 0) + 1
        self._counts[call_id] = min(count, MOST_ERRANDS + 1)
        self._counts.move_to_end(call_id)
        if len(self._counts) > CALLS_REMEMBERED:
            self._counts.popitem(last=False)
        if count > MOST_ERRANDS:
            log.warning("too many errands in one call", call_id=call_id)
            raise ToolRefused(TOO_MANY)

    async def _run(self, order: RunErrand, context: ErrandContext, allowed: Collection[str]) -> str:
        tool = self._tools.get(order.name)
        record = Record(
            self._recorder, order, context, name=tool.name if tool else "unknown_tool", effect=bool(tool and tool.effect)
        )
        try:
            if tool is None:
                raise ToolRefused(UNKNOWN_TOOL)
            if tool.name not in allowed:
                raise ToolRefused(NOT_ALLOWED)
            arguments = check(tool.arguments, order.arguments)
        except ToolRefused as refusal:
            log.info("an errand was refused", call_id=context.call_id, tool=record.name)
            await record.refused(refusal.reason)
            raise
        limit = asyncio.timeout(min(order.budget_ms, tool.budget_ms) / 1_000)
        try:
            async with limit:
                stored = await record.intend()
                if stored is not None:
                    return stored
                text = _as_json(await _attempt(tool, arguments, record))
        except ToolRefused as refusal:
            await record.failed(refusal.reason)
            raise
        except asyncio.CancelledError:
            broken = await _broken(record, tool, "CancelledError", BROKEN)
            if _we_are_cancelled():
                raise
            raise broken from None  # the tool cancelled something of its own: to us, a tool that broke
        except Exception as fault:
            raise await _broken(record, tool, type(fault).__name__, TOO_LATE if limit.expired() else BROKEN) from None
        await record.done(text)
        return text


async def _attempt(tool: Tool[Any], arguments: Arguments, record: Record) -> Mapping[str, Any]:
    """Once; or, where the tool is declared safe, up to three times while the world says "not now"."""
    errand = Errand(context=record.context, tool_call=record.order.tool_call)
    attempts = ATTEMPTS if tool.safe_to_retry else 1
    async for attempt in stamina.retry_context(on=_not_now, attempts=attempts, wait_initial=0.1, wait_max=1.0, wait_jitter=0.1):
        with attempt:
            record.attempts = attempt.num
            return await tool.run(arguments, errand)
    raise AssertionError("retrying ends with a result or an exception")


def _not_now(fault: Exception) -> bool:
    return isinstance(fault, WorldFault) and fault.retryable


def _we_are_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _broken(record: Record, tool: Tool[Any], fault: str, reason: str) -> ToolRefused:
    """What the model is told of a tool that ended in neither a result nor a refusal."""
    log.warning("an errand broke", call_id=record.context.call_id, tool=tool.name, fault=fault, attempts=record.attempts)
    if tool.effect and record.attempts:
        await record.unknown(f"{NOT_CERTAIN} ({fault})")  # rule 3
        return ToolRefused(NOT_CERTAIN)
    await record.failed(f"{reason} ({fault})")
    return ToolRefused(reason)


def _as_json(result: Mapping[str, Any]) -> str:
    """JSON text of at most LONGEST_RESULT characters. What is longer is cut, and says so."""
    text = msgspec.json.encode(result).decode()
    if len(text) <= LONGEST_RESULT:
        return text
    keep = LONGEST_RESULT
    while len(cut := msgspec.json.encode({"cut_short": True, "beginning": text[:keep]}).decode()) > LONGEST_RESULT:
        keep = keep * LONGEST_RESULT // len(cut) - 1  # a quote becomes two characters, a control character six
    return cut
