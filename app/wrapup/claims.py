"""What the agent told the caller has been done, held against the ledger of what was done.

Rule 1: only what the caller heard is a claim; a question, a condition, a wish, a refusal and a word about somebody else's day are
none, and what the agent took back later stands no more.
Rule 2: a claim is borne out by one errand of the call that proves it and is `done`, and whose result does not say no. Intended,
failed, refused and unknown prove nothing.
Rule 3: an errand with an effect that no table here knows proves every claim: nobody is accused because of what a tool is called.
Rule 4: a transfer is no errand. It is borne out by the call's end, by another agent's voice, or by what the caller said next.
Rule 5: in doubt there is no mismatch. A false alarm costs a person's time and, after the third, their belief in all the others.
English phrases, as in `phrases`; an agent that speaks another language claims nothing here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.call.disposition import EndReason, Outcome, Utterance
from app.store.tables import ToolStatus
from app.wrapup.facts import AGENT, CALLER, Analysis, Dropped, Field, Judgement
from app.wrapup.phrases import says
from app.wrapup.spoken import plain


class Claim(StrEnum):
    """What an agent can say that it has done."""

    BOOKED = "booked"
    PASSED_ON = "passed_on"
    """A message was taken and is with somebody."""
    SENT = "sent"
    """Something is on its way to the caller."""
    CHANGED = "changed"
    """An appointment was cancelled or moved."""
    PUT_THROUGH = "put_through"


# ---- the tables

PROVES: Mapping[str, frozenset[Claim]] = {
    "find_customer": frozenset(),
    "offer_appointments": frozenset(),
    "book_appointment": frozenset((Claim.BOOKED,)),
    "take_message": frozenset((Claim.PASSED_ON,)),
}
"""The errands that are shipped (`app/tools/business.py`), and what each proves when it is done. For the others, rule 3."""

SAYS_NO: Mapping[str, str] = {"book_appointment": "booked", "take_message": "taken"}
"""An errand may be done and have come to nothing: its result then has `false` under this key."""

DISPOSITIONS: Mapping[str, Claim] = {"appointment_booked": Claim.BOOKED}
"""Words of the list that say of an effect that it was had. Without it in the ledger they do not stand."""

CLAIMS: Mapping[Claim, tuple[str, ...]] = {
    Claim.BOOKED: (
        "is booked", "it's booked", "that's booked", "you are booked", "you're booked", "i have booked", "i've booked", "i booked",
        "have you booked", "got you booked", "have you down for", "have put you down for", "i've put you down for",
        "appointment is confirmed", "visit is confirmed", "appointment is made", "have made the appointment",
        "have made that appointment", "i have reserved", "i've reserved", "now booked", "all set for", "got you down for",
        "we've booked", "we have booked you", "i've scheduled", "i have scheduled",
    ),
    Claim.PASSED_ON: (
        "passed it on", "passed that on", "passed this on", "passed on", "passed your message", "message has been taken",
        "message has been passed", "message has been sent", "have taken the message", "have taken your message",
        "have taken that message", "i've taken the message", "i've taken your message", "i've taken that message",
        "message is with the team", "message is on its way", "have put that in", "i've put that in", "have put it in for",
        "i've put it in for", "told the team", "have let the team know", "i've let the team know", "have let them know",
        "i've let them know", "forwarded your message", "forwarded the message", "forwarded it", "sent your message",
        "sent the message", "sent it on", "sent that on", "sent it to the", "sent that to the", "sent this to the", "sent a note",
        "sent your details", "sent your request", "left the message", "left a message for",
    ),
    Claim.SENT: (
        "have sent you", "i've sent you", "just sent you", "have emailed you", "have e mailed you", "i've emailed you",
        "i've e mailed you", "have texted you", "i've texted you", "have sent it to you", "i've sent it to you",
        "sent a confirmation", "sent to your email", "sent it to your email",
    ),
    Claim.CHANGED: (
        "i have cancelled", "i've cancelled", "i have canceled", "i've canceled", "i have moved your", "i've moved your",
        "i have moved the appointment", "i've moved the appointment", "i have rescheduled", "i've rescheduled",
    ),
    Claim.PUT_THROUGH: (
        "i'll transfer you", "i will transfer you", "transferring you", "i'll connect you", "i will connect you", "connecting you",
        "i'll put you through", "i will put you through", "putting you through",
    ),
}  # fmt: skip
BEGINS: Mapping[Claim, tuple[str, ...]] = {Claim.BOOKED: ("booked",)}
"""What is a claim where a clause begins with it: "Booked, Monday at nine." """

NOT_OURS = (
    "day is booked", "week is booked", "month is booked", "morning is booked", "afternoon is booked", "everything is booked",
    "calendar is booked", "team is booked", "everybody is booked", "everyone is booked", "booked up", "booked out", "booked solid",
    "booked full", "fully booked", "already booked", "was passed on", "to me", "asked me",
)  # fmt: skip
"""Of what is full, or of what somebody else did."""
REGRETS = ("sorry", "unfortunately", "afraid", "i regret")
"""Anywhere in a sentence: it says that something is not as wished."""
CONDITIONS = ("if", "once", "when", "as soon as", "until", "unless", "before", "after", "in case", "so that", "whether")
"""Before the claim, in its sentence."""
NOT_SAID_OF_NOW = (
    "not", "n't", "never", "nothing", "cannot", "can", "could", "shall", "should", "would", "will", "may", "might", "to", "let me",
    "about to", "trying", "almost", "nearly", "you said", "you say", "i see", "it says", "records", "notes say", "still",
)  # fmt: skip
"""Before the claim, in its clause. `n't` stands for every word that ends so."""

TAKEN_BACK: Mapping[Claim, tuple[str, ...]] = {
    Claim.BOOKED: (
        "not booked", "n't booked", "not been booked", "n't been booked", "just been taken", "one is taken", "time is taken",
    ),
    Claim.PASSED_ON: ("not been passed on", "not passed on", "n't pass"),
    Claim.SENT: ("not been sent", "n't been sent", "not sent"),
    Claim.CHANGED: ("not been cancelled", "not been moved", "n't been cancelled", "n't been moved"),
    Claim.PUT_THROUGH: ("nobody", "no one", "sorry", "unfortunately", "afraid", "not available", "n't reach", "busy"),
}  # fmt: skip
TAKES_ALL_BACK = (
    "did not work", "didn't work", "has not worked", "hasn't worked", "did not go through", "didn't go through", "went wrong",
    "could not book", "couldn't book", "not certain", "not sure whether", "could not do that", "couldn't do that", "my mistake",
    "i was wrong", "outcome is not known", "cannot say whether", "can't say whether",
)  # fmt: skip
"""What the agent says later, in the same line or another: the caller knows."""

ASKS_WHAT_STANDS = (
    "when is my", "when's my", "what time is my", "do i have", "am i booked", "is my appointment", "is my visit", "is our visit",
    "is our appointment", "still on", "confirm my", "check my", "when are you coming", "when you are coming", "when is our",
    "when was my", "did you book", "have you booked", "did you get my message", "did you pass", "move my", "move our",
    "move the appointment", "cancel my", "cancel our", "cancel the", "change my", "change our", "change the appointment",
    "reschedule", "about my appointment", "about our appointment", "my booking", "our booking",
)  # fmt: skip
"""The caller asks after something older: what the agent then says is no claim of this call."""
CALLS_OFF = ("no", "wait", "actually", "don't", "do not", "never mind", "hold on", "stop", "rather not", "forget it")
"""The caller's next words, after which a transfer was not to be (rule 4)."""
TALKED_TO_THE_END = (EndReason.AGENT_ENDED, EndReason.CALLER_HUNG_UP, EndReason.SILENCE)
"""Where a call was cut, nobody knows what it would have come to."""

ONE_MORE_QUESTION = re.compile(
    r"(?i)[,;]?\s*(?:and |so )?(?:is there |was there |do you need )?(?:any ?thing|what) else\b[^.!?]*\?"
)
SENTENCE = re.compile(r"[^.!?]+[.!?]*")
CLAUSE = re.compile(r"(?i:[,;:–—]|\bbut\b|\band\b)")


# ---- reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One line of the ledger, as far as it proves something."""

    name: str
    effect: bool
    status: str
    """A `ToolStatus`."""
    result: object = field(default=None, repr=False)
    """What the tool answered, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A claim that nothing bears out, and the keys of the utterances in which it was heard."""

    claim: Claim
    evidence: tuple[str, ...]


def proven(ledger: Iterable[Errand]) -> frozenset[Claim]:
    """What the ledger bears out (rules 2 and 3)."""
    found: set[Claim] = set()
    for errand in ledger:
        if errand.status != ToolStatus.DONE or _says_no(errand):
            continue
        if errand.name in PROVES:
            found |= PROVES[errand.name]
        elif errand.effect:
            found |= set(Claim)
    return frozenset(found)


def claimed(text: str) -> frozenset[Claim]:
    """What an agent's words claim."""
    found: set[Claim] = set()
    for sentence in SENTENCE.findall(ONE_MORE_QUESTION.sub(".", text)):
        if sentence.rstrip().endswith("?") or says(sentence, (*REGRETS, *NOT_OURS)):
            continue
        found |= {claim for claim in Claim if _claims(claim, sentence)}
    return frozenset(found)


def mismatches(
    utterances: Sequence[Utterance], ledger: Iterable[Errand], *, outcome: str | None, end_reason: str | None
) -> tuple[Mismatch, ...]:
    """Every claim that was heard, not taken back, and that nothing bears out. `utterances` in spoken order."""
    borne_out = proven(ledger)
    heard = [said for said in utterances if said.heard]
    found: dict[Claim, list[int]] = {}
    for at, said in enumerate(heard):
        if said.speaker != AGENT or says(_last_of(CALLER, heard[:at]), ASKS_WHAT_STANDS):
            continue
        for claim in claimed(said.heard or ""):
            if claim is not Claim.PUT_THROUGH or not _is_put_through(heard, at, outcome, end_reason):
                found.setdefault(claim, []).append(at)
    return tuple(
        Mismatch(claim=claim, evidence=tuple(dict.fromkeys(heard[at].key for at in found[claim])))
        for claim in Claim
        if claim in found and claim not in borne_out and not _is_taken_back(claim, heard, found[claim][-1])
    )


def held(analysis: Analysis, ledger: Iterable[Errand], found: Iterable[Mismatch] = ()) -> Analysis:
    """The analysis without a disposition that the ledger does not bear out, and without a next action that rests on it."""
    disposition = analysis[Field.DISPOSITION]
    claim = DISPOSITIONS.get(disposition.value) if isinstance(disposition.value, str) else None
    if claim is None or claim in proven(ledger):
        return analysis
    lines = {*disposition.evidence, *(key for each in found if each.claim is claim for key in each.evidence)}

    def keep(judgement: Judgement) -> Judgement:
        rests_on_it = judgement.field is Field.NEXT_ACTION and bool(lines & set(judgement.evidence))
        if judgement.field is Field.DISPOSITION or rests_on_it:
            return replace(judgement, value=None, evidence=(), confidence=0.0, reasons=(), dropped=Dropped.NOT_IN_LEDGER)
        return judgement

    return replace(analysis, judgements=tuple(keep(judgement) for judgement in analysis.judgements))


def _says_no(errand: Errand) -> bool:
    key = SAYS_NO.get(errand.name)
    return key is not None and isinstance(errand.result, Mapping) and errand.result.get(key) is False


def _claims(claim: Claim, sentence: str) -> bool:
    """Whether a sentence claims it, once at least, as done and without condition."""
    before = ""
    for clause in CLAUSE.split(sentence):
        words = f" {plain(clause)} "
        starts = [at for phrase in CLAIMS[claim] if (at := words.find(f" {plain(phrase)} ")) >= 0]
        starts += [0 for phrase in BEGINS.get(claim, ()) if words.startswith(f" {phrase} ")]
        for at in starts:
            if not _has(words[:at], NOT_SAID_OF_NOW) and not _has(before + words[:at], CONDITIONS):
                return True
        before += words
    return False


def _has(words: str, wanted: Iterable[str]) -> bool:
    spaced = f" {words} "
    return any((f"{phrase} " if phrase.startswith("n't") else f" {phrase} ") in spaced for phrase in wanted)


def _last_of(speaker: str, heard: Sequence[Utterance]) -> str:
    return next((said.heard or "" for said in reversed(heard) if said.speaker == speaker), "")


def _is_taken_back(claim: Claim, heard: Sequence[Utterance], last: int) -> bool:
    """Whether the agent says so, after the claim was heard for the last time or in the same breath."""
    later = " ".join(said.heard or "" for said in heard[last:] if said.speaker == AGENT)
    return _has(plain(later), (*TAKEN_BACK[claim], *TAKES_ALL_BACK))


def _is_put_through(heard: Sequence[Utterance], at: int, outcome: str | None, end_reason: str | None) -> bool:
    """Rule 4: whether the caller was put through, or nothing says that they were not."""
    later = heard[at + 1 :]
    ours = [said for said in later if said.speaker == AGENT]
    if outcome == Outcome.TRANSFERRED or end_reason not in TALKED_TO_THE_END or not ours:
        return True
    if heard[at].agent is None or any(said.agent != heard[at].agent for said in ours):
        return True  # to another agent; or, where agents are not named, perhaps
    answer = next((said.heard or "" for said in later if said.speaker == CALLER), None)
    return answer is None or _has(plain(answer), CALLS_OFF)
