"""What the tests of every room may ask for.

`database_url`  a fresh, migrated database; the test runs twice, on SQLite and on PostgreSQL
`sqlite_url`    a fresh, migrated SQLite database, for rooms whose tests need a store but are not about it
`postgres_url`  a fresh, migrated PostgreSQL database
`empty_url`     like `database_url`, but without any table
`database`      the open `Database` of `database_url`, closed afterwards
`postgres`      the PostgreSQL server of this test process (started when first asked for)
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from app.store import migrate
from app.store.engine import Database
from tests import postgres as server


class Postgres:
    """A server, and databases on it: made in milliseconds as copies of a migrated one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names = count(1)
        self._prefix = f"t{id(self):x}"
        self._migrated: str | None = None

    def url(self, name: str) -> str:
        """The address of a database of that name."""
        head, tail = self._url.split("?", 1) if "?" in self._url else (self._url, "")
        return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{tail}" if tail else "")

    def create(self, *, migrated: bool) -> str:
        """Make a database and give its name."""
        if not migrated:
            return self._create(None)
        if self._migrated is None:
            self._migrated = self._create(None)
            migrate.upgrade(self.url(self._migrated))
        return self._create(self._migrated)

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _create(self, template: str | None) -> str:
        name = f"{self._prefix}_{next(self._names)}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)
        return name


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        url, stop = server.start()
    except server.NoPostgres as missing:
        pytest.fail(str(missing))
    yield Postgres(url)
    stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'callrow.db')}"


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    name = postgres.create(migrated=True)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    running: Postgres = request.getfixturevalue("postgres")
    name = running.create(migrated=False)
    yield running.url(name)
    running.drop(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that nobody waits for it alone at the end."""
    items.sort(key=lambda item: "tests/whole" not in item.path.as_posix())
