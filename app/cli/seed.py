"""`callrow seed`: a believable month of calls, for trying the console.

Rule 1: a database with calls of real people is left alone unless that is asked for.
Rule 2: the same seed, count and end give the same calls.
Rule 3: all calls have their row, turns, errands and words of the summary; the newest also what was said, its words, the reading and
what it judged. A row of the others is as it would be if that had been deleted since.
"""

import asyncio
import getpass
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import click
import sqlalchemy as sa

from app.cli import reading
from app.errors import OurFault
from app.settings import Settings

BATCH = 1_000
LIVE = 6
MOST_TALKS = 300
"""Different ones. Each is read by the rules, which takes longer than writing it down."""
TOLD = 100
"""The newest calls of which the CRM was told, one of them in vain."""
CORRECTED, REVIEWED, WAITING = 12, 12, 3
SHARE_FAILED = 0.003
BY = "user:demo"


class HasCalls(OurFault):
    """The database has calls already."""

    def __init__(self, real: int, seeded: int) -> None:
        self.real, self.seeded = real, seeded
        super().__init__(real, seeded)

    def __str__(self) -> str:
        what = f"{self.real:,} calls that are not seeded" if self.real else f"{self.seeded:,} seeded calls"
        return f"the database has {what}; with --add the new ones are put beside them"


@click.command()
@click.option("--calls", default=3_000, show_default=True, type=click.IntRange(1, 5_000_000), help="How many.")
@click.option("--days", default=31, show_default=True, type=click.IntRange(1, 400), help="Over how many days, today included.")
@click.option(
    "--whole", default=4_000, show_default=True, type=click.IntRange(0), help="The newest that have everything said in them."
)
@click.option("--seed", "number", default=1, show_default=True, help="Another number, other calls.")
@click.option("--until", help="The moment at which the month ends, as 2026-11-20T17:00; default: now.")
@click.option("--database-url", help="Another database than DATABASE_URL.")
@click.option("--add", is_flag=True, help="Also into a database that has calls.")
def seed(calls: int, days: int, whole: int, number: int, until: str | None, database_url: str | None, add: bool) -> None:
    """Fill a database with a month of invented calls, for trying the console."""
    from app.store import migrate

    settings = reading.settings_without_keys()
    if database_url is not None:
        settings = settings.model_copy(update={"database_url": database_url})
    zone = ZoneInfo(settings.business_timezone)
    try:
        end = datetime.now(UTC).replace(microsecond=0) if until is None else datetime.fromisoformat(until)
    except ValueError:
        raise click.BadParameter("is no moment like 2026-11-20T17:00", param_hint="'--until'") from None
    end = (end if end.tzinfo else end.replace(tzinfo=zone)).astimezone(UTC)
    if migrate.current(settings.database_url) is None:  # nothing is there yet
        migrate.upgrade(settings.database_url)
    elif not migrate.is_current(settings.database_url):
        raise click.ClickException("the database is not at this version; run: callrow migrate")
    began = time.monotonic()
    with _telling(calls) as tell:
        made = Seeder(settings, number, add=add).fill(calls, days, whole, end, tell)
    click.echo(
        f"{calls:,} calls in {time.monotonic() - began:.0f} s, {made['live']} of them in progress; of the newest {made['whole']:,} "
        "everything that was said"
    )


class Seeder:
    """Fills one database."""

    def __init__(self, settings: Settings, number: int, *, add: bool = False) -> None:
        from app.store.engine import migration_engine
        from app.store.private import Seal, use_seal

        self._settings, self._number, self._add = settings, number, add
        self._key = settings.data_key.get_secret_value() if settings.data_key else None
        self._seal = Seal(self._key)
        self._engine = migration_engine(settings.database_url)
        use_seal(self._engine.dialect, self._seal)
        self._indexes: dict[str | None, str | None] = {None: None}
        self._tokens: dict[str, int] = {}

    def fill(self, count: int, days: int, whole: int, end: datetime, tell: Any) -> dict[str, int]:
        """All of it. Raises `HasCalls`."""
        from app.cli.seed_rows import Sheaf, moments

        there = self._there()
        dice = Random(f"{self._number} {there}")  # noqa: S311 (not for secrets)
        zone = ZoneInfo(self._settings.business_timezone)
        sheaf = Sheaf(dice, self._settings, max(30, min(MOST_TALKS, count // 2)))
        live = min(LIVE, count // 2)
        starts = moments(dice, count - live, days, end, zone)
        newest: list[str] = []
        for first in range(0, len(starts), BATCH):
            rows: dict[str, list[dict[str, Any]]] = {}
            for place, at in enumerate(starts[first : first + BATCH], first):
                newest.append(self._finished(rows, sheaf, dice, at, end, whole=len(starts) - place <= whole))
            self._insert(rows)
            newest = newest[-max(TOLD, whole) :]
            tell(first + BATCH)
        rows = {}
        for place in range(live):
            self._live(rows, sheaf, dice, end - timedelta(seconds=20 + 37 * place))
        self._insert(rows)
        self._engine.dispose()
        details = {"calls": count, "days": days, "seed": self._number}
        asyncio.run(self._afterwards(newest[-whole:] if whole else [], dice, details))
        return {"live": live, "whole": min(whole, len(starts))}

    def _there(self) -> int:
        from app.cli.seed_rows import SEEDED
        from app.store.tables import calls

        with self._engine.connect() as connection:
            of_seed = calls.c.account_sid == SEEDED
            counted = sa.select(sa.func.count(), sa.func.count(sa.case((of_seed, 1)))).select_from(calls)
            everything, seeded = connection.execute(counted).one()
        if everything and not self._add:
            raise HasCalls(everything - seeded, seeded)
        return int(everything)

    # ---- rows

    def _finished(self, rows: dict[str, Any], sheaf: Any, dice: Random, at: datetime, end: datetime, *, whole: bool) -> str:
        from app.store import facts
        from app.store.tables import AnalysisState

        each = sheaf.any()
        lasts = timedelta(milliseconds=each.lasts_ms)
        at = min(at, end - lasts - timedelta(minutes=1))
        row = sheaf.call(each, at, self._index)
        call_id: str = row["call_id"]
        if dice.random() < SHARE_FAILED:
            unread = {**facts.memory_columns(each.memory), "sentiment": None, "sentiment_course": None, "lead_score": None}
            row |= {**unread, "analyzer": None, "review_reasons": None, "needs_review": False, "escalation_reason": None}
            row |= {"analysis": AnalysisState.FAILED, "analysis_fault": "QuotaExhausted", "analysis_attempts": 10}
        rows.setdefault("calls", []).append(row)
        rows.setdefault("turns", []).extend(facts.turn_columns(call_id, 1, turn) for turn in each.turns)
        rows.setdefault("tool_invocations", []).extend(sheaf.invocations(each, call_id, at))
        is_read = row["analysis"] is AnalysisState.DONE
        words = (each.words_of_summary if is_read else set()) | (each.words if whole else set())
        rows.setdefault("search_tokens", []).extend(
            {"token": self._token(word), "started_at": at, "call_id": call_id} for word in sorted(words)
        )
        if whole:
            rows.setdefault("utterances", []).extend(
                facts.utterance_columns(call_id, 1, number, said) for number, said in enumerate(each.utterances)
            )
        if whole and is_read:
            read = sheaf.reading(each, call_id, row["analyzed_at"])
            rows.setdefault("readings", []).append(read)
            judged = [one | {"reading_id": read["id"]} for one in sheaf.judged(each, row["analyzed_at"])]
            rows.setdefault("judgements", []).extend(
                one | {"call_id": call_id} for one in (*sheaf.noted(each, row["analyzed_at"]), *judged)
            )
        return call_id

    def _live(self, rows: dict[str, Any], sheaf: Any, dice: Random, at: datetime) -> None:
        from app.store import facts

        each = dice.choice(sheaf.talks)
        so_far = int(timedelta(seconds=20).total_seconds() * 1_000) + dice.randrange(60_000)
        row = sheaf.call(each, at, self._index, live_ms=so_far)
        rows.setdefault("calls", []).append(row)
        said = [utterance for utterance in each.utterances if utterance.ended_at < so_far]
        rows.setdefault("utterances", []).extend(
            facts.utterance_columns(row["call_id"], 1, number, utterance) for number, utterance in enumerate(said)
        )
        rows.setdefault("turns", []).extend(
            facts.turn_columns(row["call_id"], 1, turn) for turn in each.turns if (turn.audible_at or 0) < so_far
        )

    def _insert(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        from app.store.tables import metadata

        order = ("calls", "turns", "tool_invocations", "utterances", "readings", "judgements", "search_tokens")
        with self._engine.begin() as connection:
            for name in order:
                if rows.get(name):
                    connection.execute(sa.insert(metadata.tables[name]), _alike(rows[name]))

    def _index(self, number: str | None) -> str | None:
        if number not in self._indexes:
            self._indexes[number] = self._seal.blind_index(number or "")
        return self._indexes[number]

    def _token(self, word: str) -> int:
        if word not in self._tokens:
            self._tokens[word] = self._seal.blind_word(word)
        return self._tokens[word]

    # ---- what people and the jobs did since

    async def _afterwards(self, newest: list[str], dice: Random, details: dict[str, Any]) -> None:
        """Through the same doors as ever: corrections, reviews, what the CRM was told; and the line in the audit log."""
        from app.store.audit import AuditLog
        from app.store.calls import Calls
        from app.store.engine import Database
        from app.store.judgements import Judgements
        from app.wrapup.outbox import outbox

        database = Database(self._settings.database_url, self._key)
        told = outbox(
            self._settings.model_copy(
                update={"webhook_url": "https://crm.example.com/hook", "smtp_url": None, "chat_webhook_url": None}
            )
        )
        try:
            await AuditLog(database).append(f"cli:{_who()}", "database.seeded", None, details)
            some = [await Calls(database).row(name) for name in newest[-TOLD:]]
            rows = [row for row in some if row is not None and row["analysis"] == "done"]
            spoken = [row for row in rows if row["disposition"] is not None]
            judgements = Judgements(database)
            for row in spoken[:CORRECTED]:
                field, value = dice.choice(
                    (
                        ("disposition", dice.choice(self._settings.dispositions)),
                        ("lead_score", dice.randrange(40, 100)),
                        ("urgency", "high"),
                    )
                )
                await judgements.correct(row["call_id"], field, value, by=BY, note="Heard it again.")
            flagged = [row["call_id"] for row in rows if row["needs_review"]]
            for name in flagged[:REVIEWED]:
                await judgements.reviewed(name, by=BY)
            await self._deliveries(database, rows, told, dice)
            await self._put_off(database, newest[-WAITING:])
        finally:
            await database.close()

    async def _deliveries(self, database: Any, rows: list[dict[str, Any]], told: Any, dice: Random) -> None:
        from app.store.after_tables import DeliveryState, deliveries
        from app.store.identity import new_call_id

        made = []
        for number, row in enumerate(rows):
            for news in told(row, "call.finished"):
                at, dead = datetime.fromisoformat(row["analyzed_at"]), number == len(rows) // 2
                attempts = 12 if dead else dice.choice((1, 1, 1, 1, 1, 2))
                delivered = None if dead else at + timedelta(milliseconds=dice.randrange(90, 900))
                made.append(
                    {
                        **{name: getattr(news, name) for name in ("kind", "destination", "event", "revision", "body")},
                        "id": new_call_id(at),
                        "call_id": row["call_id"],
                        "state": DeliveryState.DEAD if dead else DeliveryState.DELIVERED,
                        "attempts": attempts,
                        "next_attempt_at": None,
                        "last_status": 503 if dead else 200,
                        "last_fault": "refused" if dead else None,
                        "created_at": at,
                        "delivered_at": delivered,
                        "updated_at": delivered or at + timedelta(days=3),
                    }
                )
        if made:
            async with database.write("seed deliveries") as connection:
                await connection.execute(sa.insert(deliveries), made)

    async def _put_off(self, database: Any, names: list[str]) -> None:
        """The last few have not been read yet, and are not due: nobody analyzes what nobody said."""
        from app.store.tables import AnalysisState, calls

        unread = dict.fromkeys(("sentiment", "sentiment_course", "lead_score", "analyzer", "analyzed_at", "review_reasons"))
        waiting = {"analysis": AnalysisState.WAITING, "analysis_attempts": 0, "needs_review": False, "revision": 1}
        async with database.write("seed what waits") as connection:
            await connection.execute(sa.update(calls).where(calls.c.call_id.in_(names)).values(**unread, **waiting))


def _alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row with the same columns: many are written with one statement."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


@contextmanager
def _telling(calls: int) -> Iterator[Any]:
    terminal = sys.stderr.isatty()

    def tell(done: int) -> None:
        if terminal:
            click.echo(f"\r{min(done, calls):,} of {calls:,}", nl=False, err=True)

    yield tell
    if terminal:
        click.echo("", err=True)


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may know no names
        return "somebody"
