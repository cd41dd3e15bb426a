"""`callrow evaluate`: how right an analyzer is, on written calls. A change of prompt, model or rule is then a measured change.

It asks no database and no carrier; the model only where it is the analyzer.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli import reading
from app.cli.data import as_json
from app.settings import AnalyzerName, Settings

if TYPE_CHECKING:
    from app.wrapup.evaluation import Report

WRITTEN_CALLS = Path(__file__).parents[2] / "tests" / "calls"
NO_CALLS = (
    "{folder}: there is no such folder. The written calls come with the source code and not with the installed package: "
    "say --calls FOLDER, or stand in a checkout."
)
PARTS = ("tuned", "held out", "all")

analyzer_option = click.option(
    "--analyzer", type=click.Choice([name.value for name in AnalyzerName]), help="Who reads. Default: the setting ANALYZER."
)
rubric_option = click.option(
    "--rubric", type=click.Path(path_type=Path), help="The file of a rubric. Default: the setting RUBRIC_FILE, or the shipped one."
)


@click.command()
@analyzer_option
@rubric_option
@click.option("--calls", "folder", type=click.Path(path_type=Path), default=WRITTEN_CALLS, help="A folder of written calls.")
@click.option("--part", type=click.Choice(PARTS), default="all", show_default=True, help="Whose matrices and mistakes to show.")
@click.option("--mistakes", is_flag=True, help="List every value that is not right.")
@click.option("--json", "in_json", is_flag=True, help="Print it as JSON.")
def evaluate(analyzer: str | None, rubric: Path | None, folder: Path, part: str, mistakes: bool, in_json: bool) -> None:
    """Have written calls read, and print how much of every column is right, and what is taken for what.

    The calls that were held out while rules and prompt were made are the figure to quote.
    """
    settings = chosen(reading.settings_without_keys(), analyzer, rubric)
    if not folder.is_dir():
        raise click.UsageError(NO_CALLS.format(folder=folder))
    report = asyncio.run(_report(settings, folder))
    if in_json:
        click.echo(as_json(report.as_json(part)))
        return
    click.echo(report.text(part), nl=False)
    if mistakes:
        click.echo(f"\nnot right, {part}:")
        for call, column, answer in report.mistakes(part):
            click.echo(f"{call}  {column}  {answer.verdict}  should be {_shown(answer.expected)}, is {_shown(answer.got)}")


def chosen(settings: Settings, analyzer: str | None, rubric: Path | None) -> Settings:
    """The settings, with the analyzer and the rubric that the command names."""
    named: dict[str, object] = {}
    if analyzer is not None:
        named["analyzer"] = AnalyzerName(analyzer)
    if rubric is not None:
        named["rubric_file"] = rubric
    return settings.model_copy(update=named)


async def _report(settings: Settings, folder: Path) -> "Report":
    from app.wrapup.analyzers import analyzer_of
    from app.wrapup.cases import read_cases
    from app.wrapup.evaluation import evaluate

    cases = read_cases(folder)
    async with contextlib.aclosing(analyzer_of(settings)) as analyzer:
        return await evaluate(analyzer, cases)


def _shown(value: str) -> str:
    return f"“{value}”" if value else "NULL"
