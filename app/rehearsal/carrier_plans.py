"""How the pretend carrier is set up, and how a call of it shall go: data only.

Probabilities are 0 to 1 and are drawn from the carrier's own seeded dice, so that a run can be repeated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.rehearsal.carrier_stream import StreamPlan
from app.rehearsal.carrier_web import HONEST, Tampering

TERMINAL = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""The call statuses after which nothing follows."""


def mumble(text: str) -> bytes:
    """What a carrier without a voice says: a quiet tone-like pattern, 20 ms a character, 5 s at most."""
    return bytes((0x9F, 0x1F, 0x9F, 0x1F)) * (40 * min(len(text), 250))


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One telephone number of the account and where its calls go; addresses are public ones. None: not configured."""

    phone_number: str = "+15559870000"
    sid: str = "PN" + "1" * 32
    friendly_name: str = "rehearsal"
    voice_url: str | None
    voice_method: str = "POST"
    voice_fallback_url: str | None = None
    voice_fallback_method: str = "POST"
    status_callback: str | None = None
    status_callback_method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """What happens to a leg that `<Dial>` rings. `outcome`: answered, busy, no-answer or failed."""

    outcome: str = "no-answer"
    ring_ms: int = 1_200
    """How long it rings; at most the `timeout` that the document gives."""
    talk_ms: int | None = 3_000
    """How long the person who answered stays; None: until the caller hangs up."""
    says: bytes = field(default=b"", repr=False)
    """What that person says first, as line audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """How one call shall go, and what goes wrong in it."""

    from_number: str = "+15551230000"
    webhook: Tampering = HONEST
    """How the first webhook is signed."""
    duplicate_webhook: bool = False
    """Deliver the first webhook twice with one idempotency token and go by the second answer."""
    stream: StreamPlan = field(default_factory=StreamPlan)
    honour_action: bool = True
    """Request `<Connect action>` when a stream has ended; if not, the next verb runs. Either must work."""
    recover_ms: int | None = None
    """Time from a socket's end to what follows; None: 0 to 300 ms after a close, up to 2 s after a broken connection."""
    action_after_hang_up: float = 0.5
    """How probably `action` is still requested, with CallStatus=completed, when the caller hung up."""
    callback_delay_ms: int = 300
    """Callbacks arrive up to this late, so in any order."""
    callback_duplicates: float = 0.25
    callback_drops: float = 0.0
    dials: Mapping[str, DialPlan] = field(default_factory=dict)
    """By number, or `any`; a number that is not in it is not answered."""
    time_limit_ms: int = 600_000
    """The carrier's own end of the call, status completed."""
    rated_after_ms: int = 2_000
    """How long after its end the call has a price; with the real carrier it may be minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who we are at the carrier, and how it speaks `<Say>`."""

    sid: str
    token: str = field(repr=False)
    speak: Callable[[str], bytes] = mumble
