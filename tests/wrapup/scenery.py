"""Small calls for the tests of the room, and judgements about them."""

from pathlib import Path
from typing import Any

from app.call.disposition import Utterance
from app.wrapup.facts import Field, Judgement, Lists, Transcript

CALLS = Path(__file__).parents[1] / "calls"
LISTS = Lists(
    dispositions=(
        *("appointment_booked", "message_taken", "information_given", "sales_lead", "callback_requested", "transferred"),
        *("wrong_number", "not_interested", "other"),
    ),
    intents=("book_appointment", "buy", "support", "complaint", "leave_message", "wrong_number", "other"),
)


def said(speaker: str, text: str | None, *, key: str, at: int = 0, **more: Any) -> Utterance:
    """One utterance."""
    return Utterance(key=key, speaker=speaker, started_at=at, ended_at=at + 1_000, heard=text, **more)


def talk(*lines: str) -> Transcript:
    """`caller: words`; keys are `u1`, `u2` and so on."""
    utterances = []
    for number, line in enumerate(lines, start=1):
        speaker, _, text = line.partition(": ")
        utterances.append(said(speaker, text, key=f"u{number}", at=number * 1_000))
    return Transcript.of(utterances)


def judged(field: Field, value: Any, *evidence: str, **more: Any) -> Judgement:
    """A proposal of some analyzer."""
    told: dict[str, Any] = {"confidence": 0.8, "analyzer": "test", "prompt_version": "test-1", **more}
    return Judgement(field=field, value=value, evidence=evidence, **told)
