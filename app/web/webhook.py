"""A signed request of the carrier: checked, read, answered; and never left without an answer that can be spoken.

Rule 1: nothing is touched, and nothing is asked of anybody, before the signature has been found right and the account is ours.
Rule 2: what was signed is what is read, the same object (T04). A field that we read must not stand there twice.
Rule 3: a call waits behind a spoken door. Whatever goes wrong there, the answer is TwiML with 200, never a 500.
Rule 4: no log line holds a value of a form, but for the carrier's own sids and closed words.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import logs
from app.errors import StoreUnavailable
from app.twilio.carrier import CALL_SID
from app.twilio.twiml import CONTENT_TYPE
from app.web.desk import Desk
from app.web.guard import Policy

log = logs.logger("web")

FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 500
# The carrier waits 15 s at most and the caller hears ringing or silence meanwhile.
PATIENCE_S = 4.0

TERMINAL = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
STATUSES = TERMINAL | {"queued", "initiated", "ringing", "in-progress"}


@dataclass(frozen=True, slots=True)
class Webhook:
    """One request of the carrier, found to be its own."""

    form: ImmutableMultiDict[str, str] = field(repr=False)
    query: ImmutableMultiDict[str, str] = field(repr=False)

    def one(self, name: str) -> str | None:
        """A field's value; None if it is missing or blank.

        Raises:
            Repeated: it stands there more than once (rule 2).
        """
        return _one(self.form, name)

    def asked(self, name: str) -> str | None:
        """A value of the address's query; None if it is missing or blank. Raises `Repeated`."""
        return _one(self.query, name)

    def number(self, name: str) -> int | None:
        """A field that is a whole number; None if it is anything else."""
        return whole(self.one(name))

    @property
    def call_sid(self) -> str:
        """The carrier's name for the call. Raises `Repeated`, or `Misshapen` if it has not the shape of one."""
        return _sid(self.one("CallSid"))

    @property
    def status(self) -> str:
        """CallStatus, if it is a word that we know; else empty."""
        status = self.one("CallStatus") or ""
        return status if status in STATUSES else ""


class Repeated(Exception):
    """A field that may stand once stands there twice. `name` is the field's."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class Misshapen(Exception):
    """A request that is signed, and yet nothing the carrier could have sent."""


type Answer = Callable[[Webhook], Awaitable[bytes]]
"""Raises anything it likes; returns a document."""
type Heed = Callable[[Webhook], Awaitable[None]]


class SpokenDoor:
    """A webhook whose answer is TwiML. `on_fault` makes the document for when `answer` raises or takes too long."""

    policy = Policy.SIGNED

    def __init__(self, desk: Desk, answer: Answer, on_fault: Callable[[Webhook], bytes]) -> None:
        self._desk, self._answer, self._on_fault = desk, answer, on_fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        webhook = await admitted(self._desk, scope, receive)
        response = FORBIDDEN if webhook is None else await self._reply(webhook, scope["path"])
        await response(scope, receive, send)

    async def _reply(self, webhook: Webhook, path: str) -> Response:
        try:
            async with asyncio.timeout(PATIENCE_S):
                document = await self._answer(webhook)
        except (Repeated, Misshapen) as fault:
            log.warning("a signed webhook that cannot be read", path=path, fault=type(fault).__name__)
            return BAD_REQUEST
        except (StoreUnavailable, TimeoutError) as fault:
            log.error("a webhook is answered without the database", path=path, fault=type(fault).__name__)
            document = self._on_fault(webhook)
        except Exception as fault:
            log.error("a webhook failed", path=path, fault=type(fault).__name__, at=logs.where(fault))
            document = self._on_fault(webhook)
        return Response(document, media_type=None, headers={"content-type": CONTENT_TYPE})


class SilentDoor:
    """A callback that nobody waits to hear: 204, or 503 if it could not be kept."""

    policy = Policy.SIGNED

    def __init__(self, desk: Desk, heed: Heed) -> None:
        self._desk, self._heed = desk, heed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        webhook = await admitted(self._desk, scope, receive)
        response = FORBIDDEN if webhook is None else await self._reply(webhook, scope["path"])
        await response(scope, receive, send)

    async def _reply(self, webhook: Webhook, path: str) -> Response:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._heed(webhook)
        except (Repeated, Misshapen) as fault:
            log.warning("a signed callback that cannot be read", path=path, fault=type(fault).__name__)
            return BAD_REQUEST
        except (StoreUnavailable, TimeoutError) as fault:
            log.error("a callback could not be kept", path=path, fault=type(fault).__name__)
            return Response(status_code=503)
        except Exception as fault:
            log.error("a callback failed", path=path, fault=type(fault).__name__, at=logs.where(fault))
            return Response(status_code=500)
        return Response(status_code=204)


FORBIDDEN = Response("Forbidden", 403, media_type="text/plain")
BAD_REQUEST = Response("Bad Request", 400, media_type="text/plain")


async def admitted(desk: Desk, scope: Scope, receive: Receive) -> Webhook | None:
    """Rules 1 and 2: the request as the carrier signed it, or None."""
    request = Request(scope, receive)
    form = parsed(await request.body(), request.headers.get("content-type", ""))
    reason = None
    if form is None:
        reason = "no form"
    elif not desk.signatures.http(scope, form):
        reason = "signature"
    elif form.getlist("AccountSid") != [desk.settings.twilio_account_sid]:
        reason = "account"
    if form is None or reason is not None:
        log.warning("a webhook was refused", path=scope["path"], reason=reason)
        return None
    query = parse_qsl(scope.get("query_string", b"").decode("ascii"), keep_blank_values=True, errors="replace")
    return Webhook(form, ImmutableMultiDict(query))


def parsed(body: bytes, content_type: str) -> ImmutableMultiDict[str, str] | None:
    """The fields of an urlencoded body in UTF-8, blank ones too; None for anything else."""
    kind, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != FORM or charset not in ("", "utf-8"):
        return None
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:  # not ASCII, not UTF-8 behind the percent signs, or too many fields
        return None
    return ImmutableMultiDict(pairs)


def whole(text: str | None) -> int | None:
    """A whole number of at most nine digits, or None."""
    return int(text) if text and len(text) <= 9 and text.isascii() and text.isdigit() else None


def _sid(value: str | None) -> str:
    if value is None or not CALL_SID.fullmatch(value):
        raise Misshapen
    return value


def _one(fields: ImmutableMultiDict[str, str], name: str) -> str | None:
    values = fields.getlist(name)
    if len(values) > 1:
        raise Repeated(name)
    return values[0] or None if values else None
