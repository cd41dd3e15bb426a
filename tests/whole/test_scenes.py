"""The whole path through real sockets: every shipped scene is called, spoken, heard and judged; then its journal is played again.

The service is `callrow serve` as a process of its own; carrier and model are the rehearsal's. Scenes run side by side, as many
as the peers keep in real time, each once.
"""

import asyncio

import pytest

from app.call.journal import Line, replay
from app.cli.stage import Stage, stage
from app.rehearsal.runner import Report
from app.rehearsal.scenes import shipped

SIDE_BY_SIDE = 4
SEVERAL_STREAMS = frozenset({"transfer-not-taken"})
"""Whose model opens more than one session: the peers tell sessions apart by the order of calls, so these run alone."""


async def played(on: Stage, scenes: list[str], *, at_once: int) -> dict[str, Report]:
    places = asyncio.Semaphore(at_once)

    async def play(scene: str) -> tuple[str, Report]:
        async with places:
            return scene, await on.play(scene, tell=lambda line: None)

    return dict(await asyncio.gather(*(play(scene) for scene in scenes)))


def streams(events: list[dict]) -> dict[int, list[Line]]:
    by_epoch: dict[int, list[Line]] = {}
    for event in events:
        line = Line(event["seq"], event["at"], event["name"], event["data"] or {}, event["private"], event["commands"] or "")
        by_epoch.setdefault(event["epoch"], []).append(line)
    return by_epoch


@pytest.mark.timeout(480)
async def test_every_scene_holds_and_its_journal_replays_to_the_same_commands(subtests):
    scenes = sorted(shipped())
    assert len(scenes) >= 10
    async with stage() as on:
        alone = [scene for scene in scenes if scene in SEVERAL_STREAMS]
        reports = await played(on, [scene for scene in scenes if scene not in SEVERAL_STREAMS], at_once=SIDE_BY_SIDE)
        reports |= await played(on, alone, at_once=1)
        for scene, report in sorted(reports.items()):
            with subtests.test(scene=scene):
                assert report.failures == []
                assert report.row is not None and report.row["state"] == "final"
                journal = streams(await on.calls.events(report.row["call_id"]))
                assert sorted(journal) == list(range(1, report.row["epoch"] + 1))
                for epoch, lines in journal.items():
                    assert [line.seq for line in lines] == list(range(1, len(lines) + 1)), "a line is missing"
                    assert list(replay(lines)) == [], f"epoch {epoch}"
