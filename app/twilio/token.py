"""The stream's token: which call, which stream of it, until when.

The carrier brings it from our signed answer to the first message on the media socket. It is an HMAC over call, epoch and expiry:
nothing is stored, and any worker can repeat and check it. That it is used once is the store's business (the claimed epoch).

Rule 1: the key is derived from the auth token for this one purpose; the auth token itself signs nothing of ours.
Rule 2: a token is in no log and no journal.
"""

import base64
import hashlib
import hmac
import re

LIFE_MS = 60_000
SHAPE = re.compile(r"(\d{1,15})\.([A-Za-z0-9_-]{43})", re.ASCII)


class StreamTokens:
    """Makes and checks stream tokens. The first auth token makes; all of them check, while one is being rotated."""

    def __init__(self, auth_token: str, *others: str) -> None:
        if not auth_token:
            raise ValueError("a stream token needs an auth token to derive its key from")
        self._keys = [_derived(token) for token in (auth_token, *others)]

    def make(self, call_id: str, epoch: int, now: int) -> str:
        """A token for one stream, good for 60 s. `now` is milliseconds since 1970."""
        expiry = now + LIFE_MS
        return f"{expiry}.{_mac(self._keys[0], call_id, epoch, expiry)}"

    def check(self, token: str, call_id: str, epoch: int, now: int) -> bool:
        """Is this a token of ours for that stream, and not yet expired? Whatever arrives, nothing is raised."""
        if (shape := SHAPE.fullmatch(token)) is None:
            return False
        expiry, mac = int(shape[1]), shape[2]
        # Every key is tried and the expiry is looked at last, so that the time taken tells nothing.
        ours = any([hmac.compare_digest(_mac(key, call_id, epoch, expiry), mac) for key in self._keys])
        return ours and now < expiry


def _derived(auth_token: str) -> bytes:
    """HKDF with SHA-256 (RFC 5869), one block: extract with a fixed salt, expand with the purpose."""
    extracted = hmac.digest(b"callrow", auth_token.encode(), "sha256")
    return hmac.digest(extracted, b"stream token, version 1\x01", "sha256")


def _mac(key: bytes, call_id: str, epoch: int, expiry: int) -> str:
    # The call id is what a stranger may choose in `start`; the numbers come last, so no two triples make the same message.
    message = b"%b:%d:%d" % (call_id.encode(errors="surrogatepass"), epoch, expiry)
    return base64.urlsafe_b64encode(hmac.digest(key, message, hashlib.sha256)).rstrip(b"=").decode()
