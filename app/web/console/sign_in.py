"""Signing in with a password, and signing out.

Rule 1: tries are counted before anything is computed: by the address they come from, by the name they are for, and by both (T40).
Who tries a name from one place does not shut its owner out at another. A try that was right does not count.
Rule 2: what is said of a wrong name and of a wrong password is the same, and takes as long.
Rule 3: nothing that somebody typed is kept or logged: a name that there is not may be a password in the wrong field.
"""

from starlette.responses import Response
from starlette.routing import BaseRoute

from app.store.console_tables import SignedInBy
from app.store.limits import Rate
from app.store.users import BadAccount, User
from app.web.console import session as cookies
from app.web.console.door import Console
from app.web.console.visit import Visit
from app.web.guard import Policy

OF_AN_ADDRESS = Rate(burst=8, every_s=30)
OF_BOTH = Rate(burst=5, every_s=60)
OF_A_NAME = Rate(burst=7, every_s=20)
"""At most ten hashes in any minute from one address, and as many for one name from everywhere."""
WRONG = "That name and password do not belong together, or the account may not sign in."


def routes(console: Console) -> list[BaseRoute]:
    """Sign-in and sign-out."""
    return [
        console.page(cookies.SIGN_IN, show, Policy.PUBLIC),
        console.page(cookies.SIGN_IN, sign_in, Policy.PUBLIC, methods=["POST"]),
        console.page("/console/sign-out", sign_out, Policy.SIGNED_IN, methods=["POST"]),
    ]


async def show(visit: Visit) -> Response:
    """The page to sign in; whoever is signed in goes on."""
    back = cookies.own_path(visit.request.query_params.get("next"))
    return visit.redirect(back) if visit.session else await page(visit, back)


async def sign_in(visit: Visit) -> Response:
    """Check a name and a password."""
    console, back = visit.console, cookies.own_path(visit.field("next"))
    name, password = visit.field("name").strip().lower(), visit.field("password")
    address = cookies.client_address(visit.request.scope, console.desk.settings.proxy_hops)
    tries = {f"address:{address}": OF_AN_ADDRESS, f"both:{address} {name}": OF_BOTH, f"name:{name}": OF_A_NAME}
    for key, rate in tries.items():
        wait = await console.limits.take(key, rate)
        if wait is not None:
            response = await page(visit, back, wrong=f"Too many attempts. Try again in {in_words(wait)}.", status=429)
            response.headers["retry-after"] = str(wait)
            return response
    user = await console.users.check(name, password)
    if user is None:
        known = await console.users.find(name) if name else None
        await visit.audit("sign_in.refused", known.name if known else None, actor="nobody")
        return await page(visit, back, wrong=WRONG, status=401)
    for key, rate in tries.items():
        await console.limits.give_back(key, rate)
    return await begin(visit, user, SignedInBy.PASSWORD, back)


async def begin(visit: Visit, user: User, by: SignedInBy, back: str) -> Response:
    """Somebody is who they say: a new session, and on to where they wanted. What session there was before ends."""
    console = visit.console
    await visit.audit("sign_in.done", user.name, {"by": by.value}, actor=f"user:{user.name}")
    if visit.session is not None:
        await console.users.end(visit.user.id, visit.session.id)
    try:
        token, _ = await console.users.begin(user.id, by, browser=cookies.browser_name(visit.request.headers.get("user-agent", "")))
    except BadAccount:  # disabled this very moment
        return await page(visit, back, wrong=WRONG, status=401)
    visit.set_cookie(cookies.SESSION, token, seconds=console.desk.settings.session_hours * 3_600)
    visit.drop_cookie(cookies.VISIT)
    return visit.redirect(back)


async def sign_out(visit: Visit) -> Response:
    """End this session."""
    assert visit.session is not None
    await visit.audit("sign_out.done", visit.user.name)
    await visit.console.users.end(visit.user.id, visit.session.id)
    visit.drop_cookie(cookies.SESSION)
    visit.flash("You are signed out.")
    return visit.redirect(cookies.SIGN_IN)


async def page(visit: Visit, back: str, *, wrong: str | None = None, status: int = 200) -> Response:
    """The page to sign in, with what went wrong."""
    name, provider = visit.field("name")[:100], visit.console.provider.name if visit.console.provider else None
    return await visit.page("console/sign_in.html", back=back, wrong=wrong, name=name, provider=provider, status=status)


def in_words(seconds: int) -> str:
    """A time to wait, for people."""
    if seconds < 90:
        return f"{seconds} seconds"
    return f"{-(-seconds // 60)} minutes"
