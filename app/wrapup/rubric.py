"""What makes a lead: criteria that somebody can find in a transcript, and their points. The score is counted here, by nobody else.

Rule 1: an analyzer names criteria and cites the lines they rest on; it never names a score. So the score can be explained to a
salesperson reason by reason, another rubric can be laid over old calls, and no caller can ask for a score.
Rule 2: a criterion counts once. One line supports at most three criteria, so that one sentence cannot be the whole of a hot lead.
Rule 3: without a criterion that speaks for a sale there is no score; a call that is about no sale is not a lead of 0.
Rule 4: a rubric of the business's own (RUBRIC_FILE) is checked when it is read, and every mistake in it is named at once.
"""

import hashlib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from app.errors import BadSetting

HOT, WARM = 70, 40
PER_LINE = 3
MOST_CRITERIA = 40
HOW = (
    'a TOML file: name = "rubric-2", and for every criterion [[criteria]] with name = "wants_work", points = 25 and '
    'meaning = "what to look for, in a sentence"'
)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing to look for. `points` below 0 speak against a sale."""

    name: str
    points: int
    meaning: str


@dataclass(frozen=True, slots=True)
class Rubric:
    """A list of criteria under a name."""

    name: str
    criteria: tuple[Criterion, ...]

    @property
    def version(self) -> str:
        """The name and a hash of all that decides a score."""
        text = repr([(criterion.name, criterion.points, criterion.meaning) for criterion in self.criteria])
        return f"{self.name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def points(self, name: str) -> int | None:
        """The points of a criterion; None if it is not in this rubric."""
        return next((criterion.points for criterion in self.criteria if criterion.name == name), None)

    def score(self, names: Iterable[str]) -> int | None:
        """0 to 100; None if nothing speaks for a sale."""
        points = [points for name in sorted(set(names)) if (points := self.points(name)) is not None]
        return max(0, min(100, sum(points))) if any(each > 0 for each in points) else None


def band(score: int) -> str:
    """The score in the word that salespeople use: hot, warm or cold."""
    return "hot" if score >= HOT else "warm" if score >= WARM else "cold"


RUBRIC = Rubric(
    "rubric-1",
    (
        Criterion("wants_work", 25, "wants work, a visit for work, or a thing that costs money and is not yet ordered"),
        Criterion("concrete", 15, "says how large, how many or exactly which"),
        Criterion("soon", 15, "wants the work itself done or decided by a date or within about six weeks"),
        Criterion("budget", 15, "names a budget, or says that money is set aside or no obstacle"),
        Criterion("asks_price", 5, "asks for a price or an offer"),
        Criterion("decides", 5, "owns the place, signs or decides alone"),
        Criterion("next_step", 25, "agrees to a visit, an offer or a call back, or asks for one"),
        Criterion("reachable", 10, "leaves a telephone number"),
        Criterion("just_looking", -25, "only looks around, or wants nothing definite"),
        Criterion("compares", -10, "compares several companies by price alone"),
        Criterion("later", -10, "says that it is for next season or later, or that there is no hurry"),
        Criterion("declines", -50, "says no to the next step, or is not interested"),
    ),
)


# ---- a rubric of the business's own

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_Meaning = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", min_length=3, max_length=300, strip_whitespace=True)]


class _Criterion(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    points: Annotated[int, Field(ge=-100, le=100)]
    meaning: _Meaning


class _Rubric(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name
    criteria: Annotated[list[_Criterion], Field(min_length=1, max_length=MOST_CRITERIA)]


def read_rubric(path: Path) -> Rubric:
    """The rubric of a file.

    Raises:
        BadSetting: it cannot be read, or is not as it should be; names every mistake.
    """
    try:
        read = _Rubric.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as fault:
        raise _bad([f"{path.name} cannot be read ({fault.strerror})"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise _bad([f"{path.name} is no TOML: {fault}"]) from None
    except ValidationError as faults:
        wrong = [f"{path.name}, {_place(fault['loc'])}: {fault['msg']}" for fault in faults.errors(include_input=False)]
        raise _bad(wrong) from None
    criteria = tuple(Criterion(each.name, each.points, each.meaning) for each in read.criteria)
    names = [criterion.name for criterion in criteria]
    wrong = [f"{path.name}: two criteria are called {name}" for name in sorted({name for name in names if names.count(name) > 1})]
    if not any(criterion.points > 0 for criterion in criteria):
        wrong.append(f"{path.name}: no criterion speaks for a sale (points above 0), so there would never be a score")
    if wrong:
        raise _bad(wrong)
    return Rubric(read.name, criteria)


def _place(location: tuple[int | str, ...]) -> str:
    """Where in the file: criteria are counted from 1."""
    return " ".join(f"{part + 1}" if isinstance(part, int) else part for part in location)


def _bad(wrong: Iterable[str]) -> BadSetting:
    return BadSetting([("RUBRIC_FILE", each, HOW) for each in wrong])
