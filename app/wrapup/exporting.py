"""Writes one export to standard output: a process of its own, which the console starts. The errand comes on standard input, where
nobody else sees it. Exit code 0: the file is whole.
"""

import asyncio
import os
import sys
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import msgspec

from app import logs
from app.store.engine import Database
from app.store.filters import Filters
from app.wrapup.export import Export, Form

NICE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What to write."""

    form: Form
    excel: bool
    zone: str
    slots: list[str]
    filters: Filters = field(repr=False)
    database_url: str = field(repr=False)
    data_key: str | None = field(repr=False)


async def write(errand: Errand) -> None:
    """Write it."""
    database = Database(errand.database_url, errand.data_key)
    try:
        export = Export(database, zone=ZoneInfo(errand.zone), slots=errand.slots)
        async for text, _ in export.written(errand.form, errand.filters, excel=errand.excel):
            sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    finally:
        await database.close()


def main() -> None:
    """One errand. What goes wrong is said on standard error, by its kind and place only."""
    os.nice(NICE)
    try:
        asyncio.run(write(msgspec.json.decode(sys.stdin.buffer.read(), type=Errand)))
    except Exception as fault:
        sys.stderr.write(f"{type(fault).__name__} at {logs.where(fault)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
