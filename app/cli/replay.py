"""`callrow replay CALL`: play a stored call's journal through the machine again, and see whether it orders the same.

A journal written by an older version of the code may differ where the rules have changed since; this says where.
"""

import asyncio
from itertools import groupby
from typing import Any

import click

from app.call.journal import Difference, Line, replay
from app.cli import reading
from app.cli.data import NoSuchCall
from app.errors import CallrowError
from app.settings import Settings


class NotReplayable(CallrowError):
    """A journal that cannot be played: it has no beginning, or an event that this version does not know."""

    def __init__(self, epoch: int, reason: str) -> None:
        self.epoch, self.reason = epoch, reason
        super().__init__(epoch, reason)

    def __str__(self) -> str:
        return f"stream {self.epoch} cannot be replayed: {self.reason}"


@click.command("replay")
@click.argument("call")
def replay_command(call: str) -> None:
    """Replay CALL (our id or the carrier's CallSid) from its journal. Exit code 0 if the machine orders the same today."""
    events = asyncio.run(_events(reading.settings_without_keys(), call))
    if not events:
        click.echo("the call has no journal: no stream of it ever came")
        return
    differs = False
    for epoch, lines in streams(events).items():
        differences = compare(epoch, lines)
        differs = differs or bool(differences)
        span = f"{len(lines)} lines, {(lines[-1].at - lines[0].at) / 1_000:.1f} s"
        click.echo(f"stream {epoch}: {span}: " + (f"{len(differences)} differ" if differences else "the same orders"))
        times = {line.seq: line.at for line in lines}
        for found in differences:
            recorded, replayed = found.recorded or "nothing", found.replayed or "nothing"
            click.echo(f"  line {found.seq} at {times[found.seq]:,} ms, {found.name}: recorded {recorded}, replayed {replayed}")
    if differs:
        raise SystemExit(1)


def streams(events: list[dict[str, Any]]) -> dict[int, list[Line]]:
    """The journal's lines by stream; each stream has its own beginning."""
    return {
        epoch: [
            Line(event["seq"], event["at"], event["name"], event["data"] or {}, event["private"], event["commands"] or "")
            for event in group
        ]
        for epoch, group in groupby(events, key=lambda event: int(event["epoch"]))
    }


def compare(epoch: int, lines: list[Line]) -> list[Difference]:
    """Every line whose orders differ. Raises `NotReplayable`."""
    try:
        return list(replay(lines))
    except ValueError as fault:
        raise NotReplayable(epoch, str(fault)) from None


async def _events(settings: Settings, name: str) -> list[dict[str, Any]]:
    from app.store.calls import Calls

    async with reading.database(settings) as database:
        calls = Calls(database)
        found = await calls.find(name) or await calls.find_by_sid(name)
        if found is None:
            raise NoSuchCall(name)
        return await calls.events(found.call_id)
