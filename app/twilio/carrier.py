"""The carrier's REST interface: hang up, redirect, look up (Twilio's documentation).

Rule 1: nothing here creates a call, and only what may happen twice is repeated by itself. A redirect whose answer was lost is not:
a second one would tear down the stream that the first has opened.
Rule 2: a call that is already over is no failure: the answer is False.
Rule 3: every request has a time limit. An answer that is no JSON object is `BadCarrierMessage`.
Rule 4: nothing from outside becomes part of an address unless it has the shape of a sid.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import anyio
import httpx2

from app.errors import BadCarrierMessage, CarrierRefused

CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}")
# "Call is not in-progress. Cannot redirect." and "The requested resource was not found."
ALREADY_OVER = (21220, 20404)
TRIES = 3
FIRST_PAUSE_S = 0.2
# An account with more numbers than this is looked through by a person.
MAX_PAGES = 20


class CarrierUnreachable(CarrierRefused):
    """No answer from the carrier's REST interface: no connection, or none in time. `reason` is the client's name for it."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(0)
        self.reason, self.retryable = reason, True
        self.sent = sent
        """The request may have reached the carrier and been carried out."""

    def __str__(self) -> str:
        return f"the carrier cannot be reached: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierCall:
    """A call as the carrier has it. `duration_s` is None until it has ended."""

    sid: str
    status: str
    direction: str = ""
    duration_s: int | None = None
    answered_by: str | None = None
    from_: str = field(default="", repr=False)
    to: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberConfiguration:
    """One of our numbers as the carrier has it configured. Empty addresses are not set."""

    sid: str
    number: str
    voice_url: str = ""
    voice_method: str = "POST"
    voice_fallback_url: str = ""
    voice_fallback_method: str = "POST"
    status_callback: str = ""
    status_callback_method: str = "POST"
    voice_application_sid: str = ""
    """If set, the carrier ignores the number's own addresses (Twilio's documentation)."""
    trunk_sid: str = ""


class Carrier:
    """One account at the carrier. Close it, or use it as an async context."""

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        api_url: str = "https://api.twilio.com",
        *,
        timeout_s: float = 5.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._api_url = api_url.rstrip("/")
        self._account = f"{self._api_url}/2010-04-01/Accounts/{account_sid}"
        self._client = httpx2.AsyncClient(
            auth=httpx2.BasicAuth(account_sid, auth_token),
            timeout=httpx2.Timeout(timeout_s),
            headers={"accept": "application/json", "user-agent": "callrow"},
            # A redirect would carry the account's password elsewhere; proxies of the environment are not configured here.
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def hang_up(self, sid: str) -> bool:
        """End a call, whether it still rings or is talked on. False: it was already over. Raises `CarrierRefused`."""
        return await self._update(sid, {"Status": "completed"})

    async def redirect(self, sid: str, url: str) -> bool:
        """Let a call fetch another document; a running stream ends at once. False: it was already over. Raises `CarrierRefused`."""
        return await self._update(sid, {"Url": url, "Method": "POST"}, again=False)

    async def fetch(self, sid: str) -> CarrierCall | None:
        """A call as the carrier has it; None if it has none of that sid. Raises `CarrierRefused`."""
        try:
            found = await self._ask("GET", self._address_of(sid))
        except CarrierRefused as refused:
            if _already_over(refused):
                return None
            raise
        return CarrierCall(
            sid=str(found.get("sid") or sid),
            status=str(found.get("status") or ""),
            direction=str(found.get("direction") or ""),
            duration_s=_seconds(found.get("duration")),
            answered_by=found.get("answered_by") or None,
            from_=str(found.get("from") or ""),
            to=str(found.get("to") or ""),
        )

    async def number_configuration(self) -> list[NumberConfiguration]:
        """All numbers of the account and the addresses they call. Raises `CarrierRefused`."""
        numbers: list[NumberConfiguration] = []
        next_page: str | None = f"{self._account}/IncomingPhoneNumbers.json?PageSize=200"
        pages = 0
        while next_page is not None and (pages := pages + 1) <= MAX_PAGES:
            page = await self._ask("GET", next_page)
            for row in page.get("incoming_phone_numbers") or ():
                given = {name: str(row.get(name) or "") for name in NumberConfiguration.__slots__ if name != "number"}
                methods = {name: given[name] or "POST" for name in given if name.endswith("_method")}
                numbers.append(NumberConfiguration(number=str(row.get("phone_number") or ""), **{**given, **methods}))
            next_page = self._next_page(page.get("next_page_uri"))
        return numbers

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _address_of(self, sid: str) -> str:
        if not CALL_SID.fullmatch(sid):
            raise ValueError("not a call sid")
        return f"{self._account}/Calls/{sid}.json"

    def _next_page(self, uri: Any) -> str | None:
        """The next page, only if it is on the same host: the password goes with it."""
        if not isinstance(uri, str) or not uri:
            return None
        address = urljoin(self._api_url + "/", uri)
        return address if urlsplit(address)[:2] == urlsplit(self._api_url)[:2] else None

    async def _update(self, sid: str, change: Mapping[str, str], *, again: bool = True) -> bool:
        try:
            await self._ask("POST", self._address_of(sid), change, again=again)
        except CarrierRefused as refused:
            if _already_over(refused):
                return False
            raise
        return True

    async def _ask(self, method: str, address: str, form: Mapping[str, str] | None = None, *, again: bool = True) -> dict[str, Any]:
        """One request, repeated after a short pause where a repetition can help. `again`: also if it may have been carried out."""
        for attempt in range(1, TRIES):
            try:
                return await self._ask_once(method, address, form)
            except CarrierRefused as refused:
                if not _not_carried_out(refused) and not (again and (refused.retryable or refused.status >= 500)):
                    raise
            await anyio.sleep(FIRST_PAUSE_S * 2**attempt)
        return await self._ask_once(method, address, form)

    async def _ask_once(self, method: str, address: str, form: Mapping[str, str] | None) -> dict[str, Any]:
        try:
            response = await self._client.request(method, address, data=form)
        except httpx2.TransportError as fault:
            sent = not isinstance(fault, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
            raise CarrierUnreachable(
                type(fault).__name__, sent=sent
            ) from None  # the client's exception holds the password's header
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success:
            if not isinstance(body, dict):
                raise BadCarrierMessage("REST")
            return body
        code = body.get("code") if isinstance(body, dict) else None
        raise CarrierRefused(response.status_code, code if isinstance(code, int) else None)


def _already_over(refused: CarrierRefused) -> bool:
    return refused.code in ALREADY_OVER or (refused.status == 404 and refused.code is None)


def _not_carried_out(refused: CarrierRefused) -> bool:
    """429 is documented as not processed (Twilio's documentation); without a connection nothing can have been."""
    return refused.status == 429 or (isinstance(refused, CarrierUnreachable) and not refused.sent)


def _seconds(value: Any) -> int | None:
    """The carrier writes durations as text, empty for a call that has none."""
    return int(value) if str(value or "").isdecimal() else None
