"""Tests in a real Chromium. Where there is none they are named as not run; with BROWSER_TESTS=required (as in `.ci/run`) that is a
failure.

`open_tab`   `async with open_tab(scheme="dark", size="phone") as tab`: see tests/browser/browsing.py
`served`     the console that the tabs look at, on SQLite
"""

import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from app.store.engine import Database
from tests.browser import browsing

NOT_RUN = "tests in a browser are not run: there is no Chromium (apt-get install chromium, or CHROMIUM=/path/to/it)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if browsing.chromium() is None and os.environ.get("BROWSER_TESTS") != "required":
        for item in items:
            if "tests/browser" in item.path.as_posix() and "browser" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason=NOT_RUN))


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    path = browsing.chromium()
    if path is None:
        pytest.fail(NOT_RUN)
    # As root there is no sandbox to be had; nothing but our own pages is opened.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=[*arguments, "--disable-dev-shm-usage"])
        yield launched
        await launched.close()


@pytest.fixture
async def served(sqlite_url: str) -> AsyncIterator[browsing.Place]:
    database = Database(sqlite_url)
    async with browsing.place(database) as place:
        yield place
    await database.close()


@pytest.fixture
def open_tab(served: browsing.Place, browser: Any) -> Any:
    return partial(browsing.tab, served, browser)
