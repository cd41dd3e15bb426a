"""A finished call is read: asked of the analyzer, held against the agent's notes and the ledger, kept, and put in force.

Rule 1: `ask` never raises for what an analyzer does. A fault of the world and a bug are both a verdict, short and without a word of
the call, and `settle` decides what follows from it: again later, or given up for good. No call is asked about for ever.
Rule 2: the database being away is no verdict on a call: it is raised, and whoever runs the job waits for it. What was read by then
is held, so that nobody pays for it twice.
Rule 3: trouble that passes by itself is tried again soon and then less often; trouble that a person must see to (an empty account,
a wrong key) every hour for a day; what the same question will never answer, never.
Rule 4: the agent's word and the second reading are both kept. Here it is said only that they differ, and a person decides.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.errors import StoreUnavailable
from app.logs import logger, where
from app.store.after_tables import AFTER_CALL
from app.store.facts import utc_now
from app.store.judgements import ForReading, Judgements, NewJudgement, NewReading
from app.store.tables import AnalysisState
from app.wrapup.claims import Errand, Mismatch, held, mismatches
from app.wrapup.compare import Review, compare, review_reasons
from app.wrapup.facts import Analysis, Analyzer, Dropped, Field, Judgement, Lists, Transcript
from app.wrapup.faults import AnalysisFault, AnalyzerRejected, AnswerUnreadable, QuotaExhausted

log = logger("wrapup")

CLAIMS = "claims"
"""Under this name the agent's claims without an effect are kept beside the judgements."""
CLAIM_MISMATCH = "claim_mismatch"

HOUR_S, DAY_S = 3_600.0, 86_400.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 4 * HOUR_S
MOST_UNKEPT = 100


@dataclass(frozen=True, slots=True)
class Patience:
    """How often, and after what pauses in seconds: `first`, doubled each time, never above `longest`."""

    attempts: int
    first: float = FIRST_PAUSE_S
    longest: float = LONGEST_PAUSE_S


PASSES = Patience(10)
"""In all a little more than four hours."""
PATIENCE: Mapping[str, Patience] = {
    QuotaExhausted.__name__: Patience(24, HOUR_S, HOUR_S),
    AnalyzerRejected.__name__: Patience(24, HOUR_S, HOUR_S),
    AnswerUnreadable.__name__: Patience(3),  # the analyzer has tried several times in each of them
}
TOO_LONG_FOR_IT = ("context_length_exceeded", "string_above_max_length")
"""Rejected because of this very call: no person can see to it."""


class Reading:
    """Reads calls when they have ended.

    Args:
        clock: the present moment, with its time zone.
        dice: a number from 0 to 1, for pauses that do not end all at once.
    """

    def __init__(
        self,
        judgements: Judgements,
        analyzer: Analyzer,
        lists: Lists,
        *,
        clock: Callable[[], datetime] = utc_now,
        dice: Callable[[], float],
    ) -> None:
        self._judgements, self._analyzer, self._lists = judgements, analyzer, lists
        self._clock, self._dice = clock, dice
        self._unkept: dict[str, NewReading] = {}

    async def ask(self, call_id: str) -> dict[str, Any]:
        """Have a call read, and keep the reading without putting it in force.

        Returns:
            What came of it, as JSON can say it and never private: `{"reading": id}`; `{"nothing": true}` where there is nothing to
            be read (any more); or `{"fault": name, "code": str | None, "retryable": bool, "retry_after_s": float | None}`.

        Raises:
            StoreUnavailable: the database is away (rule 2).
        """
        try:
            known = await self._judgements.for_reading(call_id)
            if known is None or not known.final or known.analysis is not AnalysisState.WAITING:
                self._unkept.pop(call_id, None)
                return {"nothing": True}
            new = self._unkept.get(call_id) or await read_call(known, self._analyzer, self._lists)
            self._hold(new)
            reading_id = await self._judgements.keep(new)
            self._unkept.pop(call_id, None)
            return {"reading": reading_id}
        except StoreUnavailable:
            raise
        except AnalysisFault as fault:
            log.warning("a call was not read", call_id=call_id, fault=type(fault).__name__, code=fault.code, status=fault.status)
            return verdict_on(fault)
        except Exception as bug:  # rule 1
            self._unkept.pop(call_id, None)
            log.error("a call was not read: there is a mistake in the analysis", call_id=call_id, fault=_name(bug), at=where(bug))
            return {"fault": _name(bug), "code": None, "retryable": False, "retry_after_s": None}

    async def settle(self, call_id: str, attempt: int, verdict: Mapping[str, Any]) -> None:
        """Put what was kept in force; or have the call read again later; or give it up. Twice does no harm.

        `attempt` is counted from 1, over all of the call's life; an operator who has it read again gets a round of attempts more.

        Raises:
            StoreUnavailable: the database is away.
        """
        if (reading_id := verdict.get("reading")) is not None:
            await self._judgements.settle(call_id, str(reading_id))
        elif (fault := verdict.get("fault")) is not None:
            pause_s = self._pause_s(str(fault), attempt, verdict)
            if pause_s is None:
                log.error("a call is not read: given up", call_id=call_id, fault=fault, attempts=attempt)
                await self._judgements.give_up(call_id, attempt, str(fault))
            else:
                due_at = self._clock() + timedelta(seconds=pause_s)
                await self._judgements.later(call_id, attempt, due_at, str(fault))

    def _pause_s(self, fault: str, attempt: int, verdict: Mapping[str, Any]) -> float | None:
        """Seconds to the next attempt; None if there is none (rule 3)."""
        patience = PATIENCE.get(fault, PASSES)
        round_of = (attempt - 1) % patience.attempts + 1
        if not verdict.get("retryable") or round_of == patience.attempts:
            return None
        pause_s = min(patience.longest, patience.first * 2.0 ** (round_of - 1))
        asked_s = verdict.get("retry_after_s")
        if isinstance(asked_s, int | float) and asked_s > pause_s:  # never earlier than asked, but never longer than a day
            return min(DAY_S, asked_s) + self._dice() * FIRST_PAUSE_S
        return pause_s * (0.75 + 0.5 * self._dice())

    def _hold(self, new: NewReading) -> None:
        self._unkept[new.call_id] = new
        while len(self._unkept) > MOST_UNKEPT:
            del self._unkept[next(iter(self._unkept))]


def verdict_on(fault: AnalysisFault) -> dict[str, Any]:
    """A fault as a verdict. What only a person can put right is worth another try all the same (rule 3)."""
    for_a_person = isinstance(fault, QuotaExhausted | AnalyzerRejected) and fault.code not in TOO_LONG_FOR_IT
    return {
        "fault": _name(fault),
        "code": fault.code,
        "retryable": fault.retryable or for_a_person,
        "retry_after_s": fault.retry_after_s,
    }


async def read_call(known: ForReading, analyzer: Analyzer, lists: Lists, *, batch: str = AFTER_CALL) -> NewReading:
    """One reading of one call, with everything that a person should look at. Nothing is written.

    Raises:
        AnalysisFault: the analyzer could not.
    """
    transcript = Transcript.of(known.utterances)
    ledger = [
        Errand(name=name, effect=effect, status=status, result=result)
        for (name, _agent, effect, status), result in zip(known.tools, known.results, strict=True)
    ]
    claims = mismatches(known.utterances, ledger, outcome=known.outcome, end_reason=known.end_reason)
    analysis = held(await analyzer.analyze(transcript), ledger, claims)
    judged = [_judgement(each) for each in analysis.judgements]
    return NewReading(
        call_id=known.call_id,
        batch=batch,
        analyzer=analysis.analyzer,
        model=analysis.model,
        prompt_version=analysis.prompt_version,
        rubric=lists.rubric.version,
        tokens_in=analysis.tokens_in,
        tokens_out=analysis.tokens_out,
        judgements=[*judged, *_claims(claims)],
        review_reasons=reviews(known, analysis, lists, claims, caller_spoke=transcript.caller_spoke),
    )


def reviews(
    known: ForReading, analysis: Analysis, lists: Lists, claims: Sequence[Mismatch], *, caller_spoke: bool
) -> dict[str, str]:
    """Why a person should look at the row: names of fields, and of a reason each."""
    found = review_reasons(compare(known.slots, analysis, lists))
    filed, read = known.filed.get("disposition"), analysis[Field.DISPOSITION]
    if read.dropped is Dropped.NOT_IN_LEDGER:
        found[Field.DISPOSITION.value] = Dropped.NOT_IN_LEDGER.value
    elif filed is not None and caller_spoke and read.value != filed:  # of a silent call there is nothing to be read
        found[Field.DISPOSITION.value] = (Review.NOT_IN_TRANSCRIPT if read.value is None else Review.VALUES_DIFFER).value
    if claims:
        found[CLAIMS] = CLAIM_MISMATCH
    return found


def _judgement(each: Judgement) -> NewJudgement:
    return NewJudgement(
        field=each.field.value,
        value=list(each.value) if isinstance(each.value, tuple) else each.value,
        evidence=each.evidence,
        confidence=None if each.value is None else each.confidence,
        analyzer=each.analyzer,
        model=each.model,
        prompt_version=each.prompt_version,
        reasons=[dataclasses.asdict(reason) | {"evidence": list(reason.evidence)} for reason in each.reasons] or None,
        dropped=None if each.dropped is None else each.dropped.value,
    )


def _claims(claims: Sequence[Mismatch]) -> list[NewJudgement]:
    if not claims:
        return []
    lines = dict.fromkeys(key for each in claims for key in each.evidence)
    return [NewJudgement(field=CLAIMS, value=[each.claim.value for each in claims], evidence=tuple(lines), analyzer="ledger")]


def _name(fault: BaseException) -> str:
    return type(fault).__name__
