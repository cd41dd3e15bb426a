"""The pretend carrier's REST interface: as much of it as the service and `callrow doctor` use.

    POST /2010-04-01/Accounts/{AC}/Calls/{CA}.json              update: Status=completed|canceled, or Url (with Method), or Twiml
    GET  /2010-04-01/Accounts/{AC}/Calls/{CA}.json, Calls.json  fetch, list (To, From, Status, ParentCallSid, PageSize)
    GET  /2010-04-01/Accounts/{AC}/IncomingPhoneNumbers.json    list (PhoneNumber)
    GET  /2010-04-01/Accounts/{AC}.json                         the account itself

Basic authentication with account and token, else 401 with 20003; unknown is 404 with 20404; an update of a finished
call is 400 with 21220. Numbers are strings, times are RFC 2822, as in the public reference of the API.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.rehearsal import twiml
from app.rehearsal.carrier_call import Ask, Call, Run, Stop
from app.rehearsal.carrier_plans import Account, Number

VERSION = "2010-04-01"

type Handler = Callable[[Request], Awaitable[Response]]


def error(status: int, code: int, message: str) -> JSONResponse:
    """An error in the carrier's shape."""
    about = f"https://www.twilio.com/docs/errors/{code}"
    return JSONResponse({"code": code, "message": message, "more_info": about, "status": status}, status)


def not_found(request: Request) -> JSONResponse:
    """404 with 20404."""
    return error(404, 20404, f"The requested resource {request.url.path} was not found")


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment)


def as_json(call: Call) -> dict[str, Any]:
    """A call as the API shows it."""
    base = f"/{VERSION}/Accounts/{call.account.sid}/Calls/{call.sid}"
    over = call.finished and call.answered_at is not None
    return {
        "sid": call.sid,
        "account_sid": call.account.sid,
        "parent_call_sid": None,
        "from": call.plan.from_number,
        "from_formatted": call.plan.from_number,
        "to": call.number.phone_number,
        "to_formatted": call.number.phone_number,
        "phone_number_sid": call.number.sid,
        "status": call.status,
        "direction": "inbound",
        "answered_by": None,
        "start_time": _date(call.answered_at or call.created),
        "end_time": _date(call.ended_at),
        "duration": str(call.duration_s) if over else None,
        "price": None,
        "price_unit": "USD",
        "queue_time": "0",
        "caller_name": None,
        "forwarded_from": None,
        "trunk_sid": None,
        "group_sid": None,
        "annotation": None,
        "api_version": VERSION,
        "date_created": _date(call.created),
        "date_updated": _date(call.ended_at or call.answered_at or call.created),
        "uri": f"{base}.json",
        "subresource_uris": {"recordings": f"{base}/Recordings.json", "streams": f"{base}/Streams.json"},
    }


def number_as_json(account: Account, number: Number) -> dict[str, Any]:
    """An incoming telephone number as the API shows it; an address that is not configured is an empty text."""
    return {
        "sid": number.sid,
        "account_sid": account.sid,
        "friendly_name": number.friendly_name,
        "phone_number": number.phone_number,
        "voice_url": number.voice_url or "",
        "voice_method": number.voice_method,
        "voice_fallback_url": number.voice_fallback_url or "",
        "voice_fallback_method": number.voice_fallback_method,
        "voice_caller_id_lookup": False,
        "voice_application_sid": "",
        "status_callback": number.status_callback or "",
        "status_callback_method": number.status_callback_method,
        "trunk_sid": None,
        "capabilities": {"voice": True, "sms": True, "mms": True, "fax": False},
        "status": "in-use",
        "api_version": VERSION,
        "uri": f"/{VERSION}/Accounts/{account.sid}/IncomingPhoneNumbers/{number.sid}.json",
    }


class Rest:
    """The web application, over the carrier's own books."""

    def __init__(self, account: Account, calls: Mapping[str, Call], numbers: list[Number]) -> None:
        self._account, self._calls, self._numbers = account, calls, numbers
        self.updates: list[tuple[str, dict[str, str]]] = []
        """Every accepted update: the call and the fields."""
        base = f"/{VERSION}/Accounts/{{account}}"
        self.app = Starlette(
            routes=[
                Route(f"{base}.json", self._guarded(self._show_account)),
                Route(f"{base}/Calls.json", self._guarded(self._list)),
                Route(f"{base}/Calls/{{sid}}.json", self._guarded(self._call), methods=["GET", "POST"]),
                Route(f"{base}/IncomingPhoneNumbers.json", self._guarded(self._list_numbers)),
                Route("/{rest:path}", self._guarded(self._nothing), methods=["GET", "POST", "DELETE"]),
            ]
        )
        self.app.router.redirect_slashes = False

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if not self._known(request.headers.get("authorization", "")):
                return error(401, 20003, "Authenticate")
            if request.path_params.get("account", self._account.sid) != self._account.sid:
                return not_found(request)
            return await handler(request)

        return guarded

    def _known(self, header: str) -> bool:
        scheme, _, credentials = header.partition(" ")
        try:
            given = base64.b64decode(credentials, validate=True)
        except (binascii.Error, ValueError):
            return False
        expected = f"{self._account.sid}:{self._account.token}".encode()
        return scheme.lower() == "basic" and hmac.compare_digest(given, expected)

    async def _nothing(self, request: Request) -> Response:
        return not_found(request)

    async def _show_account(self, request: Request) -> Response:
        shown = {"sid": self._account.sid, "friendly_name": "rehearsal", "status": "active", "type": "Full"}
        return JSONResponse(shown | {"uri": request.url.path})

    async def _list(self, request: Request) -> Response:
        wanted = {"to": "To", "from": "From", "status": "Status", "parent_call_sid": "ParentCallSid"}
        calls = [as_json(call) for call in list(self._calls.values())[::-1]]
        for key, name in wanted.items():
            if (value := request.query_params.get(name)) is not None:
                calls = [call for call in calls if call[key] == value]
        return self._page(request, "calls", calls)

    async def _list_numbers(self, request: Request) -> Response:
        wanted = request.query_params.get("PhoneNumber")
        numbers = [number for number in self._numbers if wanted in (None, number.phone_number)]
        return self._page(request, "incoming_phone_numbers", [number_as_json(self._account, it) for it in numbers])

    def _page(self, request: Request, name: str, items: list[dict[str, Any]]) -> Response:
        size = int(request.query_params.get("PageSize", "50"))
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        page = {"page": 0, "page_size": size, "start": 0, "end": max(0, len(items[:size]) - 1), "uri": here}
        links = {"first_page_uri": here, "next_page_uri": None, "previous_page_uri": None}
        return JSONResponse({name: items[:size]} | page | links)

    async def _call(self, request: Request) -> Response:
        call = self._calls.get(request.path_params["sid"])
        if call is None:
            return not_found(request)
        if request.method == "GET":
            return JSONResponse(as_json(call))
        fields = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        return self._update(call, fields)

    def _update(self, call: Call, fields: dict[str, str]) -> Response:
        if call.finished:
            return error(400, 21220, "Call is not in-progress. Cannot redirect.")
        if "Url" in fields and "Twiml" in fields:
            return error(400, 21218, "Url and Twiml exclude each other")
        if (status := fields.get("Status")) is not None:
            if status not in ("completed", "canceled"):
                return error(400, 20001, "Invalid Status")
            if status == "completed" or call.answered_at is None:  # canceled has no effect on a call in progress
                call.update(Stop("completed", "account"))
        elif "Url" in fields:
            call.update(Ask(twiml.Target(fields["Url"], fields.get("Method", "POST").upper())))
        elif "Twiml" in fields:
            try:
                call.update(Run(twiml.parse(fields["Twiml"], call.number.voice_url or "")))
            except twiml.Unreadable as fault:
                return error(400, fault.code, fault.about)
        else:
            return error(400, 20001, "nothing to update")
        self.updates.append((call.sid, fields))
        call.tell("updated", {"fields": sorted(fields)})
        return JSONResponse(as_json(call))


class Server(uvicorn.Server):
    """A server inside another's event loop: it takes no signals and has a port before it serves."""

    def __init__(self, app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, loop="none"))
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listening = socket.create_server((host, port))
        self.url = f"http://{host}:{self._listening.getsockname()[1]}"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process that holds us."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and say so."""
        await super().startup(sockets)
        self._ready.set()

    async def open(self) -> None:
        """Serve from now on."""
        self._task = asyncio.create_task(self.serve(sockets=[self._listening]))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            ready.cancel()
            await self._task

    async def close(self) -> None:
        """Stop serving."""
        self.should_exit = True
        if self._task is not None:
            await self._task
