"""`callrow evaluate` and `callrow rescore`, as a person at a terminal sees them."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from app.cli import evaluating, main
from app.store.calls import Calls
from app.store.engine import Database
from app.store.house_tables import audit_log
from app.store.judgements import Judgements
from app.wrapup.cases import COLUMNS
from app.wrapup.reading import Reading
from app.wrapup.rules import RulesAnalyzer
from tests.cli.conftest import Run
from tests.store.shelf import Clock
from tests.wrapup.ended import ended
from tests.wrapup.scenery import CALLS, LISTS

RUBRIC = 'name = "rubric-2"\n[[criteria]]\nname = "wants_work"\npoints = 70\nmeaning = "wants work"\n'

# ---- evaluate


def test_the_rules_are_measured_on_the_written_calls_of_the_checkout(run: Run):
    done = run("evaluate")
    assert done.exit_code == 0
    assert done.stdout.startswith("analyzer rules (rules-1@") and "held out" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[4:15]] == list(COLUMNS)
    assert "disposition, all calls: a row is what should stand there" in done.stdout


def test_a_part_shows_its_own_matrices_and_mistakes(run: Run):
    done = run("evaluate", "--part", "held out", "--mistakes")
    assert "disposition, the held out calls" in done.stdout
    mistakes = done.stdout.split("not right, held out:\n")[1].splitlines()
    calls = {line.split()[0] for line in mistakes}
    assert mistakes and all("should be" in line for line in mistakes)
    assert all("held_out = true" in (CALLS / f"{call}.toml").read_text("utf-8") for call in calls)


def test_a_report_in_json_has_every_part_and_the_mistakes(run: Run):
    report = json.loads(run("evaluate", "--json", "--analyzer", "rules").stdout)
    assert set(report["parts"]) == {"tuned", "held out", "all"} and report["parts"]["all"]["calls"] == 78
    assert report["mistakes"] and report["not_read"] == {}


def test_a_folder_of_ones_own_and_a_rubric_of_ones_own(run: Run, tmp_path: Path):
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "one.toml").write_text((CALLS / "booking-hedge.toml").read_text("utf-8"))
    (tmp_path / "rubric.toml").write_text(RUBRIC)
    report = json.loads(run("evaluate", "--calls", str(folder), "--rubric", str(tmp_path / "rubric.toml"), "--json").stdout)
    assert report["parts"]["all"]["calls"] == 1
    assert [(each["column"], each["got"]) for each in report["mistakes"]] == [("lead", "hot")]


def test_where_there_are_no_written_calls_it_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluating.evaluate.params[2], "default", tmp_path / "none")
    done = run("evaluate")
    assert done.exit_code == 2 and "come with the source code and not with the installed package" in done.stderr
    (tmp_path / "empty").mkdir()
    assert "holds no written call" in run("evaluate", "--calls", str(tmp_path / "empty")).stderr


def test_the_model_without_a_key_and_a_wrong_rubric_are_bad_input(run: Run, tmp_path: Path):
    done = run("evaluate", "--analyzer", "openai")
    assert done.exit_code == 2 and "OPENAI_API_KEY: is not set" in done.stderr
    done = run("evaluate", "--rubric", str(tmp_path / "none.toml"))
    assert done.exit_code == 2 and "none.toml cannot be read" in done.stderr


# ---- rescore


@pytest.fixture
def call_ids(sqlite_url: str) -> list[str]:
    """Two calls of the 20th of November 2026, read when they ended."""

    async def make() -> list[str]:
        database, clock = Database(sqlite_url), Clock()
        judgements = Judgements(database, clock=clock)
        reader = Reading(judgements, RulesAnalyzer(LISTS), LISTS, clock=clock, dice=lambda: 0.5)
        made = []
        for sid in ("CA1", "CA2"):
            call_id = await ended(database, clock, sid=sid)
            await reader.settle(call_id, 1, await reader.ask(call_id))
            made.append(call_id)
        await database.close()
        return made

    return asyncio.run(make())


@pytest.fixture
def rescore(clean: pytest.MonkeyPatch, sqlite_url: str, call_ids: list[str], tmp_path: Path) -> Iterator[Run]:
    """Run the command with another rubric, with somebody there who says `answer`, or nobody."""
    (tmp_path / "rubric.toml").write_text(RUBRIC)

    def command(*arguments: str, answer: str | None = None, **env: str) -> Result:
        env = {"DATABASE_URL": sqlite_url, "RUBRIC_FILE": str(tmp_path / "rubric.toml"), **env}
        result = CliRunner().invoke(main, ["rescore", *arguments], env=env, input=answer)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    yield command


def scores(url: str) -> list[int]:
    async def read() -> list[int]:
        database = Database(url)
        rows = await Calls(database).latest(10)
        await database.close()
        return [row["lead_score"] for row in rows]

    return asyncio.run(read())


def test_differences_are_shown_and_after_a_yes_they_stand(rescore: Run, sqlite_url: str, call_ids: list[str]):
    done = rescore("--batch", "b1", answer="y\n")
    assert done.exit_code == 0
    assert "batch b1: 2 calls not in force, 2 of them would be different" in done.stdout
    assert done.stdout.count("  lead_score: 60 -> 70") == 2 and all(call_id in done.stdout for call_id in call_ids)
    assert "in force for 2 calls. To take it back: callrow rescore --undo b1" in done.stdout
    assert "2 calls to be read by rules, rubric rubric-2@" in done.stderr and "2 of 2 calls, 0 not read" in done.stderr
    assert scores(sqlite_url) == [70, 70]


@pytest.mark.parametrize("answer", ["n\n", None], ids=["a no", "nobody there"])
def test_without_a_yes_nothing_changes_and_it_can_be_applied_later(answer: str | None, rescore: Run, sqlite_url: str):
    done = rescore("--batch", "b1", answer=answer)
    assert done.exit_code == 0 and "Nothing is changed" in done.stderr and scores(sqlite_url) == [60, 60]
    later = rescore("--batch", "b1", "--kept", "--apply", RUBRIC_FILE="")
    assert "in force for 2 calls" in later.stdout and "to be read" not in later.stderr
    assert scores(sqlite_url) == [70, 70]


def test_a_rescoring_is_listed_taken_back_and_audited(rescore: Run, sqlite_url: str):
    assert rescore("--list").stdout == ""
    rescore("--batch", "b1", "--yes")
    assert "b1  " in (listed := rescore("--list").stdout) and "2 calls, 2 in force, 0 taken back" in listed
    assert rescore("--undo", "b1").stdout == "batch b1: taken back for 2 calls\n" and scores(sqlite_url) == [60, 60]
    assert json.loads(rescore("--list", "--json").stdout)[0]["withdrawn"] == 2

    async def audited() -> list[tuple[str, str]]:
        database = Database(sqlite_url)
        async with database.read() as connection:
            lines = (await connection.execute(sa.select(audit_log).order_by(audit_log.c.seq))).all()
        await database.close()
        return [(line.action, line.actor.split(":")[0]) for line in lines]

    assert asyncio.run(audited()) == [*[("apply", "operator")] * 2, *[("withdraw", "operator")] * 2]


def test_what_was_read_is_not_read_again_and_a_limit_goes_on(rescore: Run, sqlite_url: str, call_ids: list[str]):
    first = rescore("--batch", "b1", "--limit", "1", answer="n\n")
    assert "1 call to be read" in first.stderr
    second = rescore("--batch", "b1", "--apply")
    assert "1 call to be read" in second.stderr and "in force for 2 calls" in second.stdout
    assert "nothing that is not in force already" in rescore("--batch", "b1").stdout


def test_calls_are_chosen_by_the_days_of_the_business(rescore: Run):
    assert "2 calls to be read" in rescore("--since", "2026-11-20", "--until", "2026-11-20").stderr
    assert "0 calls to be read" in rescore("--until", "2026-11-19").stderr
    assert "0 calls to be read" in rescore("--since", "2026-11-20", BUSINESS_TIMEZONE="Pacific/Niue", answer="n\n").stderr


def test_in_json_everything_is_told_and_nothing_is_asked(rescore: Run, sqlite_url: str, call_ids: list[str]):
    told = json.loads(rescore("--batch", "b1", "--json", answer="y\n").stdout)
    assert (told["read"], told["calls"], told["applied"], told["not_read"]) == (2, 2, 0, {}) and scores(sqlite_url) == [60, 60]
    assert told["changes"][call_ids[0]] == {"lead_score": {"before": 60, "after": 70}}
    assert json.loads(rescore("--batch", "b1", "--json", "--apply").stdout)["applied"] == 2


def test_only_some_calls_are_shown_in_full(rescore: Run):
    done = rescore("--batch", "b1", "--show", "1", answer="n\n")
    assert done.stdout.count("60 -> 70") == 1 and "and 1 call more: --show 2" in done.stdout


def test_without_a_difference_nobody_is_asked(rescore: Run):
    done = rescore("--batch", "same", RUBRIC_FILE="", answer="y\n")
    assert "2 calls not in force, 0 of them would be different" in done.stdout and "Put batch" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "wrong"),
    [
        (("--undo", "b9"), 1, "no rescoring is called b9"),
        (("--batch", "b9", "--kept"), 1, "no rescoring is called b9"),
        (("--batch", "call"), 1, "is what the reading after each call is called"),
        (("--undo", "b9", "--list"), 2, "stand alone"),
        (("--list", "--apply"), 2, "stand alone"),
        (("--kept",), 2, "--kept goes with --batch"),
        (("--kept", "--batch", "b", "--limit", "1"), 2, "--kept goes with --batch"),
        (("--since", "yesterday"), 2, "does not match the format"),
        (("--analyzer", "openai"), 2, "OPENAI_API_KEY: is not set"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments: tuple[str, ...], code: int, wrong: str, rescore: Run):
    done = rescore(*arguments)
    assert (done.exit_code, done.stdout) == (code, "") and wrong in done.stderr


def test_another_rubric_is_another_batch(rescore: Run):
    rescore("--batch", "b1", "--limit", "1", answer="n\n")
    done = rescore("--batch", "b1", RUBRIC_FILE="")
    assert done.exit_code == 1 and "was made by another (rubric rubric-2@" in done.stderr
