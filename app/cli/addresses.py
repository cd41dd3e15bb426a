"""The addresses to give the carrier, all built on PUBLIC_URL."""

from dataclasses import dataclass
from typing import Self

from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Addresses:
    """What stands in the carrier's console under a number's voice configuration; every one with HTTP POST."""

    voice: str
    """A call comes in."""
    fallback: str
    """The first address gave no answer that could be used."""
    status: str
    """Call status changes."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of this service."""
        base = settings.public_url
        return cls(f"{base}/twilio/voice", f"{base}/twilio/fallback", f"{base}/twilio/status")

    def lines(self) -> list[str]:
        """What to enter where, in the words of the carrier's console."""
        return [
            f"A call comes in:        Webhook, {self.voice}, HTTP POST",
            f"Primary handler fails:  Webhook, {self.fallback}, HTTP POST",
            f"Call status changes:    {self.status}, HTTP POST",
        ]
