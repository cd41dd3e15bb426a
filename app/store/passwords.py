"""Passwords: argon2id with the library's parameters of the day, computed where no call waits for it.

Rule 1: a hash takes 64 MB and a good tenth of a second of a core, so it runs in a thread, and no more than two at a time.
Rule 2: where there is no hash to compare with, as much is computed all the same: who asks learns nothing from the time it takes.
Rule 3: a password is compared as Unicode means it (NFKC), whichever way a keyboard put its accents together.
"""

import asyncio
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import OurFault

AT_ONCE = 2
SHORTEST, LONGEST = 12, 200
"""Characters. Longer is better than stranger, so nothing is said about digits and signs (NIST SP 800-63B, 3.1.1.2)."""


class BadPassword(OurFault):
    """A password that will not do. `why` is a sentence for the person who chose it."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)

    def __str__(self) -> str:
        return self.why


class Passwords:
    """Makes and checks hashes. `hasher` is another one for tests, which have no time."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._nobodys: str | None = None

    def judge(self, password: str, *, name: str = "") -> None:
        """Refuse a password that will not do for the account `name`.

        Raises:
            BadPassword: it is too short, too long, or too easily guessed.
        """
        password = _as_meant(password)
        if len(password) < SHORTEST:
            raise BadPassword(f"a password has at least {SHORTEST} characters")
        if len(password) > LONGEST:
            raise BadPassword(f"a password has at most {LONGEST} characters")
        if len(set(password)) < 4 or (name and password.casefold().startswith(name.casefold()) and len(password) < len(name) + 6):
            raise BadPassword("that password is too easily guessed")

    async def hash(self, password: str, *, name: str = "") -> str:
        """The hash to keep. Raises `BadPassword` as `judge` does."""
        self.judge(password, name=name)
        return await self._compute(_as_meant(password))

    async def is_right(self, kept: str | None, password: str) -> bool:
        """Whether this is the password of that hash; never, where there is none (rule 2)."""
        if kept is None:
            if self._nobodys is None:
                self._nobodys = await self._compute("nobody has this password")
            await self._verify(self._nobodys, _as_meant(password))
            return False
        return await self._verify(kept, _as_meant(password))

    def is_outdated(self, kept: str) -> bool:
        """Whether this hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(kept)

    async def again(self, password: str) -> str:
        """A new hash of a password that was found right."""
        return await self._compute(_as_meant(password))

    async def _compute(self, password: str) -> str:
        async with self._places:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _verify(self, kept: str, password: str) -> bool:
        async with self._places:
            try:
                return await asyncio.to_thread(self._hasher.verify, kept, password[: LONGEST + 1])
            except (VerificationError, InvalidHashError):
                return False


def _as_meant(password: str) -> str:
    return unicodedata.normalize("NFKC", password.encode("utf-8", "replace").decode())
