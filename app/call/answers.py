"""What the model's responses come to: one that ended, one that failed, one that nobody hears. `phase` is never changed here.

Rule 1: an answer is what can be heard. Events alone are none, and a stream of digital silence is silence.
Rule 2: a caller who waits in vain hears after 2.5 s that we are still there; after 8 s the session is taken for lost
(`lifeline.py`), and 15 s after the trouble began we stop trying (`fallback.py`).
Rule 3: only what the agent says with its voice ends the trouble, so no sequence of half-successes lasts for ever.
"""

from dataclasses import replace

from app.call import events as e
from app.call.commands import ClearPlayout, Command, KeepUtterance, SayLine, SendMark, Speak, StopSpeaking
from app.call.controls import Goodbye
from app.call.disposition import Memory
from app.call.sentences import ONE_MOMENT, STILL_HERE
from app.call.talk import FILLER_MS, MARK_GRACE_MS, House, kept
from app.call.work import Work

RETRY_MS = 1_000
LONGEST_RETRY_MS = 4_000
"""A caller waits no longer in silence, whatever the provider asks for."""
RETRIES = 2
GIVE_UP_SESSION_MS = 8_000
GIVE_UP_MS = 15_000
ERRAND_AGAIN_MS = 6_000
LINE_GAP_MS = 4_000
"""Between the beginnings of two lines of the house's."""


class Answers(Work):
    """The responses' part of a call."""

    def __init__(self, house: House, memory: Memory) -> None:
        super().__init__(house, memory)
        self._goodbye: Goodbye | None = None
        self._failures = self._unheard_responses = 0
        self._line_at: int | None = None  # when the last line was asked for
        self._lines_due = 0  # asked for, and not there yet

    @property
    def can_be_heard(self) -> bool:
        """What is queued now will reach the caller."""
        raise NotImplementedError

    def _fall_back(self, at: int) -> list[Command]:
        """There is no agent to be had: whatever is next best for the caller."""
        raise NotImplementedError

    def _abandon_session(self, at: int) -> list[Command]:
        """The session stands, and nothing comes of it."""
        raise NotImplementedError

    def _leave_if_said(self, at: int) -> list[Command]:
        """The stream is left, if the last sentence has been heard."""
        raise NotImplementedError

    # ---- responses

    def _response_ended(self, event: e.ResponseEnded, at: int) -> list[Command]:
        if event.usage is not None:
            self.memory = replace(self.memory, usage=self.memory.usage.plus(event.usage))
        self.asking.ended(event.response)
        commands: list[Command] = []
        if self.asking.was_cut(event.response):  # what came too late to be played is in the model's memory all the same
            for utterance in self.transcript.unplayed(event.response, self.playout.queued):
                commands += [StopSpeaking(utterance, 0), *kept(self.transcript.cut(utterance, heard=0, at=at))]
        commands += [KeepUtterance(u) for u in self.transcript.never_played(event.response, at=at)]
        commands += self._keep_memory()
        if event.status == "failed":
            self._timers.pop("answer", None)
            return commands + self._failed(event.retry_ms, at)
        self._failures = 0
        if self._goodbye:
            self._timers.pop("answer", None)
            last = self._goodbye.asked or self._goodbye.response == event.response
            return commands + self._say_goodbye(last and self.asking.was_voiced(event.response), at)
        if self.talks and event.status != "cancelled" and not self.asking.came_to_something(event.response):
            return commands + self._unheard(at)
        self._timers.pop("answer", None)
        if not self.asking.owed and not self.errands.out:
            self._unanswered.clear()  # also by a silence that was chosen
        return commands + self._speak_if_owed(at)

    def _unheard(self, at: int) -> list[Command]:
        """A response without a sound and without a tool: once more, then in another session. The caller's wait goes on."""
        self._unheard_responses += 1
        self.asking.owed = self.asking.owed or self.asking.last
        if self._unheard_responses % 2 == 0:
            return self._abandon_session(at)
        waiting, waited = self._timers.get("answer", at + FILLER_MS), self._waited
        commands = self._speak_if_owed(at)
        if self.asking.asked:
            self._timers["answer"], self._waited = waiting, waited
        return commands

    def _failed(self, retry_ms: int | None, at: int) -> list[Command]:
        """The provider could not answer: once more after a while, then something else than silence."""
        self._failures += 1
        if not self.talks:
            return []
        wait_ms = retry_ms or RETRY_MS
        if self._failures > RETRIES or wait_ms > LONGEST_RETRY_MS:
            return self._fall_back(at)
        self.asking.owed = self.asking.owed or self.asking.last
        self._timers["retry"] = at + wait_ms
        return []

    def _complained(self, code: str, at: int) -> list[Command]:
        if code == "conversation_already_has_active_response" and self.asking.asked:
            self.asking.refused()
            self._timers.pop("answer", None)
            self._timers.setdefault("retry", at + RETRY_MS)
        return []

    # ---- an agent that is not heard

    def _answered(self, at: int) -> None:
        self._unanswered.clear()
        self._trouble, self._waited, self._unheard_responses = None, 0, 0
        for timer in ("fallback", "line"):
            self._timers.pop(timer, None)

    def _in_trouble(self, since: int) -> None:
        if self._trouble is None:
            self._trouble = since
            self._timers["fallback"] = since + GIVE_UP_MS

    def _waits_in_vain(self, at: int) -> list[Command]:
        """The caller has waited so long for an answer, or for more of one."""
        if self._is_answering:
            self._timers["answer"] = at + self.playout.pending_ms + FILLER_MS
            return []
        if self.floor.speaking:
            self._timers["answer"] = at + FILLER_MS
            return []
        self._in_trouble(at - FILLER_MS)
        self._waited += 1
        if self._waited > 1:
            return self._abandon_session(at)
        self._timers["answer"] = at + GIVE_UP_SESSION_MS - FILLER_MS
        return self._say_line(None, at)

    def _errand_takes_long(self, at: int) -> list[Command]:
        """A tool is at work, and the agent has nothing to say until it is back."""
        if not self.errands.out or not self.talks:
            return []
        self._timers["errand"] = at + ERRAND_AGAIN_MS
        if self.asking.is_busy or self.playout.is_audible or self.floor.speaking:
            return []
        return self._say_line(None, at)

    # ---- the house's own lines

    def _say_line(self, line: str | None, at: int) -> list[Command]:
        """Say a line; None: whatever fits a caller who waits, if nothing was said just now."""
        commands: list[Command] = []
        if line is None:
            if self._line_at is not None and at - self._line_at < LINE_GAP_MS:
                return []
            line = ONE_MOMENT if self._line_at is None or self._line_at < (self._trouble or at) else STILL_HERE
        waiting = list(self.playout.waiting)
        if waiting and all(u in self._no_answer and u in self.conversation for u in waiting):  # silence, to its end
            commands += [ClearPlayout(), *self._cut_off(at, tell_model=self._linked)]
        self._line_at = at
        self._lines_due += 1
        return [*commands, SayLine(line)]

    def _line_found(self, event: e.LineFound, at: int) -> list[Command]:
        self._lines_due -= 1
        if not self.can_be_heard:
            return []
        name = event.utterance
        self._no_answer.add(name)
        self.transcript.worded(name, event.text, response=name, agent=self.agent.name, at=at)
        self.transcript.generated(name, response=name, agent=self.agent.name, size=event.size, at=at)
        self.transcript.completed(name)
        commands = self._queue(name, event.payload, event.size, at)
        if (mark := self.playout.end(name)) is not None:
            commands.append(SendMark(mark))
        if self._goodbye is not None and self._goodbye.said:
            self._timers["goodbye"] = at + self.playout.pending_ms + MARK_GRACE_MS
        return commands

    # ---- goodbye

    def _say_goodbye(self, voiced: bool, at: int) -> list[Command]:
        goodbye = self._goodbye
        assert goodbye is not None
        if not voiced and not goodbye.asked:
            goodbye.asked = True
            return self._speak(Speak(goodbye.sentence, may_use_tools=False), at)
        goodbye.said = True
        self._timers["goodbye"] = at + self.playout.pending_ms + MARK_GRACE_MS
        return self._leave_if_said(at)
