"""Who holds the floor. Barge-in is decided here and nowhere else.

Rule 1: what is asked is whether the agent can still be *heard*, not whether the model is still generating.
Rule 2: the provider's word that speech began is taken at once; its word that speech ended comes a whole silence window late, so the
length of a sound can never be known in time to ignore it.
Rule 3: speech too short to be a turn gets no answer, unless it cut the agent off: then somebody has to speak again.
"""

from app.call.agent import FloorPolicy


def barge_in_at(policy: FloorPolicy, *, speech_began: int, audible_since: int | None) -> int | None:
    """The moment this caller speech, if it lasts, takes the floor from an agent that can be heard. None: never."""
    if not policy.interruptible:
        return None
    if audible_since is None:
        return speech_began
    return max(speech_began, audible_since + policy.protected_ms)


class Floor:
    """The caller's side of the floor: who is speaking, since when, and whom it interrupted."""

    __slots__ = ("_began", "_cut_the_agent", "_ended", "quiet_since", "speaking")

    def __init__(self) -> None:
        self.speaking: str | None = None
        """The caller's utterance in progress."""
        self.quiet_since = 0
        """When the caller's last utterance ended, by media time."""
        self._began: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._cut_the_agent: set[str] = set()

    def began(self, utterance: str, *, at: int) -> None:
        """The caller began to speak at `at`, by media time."""
        self.speaking = utterance
        self._began[utterance] = at

    def cut_the_agent(self, utterance: str) -> None:
        """This utterance took the floor."""
        self._cut_the_agent.add(utterance)

    def ended(self, utterance: str, *, at: int) -> None:
        """The caller's speech ended at `at`, by media time."""
        self._ended[utterance] = at
        self.quiet_since = max(self.quiet_since, at)
        if self.speaking == utterance:
            self.speaking = None

    def span(self, utterance: str, *, at: int) -> tuple[int, int]:
        """When an utterance began and ended; what was never told is taken as now."""
        ended = self._ended.get(utterance, at)
        return self._began.get(utterance, ended), ended

    def is_turn(self, utterance: str, policy: FloorPolicy) -> bool:
        """The utterance deserves an answer (rule 3). One whose span was never told is taken for a turn."""
        if utterance in self._cut_the_agent or utterance not in self._began or utterance not in self._ended:
            return True
        return self._ended[utterance] - self._began[utterance] >= policy.min_turn_ms
