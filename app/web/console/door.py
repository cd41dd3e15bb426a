"""The door that every page of the console stands behind, and what the pages have at hand.

In this order: who is it, may they come in, did one of our own pages send this, then the page; then, before anything is sent, the
line in the audit log.

Rule 1: nobody who is not signed in learns what there is: a page that exists and one that does not send them to sign in alike.
Rule 2: what is not there, and what is not theirs, are both "not found"; "not yours" is only said of a whole page that a role lacks.
Rule 3: a fault is a page that says what to do, and a line in the log with its place; never its words.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app import logs
from app.errors import OurFault, StoreUnavailable
from app.store.audit import AuditLog
from app.store.console_tables import Role
from app.store.engine import Database
from app.store.limits import Limits
from app.store.users import Session, Users
from app.web.console import session as cookies
from app.web.console import shell
from app.web.console.provider import Provider
from app.web.console.shell import Shell
from app.web.console.visit import BadForm, NotAudited, NotFound, Visit
from app.web.desk import Desk
from app.web.guard import Pace, Policy
from app.web.webhook import parsed

log = logs.logger("console")

type Page = Callable[[Visit], Awaitable[Response]]
"""Raises `NotFound`, `BadForm`, or anything it likes."""
type Talk = Callable[[Visit, WebSocket], Awaitable[None]]
"""Serves a socket, which it accepts itself; `NotFound` before that refuses it."""

NEEDS = {Policy.OPERATOR: Role.OPERATOR, Policy.REVIEWER: Role.REVIEWER, Policy.ADMIN: Role.ADMIN, Policy.SIGNED_IN: Role.OPERATOR}
LOOK_AFTER_S = 600.0
NOBODY: ImmutableMultiDict[str, str] = ImmutableMultiDict()

SENTENCES = {
    400: ("That cannot be read", "The form did not have the shape it should have. Load the page again and repeat what you did."),
    403: ("Not for your role", "Your account may not open this page. Ask an admin if you need it."),
    404: ("Not found", "There is nothing here, or it is gone."),
    419: (
        "Please repeat that",
        "The page was too old, or the form did not come from it. Load the page again and repeat what you did.",
    ),
    429: ("Too fast", "There were too many requests. Wait a moment."),
    500: (
        "Something went wrong",
        "It was our fault and is written down. Try again; if it happens again, tell an admin when it was.",
    ),
    503: (
        "Not available now",
        "The database cannot be reached, so nothing can be shown and nothing was changed. Calls go on. Try again.",
    ),
}


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of the navigation."""

    name: str
    path: str
    role: Role


SECTIONS = (
    Section("Calls", "/console/calls", Role.OPERATOR),
    Section("Live", "/console/live", Role.OPERATOR),
    Section("Overview", "/console/overview", Role.REVIEWER),
    Section("Admin", "/console/admin", Role.ADMIN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What the pages have at hand. More shelves of the store are added here as pages need them."""

    desk: Desk
    database: Database
    users: Users
    limits: Limits
    audit: AuditLog
    shell: Shell
    cookies: cookies.Cookies
    provider: Provider | None = None
    anybody: Pace = field(default_factory=lambda: Pace(burst=300, per_second=60))
    """By address, before anything is looked up."""
    somebody: Pace = field(default_factory=lambda: Pace(burst=120, per_second=20))
    """By session."""
    paths: set[str] = field(default_factory=set)
    """Every path of the route table, once it is made."""

    def page(
        self,
        path: str,
        page: Page,
        policy: Policy,
        *,
        methods: Sequence[str] = ("GET",),
        audits: str | None = None,
        background: bool = False,
    ) -> Route:
        """A route.

        Args:
            audits: the action that is written into the audit log, about the path's `call_id` if it has one, before a good answer is
                sent, unless the page has written it itself (with details, or before it changes something).
            background: a page asks for it by itself, so it is no sign that somebody is there; the session goes on being idle.
        """
        self.paths.add(path)
        return Route(path, Door(self, path, page, policy, audits=audits, background=background), methods=list(methods))

    def socket(self, path: str, talk: Talk, policy: Policy, *, audits: str) -> WebSocketRoute:
        """A route of a WebSocket; `audits` is written, about the path's `call_id`, before `talk` begins."""
        self.paths.add(path)
        return WebSocketRoute(path, SocketDoor(self, path, talk, policy, audits=audits))

    async def look_after(self) -> None:
        """Now and then, forget sessions and tries that are over. Runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_AFTER_S)
            try:
                ended, paid_off = await self.users.forget_ended(), await self.limits.clear()
                log.info("the console was tidied", sessions=ended, tries=paid_off)
            except StoreUnavailable:
                log.warning("the console was not tidied: the database is away")
            except Exception as fault:
                log.error("tidying the console failed", fault=type(fault).__name__, at=logs.where(fault))

    def nav(self, role: Role) -> list[Section]:
        """The sections of the console that there are for a role."""
        return [section for section in SECTIONS if role.includes(section.role) and section.path in self.paths]


class Door:
    """One route's door."""

    def __init__(
        self, console: Console, path: str, page: Page, policy: Policy, *, audits: str | None = None, background: bool = False
    ) -> None:
        if policy is not Policy.PUBLIC and policy not in NEEDS:
            raise OurFault(f"{policy} is no policy of the console")
        self.policy, self.audits = policy, audits
        self._console, self._path, self._page, self._background = console, path, page, background

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        visit = Visit(self._console, request, None, NOBODY)
        try:
            response = await self._answer(visit)
        except NotFound:
            response = await sorry(visit, 404)
        except BadForm:
            response = await sorry(visit, 400)
        except NotAudited:
            log.error("a page is refused: the audit log cannot be written", path=self._path)
            response = await sorry(visit, 503)
        except StoreUnavailable as fault:
            log.error("a page is refused: the database is away", path=self._path, doing=fault.doing)
            response = await sorry(visit, 503)
        except Exception as fault:
            log.error("a page failed", path=self._path, fault=type(fault).__name__, at=logs.where(fault))
            response = await self._last_word(visit)
        visit.put_cookies(response)
        for name, value in shell.HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _last_word(self, visit: Visit) -> Response:
        try:
            return await sorry(visit, 500)
        except Exception as fault:  # it was the frame of every page that failed
            log.error("the page that says so failed too", fault=type(fault).__name__, at=logs.where(fault))
            return PlainTextResponse("Something went wrong. It was our fault and is written down.", 500)

    async def _answer(self, visit: Visit) -> Response:
        address = cookies.client_address(visit.request.scope, self._console.desk.settings.proxy_hops)
        if not self._console.anybody.allows(address):
            return PlainTextResponse("Too Many Requests", 429, headers={**shell.HEADERS, "retry-after": "5"})
        visit.session = await signed_in(self._console, visit.request, use=not self._background)
        if visit.session is not None and not self._console.somebody.allows(visit.session.id):
            return await sorry(visit, 429)
        if self.policy is not Policy.PUBLIC and visit.session is None:
            return visit.to_sign_in()
        if visit.request.method not in cookies.SAFE_METHODS:
            headers = visit.request.headers
            visit.form = parsed(await visit.request.body(), headers.get("content-type", "")) or NOBODY
            word = headers.get("x-csrf-token") or visit.field("csrf")
            if not cookies.comes_from_us(headers, self._console.desk.settings.public_url) or not cookies.is_form_word(
                word, visit.secret
            ):
                log.warning("a form from elsewhere was refused", path=self._path)
                return await sorry(visit, 403, shown=419)
        if self.policy is not Policy.PUBLIC and not visit.user.role.includes(NEEDS[self.policy]):
            return await sorry(visit, 403)
        response = await self._page(visit)
        if self.audits and response.status_code < 400 and self.audits not in visit.audited:
            await visit.audit(self.audits, visit.request.path_params.get("call_id"))
        return response


class SocketDoor:
    """The door of a WebSocket. Browsers let any page open one, with our cookies, and ask nobody: here `Origin` decides (T43)."""

    def __init__(self, console: Console, path: str, talk: Talk, policy: Policy, *, audits: str) -> None:
        if policy not in NEEDS:
            raise OurFault(f"{policy} is no policy of a socket of the console")
        self.policy, self.audits = policy, audits
        self._console, self._path, self._talk = console, path, talk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        visit = Visit(self._console, Request({**scope, "type": "http", "method": "GET"}), None, NOBODY)
        try:
            if await self._admits(visit):
                await self._talk(visit, socket)
                return
        except (NotFound, NotAudited, StoreUnavailable) as fault:
            log.warning("a socket was refused", path=self._path, fault=type(fault).__name__)
        except WebSocketDisconnect:
            return
        except Exception as fault:
            log.error("a socket failed", path=self._path, fault=type(fault).__name__, at=logs.where(fault))
        if socket.application_state is not WebSocketState.DISCONNECTED:
            # before it was accepted, the server makes this a 403
            await socket.close(1008 if socket.application_state is WebSocketState.CONNECTING else 1011)

    async def _admits(self, visit: Visit) -> bool:
        headers = visit.request.headers
        if "origin" not in headers or not cookies.comes_from_us(headers, self._console.desk.settings.public_url):
            log.warning("a socket from elsewhere was refused", path=self._path)
            return False
        visit.session = await signed_in(self._console, visit.request)
        if visit.session is None or not visit.user.role.includes(NEEDS[self.policy]):
            return False
        if not self._console.somebody.allows(visit.session.id):
            return False
        await visit.audit(self.audits, visit.request.path_params.get("call_id"))
        return True


async def signed_in(console: Console, request: Request, *, use: bool = True) -> Session | None:
    """Whose session the request's cookie is. Raises `StoreUnavailable`."""
    token = console.cookies.get(request, cookies.SESSION)
    return None if token is None else await console.users.session(token, use=use)


async def sorry(visit: Visit, status: int, *, shown: int | None = None) -> Response:
    """A page that says what went wrong and what to do; for htmx a message beside what is on the screen."""
    title, sentence = SENTENCES[shown or status]
    context: dict[str, Any] = {"title": title, "sentence": sentence, "code": shown or status}
    if visit.by_htmx:
        visit.flash(f"{title}. {sentence}", "wrong")
        response = await visit.page("console/_flashes.html", status=status)
        response.headers.update({"hx-retarget": "#flashes", "hx-reswap": "outerHTML", "hx-push-url": "false"})
    else:
        response = await visit.page("console/error.html", status=status, **context)
    if status in (429, 503):
        response.headers["retry-after"] = "5"
    return response
