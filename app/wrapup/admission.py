"""The one door into the row: what was proposed is kept only as far as the transcript bears it out.

Rule 1: evidence is a line that exists and has words. Cited lines that do not exist are left out; without one that does, the value
is None. Confidence is what the analyzer says, put between 0 and 1.
Rule 2: what only the caller can say needs words of the caller. What the agent said counts for a slot only where the caller answered
it, in a cited line, with anything but a no: a number read back and accepted.
Rule 3: what is judged (not merely said) never rests on words that tell us what to judge (`hostile`).
Rule 4: a word of a list is of that list; a score is at most what the rubric counts for the reasons that hold; a flag has a reason.
Rule 5: a slot is said: its digits, its names, its very words occur in the cited lines.
Rule 6: admitting twice changes nothing.

What it cannot see: whether a cited line means what the analyzer says it means. So every value in the row shows its lines.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.store.tables import Sentiment
from app.wrapup import spoken
from app.wrapup.facts import (
    AGENT,
    CALLER,
    Analysis,
    Concern,
    Dropped,
    Field,
    Judgement,
    Line,
    Lists,
    Reason,
    Transcript,
    Urgency,
    Value,
)
from app.wrapup.hostile import is_order_to_us
from app.wrapup.rubric import PER_LINE

MOST_EVIDENCE = 20
LONGEST = {Field.SUMMARY: 800, Field.NEXT_ACTION: 300, Field.REASON: 300, Field.NAME: 80, Field.CALLBACK_NUMBER: 40}
LONGEST_BECAUSE = 200
LONG_NUMBER = re.compile(r"\d{5,}")
ALSO_FROM_US = (Field.SUMMARY, Field.DISPOSITION, Field.NEXT_ACTION)
"""What the agent said or did can be evidence for these alone."""
JUDGED = (
    *(Field.SENTIMENT, Field.SENTIMENT_COURSE, Field.INTENT, Field.LEAD_SCORE, Field.URGENCY, Field.ESCALATION),
    *(Field.DISPOSITION, Field.NEXT_ACTION),
)
DENIAL = re.compile(r"\b(no|nope|wrong|incorrect|not (right|correct|quite|it))\b")


def admit(judgement: Judgement, transcript: Transcript, lists: Lists) -> Judgement:
    """The judgement as it may stand in the row. A value that the transcript does not bear out is None, and says why."""
    if judgement.value is None:
        return replace(judgement, evidence=(), confidence=0.0, reasons=())
    if judgement.field is Field.SENTIMENT_COURSE:
        judgement = _course(judgement, transcript)
    if judgement.field in (Field.LEAD_SCORE, Field.ESCALATION):
        judgement = _reasoned(judgement, transcript, lists)
    evidence = _known(judgement.evidence, transcript)
    if wrong := _wrong_evidence(judgement, evidence, transcript):
        return _without(judgement, wrong)
    if judgement.field in JUDGED:
        evidence = tuple(key for key in evidence if not _is_order(key, transcript))
        if _wrong_evidence(judgement, evidence, transcript):
            return _without(judgement, Dropped.ORDER_TO_US)
    value = _value(judgement, evidence, transcript, lists)
    if isinstance(value, Dropped):
        return _without(judgement, value)
    return replace(judgement, value=value, evidence=evidence, confidence=_confidence(judgement.confidence))


def analysis(
    proposed: Iterable[Judgement],
    transcript: Transcript,
    lists: Lists,
    *,
    analyzer: str,
    model: str | None = None,
    prompt_version: str,
    tokens_in: int = 0,
    tokens_out: int = 0,
) -> Analysis:
    """One reading, every judgement of it admitted. A field for which nothing was proposed is None; a second proposal is ignored."""
    found: dict[Field, Judgement] = {}
    for judgement in proposed:
        found.setdefault(judgement.field, admit(judgement, transcript, lists))
    nothing = Judgement(field=Field.SUMMARY, value=None, analyzer=analyzer, model=model, prompt_version=prompt_version)
    return Analysis(
        judgements=tuple(found.get(which) or replace(nothing, field=which) for which in Field),
        analyzer=analyzer,
        model=model,
        prompt_version=prompt_version,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
    )


def _without(judgement: Judgement, why: Dropped) -> Judgement:
    return replace(judgement, value=None, evidence=(), confidence=0.0, reasons=(), dropped=why)


# ---- evidence


def _known(keys: Iterable[str], transcript: Transcript) -> tuple[str, ...]:
    """The keys that have words, each once, in the order they were cited."""
    return tuple(dict.fromkeys(key for key in keys if any(line.text for line in transcript.of_key(key))))[:MOST_EVIDENCE]


def _lines(keys: Sequence[str], transcript: Transcript) -> list[Line]:
    found = {line.number: line for key in keys for line in transcript.of_key(key)}
    return [found[number] for number in sorted(found)]


def _wrong_evidence(judgement: Judgement, evidence: Sequence[str], transcript: Transcript) -> Dropped | None:
    if not evidence:
        return Dropped.UNSUPPORTED if judgement.field in (Field.LEAD_SCORE, Field.ESCALATION) else Dropped.NO_EVIDENCE
    from_caller = any(line.speaker == CALLER and line.text for line in _lines(evidence, transcript))
    return None if from_caller or judgement.field in ALSO_FROM_US else Dropped.NOT_FROM_THE_CALLER


def _is_order(key: str, transcript: Transcript) -> bool:
    return any(line.speaker == CALLER and line.text and is_order_to_us(line.text) for line in transcript.of_key(key))


def _said(evidence: Sequence[str], transcript: Transcript, *, apart: str) -> list[str]:
    """The caller's cited words, joined by `apart`, and each of our own lines that the caller accepted in a cited line (rule 2)."""
    lines = _lines(evidence, transcript)
    cited = {line.number for line in lines}
    said = [apart.join(line.text for line in lines if line.speaker == CALLER and line.text)]
    for line in lines:
        answer = transcript.after(line)
        if line.speaker != AGENT or not line.text or answer is None or answer.speaker != CALLER or answer.number not in cited:
            continue
        if not DENIAL.search(spoken.plain(answer.text or "")):
            said.append(line.text)
    return said


# ---- values


def _value(judgement: Judgement, evidence: Sequence[str], transcript: Transcript, lists: Lists) -> Value | Dropped:
    value = judgement.value
    match judgement.field:
        case Field.LEAD_SCORE:
            return value if type(value) is int and judgement.reasons else Dropped.UNSUPPORTED
        case Field.ESCALATION:
            return value if isinstance(value, bool) else Dropped.WRONG_KIND  # a flag without reasons has no evidence left
        case Field.SENTIMENT_COURSE:
            return value
    if not isinstance(value, str):
        return Dropped.WRONG_KIND
    if (words := _words(judgement.field, lists)) is not None:
        return value if value in words else Dropped.NOT_IN_THE_LIST
    if not (text := _tidy(value, LONGEST[judgement.field])):
        return Dropped.WRONG_KIND
    match judgement.field:
        case Field.NAME:
            return text if spoken.name_is_said(text, " / ".join(_said(evidence, transcript, apart=" / "))) else Dropped.NOT_SAID
        case Field.CALLBACK_NUMBER:
            return _number(text, _said(evidence, transcript, apart=" "), lists.region)
        case Field.REASON:
            cited = [line.text or "" for line in _lines(evidence, transcript) if line.speaker == CALLER]
            return text if any(spoken.quote_is_said(text, said) for said in cited) else Dropped.NOT_SAID
    return text if _numbers_are_said(text, transcript) else Dropped.NOT_SAID


def _words(which: Field, lists: Lists) -> Sequence[str] | None:
    """The closed list of a field; None if it has none."""
    match which:
        case Field.SENTIMENT:
            return [mood.value for mood in Sentiment]
        case Field.URGENCY:
            return [urgency.value for urgency in Urgency]
        case Field.INTENT:
            return lists.intents
        case Field.DISPOSITION:
            return lists.dispositions
    return None


def _number(text: str, said: Iterable[str], region: str) -> str | Dropped:
    number = spoken.e164(text, region)
    if number is None:
        return Dropped.NO_WHOLE_NUMBER
    return number if any(spoken.number_is_said(number, each) for each in said) else Dropped.NOT_SAID


def _numbers_are_said(text: str, transcript: Transcript) -> bool:
    """A long number in free text is one that was said; separators between its digits do not hide it."""
    joined = re.sub(r"(?<=\d)[\s().\-/]+(?=\d)", "", text)
    numbers = LONG_NUMBER.findall(joined)
    said = spoken.digits(" ".join(line.text for line in transcript.lines if line.text)) if numbers else ""
    return all(number in said for number in numbers)


def _tidy(text: str, longest: int) -> str:
    """One line without control characters or characters that turn or hide text, cut at a length, if possible between two words."""
    kept = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    seen = "".join(c for c in kept if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn"))
    line = " ".join(seen.split())
    return line if len(line) <= longest else line[: longest + 1].rpartition(" ")[0] or line[:longest]


def _confidence(confidence: float) -> float:
    return min(1.0, max(0.0, float(confidence))) if math.isfinite(confidence) else 0.0


# ---- values with parts


def _course(judgement: Judgement, transcript: Transcript) -> Judgement:
    """The moods that have an utterance of the caller's to stand on, in the order of the call."""
    moods = judgement.value if isinstance(judgement.value, tuple) else ()
    allowed = {mood.value for mood in Sentiment}
    found: dict[str, str] = {}
    for key, mood in zip(judgement.evidence, moods, strict=False):
        lines = [line for line in transcript.of_key(key) if line.speaker == CALLER and line.text]
        if lines and mood in allowed and not _is_order(key, transcript):
            found.setdefault(key, mood)
    ordered = sorted(found, key=lambda key: transcript.of_key(key)[0].number)[:MOST_EVIDENCE]
    return replace(judgement, evidence=tuple(ordered), value=tuple(found[key] for key in ordered))


def _reasoned(judgement: Judgement, transcript: Transcript, lists: Lists) -> Judgement:
    """The reasons that hold, and no higher a score than they count (rule 4)."""
    reasons = _reasons(judgement.reasons, transcript)
    if judgement.field is Field.ESCALATION:
        if judgement.value is not True:
            return replace(judgement, reasons=())
        reasons = [reason for reason in reasons if reason.name in {concern.value for concern in Concern}]
        return replace(judgement, reasons=tuple(reasons), evidence=_cited(reasons))
    reasons = _within_lines([reason for reason in reasons if lists.rubric.points(reason.name) is not None], lists)
    most = lists.rubric.score(reason.name for reason in reasons)
    if most is None or type(judgement.value) is not int:
        return replace(judgement, reasons=(), evidence=_cited(reasons))
    return replace(judgement, value=max(0, min(most, judgement.value)), reasons=tuple(reasons), evidence=_cited(reasons))


def _reasons(reasons: Iterable[Reason], transcript: Transcript) -> list[Reason]:
    """Each reason once, with those of its lines that are the caller's and no order to us."""
    found: dict[str, Reason] = {}
    for reason in reasons:
        keys = [
            key
            for key in _known(reason.evidence, transcript)
            if any(line.speaker == CALLER for line in transcript.of_key(key)) and not _is_order(key, transcript)
        ]
        if keys:
            found.setdefault(reason.name, replace(reason, evidence=tuple(keys), because=_tidy(reason.because, LONGEST_BECAUSE)))
    return list(found.values())


def _within_lines(reasons: Sequence[Reason], lists: Lists) -> list[Reason]:
    """At most PER_LINE reasons for a sale rest on one line, those with the most points; what speaks against it always counts."""
    used: Counter[str] = Counter()
    kept = []
    for reason in sorted(reasons, key=lambda reason: (-(lists.rubric.points(reason.name) or 0), reason.name)):
        if (lists.rubric.points(reason.name) or 0) <= 0:
            kept.append(reason)
            continue
        free = next((key for key in reason.evidence if used[key] < PER_LINE), None)
        if free is not None:
            used[free] += 1
            kept.append(reason)
    return kept


def _cited(reasons: Iterable[Reason]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for reason in reasons for key in reason.evidence))[:MOST_EVIDENCE]
