"""The carrier's REST interface: hang up, redirect, look up (Twilio's documentation).

Rule 1: nothing here creates a call, and only what may happen twice is repeated by itself. A redirect whose answer was lost is not:
a second one would tear down the stream that the first has opened.
Rule 2: a call that is already over is no failure: the answer is False.
Rule 3: every request has a time limit. An answer that is no JSON object is `BadCarrierMessage`.
Rule 4: nothing from outside becomes part of an address unless it has the shape of a sid.
Rule 5: a list is read page by page, from the same host only, and its end is said: reached, or given up.
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlencode, urljoin, urlsplit

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
CALLS_PER_PAGE = 500
# A million calls in one question. A list that goes on behind that, or in a circle, is given up, and `CallLog.cut_off` says so.
MAX_LOG_PAGES = 2_000
WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
CURRENCY = re.compile(r"[A-Za-z]{3}")
MOST = Decimal(1_000_000)


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
    """A call as the carrier has it. `duration_s` is answered seconds; None until it has ended, and where nobody answered."""

    sid: str
    status: str
    direction: str = ""
    duration_s: int | None = None
    answered_by: str | None = None
    from_: str = field(default="", repr=False)
    to: str = field(default="", repr=False)
    parent_call_sid: str | None = None
    """The call whose document dialled this one: then it is a leg of that call."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    """Moments in UTC, whole seconds."""
    price: Decimal | None = None
    """What the connection costs, a positive number; None until the carrier has rated it, minutes after the end (Twilio's
    documentation). Streams and speech are billed beside it.
    """
    price_unit: str | None = None
    """ISO 4217."""

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, as far as the carrier tells; None for one that has no time at all."""
        if self.end_time is not None or self.start_time is None:
            return self.end_time
        return self.start_time + timedelta(seconds=self.duration_s or 0)


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


class CallLog:
    """The carrier's list of calls, read page by page as it is iterated over: the newest first, one page in memory.

    Calls that begin meanwhile may make one appear twice.
    """

    def __init__(self, carrier: "Carrier", first_page: str, since: datetime, until: datetime) -> None:
        self._carrier, self._first_page = carrier, first_page
        self._since, self._until = since, until
        self.pages = 0
        self.malformed = 0
        """Entries that cannot be placed: no object, no sid, or a time that is none. They are left out."""
        self.cut_off = False
        """The list went on, and was not followed: behind `MAX_LOG_PAGES`, or to another host."""

    async def __aiter__(self) -> AsyncIterator[CarrierCall]:
        """Every call that began (or, without a beginning, ended) in `since <= moment < until`.

        Raises:
            CarrierRefused: the carrier said no, or nothing.
            BadCarrierMessage: a page holds no list of calls.
        """
        next_page: str | None = self._first_page
        while next_page is not None:
            if self.pages == MAX_LOG_PAGES:
                self.cut_off = True
                return
            page = await self._carrier.page(next_page)
            self.pages += 1
            for entry in _entries(page):
                call = _listed(entry)
                if call is None:
                    self.malformed += 1
                    continue
                moment = call.start_time or call.end_time
                if moment is not None and self._since <= moment < self._until:
                    yield call
            next_page = self._carrier.next_page(page)
            self.cut_off = next_page is None and bool(page.get("next_page_uri"))


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
        return _call({"sid": sid, **found})

    def calls(self, since: datetime, until: datetime) -> CallLog:
        """Iterate over the calls that began in `since <= start < until`, both with a time zone; see `CallLog`.

        The carrier filters by dates, and "on or before midnight of this date" can be read in two ways (Twilio's documentation): so
        a day more is asked for, and what is outside is left out here.
        """
        first, last = since.astimezone(UTC).date(), until.astimezone(UTC).date() + timedelta(days=1)
        asked = {"StartTime>": first.isoformat(), "StartTime<": last.isoformat(), "PageSize": CALLS_PER_PAGE}
        return CallLog(self, f"{self._account}/Calls.json?{urlencode(asked)}", since, until)

    async def legs(self, sid: str) -> list[CarrierCall]:
        """The calls that a document of this call dialled, 100 at most; what cannot be read is left out. Raises `CarrierRefused`."""
        if not CALL_SID.fullmatch(sid):
            raise ValueError("not a call sid")
        page = await self.page(f"{self._account}/Calls.json?ParentCallSid={sid}&PageSize=100")
        return [call for entry in _entries(page) if (call := _listed(entry)) is not None]

    async def number_configuration(self) -> list[NumberConfiguration]:
        """All numbers of the account and the addresses they call. Raises `CarrierRefused`."""
        numbers: list[NumberConfiguration] = []
        next_page: str | None = f"{self._account}/IncomingPhoneNumbers.json?PageSize=200"
        pages = 0
        while next_page is not None and (pages := pages + 1) <= MAX_PAGES:
            page = await self.page(next_page)
            for row in page.get("incoming_phone_numbers") or ():
                given = {name: str(row.get(name) or "") for name in NumberConfiguration.__slots__ if name != "number"}
                methods = {name: given[name] or "POST" for name in given if name.endswith("_method")}
                numbers.append(NumberConfiguration(number=str(row.get("phone_number") or ""), **{**given, **methods}))
            next_page = self.next_page(page)
        return numbers

    async def page(self, address: str) -> dict[str, Any]:
        """One page of a list, at an address that `next_page` or this class made. Raises `CarrierRefused`, `BadCarrierMessage`."""
        return await self._ask("GET", address)

    def next_page(self, page: Mapping[str, Any]) -> str | None:
        """The address of the page behind that one, only if it is on the same host: the password goes with it."""
        uri = page.get("next_page_uri")
        if not isinstance(uri, str) or not uri:
            return None
        address = urljoin(self._api_url + "/", uri)
        return address if urlsplit(address)[:2] == urlsplit(self._api_url)[:2] else None

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


def _entries(page: Mapping[str, Any]) -> list[Any]:
    """What a page of calls lists. Without a list it is no such page, and not an empty one."""
    entries = page.get("calls")
    if not isinstance(entries, list):
        raise BadCarrierMessage("list of calls")
    return entries


def _listed(entry: Any) -> CarrierCall | None:
    """An entry of a list; None if it cannot be placed."""
    if not isinstance(entry, dict) or not CALL_SID.fullmatch(str(entry.get("sid") or "")):
        return None
    call = _call(entry)
    unreadable = (entry.get("start_time") and call.start_time is None) or (entry.get("end_time") and call.end_time is None)
    return None if unreadable else call


def _call(found: Mapping[str, Any]) -> CarrierCall:
    """A call as the API shows it. What is there and cannot be read counts as not there."""
    price_unit = str(found.get("price_unit") or "")
    return CarrierCall(
        sid=str(found.get("sid") or ""),
        status=str(found.get("status") or ""),
        direction=str(found.get("direction") or ""),
        duration_s=_seconds(found.get("duration")),
        answered_by=found.get("answered_by") or None,
        from_=str(found.get("from") or ""),
        to=str(found.get("to") or ""),
        parent_call_sid=found.get("parent_call_sid") or None,
        start_time=_moment(found.get("start_time")),
        end_time=_moment(found.get("end_time")),
        price=_price(found.get("price")),
        price_unit=price_unit.upper() if CURRENCY.fullmatch(price_unit) else None,
    )


def _seconds(value: Any) -> int | None:
    """The carrier writes durations as text, empty for a call that has none."""
    text = "" if value is None else str(value)
    return int(text) if WHOLE_NUMBER.fullmatch(text) else None


def _moment(value: Any) -> datetime | None:
    """A time of RFC 2822. One without a zone is in UTC, as that standard says of `-0000`."""
    if not isinstance(value, str) or not value:
        return None
    try:
        found = parsedate_to_datetime(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _price(value: Any) -> Decimal | None:
    """The carrier writes a charge as a negative number in text: the sign says that it is one."""
    try:
        price = abs(Decimal(str(value)))
    except InvalidOperation:
        return None
    return price if price.is_finite() and price < MOST else None
