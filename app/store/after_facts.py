"""Facts of what comes after a call: what an analyzer is given, and what it gives back."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.call.disposition import EndReason, Outcome, Slot, Utterance
from app.store.after_tables import AFTER_CALL, Source
from app.store.tables import AnalysisState


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJudgement:
    """One judged value, as an analyzer gives it."""

    field: str
    """One of `projection.FIELDS`."""
    value: Any = dataclasses.field(repr=False)
    """As JSON can say it; None: nothing in the transcript says it."""
    evidence: Sequence[str] = ()
    """Refs of utterances."""
    confidence: float | None = None
    """0 to 1."""
    analyzer: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    reasons: Sequence[Mapping[str, Any]] | None = dataclasses.field(default=None, repr=False)
    """`name`, `because`, `evidence` each."""
    dropped: str | None = None
    """Why a value that was proposed is None."""
    source: Source = Source.MACHINE


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReading:
    """One reading of one call: by whom, what it took, and all that it judged."""

    call_id: str
    batch: str = AFTER_CALL
    analyzer: str
    model: str | None = None
    prompt_version: str
    rubric: str
    tokens_in: int = 0
    tokens_out: int = 0
    judgements: Sequence[NewJudgement] = dataclasses.field(repr=False)
    review_reasons: Mapping[str, str] | None = None
    """Field: why a person should look at it. None: nobody compared (of a rescoring), and those of the reading before stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForReading:
    """A call as an analyzer needs it."""

    call_id: str
    final: bool
    analysis: AnalysisState
    attempts: int
    """Readings that were tried in vain."""
    utterances: tuple[Utterance, ...] = dataclasses.field(repr=False)
    """In spoken order; their keys are refs, unique within the call."""
    slots: tuple[Slot, ...] = dataclasses.field(repr=False)
    """As the agent noted them; `utterance` is a ref, or None where it is not known."""
    filed: Mapping[str, Any] = dataclasses.field(repr=False)
    """The agent's own `disposition`, `intent`, `summary`, `next_action`, `urgency` and `escalated`."""
    tools: tuple[tuple[str, str, bool, str], ...]
    """Name, agent, whether it has an effect, status."""
    results: tuple[Any, ...] = dataclasses.field(repr=False)
    """What each of `tools` answered, as JSON says it; None where it did not."""
    outcome: Outcome | None
    end_reason: EndReason | None
