"""A phone's playout: what is queued sounds in real time, one after the other, and a clear throws the rest away.

Time is an argument, in seconds of any clock that does not jump. Sizes are line bytes, 8 a millisecond.

Rule 1: audio that meets an empty queue sounds at once; else it waits for its turn.
Rule 2: a mark is due when all that was queued before it has sounded; with nothing queued, at once.
Rule 3: a clear returns every waiting mark at once, and says nothing about what was heard (Twilio's documentation).
"""

from collections import deque
from collections.abc import Hashable

_BYTES_PER_SECOND = 8_000


class Playout:
    """One phone. Whose audio it is, is up to the caller: any hashable value stands for an utterance."""

    __slots__ = ("_queue", "_sounded", "ends_at", "marks")

    def __init__(self) -> None:
        self.ends_at = 0.0
        """When the queue will run dry."""
        self.marks: deque[tuple[float, bytes]] = deque()
        """Waiting marks, (due, name), in order."""
        self._queue: deque[tuple[float, float, Hashable]] = deque()
        self._sounded: dict[Hashable, float] = {}

    def queue(self, whose: Hashable, size: int, now: float) -> None:
        """Append audio."""
        begins = max(self.ends_at, now)
        self.ends_at = begins + size / _BYTES_PER_SECOND
        self._queue.append((begins, self.ends_at, whose))
        self._retire(now)

    def mark(self, name: bytes, now: float) -> bool:
        """Append a mark; true if it is to be returned at once."""
        if self.ends_at <= now and not self.marks:
            return True
        self.marks.append((max(self.ends_at, now), name))
        return False

    def due(self, now: float) -> list[bytes]:
        """Takes out the marks that are due."""
        names = []
        while self.marks and self.marks[0][0] <= now:
            names.append(self.marks.popleft()[1])
        return names

    def clear(self, now: float) -> list[bytes]:
        """Throw away what has not sounded yet; the marks that come back unheard."""
        self._retire(now)
        if self._queue:
            begins, _, whose = self._queue[0]
            self._sounded[whose] = self._sounded.get(whose, 0.0) + max(0.0, now - begins)
            self._queue.clear()
        self.ends_at = min(self.ends_at, now)
        names = [name for _, name in self.marks]
        self.marks.clear()
        return names

    def heard_ms(self, whose: Hashable, now: float) -> float:
        """How much of an utterance has sounded."""
        heard = self._sounded.get(whose, 0.0)
        for begins, ends, owner in self._queue:
            if owner == whose and begins < now:
                heard += min(ends, now) - begins
        return heard * 1_000

    def _retire(self, now: float) -> None:
        while self._queue and self._queue[0][1] <= now:
            begins, ends, whose = self._queue.popleft()
            self._sounded[whose] = self._sounded.get(whose, 0.0) + ends - begins
