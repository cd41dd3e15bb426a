"""Work on paper: what is due is a file, what was done is a line in another. So that a process that is killed leaves its traces.

`python -m tests.wrapup.paper URL FOLDER [name=seconds ...]` does the jobs of a folder on a database's engine, until told to stop.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from app import logs
from app.cli.jobs import at_work, until_told
from app.store.engine import Database
from app.wrapup.jobs import Work
from app.wrapup.sweeper import Pace

PACE = Pace(sweep_s=0.1, beat_s=0.2, lost_after_s=2.0, again_after_s=0.2)


class Paper:
    """A folder: `read/` and `deliver/` hold what is due, a file each with the attempts made; `done` tells what was done by whom."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for kind in ("read", "deliver"):
            (folder / kind).mkdir(exist_ok=True)

    def put(self, kind: str, *names: str) -> None:
        """Something is due."""
        for name in names:
            (self.folder / kind / name).write_text("0")

    def waiting(self, kind: str = "read") -> list[str]:
        """What is still due."""
        return sorted(path.name for path in (self.folder / kind).iterdir())

    def wrote(self, what: str, of: str, **more: object) -> None:
        """A line."""
        line = json.dumps({"what": what, "of": of, "pid": os.getpid(), **more}) + "\n"
        with (self.folder / "done").open("ab", buffering=0) as done:
            done.write(line.encode())  # at once, or not at all

    def lines(self, what: str | None = None, of: str | None = None) -> list[dict[str, object]]:
        """What was done, in order."""
        done = self.folder / "done"
        known = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
        return [line for line in known if what in (None, line["what"]) and of in (None, line["of"])]


class Pile:
    """What is due of one kind."""

    def __init__(self, paper: Paper, kind: str) -> None:
        self._folder = paper.folder / kind

    async def due(self, limit: int) -> list[tuple[str, int]]:
        found = []
        for path in sorted(self._folder.iterdir())[:limit]:
            try:
                found.append((path.name, int(path.read_text() or 0) + 1))
            except FileNotFoundError:
                continue
        return found


class Hands:
    """Who does it, reading and delivering alike. A step takes its seconds, and leaves a line when it begins and when it ends."""

    def __init__(self, paper: Paper, kind: str, first_s: float = 0.0, second_s: float = 0.0) -> None:
        self._paper, self._kind = paper, kind
        self._first_s, self._second_s = first_s, second_s

    async def ask(self, of: str) -> dict[str, object]:
        self._paper.wrote("asking", of)
        await asyncio.sleep(self._first_s)
        self._paper.wrote("asked", of)
        return {"reading": of, "by": os.getpid()}

    async def settle(self, of: str, attempt: int, verdict: dict[str, object]) -> None:
        self._paper.wrote("settling", of, attempt=attempt, verdict=verdict)
        await asyncio.sleep(self._second_s)
        (self._paper.folder / self._kind / of).unlink(missing_ok=True)
        self._paper.wrote("settled", of, attempt=attempt)

    send, record = ask, settle


def work_on(paper: Paper, **seconds: float) -> Work:
    """The whole work of a folder."""
    return Work(
        reading=Hands(paper, "read", **seconds),
        delivering=Hands(paper, "deliver", **seconds),
        judgements=Pile(paper, "read"),
        deliveries=Pile(paper, "deliver"),
    )


async def main(url: str, folder: str, *seconds: str) -> None:
    logs.set_up("info", as_json=True)
    database = Database(url)
    paper = Paper(Path(folder))
    work = work_on(paper, **{name: float(value) for name, _, value in (one.partition("=") for one in seconds)})
    await until_told(lambda: at_work(url, database, work, at_once=4, pace=PACE, look_s=0.05))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    os._exit(0)
