"""No session with the model is used to its end: in time a spare is opened beside it, and takes its place while nobody speaks.

`phase` is never changed here.
Rule 1: there are two connections only from the opening of the spare to the swap.
Rule 2: nothing waits for the spare. One that cannot be had is tried for again; a session that ends before there was a pause is lost
like any other, only that the next one stands ready.
"""

from dataclasses import replace

from app.call.commands import Command, OpenModel, SwapModel, TakeOver
from app.call.lifeline import LONGEST_AGAIN_MS, Lifeline

ROLL_AGAIN_MS = 10_000
SPREAD_MS = 1_000
LOOK_MS = 250
HAND_OVER_MS = 20_000
"""So long a pause is waited for in which another worker can take the call."""
QUIET_MS = 1_500
"""The caller has not spoken for so long when sessions are swapped."""


class Rollover(Lifeline):
    """The planned change of sessions, and of workers."""

    _leave_by: int | None = None

    def _roll_over(self) -> list[Command]:
        self._spare, self._spare_ready = self.agent.name, False
        return [OpenModel(beside=True, spread_ms=SPREAD_MS)]

    def _spare_came(self, lasts_ms: int | None, at: int) -> list[Command]:
        if self._spare is None:
            return []
        self._spare_ready, self._spare_lasts = True, lasts_ms
        return self._look_for_a_pause(at)

    def _spare_went(self, at: int) -> list[Command]:
        if self._spare is not None:
            self._spare, self._spare_ready = None, False
            self._timers.pop("swap", None)
            self._timers["rollover"] = at + ROLL_AGAIN_MS
        return []

    def _may_be_left(self, at: int) -> bool:
        """Another worker is to go on with the call: in a pause, of which the caller hears nothing, or at last without one."""
        if self._leave_by is None:
            self._leave_by = at + HAND_OVER_MS
        pause = self._is_pause(at)
        self.memory = replace(self.memory, handed_over=pause)
        self._timers["hand_over"] = at + LOOK_MS
        return pause or at >= self._leave_by

    def _was_handed_over(self) -> bool:
        """This stream goes on where another was left in a pause: nobody need say anything."""
        handed_over = self.memory.handed_over
        self.memory = replace(self.memory, handed_over=False)
        return handed_over

    def _is_pause(self, at: int) -> bool:
        """Nobody speaks, and nobody waits for anything."""
        waits = self.asking.is_busy or self.asking.owed or self.errands.out or self.transcript.waiting or self._again
        speaks = self.floor.speaking or self.playout.is_audible or at - self.floor.quiet_since < QUIET_MS
        return not (waits or speaks or "keys" in self._timers or self._goodbye is not None or not self.talks)

    def _look_for_a_pause(self, at: int) -> list[Command]:
        if not self._spare_ready:
            return []
        if not self._is_pause(at):
            self._timers["swap"] = at + LOOK_MS
            return []
        return self._swap(at)

    def _swap(self, at: int) -> list[Command]:
        agent, lasts_ms = self._spare, self._spare_lasts
        self._spare, self._spare_ready = None, False
        since = self._deaf_since if self._deaf_since is not None else at
        commands: list[Command] = [SwapModel(hear_again_ms=min(at - self._hear_from(since), LONGEST_AGAIN_MS))]
        if agent != self.agent.name:
            commands.append(TakeOver(self.agent.name))
        return [*commands, *self._link(lasts_ms, at), *self._go_on(at)]
