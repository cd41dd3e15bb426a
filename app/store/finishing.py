"""The arithmetic of a finished row: what the call cost, how long its answers took. Pure; `calls.py` reads and writes."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from app.call.disposition import Usage
from app.settings import Price

MILLION = Decimal(1_000_000)
MINUTE = Decimal(60)


def nearest_rank(values: Sequence[int], percent: int) -> int | None:
    """The smallest of the values that at least `percent` of them do not exceed; None of none. `percent` is 1 to 100."""
    if not values:
        return None
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def tokens_in(usage: Usage) -> int:
    """What the conversation's model was given, cached tokens included; the transcription's tokens are another model's."""
    return usage.text_in + usage.audio_in


def tokens_out(usage: Usage) -> int:
    """What the conversation's model made."""
    return usage.text_out + usage.audio_out


def cost(usage: Usage, price: Price | None, per_transcription_minute: float | None) -> Decimal | None:
    """US dollars to six places. None where a part of it has no price: a cost is known or it is not, never estimated."""
    unpriced = price is None and (tokens_in(usage) or tokens_out(usage))
    if unpriced or (per_transcription_minute is None and usage.transcription_seconds):
        return None
    total = Decimal(0)
    if price is not None:
        for count, per_million in (
            (usage.text_in - usage.text_cached, price.text_in),
            (usage.text_cached, price.text_cached),
            (usage.text_out, price.text_out),
            (usage.audio_in - usage.audio_cached, price.audio_in),
            (usage.audio_cached, price.audio_cached),
            (usage.audio_out, price.audio_out),
        ):
            total += count * Decimal(str(per_million)) / MILLION
    if per_transcription_minute is not None:
        total += Decimal(str(usage.transcription_seconds)) * Decimal(str(per_transcription_minute)) / MINUTE
    return total.quantize(Decimal("0.000001"))


def price_of(model: str | None, prices: Mapping[str, Price]) -> Price | None:
    """The price of a model; a dated snapshot (`name-2026-11-20`) costs what its name costs."""
    if model is None:
        return None
    known = [name for name in prices if model == name or (model.startswith(name + "-") and model[len(name) + 1 :][:4].isdigit())]
    return prices[max(known, key=len)] if known else None
