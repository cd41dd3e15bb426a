"""Keys that the caller presses: gathered until # or a pause, and masked wherever they are kept."""

PAUSE_MS = 2_500
"""A pause this long after a key ends the entry."""
LONGEST = 32


class Keypad:
    """Gathers one entry at a time."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys = ""

    def press(self, key: str) -> bool:
        """Take a key; True when it ends the entry."""
        if key == "#":
            return True
        self._keys = (self._keys + key)[:LONGEST]
        return len(self._keys) == LONGEST

    def take(self) -> str:
        """The entry, which is then forgotten. Empty when only # was pressed."""
        keys, self._keys = self._keys, ""
        return keys


def masked(keys: str) -> str:
    """How an entry stands in the transcript: its length and its last two keys."""
    return f"[keys {'*' * max(0, len(keys) - 2)}{keys[-2:] if len(keys) > 4 else '*' * min(2, len(keys))}]"
