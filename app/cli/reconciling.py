"""`callrow reconcile`: our calls beside the carrier's call log; what differs is put right, and what is left is named.

Rule 1: what was found stands on standard output, how far it is on standard error.
Rule 2: exit code 0 says that no gap is left; 1 that one is, or that the log could not be read to its end.
"""

import asyncio
import re
import time as stopwatch
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from app import logs
from app.cli import reading
from app.cli.data import as_json
from app.settings import Settings

if TYPE_CHECKING:
    from app.wrapup.gaps import Reconciliation

AGO = re.compile(r"(\d{1,6})([mhdw])")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
EVERY_S = 1.0
PATIENCE_S = 20.0
"""A page of the log takes the carrier longer than an order to a call."""


@click.command()
@click.option(
    "--since",
    metavar="24h|DATE",
    default="24h",
    show_default=True,
    help="Calls that began then or later: so long ago (m, h, d, w), on this day (BUSINESS_TIMEZONE), or at a moment in ISO 8601.",
)
@click.option("--until", metavar="24h|DATE", help="Calls that began before then, or on this day or earlier; otherwise until now.")
@click.option("--no-repair", is_flag=True, help="Only look: nothing is written anywhere.")
@click.option("--json", "in_json", is_flag=True, help="Print all of it as JSON.")
def reconcile(since: str, until: str | None, no_repair: bool, in_json: bool) -> None:
    """Compare our calls with the carrier's call log, and repair what differs. Exit code 0 if no gap remains."""
    settings = reading.settings()
    logs.set_up(settings.log_level)
    now, zone = datetime.now(UTC), ZoneInfo(settings.business_timezone)
    begin = moment(since, now, zone, "--since")
    end = now if until is None else moment(until, now, zone, "--until", day_ends=True)
    if begin >= min(end, now):
        raise click.BadParameter("there is no time between --since and --until", param_hint="--since")
    found = asyncio.run(_compare(settings, begin, end, repair=not no_repair))
    click.echo(as_json(found.as_json()) if in_json else "\n".join(lines(found, zone)))
    if found.remaining or found.cut_off:
        raise SystemExit(1)


def moment(text: str, now: datetime, zone: ZoneInfo, option: str, *, day_ends: bool = False) -> datetime:
    """The moment that an option means. A day means its beginning, or with `day_ends` its end.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        if ago := AGO.fullmatch(text.strip()):
            return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
            day = date.fromisoformat(text.strip()) + timedelta(days=day_ends)
            return datetime.combine(day, time(), zone)
        found = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is neither 24h nor 2026-11-20 nor a moment in ISO 8601", param_hint=option) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)


async def _compare(settings: Settings, since: datetime, until: datetime, *, repair: bool) -> "Reconciliation":
    from app.twilio.carrier import Carrier
    from app.wrapup.reconcile import Reconciler

    told = stopwatch.monotonic()

    def progress(day: datetime, so_far: "Reconciliation") -> None:
        nonlocal told
        if stopwatch.monotonic() - told >= EVERY_S:
            told = stopwatch.monotonic()
            click.echo(f"{day:%Y-%m-%d}: {so_far.compared:,} calls compared, {so_far.gaps:,} gaps", err=True)

    account, token = settings.twilio_account_sid, settings.auth_tokens[0]
    async with (
        reading.database(settings) as database,
        Carrier(account, token, settings.twilio_api_url, timeout_s=PATIENCE_S) as carrier,
    ):
        return await Reconciler(database, carrier, settings, progress=progress).run(since, until, repair=repair)


def lines(found: "Reconciliation", zone: ZoneInfo) -> list[str]:
    """What was found, for people."""
    since, until = (f"{at.astimezone(zone):%Y-%m-%d %H:%M %Z}" for at in (found.since, found.until))
    told = [f"{since} to {until}: {found.compared:,} calls compared with the carrier's log"]
    for count, what in (
        (found.under_way, "not over for two minutes yet, and not judged"),
        (found.others, "in the log and not ours (other numbers, dialled legs, other programs)"),
        (found.unrated, "without a price at the carrier so far"),
        (found.forgotten, "compared before, and no longer in the carrier's books"),
        (found.accepted, "unknown to the carrier, as somebody has seen"),
        (found.malformed, "that the carrier lists and nobody can read"),
    ):
        if count:
            told.append(f"  {count:,} {what}")
    if found.cut_off:
        told.append("  the log was not read to its end: ask for a shorter time")
    if found.gaps:
        told += ["", f"{'kind':<20}{'found':>8}{'repaired':>10}{'remaining':>11}"]
        for kind, count in found.found.items():
            mended = found.mended.get(kind, 0)
            told.append(f"{kind:<20}{count:>8,}{mended:>10,}{count - mended:>11,}")
            told += [
                f"    {gap.call_id or '(no row)':<26}  {gap.sid}  {'repaired' if gap.repaired else 'left':<8}  {gap.about}".rstrip()
                for gap in found.listed
                if gap.kind is kind
            ]
            if (more := count - sum(gap.kind is kind for gap in found.listed)) > 0:
                told.append(f"    and {more:,} more")
    told += ["", f"gaps {found.gaps:,}, repaired {found.repaired:,}, remaining {found.remaining:,}"]
    return told
