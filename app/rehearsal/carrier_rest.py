"""The pretend carrier's REST interface: as much of it as the service and `callrow doctor` use.

    POST   /2010-04-01/Accounts/{AC}/Calls/{CA}.json            update: Status=completed|canceled, or Url (with Method), or Twiml
    GET    /2010-04-01/Accounts/{AC}/Calls/{CA}.json            fetch
    DELETE /2010-04-01/Accounts/{AC}/Calls/{CA}.json            strike a finished call out of the books
    GET    /2010-04-01/Accounts/{AC}/Calls.json                 list (To, From, Status, ParentCallSid, StartTime, <=, >=)
    GET    /2010-04-01/Accounts/{AC}/IncomingPhoneNumbers.json  list (PhoneNumber)
    GET    /2010-04-01/Accounts/{AC}.json                       the account itself

Lists come in pages of PageSize (50; at most 1,000), the newest first, and legs that a call has dialed are calls of their own there.
Basic authentication with account and token, else 401 with 20003; unknown is 404 with 20404; an update of a finished
call is 400 with 21220. Numbers are strings, times are RFC 2822, as in the public reference of the API.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.rehearsal import carrier_books as books
from app.rehearsal import twiml
from app.rehearsal.carrier_books import VERSION
from app.rehearsal.carrier_call import Ask, Call, Run, Stop
from app.rehearsal.carrier_plans import Account, Number

MOST_ON_A_PAGE = 1_000

type Handler = Callable[[Request], Awaitable[Response]]


def error(status: int, code: int, message: str) -> JSONResponse:
    """An error in the carrier's shape."""
    about = f"https://www.twilio.com/docs/errors/{code}"
    return JSONResponse({"code": code, "message": message, "more_info": about, "status": status}, status)


def not_found(request: Request) -> JSONResponse:
    """404 with 20404."""
    return error(404, 20404, f"The requested resource {request.url.path} was not found")


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

    def __init__(self, account: Account, calls: MutableMapping[str, Call], numbers: list[Number]) -> None:
        self._account, self._calls, self._numbers = account, calls, numbers
        self.updates: list[tuple[str, dict[str, str]]] = []
        """Every accepted update: the call and the fields."""
        base = f"/{VERSION}/Accounts/{{account}}"
        self.app = Starlette(
            routes=[
                Route(f"{base}.json", self._guarded(self._show_account)),
                Route(f"{base}/Calls.json", self._guarded(self._list)),
                Route(f"{base}/Calls/{{sid}}.json", self._guarded(self._call), methods=["GET", "POST", "DELETE"]),
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
        try:
            fits = books.asked_for(request.query_params)
        except ValueError as fault:
            return error(400, 20001, str(fault))
        entries = [entry for call in list(self._calls.values())[::-1] for entry in books.entries(call)]
        return self._page(request, "calls", [entry for entry in entries if fits(entry)])

    async def _list_numbers(self, request: Request) -> Response:
        wanted = request.query_params.get("PhoneNumber")
        numbers = [number for number in self._numbers if wanted in (None, number.phone_number)]
        return self._page(request, "incoming_phone_numbers", [number_as_json(self._account, it) for it in numbers])

    def _page(self, request: Request, name: str, items: list[dict[str, Any]]) -> Response:
        """A page, which begins behind the item that the last page ended with: what came since moves nothing."""
        asked = request.query_params
        if not (asked.get("PageSize", "50").isdecimal() and asked.get("Page", "0").isdecimal()):
            return error(400, 20001, "Invalid PageSize or Page")
        size, page, begin = min(max(1, int(asked.get("PageSize", "50"))), MOST_ON_A_PAGE), int(asked.get("Page", "0")), 0
        if (token := asked.get("PageToken")) is not None:
            begin = next((at for at, item in enumerate(items, 1) if token == f"PA{item['sid']}"), len(items))
        shown = items[begin : begin + size]
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        rest = [(key, value) for key, value in asked.multi_items() if key not in ("Page", "PageToken", "PageSize")]
        first = f"{request.url.path}?{urlencode([*rest, ('PageSize', size), ('Page', 0)])}"
        more = f"{request.url.path}?{urlencode([*rest, ('PageSize', size), ('Page', page + 1)])}"
        links = {
            "first_page_uri": first,
            "next_page_uri": f"{more}&PageToken=PA{shown[-1]['sid']}" if begin + size < len(items) else None,
            "previous_page_uri": None,  # nobody here reads backwards
        }
        about = {"page": page, "page_size": size, "start": page * size, "end": page * size + max(0, len(shown) - 1), "uri": here}
        return JSONResponse({name: shown} | about | links)

    async def _call(self, request: Request) -> Response:
        sid = request.path_params["sid"]
        call = self._calls.get(sid)
        if call is None:
            return self._leg(request, sid)
        if request.method == "GET":
            return JSONResponse(books.call_as_json(call))
        if request.method == "DELETE":
            if not call.finished:
                return error(400, 20001, "a call that is not over cannot be deleted")
            del self._calls[sid]
            return Response(status_code=204)
        fields = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        return self._update(call, fields)

    def _leg(self, request: Request, sid: str) -> Response:
        """A dialed leg is looked at here, and steered by its call's document alone."""
        found = [(call, leg) for call in self._calls.values() for leg in call.legs if leg.sid == sid]
        if not found:
            return not_found(request)
        if request.method != "GET":
            return error(400, 21220, "Call is not in-progress. Cannot redirect.")
        return JSONResponse(books.leg_as_json(*found[0]))

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
        return JSONResponse(books.call_as_json(call))


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
