"""`callrow deliveries`, `callrow resend` and `callrow analyse`: what has not reached anybody, or was never read, and once more.

The jobs process does the work; these commands say what is to be done.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import click

from app.cli import reading
from app.cli.correcting import by_option, finished_row, judging
from app.cli.data import NoSuchCall, as_json
from app.settings import Settings

PORTION = 500
COLUMNS = ("id", "state", "kind", "destination", "event", "revision", "attempts", "status", "last fault", "next attempt")


@click.command()
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]), help="Only these.")
@click.option("--call", metavar="CALL", help="Only those of this call (our id or the CallSid).")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The newest so many.")
@click.option("--json", "in_json", is_flag=True, help="Print them as JSON.")
def deliveries(state: str | None, call: str | None, limit: int, in_json: bool) -> None:
    """List what was told, or is to be told, to the CRM and to people: the newest first, without the contents."""
    found, counts = asyncio.run(_deliveries(reading.settings_without_keys(), state, call, limit))
    if in_json:
        click.echo(as_json(found))
        return
    for line in table([COLUMNS, *(_cells(each) for each in found)] if found else []):
        click.echo(line)
    click.echo(f"in all {', '.join(f'{number} {name}' for name, number in counts.items())}", err=True)


@click.command()
@click.argument("delivery", nargs=-1)
@click.option("--dead", is_flag=True, help="All that are dead.")
@by_option
def resend(delivery: tuple[str, ...], dead: bool, by: str) -> None:
    """Send a DELIVERY again, dead or delivered, as the same message under the same id: a receiver that keeps ids takes it once."""
    if bool(delivery) == dead:
        raise click.UsageError("name the deliveries, or say --dead")
    asked = asyncio.run(_resend(reading.settings_without_keys(), delivery, by))
    _say(asked, "to be sent again", "is unknown, or on its way anyway")


@click.command()
@click.argument("call", nargs=-1)
@click.option("--failed", is_flag=True, help="All whose reading was given up.")
@by_option
def analyse(call: tuple[str, ...], failed: bool, by: str) -> None:
    """Have a CALL (our id or the CallSid) read that was given up. One that was read is read anew by `callrow rescore`."""
    if bool(call) == failed:
        raise click.UsageError("name the calls, or say --failed")
    asked = asyncio.run(_analyse(reading.settings_without_keys(), call, by))
    _say(asked, "to be read again", "was read, or is to be read anyway")


async def _deliveries(
    settings: Settings, state: str | None, call: str | None, limit: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    from app.store.calls import Calls
    from app.store.deliveries import Deliveries

    async with reading.database(settings) as database:
        call_id = None
        if call is not None:
            calls = Calls(database)
            known = await calls.find(call) or await calls.find_by_sid(call)
            if known is None:
                raise NoSuchCall(call)
            call_id = known.call_id
        shelf = Deliveries(database)
        return await shelf.list(state=state, call_id=call_id, limit=limit), await shelf.counts()


async def _resend(settings: Settings, names: Sequence[str], by: str) -> dict[str, bool]:
    from app.store.deliveries import Deliveries

    async with reading.database(settings) as database:
        shelf = Deliveries(database)
        if names:
            return {name: await shelf.resend(name, by) for name in dict.fromkeys(names)}

        async def dead() -> list[str]:
            return [str(each["id"]) for each in await shelf.list(state="dead", limit=PORTION)]

        return await _all(dead, lambda name: shelf.resend(name, by))


async def _analyse(settings: Settings, names: Sequence[str], by: str) -> dict[str, bool]:
    async with judging(settings) as (judgements, calls):
        if names:
            rows = [await finished_row(calls, name) for name in dict.fromkeys(names)]
            return {row["call_id"]: await judgements.again(row["call_id"], by) for row in rows}
        return await _all(lambda: judgements.failed(PORTION), lambda name: judgements.again(name, by))


async def _all(
    find: Callable[[], Coroutine[Any, Any, list[str]]], ask: Callable[[str], Coroutine[Any, Any, bool]]
) -> dict[str, bool]:
    """Ask for everything that is found, each once, until nothing new is found."""
    asked: dict[str, bool] = {}
    while new := [name for name in await find() if name not in asked]:
        for name in new:
            asked[name] = await ask(name)
    return asked


def _say(asked: Mapping[str, bool], done: str, why_not: str) -> None:
    for name, did in asked.items():
        if not did:
            click.echo(f"{name}: {why_not}", err=True)
    click.echo(f"{sum(asked.values())} {done}")
    if not all(asked.values()):
        click.get_current_context().exit(1)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("id", "state", "kind", "destination", "event", "revision", "attempts", "last_status", "last_fault", "next_attempt_at")
    return tuple("" if row[name] is None else str(row[name]) for name in names)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
