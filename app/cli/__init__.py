"""`callrow`, the command line: thin. A command reads the settings, asks the rooms below, and says what came of it.

Rule 1: standard output is the answer and nothing else; everything said about the way there goes to standard error.
Rule 2: exit code 0 is yes, 1 is no, 2 is bad input: wrong settings, a wrong agent file, a wrong option. There is no traceback for
what an operator can put right.
Rule 3: a command's module is imported when the command is called: `callrow show` loads no audio, `callrow migrate` no web.
"""

from importlib import import_module

import click

from app import __version__
from app.errors import BadAgent, BadSetting, CallrowError, StoreUnavailable

COMMANDS = {
    "up": "app.cli.up:up",
    "serve": "app.cli.serve:serve",
    "jobs": "app.cli.jobs:jobs",
    "migrate": "app.cli.data:migrate_command",
    "doctor": "app.cli.doctor:doctor",
    "rehearse": "app.cli.rehearse:rehearse",
    "replay": "app.cli.replay:replay_command",
    "lines": "app.cli.speaking:lines_command",
    "show": "app.cli.data:show",
    "agents": "app.cli.data:agents",
    "export": "app.cli.exporting:export",
    "schema": "app.cli.exporting:schema",
    "evaluate": "app.cli.evaluating:evaluate",
    "rescore": "app.cli.rescoring:rescore",
    "reconcile": "app.cli.reconciling:reconcile",
    "correct": "app.cli.correcting:correct",
    "reviewed": "app.cli.correcting:reviewed",
    "deliveries": "app.cli.deliveries:deliveries",
    "resend": "app.cli.deliveries:resend",
    "analyse": "app.cli.deliveries:analyse",
    "example": "app.cli.data:example",
    "user": "app.cli.users:user",
    "seed": "app.cli.seed:seed",
}


class Callrow(click.Group):
    """Finds a command when it is called (rule 3), and turns our own errors into sentences and exit codes (rule 2)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (BadSetting, BadAgent) as fault:
            click.echo(f"callrow: {fault}", err=True)
            ctx.exit(2)
        except StoreUnavailable as fault:
            click.echo(f"callrow: {fault}", err=True)
            click.echo("  Does it run, and is DATABASE_URL right? callrow doctor says which database is meant.", err=True)
            ctx.exit(1)
        except CallrowError as fault:
            click.echo(f"callrow: {fault}", err=True)
            ctx.exit(1)


@click.group(cls=Callrow, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="callrow")
def main() -> None:
    """Every phone call answered; every call one row.

    Settings are read from the environment and from the file .env of the folder you stand in.
    """
