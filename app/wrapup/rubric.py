"""What makes a lead: criteria that somebody can find in a transcript, and their points. The score is counted here, by nobody else.

Rule 1: an analyzer names criteria and cites the lines they rest on; it never names a score. So the score can be explained to a
salesperson reason by reason, another rubric can be laid over old calls, and no caller can ask for a score.
Rule 2: a criterion counts once. One line supports at most three criteria, so that one sentence cannot be the whole of a hot lead.
Rule 3: without a criterion that speaks for a sale there is no score; a call that is about no sale is not a lead of 0.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

HOT, WARM = 70, 40
PER_LINE = 3


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
