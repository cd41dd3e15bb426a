"""Who is on the line, as the carrier writes it."""

KEYS = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "22233344455566677778889999")
WITHHELD_WORDS = ("anonymous", "unavailable", "unknown", "restricted", "private", "blocked")
# The carrier writes a withheld number as a word, or as that word on a keypad: +266696687 is "anonymous" (Twilio's documentation).
WITHHELD = frozenset(WITHHELD_WORDS) | {"+" + word.upper().translate(KEYS) for word in WITHHELD_WORDS}


def shown(number: str | None) -> str | None:
    """A party's number as the carrier tells it; None if it is withheld. It may be a name or an address of SIP as well."""
    return None if number is None or number.lower() in WITHHELD else number
