"""What a person said, pressed or is called, as it lies in the database.

Rule 1: `Private` and `PrivateJSON` are the only two column types for such values. Without a key they keep text as text; with a key
each value is sealed with AES-256-GCM, and so a copy of the database tells nobody anything.
Rule 2: the key belongs to a database (to its engines' dialects), not to the process: two databases may be open side by side.
Rule 3: a sealed value is bound to its column by the associated data: moved to another column it does not open.
Rule 4: text that was kept before there was a key stays readable; sealed text without its key is an error, never a value.
Rule 5: numbers are looked up by a keyed blind index beside them, never by their sealed text. Words that are searched for are kept
as `BlindWord`: without the key nobody can say which word it is, but who has the table can count in how many calls it was said.
"""

import base64
import hashlib
import hmac
import os
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.engine import Dialect

from app.errors import BadSetting

VERSION = b"\x01"
SEALED = "sealed:"
PLAIN = "plain:"
"""Only before text that itself begins with one of these two words, so that nobody can say a sealed value into the telephone."""
NONCE, KEY_ID, TAG = 12, 4, 16


class Seal:
    """Seals and opens private text, and makes the blind index of a number. `key` is 32 bytes in base64, or None.

    Raises:
        BadSetting: the key is not 32 bytes in base64.
    """

    def __init__(self, key: str | None = None) -> None:
        self._cipher: AESGCM | None = None
        self._key_id = b""
        secret = b"callrow: a database without a key"
        if key is not None:
            secret = _key_bytes(key)
            self._cipher = AESGCM(_derived(secret, b"callrow private 1"))
            self._key_id = hashlib.sha256(b"callrow key id" + secret).digest()[:KEY_ID]
        self._index_key = _derived(secret, b"callrow blind index 1")
        self._word_key = _derived(secret, b"callrow search 1")

    def close(self, text: str, place: str) -> str:
        """The text as it is kept in the column `place`."""
        text = _storable(text)
        if self._cipher is None:
            return PLAIN + text if text.startswith((SEALED, PLAIN)) else text
        nonce = os.urandom(NONCE)
        sealed = self._cipher.encrypt(nonce, text.encode(), place.encode())
        return SEALED + base64.b64encode(VERSION + self._key_id + nonce + sealed).decode()

    def open(self, kept: str, place: str) -> str:
        """The text as it was given.

        Raises:
            BadSetting: it was sealed with another key, or it is not what was sealed here.
        """
        if not kept.startswith(SEALED):
            return kept.removeprefix(PLAIN)
        body = base64.b64decode(kept.removeprefix(SEALED))
        key_id, nonce, sealed = body[1 : 1 + KEY_ID], body[1 + KEY_ID : 1 + KEY_ID + NONCE], body[1 + KEY_ID + NONCE :]
        if self._cipher is None or body[:1] != VERSION or key_id != self._key_id:
            raise _not_the_key("is not the key that these rows were sealed with")
        try:
            return self._cipher.decrypt(nonce, sealed, place.encode()).decode()
        except InvalidTag:
            raise _not_the_key(f"does not open a value in {place}: it was altered or moved") from None

    def blind_index(self, number: str) -> str:
        """The same for the same number, however it is punctuated; tells nothing of the number without the key. 32 characters."""
        digits = "".join(c for c in number if c in "0123456789")
        return hmac.new(self._index_key, (digits or number).encode(), hashlib.sha256).hexdigest()[:32]

    def blind_word(self, word: str) -> int:
        """The same for the same word; tells nothing of the word without the key. 64 bits, signed, as a BIGINT holds them."""
        return int.from_bytes(hmac.digest(self._word_key, _storable(word).encode(), "sha256")[:8], signed=True)


def _key_bytes(key: str) -> bytes:
    try:
        secret = base64.b64decode(key, validate=True)
    except ValueError:
        raise _not_the_key("is not base64") from None
    if len(secret) != 32:
        raise _not_the_key(f"is {len(secret)} bytes long, not 32")
    return secret


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _not_the_key(wrong: str) -> BadSetting:
    return BadSetting([("DATA_KEY", wrong, "DATA_KEY=...  (32 bytes in base64; make one with: openssl rand -base64 32)")])


def _storable(text: str) -> str:
    """Without NUL (PostgreSQL keeps none) and lone surrogates (UTF-8 has none): a model's JSON may bring both."""
    if text.isascii():
        return text.replace("\x00", "") if "\x00" in text else text
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


_SEALS: WeakKeyDictionary[Dialect, Seal] = WeakKeyDictionary()
_NO_KEY = Seal()


def use_seal(dialect: Dialect, seal: Seal) -> None:
    """From now on this dialect's private columns use this seal (rule 2)."""
    _SEALS[dialect] = seal


class PlainText(sa.types.TypeDecorator[str]):
    """A text column for what is not private, but may come from a model or a carrier all the same."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _storable(value)


class CallName(sa.types.TypeDecorator[str]):
    """Our name for a call. Doors ask for whatever they were asked for: a name that cannot be one is not found, and is no error."""

    impl = sa.String
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(26)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _storable(value)


class Private(sa.types.TypeDecorator[str]):
    """A text column for what is private. `place` is `table.column`."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _SEALS.get(dialect, _NO_KEY).close(value, self.place)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _SEALS.get(dialect, _NO_KEY).open(value, self.place)


class PrivateJSON(sa.types.TypeDecorator[Any]):
    """A text column that keeps a private value as JSON. None is NULL. `place` is `table.column`."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else _SEALS.get(dialect, _NO_KEY).close(to_json(value), self.place)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(_SEALS.get(dialect, _NO_KEY).open(value, self.place))


class BlindWord(sa.types.TypeDecorator[Any]):
    """A word to look rows up by (rule 5). It is kept and compared as a number made with the key; a number may be given as well."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: str | int | None, dialect: Dialect) -> int | None:
        return self.kept(value, dialect) if isinstance(value, str) else value

    def kept(self, word: str, dialect: Dialect) -> int:
        """The number that stands for the word in that database."""
        return _SEALS.get(dialect, _NO_KEY).blind_word(word)


def to_json(value: Any) -> str:
    """JSON text that every database keeps: no NUL, no lone surrogate."""
    try:
        text = msgspec.json.encode(value).decode()
        if "\\u0000" not in text:
            return text
    except UnicodeEncodeError:
        pass  # a lone surrogate: cleaned below
    return msgspec.json.encode(_cleaned(msgspec.to_builtins(value))).decode()


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, dict):
        return {_cleaned(name): _cleaned(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(part) for part in value]
    return value
