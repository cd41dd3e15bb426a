"""Commands that ask the database and the agent files, and nobody outside: migrate, show, agents, example."""

import asyncio
import json
from typing import Any

import click

from app.cli import reading
from app.errors import CallrowError
from app.settings import Settings


class NoSuchCall(CallrowError):
    """No call is known by that name."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return f"no call is known by the name {self.name}" if self.name else "there is no call yet"


@click.command("migrate")
def migrate_command() -> None:
    """Bring the database to the newest shape. Run it before `serve`, at every release; twice does no harm."""
    from app.store import migrate

    url = reading.settings_without_keys().database_url
    before = migrate.current(url)
    migrate.upgrade(url)
    after = migrate.current(url)
    what = f"is at {after} already" if before == after else f"migrated from {before or 'nothing'} to {after}"
    click.echo(f"{reading.database_name(url)}: {what}")


@click.command()
@click.argument("call", required=False)
@click.option("--latest", is_flag=True, help="The last call.")
def show(call: str | None, latest: bool) -> None:
    """Print the row of CALL (our id or the carrier's CallSid) as JSON, with what was said, the turns and the tools."""
    if (call is None) == (not latest):
        raise click.UsageError("name a call, or say --latest")
    click.echo(as_json(asyncio.run(_row(reading.settings_without_keys(), call))))


@click.command()
def agents() -> None:
    """Check the agent files and list who answers."""
    settings = reading.settings_without_keys()
    for name, agent in sorted(reading.agents(settings).items()):
        first = "  (answers first)" if name == settings.first_agent else ""
        click.echo(f"{name}{first}")
        click.echo(f"  version   {agent.version}")
        click.echo(f"  tools     {', '.join(tool.name for tool in agent.tools)}")
        if agent.hands_off_to:
            click.echo(f"  hands to  {', '.join(agent.hands_off_to)}")
        if agent.slots:
            click.echo(f"  asks for  {', '.join(slot.name for slot in agent.slots)}")


@click.command()
def example() -> None:
    """Fill the example business that the shipped tools work on: its customers."""
    click.echo(asyncio.run(seed(reading.settings_without_keys())))


async def seed(settings: Settings) -> str:
    """Fill the example business; says what was done. Twice does no harm."""
    from app.store.business import INVENTED, Business

    async with reading.database(settings) as database:
        await Business(database).seed_example()
    return f"the example business knows its {len(INVENTED)} invented customers; appointments are free on every hour it is open"


async def _row(settings: Settings, name: str | None) -> dict[str, Any]:
    from app.store.calls import Calls

    async with reading.database(settings) as database:
        calls = Calls(database)
        if name is None:
            newest = await calls.latest(1)
            name = newest[0]["call_id"] if newest else None
        row = await calls.row(name) if name else None
    if row is None:
        raise NoSuchCall(name)
    return row


def as_json(value: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(value, indent=2, ensure_ascii=False)
