"""`callrow replay CALL`: play a stored call's journal through the machine again, and see whether it orders the same.

A journal written by an older version of the code may differ where the rules have changed since; this says where.
"""

import asyncio
from typing import Any

import click

from app.cli import reading
from app.cli.data import NoSuchCall
from app.settings import Settings


@click.command("replay")
@click.argument("call")
def replay_command(call: str) -> None:
    """Replay CALL (our id or the carrier's CallSid) from its journal. Exit code 0 if the machine orders the same today."""
    from app.store.journals import compare, streams

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


async def _events(settings: Settings, name: str) -> list[dict[str, Any]]:
    from app.store.calls import Calls

    async with reading.database(settings) as database:
        calls = Calls(database)
        found = await calls.find(name) or await calls.find_by_sid(name)
        if found is None:
            raise NoSuchCall(name)
        return await calls.events(found.call_id)
