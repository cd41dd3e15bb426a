"""The caller's last sound, kept in case that a session with the model is lost and another has to hear it.

Line audio, in memory only, and no more of it than may be needed.
"""

from app.audio.g711 import BYTES_PER_MS

SLACK = 2_000 * BYTES_PER_MS
"""How much more than is needed may lie here before it is thrown away: so that little is moved, and rarely."""


class Recent:
    """One caller's. `add` is called fifty times a second and does next to nothing."""

    __slots__ = ("_full", "_sound")

    def __init__(self) -> None:
        self._sound = bytearray()
        self._full = SLACK

    def add(self, mulaw: bytes) -> bool:
        """Take the next stretch; True if there is more here than was asked for, and `keep` should be called."""
        self._sound += mulaw
        return len(self._sound) > self._full

    def keep(self, ms: int) -> None:
        """Throw away what is older than so many milliseconds of sound."""
        needed = max(0, ms) * BYTES_PER_MS
        del self._sound[: max(0, len(self._sound) - needed)]
        self._full = len(self._sound) + SLACK

    def last(self, ms: int) -> bytes:
        """The last so many milliseconds, or what there is."""
        return bytes(self._sound[max(0, len(self._sound) - ms * BYTES_PER_MS) :]) if ms > 0 else b""
