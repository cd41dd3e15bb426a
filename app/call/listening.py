"""The caller's side of the talk: speech, turns, barge-in, keys. `phase` is never changed here."""

from dataclasses import replace

from app.call.commands import Brief, ClearPlayout, Command, KeepTurn, KeepUtterance, Speak
from app.call.floor import barge_in_at
from app.call.keypad import PAUSE_MS, masked
from app.call.talk import Talk

MONOLOGUE_MS = 60_000
"""Nobody speaks for so long without a breath: a noise holds the floor, and behind it there may be a caller who waits."""


class Listening(Talk):
    """What the caller does, and what it does to the talk."""

    def _heard_again(self, utterance: str) -> bool:
        """These words of the caller's were spoken before, to a session that was lost, and are only heard again."""
        raise NotImplementedError

    def _caller_began(self, utterance: str, began: int, at: int) -> list[Command]:
        self.floor.began(utterance, at=began)
        if not self.talks:
            return []
        self._timers["monologue"] = at + MONOLOGUE_MS
        if self._heard_again(utterance):
            return []
        due = barge_in_at(self._policy, speech_began=began, audible_since=self.playout.audible_since)
        if due is None:
            return []
        if due > at:
            self._timers["barge_in"] = due
            return []
        return self._take_the_floor(at)

    def _take_the_floor(self, at: int) -> list[Command]:
        """Barge-in: silence the agent, and tell the model what the caller heard."""
        commands: list[Command] = []
        audible = self.playout.is_audible
        if audible:
            commands.append(ClearPlayout())  # before all else: this is what the caller waits for
            self.memory = replace(self.memory, barge_ins=self.memory.barge_ins + 1)
        if (audible or self.asking.is_busy) and self.floor.speaking:
            self.floor.cut_the_agent(self.floor.speaking)
        commands += self.asking.cut(cancel=self._we_take_turns)
        if self.asking.is_busy:
            self._watch(at)  # until what was cancelled has ended
        commands += self._cut_off(at, tell_model=True)
        commands += self._stay()
        if audible and (turn := self.turns.interrupted()):
            commands.append(KeepTurn(turn))
        return commands

    def _caller_stopped(self, utterance: str, ended: int) -> list[Command]:
        self.floor.ended(utterance, at=ended)
        for timer in ("barge_in", "monologue"):
            self._timers.pop(timer, None)
        return []

    def _committed(self, utterance: str, at: int) -> list[Command]:
        began, ended = self.floor.span(utterance, at=at)
        self._caller_stopped(utterance, ended)
        again = utterance in self.conversation
        commands: list[Command] = [KeepUtterance(self.transcript.committed(utterance, began=began, ended=ended))]
        self.conversation.speech(utterance)
        if not self.floor.is_turn(utterance, self._policy):
            return commands + self._speak_if_owed(at)
        self.memory = replace(self.memory, caller_spoke=True)
        if self.talks:
            commands += self._stay()
            if utterance not in self._unanswered:
                self._unanswered.append(utterance)
            if not again:
                self._begin_turn(utterance, at, speech_ended_at=ended, committed_at=at)
            if self._we_take_turns:
                self.asking.urgent = True
                commands += self._speak(Speak(), at)
            elif not self.asking.is_busy:
                self._watch(at)  # the model answers by itself; if it does not, it is asked
        return commands

    def _key(self, key: str, at: int) -> list[Command]:
        if not self.talks:
            return []
        commands = self._take_the_floor(at) if self._policy.interruptible and self.playout.is_audible else []
        self._timers["keys"] = at + PAUSE_MS
        return commands + (self._typed(at) if self.keypad.press(key) else [])

    def _typed(self, at: int) -> list[Command]:
        self._timers.pop("keys", None)
        keys = self.keypad.take()
        if not keys:
            return []
        self._keys += 1
        name = f"keys-{self._keys}"
        utterance = self.transcript.pressed(name, masked(keys), at=at)
        self._begin_turn(name, at, speech_ended_at=at, committed_at=at)
        self.asking.urgent = True
        brief = Brief(f"(The caller typed on the keypad: {keys})", from_caller=True)
        self.conversation.typed(name, brief.text)
        return [KeepUtterance(utterance), *self._stay(), brief, *self._speak(Speak(), at)]
