"""How the pretend carrier speaks HTTP to the service: signed, with the carrier's time limits, retries and redirects.

Written from the public documentation of request signing and connection overrides, without the carrier's own package, so that one
misreading cannot hide on both sides.

Rule 1: what is signed is the address as configured at the carrier (the public one), without its fragment; what is called may be
another (the service on loopback). `Origins` translates.
Rule 2: by default only a failed connect is retried, once. The fragment of an address changes that (`#rc=2&rp=all&rt=4000`).
Rule 3: a redirect is followed with GET and loses the fields; 307 and 308 are failures.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2

from app.rehearsal.twiml import Target

type Fields = Sequence[tuple[str, str]]

IDEMPOTENCY_HEADER = "I-Twilio-Idempotency-Token"
SIGNATURE_HEADER = "X-Twilio-Signature"
TIMEOUT_MS = 15_000
"""The hard ceiling of a voice webhook."""


def signature(token: str, url: str, fields: Fields = ()) -> str:
    """base64(HMAC-SHA1(auth token, URL + each field's name and value, byte-sorted by name, without separators)).

    Of fields with one name the different values follow in order, equal ones once.
    """
    values: dict[str, set[str]] = {}
    for name, value in fields:
        values.setdefault(name, set()).add(value)
    message = url + "".join(name + value for name in sorted(values) for value in sorted(values[name]))
    return base64.b64encode(hmac.digest(token.encode(), message.encode(), hashlib.sha1)).decode()


@dataclass(frozen=True, slots=True)
class Origins:
    """The address the service is known by, and the one where it is reached."""

    public: str
    service: str

    def reach(self, url: str) -> str:
        """The address to connect to: the public origin becomes the service's, every other stays; the fragment goes."""
        public, service, parts = urlsplit(self.public), urlsplit(self.service), urlsplit(url)
        if parts.netloc == public.netloc:
            secure = service.scheme == "https"
            scheme = ("wss" if secure else "ws") if parts.scheme in ("ws", "wss") else service.scheme
            parts = parts._replace(scheme=scheme, netloc=service.netloc)
        return urlunsplit(parts._replace(fragment=""))


@dataclass(frozen=True, slots=True)
class Overrides:
    """Connection overrides of one address, from its fragment; out-of-range values are held to their limits."""

    connect_ms: int = 5_000
    read_ms: int = TIMEOUT_MS
    total_ms: int = TIMEOUT_MS
    retries: int = 1
    retry_on: frozenset[str] = frozenset({"ct"})

    @classmethod
    def of(cls, url: str) -> "Overrides":
        """Read `#ct=2000&rt=4000&tt=15000&rc=2&rp=ct,5xx`."""
        given = dict(parse_qsl(urlsplit(url).fragment))

        def number(name: str, default: int, low: int, high: int) -> int:
            text = given.get(name, "")
            return min(max(int(text), low), high) if text.isdigit() else default

        return cls(
            connect_ms=number("ct", 5_000, 100, 10_000),
            read_ms=number("rt", TIMEOUT_MS, 100, TIMEOUT_MS),
            total_ms=number("tt", TIMEOUT_MS, 100, TIMEOUT_MS),
            retries=number("rc", 1, 0, 5),
            retry_on=frozenset(given.get("rp", "ct").split(",")),
        )

    def again(self, what: str) -> bool:
        """Whether a try that ended as `what` (ct, rt, 4xx, 5xx) is repeated."""
        return what in self.retry_on or "all" in self.retry_on


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered, and the public address that it answered for."""

    url: str
    status: int
    content_type: str
    body: bytes


class WebhookFailed(Exception):
    """No usable answer. `code` is the carrier's: 11200 for HTTP and time, 11205 for a connection that cannot be made."""

    def __init__(self, code: int, about: str, status: int | None = None) -> None:
        self.code, self.about, self.status = code, about, status
        super().__init__(f"{code}: {about}")


@dataclass(frozen=True, slots=True)
class Tampering:
    """How a request may be wrong on purpose. `signature`: `missing`, `wrong` or `malformed`."""

    signature: str | None = None

    def apply(self, good: str) -> str | None:
        """The signature to send; None means no header."""
        match self.signature:
            case None:
                return good
            case "missing":
                return None
            case "wrong":
                return base64.b64encode(hashlib.sha1(good.encode(), usedforsecurity=False).digest()).decode()
            case "malformed":
                return "not base64!"
            case other:
                raise ValueError(f"no such tampering: {other}")


HONEST = Tampering()


class Webhooks:
    """The carrier's HTTP client. Close it with `aclose`."""

    def __init__(self, token: str, origins: Origins) -> None:
        self._token, self._origins = token, origins
        self._client = httpx2.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "TwilioProxy/1.1", "Accept": "*/*"},
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(self, target: Target, fields: Fields, *, idempotency: str | None = None, tampering: Tampering = HONEST) -> Answer:
        """Request an address, with retries. Raises `WebhookFailed`; an answer always has a status below 300.

        The idempotency token is sent on retries, or from the first time on if the caller gives one.
        """
        overrides = Overrides.of(target.url)
        token = idempotency or secrets.token_hex(16)
        try:
            async with asyncio.timeout(overrides.total_ms / 1_000):
                for attempt in range(overrides.retries + 1):
                    key = token if attempt or idempotency else None
                    try:
                        return await self._once(target, fields, overrides, key, tampering)
                    except _Missed as missed:
                        if attempt == overrides.retries or not overrides.again(missed.kind):
                            raise missed.failure from None
        except TimeoutError:
            raise WebhookFailed(11200, f"no answer within {overrides.total_ms} ms") from None
        raise AssertionError("the last try returns or raises")

    async def _once(self, target: Target, fields: Fields, overrides: Overrides, key: str | None, tampering: Tampering) -> Answer:
        url, method = target.url, target.method
        for _ in range(10):
            response = await self._send(url, method, fields, overrides, key, tampering)
            if response.status_code in (301, 302, 303) and "location" in response.headers:
                url = str(httpx2.URL(url).join(response.headers["location"]))
                method, fields = "GET", ()
                continue
            if response.status_code >= 300:
                failure = WebhookFailed(11200, f"HTTP status {response.status_code}", response.status_code)
                raise _Missed(f"{response.status_code // 100}xx", failure)
            kind = response.headers.get("content-type", "")
            return Answer(url, response.status_code, kind, response.content)
        raise WebhookFailed(11200, "too many redirects")

    async def _send(
        self, url: str, method: str, fields: Fields, overrides: Overrides, key: str | None, tampering: Tampering
    ) -> httpx2.Response:
        signed = urlunsplit(urlsplit(url)._replace(fragment=""))
        headers, body = {}, None
        if method == "GET":
            if fields:
                parts = urlsplit(signed)
                query = "&".join(part for part in (parts.query, urlencode(fields)) if part)
                signed = urlunsplit(parts._replace(query=query))
            stamp = tampering.apply(signature(self._token, signed))
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
            body = urlencode(fields).encode()
            stamp = tampering.apply(signature(self._token, signed, fields))
        if stamp is not None:
            headers[SIGNATURE_HEADER] = stamp
        if key is not None:
            headers[IDEMPOTENCY_HEADER] = key
        timeout = httpx2.Timeout(overrides.read_ms / 1_000, connect=overrides.connect_ms / 1_000)
        try:
            return await self._client.request(method, self._origins.reach(signed), content=body, headers=headers, timeout=timeout)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise _Missed("ct", WebhookFailed(11205, "the connection could not be made")) from None
        except httpx2.TimeoutException:
            raise _Missed("rt", WebhookFailed(11200, f"no answer within {overrides.read_ms} ms")) from None
        except httpx2.TransportError as fault:
            raise _Missed("rt", WebhookFailed(11200, f"the connection broke: {type(fault).__name__}")) from None


class _Missed(Exception):
    """One try that failed, as `ct`, `rt`, `4xx` or `5xx`."""

    def __init__(self, kind: str, failure: WebhookFailed) -> None:
        self.kind, self.failure = kind, failure
        super().__init__(kind)


def as_form(fields: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """A mapping as form fields: None leaves a field out, an empty text keeps it blank."""
    return [(name, value) for name, value in fields.items() if value is not None]
