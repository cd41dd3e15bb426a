"""The audit log: who did what to what, in a chain where each line holds the hash of the one before. Nothing is ever changed in it.

Rule 1: lines are appended under a lock, so that the chain has no fork; the database itself refuses to change or delete one.
Rule 2: `details` holds nothing private: names of fields and reasons, never values.
A chain shows that nothing within it was altered; whether its end was cut off shows only against a hash that was noted elsewhere.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import Database
from app.store.facts import utc_now
from app.store.house_tables import audit_log

NOTHING_BEFORE = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a look at the whole chain found."""

    lines: int
    head: str
    """The last line's hash: note it elsewhere to notice a log cut short."""
    broken_at: int | None
    """The first line (from 1) that is not what was written; None when the chain is whole."""


class AuditLog:
    """The audit log of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def append(self, actor: str, action: str, subject: str | None = None, details: Mapping[str, Any] | None = None) -> str:
        """Write a line and give its hash."""
        async with self._database.write("write to the audit log") as connection:
            return await self.append_on(connection, actor, action, subject, details)

    async def append_on(
        self,
        connection: AsyncConnection,
        actor: str,
        action: str,
        subject: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> str:
        """Write a line in the transaction of this connection: what is done and that it was done stand or fall together.

        Call it last. On PostgreSQL the log is locked from here to the end of the transaction; whoever holds it must not then wait
        for a row that another holds.
        """
        if not self._database.embedded:  # SQLite's writing transactions are one after the other anyway
            await connection.execute(sa.text("LOCK TABLE audit_log IN SHARE ROW EXCLUSIVE MODE"))
        last = sa.select(audit_log.c.seq, audit_log.c.hash).order_by(audit_log.c.seq.desc()).limit(1)
        before = (await connection.execute(last)).one_or_none()
        line = {
            "seq": 1 if before is None else before.seq + 1,
            "at": self._clock(),
            "actor": actor,
            "action": action,
            "subject": subject,
            "details": None if details is None else dict(details),
            "prev_hash": NOTHING_BEFORE if before is None else before.hash,
        }
        await connection.execute(sa.insert(audit_log).values(**line, hash=_hash(line)))
        return _hash(line)

    async def verify(self) -> Verdict:
        """Walk the chain from its beginning."""
        lines, head, broken_at = 0, NOTHING_BEFORE, None
        async with self._database.read("check the audit log") as connection:
            async for line in (await connection.stream(sa.select(audit_log).order_by(audit_log.c.seq))).mappings():
                lines += 1
                whole = line["seq"] == lines and line["prev_hash"] == head and line["hash"] == _hash(line)
                if not whole and broken_at is None:
                    broken_at = lines
                head = line["hash"]
        return Verdict(lines=lines, head=head, broken_at=broken_at)


def actor(by: str) -> str:
    """Who did something, as a line names them: a user of the console is `user:NAME` already, anybody else is whom they say they are
    at the command line.
    """
    return by if by.startswith("user:") else f"operator:{by}"


def _hash(line: Mapping[Any, Any]) -> str:
    at: datetime = line["at"]
    parts = [
        *(line["seq"], at.astimezone(UTC).isoformat(), line["actor"], line["action"], line["subject"]),
        *(line["details"], line["prev_hash"]),
    ]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
