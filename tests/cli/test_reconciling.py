"""`callrow reconcile`: a carrier's log and a database, the command between them."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import click
import pytest

from app.cli import reconciling
from app.rehearsal.carrier import Carrier as Peer
from app.store.calls import Calls
from app.store.engine import Database
from app.wrapup.gaps import Gap, Kind, Reconciliation
from tests.cli.conftest import Run, callrow, wait
from tests.wrapup.booked import environment, pretend_carrier, took_place

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A pretend carrier in a thread of its own: the command has a loop of its own, too."""
    opened, stop = threading.Event(), threading.Event()
    held: list[Peer] = []

    async def be_there() -> None:
        async with pretend_carrier() as peer:
            held.append(peer)
            opened.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(be_there(),))
    thread.start()
    try:
        assert opened.wait(60)
        yield held[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What the comparison logs: in this process its logger is not set up to write to standard error."""
    lines: list[dict[str, object]] = []
    log = SimpleNamespace(info=lambda event, **values: lines.append({"event": event, **values}))
    monkeypatch.setattr("app.wrapup.reconcile.log", log)
    return lines


async def rows(url: str) -> list[dict[str, object]]:
    database = Database(url)
    try:
        return await Calls(database).latest(100)
    finally:
        await database.close()


def test_gaps_are_printed_and_repaired_and_the_exit_code_says_whether_one_is_left(run: Run, database_url: str, peer: Peer):
    call = took_place(peer, datetime.now(UTC) - timedelta(hours=1))
    env = environment(peer.api_url, database_url)
    looked = run("reconcile", "--no-repair", **env)
    assert looked.exit_code == 1
    assert "gaps 1, repaired 0, remaining 1" in looked.stdout
    assert wait(rows(database_url)) == []
    mended = run("reconcile", **env)
    assert mended.exit_code == 0, mended.output
    [row] = wait(rows(database_url))
    [line] = [line for line in mended.stdout.splitlines() if call.sid in line]
    assert line.split() == [row["call_id"], call.sid, "repaired", "completed"]
    assert [*mended.stdout.split("remaining", 1)[0].split()][-3:] == ["kind", "found", "repaired"]
    assert ["unknown_to_us", "1", "1", "0"] in [line.split() for line in mended.stdout.splitlines()]
    again = run("reconcile", "--since", "2h", "--json", **env)
    assert again.exit_code == 0
    told = json.loads(again.stdout)
    assert (told["compared"], told["gaps"], told["remaining"], told["kinds"], told["listed"]) == (1, 0, 0, {}, [])
    assert not any(number in mended.output + again.output for number in ("+1555", "2125550142"))


def test_a_window_that_leaves_the_call_out_finds_nothing_and_one_line_is_logged(
    run: Run, sqlite_url: str, peer: Peer, said: list[dict[str, object]]
):
    took_place(peer, datetime.now(UTC) - timedelta(hours=3))
    result = run("reconcile", "--since", "2h", **environment(peer.api_url, sqlite_url))
    assert (result.exit_code, "0 calls compared" in result.stdout) == (0, True)
    [line] = said
    assert (line["event"], line["compared"], line["remaining"]) == ("calls were compared with the carrier's log", 0, 0)


def test_in_a_process_of_its_own_standard_output_is_the_answer_alone(tmp_path: Path, sqlite_url: str, peer: Peer):
    took_place(peer, datetime.now(UTC) - timedelta(hours=1))
    done = callrow("reconcile", "--json", cwd=tmp_path, **environment(peer.api_url, sqlite_url))
    assert (done.returncode, json.loads(done.stdout)["repaired"]) == (0, 1)
    assert json.loads(done.stderr.splitlines()[-1])["repaired"] == 1


def test_how_far_it_is_stands_on_standard_error(run: Run, sqlite_url: str, peer: Peer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reconciling, "EVERY_S", 0.0)
    took_place(peer, datetime.now(UTC) - timedelta(hours=1))
    result = run("reconcile", "--json", **environment(peer.api_url, sqlite_url))
    assert "calls compared, 1 gaps" in result.stderr
    assert json.loads(result.stdout)["repaired"] == 1


def test_a_carrier_that_is_away_is_a_sentence(run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.twilio.carrier.FIRST_PAUSE_S", 0.0)
    result = run("reconcile", **environment("http://127.0.0.1:1", sqlite_url))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "callrow: the carrier cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_the_carriers_keys_nothing_is_asked(run: Run, sqlite_url: str):
    result = run("reconcile", DATABASE_URL=sqlite_url)
    assert result.exit_code == 2
    assert "TWILIO_AUTH_TOKEN: is not set" in result.stderr


@pytest.mark.parametrize("options", ["--since soon", "--since 0h", "--since 1h --until 2h", "--since 999999w"])
def test_a_time_that_is_none_is_refused(run: Run, sqlite_url: str, options: str):
    result = run("reconcile", *options.split(), **environment("http://127.0.0.1:1", sqlite_url))
    assert result.exit_code == 2
    assert "--since" in result.stderr


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(hours=24)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(days=14)),
        ("2026-11-19", datetime(2026, 11, 18, 23, tzinfo=UTC)),
        ("2026-11-19T08:00", datetime(2026, 11, 19, 7, tzinfo=UTC)),
        ("2026-11-19T08:00:00-05:00", datetime(2026, 11, 19, 13, tzinfo=UTC)),
    ],
)
def test_a_beginning_is_so_long_ago_or_a_day_or_a_moment(text: str, means: datetime):
    assert reconciling.moment(text, NOW, BERLIN, "--since") == means


def test_a_day_as_an_end_is_in_the_window():
    assert reconciling.moment("2026-11-19", NOW, BERLIN, "--until", day_ends=True) == datetime(2026, 11, 19, 23, tzinfo=UTC)
    with pytest.raises(click.BadParameter):
        reconciling.moment("2026-13-01", NOW, BERLIN, "--until")


def test_what_was_found_is_told_in_full():
    found = Reconciliation(since=NOW - timedelta(days=1), until=NOW, repair=True, compared=1_234, cut_off=True)
    found.under_way, found.others, found.unrated, found.forgotten, found.accepted, found.malformed = range(1, 7)
    found.note(Gap(Kind.PRICE_MISSING, "01CALL", "CA1", True, "0.0085 USD there"))
    found.note(Gap(Kind.UNKNOWN_TO_US, None, "CA2", False, "busy"))
    told = reconciling.lines(found, BERLIN)
    assert told[0] == "2026-11-19 10:30 CET to 2026-11-20 10:30 CET: 1,234 calls compared with the carrier's log"
    assert [line.split()[0] for line in told[1:7]] == ["1", "2", "3", "4", "5", "6"]
    assert "the log was not read to its end" in told[7]
    assert "(no row)" in told[-3] and told[-3].split()[-2:] == ["left", "busy"]
    assert told[-1] == "gaps 2, repaired 1, remaining 1"
