"""Written calls: transcripts with the row that they should give. One TOML file a call; `tests/calls/README.md` says what is in it.

Rule 1: every column is named in every file, also where nothing is expected, so that none is forgotten.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.call.disposition import EndReason, Outcome, Slot, Utterance
from app.errors import OurFault

MS_A_LINE = 4_000
Mentions = tuple[Annotated[str, Field(min_length=1)], ...]


class BadCase(OurFault):
    """A written call that cannot be used: its file and what is wrong with it."""

    def __init__(self, file: str, wrong: str) -> None:
        self.file, self.wrong = file, wrong
        super().__init__(file, wrong)

    def __str__(self) -> str:
        return f"{self.file}: {self.wrong}"


class Expected(BaseModel):
    """The row as it should be; "" and () are NULL. In texts, words to be mentioned, `|` between alternatives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: Mentions
    sentiment: Literal["negative", "neutral", "positive", ""]
    intent: str
    lead: Literal["hot", "warm", "cold", ""]
    urgency: Literal["low", "normal", "high", ""]
    escalation: Literal["yes", "no", ""]
    disposition: str
    next_action: Mentions
    name: str
    callback_number: Annotated[str, Field(pattern=r"^(\+[1-9]\d{6,14})?$")]
    reason: Mentions


COLUMNS = tuple(Expected.model_fields)
MENTIONED = ("summary", "next_action", "reason")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    held_out: bool
    outcome: Outcome
    end_reason: EndReason
    talk: str
    noted: Mapping[str, str] = {}
    expect: Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One written call."""

    name: str
    title: str
    held_out: bool
    outcome: Outcome
    end_reason: EndReason
    utterances: tuple[Utterance, ...] = field(repr=False)
    noted: tuple[Slot, ...] = field(default=(), repr=False)
    """What the agent noted during the call."""
    expected: Expected = field(repr=False)


def read_cases(folder: Path) -> tuple[Case, ...]:
    """All written calls of a folder, by name.

    Raises:
        BadCase: a file is no TOML, or not as it should be; or there is none.
    """
    cases = tuple(_read(path) for path in sorted(folder.glob("*.toml")))
    if not cases:
        raise BadCase(folder.name, "holds no written call (*.toml)")
    return cases


def _read(path: Path) -> Case:
    try:
        read = _File.model_validate(tomllib.loads(path.read_text("utf-8")))
        utterances = tuple(_utterance(number, line) for number, line in enumerate(filter(None, read.talk.splitlines()), start=1))
    except tomllib.TOMLDecodeError as fault:
        raise BadCase(path.name, str(fault)) from None
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        raise BadCase(path.name, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as fault:
        raise BadCase(path.name, str(fault)) from None
    return Case(
        name=path.stem,
        title=read.title,
        held_out=read.held_out,
        outcome=read.outcome,
        end_reason=read.end_reason,
        utterances=utterances,
        noted=tuple(Slot(name=name, value=value) for name, value in read.noted.items()),
        expected=read.expect,
    )


def _utterance(number: int, line: str) -> Utterance:
    """`caller: words`, `caller: ~`, or `agent: heard | unheard`."""
    speaker, colon, text = (part.strip() for part in line.partition(":"))
    if speaker not in ("caller", "agent") or not colon or not text or (speaker == "agent" and text == "~"):
        raise ValueError(f"line {number} of the talk is no utterance of caller or agent")
    heard, cut, unheard = (part.strip() for part in text.partition("|")) if speaker == "agent" else (text, "", "")
    untranscribed = text == "~"
    return Utterance(
        key=f"{speaker[0]}{number}",
        speaker=speaker,
        started_at=number * MS_A_LINE,
        ended_at=(number + 1) * MS_A_LINE,
        heard=None if untranscribed else heard,
        unheard=unheard or None,
        interrupted=bool(cut),
        untranscribed=untranscribed,
    )
