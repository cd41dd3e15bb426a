"""What a model is asked to answer: a strict JSON schema, and how an answer becomes proposals.

Rule 1: the schema is as strict as the provider allows (every key required, no other, closed lists as enums; OpenAI's guide to
structured outputs); reading is not. A word that is not in its list, a line that does not exist and a number out of its range cost
the one value and not the whole answer: the admission drops them, so that a caller who talks a model into nonsense gains nothing and
costs us nothing. What is no JSON of this shape at all is `AnswerUnreadable`.
Rule 2: evidence stands before the value that rests on it, for keys are generated in this order.
Rule 3: no score is asked for. The model names criteria; the rubric counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from app.store.tables import Sentiment
from app.wrapup.facts import Concern, Judgement, Lists, Reason, Transcript, Urgency, Value
from app.wrapup.facts import Field as Column
from app.wrapup.faults import AnswerUnreadable

NAME = "call_analysis"
MOST_PARTS = 200
"""Criteria, concerns or moods that are looked at in one answer."""


class _Shape(BaseModel):
    # Keys that nobody asked for are not read; the schema forbids them all the same.
    model_config = ConfigDict(strict=True, extra="ignore", json_schema_extra={"additionalProperties": False})


def _word(words: Iterable[str], description: str = "") -> Any:
    """Text that the schema holds to a list (rule 1)."""
    told = {"description": description} if description else {}
    return Annotated[str, Field(json_schema_extra={"enum": list(words), **told})]


_LINES = (list[int], ...)
_CONFIDENCE = (float, ...)


def _judged(name: str, value: Any) -> Any:
    return create_model(name, __base__=_Shape, lines=_LINES, value=(value, ...), confidence=_CONFIDENCE)


def shape(lists: Lists) -> type[BaseModel]:
    """The shape of an answer, for the business's lists."""
    criteria = "; ".join(f"{criterion.name}: {criterion.meaning}" for criterion in lists.rubric.criteria)
    criterion = _word((each.name for each in lists.rubric.criteria), criteria)
    because: Any = (Annotated[str, Field(description="half a sentence")], ...)
    lead = create_model("LeadReason", __base__=_Shape, lines=_LINES, because=because, criterion=(criterion, ...))
    concern = create_model("Concern", __base__=_Shape, lines=_LINES, because=because, concern=(_word(Concern), ...))
    mood = create_model("Mood", __base__=_Shape, line=(int, ...), mood=(_word(Sentiment), ...))
    text = _judged("Text", str | None)
    return create_model(
        "CallAnalysis",
        __base__=_Shape,
        name=(text, ...),
        callback_number=(text, ...),
        reason=(text, ...),
        intent=(_judged("Intent", _word(lists.intents) | None), ...),
        sentiment_course=(create_model("Course", __base__=_Shape, moods=(list[mood], ...), confidence=_CONFIDENCE), ...),  # type: ignore[valid-type]
        sentiment=(_judged("MoodOfTheCall", _word(Sentiment) | None), ...),
        urgency=(_judged("Urgency", _word(Urgency) | None), ...),
        lead=(create_model("Lead", __base__=_Shape, reasons=(list[lead], ...), confidence=_CONFIDENCE), ...),  # type: ignore[valid-type]
        escalation=(
            create_model(
                "Escalation",
                __base__=_Shape,
                concerns=(list[concern], ...),  # type: ignore[valid-type]
                lines=_LINES,
                value=(bool | None, ...),
                confidence=_CONFIDENCE,
            ),
            ...,
        ),
        disposition=(_judged("Disposition", _word(lists.dispositions) | None), ...),
        next_action=(text, ...),
        summary=(text, ...),
    )


def schema(answer: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a shape. Titles, which tell a model nothing, are left out."""
    untitled: dict[str, Any] = _untitled(answer.model_json_schema())
    return untitled


def _untitled(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {key: _untitled(value) for key, value in part.items() if not (key == "title" and isinstance(value, str))}
    return [_untitled(value) for value in part] if isinstance(part, list) else part


def proposals(
    text: str, answer: type[BaseModel], transcript: Transcript, lists: Lists, *, analyzer: str, model: str, prompt_version: str
) -> list[Judgement]:
    """What an answer proposes; nothing of it is admitted yet.

    Raises:
        AnswerUnreadable: it is no JSON of the shape.
    """
    said = _read(text, answer)
    if said is None:
        raise AnswerUnreadable("not of our shape")
    judge = partial(Judgement, analyzer=analyzer, model=model, prompt_version=prompt_version)

    def keys(numbers: Sequence[int]) -> tuple[str, ...]:
        return tuple(key for number in numbers[:MOST_PARTS] if (key := transcript.key_of(number)) is not None)

    def plain(which: Column, value: Value, part: Mapping[str, Any], reasons: Sequence[Reason] = ()) -> Judgement:
        evidence = keys(part["lines"])
        return judge(field=which, value=value, evidence=evidence, confidence=part["confidence"], reasons=tuple(reasons))

    def reasons(parts: Sequence[Mapping[str, Any]], name: str) -> list[Reason]:
        return [Reason(part[name], part["because"], keys(part["lines"])) for part in parts[:MOST_PARTS]]

    found = [plain(which, said[which]["value"], said[which]) for which in _PLAIN]
    escalation, lead, course = said["escalation"], said["lead"], said["sentiment_course"]["moods"][:MOST_PARTS]
    found.append(plain(Column.ESCALATION, escalation["value"], escalation, reasons(escalation["concerns"], "concern")))
    moods = [(key, part["mood"]) for part in course if (key := transcript.key_of(part["line"])) is not None]
    found.append(
        judge(
            field=Column.SENTIMENT_COURSE,
            value=tuple(mood for _, mood in moods) or None,
            evidence=tuple(key for key, _ in moods),
            confidence=said["sentiment_course"]["confidence"],
        )
    )
    criteria = reasons(lead["reasons"], "criterion")
    found.append(
        judge(
            field=Column.LEAD_SCORE,
            value=lists.rubric.score(reason.name for reason in criteria),
            confidence=lead["confidence"],
            reasons=tuple(criteria),
            prompt_version=f"{prompt_version}+{lists.rubric.version}",
        )
    )
    return found


def _read(text: str, answer: type[BaseModel]) -> dict[str, Any] | None:
    try:
        return answer.model_validate_json(text).model_dump()
    except ValidationError:
        return None


_PLAIN = (
    *(Column.SUMMARY, Column.SENTIMENT, Column.INTENT, Column.URGENCY, Column.DISPOSITION, Column.NEXT_ACTION),
    *(Column.NAME, Column.CALLBACK_NUMBER, Column.REASON),
)
