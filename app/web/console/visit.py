"""One request to the console, as a page sees it: who asks, what is in the form, and the ways to answer.

Rule: `audit` writes its line before it returns. A page that shows or changes something calls it, or its door does, before the
answer is sent; where the log cannot be written, nothing is shown.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from markupsafe import Markup
from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.errors import OurFault, StoreUnavailable
from app.store.users import Session, User
from app.web.console import session as cookies
from app.web.console import shell

if TYPE_CHECKING:
    from app.web.console.door import Console

FLASH_SECONDS = 60


class NotFound(Exception):
    """There is no such thing, or not for whoever asks: the answer is the same."""


class BadForm(Exception):
    """A form that none of our pages can have sent."""


class NotAudited(Exception):
    """The audit log could not be written, so nothing is shown."""


class Visit:
    """One request."""

    def __init__(self, console: "Console", request: Request, session: Session | None, form: ImmutableMultiDict[str, str]) -> None:
        self.console, self.request, self.session, self.form = console, request, session, form
        self.audited: list[str] = []
        """What this visit has written into the audit log."""
        self._flashes: list[tuple[str, str]] = []
        self._new_cookies: dict[str, tuple[str, int | None]] = {}
        self._dropped: set[str] = set()

    @property
    def user(self) -> User:
        """Who asks. Only behind a door that lets nobody else in."""
        if self.session is None:
            raise OurFault("a page asks for its user behind a door that is open to anybody")
        return self.session.user

    @property
    def actor(self) -> str:
        """Who asks, as the audit log and the judgements name them."""
        return f"user:{self.user.name}"

    @property
    def by_htmx(self) -> bool:
        """htmx asks, and not the browser itself: it follows redirects on its own, so it is told of one in a header."""
        return self.request.headers.get("hx-request") == "true"

    @property
    def wants_part(self) -> bool:
        """A part of the page is wanted, and not all of it."""
        return self.by_htmx and self.request.headers.get("hx-request-type") != "full"

    @property
    def path(self) -> str:
        """A path's parameters are in `request.path_params`; this is the path itself, with its query."""
        query = self.request.url.query
        return self.request.url.path + (f"?{query}" if query else "")

    def field(self, name: str) -> str:
        """A field of the form, once; empty if it is not there. Raises `BadForm` if it stands there twice."""
        values = self.form.getlist(name)
        if len(values) > 1:
            raise BadForm
        return values[0] if values else ""

    async def audit(
        self, action: str, subject: str | None = None, details: Mapping[str, Any] | None = None, *, actor: str = ""
    ) -> None:
        """Write a line into the audit log, now. `details` names fields and reasons, never values.

        Raises:
            NotAudited: it could not be written; the door answers 503.
        """
        try:
            await self.console.audit.append(actor or self.actor, action, subject, details)
        except StoreUnavailable as fault:
            raise NotAudited from fault
        self.audited.append(action)

    # ---- answers

    async def page(self, template: str, *, status: int = 200, block: str | None = None, **context: Any) -> Response:
        """A page; with `block` only that block of it, for htmx."""
        text = await self.console.shell.render(template, {**self.context(), **context}, block=block)
        response = await shell.html(self.request, text, status)
        if block is None and cookies.FLASH in self.request_cookies:
            self.drop_cookie(cookies.FLASH)  # it is shown now
        return response

    def redirect(self, path: str) -> Response:
        """On to another page of ours, by GET; what was said with `flash` is shown there."""
        if self._flashes:
            told = urlsafe_b64encode(json.dumps(self._flashes).encode()).decode()
            self.set_cookie(cookies.FLASH, told, seconds=FLASH_SECONDS)
        if self.by_htmx:
            return Response(status_code=204, headers={**shell.HEADERS, "hx-redirect": path})
        return RedirectResponse(path, 303, headers=shell.HEADERS)

    def to_sign_in(self) -> Response:
        """Whoever is not signed in is sent to where they can, and afterwards back."""
        path = self.path if self.request.method in cookies.SAFE_METHODS else ""
        if self.by_htmx:
            shown = urlsplit(self.request.headers.get("hx-current-url", ""))
            path = shown.path + (f"?{shown.query}" if shown.query else "")
        back = cookies.own_path(path, "")
        address = cookies.SIGN_IN + (f"?{urlencode({'next': back})}" if back not in ("", cookies.HOME) else "")
        if self.by_htmx:
            return Response(status_code=401, headers={**shell.HEADERS, "hx-redirect": address})
        return RedirectResponse(address, 303, headers=shell.HEADERS)

    def flash(self, text: str, kind: str = "done") -> None:
        """Say something on the next page that is shown. `kind`: done, note or wrong."""
        self._flashes.append((kind, text))

    def context(self) -> dict[str, Any]:
        """What every template may use."""
        session = self.session
        return {
            "visit": self,
            "user": session.user if session else None,
            "path": self.request.url.path,
            "nav": self.console.nav(session.user.role) if session else (),
            "theme": self.theme,
            "flashes": self._told_before() + self._flashes,
            "csrf": self.csrf,
            "csrf_field": self.csrf_field,
        }

    # ---- cookies and words

    @property
    def theme(self) -> str | None:
        """light or dark, if somebody chose."""
        chosen = self.request_cookies.get(cookies.THEME)
        return chosen if chosen in cookies.THEMES else None

    @property
    def request_cookies(self) -> Mapping[str, str]:
        """Our cookies, by our names for them."""
        ours = (cookies.SESSION, cookies.VISIT, cookies.FLASH, cookies.THEME, cookies.FLOW)
        return {name: value for name in ours if (value := self.console.cookies.get(self.request, name)) is not None}

    @property
    def secret(self) -> str | None:
        """What the words in forms hang on: the session's cookie, or that of a visitor."""
        return self.request_cookies.get(cookies.SESSION if self.session else cookies.VISIT)

    def csrf(self) -> str:
        """The word for a form; makes the visitor's cookie if there is none yet."""
        secret = self.secret
        if secret is None and cookies.VISIT in self._new_cookies:
            secret = self._new_cookies[cookies.VISIT][0]
        if secret is None:
            secret = cookies.new_word()
            self.set_cookie(cookies.VISIT, secret)
        return cookies.form_word(secret)

    def csrf_field(self) -> Markup:
        """The word as a hidden field."""
        return Markup('<input type="hidden" name="csrf" value="{}">').format(self.csrf())

    def set_cookie(self, cookie: str, value: str, *, seconds: int | None = None) -> None:
        """Set a cookie with the answer."""
        self._dropped.discard(cookie)
        self._new_cookies[cookie] = value, seconds

    def drop_cookie(self, cookie: str) -> None:
        """Take a cookie away with the answer."""
        if cookie not in self._new_cookies:
            self._dropped.add(cookie)

    def put_cookies(self, response: Response) -> None:
        """Write what was set and taken away into the answer."""
        for cookie, (value, seconds) in self._new_cookies.items():
            self.console.cookies.set(response, cookie, value, seconds=seconds, readable=cookie == cookies.THEME)
        for cookie in self._dropped:
            self.console.cookies.drop(response, cookie)

    def _told_before(self) -> list[tuple[str, str]]:
        kept = self.request_cookies.get(cookies.FLASH)
        if kept is None:
            return []
        try:
            told = json.loads(urlsafe_b64decode(kept.encode("ascii")))
            return [(str(kind), str(text)[:300]) for kind, text in told][:5]
        except (ValueError, TypeError):
            return []
