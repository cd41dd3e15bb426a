"""Who may open what: every route of the console against every kind of visitor, asked and not believed.

`ENTRIES` says what is meant; `tests/web/console/test_matrix.py` asks the doors and compares. A new route is not in it, and fails.
`python -m tests.web.console.matrix` asks them too, and prints what they said.

What stands behind a door is replaced by a probe: here it is the door that is asked, and nothing is changed. That a page shows
nothing of a call that is not there is asked of the pages themselves.
"""

import asyncio
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute

from app.store import migrate
from app.store.engine import Database
from app.web.console import session as cookies
from app.web.guard import Policy
from tests.web.console.office import Office

IN, FORBIDDEN, SIGN_IN, REFUSED = "in", "forbidden", "sign in", "refused"
VISITORS = ("nobody", "operator", "reviewer", "admin", "expired", "revoked", "disabled")
ROLES = ("operator", "reviewer", "admin")


@dataclass(frozen=True)
class Entry:
    """What is meant of a route. `unaudited`: why a route about a call needs no line in the audit log."""

    policy: Policy
    unaudited: str = field(default="")


ENTRIES = {
    "GET /console": Entry(Policy.PUBLIC),
    "GET /console/static/{name}": Entry(Policy.PUBLIC),
    "GET /console/sign-in": Entry(Policy.PUBLIC),
    "POST /console/sign-in": Entry(Policy.PUBLIC),
    "GET /console/sign-in/provider": Entry(Policy.PUBLIC),
    "GET /console/sign-in/provider/return": Entry(Policy.PUBLIC),
    "POST /console/sign-out": Entry(Policy.SIGNED_IN),
    "POST /console/theme": Entry(Policy.PUBLIC),
    "GET /console/account": Entry(Policy.SIGNED_IN),
    "POST /console/account/password": Entry(Policy.SIGNED_IN),
    "POST /console/account/sessions/{session_id}/end": Entry(Policy.SIGNED_IN),
    "POST /console/account/sessions/end-others": Entry(Policy.SIGNED_IN),
    "GET /console/calls": Entry(Policy.OPERATOR),
    "GET /console/calls/live": Entry(Policy.OPERATOR),
    "POST /console/calls/find": Entry(Policy.OPERATOR),
    "POST /console/calls/columns": Entry(Policy.OPERATOR),
    "POST /console/calls/export": Entry(Policy.REVIEWER),
    "GET /console/calls/views": Entry(Policy.OPERATOR),
    "POST /console/calls/views": Entry(Policy.OPERATOR),
    "POST /console/calls/views/{view_id}": Entry(Policy.OPERATOR),
    "POST /console/calls/views/{view_id}/begin": Entry(Policy.OPERATOR),
    "POST /console/calls/views/{view_id}/delete": Entry(Policy.OPERATOR),
    "GET /console/calls/{call_id}": Entry(Policy.OPERATOR),
    "GET /console/calls/{call_id}/again": Entry(Policy.OPERATOR, unaudited="with the word of an audited page only"),
    "GET /console/calls/{call_id}/row.json": Entry(Policy.REVIEWER),
    "POST /console/calls/{call_id}/judged/{field}/correct": Entry(Policy.OPERATOR),
    "POST /console/calls/{call_id}/judged/{field}/take-back": Entry(Policy.OPERATOR),
    "POST /console/calls/{call_id}/reviewed": Entry(Policy.REVIEWER),
    "POST /console/calls/{call_id}/read-again": Entry(Policy.ADMIN),
    "POST /console/calls/{call_id}/deliveries/{delivery_id}/resend": Entry(Policy.ADMIN),
    "GET /console/calls/{call_id}/journal": Entry(Policy.ADMIN),
    "POST /console/calls/{call_id}/journal/replay": Entry(Policy.ADMIN),
    "GET /console/{rest:path}": Entry(Policy.SIGNED_IN),
}


def meant(policy, visitor, *, socket=False):
    """What should happen to this visitor at a route of that policy."""
    if policy is Policy.PUBLIC:
        return IN
    if visitor not in ROLES:
        return REFUSED if socket else SIGN_IN
    least = ROLES[0] if policy is Policy.SIGNED_IN else policy.value
    return IN if ROLES.index(visitor) >= ROLES.index(least) else (REFUSED if socket else FORBIDDEN)


def routes(office):
    """Every route: its name in the matrix, and itself."""
    for route in office.routes:
        if isinstance(route, WebSocketRoute):
            yield f"SOCKET {route.path}", route
        else:
            for method in sorted((route.methods or {"ANY"}) - {"HEAD"}):
                yield f"{method} {route.path}", route


def path_of(route, **given):
    """A path that the route takes; every parameter is a name that there is not, unless given."""
    return re.sub(r"{(\w+)(?::\w+)?}", lambda found: given.get(found[1], "01JNOTHING0000000000000000"), route.path)


def set_probes(office):
    """Put a probe behind every door, in place of its page. Gives the paths of those that were let in."""
    let_in = []

    async def page(visit):
        let_in.append(visit.request.url.path)
        return PlainTextResponse("the probe")

    async def talk(visit, socket):
        let_in.append(socket.url.path)
        await socket.accept()
        await socket.close()

    for name, route in routes(office):
        if hasattr(route.endpoint, "_page"):
            route.endpoint._page = page
        elif hasattr(route.endpoint, "_talk"):
            route.endpoint._talk = talk
        else:
            assert name == "GET /console/static/{name}", f"{name}: what is behind this door?"
    return let_in


async def visitors(office):
    """A browser for each kind of visitor."""
    found = {"nobody": office.browser(), **{role: await office.signed_in(role) for role in ROLES}}
    for kind in ("expired", "revoked", "disabled"):
        found[kind] = await office.signed_in("admin", name=f"an-{kind}-admin")
    await office.console.users.end_all(found["revoked"].user.id)
    await office.console.users.disable(found["disabled"].user.id)
    await _make_old(office, found["expired"].user.id)
    for kind, browser in found.items():
        browser.is_signed_in = kind in ROLES
    return found


async def _make_old(office, user_id):
    import sqlalchemy as sa

    from app.store.console_tables import sessions

    old = office.console.users._clock() - office.console.users._longest
    async with office.database.write() as connection:
        await connection.execute(sa.update(sessions).where(sessions.c.user_id == user_id).values(expires_at=old))


async def ask(office, name, route, browser, let_in):
    """What happens to this browser at that route."""
    method, _, _ = name.partition(" ")
    before = len(let_in)
    if method == "SOCKET":
        await knock_at_socket(office, path_of(route), browser)
        return IN if len(let_in) > before else REFUSED
    if method == "POST":
        answer = await browser.post(path_of(route), word=word_of(browser))
    else:
        answer = await browser.client.request(method, path_of(route, name=_a_static_file(office)))
    if len(let_in) > before or (name == "GET /console/static/{name}" and answer.status_code == 200):
        return IN
    if answer.status_code == 303 and answer.headers["location"].startswith(cookies.SIGN_IN):
        return SIGN_IN
    return FORBIDDEN if answer.status_code == 403 else f"{answer.status_code}?"


def word_of(browser):
    """The word that belongs in this browser's forms: behind the probes there are no pages to read it from."""
    if browser.is_signed_in:
        return cookies.form_word(browser.cookie(cookies.SESSION))
    browser.put_cookie(cookies.VISIT, "a visitor")
    return cookies.form_word("a visitor")


async def knock_at_socket(office, path, browser, **headers):
    """Open a WebSocket as a browser would; gives what was sent to it."""
    told = {"host": "calls.example.com", "origin": office.public} | headers
    jar = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    sent = [(b"cookie", jar.encode())] + [(name.encode(), value.encode()) for name, value in told.items() if value]
    scope = {
        "type": "websocket", "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "wss", "query_string": b"",
        "headers": sent, "client": ("127.0.0.1", 1), "server": ("calls.example.com", 443), "subprotocols": [],
    }  # fmt: skip
    inbox, outbox = [{"type": "websocket.connect"}], []

    async def receive():
        return inbox.pop(0) if inbox else {"type": "websocket.disconnect", "code": 1006}

    async def send(message):
        outbox.append(message)

    await office.app(scope, receive, send)
    return outbox


def _a_static_file(office):
    return office.console.shell.address("console.css").rpartition("/")[2]


async def asked(office):
    """The whole matrix as the doors answer: route to visitor to outcome."""
    let_in = set_probes(office)
    browsers = await visitors(office)
    found = {}
    for name, route in routes(office):
        found[name] = {visitor: await ask(office, name, route, browser, let_in) for visitor, browser in browsers.items()}
    return found


def lines(matrix):
    """The matrix as lines of text."""
    widest = max(map(len, matrix))
    yield " " * widest + "".join(f"  {visitor:<9}" for visitor in VISITORS)
    for name in sorted(matrix, key=lambda name: name.partition(" ")[2]):
        yield f"{name:<{widest}}" + "".join(f"  {matrix[name][visitor]:<9}" for visitor in VISITORS)


async def _main():
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'matrix.db'}"
        await asyncio.to_thread(migrate.upgrade, url)
        database = Database(url)
        office = Office(database)
        for line in lines(await asked(office)):
            print(line)
        await office.close()
        await database.close()


if __name__ == "__main__":
    asyncio.run(_main())
