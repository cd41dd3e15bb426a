"""`callrow up`, which scripts/run calls: migrate, and serve. Live with the keys; without any, a rehearsal first."""

import sys

import click

from app.cli import data, reading, stage
from app.cli.addresses import Addresses
from app.cli.rehearse import PLAIN, verdict
from app.cli.serve import run
from app.cli.watching import columns, judged_lines
from app.rehearsal import scenes
from app.settings import Settings


@click.command()
def up() -> None:
    """Migrate and serve: live with Twilio's and OpenAI's keys; without any, a rehearsal that you can watch."""
    env = reading.given()
    missing = reading.missing_keys(env)
    if len(missing) == len(reading.KEYS):
        raise SystemExit(stage.run(rehearsal))
    raise SystemExit(live(reading.settings()))  # names what is missing, if anything is


def live(settings: Settings) -> int:
    """Migrate, say what to enter at the carrier, and serve."""
    from app.store import migrate

    migrate.upgrade(settings.database_url)
    click.echo(f"database    {reading.database_name(settings.database_url)}, migrated")
    click.echo(f"model       {settings.realtime_model}, with the key that is set")
    click.echo("In the Twilio console, Phone Numbers, your number, Voice Configuration, enter:")
    for line in Addresses.of(settings).lines():
        click.echo(f"  {line}")
    click.echo("To see whether everything fits, in another terminal: .venv/bin/callrow doctor")
    click.echo(f"serving on {settings.host}, port {settings.port}; stop with Ctrl-C (live calls end first; twice: at once)")
    sys.stdout.flush()
    return run(settings)


async def rehearsal() -> int:
    """Serve with pretend peers, show one call, and go on serving."""
    settings = reading.settings_without_keys()
    click.echo("No keys of Twilio and OpenAI are set: this is a rehearsal with a pretend carrier and model.")
    click.echo(f"database    {reading.database_name(settings.database_url)}")
    async with stage.stage(host=settings.host, port=settings.port, database_url=settings.database_url) as here:
        click.echo(f"service     {here.settings.public_url}, ready")
        click.echo(f"scene       {PLAIN}: {scenes.load(PLAIN).title}")
        report = await here.play(PLAIN, tell=click.echo)
        if report.row is not None:
            click.echo("the finished row (all of it, with what was said: .venv/bin/callrow show --latest):")
            click.echo(data.as_json(columns(report.row)))
            click.echo("what the reading of the call found, each with what it rests on:")
            for line in judged_lines(report.row):
                click.echo(line)
        for line in verdict(report):
            click.echo(line)
        click.echo(f"serving on {here.settings.public_url}; stop with Ctrl-C")
        click.echo(await console_line(here.settings))
        click.echo(f"another call, in another terminal: .venv/bin/callrow rehearse SCENE   ({', '.join(scenes.shipped())})")
        click.echo("to go live, put the keys into .env: see .env.example and the README")
        await here.service.wait()
    click.echo("the service ended by itself; stopped", err=True)
    return 1


async def console_line(settings: Settings) -> str:
    """Where the console is, and who may sign in: an account made for trying it, unless there are accounts already."""
    from app.cli.users import DEMO, demo_user
    from app.store.users import Users

    where = f"console     {settings.public_url}/console"
    async with reading.database(settings) as database:
        if not database.embedded or any(user.name != DEMO for user in await Users(database).all()):
            return f"{where}, with your account (callrow user list)"
        name, word = await demo_user(database)
    return f"{where}, name {name}, password {word}  (made for this rehearsal)"
