"""A console on a socket, and people who look at it through a real Chromium.

`Place` is the console as it is served, over a database of its own. `Tab` is a tab of a browser that notes everything a page should
not do: errors, breaches of the content security policy, requests that leave the house; and what it weighs.
Set SCREENSHOTS to a folder to keep a picture of each `tab.look("name")`.
"""

import asyncio
import os
import shutil
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from app.store.console_tables import Role, SignedInBy
from app.web.console import session as cookies
from app.web.sockets import GuardedHttp
from tests.web.console.office import PASSWORD, Office

AXE = Path(__file__).with_name("axe-core-4.14.1.min.js")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PATIENCE_S = 60
QUIET_S = 0.2
SIZES = {"wide": (1440, 900), "phone": (360, 740)}
SCHEMES = ("light", "dark")
VIOLATIONS = (
    "document.addEventListener('securitypolicyviolation', (e) => console.error('csp: ' + e.violatedDirective + ' ' + e.blockedURI))"
)


def chromium():
    """The Chromium of this machine; None if there is none."""
    if named := os.environ.get("CHROMIUM"):
        return named
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)


class Place:
    """The console, served. `office` is what is behind it: the same process, the same loop."""

    def __init__(self, office):
        self.office, self.url = office, office.public

    async def user(self, name, role=Role.OPERATOR):
        """An account that signs in with `PASSWORD`."""
        return await self.office.console.users.find(name) or await self.office.user(name, role)


@asynccontextmanager
async def place(database, **settings):
    """Serve the console on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        office = Office(database, PUBLIC_URL=address, **settings)
        config = uvicorn.Config(
            office.app, http=GuardedHttp, ws="websockets-sansio", lifespan="off", log_config=None, proxy_headers=False, loop="none"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:
                await asyncio.sleep(0.01)
        yield Place(office)
        server.should_exit = server.force_exit = True
        async with asyncio.timeout(PATIENCE_S):
            await serving
        await office.close()


class Tab:
    """One tab. `page` is playwright's. `problems` is what must be empty at the end; `weight` the bytes of what was loaded since
    `begin`, as they went over the wire.
    """

    def __init__(self, place, context, page):
        self.place, self.context, self.page = place, context, page
        self.problems, self.expected, self.weight, self.asked = [], set(), 0, []
        self._open, self._sizes = set(), set()
        page.on("console", self._said)
        page.on("pageerror", lambda fault: self.problems.append(f"error: {fault}"))
        page.on("requestfinished", self._finished)
        page.on("requestfailed", lambda request: self._open.discard(request))
        page.on("request", self._asked)

    def _said(self, message):
        refused = message.text.startswith("Failed to load resource: the server responded with a status of ")
        if refused and int(message.text.split("status of ")[1][:3]) in self.expected:
            return
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _asked(self, request):
        self.asked.append(request.url)
        if not request.url.startswith((self.place.url, "data:", "blob:")):
            self.problems.append(f"asked somebody else: {request.url}")
        if "text/event-stream" not in request.headers.get("accept", ""):  # a stream stays open
            self._open.add(request)

    def _finished(self, request):
        self._open.discard(request)
        task = asyncio.ensure_future(self._weigh(request))
        self._sizes.add(task)
        task.add_done_callback(self._sizes.discard)

    async def _weigh(self, request):
        sizes = await request.sizes()
        self.weight += sizes["responseBodySize"] + sizes["responseHeadersSize"]

    async def begin(self):
        """Forget what was loaded so far."""
        await self.settled()
        self.weight, self.asked = 0, []

    async def settled(self):
        """Everything that was asked for is there, but for streams; and for a moment nothing else was asked for."""
        await self.page.wait_for_load_state("load")
        async with asyncio.timeout(PATIENCE_S):
            before = None
            while self._open or self._sizes or before != len(self.asked):
                before = len(self.asked)
                await asyncio.sleep(QUIET_S)

    async def go(self, path, *, status=200):
        """Open a path of the console, and wait for all of it."""
        self.expected = {status}
        answer = await self.page.goto(self.place.url + path)
        assert answer.status == status, (path, answer.status)
        await self.settled()

    async def look(self, name):
        """A picture, if somebody wants one."""
        if folder := os.environ.get("SCREENSHOTS"):
            await self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    async def sign_in(self, role=Role.OPERATOR, name=None):
        """Somebody of that role is signed in here, without the page."""
        user = await self.place.user(name or f"the-{Role(role).value}", role)
        token, _ = await self.place.office.console.users.begin(user.id, SignedInBy.PASSWORD, browser="Chrome on Linux")
        await self.context.add_cookies(
            [
                {
                    "name": self.place.office.console.cookies.name(cookies.SESSION),
                    "value": token,
                    "url": self.place.url,
                    "httpOnly": True,
                }
            ]
        )

    async def sign_in_by_hand(self, name, password=PASSWORD):
        """As a person does it."""
        await self.page.fill("input[name=name]", name)
        await self.page.fill("input[name=password]", password)
        await self.page.click("main button:has-text('Sign in')")

    async def axe(self, within="html"):
        """What axe finds wrong within an element: rule, its words, and the elements."""
        if not await self.page.evaluate("typeof window.axe === 'object'"):
            await self.page.evaluate(AXE.read_text("utf-8"))
        found = await self.page.evaluate(
            "([within, options]) => axe.run(within, options)",
            [within, {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}],
        )
        return [(fault["id"], fault["help"], [node["html"][:160] for node in fault["nodes"]]) for fault in found["violations"]]

    async def too_wide(self):
        """Elements that stick out of the page to the right."""
        return await self.page.evaluate(
            """() => { const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            return [...document.querySelectorAll('body *')]
              .filter((it) => it.getBoundingClientRect().right > width && !it.closest('.scroll, .sections, .unseen'))
              .map((it) => it.outerHTML.slice(0, 120)); }"""
        )

    async def focus(self):
        """What has the focus: its words, and whether one can see that it has it."""
        return await self.page.evaluate(
            """() => { const it = document.activeElement, style = getComputedStyle(it);
            const words = it.getAttribute('aria-label') || it.textContent || it.name || '';
            const outlined = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
            return { words: words.trim().replace(/\\s+/g, ' ').slice(0, 60), tag: it.tagName.toLowerCase(), id: it.id,
              seen: outlined || style.boxShadow !== 'none' }; }"""
        )


@asynccontextmanager
async def tab(place, browser, *, scheme="light", size="wide", **options):
    """A tab in a browser of its own; at the end it must have had no problems."""
    width, height = SIZES[size]
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    context.set_default_timeout(PATIENCE_S * 1_000)
    if options.get("java_script_enabled", True):
        await context.add_init_script(VIOLATIONS)
    made = Tab(place, context, await context.new_page())
    try:
        yield made
        await made.settled()
        assert made.problems == []
    finally:
        await context.close()
