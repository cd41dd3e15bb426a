"""The rule set: an analysis without a key, by the phrases of `phrases` and nothing else. `analyzer = "rules"`.

It is here so that a row is never without a reading, and so that everybody can see why it says what it says. It understands English
phrases, no irony, no context: its own figures on written calls stand in the README, and a model does better.

Rule 1: every value rests on the line whose phrase was found, and goes through the same door as a model's (`admission`).
Rule 2: an order to the analysis is passed over (`hostile`).
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from app.store.tables import Sentiment
from app.wrapup import phrases, spoken
from app.wrapup.admission import analysis
from app.wrapup.facts import AGENT, CALLER, Analysis, Concern, Field, Judgement, Line, Lists, Reason, Transcript, Urgency, Value
from app.wrapup.hostile import is_order_to_us
from app.wrapup.phrases import says

SURE, LIKELY, GUESSED = 0.9, 0.6, 0.3
SHORTEST_MATTER = 4
"""Words that a line must have to be what a call is about."""
LONGEST_QUOTE = 250
SELLING = ("buy", "book_appointment")
NAME = r"((?:(?:Mr|Mrs|Ms|Dr)\.? )?[A-ZÀ-ÖØ-Þ][\w'’-]+(?:[ -][A-ZÀ-ÖØ-Þ][\w'’-]+){0,2})"
LEAD_IN = r"(?i:my name is|name's|the name is|this is|it's|i'm|i am|here is)"
INTRODUCED = re.compile(rf"\b{LEAD_IN} {NAME}(?=[\s.,!?]|$)")
NAMED_HERE = re.compile(rf"{NAME} here\b")
FIRST_IN_ANSWER = re.compile(rf"(?:^|[.,] |\b{LEAD_IN} |\bfor me, ){NAME}(?=[\s.,!?]|$)")


class RulesAnalyzer:
    """Reads by phrases. Needs no key, no network and no time worth naming."""

    name = "rules"

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        tables = [Path(module).read_bytes() for module in (phrases.__file__, __file__)]
        self.version = f"rules-1@{hashlib.sha256(b''.join(tables)).hexdigest()[:12]}"

    async def analyze(self, transcript: Transcript) -> Analysis:
        """Judge one call. It cannot fail."""
        return self.read(transcript)

    async def aclose(self) -> None:
        """It holds nothing."""

    def read(self, transcript: Transcript) -> Analysis:
        """As `analyze`, without waiting."""
        reading = _Reading(transcript, self._lists, self.name, self.version)
        proposed = reading.judgements() if transcript.caller_spoke else []
        return analysis(proposed, transcript, self._lists, analyzer=self.name, prompt_version=self.version)


class _Reading:
    def __init__(self, transcript: Transcript, lists: Lists, analyzer: str, version: str) -> None:
        self._transcript, self._lists, self._analyzer, self._version = transcript, lists, analyzer, version
        self._caller = [(line, text) for line, text in transcript.said_by(CALLER) if not is_order_to_us(text)]
        self._agent = list(transcript.said_by(AGENT))
        self._wrong_number = self._first(self._caller, phrases.WRONG_NUMBER) or self._first(self._agent, phrases.WRONG_NUMBER)
        self._matter = None if self._wrong_number else self._what_it_is_about()

    def judgements(self) -> list[Judgement]:
        """Everything that a phrase was found for."""
        disposition = self._disposition()
        intent = self._intent()
        number = self._callback_number()
        return [
            *self._slots(number),
            *([intent] if intent else []),
            *([disposition] if disposition else []),
            *self._sentiment(),
            *self._urgency(),
            *self._escalation(disposition),
            *self._lead(intent, disposition, number),
            *self._words(disposition),
        ]

    def _judge(
        self, field: Field, value: Value, lines: Iterable[Line], confidence: float, reasons: Iterable[Reason] = ()
    ) -> Judgement:
        version = f"{self._version}+{self._lists.rubric.version}" if field is Field.LEAD_SCORE else self._version
        return Judgement(
            field=field,
            value=value,
            evidence=tuple(dict.fromkeys(line.key for line in lines)),
            confidence=confidence,
            analyzer=self._analyzer,
            prompt_version=version,
            reasons=tuple(reasons),
        )

    @staticmethod
    def _first(said: Iterable[tuple[Line, str]], wanted: Iterable[str]) -> Line | None:
        return next((line for line, text in said if says(text, wanted)), None)

    def _before(self, line: Line) -> str:
        """What the agent had said last."""
        return next((text for earlier, text in reversed(self._agent) if earlier.number < line.number), "")

    # ---- what it is about

    def _what_it_is_about(self) -> tuple[Line, str] | None:
        """The caller's first words that are long enough to be a matter and do not answer a question for name or number; a wish to
        speak to a person and a question about the assistant only if there is nothing else.
        """
        otherwise = None
        for line, text in self._caller:
            asked = self._before(line)
            if says(asked, phrases.ASKED_NAME) or (says(asked, phrases.ASKED_NUMBER) and "?" in asked and spoken.digits(text)):
                continue
            if len(spoken.plain(text).split()) < SHORTEST_MATTER or spoken.plain(text) in phrases.NOTHING_YET:
                continue
            if not says(text, (*phrases.ABOUT_US, *phrases.CONCERNS[Concern.WANTS_A_PERSON])):
                return line, text
            otherwise = otherwise or (line, text)
        return otherwise

    def _intent(self) -> Judgement | None:
        if self._wrong_number:
            return self._judge(Field.INTENT, "wrong_number", [*self._caller_near(self._wrong_number), self._wrong_number], SURE)
        for name, wanted in phrases.INTENTS.items():
            if self._matter and (line := self._first(self._caller, wanted)):
                if name == "book_appointment" and self._is_new():
                    return self._judge(Field.INTENT, "buy", [line], LIKELY)
                return self._judge(Field.INTENT, name, [line], LIKELY)
        if self._matter:
            return self._judge(Field.INTENT, "buy" if self._is_new() else "other", [self._matter[0]], GUESSED)
        return None

    def _is_new(self) -> bool:
        return bool(self._first(self._agent, phrases.NEW_PROJECTS))

    def _caller_near(self, line: Line) -> list[Line]:
        """The caller's words at or before a line, to stand beside what the agent said."""
        return [said for said, _ in self._caller if said.number <= line.number][-1:]

    # ---- what became of it

    def _disposition(self) -> Judgement | None:
        def say(word: str, line: Line, confidence: float) -> Judgement:
            return self._judge(Field.DISPOSITION, word, [line], confidence)

        if self._wrong_number:
            return say("wrong_number", self._wrong_number, SURE)
        last = self._transcript.lines[-1].number
        for line, text in reversed(self._agent):
            if says(text, phrases.PUT_THROUGH) and line.number >= last - 1:
                return say("transferred", line, SURE)
            if says(text, phrases.BOOKED) and not says(text, phrases.NOT_YET_BOOKED):
                return say("appointment_booked", line, SURE)
        for word, ours, theirs in (
            ("callback_requested", phrases.CALL_BACK, phrases.CALL_ME),
            ("sales_lead", phrases.LEAD_NOTED, ()),
            ("message_taken", phrases.PASSED_ON, ()),
        ):
            if told := self._first(self._agent, ours) or self._first(self._caller, theirs):
                return say(word, told, LIKELY)
        if told := self._first(self._caller, phrases.NOT_INTERESTED):
            return say("not_interested", told, LIKELY)
        if self._matter and says(self._matter[1], phrases.QUESTION) and self._transcript.after(self._matter[0]):
            return say("information_given", self._matter[0], GUESSED)
        return say("other", self._caller[-1][0], GUESSED) if self._caller else say("other", self._transcript.lines[-1], GUESSED)

    # ---- how the caller was

    def _moods(self) -> list[tuple[Line, Sentiment]]:
        return [
            (
                line,
                Sentiment.NEGATIVE
                if says(text, phrases.NEGATIVE)
                else Sentiment.POSITIVE
                if says(text, phrases.POSITIVE)
                else Sentiment.NEUTRAL,
            )
            for line, text in self._caller
        ]

    def _sentiment(self) -> list[Judgement]:
        """The last mood that was not neutral, and all of them in a row."""
        moods = self._moods()
        if not moods:
            return []
        line, mood = next((each for each in reversed(moods) if each[1] is not Sentiment.NEUTRAL), moods[-1])
        confidence = GUESSED if mood is Sentiment.NEUTRAL else LIKELY
        course = self._judge(
            Field.SENTIMENT_COURSE, tuple(mood.value for _, mood in moods), [line for line, _ in moods], confidence
        )
        return [self._judge(Field.SENTIMENT, mood.value, [line], confidence), course]

    def _urgency(self) -> list[Judgement]:
        if self._matter is None:
            return []
        if line := self._first(self._caller, phrases.NO_HURRY):
            return [self._judge(Field.URGENCY, Urgency.LOW.value, [line], LIKELY)]
        if line := self._first(self._caller, phrases.HURRY):
            return [self._judge(Field.URGENCY, Urgency.HIGH.value, [line], LIKELY)]
        if line := self._first(self._agent, phrases.HIGH_FOR_US):
            return [self._judge(Field.URGENCY, Urgency.HIGH.value, [self._matter[0], line], LIKELY)]
        return [self._judge(Field.URGENCY, Urgency.NORMAL.value, [self._matter[0]], GUESSED)]

    def _escalation(self, disposition: Judgement | None) -> list[Judgement]:
        served = disposition is not None and disposition.value == "appointment_booked"
        reasons = []
        for name, wanted in phrases.CONCERNS.items():
            line = self._first(self._caller, wanted)
            if line and not (name == Concern.WANTS_A_PERSON and served):
                reasons.append(Reason(name, evidence=(line.key,)))
        moods = self._moods()
        if moods and moods[-1][1] is Sentiment.NEGATIVE and self._transcript.lines[-1] == moods[-1][0] and not self._wrong_number:
            reasons.append(Reason(Concern.LEFT_ANGRY.value, evidence=(moods[-1][0].key,)))
        lines = [line for line, _ in self._caller]
        return [self._judge(Field.ESCALATION, bool(reasons), lines, LIKELY if reasons else GUESSED, reasons)] if lines else []

    # ---- a lead

    def _lead(self, intent: Judgement | None, disposition: Judgement | None, number: Judgement | None) -> list[Judgement]:
        """Criteria by phrase, and those that follow from what became of the call. Only where something was to be sold."""
        if intent is None or intent.value not in SELLING:
            return []
        found = [Reason("wants_work", evidence=intent.evidence)]
        for name, wanted in phrases.CRITERIA.items():
            if line := self._first(self._caller, wanted):
                found.append(Reason(name, evidence=(line.key,)))
        if disposition is not None and disposition.value in ("appointment_booked", "callback_requested", "sales_lead"):
            agreed = [line for line, _ in self._caller if line.key not in (number.evidence if number else ())]
            found.append(Reason("next_step", evidence=tuple(line.key for line in agreed[-3:])))
        if number is not None:
            found.append(Reason("reachable", evidence=number.evidence))
        score = self._lists.rubric.score(reason.name for reason in found)
        return [self._judge(Field.LEAD_SCORE, score, (), LIKELY, found)]

    # ---- the slots, read a second time

    def _slots(self, number: Judgement | None) -> list[Judgement]:
        found = [number] if number else []
        if name := self._name():
            found.append(name)
        if self._matter:
            line, text = self._matter
            found.append(self._judge(Field.REASON, _quote(text), [line], LIKELY))
        return found

    def _name(self) -> Judgement | None:
        """What the caller answered when asked, or said of themselves; the first of them."""
        for line, whole in self._caller:
            text = spoken.CUT_OFF.sub("", whole)
            patterns: Sequence[re.Pattern[str]] = (INTRODUCED, NAMED_HERE)
            if says(self._before(line), phrases.ASKED_NAME):
                patterns = (INTRODUCED, NAMED_HERE, FIRST_IN_ANSWER)
            for pattern in patterns:
                for match in pattern.finditer(text):
                    words = [word for word in match[1].split() if spoken.plain(word) not in spoken.TITLES]
                    if words and spoken.plain(words[0]) not in phrases.NO_NAMES and not all(len(word) == 1 for word in words):
                        return self._judge(Field.NAME, " ".join(words), [line], LIKELY)
        return None

    def _callback_number(self) -> Judgement | None:
        """The last number that was read back and accepted; else the last whole number that the caller said."""
        said = list(self._numbers(self._caller))
        for line, number in reversed(list(self._numbers(self._agent))):
            answer = self._transcript.after(line)
            if answer and answer.speaker == CALLER and answer.text and says(answer.text, phrases.ACCEPTED):
                heard = [spoken_line for spoken_line, same in said if same == number]
                return self._judge(Field.CALLBACK_NUMBER, number, [*heard[-1:], line, answer], SURE)
        return self._judge(Field.CALLBACK_NUMBER, said[-1][1], [said[-1][0]], LIKELY) if said else None

    def _numbers(self, lines: Iterable[tuple[Line, str]]) -> Iterable[tuple[Line, str]]:
        for line, text in lines:
            for run in spoken.runs(text):
                if number := spoken.e164(run, self._lists.region):
                    yield line, number

    # ---- in words

    def _words(self, disposition: Judgement | None) -> list[Judgement]:
        """A summary made of quotes, and what is to be done by the disposition's own word."""
        found = []
        lines: list[tuple[Line, str]] = [self._matter] if self._matter else list(self._transcript.said_by(CALLER))[:1]
        came_of_it = self._lines(disposition.evidence) if disposition else []
        told = [*lines, *(each for each in came_of_it if each[0] not in [line for line, _ in lines])]
        if told:
            parts = [f"{'The caller' if line.speaker == CALLER else 'The agent'} said: “{_quote(text)}”" for line, text in told]
            found.append(self._judge(Field.SUMMARY, " ".join(parts), [line for line, _ in told], GUESSED))
        task = TASKS.get(str(disposition.value)) if disposition else None
        if task and came_of_it and self._matter:
            about = _quote(self._matter[1] if task.endswith("about") else came_of_it[0][1])
            found.append(self._judge(Field.NEXT_ACTION, f"{task}: “{about}”", [self._matter[0], came_of_it[0][0]], GUESSED))
        return found

    def _lines(self, keys: Iterable[str]) -> list[tuple[Line, str]]:
        return [(line, line.text) for key in keys for line in self._transcript.of_key(key) if line.text]


TASKS = {
    "appointment_booked": "Keep the appointment",
    "callback_requested": "Call the caller back about",
    "sales_lead": "Get in touch about",
    "message_taken": "Pass on the message about",
}


def _quote(text: str) -> str:
    """A text as said, cut between two words."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_QUOTE else line[: LONGEST_QUOTE + 1].rpartition(" ")[0]
