"""`callrow rescore`: read old calls with the analyzer and rubric of today, see what would change, put it in force, or take it back.

Rule 1: what was said stands on standard output, how far it is on standard error.
Rule 2: nothing comes into force without a yes: at the prompt, or by --apply. Nobody there to say it is a no.
Rule 3: an operator's corrections stand whatever is applied; the CRM is told of every row that changes.
"""

import asyncio
import contextlib
import getpass
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from app.cli import reading
from app.cli.data import as_json
from app.cli.evaluating import analyzer_option, chosen, rubric_option
from app.errors import CallrowError
from app.settings import Settings

if TYPE_CHECKING:
    from app.store.engine import Database
    from app.store.judgements import Difference, Judgements
    from app.wrapup.rescoring import Progress

DAY = click.DateTime(formats=["%Y-%m-%d"])
SHOWN = 50
LONGEST_TEXT = 60
EVERY_S = 1.0


class NoSuchBatch(CallrowError):
    """No rescoring has this name."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        super().__init__(batch)

    def __str__(self) -> str:
        return f"no rescoring is called {self.batch}; callrow rescore --list shows those there are"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls are to be read: begun from `since` to before `until`, the newest first, at most `limit`."""

    since: datetime | None
    until: datetime | None
    limit: int | None


@click.command()
@click.option("--since", type=DAY, help="Calls that began on this day or later (BUSINESS_TIMEZONE), such as 2026-11-01.")
@click.option("--until", type=DAY, help="Calls that began on this day or earlier.")
@click.option("--limit", type=click.IntRange(min=1), help="Read at most so many, the newest first.")
@analyzer_option
@rubric_option
@click.option("--batch", help="The name to keep the readings under; that of a run that was stopped goes on where it was.")
@click.option("--kept", is_flag=True, help="Read nothing more: what --batch has kept is shown, and put in force or not.")
@click.option("--apply", "--yes", "apply", is_flag=True, help="Put it in force without asking.")
@click.option("--show", type=click.IntRange(min=0), default=SHOWN, show_default=True, help="How many calls to show in full.")
@click.option("--json", "in_json", is_flag=True, help="Print everything as JSON, and ask nothing.")
@click.option("--undo", metavar="BATCH", help="Take a batch back: what stood before stands again.")
@click.option("--list", "list_them", is_flag=True, help="List the batches there are.")
def rescore(
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    analyzer: str | None,
    rubric: Path | None,
    batch: str | None,
    kept: bool,
    apply: bool,
    show: int,
    in_json: bool,
    undo: str | None,
    list_them: bool,
) -> None:
    """Read old calls anew, show what would be different, and put it in force after a yes."""
    settings = chosen(reading.settings_without_keys(), analyzer, rubric)
    if undo is not None or list_them:
        if (undo is not None and list_them) or any((since, until, limit, analyzer, rubric, batch, kept, apply)):
            raise click.UsageError("--undo and --list stand alone (or with --json)")
        asyncio.run(_undo(settings, undo, in_json) if undo is not None else _list(settings, in_json))
        return
    if kept and (batch is None or any((since, until, limit, analyzer, rubric))):
        raise click.UsageError("--kept goes with --batch, and with no choice of calls, analyzer or rubric")
    wanted = None if kept else Wanted(*_span(settings, since, until), limit)
    batch = batch or f"rescore-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    asyncio.run(_rescore(settings, batch, wanted, apply=apply, show=show, in_json=in_json))


async def _rescore(settings: Settings, batch: str, wanted: Wanted | None, *, apply: bool, show: int, in_json: bool) -> None:
    from app.wrapup.rescoring import Progress, check_name

    check_name(batch)
    async with _judgements(settings) as (judgements, database):
        if wanted is None:
            await _must_be_there(judgements, batch)
        progress = await _read(settings, judgements, database, batch, wanted) if wanted is not None else Progress(0)
        found = [each async for each in judgements.differences(batch)]
        changing = [each for each in found if each.changes]
        if in_json:
            applied = await judgements.apply(batch, by=_operator()) if apply else 0
            click.echo(as_json(_told(batch, progress, found, applied)))
            return
        for line in _text(batch, found, changing, show):
            click.echo(line)
        if not found:
            return
        if not apply and not (changing and _yes(f"Put batch {batch} in force, for {_calls(len(found))}?")):
            click.echo(f"Nothing is changed. In force it comes with: callrow rescore --batch {batch} --kept --apply", err=True)
            return
        applied = await judgements.apply(batch, by=_operator())
        click.echo(f"in force for {_calls(applied)}. To take it back: callrow rescore --undo {batch}")


async def _read(settings: Settings, judgements: "Judgements", database: "Database", batch: str, wanted: Wanted) -> "Progress":
    from app.store.rescoring import not_read
    from app.wrapup.analyzers import analyzer_of
    from app.wrapup.facts import Lists
    from app.wrapup.rescoring import Progress, Rescoring, RescoringStopped

    lists = Lists.of(settings)
    call_ids = await not_read(database, batch, since=wanted.since, until=wanted.until, limit=wanted.limit)
    async with contextlib.aclosing(analyzer_of(settings, lists)) as analyzer:
        click.echo(f"batch {batch}: {_calls(len(call_ids))} to be read by {analyzer.name}, rubric {lists.rubric.version}", err=True)
        progress = Progress(len(call_ids))
        if call_ids:
            try:
                progress = await Rescoring(judgements, analyzer, lists, told=_teller()).read(batch, call_ids)
            except RescoringStopped:
                click.echo(f"what was read is kept; go on with: callrow rescore --batch {batch}", err=True)
                raise
            click.echo(_how_far(progress), err=True)
    for name, count in sorted(progress.faults.items()):
        click.echo(f"not read: {count} by {name}; the same --batch tries them again", err=True)
    return progress


async def _undo(settings: Settings, batch: str, in_json: bool) -> None:
    async with _judgements(settings) as (judgements, _):
        await _must_be_there(judgements, batch)
        withdrawn = await judgements.withdraw(batch, by=_operator())
    click.echo(
        as_json({"batch": batch, "withdrawn": withdrawn}) if in_json else f"batch {batch}: taken back for {_calls(withdrawn)}"
    )


async def _must_be_there(judgements: "Judgements", batch: str) -> None:
    if batch not in {each["batch"] for each in await judgements.batches()}:
        raise NoSuchBatch(batch)


async def _list(settings: Settings, in_json: bool) -> None:
    async with _judgements(settings) as (judgements, _):
        batches = await judgements.batches()
    if in_json:
        click.echo(as_json(batches))
        return
    for each in batches:
        by = " ".join(filter(None, (each["analyzer"], each["model"], each["prompt_version"])))
        click.echo(
            f"{each['batch']}  {each['created_at'][:16]}  {_calls(each['calls'])}, {each['applied']} in force, "
            f"{each['withdrawn']} taken back  ({by}, rubric {each['rubric']})"
        )
    if not batches:
        click.echo("no call has been scored anew yet", err=True)


@contextlib.asynccontextmanager
async def _judgements(settings: Settings) -> "AsyncIterator[tuple[Judgements, Database]]":
    from app.store.judgements import Judgements
    from app.wrapup.outbox import outbox

    async with reading.database(settings) as database:
        yield Judgements(database, outbox(settings)), database


# ---- what is said


def _text(batch: str, found: "list[Difference]", changing: "list[Difference]", show: int) -> list[str]:
    """What would be different: how often in which field, then call by call."""
    if not found:
        return [f"batch {batch}: nothing that is not in force already"]
    lines = [f"batch {batch}: {_calls(len(found))} not in force, {len(changing)} of them would be different"]
    counts = Counter(name for each in changing for name in each.changes)
    lines += [f"  {name:<18}{count:>7}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    for each in changing[:show]:
        lines += ["", each.call_id]
        lines += [f"  {name}: {_short(before)} -> {_short(after)}" for name, (before, after) in each.changes.items()]
    if len(changing) > show:
        lines += ["", f"and {_calls(len(changing) - show)} more: --show {len(changing)}"]
    return lines


def _told(batch: str, progress: "Progress", found: "list[Difference]", applied: int) -> dict[str, Any]:
    return {
        "batch": batch,
        "read": progress.read,
        "not_read": dict(progress.faults),
        "tokens": {"in": progress.tokens_in, "out": progress.tokens_out},
        "calls": len(found),
        "changes": {
            each.call_id: {name: {"before": before, "after": after} for name, (before, after) in each.changes.items()}
            for each in found
            if each.changes
        },
        "applied": applied,
    }


def _short(value: Any) -> str:
    if value is None:
        return "NULL"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    short = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1].rstrip() + "…"
    return f"“{short}”" if isinstance(value, str) and " " in text else short


def _how_far(progress: "Progress") -> str:
    tokens = f", tokens in {progress.tokens_in:,}, out {progress.tokens_out:,}" if progress.tokens_in else ""
    return f"{progress.done:,} of {progress.total:,} calls, {progress.faults.total():,} not read{tokens}"


def _teller() -> "Any":
    """Says how far it is, once a second at most."""
    loop = asyncio.get_running_loop()
    last = loop.time()

    def tell(progress: "Progress") -> None:
        nonlocal last
        if loop.time() - last >= EVERY_S:
            last = loop.time()
            click.echo(_how_far(progress), err=True)

    return tell


def _calls(count: int) -> str:
    return f"{count:,} call" + ("" if count == 1 else "s")


def _yes(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # nobody there (rule 2)
        click.echo(err=True)
        return False


def _operator() -> str:
    """Who is at the keyboard, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may know no names
        return "cli"


def _span(settings: Settings, since: datetime | None, until: datetime | None) -> tuple[datetime | None, datetime | None]:
    """From the first moment of the one day to before the first moment after the other, as the business counts days."""
    zone = ZoneInfo(settings.business_timezone)

    def midnight(day: date) -> datetime:
        return datetime.combine(day, time(), zone)

    return (
        midnight(since.date()) if since else None,
        midnight(until.date() + timedelta(days=1)) if until else None,
    )
