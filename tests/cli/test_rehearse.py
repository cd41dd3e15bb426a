"""`callrow rehearse` and `callrow up`: the whole house as processes, with short scenes. All are played in tests/rehearsal."""

import json
import signal
import socket
import subprocess
import time
import wave
from pathlib import Path

import pytest

from app.rehearsal import scenes
from tests.cli.conftest import COMMAND, Run, callrow, environment

SOON_S = 100.0
SHORT = "wrong-number"


def alive_in_session(session: int) -> list[str]:
    """The processes of a session, as the kernel lists them (on Linux; elsewhere nobody is asked)."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = path.read_text().partition(" ")
        except OSError:  # gone meanwhile
            continue
        state, _parent, _group, its_session = rest.rpartition(")")[2].split()[:4]
        if state != "Z" and int(its_session) == session:
            alive.append(f"{number} {rest}")
    return alive


@pytest.mark.timeout(200)
def test_a_scene_is_one_row_on_standard_output_and_a_sound_to_listen_to(tmp_path: Path):
    done = callrow("rehearse", SHORT, "--json", "--listen", "call.wav", cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["state"], row["outcome"]) == ("final", "completed")
    assert {said["speaker"] for said in row["utterances"]} == {"agent", "caller"}
    assert "the telephone rings" in done.stderr
    with wave.open(str(tmp_path / "call.wav")) as sound:
        assert (sound.getnchannels(), sound.getframerate()) == (2, 8_000)
        assert sound.getnframes() / 8 == pytest.approx(row["duration_ms"], abs=5_000)
    assert [path.name for path in tmp_path.iterdir()] == ["call.wav"]


@pytest.mark.timeout(200)
def test_what_does_not_hold_is_said_and_is_exit_code_1(tmp_path: Path):
    (tmp_path / "scene.toml").write_text(
        'title = "Gone at once"\n[[step]]\nwait_for_agent = 400\n[[step]]\nhang_up = true\n'
        '[expect]\nend_reason = "caller_hung_up"\nbarge_ins = 7\n'
    )
    done = callrow("rehearse", "scene.toml", cwd=tmp_path, timeout=180)
    assert done.returncode == 1, done.stderr
    assert "what the scene expects did not hold" in done.stdout
    assert "barge" in done.stdout.splitlines()[-1]


def test_the_scenes_are_listed(run: Run):
    result = run("rehearse", "--list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == scenes.shipped()
    assert len(scenes.shipped()) >= 10


def test_a_scene_that_cannot_be_played_is_bad_input(run: Run, tmp_path: Path):
    (tmp_path / "wrong.toml").write_text('title = "Wrong"\n[[step]]\nfly = true\n')
    for arguments in (["no-such-scene"], ["wrong.toml"], [SHORT, "--listen", "no/such/folder/call.wav"]):
        result = run("rehearse", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.timeout(300)
def test_up_without_keys_shows_a_call_keeps_its_row_and_ends_with_everything_it_started(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (tmp_path / "out").open("wb") as out:
        up = subprocess.Popen(
            [*COMMAND, "up"],
            cwd=tmp_path,
            env=environment(PORT=str(port)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end = time.monotonic() + 2 * SOON_S
    while f"serving on http://127.0.0.1:{port}" not in (said := (tmp_path / "out").read_text()):
        assert up.poll() is None, said
        assert time.monotonic() < end, said
        time.sleep(0.2)
    assert "front-desk: Linden Gardens" in said
    assert "caller: " in said
    assert "after the caller stopped" in said
    assert "all that the scene expects held" in said

    second = callrow("up", cwd=tmp_path, PORT=str(port))
    assert second.returncode == 1
    assert f"port {port}: it is in use" in second.stderr

    shown = callrow("show", "--latest", cwd=tmp_path)
    row = json.loads(shown.stdout)
    assert row["state"] == "final"
    assert callrow("replay", row["call_id"], cwd=tmp_path).returncode == 0

    up.send_signal(signal.SIGINT)
    assert up.wait(SOON_S) == 130
    assert "Traceback" not in (tmp_path / "out").read_text()
    end = time.monotonic() + SOON_S
    while left := alive_in_session(up.pid):
        assert time.monotonic() < end, left
        time.sleep(0.1)
    with socket.create_server(("127.0.0.1", port)):  # the port is free again
        pass
