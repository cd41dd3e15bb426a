"""The talk itself: the agent speaks, the caller speaks, the floor changes hands.

The machine decides in which phase there is talk at all; here it is carried on. `phase` is never changed here.
What the model is to say while there is no session with it is owed, and said in the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.call import events as e
from app.call.agent import Agent, FloorPolicy, TurnTaking
from app.call.asking import Asking
from app.call.commands import (
    Brief,
    Command,
    KeepMemory,
    KeepTurn,
    KeepUtterance,
    PlayAudio,
    SendMark,
    Speak,
    StopSpeaking,
)
from app.call.conversation import Conversation
from app.call.disposition import Memory, Utterance
from app.call.errands import Errands
from app.call.floor import Floor
from app.call.keypad import Keypad
from app.call.playout import BYTES_PER_MS, Playout
from app.call.sentences import HEARD_ONLY
from app.call.slots import Slots
from app.call.transcript import Transcript
from app.call.turns import Turns

FILLER_MS = 2_500
"""A caller who waits for an answer and has heard nothing for so long is told that we are still there."""
MARK_GRACE_MS = 2_000
"""How long after its time a mark may come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What a call needs to know of the house it stands in."""

    agents: Mapping[str, Agent]
    directory: tuple[str, ...] = ()
    """Names that a caller can be put through to."""
    country_code: str = "1"
    max_ms: int = 3_000_000
    rollover_ms: int = 3_000_000
    """A session with the model is replaced by a fresh one after so long."""
    can_be_called_back: bool = True
    """The caller's number is known."""


class Talk:
    """The state of the talk, and its rules."""

    def __init__(self, house: House, memory: Memory) -> None:
        self.house = house
        self.memory = memory
        self.agent = house.agents[memory.agent]
        self.floor = Floor()
        self.playout = Playout()
        self.transcript = Transcript()
        self.conversation = Conversation(self.transcript)
        self.turns = Turns(memory.turns)
        self.errands = Errands()
        self.keypad = Keypad()
        self.slots = Slots(memory.slots, country_code=house.country_code)
        self.asking = Asking()
        self._timers: dict[str, int] = {"limit": house.max_ms}
        self._prompts = self._keys = 0
        self._linked = False  # a session with the model stands
        self._no_answer: set[str] = set()  # utterances that are none: digital silence, and the house's own lines
        self._told: set[str] = set()  # utterances of an earlier session, known to the present one by their words only
        self._unanswered: list[str] = []  # the caller's turns since the agent was last heard
        self._trouble: int | None = None  # since when the caller waits in vain
        self._waited = 0  # how many steps were taken against it

    @property
    def talks(self) -> bool:
        """There is talk: both legs stand and nobody has left."""
        raise NotImplementedError

    def _answered(self, at: int) -> None:
        """The agent can be heard."""
        raise NotImplementedError

    def _stay(self) -> list[Command]:
        """The caller speaks on: a goodbye under way is taken back."""
        raise NotImplementedError

    @property
    def _policy(self) -> FloorPolicy:
        return self.agent.floor

    @property
    def _we_take_turns(self) -> bool:
        return self._policy.turn_taking is TurnTaking.OURS

    def _keep_memory(self) -> list[Command]:
        return [KeepMemory(self.memory)]

    def _begin_turn(
        self, utterance: str | None, at: int, *, speech_ended_at: int | None = None, committed_at: int | None = None
    ) -> None:
        if utterance is not None:
            self._prompts = 0
            self.memory = replace(self.memory, caller_spoke=True, caller_turns=self.memory.caller_turns + 1)
        self.turns.begin(
            agent=self.agent.name,
            utterance=utterance,
            speech_ended_at=speech_ended_at,
            committed_at=committed_at,
            running=self.asking.response,
            at=at,
        )
        self.memory = replace(self.memory, turns=self.turns.count)

    # ---- the agent

    def _speak(self, order: Speak, at: int) -> list[Command]:
        """Ask for a response now, or as soon as the running one is done, the caller is quiet, and there is a session."""
        waits = self.asking.is_busy or "retry" in self._timers or self.floor.speaking
        if waits or not self._linked or not self.talks:
            self.asking.owed = order
            return []
        self._watch(at)
        self.turns.requested(at=at)
        return self.asking.order(order)

    def _speak_if_owed(self, at: int) -> list[Command]:
        owed = self.asking.owed
        if owed is None or (self.errands.out and not self.asking.urgent):
            return []
        return self._speak(owed, at)

    def _watch(self, at: int) -> None:
        """From now on the caller waits for an answer, or for more of it."""
        self._timers["answer"] = at + FILLER_MS
        self._waited = 0

    @property
    def _is_answering(self) -> bool:
        """The caller has an answer of the agent's still to hear, as far as we know."""
        return any(utterance not in self._no_answer for utterance in self.playout.waiting)

    def _audio(self, event: e.AgentAudio, at: int) -> list[Command]:
        utterance = event.utterance
        self.conversation.speech(utterance)
        silent = type(event) is e.AgentSilence
        self.transcript.generated(utterance, response=event.response, agent=self.agent.name, size=event.size, at=at, silent=silent)
        if self.asking.was_cut(event.response) or not self.talks:
            return []  # the late voice of a response already cut
        if silent:
            if utterance not in self.playout.queued:
                self._no_answer.add(utterance)
        else:
            self._no_answer.discard(utterance)
            self._timers["answer"] = at + FILLER_MS  # until the response ends
            self.asking.voiced(event.response)
            self.turns.audio(utterance, response=event.response, at=at)
            if self._unanswered or self._trouble is not None:
                self._answered(at)
        return self._queue(utterance, event.payload, event.size, at)

    def _queue(self, utterance: str, payload: bytes, total: int, at: int) -> list[Command]:
        commands: list[Command] = []
        start = 0
        for size, mark in self.playout.queue(utterance, total, at=at):
            commands.append(PlayAudio(utterance, payload[start : start + size], size))
            start += size
            if mark is not None:
                commands.append(SendMark(mark))
        # No wait on a mark is unbounded: one that is long overdue will not come.
        played = max(self._timers.get("marks", 0) - MARK_GRACE_MS, at) + total // BYTES_PER_MS
        self._timers["marks"] = played + MARK_GRACE_MS
        return commands

    def _utterance_ended(self, utterance: str, at: int) -> list[Command]:
        self.transcript.completed(utterance)
        mark = self.playout.end(utterance)
        return [SendMark(mark)] if mark else self._keep_if_heard(utterance, at)

    def _heard(self, mark: str, at: int) -> list[Command]:
        utterance = self.playout.returned(mark, at=at)
        if utterance is None:
            return []
        if not self.playout.is_audible:
            self._timers.pop("marks", None)
        turn = self.turns.heard(utterance, at=at)
        commands: list[Command] = [KeepTurn(turn)] if turn else []
        return commands + self._keep_if_heard(utterance, at)

    def _keep_if_heard(self, utterance: str, at: int) -> list[Command]:
        return kept(self.transcript.heard_whole(utterance, heard=self.playout.heard.get(utterance, 0), at=at))

    def _cut_off(self, at: int, *, tell_model: bool) -> list[Command]:
        """Empty the ledger: what was queued and not heard is unheard."""
        commands: list[Command] = []
        self._timers.pop("marks", None)
        for cut in self.playout.clear(at=at):
            utterance = self.transcript.cut(cut.utterance, heard=cut.heard, at=at)
            if tell_model and cut.utterance in self._told:
                commands.append(Brief(f"{HEARD_ONLY}{(utterance.heard if utterance else '') or 'nothing'}"))
            elif tell_model and cut.utterance in self.conversation:
                commands.append(StopSpeaking(cut.utterance, cut.heard // BYTES_PER_MS))
            commands += kept(utterance)
        return commands


def kept(utterance: Utterance | None) -> list[Command]:
    """The order to keep an utterance, if there is one."""
    return [KeepUtterance(utterance)] if utterance is not None else []
