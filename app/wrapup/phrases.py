"""The rule set's tables: phrases, and what a caller or agent who says one means. English, lower case, no punctuation.

Rule 1: a phrase is whole words. `...` stands for anything within the line.
Rule 2: where a table is a mapping, its order counts: the first entry with a phrase in the text wins.
"""

import re
from collections.abc import Iterable
from functools import cache

from app.wrapup.spoken import plain

NOTHING_YET = (
    "hello", "hi", "hi there", "hello there", "good morning", "good afternoon", "good day", "good evening", "yes", "no", "okay",
    "can you hear me", "is anybody there", "are you there",
)  # fmt: skip
"""What a caller says before the matter, or instead of one."""

NO_NAMES = frozenset(
    """
    yes yeah yep no oh hello hi sure okay well certainly the my our it i'm that's this good thank thanks please under a an and take
    one two three four five six seven eight nine zero double plus let correct right calling from for um uh how
    monday tuesday wednesday thursday friday saturday sunday
    """.split()  # noqa: SIM905
)
"""What stands with a capital letter where a name might, and is none."""

ABOUT_US = ("talking to a machine", "talking to a robot", "are you a machine", "are you a robot", "are you a computer")
"""A question about the assistant is a matter only if nothing else is."""

ASKED_NAME = ("your name", "first and last name", "your first name", "your last name", "who is calling",
              "who is the appointment for", "who am i speaking", "name and number", "name please", "your full name")  # fmt: skip
ASKED_NUMBER = ("number", "reach you", "reach somebody", "reach them", "reach you under")
ACCEPTED = ("yes", "yep", "yeah", "correct", "right", "that's it", "exactly", "it is", "sure", "perfect")

WRONG_NUMBER = ("wrong number", "misdialled", "misdialed", "dialled the wrong", "dialed the wrong", "meant to call")

PUT_THROUGH = ("put you through to the team", "connecting you", "connect you", "transferring you",
               "transfer you")  # fmt: skip
BOOKED = ("is booked", "are booked", "it's booked", "booked", "have you down for")
NOT_YET_BOOKED = ("shall i book", "should i book", "can book", "could also book", "like to book", "help you book")
CALL_BACK = ("call you back", "calls you back", "call you today", "will call you", "give you a call")
CALL_ME = ("call me back", "call me about", "expect a call", "want a call", "give me a call", "ring me back")
LEAD_NOTED = ("noted your project", "gets in touch", "get in touch with you", "noted your interest")
PASSED_ON = ("passed it on", "passed that on", "passed on", "taken the message", "taken your message")
NOT_INTERESTED = ("not interested", "no interest", "don't call", "do not call", "forget it")
QUESTION = ("do you", "what do", "what does", "what is your", "what's your", "when", "how much", "how long", "want to know",
            "wanted to know", "where", "could you tell me", "can you tell me", "i have a question")  # fmt: skip

INTENTS: dict[str, tuple[str, ...]] = {
    "complaint": (
        "too high", "charged me", "outrageous", "ridiculous", "unbelievable", "nobody showed", "nobody came", "didn't show",
        "third time", "second time", "complain", "complaint", "annoyed", "not happy", "unhappy", "are you kidding", "cut down my",
        "has died", "guarantee", "damaged my", "ruined", "sick of", "broke my", "never again",
        "paid weeks ago", "unacceptable",
    ),
    "leave_message": (
        "leave a message", "take a message", "message for", "pass on a message", "left a message",
        "hiring", "leave word", "give him a message", "give her a message",
    ),
    "support": (
        "cancel", "my appointment", "our appointment", "move the appointment", "reschedule", "my order", "our order", "my contract",
        "the invoice", "last invoice", "your invoice", "you put in", "you planted", "you installed", "you built", "we agreed",
        "has not been delivered", "hasn't been delivered", "not delivered", "refund",
    ),
    "buy": (
        "new terrace", "new garden", "a quote", "an offer for", "budget", "like to order", "want to buy",
        "like to buy", "do you build", "do you sell", "do you plant", "do you lay", "redesign", "redesigning",
    ),
    "book_appointment": (
        "an appointment", "book", "a visit", "visit", "come and have a look", "come by", "come over", "check-up",
        "check up", "put on before", "need somebody", "like somebody", "need someone", "like to have",
    ),
}  # fmt: skip
"""The intents that phrases can tell. A list of yours with other words gets none of these that it does not hold."""

NEW_PROJECTS = ("new projects",)
"""Where the agent says so of itself, what a caller wants is new."""

POSITIVE = (
    "thank you so much", "thank you very much", "thanks a lot", "thanks so much", "wonderful", "great", "lovely", "perfect",
    "excellent", "fantastic", "very helpful", "so nice", "pleased", "delighted", "looking forward", "sounds good",
    "simply beautiful", "lifesaver", "love it", "have a lovely",
)  # fmt: skip
NEGATIVE = (
    "outrageous", "ridiculous", "unbelievable", "unacceptable", "terrible", "awful", "annoyed", "angry", "furious", "not happy",
    "unhappy", "sick of", "are you kidding", "useless", "a joke", "disappointed", "upset", "fed up", "third time", "too high",
    "nobody showed", "nobody came", "forget it", "please hurry", "complain", "lawyer", "scared", "worried", "hate",
    "we'll see about that", "running into", "great wrong number", "wrong number again",
)  # fmt: skip
"""A line with one of these is negative, whatever else it holds."""

NO_HURRY = (
    "no hurry", "no rush", "any time", "whenever", "take your time", "next year", "next spring", "next summer", "not urgent",
    "don't bother", "just looking", "some day",
)  # fmt: skip
HURRY = (
    "urgent", "urgently", "right now", "at once", "immediately", "as soon as possible", "burst",
    "please hurry", "emergency", "in about four weeks", "in four weeks", "in three weeks", "in two weeks", "a call today",
    "call me back today", "sooner the better", "danger", "dangerous", "now",
)  # fmt: skip
HIGH_FOR_US = ("as urgent",)
"""The agent's word that it passed something on as urgent counts, with what the caller said before."""

CONCERNS: dict[str, tuple[str, ...]] = {
    "danger": (
        "burst", "flooding", "flooded", "running into my", "gas leak", "smoke", "on fire", "live wire", "about to fall",
        "fallen on", "somebody is hurt", "is bleeding", "emergency",
    ),
    "threat": ("lawyer", "sue you", "legal action", "the police", "court", "bad review", "the newspaper", "report you"),
    "failed_again": ("third time", "fourth time", "again nobody", "nobody called me back", "nobody ever called", "called twice"),
    "wants_a_person": (
        "speak to a person", "talk to a person", "a real person", "speak to a human", "talk to a human", "a person please",
        "get me a manager", "speak to your boss", "your manager", "your supervisor", "speak to someone", "speak to somebody",
        "connect me with", "put me through", "talk to a real", "don't want to talk to a machine", "speak to the owner",
    ),
}  # fmt: skip

CRITERIA: dict[str, tuple[str, ...]] = {
    "concrete": (
        "metres", "meters", "square feet", "feet", "acres", "raised beds",
    ),
    "soon": (
        "in about four weeks", "in four weeks", "in three weeks", "in two weeks", "this week", "this month", "by the end of",
        "as soon as possible", "before it snows", "urgent", "the sooner the better", "before the summer",
    ),
    "budget": ("budget", "set aside", "thousand dollars", "thousand", "money is not", ),
    "asks_price": ("how much", "a quote", "what do they cost", "what does ... cost", "a price", "an offer", ),
    "decides": ("i'm the owner", "i am the owner", "bought a house", "we decide", "i decide", "our house", "my house"),
    "just_looking": ("just looking", "nothing definite", "only looking", "just curious", "just wanted to know"),
    "compares": ("comparing", "other companies", "three companies", "cheapest"),
    "later": ("next year", "next spring", "next summer", "no hurry", "not yet", ),
    "declines": ("not interested", "i don't think so", "forget it", "don't call"),
}  # fmt: skip
"""What a caller says, for the criteria of the rubric that phrases can tell. The others follow from what became of the call."""


def says(text: str, phrases: Iterable[str]) -> bool:
    """Whether a text holds one of the phrases."""
    words = f" {plain(text)} "
    return any(pattern.search(words) for pattern in map(_pattern, phrases))


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    parts = [re.escape(plain(part)) for part in phrase.split("...")]
    return re.compile(" " + " (?:.* )?".join(parts) + " ")


def which(text: str, table: dict[str, tuple[str, ...]]) -> str | None:
    """The first entry of a table with a phrase in the text."""
    return next((name for name, phrases in table.items() if says(text, phrases)), None)
