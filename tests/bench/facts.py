"""What really happened in a run: both peers write here, so that what one sent can be held against what the other received."""

from array import array
from collections import Counter, deque
from typing import Any

from tests.bench.sound import RING

FILTER_MS = 3
"""The longest delay a resampler may have: so much of a stretch may arrive with the next one and still be whole."""


class Facts:
    """The figures of one run. Times in seconds, audio in line bytes, which are samples at 8 kHz."""

    def __init__(self) -> None:
        self.inbound = array("d")
        """A caller's frame sent, until its last byte was appended at the model."""
        self.outbound = array("d")
        """A delta sent by the model, until its last byte reached the phone."""
        self.barge_in = array("d")
        """`speech_started` sent, until `clear` reached the phone."""
        self.truncation_ms = array("d")
        """What the model was told was heard, less what had sounded when the clear took effect."""
        self.first_audio = array("d")
        """The webhook sent, until the first audio reached the phone."""
        self.counts: Counter[str] = Counter()
        self.complaints: Counter[str] = Counter()
        """What a real carrier or model would have complained of, by kind."""
        self.heard_ms = 0.0

    def begin_window(self) -> None:
        """Forget the latencies of the ramp; what was lost, leaked or refused counts from the first call on."""
        for figures in (self.inbound, self.outbound, self.barge_in, self.truncation_ms):
            del figures[:]
        self.heard_ms = 0.0
        for name in ("turns", "barge_ins"):
            del self.counts[name]


class Utterance:
    """One response of the model, from its first delta to its end at the phone."""

    __slots__ = (
        "barge_after", "barged_at", "cut", "deltas", "first_at", "heard_ms", "item", "number",
        "planned", "received", "response", "sent", "told_ms", "voice",
    )  # fmt: skip

    def __init__(self, number: int, voice: int, planned: int, barge_after: float | None) -> None:
        self.number, self.voice, self.planned, self.barge_after = number, voice, planned, barge_after
        self.item, self.response = "", ""
        self.sent = self.received = 0
        self.deltas: deque[tuple[int, float]] = deque()
        """Deltas on their way to the phone: (the utterance's bytes with them, sent at)."""
        self.first_at: float | None = None
        self.barged_at: float | None = None
        self.cut = False
        """The phone was told to clear while this was sounding or queued."""
        self.heard_ms: float | None = None
        self.told_ms: int | None = None


class Call:
    """What both ends know of one call."""

    def __init__(self, number: int, facts: Facts) -> None:
        self.number, self.facts = number, facts
        self.call_sid = f"CA{number + 1:032x}"
        self.stream_sid = f"MZ{number + 1:032x}"
        self.webhook_at = 0.0
        self.phone: Any = None
        self.model: Any = None
        self.hung_up = False
        self.utterances: list[Utterance] = []
        self.sent_at = [0.0] * RING * 4
        """When the caller's latest frames left, by number, in a ring."""
        self.frames_sent = 0
        self.frames_arrived = 0

    def latest_activity(self) -> float:
        """When the model last began to speak."""
        return next((u.first_at for u in reversed(self.utterances) if u.first_at is not None), 0.0)

    def settle_truncation(self, utterance: Utterance) -> None:
        """Called when either half is known: what the model was told, and what had sounded."""
        if utterance.told_ms is not None and utterance.heard_ms is not None:
            self.facts.truncation_ms.append(utterance.told_ms - utterance.heard_ms)
