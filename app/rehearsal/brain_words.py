"""What a caller's words mean: tables of patterns over what the recogniser can hear. Pure.

Rule 1: nothing is guessed. What no pattern finds is not there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

type Goal = Literal["wrong", "person", "message", "buy", "book"]
type Answer = Literal["yes", "no"]

_DIGITS = {
    "zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9",
}  # fmt: skip
_NAMES_OF_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_ORDINALS = {"first": 0, "earlier": 0, "second": 1, "third": 2}
_HOURS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "noon": 12,
}  # fmt: skip


def _any(*parts: str) -> str:
    return "|".join(parts)


_NEW_THING = (
    r"(?:a new|an?|new|some new|some|the|my new|our new)\s+(?:terrace|patio|deck|pond|garden design|hedge|fence|flower beds?|"
    r"trees?|lawn|watering system|path|wall|greenhouse|(?:rose|vegetable|front|water) garden|garden house|garden)\b"
)
_SOMEBODY = r"\b(?:human|person|somebody|someone|manager|boss|operator|supervisor|owner|office|colleague|robot|machine|computer)\b"
_ANGRY = re.compile(
    r"\b(?:ridiculous|unacceptable|terrible|outrageous|angry|upset|fed up|furious|had enough)\b|\bi have been waiting\b|"
    r"\bnobody (?:came|called)\b|\byou people never\b"
)
# "could somebody come and cut the hedge", "can someone call me back": no wish to speak to a person.
_WORK = "cut|trim|prune|mow|remove|plant|build|repair|fix|look|check|redesign|redo|design|clean|take"
_NO_PERSON = re.compile(
    r"\b(?:can|could) (?:someone|somebody) (?:come|call me back)|\bmessage for|^(?:please )?tell |\b(?:talk|speak) to sales|"
    rf"\b(?:someone|somebody) to (?:{_WORK})"
)
# The first that is found stands.
_GOALS: tuple[tuple[Goal, str], ...] = (
    ("wrong", r"\bwrong number\b|\bis this the (?:pizza|hospital|train|library|post|airport)"),
    ("person", _any(_SOMEBODY, _ANGRY.pattern)),
    (
        "message",
        r"\bmessage\b|\bcall (?:me )?back\b|\b(?:cancel|move) (?:my|the|an)\b|\bcomplain(?:t)?\b|\bnot (?:happy|satisfied)\b",
    ),
    ("buy", r"\b(?:prices?|quote|offer|estimate|cost|charge|buy|order|sales)\b|\bhow much\b"),
    ("book", r"\b(?:appointment|visit|meeting)\b|\b(?:someone|somebody) (?:come|to)\b"),
    (
        "buy",
        r"\b(?:interested in|thinking (?:of|about)|build|design|plan|"
        r"i want|i need|i(?:'d| would) like(?: to (?:have|get|plant))?) " + _NEW_THING,
    ),
)
_PAPERS = re.compile(r"\b(?:invoice|bill|payment|contract|delivery|order|complaint|job|prices|refund)\b")

_YES = re.compile(
    r"^(?:yes|yeah|yep|sure|of course|okay|mm-hm|uh-huh|certainly|absolutely|correct|exactly|right|perfect|great|i am|i do|book it|"
    r"do that|that(?: is|'s) (?:right|correct|fine)|that works|that sounds good|that would be|it is$)"
)
_NO = re.compile(
    r"^(?:no|nope|not|rather not|wrong|incorrect|that(?: is|'s) (?:wrong|not)|it(?: is|'s) not|that does not|neither|none)\b"
)
_PARDON = re.compile(
    r"^(?:sorry|pardon|excuse me|(?:hello )?are you there|sorry what was that|what did you say|"
    r"(?:can|could) you (?:repeat|say) that.*|please say that again|i did not (?:understand|hear).*)$"
)
_HUM = re.compile(r"^(?:mm-hm|uh-huh|okay|right|i see|yeah)$")
_HOLD = re.compile(r"\bmoment\b|\bhold on\b|\blet me (?:think|see)\b")
_FAREWELL = re.compile(
    r"\b(?:goodbye|bye)\b|\bthat(?: is|'s| was) (?:all|everything)\b|\bnothing else\b|^(?:okay )?thank you very much$"
)
_NO_NAME = frozenset(
    re.findall(
        r"\S+",
        "yes no sure of course okay well um uh certainly hello hi good morning afternoon evening mister missus miss speaking here "
        "my name is the this it it's i am i'm oh so calling about",
    )
)
_LEAD = re.compile(
    r"^(?:(?:yes|sure|of course|okay|well|um|uh|certainly|oh|so|no|hello|hi|good (?:morning|afternoon|evening))\s+)*"
    r"(?:(?:this is|my name is) [a-z]+(?: [a-z]+)? (?=i |can |could |may |is |do |an? ))?"
)
_ABOUT = re.compile(
    r"^(?:it is about|it's about|it is because of|it is for|(?:i am|i'm) calling (?:about|because of)|because of|about|"
    r"i need help with|i have a (?:problem|question)(?: with| about)?|(?:i|we) (?:need|want|would like)|i'd like)\s+(?!to\b)"
)
_WHEN = rf"(?:next )?(?:{_DAYS}|tomorrow|today|this week|next week|as soon as possible)\b"
_BOOKING = re.compile(
    r"^.*?\b(?:appointment|visit|meeting)\b(?:\s+(?:for|about|to)\s+(?P<what>.+?))?"
    rf"(?:\s+(?:(?:for|on)\s+)?{_WHEN}(?: morning| afternoon| evening)?)?(?:\s+please)?$"
)
_TAIL = re.compile(
    r"\s*(?:please|thank you|thanks|(?:it is|it's) (?:very )?urgent|there(?: is|'s) no hurry|it can wait|as soon as possible)$"
)
_WISH = r"(?:i would like to|i'd like to|i want to|i need to|can i|could i|may i|can you|could you|i am calling to|i'm calling to)"
_NO_REASON = re.compile(rf"(?:{_WISH} )?(?:leave|take) a message.*|(?:talk|speak) to sales|sales")
_COMPLAINT = re.compile(rf"{_WISH} (?:complain|make a complaint)|i have a complaint")
_SOON = re.compile(
    r"\bany day\b|\bas soon as possible\b|\bno preference\b|\bwhenever\b|\bfree (?:day|one|appointment)\b|\b(?:this|next) week\b|"
    r"\bnot mind\b|\bnot matter\b|\bearlier the better\b"
)
_NOT_URGENT = re.compile(r"\bnot (?:very |that |so )?urgent\b|\bcan wait\b|\bno (?:hurry|rush)\b|\bany time\b|^low$")
_URGENT = re.compile(
    r"\burgent\b|\bas soon as possible\b|\btoday\b|\bimmediately\b|\bright away\b|\bemergency\b|\bcan(?:'t|not) wait\b|\bfalling\b|"
    r"\babout to fall\b|\bhas fallen\b|\bfell\b|^high$"
)
_NO_HOUR = frozenset(("the", "that", "first", "second", "third", "last", "either", "later", "earlier"))


def goal_of(text: str) -> Goal | None:
    """What the caller wants of us."""
    for goal, pattern in _GOALS:
        if re.search(pattern, text) and not (goal == "person" and _NO_PERSON.search(text) and not is_angry(text)):
            return goal
    return None


def wants_somebody(text: str) -> bool:
    """The caller asks for a person, in so many words."""
    return re.search(_SOMEBODY, text) is not None and _NO_PERSON.search(text) is None


def is_for_the_office(reason: str) -> bool:
    """About papers and complaints, which no visit settles."""
    return _PAPERS.search(reason) is not None


def is_angry(text: str) -> bool:
    """The caller is upset."""
    return _ANGRY.search(text) is not None


def answer_of(text: str) -> Answer | None:
    """Yes or no. "No" stands before "yes": "no that is right" is nobody's yes."""
    return "no" if _NO.search(text) else "yes" if _YES.search(text) else None


def is_pardon(text: str) -> bool:
    """The caller did not hear or understand us."""
    return _PARDON.search(text) is not None


def is_hum(text: str) -> bool:
    """A sign of listening, if nothing was asked."""
    return _HUM.search(text) is not None


def is_hold(text: str) -> bool:
    """The caller wants a moment."""
    return _HOLD.search(text) is not None


def is_farewell(text: str) -> bool:
    """The caller is done."""
    return _FAREWELL.search(text) is not None


def is_greeting(text: str) -> bool:
    """Nothing but a hello."""
    return re.fullmatch(r"(?:(?:well|yes|oh|okay) )?(?:hello|hi|good (?:morning|afternoon|evening))", text) is not None


def name_of(text: str, *, asked: bool) -> str | None:
    """The caller's name, capitalised. Unless it was asked for, only after "this is" and the like, before what is wanted."""
    if asked:
        if is_farewell(text) or answer_of(text) == "no":
            return None
        words = [word for word in text.split() if word not in _NO_NAME]
        return " ".join(words).title() if 1 <= len(words) <= 3 and len(text.split()) <= 8 else None
    introduced = re.search(
        r"^(?:\S+ ){0,3}?(?:this is|my name is) (?P<name>[a-z]+(?: [a-z]+)?)(?= (?:i|can|could|may|is|do|an?)\b|$)", text
    )
    if introduced is None or is_angry(text) or introduced["name"].split()[0] in ("a", "the", "about"):
        return None
    return introduced["name"].title()


def digits_of(text: str) -> str:
    """The digits that were said, or typed."""
    if typed := re.search(r"\(the caller typed on the keypad: ([\d*#]+)\)", text):
        return re.sub(r"\D", "", typed[1])
    found, run = "", ""
    for word in [*text.replace(",", " ").split(), ""]:
        if word in _DIGITS:
            run += _DIGITS[word]
        else:
            found, run = max(found, run, key=len), ""
    return found


def in_groups(number: str) -> str:
    """A number as it is read back: digit by digit, in threes and a four."""
    digits = re.sub(r"\D", "", number)
    if len(digits) == 11 and digits.startswith("1"):
        digits = digits[1:]
    groups, rest = [], digits
    while rest:
        size = len(rest) if len(rest) <= 4 else 3
        groups.append(" ".join(_NAMES_OF_DIGITS[int(digit)] for digit in rest[:size]))
        rest = rest[size:]
    return ", ".join(groups)


def urgency_of(text: str) -> Literal["low", "normal", "high"] | None:
    """How urgent the caller says it is; None if nothing was said of it."""
    if _NOT_URGENT.search(text):
        return "low"
    if _URGENT.search(text):
        return "high"
    return "normal" if re.search(r"\bnormal\b|\b(?:this|next) week\b|\btomorrow\b", text) else None


def day_of(text: str) -> str | None:
    """The day that was named: a weekday, today or tomorrow; "any" if each is welcome."""
    if named := re.search(rf"\b({_DAYS}|tomorrow|today)\b", text):
        return named[1]
    return "any" if _SOON.search(text) else None


@dataclass(frozen=True, slots=True)
class Opening:
    """One that was offered."""

    key: str
    spoken: str


def choice_of(text: str, offered: Sequence[Opening]) -> Opening | None:
    """Which of the openings is meant: by its place, its day or hour, or because there is only one."""
    if not offered or answer_of(text) == "no":
        return None
    for word, place in _ORDINALS.items():
        if re.search(rf"\b{word}\b", text) and place < len(offered):
            return offered[place]
    if re.search(r"\b(?:last|later)\b", text):
        return offered[-1]
    fits = list(offered)
    if day := re.search(rf"\b({_DAYS})\b", text):
        fits = [opening for opening in fits if day[1] in opening.spoken.lower()]
    words = text.split()
    hours = [_HOURS[word] for at, word in enumerate(words) if word in _HOURS and (at == 0 or words[at - 1] not in _NO_HOUR)]
    if hours:
        fits = [opening for opening in fits if _hour_of(opening.spoken) == hours[0]]
    is_meant = day or hours or re.search(r"\beither\b", text) or (len(offered) == 1 and answer_of(text) == "yes")
    return fits[0] if fits and is_meant else None


def _hour_of(spoken: str) -> int | None:
    found = re.search(r"\b(\d{1,2})(?::\d\d)?(?: in the | noon|$)", spoken)
    return int(found[1]) if found else None


def reason_of(text: str) -> str | None:
    """What it is about, in the caller's words; None if they only said that they want an appointment, or us."""
    said = _TAIL.sub("", _TAIL.sub("", _LEAD.sub("", text, count=1)))
    if booking := _BOOKING.match(said):
        what = booking["what"]
        return None if not what or re.match(_WHEN, what) else str(what)
    if _COMPLAINT.fullmatch(said):
        return "a complaint"
    said = re.sub(r"^(?:a|an|some) (?:price|prices|quote|offer|estimate) for ", "", _ABOUT.sub("", said, count=1).strip())
    is_no_reason = (
        not said
        or _NO_REASON.fullmatch(said)
        or goal_of(said) == "wrong"
        or wants_somebody(said)
        or (len(said.split()) < 3 and answer_of(said) is not None)
        or any(other(said) for other in (is_pardon, is_hold, is_farewell, is_hum, is_greeting))
    )
    return None if is_no_reason else said
