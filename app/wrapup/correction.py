"""What a person may say of a call: a typed word as the value of a field, checked against the business's lists.

Rule 1: what is not allowed is refused with the words that are; nothing is guessed, and nothing cut short in silence.
Rule 2: the sentence of a refusal does not repeat what was typed: it may be somebody's name or number.
"""

from app.errors import CallrowError
from app.store.tables import Sentiment
from app.wrapup import spoken
from app.wrapup.facts import Field, Lists, Urgency

YES_NO = {"yes": True, "no": False}
TEXT = (Field.SUMMARY, Field.NEXT_ACTION, Field.NAME, Field.REASON)
LONGEST = 2_000
FIELDS = tuple(field for field in Field if field is not Field.SENTIMENT_COURSE)
"""The course of a mood is a list of many; who disagrees with it corrects the sentiment."""


class NotAllowed(CallrowError):
    """A value that the field cannot have. `because` says which it can."""

    def __init__(self, field: str, because: str) -> None:
        self.field, self.because = field, because
        super().__init__(field, because)

    def __str__(self) -> str:
        return f"{self.field} {self.because}"


def corrected(field: Field, typed: str, lists: Lists) -> str | int | bool:
    """The value that was typed, as it is kept.

    Raises:
        NotAllowed: the field cannot have it.
    """
    text = " ".join(typed.split()) if field is not Field.SUMMARY else typed.strip()
    words = allowed(field, lists)
    if words:
        found = next((word for word in words if word.casefold() == text.casefold()), None)
        if found is None:
            raise NotAllowed(field, f"is one of: {', '.join(words)}")
        return YES_NO[found] if field is Field.ESCALATION else found
    if field is Field.LEAD_SCORE:
        if not (text.isascii() and text.isdecimal()) or not 0 <= int(text) <= 100:
            raise NotAllowed(field, "is a whole number from 0 to 100")
        return int(text)
    if field is Field.CALLBACK_NUMBER:
        number = spoken.e164(text, lists.region)
        if number is None:
            raise NotAllowed(field, f"is a whole telephone number, as +15550100001 or as it is dialled in {lists.region}")
        return number
    if field not in TEXT:
        raise NotAllowed(field, "is not corrected by hand")
    if not 0 < len(text) <= LONGEST:
        raise NotAllowed(field, f"is a text of 1 to {LONGEST:,} characters")
    return text


def allowed(field: Field, lists: Lists) -> tuple[str, ...]:
    """The words of a closed field; empty for one that is not closed."""
    match field:
        case Field.DISPOSITION:
            return lists.dispositions
        case Field.INTENT:
            return lists.intents
        case Field.SENTIMENT:
            return tuple(word.value for word in Sentiment)
        case Field.URGENCY:
            return tuple(word.value for word in Urgency)
        case Field.ESCALATION:
            return tuple(YES_NO)
    return ()
