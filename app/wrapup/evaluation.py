"""How right an analyzer is: its reading of written calls beside the rows they should give, column by column.

Rule 1: every call counts in every column; a call that the analyzer could not read counts as wrong, and says why.
Rule 2: the calls that were held out while the analyzer was made are reported apart, and are the figure to quote.
Rule 3: a text is right if it mentions what it should; that says nothing about its beauty.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.wrapup.cases import COLUMNS, MENTIONED, Case, Expected
from app.wrapup.facts import Analysis, Analyzer, Field, Transcript
from app.wrapup.faults import AnalysisFault
from app.wrapup.rubric import band
from app.wrapup.spoken import plain

MATRICES = ("disposition", "intent", "sentiment", "lead", "urgency", "escalation")
NULL = "NULL"
AT_ONCE = 4
PARTS = ("tuned", "held out", "all")


class Verdict(StrEnum):
    """What one value of one call is, beside what it should be."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSED = "missed"
    """NULL, where the transcript says something."""
    INVENTED = "invented"
    """Something, where the transcript says nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One column of one call."""

    expected: str = field(repr=False)
    """"" for NULL."""
    got: str = field(repr=False)
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """One call."""

    case: str
    held_out: bool
    answers: dict[str, Answer]
    fault: str | None = None
    """The name of the fault, where the analyzer could not read the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All calls. `part` is one of PARTS."""

    analyzer: str
    versions: tuple[str, ...]
    """Models with versions of prompt or tables."""
    results: tuple[Result, ...]
    tokens_in: int = 0
    tokens_out: int = 0

    def of(self, part: str) -> list[Result]:
        """The calls of a part."""
        return [result for result in self.results if part == "all" or result.held_out == (part == "held out")]

    def tally(self, column: str, part: str) -> Counter[Verdict]:
        """How often which verdict."""
        return Counter(result.answers[column].verdict for result in self.of(part))

    def accuracy(self, column: str, part: str) -> float:
        """Right ones of all, 0 to 1."""
        tally = self.tally(column, part)
        return tally[Verdict.RIGHT] / max(1, tally.total())

    def confusion(self, column: str, part: str) -> dict[str, dict[str, int]]:
        """Expected word, then got word, with how often."""
        found: dict[str, dict[str, int]] = {}
        for result in self.of(part):
            answer = result.answers[column]
            row = found.setdefault(answer.expected or NULL, {})
            row[answer.got or NULL] = row.get(answer.got or NULL, 0) + 1
        return found

    def mistakes(self, part: str) -> list[tuple[str, str, Answer]]:
        """Call, column and answer, of everything that is not right."""
        return [
            (result.case, column, answer)
            for result in self.of(part)
            for column, answer in result.answers.items()
            if answer.verdict is not Verdict.RIGHT
        ]

    def text(self, part: str = "all") -> str:
        """The report to be read; the matrices are those of `part`."""
        faults = Counter(result.fault for result in self.results if result.fault)
        lines = [
            f"analyzer {self.analyzer} ({', '.join(self.versions) or 'no version: no call was read'})",
            f"calls {len(self.results)}, of these held out {len(self.of('held out'))}"
            + (f", tokens in {self.tokens_in}, out {self.tokens_out}" if self.tokens_in else ""),
            *(f"not read: {count} by {name}" for name, count in sorted(faults.items())),
            "",
            *_grid([_HEAD, *(self._row(column) for column in COLUMNS)]),
        ]
        for column in MATRICES:
            title = (
                f"{column}, {part if part == 'all' else f'the {part}'} calls: a row is what should stand there, a column what does"
            )
            lines += ["", title, *self._matrix(column, part)]
        return "\n".join(lines) + "\n"

    def as_json(self, part: str = "all") -> dict[str, Any]:
        """The report as JSON can say it; the mistakes are those of `part`."""
        return {
            "analyzer": self.analyzer,
            "versions": list(self.versions),
            "tokens": {"in": self.tokens_in, "out": self.tokens_out},
            "not_read": {result.case: result.fault for result in self.results if result.fault},
            "parts": {
                part: {
                    "calls": len(self.of(part)),
                    "columns": {
                        column: {
                            "accuracy": round(self.accuracy(column, part), 4),
                            **{verdict.value: self.tally(column, part)[verdict] for verdict in Verdict},
                        }
                        for column in COLUMNS
                    },
                    "confusion": {column: self.confusion(column, part) for column in MATRICES},
                }
                for part in PARTS
            },
            "mistakes": [
                {"call": call, "column": column, "expected": answer.expected, "got": answer.got, "verdict": answer.verdict.value}
                for call, column, answer in self.mistakes(part)
            ],
        }

    def _row(self, column: str) -> list[str]:
        cells = [column]
        for part in PARTS:
            tally = self.tally(column, part)
            cells.append(f"{100 * self.accuracy(column, part):.0f} % ({tally[Verdict.RIGHT]}/{tally.total()})")
        tally = self.tally(column, "all")
        return [*cells, *(str(tally[verdict]) for verdict in (Verdict.WRONG, Verdict.MISSED, Verdict.INVENTED))]

    def _matrix(self, column: str, part: str) -> list[str]:
        matrix = self.confusion(column, part)
        words = sorted({*matrix, *(word for row in matrix.values() for word in row)}, key=lambda word: (word == NULL, word))
        rows = [[word, *(str(matrix.get(word, {}).get(other, 0) or ".") for other in words)] for word in words]
        return _grid([["", *words], *rows])


_HEAD = ["column", *PARTS, *(verdict.value for verdict in (Verdict.WRONG, Verdict.MISSED, Verdict.INVENTED))]


async def evaluate(analyzer: Analyzer, cases: Sequence[Case], *, at_once: int = AT_ONCE) -> Report:
    """Have the cases read, at most `at_once` at the same time, and compare."""
    turn = asyncio.Semaphore(at_once)

    async def read(case: Case) -> tuple[Result, Analysis | None]:
        async with turn:
            try:
                analysis = await analyzer.analyze(Transcript.of(case.utterances))
            except AnalysisFault as fault:
                return _unread(case, type(fault).__name__), None
            return Result(case.name, case.held_out, compared(case.expected, analysis)), analysis

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(case)) for case in cases]
    read_ones = [analysis for task in tasks if (analysis := task.result()[1]) is not None]
    return Report(
        analyzer=analyzer.name,
        versions=tuple(sorted({" ".join(filter(None, (each.model, each.prompt_version))) for each in read_ones})),
        results=tuple(task.result()[0] for task in tasks),
        tokens_in=sum(each.tokens_in for each in read_ones),
        tokens_out=sum(each.tokens_out for each in read_ones),
    )


def compared(expected: Expected, analysis: Analysis) -> dict[str, Answer]:
    """Every column of one call."""
    return {column: _answer(column, expected, analysis) for column in COLUMNS}


def _answer(column: str, expected: Expected, analysis: Analysis) -> Answer:
    wanted, got = getattr(expected, column), _got(column, analysis)
    if column in MENTIONED:
        return Answer(", ".join(wanted), got, _verdict(bool(wanted), bool(got), _mentions(got, wanted)))
    same = plain(wanted) == plain(got) if column == "name" else wanted == got
    return Answer(wanted, got, _verdict(bool(wanted), bool(got), same))


def _verdict(wanted: bool, got: bool, same: bool) -> Verdict:
    if wanted and got:
        return Verdict.RIGHT if same else Verdict.WRONG
    return Verdict.MISSED if wanted else Verdict.INVENTED if got else Verdict.RIGHT


def _got(column: str, analysis: Analysis) -> str:
    if column == "lead":
        score = analysis.value(Field.LEAD_SCORE)
        return band(score) if isinstance(score, int) else ""
    value = analysis.value(Field(column))
    if column == "escalation":
        return "" if value is None else "yes" if value else "no"
    return "" if value is None else str(value)


def _mentions(text: str, wanted: Iterable[str]) -> bool:
    words = plain(text)
    return all(any(re.search(rf"\b{re.escape(plain(word))}", words) for word in group.split("|")) for group in wanted)


def _unread(case: Case, fault: str) -> Result:
    answers = {}
    for column in COLUMNS:
        wanted = getattr(case.expected, column)
        answers[column] = Answer(wanted if isinstance(wanted, str) else ", ".join(wanted), "", Verdict.MISSED)
    return Result(case.name, case.held_out, answers, fault)


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under each other, the first column to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
