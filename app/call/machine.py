"""The call: a pure machine. Events in, commands out; it waits for nothing, reads no clock, rolls no dice, knows no vendor.

Theory of operation. A machine carries one stream of one call. It opens when the caller's leg and a session with the model both
stand; it talks, if need be over several sessions; it comes to an end by a goodbye that was heard, by a caller who hung up, or by a
stream that was lost. Then it waits, bounded, for the caller's last words, and either files the call, or leaves it to the stream
that follows.

Rule 1: `phase` changes in this file only.
Rule 2: every wait has a timer in `_timers`; `deadline` is the nearest.
Rule 3: a stream's end is not the call's end. The call ends by the carrier's word, by our own goodbye, or five seconds without
a stream.
"""

from dataclasses import replace
from enum import StrEnum
from typing import assert_never

from app.call import events as e
from app.call.commands import (
    Brief,
    CloseModel,
    Command,
    FileCall,
    FinishHearing,
    KeepUtterance,
    LeaveStream,
    Speak,
)
from app.call.controls import Goodbye
from app.call.disposition import EndReason, Filed, Intent, Memory, outcome_of
from app.call.errands import error
from app.call.rollover import Rollover
from app.call.sentences import CUT_OFF, NOBODY_THERE, NOISE, SILENT, SPOKE_ON, STILL_THERE, TIME_IS_UP
from app.call.talk import House, kept

GRACE_MS = 5_000  # without a new stream for so long, the caller is gone
LAST_WORDS_MS = 2_000  # so long a caller's last words may take to be transcribed
GOODBYE_MS = 15_000  # the longest goodbye, generation included
LISTEN_ON_MS = 600  # a word that was begun just before may still be on its way through the detector


class Phase(StrEnum):
    """Where the call is. Only forwards, but for ENDING, which a caller who speaks on takes back to TALKING."""

    OPENING = "opening"
    TALKING = "talking"
    ENDING = "ending"
    LEAVING = "leaving"
    WRAPPING = "wrapping"
    OVER = "over"


class Call(Rollover):
    """One stream of one call. `memory` comes from the store when the call goes on from an earlier stream."""

    def __init__(self, house: House, memory: Memory, *, resumed: bool = False) -> None:
        super().__init__(house, memory)
        self.resumed = resumed
        self.phase = Phase.OPENING
        self._stream = False
        self._end: EndReason | None = None  # how the call ended, once that is sure
        self._without_stream = EndReason.CALLER_HUNG_UP  # how it ended if no other stream follows
        self._moved_on = False  # another stream, or the carrier, carries the call from here

    # ---- what others may ask

    @property
    def deadline(self) -> int | None:
        """When the call wants a `DeadlinePassed`, in ms since the call's birth; None: never."""
        return min(self._timers.values(), default=None)

    @property
    def listening(self) -> bool:
        """The caller's audio is to be forwarded to the model."""
        return self.phase in (Phase.OPENING, Phase.TALKING, Phase.ENDING)

    @property
    def talks(self) -> bool:
        """There is talk: both legs have stood and nobody has left. The model's session may be away for a while."""
        return self.phase is Phase.TALKING or self.phase is Phase.ENDING

    @property
    def can_be_heard(self) -> bool:
        """What is queued now will reach the caller."""
        return self._stream and self.listening

    @property
    def will_file(self) -> bool:
        """The row is this machine's to finish, as things stand: no other stream, and no transfer, has taken the call on."""
        return not self._moved_on and self.phase is not Phase.OVER

    @property
    def over(self) -> bool:
        """Nothing more will be ordered."""
        return self.phase is Phase.OVER

    # ---- the one door

    def handle(self, event: e.Event, *, at: int) -> list[Command]:
        """What the call orders because of this event. `at`: ms since the call's birth, never decreasing."""
        if self.phase is Phase.OVER:
            return []
        commands = self._take(event, at)
        self._mind_the_silence(at)
        return commands

    def _take(self, event: e.Event, at: int) -> list[Command]:
        match event:
            case e.AgentAudio():
                return self._audio(event, at)
            case e.MarkReturned(mark=mark):
                return self._heard(mark, at) + self._leave_if_said(at)
            case e.AgentWords(response=response, utterance=utterance, text=text):
                self.transcript.worded(utterance, text, response=response, agent=self.agent.name, at=at)
                return []
            case e.AgentUtteranceEnded(utterance=utterance):
                return self._utterance_ended(utterance, at)
            case e.CallerSpeechStarted(utterance=utterance, ago_ms=ago):
                self._name_again(utterance)
                return self._caller_began(self._own_name(utterance), max(0, at - ago), at)
            case e.CallerSpeechStopped(utterance=utterance, ago_ms=ago):
                return self._caller_stopped(self._own_name(utterance), max(0, at - ago))
            case e.CallerTurnCommitted(utterance=utterance):
                return self._committed(self._own_name(utterance), at)
            case e.CallerTranscribed(utterance=utterance, text=text, usage=usage):
                if usage is not None:
                    self.memory = replace(self.memory, usage=self.memory.usage.plus(usage))
                return [KeepUtterance(self.transcript.transcribed(self._own_name(utterance), text, at=at)), *self._wrapped(at)]
            case e.CallerUntranscribed(utterance=utterance):
                return kept(self.transcript.untranscribed(self._own_name(utterance))) + self._wrapped(at)
            case e.ResponseStarted(response=response):
                return self.asking.began(response)
            case e.ResponseEnded():
                return self._response_ended(event, at)
            case e.ToolCalled():
                return self._tool(event, at)
            case e.ErrandReturned(tool_call=tool_call, result=result):
                return self._result(tool_call, result, at)
            case e.ErrandFailed(tool_call=tool_call, reason=reason):
                return self._result(tool_call, error(reason), at)
            case e.DigitPressed(digit=digit):
                return self._key(digit, at)
            case e.StreamStarted():
                return self._stream_started(at)
            case e.ModelReady(lasts_ms=lasts_ms):
                return self._model_ready(lasts_ms, at)
            case e.ModelLost(fatal=fatal):
                return self._model_lost(fatal, at)
            case e.SpareReady(lasts_ms=lasts_ms):
                return self._spare_came(lasts_ms, at)
            case e.SpareLost():
                return self._spare_went(at)
            case e.LineFound():
                return self._line_found(event, at)
            case e.ModelComplained(code=code):
                return self._complained(code, at)
            case e.StreamEnded():
                return self._caller_gone(at)
            case e.CarrierEnded(status=status):
                hung_up = status == "completed"
                self._end = self._end or (EndReason.CALLER_HUNG_UP if hung_up else EndReason.CARRIER_ENDED)
                return self._caller_gone(at)
            case e.StreamMovedOn():
                self._moved_on = True
                return self._caller_gone(at)
            case e.DrainRequested():
                return self._hand_over(at)
            case e.DeadlinePassed():
                return self._due(at)
            case _:
                assert_never(event)

    # ---- the opening, and the model's sessions

    def _stream_started(self, at: int) -> list[Command]:
        if self._stream or self.phase is not Phase.OPENING:
            return []
        self._stream = True
        return self._opened(at) if self._linked else self._first_session(at)

    def _model_ready(self, lasts_ms: int | None, at: int) -> list[Command]:
        if self.phase is Phase.WRAPPING:
            return [CloseModel()]
        if self._linked or not self.listening or (self._goodbye is not None and self._goodbye.final):
            return []
        commands = self._link(lasts_ms, at)
        return commands + (self._opened(at) if self.phase is Phase.OPENING else self._go_on(at))

    def _model_lost(self, fatal: bool, at: int) -> list[Command]:
        """No session, no talk; but the call goes on in another, if one can be had."""
        was_linked, self._linked = self._linked, False
        if self.phase is Phase.WRAPPING:
            return self._give_up_hearing(at)
        if self.phase is Phase.LEAVING or (self._goodbye is not None and self._goodbye.said):
            return []  # the last sentence is on its way to the caller; nothing more is wanted of the model
        if not self._stream:
            return self._leave(Intent.APOLOGISE, EndReason.MODEL_UNAVAILABLE, at)
        return self._lost(at, fatal=fatal, was_linked=was_linked)

    def _fall_back(self, at: int) -> list[Command]:
        commands = self._break_off(at) if self._linked else []
        if self._goodbye is not None:
            return commands + self._end_without_model(self._goodbye, at)
        goodbye, line = self._without_agent(at)
        self.phase, self._goodbye = Phase.ENDING, goodbye
        return commands + self._last_line(line, at)

    def _opened(self, at: int) -> list[Command]:
        if not self._stream:
            return []
        self.phase = Phase.TALKING
        self._begin_turn(None, at)
        first = self.agent.greeting or None
        if self.resumed and self._was_handed_over():
            return self._keep_memory()
        if self.resumed:
            first = NOBODY_THERE if self.memory.transfer_to else CUT_OFF
            self.memory = replace(self.memory, transfer_to=None)
        return [*self._keep_memory(), *self._speak(Speak(first), at)]

    # ---- goodbye

    def _end_by(self, goodbye: Goodbye, at: int) -> list[Command]:
        """From here on the call ends as soon as the agent's last sentence has been heard, unless the caller speaks on."""
        self.phase, self._goodbye, self.asking.owed = Phase.ENDING, goodbye, None
        self._timers["goodbye"] = at + GOODBYE_MS
        return [] if self.asking.is_busy else self._say_goodbye(False, at)

    def _stay(self) -> list[Command]:
        if self._goodbye is None or self._goodbye.final:
            return []
        if self._goodbye.intent is Intent.TRANSFER:
            self.memory = replace(self.memory, transfer_to=None)
        self._goodbye, self.phase = None, Phase.TALKING
        self._timers.pop("goodbye", None)
        return [Brief(SPOKE_ON), *self._keep_memory()]

    def _leave_if_said(self, at: int) -> list[Command]:
        goodbye = self._goodbye
        if goodbye is None or not goodbye.said or self.playout.is_audible or self.asking.is_busy or self._lines_due:
            return []
        return self._leave(goodbye.intent, goodbye.end_reason, at, goodbye.target)

    def _leave(self, intent: Intent, reason: EndReason, at: int, target: str | None = None) -> list[Command]:
        self.phase, self._goodbye = Phase.LEAVING, None
        self._timers = {"grace": at + GRACE_MS}
        commands = self._cut_off(at, tell_model=False)
        match intent:
            case Intent.HANG_UP | Intent.APOLOGISE:
                self._end = reason
            case Intent.TALK | Intent.TRANSFER:
                self._moved_on = True
        return [*commands, *self._keep_memory(), LeaveStream(intent, target)]

    def _hand_over(self, at: int) -> list[Command]:
        """Another worker is to go on with the call: leave it in a pause, or at last without one."""
        if not self.listening or not self._may_be_left(at):
            return []
        return self._leave(Intent.TALK, EndReason.DRAINED, at)

    # ---- after the caller

    def _caller_gone(self, at: int) -> list[Command]:
        """The caller's leg is gone: hear the last words, then file, unless another stream may still come (rule 3)."""
        if self.phase is Phase.WRAPPING:
            return self._wrapped(at)
        commands = self._cut_off(at, tell_model=False) + self.asking.cut(cancel=self._linked) + self._keep_memory()
        heard_anybody = self.phase is not Phase.OPENING
        self.phase = Phase.WRAPPING
        self._timers = {"grace": self._timers.get("grace", at + GRACE_MS)}
        self._goodbye = self.asking.owed = None
        if not self._linked:
            return commands + self._give_up_hearing(at)
        if heard_anybody:
            self._timers |= {"listen_on": at + LISTEN_ON_MS, "last_words": at + LAST_WORDS_MS}
            commands.append(FinishHearing())
        return commands + self._wrapped(at)

    def _give_up_hearing(self, at: int) -> list[Command]:
        for timer in ("last_words", "listen_on"):
            self._timers.pop(timer, None)
        never_committed = [name for name in self._again if name not in self.conversation]
        if self.floor.speaking is not None:
            never_committed.append(self.floor.speaking)
        for unfinished in never_committed:  # begun, and said all the same
            began, ended = self.floor.span(unfinished, at=at)
            self.transcript.committed(unfinished, began=min(began, ended), ended=ended)
            self.memory = replace(self.memory, caller_spoke=True)
        self.floor.speaking = None
        self._again.clear()
        commands: list[Command] = []
        for utterance in self.transcript.waiting:
            commands += kept(self.transcript.untranscribed(utterance))
        return commands + self._wrapped(at)

    def _wrapped(self, at: int) -> list[Command]:
        """Once everything that was to be heard has been: end the session, and file the call if its end is sure."""
        if self.phase is not Phase.WRAPPING:
            return []
        awaited = self._timers.get("listen_on", at) > at or self.floor.speaking or self.transcript.waiting
        if "last_words" in self._timers and awaited:
            return []
        for timer in ("last_words", "listen_on"):
            self._timers.pop(timer, None)
        commands: list[Command] = []
        if self._linked:
            self._linked = False
            commands.append(CloseModel())
        if self._end is None and not self._moved_on:
            return commands
        self.phase, self._timers = Phase.OVER, {}
        commands += self._keep_memory()
        if self._end is not None and not self._moved_on:
            outcome = outcome_of(self._end, caller_spoke=self.memory.caller_spoke)
            commands.append(FileCall(Filed(outcome=outcome, end_reason=self._end, memory=self.memory, ended_at=at)))
        return commands

    # ---- time

    def _due(self, at: int) -> list[Command]:
        commands: list[Command] = []
        for name in [name for name, due in self._timers.items() if due <= at]:
            if self._timers.pop(name, None) is not None:
                commands += self._timer(name, at)
        return commands

    def _timer(self, name: str, at: int) -> list[Command]:
        match name:
            case "silence":
                return self._ask_if_there(at)
            case "barge_in":
                return self._take_the_floor(at) if self.floor.speaking else []
            case "monologue":
                return self._speak_over_the_noise(at)
            case "keys":
                return self._typed(at)
            case "retry":
                return self._speak_if_owed(at)
            case "goodbye" if self._goodbye is not None:  # the mark never came, or the goodbye never ended
                return self._leave(self._goodbye.intent, self._goodbye.end_reason, at, self._goodbye.target)
            case "answer":
                return self._waits_in_vain(at)
            case "line" if not self._linked:
                return self._still_waiting(at)
            case "reopen":
                return self._open_now(at)
            case "fallback":
                return self._fall_back_if_still_in_vain(at)
            case "again":
                return self._not_heard_again(at)
            case "errand":
                return self._errand_takes_long(at)
            case "rollover" if self._linked and self.talks:
                return self._roll_over()
            case "hand_over":
                return self._hand_over(at)
            case "swap":
                return self._look_for_a_pause(at)
            case "marks":  # they will not come: the line is taken for quiet
                return self._cut_off(at, tell_model=False) + self._leave_if_said(at)
            case "listen_on":
                return self._wrapped(at)
            case "limit":
                return self._time_is_up(at)
            case "grace":
                self._end, self._moved_on = self._end or self._without_stream, False
                return self._caller_gone(at)
            case "last_words":
                return self._give_up_hearing(at)
        return []

    def _fall_back_if_still_in_vain(self, at: int) -> list[Command]:
        if self._linked and self.floor.speaking:  # somebody is heard again: the answer will show
            self._trouble = None
            return []
        return self._fall_back(at)

    def _time_is_up(self, at: int) -> list[Command]:
        if self.phase is Phase.OPENING:
            return self._leave(Intent.APOLOGISE, EndReason.MODEL_UNAVAILABLE, at)
        self._timers["limit"] = at + GOODBYE_MS  # a caller who speaks on gains so much and no more
        if self.phase is not Phase.TALKING:
            return []
        return self._end_by(Goodbye(Intent.HANG_UP, EndReason.TIME_LIMIT, TIME_IS_UP), at)

    def _mind_the_silence(self, at: int) -> None:
        busy = self.asking.is_busy or self.playout.is_audible or self.errands.out or self.asking.owed or self._again
        if self.phase is not Phase.TALKING or not self._linked or busy or self.floor.speaking or "keys" in self._timers:
            self._timers.pop("silence", None)
        elif "silence" not in self._timers:
            self._timers["silence"] = at + self._policy.silence_ms

    def _ask_if_there(self, at: int) -> list[Command]:
        self._prompts += 1
        if self._prompts > self._policy.silence_prompts:
            return self._end_by(Goodbye(Intent.HANG_UP, EndReason.SILENCE, SILENT), at)
        self._begin_turn(None, at)
        return self._speak(Speak(STILL_THERE), at)

    def _speak_over_the_noise(self, at: int) -> list[Command]:
        self.floor.speaking = None
        self._begin_turn(None, at)
        return self._speak(Speak(NOISE), at)
