"""The settings as commands need them: whole for those that meet the world, without keys for those that only read the database."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from app.errors import OurFault
from app.settings import Settings, environment

if TYPE_CHECKING:
    from app.call.agent import Agent
    from app.store.engine import Database

# For commands that meet neither carrier nor model. Nothing is sent anywhere with these.
NO_KEYS = {
    "PUBLIC_URL": "http://127.0.0.1:8080",
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "not-set",
    "OPENAI_API_KEY": "not-set",
}
KEYS = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "OPENAI_API_KEY")
"""What makes a service live."""


def given() -> dict[str, str]:
    """The environment over the file `.env` of this folder, without what is empty."""
    return {name: value for name, value in environment(os.environ, Path.cwd()).items() if value.strip()}


def settings() -> Settings:
    """Everything. Raises `BadSetting`, naming all that is missing or wrong."""
    return Settings.from_env(given())


def settings_without_keys(leave_out: Collection[str] = ()) -> Settings:
    """For commands that ask only the database and the agent files: the keys may be missing. What is there must be right.

    `leave_out` names settings to be taken as not set. Raises `BadSetting`.
    """
    return Settings.from_env({**NO_KEYS, **{name: value for name, value in given().items() if name not in leave_out}})


def agents(settings: Settings) -> dict[str, Agent]:
    """The agent files, read and checked as the service will. Raises `BadAgent`."""
    from app.agents.reader import read_agents
    from app.store.business import Business
    from app.store.engine import Database
    from app.tools.business import business_tools

    zone = ZoneInfo(settings.business_timezone)
    nowhere = Database(f"sqlite:///{gettempdir()}/callrow-is-not-opened.db")  # what tools are there does not depend on any database
    tools = business_tools(Business(nowhere), clock=lambda: datetime.now(zone), zone=zone)
    return read_agents(
        settings.agents_dir,
        errands={tool.name: tool.spec for tool in tools},
        directory=settings.transfer_to,
        dispositions=settings.dispositions,
        intents=settings.intents,
    )


class NotMigrated(OurFault):
    """The database has no tables of ours."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return f"{self.name}: there are no tables yet; run: callrow migrate"


def revision(url: str) -> str:
    """The database's revision. A file that is not there is not made. Raises `NotMigrated` and `StoreUnavailable`."""
    from app.store import migrate
    from app.store.engine import async_url

    address = async_url(url)
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
        raise NotMigrated(database_name(url))
    found = migrate.current(url)
    if found is None:
        raise NotMigrated(database_name(url))
    return found


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The database, open for as long as the block lasts. Raises `NotMigrated` and `StoreUnavailable`."""
    from app.store.engine import Database

    revision(settings.database_url)
    opened = Database(settings.database_url, settings.data_key.get_secret_value() if settings.data_key else None)
    try:
        yield opened
    finally:
        await opened.close()


def missing_keys(env: Mapping[str, str]) -> list[str]:
    """Which of the keys are not there."""
    return [name for name in KEYS if not env.get(name, "").strip()]


def database_name(url: str) -> str:
    """A database for people to read, without its password."""
    kind, _, rest = url.partition("://")
    if kind.split("+")[0] == "sqlite":
        return f"SQLite, {rest.removeprefix('/')}"
    parts = urlsplit(url)
    return f"PostgreSQL, {parts.hostname or 'local socket'}{f':{parts.port}' if parts.port else ''}{parts.path}"
