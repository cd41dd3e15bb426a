"""A session with the model is lost, and the call is not: another is opened, is told what was said, and goes on.

`phase` is never changed here.
Rule 1: what the caller hears does not wait for the provider: what is queued plays on, and behind it comes a line of the house's.
Rule 2: the words that the caller spoke to a session that could not answer are heard again by the next, from the sound that was
kept; they keep their name, and so stand in the transcript once.
Rule 3: the tries end 15 s after the trouble began, at once where another session would be refused likewise, and with the seventh
loss within a minute. What follows is in `fallback.py`.
"""

from dataclasses import replace

from app.call.commands import Command, KeepUtterance, OpenModel, Recall, SendMark, Speak
from app.call.disposition import Memory
from app.call.fallback import Fallback
from app.call.sentences import GO_ON, SAY_AGAIN
from app.call.talk import FILLER_MS, House, kept

BACKOFF_MS = (150, 500, 1_000, 2_000)
"""The pauses between tries; the first try is made at once. Each try is bounded by whoever makes it."""
SPREAD_MS = 50
MOST_LOSSES, LOSSES_WITHIN_MS = 6, 60_000
LINE_AGAIN_MS = 6_000
"""Between two lines while no session can be had."""
SEAM_MS = 120
"""So long before the queue runs dry a line is put behind it: marks are up to 100 ms late."""
ONSET_MS = 700
"""Speech may have begun so long before the detector would have said so."""
LEAD_MS = 300
"""What a detector wants to hear before the words."""
AGAIN_WITHIN_MS = 3_000
"""So long after a session is ready it must have noticed the words that it hears again."""
LONGEST_AGAIN_MS = 30_000
FIRST_WORDS_MS = 1_000
"""What is kept of a caller who speaks before the very first session is ready."""
LAST_MINUTES_MS = 300_000
"""So long before the provider ends a session by its own word, it is replaced."""


class Lifeline(Fallback):
    """The sessions' part of a call."""

    def __init__(self, house: House, memory: Memory) -> None:
        super().__init__(house, memory)
        self._sessions = 0  # that were ready
        self._tries = 0  # since the last that was
        self._losses: list[int] = []
        self._deaf_since: int | None = None  # since when nobody hears the caller
        self._again: list[str] = []  # the caller's utterances that the next session is to hear again
        self._names: dict[str, str] = {}  # what such an utterance is called by the next session, and its own name

    @property
    def _session(self) -> int:
        return self._sessions

    def _swap(self, at: int) -> list[Command]:
        """The spare session, which is ready, takes the place of the one in force."""
        raise NotImplementedError

    def _own_name(self, utterance: str) -> str:
        return self._names.get(utterance, utterance)

    def kept_since(self, at: int) -> int:
        """From when on the caller's sound must be kept, because a session may yet have to hear it again."""
        if self._deaf_since is not None:
            return max(self._hear_from(self._deaf_since), at - LONGEST_AGAIN_MS)
        unheard = [*self._again, *self._unworded(), *([self.floor.speaking] if self.floor.speaking else [])]
        began = [self.floor.span(utterance, at=at)[0] for utterance in unheard]
        return max(min([at, *began]) - ONSET_MS, at - LONGEST_AGAIN_MS)

    def _unworded(self) -> list[str]:
        """The caller's turns that were neither answered nor written down."""
        return [utterance for utterance in self._unanswered if utterance in self.transcript.waiting]

    def _hear_from(self, deaf_since: int) -> int:
        if not self._sessions:
            return deaf_since
        since = max(deaf_since - ONSET_MS, self.floor.quiet_since)
        if self._again:
            since = min(since, self.floor.span(self._again[0], at=since)[0] - LEAD_MS)
        return since

    # ---- lost

    def _break_off(self, at: int) -> list[Command]:
        """The session is gone, and what it was generating and hearing with it."""
        order, response = self.asking.unfinished, self.asking.response
        if order is not None and response is not None and self.transcript.says(response):
            order = Speak(GO_ON)
        elif order is None and self._unanswered and not self._we_take_turns:
            order = Speak()  # the session would have answered by itself; the next one does not know that it should
        self.asking.lost()
        self.asking.owed = self.asking.owed or order
        ended, unheard = self.transcript.break_off(self.playout.queued, at=at)
        commands: list[Command] = [KeepUtterance(utterance) for utterance in unheard]
        for name in ended:
            mark = self.playout.end(name)
            commands += [SendMark(mark)] if mark else self._keep_if_heard(name, at)
        self._again += [name for name in self._unworded() if name not in self._again]
        if self.floor.speaking is not None:
            self._again.append(self.floor.speaking)
            self.floor.speaking = None
        if any(name in self.conversation for name in self._again):
            self.asking.owed = None  # it comes when those words have been heard
        for name in self.transcript.waiting:
            if name not in self._again:
                commands += kept(self.transcript.untranscribed(name))
        for timer in ("answer", "retry", "barge_in", "monologue", "again", "rollover", "swap"):
            self._timers.pop(timer, None)
        return commands

    def _lost(self, at: int, *, fatal: bool, was_linked: bool) -> list[Command]:
        """The session in force is gone, or a try to get one has failed; and there is still somebody to talk with."""
        commands = self._break_off(at) if was_linked else []
        if self._goodbye is not None:
            return commands + self._end_without_model(self._goodbye, at)
        if not was_linked:
            if fatal:
                return commands + self._fall_back(at)
            late = not self._sessions and self._tries > 1 and self._line_at is None  # nothing was heard in this call yet
            return commands + self._open(at) + (self._still_waiting(at) if late else [])
        self._deaf_since, self._tries = at, 0
        self._losses = [then for then in self._losses if at - then < LOSSES_WITHIN_MS] + [at]
        self.memory = replace(self.memory, reconnects=self.memory.reconnects + 1)
        commands += self._keep_memory()
        if self._spare_ready:
            return commands + self._swap(at)
        self._in_trouble(at)
        if len(self._losses) > MOST_LOSSES:
            return commands + self._fall_back(at)
        return commands + self._open(at) + self._bridge_the_gap(at)

    def _bridge_the_gap(self, at: int) -> list[Command]:
        """Who waits is told so, as soon as nothing else is heard; who does not wait, or speaks, only if it takes long."""
        answered = all(name in self.conversation for name in self._again)
        if not answered or not (self.asking.owed or self.errands.out or self._again):
            self._timers["line"] = at + FILLER_MS
        elif self._is_answering and (left := self.playout.pending_ms - SEAM_MS) > 0:
            self._timers["line"] = at + left
        else:
            return self._still_waiting(at)
        return []

    def _still_waiting(self, at: int) -> list[Command]:
        self._timers["line"] = at + LINE_AGAIN_MS
        return self._say_line(None, at)

    def _open(self, at: int) -> list[Command]:
        self._tries += 1
        if self._tries > 1:
            self._timers["reopen"] = at + BACKOFF_MS[min(self._tries - 2, len(BACKOFF_MS) - 1)]
            return []
        return self._open_now(at)

    def _open_now(self, at: int) -> list[Command]:
        assert self._deaf_since is not None
        self._spare, self._spare_ready = None, False
        longest = LONGEST_AGAIN_MS if self._sessions else FIRST_WORDS_MS
        spread = SPREAD_MS if self._sessions else 0
        if self._tries > 1:
            spread = BACKOFF_MS[min(self._tries - 2, len(BACKOFF_MS) - 1)]
        again = min(at - self._hear_from(self._deaf_since), longest)
        return [OpenModel(tries=self._tries, hear_again_ms=again, hold_ms=longest, spread_ms=spread)]

    def _first_session(self, at: int) -> list[Command]:
        """The caller is there: call the model."""
        self._deaf_since = at
        self._timers["line"] = at + FILLER_MS
        self._in_trouble(at)
        return self._open(at)

    def _abandon_session(self, at: int) -> list[Command]:
        self._linked = False
        return self._lost(at, fatal=False, was_linked=True)

    # ---- found

    def _link(self, lasts_ms: int | None, at: int) -> list[Command]:
        """A session is in force, and is told what was said."""
        self._linked = True
        self._sessions += 1
        self._tries, self._deaf_since = 0, None
        for timer in ("reopen", "line", "swap"):
            self._timers.pop(timer, None)
        rollover_ms = self.house.rollover_ms
        if lasts_ms is not None and lasts_ms > LAST_MINUTES_MS:  # less is not to be believed: a clock that is wrong, here or there
            rollover_ms = min(rollover_ms, max(lasts_ms - LAST_MINUTES_MS, lasts_ms // 2))
        self._timers["rollover"] = at + rollover_ms
        said = tuple(self.conversation.all())
        self._told = {name for name in self.playout.waiting if name in self.conversation}
        return [Recall(self.slots.all, said)] if said or self.memory.slots else []

    def _go_on(self, at: int) -> list[Command]:
        """What the new session is to do first."""
        if self._again:
            self._timers["again"] = at + AGAIN_WITHIN_MS
            return []
        commands = self._speak_if_owed(at)
        if not self.asking.is_busy:
            self._answered(at)  # nobody waits for anything
        return commands

    def _heard_again(self, utterance: str) -> bool:
        if utterance not in self._again:
            return False
        self._again.remove(utterance)
        if not self._again:  # the session hears the caller, and will be asked for an answer, and watched
            self._timers.pop("again", None)
            self._trouble = None
            self._timers.pop("fallback", None)
        return True

    def _name_again(self, utterance: str) -> None:
        """The session has noticed speech of the caller's: the first that it notices are those that it hears again."""
        if self._again and utterance not in self._names:
            self._names[utterance] = self._again[0]

    def _not_heard_again(self, at: int) -> list[Command]:
        """The words are lost; who spoke them is asked."""
        commands: list[Command] = []
        for name in self._again:
            commands += kept(self.transcript.untranscribed(name))
        self._again.clear()
        self._begin_turn(None, at)
        return commands + self._speak(Speak(SAY_AGAIN), at)
