"""No agent can be had, and a caller is on the line: put through to a person, or told in a sentence of the house's what follows.

`phase` is never changed here.
Rule 1: a person is tried once a call. Nobody is told that we call back whose number we do not know.
Rule 2: what a goodbye had decided before the session was lost stands: the call still ends as it was to end.
"""

from dataclasses import replace

from app.call.answers import Answers
from app.call.commands import CloseModel, Command
from app.call.controls import Goodbye
from app.call.disposition import EndReason, Intent, Memory
from app.call.sentences import CALL_BACK_NEXT, CALLING_BACK, CANNOT_GO_ON, GOODBYE, PUTTING_THROUGH
from app.call.talk import FILLER_MS, House

LAST_TIMERS = ("answer", "errand", "retry", "reopen", "line", "fallback", "again", "rollover", "swap", "barge_in", "monologue")


class Fallback(Answers):
    """The end of all tries."""

    def __init__(self, house: House, memory: Memory) -> None:
        super().__init__(house, memory)
        self._spare: str | None = None  # the agent for whom there is a spare session, open or being opened
        self._spare_lasts: int | None = None
        self._spare_ready = False

    def _person(self) -> str | None:
        """Whom the caller can be put through to: who is named like the agent, or the first; once a call."""
        if self.memory.escalated or not self.house.directory:
            return None
        return self.agent.name if self.agent.name in self.house.directory else self.house.directory[0]

    def _without_agent(self, at: int) -> tuple[Goodbye, str]:
        """How the call ends without an agent, and the line that says so."""
        if (person := self._person()) is not None:
            self.memory = replace(self.memory, escalated=True, transfer_to=person)
            return Goodbye(Intent.TRANSFER, EndReason.TRANSFERRED, "", person), PUTTING_THROUGH
        goodbye = Goodbye(Intent.HANG_UP, EndReason.MODEL_UNAVAILABLE, "")
        reachable = self.house.can_be_called_back or "callback_number" in self.slots.values
        if not reachable:
            return goodbye, CANNOT_GO_ON
        self.memory = replace(self.memory, next_action=self.memory.next_action or CALL_BACK_NEXT)
        return goodbye, CALLING_BACK

    def _last_line(self, line: str | None, at: int) -> list[Command]:
        """The goodbye is the house's, or on its way already: the stream is left when it has been heard."""
        assert self._goodbye is not None
        self._goodbye.asked = self._goodbye.said = self._goodbye.final = True
        self.asking.owed = None
        for timer in LAST_TIMERS:
            self._timers.pop(timer, None)
        commands: list[Command] = [CloseModel()]
        self._linked, self._spare, self._spare_ready = False, None, False
        if line is not None:
            commands += self._say_line(line, at)
        self._timers["goodbye"] = at + self.playout.pending_ms + FILLER_MS
        return [*commands, *self._keep_memory(), *self._leave_if_said(at)]

    def _end_without_model(self, goodbye: Goodbye, at: int) -> list[Command]:
        """The session is gone in the middle of a goodbye: it is said all the same."""
        if self._is_answering:
            return self._last_line(None, at)
        return self._last_line(PUTTING_THROUGH if goodbye.intent is Intent.TRANSFER else GOODBYE, at)
