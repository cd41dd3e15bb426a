"""The row as others get it: one shape for the webhook, the export and whoever asks, with its JSON Schema (`schemas/row-1.json`).

Rule 1: a version is a promise. Within it fields are added at most; none goes, and none changes its meaning. What a receiver does
not know, it passes over.
Rule 2: names are those of the columns. What only we need (epochs, streams, attempts, hashes of numbers) does not leave the house,
and of the transcript no more does than the words that a value rests on.
Rule 3: making a row fails for no finished row that the tables can hold: a delivery is written in the row's own transaction. A
word that is in no closed list is NULL here.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.call.disposition import EndReason, Outcome
from app.settings import AudioPathName
from app.store.after_tables import Source
from app.store.tables import AnalysisState, Channel, Direction, Sentiment, Speaker
from app.wrapup.facts import Urgency

VERSION = 1
COMMITTED = Path(__file__).parent / "schemas" / f"row-{VERSION}.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Shape(BaseModel):
    """Every field is always there; what is not known is null."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null")


class Evidence(_Shape):
    """An utterance that a value rests on."""

    utterance: str
    """The utterance's name within the call."""
    at_ms: Count
    """When it began, in milliseconds since `started_at`."""
    speaker: Speaker
    heard: str | None
    """The words: the caller's as they were transcribed, the agent's as far as they were heard. Null: never transcribed."""


class Reason(_Shape):
    """One thing that speaks for a score or for an escalation."""

    name: str
    """A criterion of the rubric, or the name of a concern."""
    because: str | None
    """The analyzer's own words, if it gave any."""
    evidence: list[Evidence]


class JudgedValue(_Shape):
    """The judgement that is in force for a field. The field itself stands beside `judged`, or among `slots`."""

    value: str | int | float | bool | list[str] | None
    """Null: judged, and nothing of it is in the transcript."""
    source: Source
    """`operator` before `machine`; `agent` where no reading stands."""
    confidence: Share | None
    """As the analyzer sees it. Null for a person's word, and for the agent's."""
    analyzer: str | None
    """`openai` or `rules`; null where no analyzer said it."""
    model: str | None
    """The analyzer's model."""
    prompt_version: str | None
    """The analyzer's prompt or rules, by name and hash."""
    reasons: list[Reason]
    evidence: list[Evidence]
    """What the value rests on; a value of a machine's has at least one utterance."""
    at: AwareDatetime | None
    """When it was said."""


class SecondReading(_Shape):
    """What the analysis after the call read for a slot, on its own."""

    value: str | None
    confidence: Share | None
    evidence: list[Evidence]


class NotedSlot(_Shape):
    """What the agent had noted for a slot that a person has corrected since."""

    value: str | None
    confirmed: bool


class Slot(_Shape):
    """One thing learnt from the caller, with where it came from."""

    value: str | None
    confirmed: bool
    """It was read back to the caller, the caller was heard again, and it was noted as confirmed."""
    source: Source
    """Whose value stands: the agent's of the call, the second reading's (`machine`), or a person's (`operator`)."""
    agent: str | None
    """The name of the agent that noted it."""
    utterance: Evidence | None
    """The caller's utterance in which the agent heard it."""
    second_reading: SecondReading | None
    noted: NotedSlot | None
    """Only where a person has corrected it."""


class Row(_Shape):
    """One phone call, finished."""

    version: Literal[1]
    """Of this shape. Fields may be added within a version; none is taken away and none changes its meaning."""
    call_id: str
    """The call's name for ever: the key to store the row under."""
    carrier_call_sid: str | None
    """The carrier's name for the call."""
    revision: Annotated[int, Field(ge=1)]
    """Counts the changes of the finished row. Of two with the same `call_id` the higher one stands."""

    channel: Channel
    direction: Direction
    from_number: str | None
    """In E.164 as the carrier gave it. Null: withheld."""
    to_number: str | None
    forwarded_from: str | None
    caller_attestation: str | None
    """The carrier's word on whether the caller's number is the caller's own (STIR/SHAKEN)."""

    started_at: AwareDatetime
    answered_at: AwareDatetime | None
    ended_at: AwareDatetime
    finished_at: AwareDatetime
    """When the row was finished; its columns were judged at `analyzed_at`."""
    analyzed_at: AwareDatetime | None
    updated_at: AwareDatetime
    duration_ms: Count | None

    agent: str
    """Who had the call last."""
    agent_path: list[str]
    """Everybody who had it, in order."""
    transfer_to: str | None
    """The name, in the directory, of the person to be put through to."""

    outcome: Outcome
    end_reason: EndReason
    carrier_status: str | None
    """The carrier's own last word on the call."""
    disposition: str | None
    """A word of the business's list."""
    intent: str | None
    """A word of the business's list."""
    summary: str | None
    next_action: str | None
    sentiment: Sentiment | None
    """The caller's."""
    sentiment_course: list[Sentiment] | None
    """The caller's mood over the call, one word for each utterance of the evidence of `judged.sentiment_course`."""
    lead_score: Annotated[int, Field(ge=0, le=100)] | None
    """Null: the call is about no sale."""
    urgency: Urgency | None
    escalated: bool
    """A person of the business should look at this call."""
    escalation_reason: str | None
    """The names of the concerns, joined by a comma; `operator` where a person said so."""
    slots: dict[str, Slot]
    """By name: `name`, `callback_number`, `reason`, and what else the agents ask for."""

    needs_review: bool
    """Somebody should compare: see `review_reasons`."""
    review_reasons: dict[str, str]
    """Names of fields with why, such as `values_differ`."""
    reviewed_at: AwareDatetime | None

    analysis: AnalysisState
    analysis_fault: str | None
    """Why the analysis failed; a short code."""
    analyzer: str | None
    """Whose reading stands: `openai` or `rules`. Its model and prompt stand beside each value in `judged`."""
    judged: dict[str, JudgedValue]
    """Every judged field by name, with what its value rests on."""

    turns: Count
    barge_ins: Count
    """How often the caller took the floor while the agent could be heard."""
    latency_p50_ms: Count | None
    """From the caller's end of speech to the first sound of the answer that was acknowledged as heard."""
    latency_p95_ms: Count | None
    usage: dict[str, dict[str, int | float]]
    """Tokens and seconds, by provider."""
    tokens_in: Count | None
    tokens_out: Count | None
    cost_usd: Annotated[float, Field(ge=0)] | None
    """Of the conversation's model, by list prices of `prices_date`. Null where a part of it has no price."""
    prices_date: date | None
    carrier_duration_s: Count | None
    carrier_price: Annotated[float, Field(ge=0)] | None
    """What the carrier charges, in `carrier_price_unit`."""
    carrier_price_unit: str | None
    model: str | None
    """What answered the call."""
    prompt_version: str | None
    """The version of the agent's file."""
    audio_path: AudioPathName | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The row from what `Calls.row()` gives of a finished call."""
        said = _Said(row.get("utterances") or ())
        made = {name: row.get(name) for name in cls.model_fields}
        course = row.get("sentiment_course")
        made |= {
            "version": VERSION,
            "sentiment_course": course if isinstance(course, list) and all(_one_of(Sentiment, mood) for mood in course) else None,
            "urgency": _one_of(Urgency, row.get("urgency")),
            "usage": _usage(row.get("usage")),
            "review_reasons": {str(name): str(why) for name, why in _mapping(row.get("review_reasons")).items()},
            "slots": {str(name): _slot(_mapping(slot), said) for name, slot in _mapping(row.get("slots")).items()},
            "judged": {str(name): _judged(_mapping(one), said) for name, one in _mapping(row.get("judged")).items()},
        }
        return cls.model_validate(made)

    def json_ready(self) -> dict[str, Any]:
        """The row as the schema has it."""
        return self.model_dump(mode="json")


def schema() -> dict[str, Any]:
    """The JSON Schema of this version, draft 2020-12."""
    made = Row.model_json_schema(mode="serialization")
    return {"$schema": DIALECT, "$id": f"urn:callrow:row:{VERSION}", **made, "title": f"Callrow row, version {VERSION}"}


def schema_text() -> str:
    """The schema as its file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


class _Said:
    """The utterances of a call, to be found by the names that evidence uses."""

    def __init__(self, utterances: Iterable[Mapping[str, Any]]) -> None:
        self._by_ref: dict[str, Evidence] = {}
        self._by_key: dict[str, list[Evidence]] = {}
        for each in utterances:
            ref = str(each.get("ref") or f"{each['epoch']}.{each['key']}")
            spoken = Evidence(
                utterance=ref, at_ms=max(0, each["started_at_ms"]), speaker=Speaker(each["speaker"]), heard=each["heard"]
            )
            self._by_ref[ref] = spoken
            self._by_key.setdefault(str(each["key"]), []).append(spoken)

    def of(self, names: Any) -> list[Evidence]:
        """Those that are there, in the order given."""
        return [self._by_ref[name] for name in _list(names) if isinstance(name, str) and name in self._by_ref]

    def noted_from(self, key: Any, at_ms: Any) -> Evidence | None:
        """The utterance that an agent's slot was heard in. It knows it by the key alone, and keys come again on another stream:
        of several it is the last that had begun when the slot was noted.
        """
        alike = sorted(self._by_key.get(_text(key) or "", ()), key=lambda spoken: spoken.at_ms)
        before = [spoken for spoken in alike if spoken.at_ms <= (at_ms if isinstance(at_ms, int) else 0)]
        return (before or alike[:1])[-1] if alike else None


def _slot(slot: Mapping[str, Any], said: _Said) -> dict[str, Any]:
    second, noted = slot.get("second_reading"), slot.get("noted")
    return {
        "value": _text(slot.get("value")),
        "confirmed": bool(slot.get("confirmed")),
        "source": _one_of(Source, slot.get("source")) or Source.AGENT,
        "agent": _text(slot.get("agent")) or None,
        "utterance": said.noted_from(slot.get("utterance"), slot.get("at")),
        "second_reading": {
            "value": _text(second.get("value")),
            "confidence": _share(second.get("confidence")),
            "evidence": said.of(second.get("evidence")),
        }
        if isinstance(second, Mapping)
        else None,
        "noted": {"value": _text(noted.get("value")), "confirmed": bool(noted.get("confirmed"))}
        if isinstance(noted, Mapping)
        else None,
    }


def _judged(one: Mapping[str, Any], said: _Said) -> dict[str, Any]:
    value = one.get("value")
    if isinstance(value, list | tuple):
        value = [str(part) for part in value]
    return {
        "value": value if isinstance(value, str | int | float | list | None) else str(value),
        "source": one["source"],
        "confidence": _share(one.get("confidence")),
        "analyzer": one.get("analyzer"),
        "model": one.get("model"),
        "prompt_version": one.get("prompt_version"),
        "reasons": [
            {
                "name": str(reason.get("name")),
                "because": _text(reason.get("because")) or None,
                "evidence": said.of(reason.get("evidence")),
            }
            for reason in map(_mapping, _list(one.get("reasons")))
        ],
        "evidence": said.of(one.get("evidence")),
        "at": one.get("at"),
    }


def _usage(usage: Any) -> dict[str, dict[str, Any]]:
    """Numbers only, under their providers."""
    return {
        str(provider): {str(name): amount for name, amount in _mapping(amounts).items() if isinstance(amount, int | float)}
        for provider, amounts in _mapping(usage).items()
    }


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _share(value: Any) -> float | None:
    return value if isinstance(value, int | float) and 0 <= value <= 1 else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _one_of[Word: StrEnum](words: type[Word], value: Any) -> Word | None:
    return words(value) if value in [word.value for word in words] else None
