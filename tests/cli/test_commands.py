"""Commands that meet the database and the agent files only."""

import json
from pathlib import Path

import pytest

from app.call import events as e
from app.call.journal import Line
from app.cli import COMMANDS, reading
from app.errors import BadSetting
from app.store.calls import Calls
from app.store.engine import Database
from app.store.writer import Writer
from tests.call.scene import Scene
from tests.cli.conftest import LIVE, Run, callrow, wait
from tests.store import shelf

CALL, SID = "01TESTCALL0000000000000000", "CA" + "2" * 32


def stored_call(url: str, lines: list[Line], *, key: str | None = None) -> None:
    """Put a call with a journal into a database."""

    async def put() -> None:
        database = Database(url, key)
        await Calls(database).born(shelf.new_call(SID), CALL)
        writer = Writer(database)
        for line in lines:
            writer.put(CALL, 1, line)
        await writer.flush()
        await database.close()

    wait(put())


def a_conversation() -> Scene:
    scene = Scene().open()
    scene.answer("Hello! How can I help?", ms=2_000, at=100)
    scene.tell(e.CallerSpeechStarted("u1"), at=900)
    scene.tell(e.CarrierEnded("completed"), at=2_000)
    return scene


def test_every_command_is_found_and_explains_itself(run: Run):
    for command in COMMANDS:
        result = run(command, "--help")
        assert result.exit_code == 0
        assert result.output.startswith("Usage:")


def test_all_that_is_missing_or_wrong_is_named_at_once_with_how_to_set_it(run: Run):
    result = run("serve", PORT="eighty", AUDIO_PATH="tape", TWILIO_ACCOUNT_SID="me")
    assert result.exit_code == 2
    assert result.stdout == ""
    for name in ("PUBLIC_URL", "PORT", "AUDIO_PATH", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "OPENAI_API_KEY"):
        assert f"  {name}: " in result.stderr
        assert f"\n      {name}=" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_secret_that_is_wrong_is_not_repeated(run: Run):
    result = run("serve", **(LIVE | {"DATA_KEY": "not-a-key-but-secret", "DATABASE_URL": "mysql://user:password@host/name"}))
    assert result.exit_code == 2
    assert "DATABASE_URL" in result.stderr
    assert "password" not in result.stderr
    assert "secret" not in result.stderr


def test_the_file_env_is_read_and_the_environment_stands_above_it(run: Run, tmp_path: Path):
    (tmp_path / ".env").write_text("DATABASE_URL=sqlite:///from-file.db\nFIRST_AGENT=sales\n")
    assert run("migrate").exit_code == 0
    assert (tmp_path / "from-file.db").exists()
    assert run("migrate", DATABASE_URL="sqlite:///from-env.db").exit_code == 0
    assert (tmp_path / "from-env.db").exists()


def test_migrating_twice_does_no_harm_and_says_so(run: Run, empty_url: str):
    first, second = run("migrate", DATABASE_URL=empty_url), run("migrate", DATABASE_URL=empty_url)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "migrated from nothing" in first.output
    assert "already" in second.output


@pytest.mark.parametrize("command", [("show", "--latest"), ("replay", "CA1"), ("example",)])
def test_a_database_without_tables_is_named_and_not_made(run: Run, tmp_path: Path, command: tuple[str, ...]):
    result = run(*command)
    assert result.exit_code == 1
    assert "callrow migrate" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [CALL, SID])
def test_a_call_is_shown_by_our_name_and_by_the_carriers(run: Run, database_url: str, name: str):
    stored_call(database_url, [])
    result = run("show", name, DATABASE_URL=database_url)
    row = json.loads(result.stdout)
    assert (row["call_id"], row["carrier_call_sid"], row["utterances"]) == (CALL, SID, [])
    assert json.loads(run("show", "--latest", DATABASE_URL=database_url).stdout) == row


def test_a_sealed_row_is_shown_with_its_key(run: Run, sqlite_url: str):
    stored_call(sqlite_url, [], key=shelf.KEY)
    row = json.loads(run("show", "--latest", DATABASE_URL=sqlite_url, DATA_KEY=shelf.KEY).stdout)
    assert row["from_number"] == shelf.CALLER


def test_a_call_that_is_not_known_is_a_sentence(run: Run, sqlite_url: str):
    for command in (("show", "CA-nobody"), ("replay", "CA-nobody"), ("show", "--latest")):
        result = run(*command, DATABASE_URL=sqlite_url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "no call" in result.stderr


def test_show_wants_a_call_or_the_latest_and_not_both(run: Run):
    assert run("show").exit_code == 2
    assert run("show", "CA1", "--latest").exit_code == 2


def test_a_stored_call_replays_to_the_same_orders(run: Run, database_url: str):
    lines = a_conversation().journal()
    stored_call(database_url, lines)
    result = run("replay", SID, DATABASE_URL=database_url)
    assert result.exit_code == 0, result.output
    assert f"stream 1: {len(lines)} lines" in result.output
    assert "the same orders" in result.output


def test_a_journal_that_was_changed_is_found_at_its_line(run: Run, sqlite_url: str):
    lines = a_conversation().journal()
    place = next(at for at, line in enumerate(lines) if line.commands)
    changed = lines[place]
    lines[place] = Line(changed.seq, changed.at, changed.name, changed.data, changed.private, "00000000")
    stored_call(sqlite_url, lines)
    result = run("replay", CALL, DATABASE_URL=sqlite_url)
    assert result.exit_code == 1
    assert "1 differ" in result.output
    assert (
        f"line {changed.seq} at {changed.at:,} ms, {changed.name}: recorded 00000000, replayed {changed.commands}" in result.output
    )


def test_a_journal_without_its_beginning_is_a_sentence(run: Run, sqlite_url: str):
    stored_call(sqlite_url, a_conversation().journal()[1:])
    result = run("replay", CALL, DATABASE_URL=sqlite_url)
    assert result.exit_code == 1
    assert "stream 1 cannot be replayed" in result.stderr


def test_a_call_whose_stream_never_came_has_nothing_to_replay(run: Run, sqlite_url: str):
    stored_call(sqlite_url, [])
    result = run("replay", CALL, DATABASE_URL=sqlite_url)
    assert (result.exit_code, "no journal" in result.output) == (0, True)


def test_the_agents_are_listed_without_keys_and_without_a_database(run: Run, tmp_path: Path):
    result = run("agents")
    assert result.exit_code == 0
    assert "front-desk  (answers first)" in result.output
    assert "hands to  sales" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_agent_is_named_with_file_and_line_and_keeps_the_service_from_starting(run: Run, tmp_path: Path, sqlite_url: str):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "desk.md").write_text('+++\nname = "desk"\ntools = ["fly"]\n+++\nBe kind.\n')
    for command in ("agents", "serve"):
        result = run(command, **LIVE, AGENTS_DIR=str(tmp_path / "agents"), DATABASE_URL=sqlite_url)
        assert result.exit_code == 2
        assert "desk.md:3: unknown tool fly" in result.stderr


def test_the_example_business_is_filled_once(run: Run, sqlite_url: str):
    for _ in range(2):
        assert run("example", DATABASE_URL=sqlite_url).exit_code == 0


@pytest.mark.parametrize("names", [["OPENAI_API_KEY"], ["TWILIO_AUTH_TOKEN"], ["TWILIO_ACCOUNT_SID", "OPENAI_API_KEY"]])
def test_with_some_of_the_keys_the_rest_is_named_and_nothing_starts(run: Run, tmp_path: Path, names: list[str]):
    given = {name: LIVE[name] for name in names}
    result = run("up", **given)
    assert (result.exit_code, result.stdout) == (2, "")
    for name in LIVE.keys() - given.keys():
        assert f"  {name}: is not set" in result.stderr
    assert not any(f"  {name}:" in result.stderr for name in given)
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_there_in_a_process_of_its_own(tmp_path: Path):
    done = callrow("agents", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = callrow("rehearse", "no-such-scene", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such scene" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///var/callrow.db", "SQLite, var/callrow.db"),
        ("sqlite:////srv/callrow.db", "SQLite, /srv/callrow.db"),
        ("postgresql://me:secret@db.example.com:5433/calls", "PostgreSQL, db.example.com:5433/calls"),
        ("postgresql://me@/calls?host=/run/postgresql", "PostgreSQL, local socket/calls"),
    ],
)
def test_a_database_is_named_without_its_password(url: str, said: str):
    assert reading.database_name(url) == said


def test_settings_without_keys_still_say_what_is_wrong(clean: pytest.MonkeyPatch):
    clean.setenv("PORT", "eighty")
    clean.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(BadSetting) as complaint:
        reading.settings_without_keys()
    assert [name for name, _, _ in complaint.value.complaints] == ["PORT"]
    assert reading.settings_without_keys(leave_out=["PORT"]).port == 8080
