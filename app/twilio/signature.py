"""Is this request the carrier's? Its signature, over the address it was configured with (Twilio's documentation).

Rule 1: the address is the configured public one and the raw path and query of the request. Host and X-Forwarded-* say nothing.
Rule 2: exactly one well-formed header, or the answer is no. Whatever arrives here, nothing is raised.
Rule 3: during a rotation several tokens are good; which one signed changes nothing else.
Rule 4: HMAC-SHA1 with the account's token, always. A request does not choose its own algorithm (T08).
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from twilio.request_validator import RequestValidator

HEADER = b"x-twilio-signature"
# A SHA-1 in base64: 27 characters and one of padding.
SIGNATURE = re.compile(rb"[A-Za-z0-9+/]{27}=")
# What a request line may hold (RFC 9112, 3.2). Outside it `urlsplit` would strip characters, and another address be signed.
TARGET = re.compile(rb"[\x21-\x7e]*")


class Upgrade(StrEnum):
    """What the signature on a WebSocket upgrade says."""

    RIGHT = "present_and_right"
    ABSENT = "absent"
    WRONG = "wrong"


class Signatures:
    """Checks the carrier's signatures. `tokens` are the account's auth tokens, the present one and those being rotated."""

    def __init__(self, tokens: Sequence[str], public_url: str) -> None:
        if not tokens or not all(tokens):
            raise ValueError("a signature needs a token; an empty one would let anybody sign")
        self._validators = [RequestValidator(token) for token in tokens]
        self._public_url = public_url.rstrip("/")
        base = urlsplit(self._public_url)
        self._socket_url = f"{'wss' if base.scheme == 'https' else 'ws'}://{base.netloc}{base.path}"

    def http(self, scope: Mapping[str, Any], form: Mapping[str, str] | None) -> bool:
        """Is a webhook's request signed by the carrier?

        `form` holds every field that was received, blank ones too, as a multi-dict with `getlist` if names may repeat; None for a
        request without a body. What is validated here must be the very object that is then read (T04).
        """
        signature, target = _signature(scope), _target(scope)
        return bool(signature and target is not None and self._signed(self._public_url + target, form or {}, signature))

    def upgrade(self, scope: Mapping[str, Any]) -> Upgrade:
        """Is a WebSocket upgrade signed by the carrier? Signed is the `wss://` address, without fields (Twilio's documentation).

        Whether the carrier signs a trailing slash is not documented; both forms are accepted.
        """
        if not any(name.lower() == HEADER for name, _ in scope.get("headers", ())):
            return Upgrade.ABSENT
        signature, target = _signature(scope), _target(scope)
        if signature is None or target is None:
            return Upgrade.WRONG
        address = self._socket_url + target
        bare = address.rstrip("/")
        right = any(self._signed(form, {}, signature) for form in (address, bare, bare + "/"))
        return Upgrade.RIGHT if right else Upgrade.WRONG

    def _signed(self, address: str, form: Mapping[str, str], signature: str) -> bool:
        try:
            # A list, so that the time taken does not tell which token it was.
            return any([validator.validate(address, form, signature) for validator in self._validators])
        except ValueError:  # lone surrogates in a field cannot be what the carrier signed
            return False


def _signature(scope: Mapping[str, Any]) -> str | None:
    values = [value for name, value in scope.get("headers", ()) if name.lower() == HEADER]
    return values[0].decode("ascii") if len(values) == 1 and SIGNATURE.fullmatch(values[0]) else None


def _target(scope: Mapping[str, Any]) -> str | None:
    path = (scope.get("raw_path") or str(scope.get("path", "")).encode()).split(b"?", 1)[0]
    query = scope.get("query_string", b"")
    if not TARGET.fullmatch(path) or not TARGET.fullmatch(query):
        return None
    return path.decode("ascii") + (f"?{query.decode('ascii')}" if query else "")
