"""What was judged of a call, field by field, as a page shows it: the value that stands, whose it is, what it rests on, and all that
was ever said of it.

Rule 1: nothing is judged here. What stands is `Calls.row()["judged"]`; what was said is `Judgements.of_call`.
Rule 2: a word that is not known here is shown as it is: lists are the business's, and analyzers change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.web.console.conversation import Conversation, Item, slots_heard_in
from app.wrapup.correction import FIELDS, allowed
from app.wrapup.facts import Field, Lists

type Row = Mapping[str, Any]

LABELS = {
    Field.SUMMARY: "Summary",
    Field.DISPOSITION: "Disposition",
    Field.INTENT: "Intent",
    Field.SENTIMENT: "Sentiment",
    Field.SENTIMENT_COURSE: "Course of the mood",
    Field.LEAD_SCORE: "Lead score",
    Field.URGENCY: "Urgency",
    Field.ESCALATION: "For a person",
    Field.NEXT_ACTION: "Next action",
    Field.NAME: "Name",
    Field.CALLBACK_NUMBER: "Callback number",
    Field.REASON: "Reason",
}
GIVEN = (Field.NAME, Field.CALLBACK_NUMBER, Field.REASON)
"""What the caller gave; the others are what came of it."""
CAME_OF_IT = tuple(field for field in LABELS if field not in GIVEN)
LONG = (Field.SUMMARY,)
REVIEWS = {
    "values_differ": "the agent noted something else than the second reading",
    "not_in_transcript": "the agent noted it, and the second reading does not find it said",
    "not_noted": "it was said, and the agent did not note it",
    "no_whole_number": "the number that the agent noted cannot be dialled",
    "claim_mismatch": "the agent said that something was done, and the ledger does not have it",
}
DROPPED = {
    "wrong_kind": "what was proposed was no value of this kind",
    "no_evidence": "what was proposed rested on nothing that was said",
    "not_from_the_caller": "only our own words spoke for what was proposed",
    "order_to_us": "what was proposed rested on words that give orders to the analysis",
    "not_in_the_list": "what was proposed is not in the list",
    "unsupported": "not one reason for what was proposed held",
    "not_said": "what was proposed does not occur in the lines that were cited",
    "no_whole_number": "the digits are no number that can be dialled",
    "not_in_ledger": "it would say that something was done which the ledger does not have",
}
MOODS = {"negative": "−", "neutral": "○", "positive": "+"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that speaks for a value."""

    name: str
    because: str | None = field(repr=False)
    cites: tuple[Item, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One thing that was said of a field, whether it stands or not."""

    text: str | None = field(repr=False)
    retracts: bool
    who: str
    at: str
    confidence: str | None
    provenance: str
    note: str | None = field(repr=False)
    cites: tuple[Item, ...] = field(repr=False)
    dropped: str | None
    standing: str
    """Of a rescoring: whether it was applied, or withdrawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One field."""

    name: str
    label: str
    text: str | None = field(repr=False)
    """The value in words; None: there is none."""
    source: str | None
    """operator, machine or agent; None: nobody said anything."""
    who: str
    at: str | None
    confidence: str | None
    provenance: str
    cites: tuple[Item, ...] = field(repr=False)
    moods: tuple[tuple[str, str, Item | None], ...] = field(default=(), repr=False)
    """Of the course of the mood: sign, word, and where."""
    reasons: tuple[Reason, ...] = ()
    dropped: str | None = None
    note: str | None = field(default=None, repr=False)
    review: str | None = None
    """Why somebody should look at it."""
    history: tuple[Said, ...] = field(default=(), repr=False)
    # to correct it
    correctable: bool = False
    options: tuple[str, ...] = ()
    """Of a closed field."""
    input: str = "text"
    """`select`, `textarea`, `number`, `tel` or `text`."""
    may_be_none: bool = True
    typed: str = field(default="", repr=False)
    """With what the form begins."""

    @property
    def corrected(self) -> bool:
        """A person's word stands."""
        return self.source == "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotView:
    """One thing learnt from the caller, and who says so."""

    name: str
    label: str
    value: str | None = field(repr=False)
    source: str
    agent: str | None
    confirmed: bool
    cite: Item | None = field(repr=False)
    second: str | None = field(repr=False)
    second_confidence: str | None
    second_cites: tuple[Item, ...] = field(repr=False)
    noted: str | None = field(repr=False)
    """What the agent had noted, where a person has corrected it."""
    judged: Judged | None = field(repr=False)

    @property
    def differs(self) -> bool:
        """The second reading is another."""
        return self.second is not None and self.second != (self.noted or self.value)


def judged_fields(row: Row, said: Sequence[Row], talk: Conversation, lists: Lists) -> dict[str, Judged]:
    """Every field, in the order of the page. `said` is `Judgements.of_call`."""
    by_field: dict[str, list[Row]] = {}
    for each in said:
        by_field.setdefault(str(each["field"]), []).append(each)
    return {which.value: _judged(which, row, by_field.get(which.value, []), talk, lists) for which in LABELS}


def slot_views(row: Row, fields: Mapping[str, Judged], talk: Conversation) -> list[SlotView]:
    """The slots of a row: those that are judged too come first, and stand also while nobody has said anything of them."""
    slots: Mapping[str, Any] = row.get("slots") or {}
    heard_in = slots_heard_in(row)
    names = list(dict.fromkeys([*(which.value for which in GIVEN), *slots]))
    found = []
    for name in names:
        slot: Mapping[str, Any] = slots.get(name) or {}
        second: Mapping[str, Any] = slot.get("second_reading") or {}
        noted: Mapping[str, Any] = slot.get("noted") or {}
        found.append(
            SlotView(
                name=name,
                label=LABELS[Field(name)] if name in set(Field) else in_words(name).capitalize(),
                value=_text(slot.get("value")),
                source=str(slot.get("source") or "agent"),
                agent=slot.get("agent") or noted.get("agent") or None,
                confirmed=bool(slot.get("confirmed")),
                cite=talk.cites.get(heard_in.get(name, "")),
                second=_text(second.get("value")),
                second_confidence=percent(second.get("confidence")),
                second_cites=tuple(talk.cited(second.get("evidence") or ())),
                noted=_text(noted.get("value")),
                judged=fields.get(name) if name in {which.value for which in GIVEN} else None,
            )
        )
    return found


def review_lines(row: Row) -> list[tuple[str, str, str]]:
    """Why somebody should look at a row: field, its label, and the reason in words."""
    return [(name, label(name), REVIEWS.get(why, in_words(why))) for name, why in (row.get("review_reasons") or {}).items()]


def label(name: str) -> str:
    """A field in words."""
    return LABELS[Field(name)] if name in set(Field) else in_words(name).capitalize()


def in_words(word: str) -> str:
    """A word of a list, for people."""
    return word.replace("_", " ").replace("-", " ")


def percent(share: float | None) -> str | None:
    """A confidence."""
    return None if share is None else f"{round(share * 100)} %"


def by_whom(name: str | None) -> str:
    """A person, without how they are signed in."""
    return (name or "somebody").removeprefix("user:")


def value_in_words(which: str, value: Any) -> str | None:
    """A judged value for people; None if there is none."""
    if value is None:
        return "no" if which == Field.ESCALATION else None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(in_words(str(part)) for part in value)
    if which == Field.LEAD_SCORE:
        return f"{value} of 100"
    closed = which in (Field.DISPOSITION, Field.INTENT, Field.SENTIMENT, Field.URGENCY)
    return in_words(str(value)) if closed else str(value)


def _judged(which: Field, row: Row, said: Sequence[Row], talk: Conversation, lists: Lists) -> Judged:
    stands: Mapping[str, Any] = row["judged"].get(which.value) or {}
    value = stands.get("value")
    options = allowed(which, lists)
    operators = [each for each in said if each["source"] == "operator"]
    return Judged(
        name=which.value,
        label=LABELS[which],
        text=value_in_words(which, value),
        source=stands.get("source"),
        who=_who(stands, row) if stands else "",
        at=stands.get("at"),
        confidence=percent(stands.get("confidence")) if value is not None else None,
        provenance=_provenance(stands),
        cites=tuple(talk.cited(stands.get("evidence") or ())) if which is not Field.SENTIMENT_COURSE else (),
        moods=_moods(stands, talk) if which is Field.SENTIMENT_COURSE else (),
        reasons=tuple(_reasons(stands.get("reasons") or (), talk)),
        dropped=_dropped(stands),
        note=operators[-1]["note"] if stands.get("source") == "operator" and operators else None,
        review=REVIEWS.get(why, in_words(why)) if (why := (row.get("review_reasons") or {}).get(which.value)) else None,
        history=tuple(_history(which, said, row, talk)),
        correctable=which in FIELDS and row["state"] == "final",
        options=options,
        input=_input(which, options),
        may_be_none=which is not Field.ESCALATION,
        typed=_typed(which, value),
    )


def _input(which: Field, options: tuple[str, ...]) -> str:
    if options:
        return "select"
    if which in LONG:
        return "textarea"
    return {Field.LEAD_SCORE: "number", Field.CALLBACK_NUMBER: "tel"}.get(which, "text")


def _typed(which: Field, value: Any) -> str:
    if which is Field.ESCALATION:
        return "yes" if value else "no"
    return "" if value is None or isinstance(value, list | tuple) else str(value)


def _who(said: Row, row: Row) -> str:
    match said["source"]:
        case "operator":
            return f"corrected by {by_whom(said.get('said_by'))}"
        case "agent":
            return "noted during the call"
    return "read after the call"


def _provenance(said: Row) -> str:
    return ", ".join(str(said[name]) for name in ("analyzer", "model", "prompt_version") if said.get(name))


def _reasons(reasons: Iterable[Row], talk: Conversation) -> Iterable[Reason]:
    for reason in reasons:
        cites = tuple(talk.cited(reason.get("evidence") or ()))
        yield Reason(name=in_words(str(reason.get("name"))), because=_text(reason.get("because")) or None, cites=cites)


def _moods(stands: Row, talk: Conversation) -> tuple[tuple[str, str, Item | None], ...]:
    moods, where = stands.get("value") or (), stands.get("evidence") or ()
    if not isinstance(moods, list | tuple):
        return ()
    places = [*where, *[None] * len(moods)]
    return tuple((MOODS.get(mood, "·"), str(mood), talk.cites.get(place or "")) for mood, place in zip(moods, places, strict=False))


def _dropped(said: Row) -> str | None:
    why = said.get("dropped")
    return None if why is None else DROPPED.get(why, in_words(why))


def _history(which: Field, said: Sequence[Row], row: Row, talk: Conversation) -> Iterable[Said]:
    for each in said:
        yield Said(
            text=value_in_words(which, each["value"]),
            retracts=each["retracts"],
            who=_who_said(each),
            at=each["at"],
            confidence=percent(each["confidence"]) if each["value"] is not None else None,
            provenance=_provenance(each),
            note=each["note"],
            cites=tuple(talk.cited(each["evidence"] or ())),
            dropped=_dropped(each),
            standing=_standing(each),
        )


def _who_said(said: Row) -> str:
    match said["source"]:
        case "operator":
            return by_whom(said["said_by"])
        case "agent":
            return "the agent, during the call"
    return "the reading after the call" if said["batch"] == "call" else f"the rescoring {said['batch']}"


def _standing(said: Row) -> str:
    if said["source"] != "machine":
        return ""
    if said["withdrawn_at"]:
        return "withdrawn"
    return "" if said["applied_at"] else "not applied"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
