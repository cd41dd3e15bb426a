"""Who is at the door: cookies, the word against forged forms, and where somebody may be sent back to.

Rule 1: over https every cookie is `Secure` and begins with `__Host-`: no neighbouring host can set one for us.
Rule 2: whatever changes something is a POST from our own pages: the browser says where it comes from, and the form has a word that
only the page and the cookie's owner can know. The word is masked anew each time, so that a compressed page does not give it away.
Rule 3: somebody is sent back only to a path of the console.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

SESSION, VISIT, FLASH, THEME, FLOW = "callrow", "callrow-visit", "callrow-flash", "callrow-theme", "callrow-flow"
THEMES = ("light", "dark")
HOME = "/console/calls"
SIGN_IN = "/console/sign-in"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MASK = 16


class Cookies:
    """Our cookies, over https or without (on this machine only)."""

    def __init__(self, *, https: bool) -> None:
        self._https = https

    def name(self, cookie: str) -> str:
        """What the browser calls it (rule 1)."""
        return f"__Host-{cookie}" if self._https else cookie

    def get(self, connection: HTTPConnection, cookie: str) -> str | None:
        """A cookie's value, if it came."""
        return connection.cookies.get(self.name(cookie)) or None

    def set(self, response: Response, cookie: str, value: str, *, seconds: int | None = None, readable: bool = False) -> None:
        """Set a cookie; without `seconds` until the browser is closed. `readable`: our own script may read it."""
        response.set_cookie(
            self.name(cookie), value, max_age=seconds, path="/", secure=self._https, httponly=not readable, samesite="lax"
        )

    def drop(self, response: Response, cookie: str) -> None:
        """Take a cookie away."""
        response.delete_cookie(self.name(cookie), path="/", secure=self._https, httponly=True, samesite="lax")


def new_word() -> str:
    """256 random bits for a cookie."""
    return secrets.token_urlsafe(32)


def form_word(cookie: str) -> str:
    """The word for a form, masked (rule 2)."""
    mask = secrets.token_bytes(MASK)
    return urlsafe_b64encode(mask + _xor(mask, _form_secret(cookie))).decode().rstrip("=")


def is_form_word(word: str | None, cookie: str | None) -> bool:
    """Whether the word belongs to that cookie."""
    if not word or not cookie:
        return False
    try:
        raw = urlsafe_b64decode(word.encode("ascii") + b"=" * (-len(word) % 4))
    except ValueError:
        return False
    return len(raw) == 2 * MASK and hmac.compare_digest(_xor(raw[:MASK], raw[MASK:]), _form_secret(cookie))


def _form_secret(cookie: str) -> bytes:
    return hmac.digest(cookie.encode("utf-8", "replace"), b"callrow: the word in a form 1", hashlib.sha256)[:MASK]


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def comes_from_us(headers: Mapping[str, str], public_url: str) -> bool:
    """Whether the browser says that one of our own pages sent this request.

    `Sec-Fetch-Site` is believed where it comes: no page can forge it (Fetch Metadata Request Headers, W3C). Otherwise `Origin` must
    name our public address or the very host that was asked, and over https if that is what we are. With neither it is no form.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is None:
        return site == "same-origin"
    ours, theirs = urlsplit(public_url), urlsplit(origin)
    if theirs.scheme not in ("http", "https") or (ours.scheme == "https" and theirs.scheme != "https"):
        return False
    return theirs.netloc.lower() in (ours.netloc.lower(), headers.get("host", "").lower()) and theirs.netloc != ""


def own_path(path: str | None, otherwise: str = HOME) -> str:
    """A path of the console to go on to, with its query; `otherwise` if that is none (rule 3)."""
    if not path or len(path) > 2_000 or not re.fullmatch(r"/console(?:/[\x21-\x5b\x5d-\x7e]*)?(?:\?[\x21-\x5b\x5d-\x7e]*)?", path):
        return otherwise
    try:
        parts = urlsplit(path)
    except ValueError:
        return otherwise
    if parts.scheme or parts.netloc or "//" in parts.path or ".." in parts.path or parts.path.startswith(SIGN_IN):
        return otherwise
    return path


def client_address(scope: Scope, hops: int) -> str:
    """Whose address tries: the peer's, or what the outermost of our own proxies saw. Of IPv6 the network, as one house has many."""
    address = (scope.get("client") or ("unknown", 0))[0]
    if hops:
        told = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        seen = [part.strip() for part in ",".join(told).split(",") if part.strip()]
        address = seen[-hops] if len(seen) >= hops else (seen[0] if seen else address)
    try:
        found = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def browser_name(agent: str) -> str | None:
    """A browser in a few words, for its owner to recognise; None if it says nothing that we know."""
    browsers = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
    systems = (
        *(("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Mac OS X", "macOS")),
        *(("CrOS", "ChromeOS"), ("Linux", "Linux")),
    )
    browser = next((name for sign, name in browsers if sign in agent), None)
    system = next((name for sign, name in systems if sign in agent), None)
    return " on ".join(filter(None, (browser, system))) or None
