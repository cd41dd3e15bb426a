"""What many calls came to whose model failed: by scenario, how long the caller waited, and what was doubled, lost or broken.

python -m tests.faults.provider_figures --runs 50 --seed 1
"""

import argparse
import asyncio
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.provider_runs import Observed, Scenario, house, last_word, play, scenarios, was_heard, wrongs


@dataclass(slots=True)
class Figures:
    """What many runs came to."""

    runs: int = 0
    first_sound: list[float] = field(default_factory=list)
    first_word: list[float] = field(default_factory=list)
    dead_air: list[float] = field(default_factory=list)
    doubled_words: int = 0
    lost_words: int = 0
    lost_turns: int = 0
    broken: list[str] = field(default_factory=list)

    def add(self, observed: Observed) -> None:
        """One more."""
        self.runs += 1
        if observed.first_sound is not None:
            self.first_sound.append(observed.first_sound)
        if observed.first_word is not None:
            self.first_word.append(observed.first_word)
        self.dead_air.append(observed.dead_air)
        words = observed.words
        self.doubled_words += len(words) - len(set(words))
        expected = [n for turn in (0, *observed.scenario.utterances) for n in range(turn * 100, last_word(turn) + 1)]
        if observed.scenario.answered:
            self.lost_words += len(set(expected) - {spell.number for spell in observed.spells if spell.kind == "word"})
            self.lost_turns += sum(not was_heard(observed.phone, last_word(turn)) for turn in observed.scenario.utterances)
        self.broken += [f"{observed.scenario.name}: {wrong}" for wrong in wrongs(observed)]


def spread(values: list[float]) -> str:
    """p50, p95 and max, in ms."""
    if not values:
        return "none"
    ordered = sorted(values)
    p50, p95 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"n={len(ordered)} p50={p50 * 1_000:.0f} p95={p95 * 1_000:.0f} max={ordered[-1] * 1_000:.0f} ms"


async def many(seed: int, runs: int, at_once: int, tell: Callable[[str], None], only: str = "") -> dict[str, Figures]:
    """Every scenario so many times, a few side by side."""
    dice = random.Random(seed)
    figures: dict[str, Figures] = {}
    places = asyncio.Semaphore(at_once)
    with tempfile.TemporaryDirectory() as folder:
        async with house(Path(folder), TRANSFER_TO="sales=+15551230001", MAX_CALLS="1000") as it:

            async def one(scenario: Scenario) -> None:
                found = figures.setdefault(scenario.name, Figures())
                async with places:
                    try:
                        found.add(await play(it, scenario))
                    except TimeoutError:
                        found.broken.append(f"{scenario.name}: stuck")

            wanted = [scenario for _ in range(runs) for scenario in scenarios(dice) if only in scenario.name]
            await asyncio.gather(*(one(scenario) for scenario in wanted))
    for name, found in figures.items():
        tell(f"{name} ({found.runs})")
        tell(f"    first sound    {spread(found.first_sound)}")
        tell(f"    first new word {spread(found.first_word)}")
        tell(f"    dead air       {spread(found.dead_air)}")
        lost = f"lost {found.lost_words}, turns lost {found.lost_turns}"
        tell(f"    words doubled {found.doubled_words}, {lost}, broken {len(found.broken)}")
        for wrong in sorted(set(found.broken))[:5]:
            tell(f"      {wrong}")
    return figures


if __name__ == "__main__":
    asking = argparse.ArgumentParser()
    asking.add_argument("--runs", type=int, default=5)
    asking.add_argument("--seed", type=int, default=1)
    asking.add_argument("--at-once", type=int, default=8)
    asking.add_argument("--only", default="")
    asked = asking.parse_args()
    done = asyncio.run(many(asked.seed, asked.runs, asked.at_once, print, asked.only))
    raise SystemExit(any(found.broken for found in done.values()))
