"""One live call: one inbox, one reader, errands outside, the call's deadline.

Rule 1: only the reader touches the call. Whatever happens is posted, stamped, and seen in that order; who posts while nobody reads,
reads until the inbox is empty. So no event waits for a task to be woken, and none is seen inside another.
Rule 2: the clock is kept here; the call is told the time, in ms since its birth.
Rule 3: slow work (errands, the store) leaves as a task and comes back as an event, also when it fails.
Rule 4: the audio never waits for the database.
Rule 5: an exception out of the call is our fault: the stream is given up, and another takes the call on from what was kept.
Rule 6: at most one session with the model is in force, and one beside it may stand ready. What a session says that is neither is
dropped here, at the door: a session that was replaced cannot speak any more.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from app.audio.recent import Recent
from app.call import commands as c
from app.call.disposition import Filed, Intent
from app.call.errands import ErrandContext
from app.call.events import (
    DeadlinePassed,
    ErrandFailed,
    ErrandReturned,
    Event,
    LineFound,
    ModelLost,
    ModelReady,
    SpareLost,
    SpareReady,
    StreamEnded,
    StreamStarted,
)
from app.call.journal import Line, Recorder
from app.call.machine import Call
from app.errors import CallrowError, ModelUnavailable, ToolRefused, WorldFault
from app.logs import logger, where

log = logger("bridge")

PLAN_WITHIN_S = 2.0
STALLED_S = 5.0
FAILED = "the tool failed; say that it did not work, and offer another way"


class CallerLeg(Protocol):
    """The caller's side."""

    @property
    def sending_since(self) -> float | None: ...

    async def pump(self, post: Callable[[Event], None], hear: Callable[[bytes], None]) -> None: ...
    def send(self, command: c.PlayAudio | c.SendMark | c.ClearPlayout) -> None: ...
    async def close(self, code: int = 1000) -> None: ...


class ModelLeg(Protocol):
    """One session with the model. Its events, the first of them that it is ready, come by the `post` that it was made with."""

    async def open(self) -> None:
        """Returns when it is ready. Raises ModelUnavailable, within a few seconds."""

    def append(self, mulaw: bytes) -> None: ...
    def send(self, command: c.ModelCommand) -> None: ...
    async def close(self) -> None: ...


class Keeper(Protocol):
    """What a bridge needs of the store, bound to its call and epoch."""

    def keep(self, item: Line | c.KeepUtterance | c.KeepTurn | c.KeepTool | c.KeepMemory) -> None:
        """Put something into the next batch; never waits."""

    async def plan(self, intent: Intent, target: str | None) -> None:
        """Commit everything kept so far, and what is to follow this stream."""

    async def file(self, filed: Filed) -> None:
        """Finish the row; returns when it is finished, by us or by another."""


type Errand = Callable[[c.RunErrand, ErrandContext], Awaitable[str]]
type Sessions = Callable[[Callable[[Event], None], c.OpenModel], ModelLeg]
"""Makes a session that is not open yet: where its events go, and what it is wanted for."""
type HouseLine = Callable[[str], tuple[str, bytes]]
"""A sentence of the house's own, by its name: its words, and its sound as line audio."""


class _Nobody:
    """Where the model is, as long as no session was asked for."""

    async def open(self) -> None:
        raise ModelUnavailable("nobody")

    def append(self, mulaw: bytes) -> None:
        """Nobody hears it."""

    def send(self, command: c.ModelCommand) -> None:
        """Nobody is told."""

    async def close(self) -> None:
        """Nobody is there."""


class Bridge:
    """One stream of one call, from `run` to its end."""

    def __init__(
        self,
        call: Call,
        *,
        call_id: str,
        epoch: int,
        caller_number: str | None,
        born_ago_ms: int,
        caller: CallerLeg,
        sessions: Sessions,
        line: HouseLine,
        keeper: Keeper,
        errand: Errand,
        dice: random.Random | None = None,
    ) -> None:
        self.call, self.call_id, self.epoch = call, call_id, epoch
        self._number = caller_number
        self._caller = caller
        self._sessions, self._line = sessions, line
        self._dice = dice or random.Random()  # noqa: S311 (it spreads tries over time, no more)
        self._model: ModelLeg = _Nobody()
        self._spare: ModelLeg | None = None
        self._in_force = self._beside = self._opened = self._lines = 0  # sessions by their number, from 1; lines counted
        self._recent = Recent()
        self._keeper, self._errand = keeper, errand
        self._zero = time.monotonic_ns() // 1_000_000 - born_ago_ms
        self._inbox: deque[tuple[int, Event]] = deque()
        self._reading = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._recorder = Recorder(keeper.keep)
        self._filed: Filed | None = None

    # ---- what others may do

    def post(self, event: Event) -> None:
        """Something happened."""
        self._inbox.append((self._now(), event))
        if not self._reading:
            self._read()

    def hear(self, mulaw: bytes) -> None:
        """The caller's sound; it does not pass the call, which only says whether anybody listens."""
        call = self.call
        if call.listening:
            if self._recent.add(mulaw):
                now = self._now()
                self._recent.keep(now - call.kept_since(now))
            self._model.append(mulaw)

    async def run(self) -> None:
        """Carry the call until nothing more is to be done for it here."""
        self._recorder.opened(self.call, at=self._now())
        self._start(self._caller.pump(self.post, self.hear))
        self.post(StreamStarted())
        try:
            await self._ended
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
            self._recorder.flush()
        await self._finish()

    # ---- the one reader

    def _now(self) -> int:
        return time.monotonic_ns() // 1_000_000 - self._zero

    def _read(self) -> None:
        call, inbox = self.call, self._inbox
        self._reading = True
        try:
            while inbox and not self._ended.done():
                at, event = inbox.popleft()
                ordered = call.handle(event, at=at)
                for command in ordered:
                    self._carry_out(command)
                self._recorder.saw(event, ordered, at=at)
                if call.over:
                    self._ended.set_result(None)
        except Exception as fault:  # rule 5
            log.error(
                "the call's machine failed; its stream is given up",
                call_id=self.call_id,
                epoch=self.epoch,
                fault=type(fault).__name__,
                at=where(fault),
            )
            self._ended.set_result(None)
            self._start(self._leave(c.LeaveStream(Intent.TALK)))
        finally:
            self._reading = False
        if not self._ended.done():
            self._arm()

    def _arm(self) -> None:
        """See that the call's deadline is not slept through. An alarm that rings early is only set again."""
        due = self.call.deadline
        if due is None or (self._alarm is not None and self._alarm_at <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = asyncio.get_running_loop().call_later(max(0, due - self._now()) / 1000, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        due = self.call.deadline
        if due is not None and due <= self._now():
            self.post(DeadlinePassed())
        else:
            self._arm()

    def _carry_out(self, command: c.Command) -> None:
        kind = type(command)
        if kind is c.PlayAudio or kind is c.SendMark or kind is c.ClearPlayout:
            self._caller.send(command)  # type: ignore[arg-type]
        elif kind in c.MODEL:
            if kind is c.CloseModel:
                self._close_sessions()
            else:
                self._model.send(command)  # type: ignore[arg-type]
        elif kind is c.OpenModel:
            self._open_session(command)  # type: ignore[arg-type]
        elif kind is c.SwapModel:
            self._swap(command.hear_again_ms)  # type: ignore[union-attr]
        elif kind is c.SayLine:
            self._find_line(command.line)  # type: ignore[union-attr]
        elif kind is c.RunErrand:
            self._start(self._run_errand(command))  # type: ignore[arg-type]
        elif kind is c.LeaveStream:
            self._start(self._leave(command))  # type: ignore[arg-type]
        elif kind is c.FileCall:
            self._filed = command.filed  # type: ignore[union-attr]
        else:
            self._keeper.keep(command)  # type: ignore[arg-type]

    # ---- sessions with the model

    def _open_session(self, order: c.OpenModel) -> None:
        self._opened += 1
        number = self._opened
        leg = self._sessions(lambda event: self._said(number, event), order)
        self._replace_spare(None)
        if order.beside:
            self._spare, self._beside = leg, number
        else:
            leg.append(self._recent.last(order.hear_again_ms))
            self._put_in_force(leg, number)
        self._start(self._meet(leg, number, order.spread_ms))

    def _put_in_force(self, leg: ModelLeg, number: int) -> None:
        before, self._model, self._in_force = self._model, leg, number
        before.send(c.CloseModel())
        self._start(before.close())

    def _replace_spare(self, leg: ModelLeg | None) -> None:
        before, self._spare, self._beside = self._spare, leg, 0
        if before is not None:
            before.send(c.CloseModel())
            self._start(before.close())

    def _swap(self, hear_again_ms: int) -> None:
        leg, number = self._spare, self._beside
        if leg is None:  # lost, and the call has not been told yet
            self._put_in_force(_Nobody(), 0)
            self.post(ModelLost("no_spare"))
            return
        self._spare, self._beside = None, 0
        self._put_in_force(leg, number)
        leg.append(self._recent.last(hear_again_ms))

    def _close_sessions(self) -> None:
        self._replace_spare(None)
        self._start(self._model.close())

    async def _meet(self, leg: ModelLeg, number: int, spread_ms: int) -> None:
        await asyncio.sleep(self._dice.random() * spread_ms / 1_000)
        try:
            if self._is_wanted(number):
                await leg.open()
        except ModelUnavailable as fault:
            if self._is_wanted(number):
                log.warning("no session with the model", call_id=self.call_id, reason=fault.reason, code=fault.code)
                self._said(number, ModelLost(fault.reason, fatal=not fault.retryable))

    def _is_wanted(self, number: int) -> bool:
        return number in (self._in_force, self._beside)

    def _said(self, number: int, event: Event) -> None:
        """A session's events (rule 6)."""
        if number == self._in_force:
            self.post(event)
        elif number == self._beside:
            if isinstance(event, ModelReady):
                self.post(SpareReady(event.lasts_ms))
            elif isinstance(event, ModelLost):
                self._replace_spare(None)
                self.post(SpareLost(event.reason, event.fatal))

    def _find_line(self, name: str) -> None:
        text, sound = self._line(name)
        self._lines += 1
        self.post(LineFound(f"line-{self._lines}", name, len(sound), text, sound))

    # ---- slow work

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a task of the call failed", call_id=self.call_id, fault=type(fault).__name__)

    async def _run_errand(self, order: c.RunErrand) -> None:
        context = ErrandContext(
            call_id=self.call_id,
            epoch=self.epoch,
            agent=order.agent,
            caller_number=self._number,
            slots=self.call.slots.values,
        )
        try:
            async with asyncio.timeout(order.budget_ms / 1000 + 1):  # the toolbox keeps the budget; this is the second lock
                result = await self._errand(order, context)
        except ToolRefused as refused:
            self.post(ErrandFailed(order.tool_call, str(refused)))
        except Exception as fault:  # a tool's failure is an answer to the model, never the call's end
            log.error("an errand failed", call_id=self.call_id, tool=order.name, fault=type(fault).__name__)
            self.post(ErrandFailed(order.tool_call, FAILED))
        else:
            self.post(ErrandReturned(order.tool_call, result))

    async def _leave(self, order: c.LeaveStream) -> None:
        """What is to follow is committed before the stream is closed, so that whoever is asked next knows it."""
        try:
            async with asyncio.timeout(PLAN_WITHIN_S):
                await self._keeper.plan(order.intent, order.target)
        except (TimeoutError, WorldFault) as fault:
            log.error("what follows the stream could not be stored", call_id=self.call_id, fault=type(fault).__name__)
        await self._caller.close()

    async def _finish(self) -> None:
        if not self.call.over:  # rule 5: what follows is being stored, and then the stream is closed
            await asyncio.wait(self._tasks, timeout=PLAN_WITHIN_S + 1)
        self._start(self._caller.close())
        self._close_sessions()
        if self._filed is not None:
            try:
                await self._keeper.file(self._filed)
            except CallrowError as fault:
                log.error("the row could not be finished here", call_id=self.call_id, fault=type(fault).__name__)
        if self._tasks:  # errands under way are bounded by their budgets; their outcome belongs in the ledger
            await asyncio.wait(self._tasks, timeout=60)
        for task in list(self._tasks):
            task.cancel()

    @property
    def will_file(self) -> bool:
        """The row is this bridge's to finish; else whoever hears of the call's end must."""
        return self._filed is not None or (not self._ended.done() and self.call.will_file)

    def give_up(self) -> None:
        """The caller's socket is of no use any more: end the stream as if it had broken."""
        self.post(StreamEnded(clean=False))

    @property
    def is_stalled(self) -> bool:
        """The caller's socket has taken nothing for five seconds."""
        since = self._caller.sending_since
        return since is not None and asyncio.get_running_loop().time() - since > STALLED_S
