"""`callrow export`: the finished rows as a file. `callrow schema`: what a row is.

Rule 1: a file is there whole or not at all: it is written beside its place, readable by its owner alone, and put there at the
end.
Rule 2: an export leaves a line in the audit log: who, how many rows, by which filters, and no value; also when it broke off.
"""

import asyncio
import contextlib
import getpass
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TextIO
from zoneinfo import ZoneInfo

import click

from app.call.disposition import Outcome
from app.cli import reading
from app.errors import BadAgent, OurFault
from app.settings import Settings
from app.store.filters import Filters
from app.wrapup.export import Export, Form

STDOUT = "-"


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Form]),
    default=Form.CSV.value,
    show_default=True,
    help="How to write the rows.",
)
@click.option("--since", metavar="DAY", help="Calls that began on that day or later: 2026-11-20, or a moment: 2026-11-20T09:00.")
@click.option("--until", metavar="DAY", help="Calls that began on that day or earlier; with a moment: before it.")
@click.option("--disposition", multiple=True, metavar="WORD", help="Only these; may be given several times.")
@click.option(
    "--outcome", multiple=True, type=click.Choice([word.value for word in Outcome]), help="Only these; may be given several times."
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), default=STDOUT, help="A file instead of standard output."
)
@click.option("--excel", is_flag=True, help="CSV with an encoding mark and with dates that Excel takes for dates.")
def export(
    form: str,
    since: str | None,
    until: str | None,
    disposition: tuple[str, ...],
    outcome: tuple[str, ...],
    output: Path,
    excel: bool,
) -> None:
    """Write the finished rows, the oldest first: CSV for a spreadsheet, or JSON after `callrow schema`.

    Days are days of BUSINESS_TIMEZONE.
    """
    if excel and form != Form.CSV:
        raise click.UsageError("--excel goes with --format csv")
    settings = reading.settings_without_keys()
    begins, ends = span(ZoneInfo(settings.business_timezone), since, until)
    filters = Filters(since=begins, until=ends, disposition=disposition, outcome=tuple(outcome))
    with writing(output) as file:
        rows = asyncio.run(_export(settings, Form(form), filters, file, excel=excel, to_file=str(output) != STDOUT))
    click.echo(f"{rows:,} row{'s' * (rows != 1)}" + (f" in {output}" if str(output) != STDOUT else ""), err=True)


@click.command()
def schema() -> None:
    """Print the JSON Schema of a row, as webhooks and `export --format json` give it."""
    from app.wrapup.row import schema_text

    click.echo(schema_text(), nl=False)


async def _export(settings: Settings, form: Form, filters: Filters, file: TextIO, *, excel: bool, to_file: bool) -> int:
    from app.store.audit import AuditLog

    rows, whole, tell = 0, False, _progress()
    async with reading.database(settings) as database:
        try:
            pieces = Export(database, zone=ZoneInfo(settings.business_timezone), slots=_slots(settings))
            async with contextlib.aclosing(pieces.written(form, filters, excel=excel)) as written:
                async for text, more in written:
                    file.write(text)
                    rows += more
                    tell(rows)
            file.flush()
            whole = True
        finally:
            tell(None)
            await AuditLog(database).append(
                f"operator:{_who()}",
                "export",
                details={
                    "format": form.value,
                    "rows": rows,
                    "whole": whole,
                    "to": "file" if to_file else "stdout",
                    "since": filters.since.isoformat() if filters.since else None,
                    "until": filters.until.isoformat() if filters.until else None,
                    "filters": [name for name in ("disposition", "outcome") if getattr(filters, name)],
                },
            )
    return rows


def span(zone: ZoneInfo, since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """From the first moment of the one to before the first moment after the other. A day is a whole day of that zone.

    Raises:
        click.BadParameter: one is no day and no moment.
    """
    first = None if since is None else _moment(zone, since, "--since", timedelta())
    last = None if until is None else _moment(zone, until, "--until", timedelta(days=1))
    return first, last


def _moment(zone: ZoneInfo, text: str, option: str, days_after: timedelta) -> datetime:
    try:
        # The next midnight by the calendar, which is not always 24 hours away.
        return datetime.combine(date.fromisoformat(text) + days_after, time(), zone).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = f"'{option}'"
        raise click.BadParameter("is no day like 2026-11-20 and no moment like 2026-11-20T09:00", param_hint=hint) from None


@contextlib.contextmanager
def writing(output: Path) -> Iterator[TextIO]:
    """Where the text goes (rule 1)."""
    if str(output) == STDOUT:
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
        try:
            yield out
        finally:
            out.detach()  # it stays open
        return
    if output.exists() and not output.is_file():
        raise click.UsageError(f"{output} is there and is no file")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    except OSError as fault:
        raise click.UsageError(f"{output.parent} cannot be written to: {fault.strerror}") from None
    beside = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)


def _slots(settings: Settings) -> list[str]:
    """The slots that the agents ask for. Without them an export still has all values, in fewer columns."""
    try:
        agents = reading.agents(settings)
    except (BadAgent, OurFault):
        click.echo("callrow: the agent files cannot be read: slots of their own are in the column other_slots", err=True)
        return []
    return list(dict.fromkeys(slot.name for _, agent in sorted(agents.items()) for slot in agent.slots))


def _progress() -> Callable[[int | None], None]:
    """How far it is, on one line of a terminal; None ends the line."""
    terminal = sys.stderr.isatty()

    def tell(rows: int | None) -> None:
        if terminal:
            click.echo("" if rows is None else f"\r{rows:,} rows", nl=rows is None, err=True)

    return tell


def _who() -> str:
    """Who is at the keyboard, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may know no names
        return "cli"
