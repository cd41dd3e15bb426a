"""What the caller has truly heard.

The model speaks faster than real time and the carrier queues. Between the two stands this ledger: per utterance, what was queued
and what was heard, in bytes of line audio (8 a millisecond).

Rule 1: only a mark moves audio from queued to heard.
Rule 2: a clear gives every waiting mark back unheard. So each mark bears the generation it was sent in, and a mark of an older
generation says nothing.
Rule 3: heard never exceeds queued.
Rule 4: for the point of truncation alone, the time since the last mark is added, and never beyond the next one.
Rule 5: a mark stands behind the first 20 ms of an utterance, then behind each full 100 ms of it, then behind its end. Models send
stretches of 100 ms and their multiples: so a mark mostly falls between two, and need not cut one.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BYTES_PER_MS = 8
FIRST_MARK = 20 * BYTES_PER_MS
MARK_EVERY = 100 * BYTES_PER_MS


@dataclass(frozen=True, slots=True)
class Cut:
    """An utterance thrown out of the queue: how much of it was heard, of how much that was queued. In bytes."""

    utterance: str
    heard: int
    queued: int


class Playout:
    """The ledger of one stream."""

    __slots__ = ("_generation", "_next_mark", "_open", "_serial", "_since", "_waiting", "audible_since", "heard", "queued")

    def __init__(self) -> None:
        self.queued: dict[str, int] = {}
        self.heard: dict[str, int] = {}
        self.audible_since: int | None = None
        """When the caller began to hear the present run of speech, as far as the marks tell; None: the line is quiet."""
        self._generation = 0
        self._serial = 0
        self._waiting: deque[tuple[str, str, int]] = deque()  # (mark, utterance, the utterance's bytes up to it)
        self._next_mark: dict[str, int] = {}
        self._open: dict[str, int] = {}  # utterances with queued bytes that are not heard yet, in order of playing
        self._since = 0  # when the head of the queue began to play, as well as we know

    @property
    def is_audible(self) -> bool:
        """Something is queued that the caller has not heard, as far as we know."""
        return bool(self._open)

    @property
    def waiting(self) -> Iterable[str]:
        """The utterances that are queued and not heard to their end, in order of playing."""
        return self._open

    @property
    def pending_ms(self) -> int:
        """How long the queue would still play, at most."""
        return sum(self.queued[utterance] - self.heard[utterance] for utterance in self._open) // BYTES_PER_MS

    def queue(self, utterance: str, size: int, *, at: int) -> Iterator[tuple[int, str | None]]:
        """Queue `size` bytes; yields the pieces to send, each with the mark to send behind it, if one is due."""
        if not self._open:
            self._since = at
            if self.audible_since is None:
                self.audible_since = at
        if utterance not in self.queued:
            self.queued[utterance] = self.heard[utterance] = 0
            self._next_mark[utterance] = FIRST_MARK
        self._open[utterance] = 0
        while size:
            room = self._next_mark[utterance] - self.queued[utterance]
            piece = min(size, room)
            self.queued[utterance] += piece
            size -= piece
            if piece < room:
                yield piece, None
            else:
                self._next_mark[utterance] = (self.queued[utterance] // MARK_EVERY + 1) * MARK_EVERY
                yield piece, self._mark(utterance)

    def end(self, utterance: str) -> str | None:
        """The utterance was queued to its end: the mark to send, unless one stands there already."""
        queued = self.queued.get(utterance, 0)
        if utterance not in self._open or any(u == utterance and upto == queued for _, u, upto in self._waiting):
            return None
        return self._mark(utterance)

    def returned(self, mark: str, *, at: int) -> str | None:
        """A mark came back. The utterance it stood in, if it says that something was heard."""
        if not mark.startswith(f"{self._generation}."):
            return None  # rule 2
        if all(waiting != mark for waiting, _, _ in self._waiting):
            return None  # not ours, or returned before
        while self._waiting:
            name, utterance, upto = self._waiting.popleft()
            self.heard[utterance] = upto
            if upto == self.queued[utterance]:
                self._open.pop(utterance, None)
            if name == mark:
                break
        self._since = at
        if not self._open:
            self.audible_since = None
        return utterance

    def heard_bytes(self, utterance: str, *, at: int) -> int:
        """How much of an utterance the caller has heard by now: for the point of truncation (rule 4)."""
        heard = self.heard.get(utterance, 0)
        if not self._open or next(iter(self._open)) != utterance:
            return heard
        limit = next((upto for _, u, upto in self._waiting if u == utterance), self.queued[utterance])
        return min(heard + max(0, at - self._since) * BYTES_PER_MS, limit)

    def clear(self, *, at: int) -> list[Cut]:
        """Throw the queue away. What was cut, in order of playing; the marks that come back for it say nothing."""
        cuts = [Cut(utterance, self.heard_bytes(utterance, at=at), self.queued[utterance]) for utterance in self._open]
        for cut in cuts:
            self.heard[cut.utterance] = cut.heard
        self._generation += 1
        self._waiting.clear()
        self._open.clear()
        self.audible_since = None
        return cuts

    def _mark(self, utterance: str) -> str:
        self._serial += 1
        upto = self.queued[utterance]
        mark = f"{self._generation}.{self._serial}.{upto}"
        self._waiting.append((mark, utterance, upto))
        return mark
