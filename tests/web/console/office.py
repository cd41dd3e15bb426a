"""A console to knock at: the real pages over a real store, browsers that keep cookies, people of every role."""

import re
from html.parser import HTMLParser
from urllib.parse import urlencode

import httpx2
from argon2 import PasswordHasher

from app.store.console_tables import Role, SignedInBy
from app.store.passwords import Passwords
from app.web import console, guard
from app.web.console import session as cookies
from tests.web.house import PUBLIC, House

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "four words in a row"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"


class Office:
    """The console, and who knocks. `now` is the house's clock, in milliseconds since 1970."""

    def __init__(self, database, **settings):
        self.house = House(database, **settings)
        self.database = database
        self.public = self.house.settings.public_url
        self.console = console.open_console(self.house.desk, database, passwords=Passwords(QUICK))
        self.routes = console.routes(self.console)
        self.app = guard.build(self.routes, https=self.public.startswith("https:"))
        self._browsers = []

    def pass_(self, *, seconds=0, minutes=0, hours=0):
        """Let time pass."""
        self.house.now += int((seconds + 60 * minutes + 3_600 * hours) * 1_000)

    async def user(self, name, role=Role.OPERATOR, **other):
        return await self.console.users.add(name, Role(role), **({"password": PASSWORD} | other))

    def browser(self, **headers):
        """Somebody's browser, with cookies of its own."""
        made = Browser(self, headers)
        self._browsers.append(made)
        return made

    async def signed_in(self, role=Role.OPERATOR, name=None):
        """A browser in which somebody of that role is signed in; the account is made if there is none."""
        name = name or f"the-{Role(role).value}"
        found = await self.console.users.find(name) or await self.user(name, role)
        token, _ = await self.console.users.begin(found.id, SignedInBy.PASSWORD, browser="Chrome on Linux")
        browser = self.browser()
        browser.put_cookie(cookies.SESSION, token)
        browser.user, browser.is_signed_in = found, True
        return browser

    async def audit(self):
        """The audit log: (actor, action, subject, details) in order."""
        import sqlalchemy as sa

        from app.store.house_tables import audit_log as log

        async with self.database.read() as connection:
            lines = await connection.execute(sa.select(log.c.actor, log.c.action, log.c.subject, log.c.details).order_by(log.c.seq))
            return [tuple(line) for line in lines]

    def break_audit(self):
        """From now on the audit log cannot be written."""
        from app.errors import StoreUnavailable

        async def broken(*_args, **_kwargs):
            raise StoreUnavailable("write to the audit log")

        self.console.audit.append = broken

    async def close(self):
        for browser in self._browsers:
            await browser.client.aclose()


class Browser:
    """Says what a browser says: where a form comes from, and the cookies that it was given."""

    def __init__(self, office, headers):
        self.office, self.user, self.is_signed_in = office, None, False
        transport = httpx2.ASGITransport(office.app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(
            transport=transport, base_url=office.public, headers={"user-agent": CHROME, **headers}, follow_redirects=False
        )

    def put_cookie(self, cookie, value):
        self.client.cookies.set(self.office.console.cookies.name(cookie), value, domain=httpx2.URL(self.office.public).host)

    def cookie(self, cookie):
        return self.client.cookies.get(self.office.console.cookies.name(cookie))

    async def get(self, path, **headers):
        return await self.client.get(path, headers=headers)

    async def part(self, path, method="GET", **headers):
        """As htmx asks."""
        sent = {"hx-request": "true", "hx-request-type": "partial", "hx-current-url": f"{self.office.public}/console/calls?x=1"}
        return await self.client.request(method, path, headers=sent | self.from_us() | headers)

    async def post(self, path, /, *, word=None, headers=None, **fields):
        """A form of our own page: its word is read from the sign-in or account page first, unless given."""
        if word is None:
            word = await self.word()
        form = {"csrf": word, **fields} if word else fields
        return await self.client.post(
            path,
            content=urlencode(form, doseq=True),
            headers={"content-type": "application/x-www-form-urlencoded"} | (self.from_us() if headers is None else headers),
        )

    async def word(self):
        """The word of a form on a page of ours."""
        answer = await self.client.get("/console/account")
        if answer.status_code != 200:
            answer = await self.client.get(cookies.SIGN_IN)
        found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
        assert found, answer.text
        return found[1]

    def from_us(self):
        return {"origin": self.office.public, "sec-fetch-site": "same-origin"}

    async def sign_in(self, name, password=PASSWORD, **fields):
        return await self.post(cookies.SIGN_IN, name=name, password=password, **fields)


class Words(HTMLParser):
    """What a page says, without its markup."""

    def __init__(self):
        super().__init__()
        self.said = []

    def handle_data(self, data):
        self.said.append(data)


def words(answer):
    """A page's words, in one line."""
    reader = Words()
    reader.feed(answer.text)
    return " ".join("".join(reader.said).split())


def set_cookies(answer):
    """The cookies of an answer: name to the whole header."""
    return {header.partition("=")[0]: header for header in answer.headers.get_list("set-cookie")}


__all__ = ["PASSWORD", "PUBLIC", "QUICK", "Browser", "Office", "set_cookies", "words"]
