"""The operators' console: server-rendered pages under `/console`, for people who look at calls all day.

How a page is made: a function of a `Visit` that gives an answer (`visit.page("console/x.html", ...)`), a route with its policy
(`console.page(path, function, Policy.OPERATOR, audits="call.viewed")`), a template that extends `console/_layout.html`, and its
line in the matrix of `tests/web/console/matrix.py`, which fails as long as a route is not in it.

    door.py       who may come in, forged forms, faults, the audit line; `Console`: what the pages have at hand
    visit.py      one request, as a page sees it
    session.py    cookies, the word in forms, addresses to go back to
    shell.py      templates, static files, headers
    formats.py    how values are written for people
    provider.py   OpenID Connect
    sign_in.py    by_provider.py    account.py    and the pages
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.store.audit import AuditLog
from app.store.engine import Database
from app.store.limits import Limits
from app.store.passwords import Passwords
from app.store.users import Users
from app.web.console import account, by_provider, call_changes, call_journal, call_page, calls, sign_in
from app.web.console.door import Console
from app.web.console.provider import Provider
from app.web.console.session import HOME, Cookies
from app.web.console.shell import STATIC, Shell, Static
from app.web.console.visit import NotFound, Visit
from app.web.desk import Desk
from app.web.guard import Policy

PAGES: tuple[Callable[[Console], list[BaseRoute]], ...] = (
    *(sign_in.routes, by_provider.routes, account.routes, calls.routes),
    *(call_page.routes, call_changes.routes, call_journal.routes),
)
"""Everything that has pages. In this order, before whatever matches anything."""


def open_console(desk: Desk, database: Database, *, passwords: Passwords | None = None) -> Console:
    """What the pages have at hand, over one database."""
    settings = desk.settings

    def clock() -> datetime:
        return datetime.fromtimestamp(desk.clock() / 1_000, UTC)

    users = Users(
        database,
        passwords=passwords,
        clock=clock,
        idle=timedelta(minutes=settings.session_idle_minutes),
        longest=timedelta(hours=settings.session_hours),
    )
    return Console(
        desk=desk,
        database=database,
        users=users,
        limits=Limits(database, clock=clock),
        audit=AuditLog(database, clock=clock),
        shell=Shell(ZoneInfo(settings.business_timezone)),
        cookies=Cookies(https=settings.public_url.startswith("https:")),
        provider=Provider(settings) if settings.oidc_issuer else None,
    )


def routes(console: Console) -> list[BaseRoute]:
    """The route table of the console."""
    pages = [route for of_room in PAGES for route in of_room(console)]
    return [
        console.page("/console", home, Policy.PUBLIC),
        Route(STATIC + "{name}", Static(console.shell), methods=["GET"]),
        *pages,
        console.page("/console/{rest:path}", nowhere, Policy.SIGNED_IN),
    ]


async def home(visit: Visit) -> Response:
    """Where the console begins."""
    return visit.redirect(HOME)


async def nowhere(visit: Visit) -> Response:
    """A path that there is not."""
    raise NotFound
