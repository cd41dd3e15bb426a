"""Slot filling with provenance. Slots live on our side and survive a hand-off, a new session and a new worker.

Rule 1: the model proposes, we decide: a value is normalised and checked by its kind.
Rule 2: a slot that must be read back is confirmed only when the same value is noted again, as confirmed, after the caller has
spoken again. The model's word alone confirms nothing.
"""

import re
from collections.abc import Iterable, Mapping

from app.call.agent import SlotKind, SlotSpec
from app.call.disposition import Slot

LONGEST = 500
SPOKEN = {
    "zero": "0", "oh": "0", "o": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9",
}  # fmt: skip


class SlotRefused(Exception):
    """The value does not fit the slot. The sentence is for the model and holds nothing that was said."""


class Slots:
    """What has been learnt so far."""

    def __init__(self, known: Iterable[Slot] = (), *, country_code: str = "1") -> None:
        self._known = {slot.name: slot for slot in known}
        self._heard_when_noted: dict[str, int] = {}
        self._country_code = country_code

    @property
    def all(self) -> tuple[Slot, ...]:
        """Every slot that has a value, in the order of first noting."""
        return tuple(self._known.values())

    @property
    def values(self) -> Mapping[str, str]:
        """Slot names and values."""
        return {slot.name: slot.value for slot in self._known.values()}

    def missing(self, specs: Iterable[SlotSpec]) -> list[str]:
        """The required slots that have no value, or none that is confirmed where it must be read back."""
        return [
            spec.name
            for spec in specs
            if spec.required and (spec.name not in self._known or (spec.read_back and not self._known[spec.name].confirmed))
        ]

    def note(
        self, spec: SlotSpec, value: str, *, confirmed: bool, utterance: str | None, agent: str, caller_turns: int, at: int
    ) -> Slot:
        """Note a value.

        `caller_turns` counts the caller's turns so far (rule 2).

        Raises:
            SlotRefused: the value is empty, too long, no telephone number, or none of the choices.
        """
        normal = normalise(spec, value, country_code=self._country_code)
        known = self._known.get(spec.name)
        if known is not None and known.value == normal:  # noted before this stream: the caller has still to be heard in it
            self._heard_when_noted.setdefault(spec.name, caller_turns)
        same = known is not None and known.value == normal
        read_back_heard = same and caller_turns > self._heard_when_noted.get(spec.name, caller_turns)
        is_confirmed = (known is not None and same and known.confirmed) or (confirmed and (read_back_heard or not spec.read_back))
        if not same:
            self._heard_when_noted[spec.name] = caller_turns
        slot = Slot(
            name=spec.name,
            value=normal,
            utterance=known.utterance if known is not None and same else utterance,
            agent=agent,
            confirmed=is_confirmed,
            at=at,
        )
        self._known[spec.name] = slot
        return slot


def normalise(spec: SlotSpec, value: str, *, country_code: str) -> str:
    """The value as it is kept: white space folded, a choice by its spelling, a telephone number as + and digits where possible."""
    text = " ".join(value.split())
    if not text or len(text) > LONGEST:
        raise SlotRefused(f"{spec.name} needs a value of 1 to {LONGEST} characters")
    if spec.kind is SlotKind.CHOICE:
        for choice in spec.choices:
            if choice.lower() == text.lower():
                return choice
        raise SlotRefused(f"{spec.name} is one of: {', '.join(spec.choices)}")
    if spec.kind is SlotKind.PHONE:
        return _number(spec.name, text, country_code)
    return text


def _number(name: str, text: str, country_code: str) -> str:
    words = re.sub(r"[a-z]+", lambda word: SPOKEN.get(word[0], word[0]), text.lower())
    digits = re.sub(r"[\s().\-/,]", "", words)
    if not re.fullmatch(r"\+?\d{7,15}", digits):
        raise SlotRefused(f"{name} needs a telephone number of 7 to 15 digits; ask for it again")
    if digits.startswith("+"):
        return digits
    if country_code == "1" and len(digits) == 11 and digits[0] == "1":
        return f"+{digits}"
    if len(digits) == 10:
        return f"+{country_code}{digits.lstrip('0') if country_code != '1' else digits}"
    return digits
