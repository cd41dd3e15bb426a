"""A call in a real store, a toolbox over it, and tools that behave as a scene needs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
import stamina

from app.call.commands import RunErrand
from app.call.errands import ErrandContext
from app.errors import StoreUnavailable
from app.store.calls import Calls, NewCall
from app.store.engine import Database
from app.store.ledger import Ledger
from app.store.tables import tool_invocations
from app.tools.arguments import Arguments
from app.tools.toolbox import Errand, Tool, Toolbox


class Say(Arguments):
    word: str
    times: int = 1


class Body:
    """What a tool does, one entry of the script for each time it is begun; the last one for ever. It counts."""

    def __init__(self, *script: Any) -> None:
        self._script = list(script) or [{"ok": True}]
        self.begun = 0
        self.seen: list[tuple[Arguments, Errand]] = []
        self.running = asyncio.Event()

    async def __call__(self, arguments: Arguments, errand: Errand) -> Mapping[str, Any]:
        step = self._script[min(self.begun, len(self._script) - 1)]
        self.begun += 1
        self.seen.append((arguments, errand))
        self.running.set()
        if callable(step):
            step = step()
        if isinstance(step, asyncio.Event):
            await step.wait()
            return {"ok": True}
        if isinstance(step, BaseException):
            raise step
        return step


def tool(body: Body, **changed: Any) -> Tool[Any]:
    return Tool(**{"name": "say", "description": "Say a word.", "arguments": Say, "run": body, "budget_ms": 60_000, **changed})


class AwayLedger:
    """The real ledger behind an outage: the first `times` calls of each method fail as the store fails."""

    def __init__(self, ledger: Ledger, **times: int) -> None:
        self._ledger, self._times = ledger, times

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **named: Any) -> Any:
            if self._times.get(name, 0) > 0:
                self._times[name] -= 1
                raise StoreUnavailable("try")
            return await getattr(self._ledger, name)(*arguments, **named)

        return call


class Scene:
    """One live call and its errands."""

    def __init__(self, store: Database, context: ErrandContext) -> None:
        self.store, self.context = store, context
        self.ledger = Ledger(store)
        self._number = 0
        self._toolboxes: list[Toolbox] = []

    def toolbox(self, *tools: Tool[Any], **away: int) -> Toolbox:
        self._toolboxes.append(Toolbox(AwayLedger(self.ledger, **away), tools))
        return self._toolboxes[-1]

    def order(self, arguments: str = '{"word": "hello"}', **changed: Any) -> RunErrand:
        self._number += 1
        order = RunErrand(f"t{self._number}", "say", self.context.agent, arguments, 60_000)
        return replace(order, **changed)

    async def rows(self) -> list[Mapping[str, Any]]:
        """The ledger, once every outcome is written: a busy machine may take longer for that than an errand waits."""
        for box in self._toolboxes:
            await box.settled()
        async with self.store.read() as connection:
            return list((await connection.execute(sa.select(tool_invocations).order_by(tool_invocations.c.id))).mappings())

    async def row(self) -> Mapping[str, Any]:
        (row,) = await self.rows()
        return row

    async def status(self) -> str:
        return str((await self.row())["status"].value)


@pytest.fixture
async def scene(sqlite_url: str) -> AsyncIterator[Scene]:
    store = Database(sqlite_url)
    new = NewCall(carrier_call_sid="CA1", account_sid=None, from_number="+15550100001", to_number=None, agent="front-desk")
    state, _ = await Calls(store).born(new)
    slots = {"name": "Ada Ray", "callback_number": "+15550100009"}
    yield Scene(
        store,
        ErrandContext(call_id=state.call_id, epoch=1, agent="front-desk", caller_number="+15550100001", slots=slots),
    )
    await store.close()


@pytest.fixture
async def hang(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable[[], asyncio.Event]]:
    """What a tool does that never comes back, while `ms` go by: the loop's clock is set forward, so nobody waits for them."""
    loop = asyncio.get_running_loop()
    clock, ahead = loop.time, 0.0

    def hangs(ms: int) -> Callable[[], asyncio.Event]:
        def begin() -> asyncio.Event:
            nonlocal ahead
            ahead += ms / 1_000
            return asyncio.Event()

        return begin

    monkeypatch.setattr(loop, "time", lambda: clock() + ahead)
    return hangs


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries come at once; how many there are at most stays as the service has it."""
    with stamina.set_testing(True, attempts=1_000, cap=True):
        yield
