"""The people who may use the console, and their sessions.

Rule 1: an unknown name, a wrong password, a disabled account and one without a password are the same answer after the same work.
Rule 2: a session's word is 256 random bits; only its SHA-256 is kept. It ends when it has been idle, when it is old, when it is
revoked, when its account is disabled, and when the password changes. What ended is deleted.
Rule 3: the last admin who can sign in stays one.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import OurFault
from app.store.console_tables import Role, SignedInBy, sessions, users
from app.store.engine import Database
from app.store.facts import utc_now
from app.store.identity import new_call_id
from app.store.passwords import Passwords

NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,99}")
SEEN_EVERY = timedelta(minutes=1)
"""How exactly it is kept when a session was last used: a write for every request would be too dear."""


class BadAccount(OurFault):
    """An account cannot be made or changed like that. `why` is a sentence for the admin."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account."""

    id: str
    name: str
    role: Role
    email: str | None
    has_password: bool
    has_provider: bool
    """Has signed in by the identity provider."""
    created_at: datetime
    last_sign_in_at: datetime | None
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser that is signed in."""

    id: str
    user: User
    signed_in_by: SignedInBy
    browser: str | None
    """In a few words, for its owner to recognise."""
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


class Users:
    """All accounts and sessions of one database.

    Args:
        idle: a session that was not used for so long is over.
        longest: and one that is so old, used or not.
    """

    def __init__(
        self,
        database: Database,
        *,
        passwords: Passwords | None = None,
        clock: Callable[[], datetime] = utc_now,
        idle: timedelta = timedelta(minutes=30),
        longest: timedelta = timedelta(hours=12),
    ) -> None:
        self._database, self._clock = database, clock
        self._passwords = passwords or Passwords()
        self._idle, self._longest = idle, longest

    # ---- accounts

    async def add(self, name: str, role: Role, *, password: str | None = None, email: str | None = None) -> User:
        """A new account. Without a password it can sign in by the identity provider only.

        Raises:
            BadAccount: the name or the address is taken, or is none.
            BadPassword: the password will not do.
        """
        name, email = _name(name), _email(email)
        kept = None if password is None else await self._passwords.hash(password, name=name)
        now = self._clock()
        row: dict[str, Any] = {"id": new_call_id(now), "name": name, "role": role, "password_hash": kept, "email": email}
        row |= {"created_at": now, "updated_at": now, "password_changed_at": None if kept is None else now}
        insert = self._database.insert(users).values(row).on_conflict_do_nothing().returning(users.c.id)
        async with self._database.write("add a user") as connection:
            if (await connection.execute(insert)).first() is None:
                raise BadAccount(f"there is an account {name} already, or one with that e-mail address")
            return await self._one(connection, users.c.id == row["id"])

    async def all(self) -> list[User]:
        """Every account, by name."""
        async with self._database.read("list the users") as connection:
            return [_user(row) for row in (await connection.execute(sa.select(users).order_by(users.c.name))).mappings()]

    async def find(self, name_or_id: str) -> User | None:
        """The account of that name or id."""
        query = sa.select(users).where((users.c.name == name_or_id.strip().lower()) | (users.c.id == name_or_id))
        async with self._database.read("look for a user") as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else _user(row)

    async def change(self, user_id: str, *, role: Role | None = None, email: str | None = None) -> User:
        """Another role, which holds from the next request on, or another e-mail address (empty: none).

        Raises:
            BadAccount: there is no such account, the address is taken, or it is the last admin (rule 3).
        """
        new: dict[str, Any] = {"updated_at": self._clock()}
        if role is not None:
            new["role"] = role
        if email is not None:
            new["email"] = _email(email)
        try:
            async with self._database.write("change a user") as connection:
                if role is not None and role is not Role.ADMIN:
                    await self._not_the_last_admin(connection, user_id)
                await connection.execute(sa.update(users).where(users.c.id == user_id).values(new))
                return await self._one(connection, users.c.id == user_id)
        except sa.exc.IntegrityError:
            raise BadAccount("another account has that e-mail address") from None

    async def disable(self, user_id: str) -> User:
        """Nobody signs in to this account any more, and whoever is signed in is not. Raises `BadAccount` (rule 3)."""
        now = self._clock()
        async with self._database.write("disable a user") as connection:
            await self._not_the_last_admin(connection, user_id)
            change = sa.update(users).where(users.c.id == user_id, users.c.disabled_at.is_(None))
            await connection.execute(change.values(disabled_at=now, updated_at=now))
            await connection.execute(sa.delete(sessions).where(sessions.c.user_id == user_id))
            return await self._one(connection, users.c.id == user_id)

    async def enable(self, user_id: str) -> User:
        """The account may be used again. Raises `BadAccount` if there is none."""
        async with self._database.write("enable a user") as connection:
            change = sa.update(users).where(users.c.id == user_id)
            await connection.execute(change.values(disabled_at=None, updated_at=self._clock()))
            return await self._one(connection, users.c.id == user_id)

    def judge(self, user: User, password: str) -> None:
        """Refuse a new password before anything is done about it. Raises `BadPassword`."""
        self._passwords.judge(password, name=user.name)

    async def set_password(self, user_id: str, password: str, *, keep_session: str | None = None) -> int:
        """A new password. Every session of the account ends but `keep_session`; gives how many ended.

        Raises:
            BadAccount, BadPassword.
        """
        user = await self.find(user_id)
        if user is None:
            raise _nobody()
        kept, now = await self._passwords.hash(password, name=user.name), self._clock()
        async with self._database.write("set a password") as connection:
            change = sa.update(users).where(users.c.id == user_id)
            await connection.execute(change.values(password_hash=kept, password_changed_at=now, updated_at=now))
            return await self._end_all(connection, user_id, keep_session)

    async def check(self, name: str, password: str) -> User | None:
        """The account of that name, if that is its password (rule 1). A hash of yesterday's parameters is renewed."""
        name = name.strip().lower()
        # What is no name is nobody's: the store would find `ann` for `ann` with a NUL behind it, past the limit of tries for `ann`.
        query = sa.select(users).where(users.c.name == name, sa.true() if NAME.fullmatch(name) else sa.false())
        async with self._database.read("check a password") as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        kept = None if row is None or row["disabled_at"] is not None else row["password_hash"]
        right = await self._passwords.is_right(kept, password)
        if row is None or kept is None or not right:
            return None
        if self._passwords.is_outdated(kept):
            again = await self._passwords.again(password)
            # whoever set another password meanwhile has the last word
            change = sa.update(users).where(users.c.id == row["id"], users.c.password_hash == kept)
            async with self._database.write("renew a hash") as connection:
                await connection.execute(change.values(password_hash=again))
        return _user(row)

    async def of_provider(
        self, issuer: str, subject: str, *, email: str | None, name: str, new_role: Role | None
    ) -> tuple[User, bool] | None:
        """The account of who the identity provider says it is, and whether it is new; None if there is none, or it is disabled.

        Matched by the provider's own name for the person; at the first time by e-mail address, which the caller must have found
        verified (None otherwise); and failing both, made with `new_role` if there is one. Nobody gets an account that somebody of
        the provider has already.
        """
        now = self._clock()
        try:
            email = _email(email)
        except BadAccount:
            email = None
        ours = sa.select(users).where(users.c.issuer == issuer, users.c.subject == subject)
        async with self._database.write("look for a user of the identity provider") as connection:
            row = (await connection.execute(ours)).mappings().one_or_none()
            if row is None and email is not None:
                claim = sa.update(users).where(users.c.email == email, users.c.issuer.is_(None))
                await connection.execute(claim.values(issuer=issuer, subject=subject, updated_at=now))
                row = (await connection.execute(ours)).mappings().one_or_none()
            new = row is None and new_role is not None
            if new:
                values: dict[str, Any] = {
                    "role": new_role,
                    "issuer": issuer,
                    "subject": subject,
                    "created_at": now,
                    "updated_at": now,
                }
                if email is not None and (await connection.execute(sa.select(users.c.id).where(users.c.email == email))).first():
                    email = None  # it is somebody else's here
                for free in (_name_from(name), f"{_name_from(name)[:90]}-{secrets.token_hex(4)}"):
                    values |= {"id": new_call_id(now), "name": free, "email": email}
                    await connection.execute(self._database.insert(users).values(values).on_conflict_do_nothing())
                    row = (await connection.execute(ours)).mappings().one_or_none()
                    if row is not None:
                        break
        return None if row is None or row["disabled_at"] is not None else (_user(row), new)

    async def _one(self, connection: AsyncConnection, which: sa.ColumnElement[bool]) -> User:
        row = (await connection.execute(sa.select(users).where(which))).mappings().one_or_none()
        if row is None:
            raise _nobody()
        return _user(row)

    async def _not_the_last_admin(self, connection: AsyncConnection, user_id: str) -> None:
        able = sa.select(users.c.id).where(users.c.role == Role.ADMIN, users.c.disabled_at.is_(None))
        if not self._database.embedded:
            able = able.with_for_update()  # two admins who disable each other at once
        if (await connection.execute(able)).scalars().all() == [user_id]:
            raise BadAccount("this is the last admin: make somebody else one first")

    # ---- sessions

    async def begin(self, user_id: str, by: SignedInBy, *, browser: str | None = None) -> tuple[str, Session]:
        """Somebody signed in: the word for the cookie, and the session.

        Raises:
            BadAccount: the account is disabled, or gone.
        """
        now, token = self._clock(), secrets.token_urlsafe(32)
        row: dict[str, Any] = {
            "id": new_call_id(now),
            "token_hash": _hashed(token),
            "user_id": user_id,
            "signed_in_by": by,
            "browser": browser,
        }
        row |= {"created_at": now, "seen_at": now, "expires_at": now + self._longest}
        async with self._database.write("begin a session") as connection:
            able = sa.update(users).where(users.c.id == user_id, users.c.disabled_at.is_(None)).values(last_sign_in_at=now)
            if (await connection.execute(able)).rowcount == 0:
                raise _nobody()
            await connection.execute(sa.insert(sessions).values(row))
            await connection.execute(sa.delete(sessions).where(self._over(now)))
            found = (await connection.execute(self._with_user(sessions.c.id == row["id"]))).mappings().one()
        return token, _session(found)

    async def session(self, token: str, *, use: bool = True) -> Session | None:
        """The session of a cookie's word, if it is not over. `use`: this keeps it from being idle."""
        now = self._clock()
        query = self._with_user(sessions.c.token_hash == _hashed(token), users.c.disabled_at.is_(None), ~self._over(now))
        async with self._database.read("look for a session") as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        if use and now - row["session_seen_at"] >= min(SEEN_EVERY, self._idle / 4):
            async with self._database.write("use a session") as connection:
                await connection.execute(sa.update(sessions).where(sessions.c.id == row["session_id"]).values(seen_at=now))
        return _session(row)

    async def sessions_of(self, user_id: str) -> list[Session]:
        """Where this account is signed in, the latest used first."""
        query = self._with_user(sessions.c.user_id == user_id, ~self._over(self._clock()))
        async with self._database.read("list sessions") as connection:
            rows = (await connection.execute(query.order_by(sessions.c.seen_at.desc(), sessions.c.id))).mappings()
            return [_session(row) for row in rows]

    async def end(self, user_id: str, session_id: str) -> bool:
        """Revoke one session of this account; whether there was one."""
        one = sa.delete(sessions).where(sessions.c.user_id == user_id, sessions.c.id == session_id)
        async with self._database.write("end a session") as connection:
            return (await connection.execute(one)).rowcount > 0

    async def end_all(self, user_id: str, *, keep: str | None = None) -> int:
        """Revoke every session of this account but `keep`; how many they were."""
        async with self._database.write("end sessions") as connection:
            return await self._end_all(connection, user_id, keep)

    async def forget_ended(self) -> int:
        """Delete the sessions that are over; how many they were."""
        async with self._database.write("forget sessions") as connection:
            return (await connection.execute(sa.delete(sessions).where(self._over(self._clock())))).rowcount

    async def _end_all(self, connection: AsyncConnection, user_id: str, keep: str | None) -> int:
        every = sa.delete(sessions).where(sessions.c.user_id == user_id)
        return (await connection.execute(every if keep is None else every.where(sessions.c.id != keep))).rowcount

    def _over(self, now: datetime) -> sa.ColumnElement[bool]:
        return (sessions.c.expires_at <= now) | (sessions.c.seen_at <= now - self._idle)

    def _with_user(self, *which: sa.ColumnElement[bool]) -> sa.Select[Any]:
        named = [column.label(f"session_{column.name}") for column in sessions.columns if column.name != "token_hash"]
        return sa.select(*named, users).join_from(sessions, users).where(*which)


def _nobody() -> BadAccount:
    return BadAccount("there is no such account, or it is disabled")


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _name(name: str) -> str:
    name = name.strip().lower()
    if not NAME.fullmatch(name):
        raise BadAccount("a name has at most 100 letters, digits and . _ @ + -, and begins with a letter or digit")
    return name


def _name_from(name: str) -> str:
    """A name for an account out of whatever the identity provider calls somebody."""
    return re.sub(r"[^a-z0-9._@+-]+", "-", name.strip().lower()).strip("._@+-")[:100] or "somebody"


def _email(email: str | None) -> str | None:
    email = (email or "").strip().lower()
    if email and not re.fullmatch(r"[^@\s<>,]{1,100}@[^@\s<>,]{1,200}", email):
        raise BadAccount("that is not an e-mail address")
    return email or None


def _user(row: sa.RowMapping) -> User:
    names = ("id", "name", "role", "email", "created_at", "last_sign_in_at", "disabled_at")
    values: dict[str, Any] = {name: row[name] for name in names}
    return User(**values, has_password=row["password_hash"] is not None, has_provider=row["subject"] is not None)


def _session(row: sa.RowMapping) -> Session:
    names = ("id", "signed_in_by", "browser", "created_at", "seen_at", "expires_at")
    values: dict[str, Any] = {name: row[f"session_{name}"] for name in names}
    return Session(**values, user=_user(row))
