"""How often somebody may try: counted in the database, so that it holds over all processes and machines.

Each key has one number, the moment at which its tries so far would be paid off at the steady rate (the generic cell rate
algorithm, of ATM). A try is allowed as long as that moment is no further ahead than a burst; asking and counting is one statement.
Rule: a key is kept as its SHA-256. What somebody types as a name may be their password.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from app.store.console_tables import sign_in_limits
from app.store.engine import Database
from app.store.facts import utc_now


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` tries at once, and then one every `every_s` seconds."""

    burst: int
    every_s: int

    @property
    def every_ms(self) -> int:
        return self.every_s * 1_000


class Limits:
    """The tries of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    async def take(self, key: str, rate: Rate) -> int | None:
        """Count a try. None: it is allowed; else the seconds to wait, and nothing was counted."""
        now = self._now()
        hashed, latest = _hashed(key), now + (rate.burst - 1) * rate.every_ms
        kept = sign_in_limits.c.due_ms
        from_then = sa.case((kept > now, kept), else_=now) + rate.every_ms
        insert = self._database.insert(sign_in_limits).values(key=hashed, due_ms=now + rate.every_ms)
        count = insert.on_conflict_do_update(index_elements=["key"], set_={"due_ms": from_then}, where=kept <= latest)
        async with self._database.write("count a try") as connection:
            if (await connection.execute(count.returning(kept))).first() is not None:
                return None
            due: int = (await connection.execute(sa.select(kept).where(sign_in_limits.c.key == hashed))).scalar_one()
        return max(1, -(-(due - latest) // 1_000))

    async def give_back(self, key: str, rate: Rate) -> None:
        """A try that was right does not count."""
        kept = sign_in_limits.c.due_ms
        less = sa.case((kept > rate.every_ms, kept - rate.every_ms), else_=0)
        async with self._database.write("give back a try") as connection:
            await connection.execute(sa.update(sign_in_limits).where(sign_in_limits.c.key == _hashed(key)).values(due_ms=less))

    async def clear(self) -> int:
        """Strike out what is paid off; how many they were."""
        async with self._database.write("clear old tries") as connection:
            return (await connection.execute(sa.delete(sign_in_limits).where(sign_in_limits.c.due_ms < self._now()))).rowcount

    def _now(self) -> int:
        return int(self._clock().timestamp() * 1_000)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
