"""The agent's slots beside the second reading. Both are kept; where they differ, a person is asked.

Rule 1: neither side is corrected by the other, and nobody is called wrong here.
Rule 2: what differs only in how it is written (case, accents, a title, a national number beside the international one)
does not differ.
"""

import dataclasses
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from app.call.disposition import Slot
from app.wrapup import spoken
from app.wrapup.facts import SLOTS, Analysis, Field, Judgement, Lists

COMMON_WORDS = frozenset(
    """
    and for have i'd like our that the their they want wants with would you your need needs please about some someone somebody has
    had was were are can could will not from
    """.split()  # noqa: SIM905
)
"""Words that two sentences may share without being about the same."""


class Review(StrEnum):
    """Why a person should look at a slot."""

    VALUES_DIFFER = "values_differ"
    NOT_IN_TRANSCRIPT = "not_in_transcript"
    """The agent noted it, and the second reading does not find it said."""
    NOT_NOTED = "not_noted"
    """The second reading finds it said, and the agent did not note it."""
    NO_WHOLE_NUMBER = "no_whole_number"
    """The number that the agent noted cannot be dialled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One slot, read twice."""

    field: Field
    noted: Slot | None = dataclasses.field(repr=False)
    read: Judgement = dataclasses.field(repr=False)
    review: Review | None = None


def compare(slots: Iterable[Slot], analysis: Analysis, lists: Lists) -> tuple[Comparison, ...]:
    """Every slot of the second reading beside the agent's, in the order of SLOTS."""
    noted = {slot.name: slot for slot in slots}
    return tuple(
        Comparison(
            field=which,
            noted=noted.get(which),
            read=analysis[which],
            review=_review(which, noted.get(which), analysis[which], lists),
        )
        for which in SLOTS
    )


def review_reasons(comparisons: Iterable[Comparison]) -> dict[str, str]:
    """Slot names with why they want a look; empty when the row needs none."""
    return {each.field.value: each.review.value for each in comparisons if each.review is not None}


def _review(which: Field, slot: Slot | None, judgement: Judgement, lists: Lists) -> Review | None:
    read = judgement.value
    if slot is None:
        # That the agent did not judge the urgency is no gap in what it noted.
        return Review.NOT_NOTED if read is not None and which is not Field.URGENCY else None
    if which is Field.CALLBACK_NUMBER and spoken.e164(slot.value, lists.region) is None:
        return Review.NO_WHOLE_NUMBER
    if read is None:
        # An urgency is judged and not said: where the second reading sees none, nothing that was noted is missing.
        return None if which is Field.URGENCY else Review.NOT_IN_TRANSCRIPT
    return None if _same(which, slot.value, str(read), lists) else Review.VALUES_DIFFER


def _same(which: Field, noted: str, read: str, lists: Lists) -> bool:
    match which:
        case Field.CALLBACK_NUMBER:
            return spoken.e164(noted, lists.region) == read
        case Field.NAME:
            ours, theirs = _name(noted), _name(read)
            return bool(ours) and bool(theirs) and (ours <= theirs or theirs <= ours)
        case Field.REASON:
            ours, theirs = _content(noted), _content(read)
            return bool(ours & theirs) or _bare(noted) == _bare(read)
    return noted == read


def _bare(text: str) -> str:
    """Without case, accents and punctuation."""
    apart = unicodedata.normalize("NFKD", text)
    return spoken.plain("".join(c for c in apart if not unicodedata.combining(c)))


def _name(text: str) -> frozenset[str]:
    return frozenset(_bare(text).split()) - spoken.TITLES


def _content(text: str) -> frozenset[str]:
    """The words that say what it is about, without their endings of the plural."""
    return frozenset(word.removesuffix("s") for word in _bare(text).split() if len(word) > 2) - COMMON_WORDS
