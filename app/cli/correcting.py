"""`callrow correct` and `callrow reviewed`: the operator's word, which stands beside the machine's and before it."""

import asyncio
import getpass
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from app.cli import reading
from app.cli.data import NoSuchCall
from app.errors import CallrowError
from app.settings import Settings
from app.wrapup.correction import FIELDS, NotAllowed, corrected
from app.wrapup.facts import Field, Lists

if TYPE_CHECKING:
    from app.store.calls import Calls
    from app.store.judgements import Judgements

LONGEST_NAME = 80


class StillGoingOn(CallrowError):
    """The call has not ended."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        super().__init__(call_id)

    def __str__(self) -> str:
        return f"call {self.call_id} is still going on; there is nothing to judge before it has ended"


def login_name() -> str:
    """Who sits at this machine; nothing if nobody can say."""
    try:
        return getpass.getuser()
    except OSError:  # a container whose user has no name
        return ""


def _a_name(_context: click.Context, _option: click.Parameter, value: str) -> str:
    name = " ".join(value.split())
    if not 0 < len(name) <= LONGEST_NAME:
        raise click.BadParameter(f"say who you are, in at most {LONGEST_NAME} characters")
    if ":" in name:  # a user of the console is named with one
        raise click.BadParameter("say who you are, without a colon")
    return name


by_option = click.option(
    "--by", default=login_name, callback=_a_name, metavar="NAME", help="Who says so; your login name unless given."
)


@click.command()
@click.argument("call")
@click.argument("field", type=click.Choice([field.value for field in FIELDS]), metavar="FIELD")
@click.argument("value", required=False)
@by_option
@click.option("--note", metavar="TEXT", help="Why; kept beside it.")
@click.option("--retract", is_flag=True, help="Take the correction back: what the machine or the agent said stands again.")
@click.option("--none", "nothing", is_flag=True, help="Say that there is nothing of the kind, instead of a VALUE.")
def correct(call: str, field: str, value: str | None, by: str, note: str | None, retract: bool, nothing: bool) -> None:
    """Say what is right: VALUE stands in the row of CALL (our id or the CallSid) from now on, and the CRM is told.

    FIELD is one of: summary, sentiment, intent, lead_score, urgency, escalation, disposition, next_action, name, callback_number,
    reason.
    """
    if [value is not None, retract, nothing].count(True) != 1:
        raise click.UsageError("give a VALUE, or say --none, or --retract")
    if retract and note is not None:
        raise click.UsageError("a note goes with a correction, not with --retract")
    settings = reading.settings_without_keys()
    said: str | int | bool | None = None
    if value is not None:
        try:
            said = corrected(Field(field), value, Lists.of(settings))
        except NotAllowed as fault:
            raise click.UsageError(str(fault)) from None
    if nothing and field == Field.ESCALATION:
        raise click.UsageError("escalation is yes or no")
    asyncio.run(_correct(settings, call, field, said, by=by, note=(note or "").strip() or None, retract=retract))


@click.command()
@click.argument("call")
@by_option
def reviewed(call: str, by: str) -> None:
    """Say that you have looked at the row of CALL (our id or the CallSid) as it stands: it needs no review any more."""
    asyncio.run(_reviewed(reading.settings_without_keys(), call, by))


async def _correct(
    settings: Settings, call: str, field: str, value: str | int | bool | None, *, by: str, note: str | None, retract: bool
) -> None:
    async with judging(settings) as (judgements, calls):
        before = await finished_row(calls, call)
        call_id = before["call_id"]
        if retract:
            changed = await judgements.retract(call_id, field, by=by)
        else:
            changed = await judgements.correct(call_id, field, value, by=by, note=note)
        after = await finished_row(calls, call_id)
    if not changed:
        why = "nobody has corrected it" if retract else "that has been said already"
        click.echo(f"{field}: {in_words(before, field)}; {why}, nothing is changed")
        return
    click.echo(f"{field}: {in_words(before, field)} -> {in_words(after, field)}")
    _still_to_look_at(after)


async def _reviewed(settings: Settings, call: str, by: str) -> None:
    async with judging(settings) as (judgements, calls):
        before = await finished_row(calls, call)
        changed = await judgements.reviewed(before["call_id"], by=by)
    reasons = _reasons(before)
    if not changed:
        click.echo(f"reviewed already, by {before['reviewed_by']}; nothing is changed")
    else:
        click.echo(f"reviewed by {by}{f'; it was to be looked at for {reasons}' if before['needs_review'] else ''}")


@asynccontextmanager
async def judging(settings: Settings) -> AsyncIterator[tuple["Judgements", "Calls"]]:
    """The judgements, with the outbox of these settings, and the calls."""
    from app.store.calls import Calls
    from app.store.judgements import Judgements
    from app.wrapup.outbox import outbox

    async with reading.database(settings) as database:
        yield Judgements(database, outbox(settings)), Calls(database)


async def finished_row(calls: "Calls", name: str) -> dict[str, Any]:
    """The row of a finished call.

    Raises:
        NoSuchCall: there is none of that name.
        StillGoingOn: it is not finished.
    """
    row = await calls.row(name)
    if row is None:
        raise NoSuchCall(name)
    if row["state"] != "final":
        raise StillGoingOn(row["call_id"])
    return row


def in_words(row: Mapping[str, Any], field: str) -> str:
    """The value in force of a field, and whose it is."""
    judged = row["judged"].get(field)
    if judged is None:
        return "none"
    value, whose = judged["value"], judged["said_by"] if judged["source"] == "operator" else judged["source"]
    text = "none" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return f"{text} ({whose})"


def _still_to_look_at(row: Mapping[str, Any]) -> None:
    if row["needs_review"]:
        click.echo(f"still to be looked at: {_reasons(row)}", err=True)


def _reasons(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({why.replace('_', ' ')})" for name, why in (row["review_reasons"] or {}).items())
