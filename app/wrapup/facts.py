"""What the analysis after a call is made of: the transcript as it is read, one judgement, and all judgements of one reading.

Rule 1: of the agent's words only those that were heard are in the transcript; what the caller never heard is evidence of nothing.
Rule 2: lines are numbered from 1 for whoever reads them; evidence is kept by the utterance's own key, which outlives the numbers.
Rule 3: a key that comes twice (its epoch is not known here) stands for all its lines.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol, Self

import phonenumbers

from app.call.disposition import Utterance
from app.settings import Settings
from app.wrapup.rubric import RUBRIC, Rubric, read_rubric

CALLER, AGENT = "caller", "agent"


class Field(StrEnum):
    """The judged columns. Those of SLOTS are a second reading of what the agent noted during the call."""

    SUMMARY = "summary"
    SENTIMENT = "sentiment"
    SENTIMENT_COURSE = "sentiment_course"
    """One mood for each utterance of the evidence, in the order of the call."""
    INTENT = "intent"
    LEAD_SCORE = "lead_score"
    """0 to 100, with reasons."""
    URGENCY = "urgency"
    ESCALATION = "escalation"
    """Whether a person of ours should look at this call, with reasons."""
    DISPOSITION = "disposition"
    NEXT_ACTION = "next_action"
    NAME = "name"
    CALLBACK_NUMBER = "callback_number"
    """In E.164."""
    REASON = "reason"
    """As said, word for word."""


SLOTS = (Field.NAME, Field.CALLBACK_NUMBER, Field.REASON, Field.URGENCY)


class Urgency(StrEnum):
    """How soon somebody must act."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Concern(StrEnum):
    """Why a person of ours should look at a call. Closed, so that it can stand in a column that is not private."""

    DANGER = "danger"
    """Somebody may be hurt, or damage is being done now."""
    THREAT = "threat"
    """A lawyer, the police, a public complaint."""
    WANTS_A_PERSON = "wants_a_person"
    """The caller asked for a person and did not then let the assistant serve them."""
    LEFT_ANGRY = "left_angry"
    FAILED_AGAIN = "failed_again"
    """The caller has called about the same thing before, in vain."""


class Dropped(StrEnum):
    """Why a proposed value is not in the row."""

    WRONG_KIND = "wrong_kind"
    """Not text, a number or yes and no, as its field asks."""
    NO_EVIDENCE = "no_evidence"
    """No line of the transcript is cited, or none that exists and has words."""
    NOT_FROM_THE_CALLER = "not_from_the_caller"
    """Only our own words are cited, for something that only the caller can say."""
    ORDER_TO_US = "order_to_us"
    """It rests on words that tell the analysis what to write."""
    NOT_IN_THE_LIST = "not_in_the_list"
    UNSUPPORTED = "unsupported"
    """A score or a flag without a single reason that holds."""
    NOT_SAID = "not_said"
    """The value does not occur in the cited lines."""
    NO_WHOLE_NUMBER = "no_whole_number"
    """The digits are no telephone number that can be dialled from anywhere."""
    NOT_IN_LEDGER = "not_in_ledger"
    """It says that something was done, and the ledger of what was done does not have it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance, as the analysis reads it."""

    number: int
    """From 1."""
    speaker: str
    """`caller` or `agent`."""
    text: str | None = field(repr=False)
    """As heard. None for a caller whose words were never transcribed."""
    key: str
    interrupted: bool = False


@dataclass(frozen=True)
class Transcript:
    """Who said what, in the order of the call."""

    lines: tuple[Line, ...] = field(repr=False)

    @classmethod
    def of(cls, utterances: Iterable[Utterance]) -> Self:
        """The transcript of utterances in spoken order. An agent's utterance of which nothing was heard is left out."""
        spoken = [(said, (said.heard or "").strip() or None) for said in utterances]
        audible = [(said, text) for said, text in spoken if text or said.speaker == CALLER]
        return cls(
            tuple(
                Line(number, said.speaker, text, said.key, said.interrupted) for number, (said, text) in enumerate(audible, start=1)
            )
        )

    def of_key(self, key: str) -> tuple[Line, ...]:
        """The lines of an utterance; empty if there is none."""
        return self._by_key.get(key, ())

    def key_of(self, number: int) -> str | None:
        """The utterance of a line's number."""
        return self.lines[number - 1].key if 1 <= number <= len(self.lines) else None

    def after(self, line: Line) -> Line | None:
        """The next line that has words."""
        return next((later for later in self.lines[line.number :] if later.text), None)

    def said_by(self, speaker: str) -> Iterator[tuple[Line, str]]:
        """The lines of one party that have words, with the words."""
        return ((line, line.text) for line in self.lines if line.speaker == speaker and line.text)

    @cached_property
    def caller_spoke(self) -> bool:
        """Whether there is a word of the caller's to judge."""
        return any(True for _ in self.said_by(CALLER))

    @cached_property
    def _by_key(self) -> dict[str, tuple[Line, ...]]:
        found: dict[str, tuple[Line, ...]] = {}
        for line in self.lines:
            found[line.key] = (*found.get(line.key, ()), line)
        return found


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that speaks for a score or a flag."""

    name: str
    """A criterion of the rubric, or a `Concern`."""
    because: str = field(default="", repr=False)
    evidence: tuple[str, ...] = ()
    """Keys of utterances."""


Value = str | int | bool | tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One judged value with what it rests on."""

    field: Field
    value: Value = dataclasses.field(repr=False)  # `field` is its own attribute here
    evidence: tuple[str, ...] = ()
    """Keys of utterances. Empty when the value is None."""
    confidence: float = 0.0
    """0 to 1, as the analyzer sees it."""
    analyzer: str
    model: str | None = None
    prompt_version: str
    reasons: tuple[Reason, ...] = ()
    """Of a lead score and of an escalation."""
    dropped: Dropped | None = None
    """Why a value that was proposed is None now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What the business allows a judgement to say, and where its numbers are at home."""

    dispositions: tuple[str, ...]
    intents: tuple[str, ...]
    region: str = "US"
    """Two letters, as the telephone library names regions."""
    rubric: Rubric = RUBRIC

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The lists of a configuration.

        Raises:
            BadSetting: the file of the rubric is wrong.
        """
        return cls(
            dispositions=settings.dispositions,
            intents=settings.intents,
            region=phonenumbers.region_code_for_country_code(int(settings.default_country_code)),
            rubric=RUBRIC if settings.rubric_file is None else read_rubric(settings.rubric_file),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """One reading of one call: a judgement for every field, also for those of which nothing is known."""

    judgements: tuple[Judgement, ...] = field(repr=False)
    analyzer: str
    model: str | None = None
    prompt_version: str
    tokens_in: int = 0
    tokens_out: int = 0

    def __getitem__(self, which: Field) -> Judgement:
        """The judgement of a field."""
        return next(judgement for judgement in self.judgements if judgement.field is which)

    def value(self, which: Field) -> Value:
        """The value of a field."""
        return self[which].value

    @property
    def dropped(self) -> Sequence[Judgement]:
        """What was proposed and not admitted."""
        return [judgement for judgement in self.judgements if judgement.dropped is not None]


class Analyzer(Protocol):
    """Whoever reads transcripts: the rule set, or a model."""

    name: str

    async def analyze(self, transcript: Transcript) -> Analysis:
        """Judge one call.

        Raises:
            AnalysisFault: the analyzer could not.
        """
        ...

    async def aclose(self) -> None:
        """Give back what it holds. `contextlib.aclosing` does it."""
        ...
