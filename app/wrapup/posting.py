"""One HTTP request out of the house, and what came of it.

Rule 1: the status decides. Of the body at most 64 kB are read, and nothing of it is kept.
Rule 2: no redirect is followed and no proxy of the environment used: what is signed goes where the setting says, or nowhere.
Rule 3: one limit for all of it, so that a peer that drips holds nobody.
Rule 4: a fault is a constant or the name of an error's class; its words hold addresses and stay here.
"""

import asyncio
import email.utils
import math
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

import httpx2

MOST_READ = 65_536
GONE = 410
"""The receiver wants no more of it (Standard Webhooks, "Deliverability and reliability")."""

TIMEOUT, REDIRECTED, REFUSED = "timeout", "redirected", "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of one attempt; nothing in it is private."""

    status: int | None = None
    """The peer's own: of HTTP or of SMTP."""
    fault: str | None = None
    """None: delivered."""
    retry_after_s: float | None = None
    """How long the peer asked us to wait."""
    final: bool = False
    """The fault is for good: trying again is worth nothing."""

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Self:
        """From what a durable job has kept, perhaps under another version of us."""
        return cls(
            status=kept.get("status"),
            fault=kept.get("fault"),
            retry_after_s=kept.get("retry_after_s"),
            final=bool(kept.get("final")),
        )

    def json_ready(self) -> dict[str, Any]:
        """For a durable job to keep."""
        return asdict(self)


def tls() -> ssl.SSLContext:
    """Verified TLS by the machine's authorities; SSL_CERT_FILE names a house's own, as everywhere in Python."""
    return httpx2.create_ssl_context(trust_env=True)


async def post(url: str, body: bytes, headers: Mapping[str, str], *, limit_s: float, tls: ssl.SSLContext) -> Sent:
    """Send `body` and say what came of it. Raises nothing but cancellation."""
    status, retry_after_s, fault = None, None, TIMEOUT
    try:
        async with (
            asyncio.timeout(limit_s),
            # A client for each request: nothing of an answer (a cookie, a broken connection) meets the next one.
            httpx2.AsyncClient(verify=tls, timeout=limit_s, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers=dict(headers)) as answer,
        ):
            status, retry_after_s = answer.status_code, retry_after(answer.headers.get("retry-after"))
            read = 0
            async for part in answer.aiter_raw():
                read += len(part)
                if read >= MOST_READ:
                    break
    except TimeoutError:
        pass  # it is the fault already, unless there is a status (rule 1)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as wrong:
        fault = type(wrong).__name__
    return Sent(fault=fault) if status is None else _by_status(status, retry_after_s)


def _by_status(status: int, retry_after_s: float | None) -> Sent:
    if 200 <= status < 300:
        return Sent(status=status)
    fault = REDIRECTED if 300 <= status < 400 else REFUSED
    return Sent(status=status, fault=fault, retry_after_s=retry_after_s, final=status == GONE)


def retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After`, which is a number or a date (RFC 9110, 10.2.3); None for anything else."""
    try:
        seconds = float(value or "")
    except ValueError:
        pass
    else:
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        moment = email.utils.parsedate_to_datetime(value or "")
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
