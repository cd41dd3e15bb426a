"""The house's rules, held against its own files."""

import ast
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import COMMANDS
from app.settings import Settings
from app.store.tables import calls

ROOT = Path(__file__).parents[1]
MOST_LINES = {"app/call/machine.py": 420}
MOST_IN_CALL, MOST = 240, 500
DOORS = ("app/settings.py", "app/main.py")
"""Where the environment comes in: main hands it to the settings, once."""


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    """Every file that is published."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / path for path in listed.split("\0") if path and (ROOT / path).is_file()]  # one just deleted is none


def in_service_rooms() -> list[Path]:
    """Everything that serves calls: not the command line, and not the rehearsal's own processes."""
    return [path for path in sources("app") if not name(path).startswith(("app/cli/", "app/rehearsal/"))]


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text("utf-8")))


def test_a_room_imports_only_lower_floors():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sources("app", "tests", "migrations", "scripts"), ids=name)
def test_a_file_can_be_read_in_one_sitting(path: Path):
    most = MOST_LINES.get(name(path), MOST_IN_CALL if name(path).startswith("app/call/") else MOST)
    assert len(path.read_text("utf-8").splitlines()) <= most


@pytest.mark.parametrize("path", sources("app"), ids=name)
def test_a_module_says_what_room_it_is(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize("path", in_service_rooms(), ids=name)
def test_the_service_logs_and_never_prints(path: Path):
    printing = [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "breakpoint")
    ]
    assert printing == []


@pytest.mark.parametrize("path", [path for path in in_service_rooms() if name(path) not in DOORS], ids=name)
def test_nobody_but_the_settings_reads_the_environment(path: Path):
    reading = [
        node.lineno
        for node in nodes(path)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {"environ", "getenv"} & {alias.name for alias in node.names}
        )
    ]
    assert reading == []


def test_the_locks_were_made_from_the_dependencies_of_today():
    done = subprocess.run([ROOT / "scripts" / "lock", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Written in parts, so that this file does not find itself.
NOT_FOR_OTHERS = re.compile(
    "|".join(
        (
            r"(?<![\w.$}])/" + r"(?:root|home/[a-z_][\w-]*|Users/\w+)/",
            r"(?:pypi|files)\." + r"(?:org|python" + r"hosted\.org)",
            r"registry\." + r"npmjs",
            r"arti" + r"factory",
            r"(?:index-url|extra-index-url|find-links)[ =]+" + r"(?:https?|file):",
        )
    )
)


def test_no_file_holds_a_registry_or_a_path_of_one_machine():
    found = []
    for path in tracked():
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name(path)}:{number}" for number, line in enumerate(lines, 1) if NOT_FOR_OTHERS.search(line)]
    assert found == []


@pytest.mark.parametrize("script", ["run", "test", "setup", "check", "lock", "bench", "jobs-killed"])
def test_a_script_starts_and_can_be_read_by_its_shell(script: str):
    path = ROOT / "scripts" / script
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["sh", "-n", path], check=True)


def test_the_gate_starts():
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)


def test_the_procfile_calls_commands_that_there_are():
    called = re.findall(r"^\w+: callrow (\w+)", (ROOT / "Procfile").read_text("utf-8"), re.MULTILINE)
    assert called == ["migrate", "serve", "jobs"]
    assert set(called) <= set(COMMANDS)


def section(title: str) -> str:
    """A section of the README."""
    text = (ROOT / "README.md").read_text("utf-8")
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(table: str) -> set[str]:
    """What stands in code in the first column."""
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_the_readme_lists_every_setting_and_none_that_is_not():
    assert first_cells(section("Settings")) == {field.upper() for field in Settings.model_fields}


def test_the_readme_lists_every_column_of_the_row_and_none_that_is_not():
    assert first_cells(section("The row")) == {column.name for column in calls.columns}


def test_the_example_of_the_environment_names_settings_only():
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    named = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    assert named <= {field.upper() for field in Settings.model_fields}
    assert {"PUBLIC_URL", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "OPENAI_API_KEY"} <= named
