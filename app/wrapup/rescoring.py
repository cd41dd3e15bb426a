"""Old calls are read anew, in a batch under a name, and nothing of it is in force until somebody says so.

Rule 1: a batch is of one analyzer, one model, one version of its prompt or tables, one rubric. Nothing else is kept in it.
Rule 2: what is kept is not read again: whoever was stopped goes on by the same name.
Rule 3: a call that cannot be read is counted and left for another run. Where none will be read as things stand (no quota, a wrong
key, a provider that is away), it ends, and says why.
Rule 4: a few at once, so that the calls of today, which are read by the same provider, do not wait for those of last year.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.errors import CallrowError, OurFault, WorldFault
from app.logs import logger, where
from app.store.after_tables import AFTER_CALL
from app.store.judgements import Judgements, NewReading, NotFinished
from app.wrapup.facts import Analyzer, Lists
from app.wrapup.faults import AnalysisFault
from app.wrapup.reading import read_call, verdict_on

log = logger("wrapup")

AT_ONCE = 4
IN_VAIN_AT_MOST = 5
"""So many retryable faults without a call read between them, and the provider counts as away (rule 3)."""
BATCH_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MADE_BY = ("analyzer", "model", "prompt_version", "rubric")


class BadBatch(OurFault):
    """A batch that cannot be used so. The sentence says why."""

    def __init__(self, batch: str, wrong: str) -> None:
        self.batch, self.wrong = batch, wrong
        super().__init__(batch, wrong)

    def __str__(self) -> str:
        return f"batch {self.batch}: {self.wrong}"


class RescoringStopped(WorldFault):
    """No call will be read as things stand. What was read is kept."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        super().__init__(fault)

    def __str__(self) -> str:
        return f"stopped; {self.fault}"


@dataclass(slots=True)
class Progress:
    """How far it is."""

    total: int
    read: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Calls that were not read, by the fault's name."""
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def done(self) -> int:
        """Calls that somebody has looked at."""
        return self.read + self.faults.total()


class Rescoring:
    """Reads old calls with one analyzer and one rubric.

    Args:
        told: is told after every call.
    """

    def __init__(
        self,
        judgements: Judgements,
        analyzer: Analyzer,
        lists: Lists,
        *,
        at_once: int = AT_ONCE,
        told: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._judgements, self._analyzer, self._lists = judgements, analyzer, lists
        self._at_once, self._told = at_once, told

    async def read(self, batch: str, call_ids: Sequence[str]) -> Progress:
        """Read these calls and keep the readings under the batch's name, without putting them in force.

        Raises:
            BadBatch: the name is none, or its batch was made by another analyzer, model, version or rubric.
            RescoringStopped: no call will be read as things stand.
            StoreUnavailable: the database is away.
        """
        check_name(batch)
        run = _Run(batch, await self._made_by(batch), Progress(len(call_ids)))
        waiting = iter(call_ids)

        async def work() -> None:
            for call_id in waiting:
                if run.stopped is None:
                    await self._one(run, call_id)

        workers = [asyncio.create_task(work()) for _ in range(min(self._at_once, len(call_ids)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if run.stopped is not None:
            raise run.stopped
        return run.progress

    async def _made_by(self, batch: str) -> dict[str, Any] | None:
        """By what a batch was made, as far as it is there; before anything is paid for, what is known now is compared."""
        known = next((each for each in await self._judgements.batches() if each["batch"] == batch), None)
        if known is None:
            return None
        made_by = {name: known[name] for name in MADE_BY}
        _compare(batch, made_by, made_by | {"analyzer": self._analyzer.name, "rubric": self._lists.rubric.version})
        return made_by

    async def _one(self, run: "_Run", call_id: str) -> None:
        try:
            known = await self._judgements.for_reading(call_id)
            if known is None or not known.final:
                return
            new = await read_call(known, self._analyzer, self._lists, batch=run.batch)
            run.same(new)
            await self._judgements.keep(new)
        except NotFinished:  # gone since it was listed
            return
        except AnalysisFault as fault:
            run.failed(fault)
        except CallrowError:  # of the batch, or of the database: it is not this call's
            raise
        except Exception as bug:  # in an analyzer: that one call is not read
            log.error(
                "a call was not read: there is a mistake in the analysis", call_id=call_id, fault=type(bug).__name__, at=where(bug)
            )
            run.progress.faults[type(bug).__name__] += 1
        else:
            run.was_read(new)
        self._told(run.progress)


class _Run:
    """One run over a batch."""

    def __init__(self, batch: str, made_by: Mapping[str, Any] | None, progress: Progress) -> None:
        self.batch, self._made_by, self.progress = batch, made_by, progress
        self._in_vain = 0
        self.stopped: RescoringStopped | None = None

    def same(self, new: NewReading) -> None:
        """Rule 1."""
        by = {name: getattr(new, name) for name in MADE_BY}
        if self._made_by is None:
            self._made_by = by
        _compare(self.batch, self._made_by, by)

    def was_read(self, new: NewReading) -> None:
        self._in_vain = 0
        self.progress.read += 1
        self.progress.tokens_in += new.tokens_in
        self.progress.tokens_out += new.tokens_out

    def failed(self, fault: AnalysisFault) -> None:
        """Rule 3."""
        self.progress.faults[type(fault).__name__] += 1
        if not verdict_on(fault)["retryable"]:
            return  # because of this very call
        self._in_vain += 1
        if not fault.retryable or self._in_vain >= IN_VAIN_AT_MOST:
            self.stopped = self.stopped or RescoringStopped(str(fault))


def check_name(batch: str) -> None:
    """Whether a rescoring may bear this name.

    Raises:
        BadBatch: it may not.
    """
    if not BATCH_NAME.fullmatch(batch):
        raise BadBatch(batch[:80], "a name is of a-z, 0-9, dot, dash and underscore, at most 64 characters")
    if batch == AFTER_CALL:
        raise BadBatch(batch, "is what the reading after each call is called, and no rescoring")


def _compare(batch: str, made_by: Mapping[str, Any], by: Mapping[str, Any]) -> None:
    other = [name for name in MADE_BY if made_by[name] != by[name]]
    if other:
        told = "; ".join(f"{name.replace('_', ' ')} {made_by[name]}, now {by[name]}" for name in other)
        raise BadBatch(batch, f"was made by another ({told}). Choose another name")
