"""`callrow export` and `callrow schema`."""

import csv
import io
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest
import sqlalchemy as sa

from app.cli import exporting
from app.cli.exporting import span
from app.errors import StoreUnavailable
from app.store.audit import AuditLog
from app.store.engine import Database
from app.store.house_tables import audit_log
from app.wrapup.row import COMMITTED
from tests.cli.conftest import Run, wait
from tests.store.shelf import Clock, memory
from tests.wrapup.rows import finished, read


@pytest.fixture
def url(sqlite_url: str) -> str:
    """A database with two finished calls, of two days."""

    async def fill() -> None:
        database = Database(sqlite_url)
        clock = Clock()
        await read(database, await finished(database, clock=clock))
        clock.pass_(days=1)
        await finished(database, sid="CA2", clock=clock, memory=memory(disposition="other", summary="=1+1"))
        await database.close()

    wait(fill())
    return sqlite_url


def audited(url: str) -> list[tuple[str, str, dict[str, Any]]]:
    async def lines() -> list[tuple[str, str, dict[str, Any]]]:
        database = Database(url)
        async with database.read() as connection:
            found = (await connection.execute(sa.select(audit_log).order_by(audit_log.c.seq))).mappings().all()
        assert (await AuditLog(database).verify()).broken_at is None
        await database.close()
        return [(line["actor"], line["action"], line["details"]) for line in found if line["action"] == "export"]

    return wait(lines())


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_an_export_goes_to_standard_output_and_into_the_audit_log(run: Run, url: str):
    result = run("export", DATABASE_URL=url)
    assert result.exit_code == 0, result.output
    rows = table(result.stdout)
    assert [row["summary"] for row in rows] == ["Maria wants her garden done.", "'=1+1"]
    assert result.stderr == "2 rows\n"
    ((actor, _, details),) = audited(url)
    assert actor.startswith("operator:")
    assert actor != "operator:"
    expected = {"format": "csv", "rows": 2, "whole": True, "to": "stdout", "since": None, "until": None, "filters": []}
    assert details == expected


def test_slots_of_the_agent_files_have_columns(run: Run, url: str):
    (row, _) = table(run("export", DATABASE_URL=url).stdout)
    assert (row["slot_urgency"], row["slot_urgency_source"], row["other_slots"]) == ("high", "agent", "")


def test_without_agent_files_nothing_is_lost(run: Run, url: str, tmp_path: Path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "broken.md").write_text("no front matter")
    result = run("export", DATABASE_URL=url, AGENTS_DIR=str(tmp_path / "agents"))
    assert result.exit_code == 0
    assert "the agent files cannot be read" in result.stderr
    assert json.loads(table(result.stdout)[0]["other_slots"]) == {"urgency": "high"}


def test_a_file_is_put_in_place_at_the_end_for_its_owner_alone(run: Run, url: str, tmp_path: Path):
    target = tmp_path / "calls.json"
    target.write_text("old")
    result = run("export", "--format", "json", "--output", str(target), DATABASE_URL=url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"2 rows in {target}\n"
    assert [told["version"] for told in json.loads(target.read_text("utf-8"))] == [1, 1]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".calls")] == []
    assert audited(url)[0][2]["to"] == "file"


def test_an_export_that_breaks_off_leaves_the_old_file_and_a_line_that_says_so(
    run: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "calls.csv"
    target.write_text("old")

    class Breaks(exporting.Export):
        async def written(self, *given: Any, **options: Any) -> Any:
            async for piece in super().written(*given, **options):
                yield piece
            raise StoreUnavailable("read rows")

    monkeypatch.setattr(exporting, "Export", Breaks)
    result = run("export", "--output", str(target), DATABASE_URL=url)
    assert result.exit_code == 1
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".calls")] == []
    ((_, _, details),) = audited(url)
    assert (details["rows"], details["whole"]) == (2, False)


def test_an_export_is_narrowed_down_and_the_audit_log_holds_no_words(run: Run, url: str):
    result = run(
        *("export", "--format", "jsonl", "--since", "2026-11-21", "--until", "2026-11-21", "--disposition", "other"),
        *("--outcome", "completed"),
        DATABASE_URL=url,
        BUSINESS_TIMEZONE="Europe/Berlin",
    )
    (told,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert told["started_at"] == "2026-11-21T09:01:01.500000Z"
    ((_, _, details),) = audited(url)
    assert details["filters"] == ["disposition", "outcome"]
    assert (details["since"], details["until"]) == ("2026-11-20T23:00:00+00:00", "2026-11-21T23:00:00+00:00")
    assert run("export", "--format", "jsonl", "--disposition", "sales", DATABASE_URL=url).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "xml"), "'xml' is not one of"),
        (("--outcome", "splendid"), "'splendid' is not one of"),
        (("--since", "yesterday"), "is no day like 2026-11-20"),
        (("--until", "2026-02-30"), "is no day like 2026-11-20"),
        (("--format", "json", "--excel"), "--excel goes with --format csv"),
        (("--output", "/dev/null"), "is there and is no file"),
        (("--output", "nowhere/calls.csv"), "cannot be written to: No such file or directory"),
    ],
)
def test_a_wrong_option_is_said_and_writes_nothing(run: Run, url: str, arguments: tuple[str, ...], said: str):
    result = run("export", *arguments, DATABASE_URL=url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert audited(url) == []


def test_a_database_that_was_never_migrated_is_said(run: Run, tmp_path: Path):
    result = run("export", DATABASE_URL=f"sqlite:///{tmp_path}/none.db")
    assert result.exit_code == 1
    assert "run: callrow migrate" in result.stderr


def test_the_schema_is_printed_as_it_is_committed(run: Run):
    result = run("schema")
    assert (result.exit_code, result.stdout) == (0, COMMITTED.read_text("utf-8"))


def at(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("since", "until", "bounds"),
    [
        (None, None, (None, None)),
        ("2026-11-20", "2026-11-20", (at(2026, 11, 19, 23), at(2026, 11, 20, 23))),
        ("2026-03-29", "2026-03-29", (at(2026, 3, 28, 23), at(2026, 3, 29, 22))),  # 23 hours
        ("2026-10-25", "2026-10-25", (at(2026, 10, 24, 22), at(2026, 10, 25, 23))),  # 25 hours
        ("2026-11-20T09:00", "2026-11-20T09:00Z", (at(2026, 11, 20, 8), at(2026, 11, 20, 9))),
    ],
)
def test_a_day_is_a_day_of_the_business(since: str | None, until: str | None, bounds: tuple[datetime | None, datetime | None]):
    assert span(ZoneInfo("Europe/Berlin"), since, until) == bounds


def test_no_day_at_all():
    with pytest.raises(click.BadParameter):
        span(ZoneInfo("UTC"), "", None)
