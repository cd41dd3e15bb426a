"""Our own name for a call: 26 letters, the time first, so that names sort as calls began."""

import secrets
from datetime import datetime

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, as in a ULID: no I, L, O, U to be misread."""


def new_call_id(at: datetime) -> str:
    """48 bits of milliseconds since 1970, then 80 random bits."""
    number = (int(at.timestamp() * 1_000) << 80) | secrets.randbits(80)
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))
