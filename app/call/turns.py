"""The latency ledger: when the caller stopped, when we asked, when the agent was first heard.

Rule 1: latency runs from the caller's end of speech by media time to the first frame that the carrier acknowledged.
Rule 2: a turn may take several responses (tools); it ends when the next begins.
"""

from dataclasses import dataclass

from app.call.disposition import Turn


@dataclass(slots=True)
class _Turn:
    number: int
    agent: str
    utterance: str | None
    speech_ended_at: int | None
    committed_at: int | None
    requested_at: int
    asked: bool = False
    first_audio_at: int | None = None
    audible_at: int | None = None
    tools: int = 0
    interrupted: bool = False


class Turns:
    """The turns of one stream, numbered on from those before it."""

    def __init__(self, before: int = 0) -> None:
        self.count = before
        self._turn: _Turn | None = None
        self._voices: set[str] = set()
        self._before: str | None = None  # the response that ran when the turn began: its audio is no answer to it

    def begin(
        self,
        *,
        agent: str,
        utterance: str | None,
        speech_ended_at: int | None,
        committed_at: int | None,
        running: str | None,
        at: int,
    ) -> None:
        """The caller's turn was committed, or the agent speaks of itself. `running`: the response that runs already."""
        self._before = running
        self.count += 1
        self._turn = _Turn(self.count, agent, utterance, speech_ended_at, committed_at, at)
        self._voices.clear()

    def requested(self, *, at: int) -> None:
        """The first response of the turn was asked for."""
        if self._turn and not self._turn.asked:
            self._turn.requested_at, self._turn.asked = at, True

    def tool(self) -> Turn | None:
        """The turn calls a tool: its line once more, if that was written already."""
        if self._turn is None:
            return None
        self._turn.tools += 1
        return self._line(self._turn) if self._turn.audible_at is not None else None

    def audio(self, utterance: str, *, response: str, at: int) -> None:
        """Audio of the agent's utterance was generated."""
        if self._turn and self._turn.first_audio_at is None and response != self._before:
            self._turn.first_audio_at = at
            self._voices.add(utterance)

    def heard(self, utterance: str, *, at: int) -> Turn | None:
        """The carrier acknowledged audio of an utterance: the turn's line in the ledger, the first time."""
        turn = self._turn
        if turn is None or turn.audible_at is not None or utterance not in self._voices:
            return None
        turn.audible_at = at
        return self._line(turn)

    def interrupted(self) -> Turn | None:
        """The caller took the floor from the agent in this turn."""
        if self._turn is None or self._turn.interrupted:
            return None
        self._turn.interrupted = True
        return self._line(self._turn)

    def _line(self, turn: _Turn) -> Turn:
        latency = None
        if turn.audible_at is not None and turn.speech_ended_at is not None:
            latency = max(0, turn.audible_at - turn.speech_ended_at)
        return Turn(
            number=turn.number,
            agent=turn.agent,
            utterance=turn.utterance,
            speech_ended_at=turn.speech_ended_at,
            committed_at=turn.committed_at,
            requested_at=turn.requested_at,
            first_audio_at=turn.first_audio_at,
            audible_at=turn.audible_at,
            latency_ms=latency,
            tools=turn.tools,
            interrupted=turn.interrupted,
        )
