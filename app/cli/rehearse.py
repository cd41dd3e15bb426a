"""`callrow rehearse`: one spoken call through the real code path, on this machine, without keys.

A pretend carrier and a pretend model (app/rehearsal) stand at the two ends; between them is the service as it is.
"""

import os
from pathlib import Path

import click

from app.cli import stage
from app.cli.data import as_json
from app.cli.watching import columns, judged_lines
from app.rehearsal import scenes
from app.rehearsal.runner import Report

PLAIN = "booking"
"""What is played unless a scene is named."""


SOUND = click.Path(dir_okay=False, resolve_path=True, path_type=Path)


@click.command()
@click.argument("scene", default=PLAIN)
@click.option("--json", "only_json", is_flag=True, help="Print the finished row as one JSON object, and nothing else.")
@click.option(
    "--listen",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the call as stereo WAV: left the caller, right what they heard.",
)
@click.option("--list", "only_list", is_flag=True, help="Name the scenes and end.")
def rehearse(scene: str, only_json: bool, listen: Path | None, only_list: bool) -> None:
    """Play SCENE (a shipped one, or a path to a .toml file); exit code 0 if everything it expects held."""
    if only_list:
        for name in scenes.shipped():
            click.echo(f"{name:<22}  {scenes.load(name).title}")
        return
    try:
        about = scenes.load(scene)
    except scenes.BadScene as fault:
        raise click.BadParameter(str(fault), param_hint="SCENE") from None
    if listen is not None and not os.access(listen.parent, os.W_OK):
        raise click.BadParameter(f"{listen.parent} is no folder that can be written to", param_hint="--listen")

    def tell(line: str) -> None:
        click.echo(line, err=only_json)

    async def play() -> int:
        tell(f"rehearsal of {about.name}: {about.title}")
        async with stage.stage() as here:
            report = await here.play(scene, tell=tell, listen=listen)
        if report.row is not None:
            if only_json:
                click.echo(as_json(report.row))
            else:
                tell("the finished row (all of it, with what was said, with --json):")
                tell(as_json(columns(report.row)))
                tell("what the reading of the call found, each with what it rests on:")
                for line in judged_lines(report.row):
                    tell(line)
        for line in verdict(report):
            tell(line)
        if listen is not None:
            tell(f"to listen to it: {listen}")
        return 0 if report.passed else 1

    raise SystemExit(stage.run(play))


def verdict(report: Report) -> list[str]:
    """Whether it held, and what did not."""
    if report.passed:
        return [f"{report.scene}: all that the scene expects held ({report.seconds:.0f} s)"]
    return [f"{report.scene}: what the scene expects did not hold:", *(f"  {failure}" for failure in report.failures)]
