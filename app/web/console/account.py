"""One's own account: where one is signed in, the password, and how the console looks."""

from starlette.responses import Response
from starlette.routing import BaseRoute

from app.store.limits import Rate
from app.store.passwords import BadPassword
from app.web.console import session as cookies
from app.web.console.door import Console
from app.web.console.visit import BadForm, NotFound, Visit
from app.web.guard import Policy

OF_ONE_S_OWN = Rate(burst=5, every_s=60)
A_YEAR = 365 * 24 * 3_600
ACCOUNT = "/console/account"


def routes(console: Console) -> list[BaseRoute]:
    """The account's page and its forms."""
    return [
        console.page(ACCOUNT, show, Policy.SIGNED_IN),
        console.page(f"{ACCOUNT}/password", change_password, Policy.SIGNED_IN, methods=["POST"]),
        console.page(f"{ACCOUNT}/sessions/{{session_id}}/end", end_session, Policy.SIGNED_IN, methods=["POST"]),
        console.page(f"{ACCOUNT}/sessions/end-others", end_others, Policy.SIGNED_IN, methods=["POST"]),
        console.page("/console/theme", change_theme, Policy.PUBLIC, methods=["POST"]),
    ]


async def show(visit: Visit) -> Response:
    """The page."""
    return await _page(visit)


async def change_password(visit: Visit) -> Response:
    """A new password, for who knows the present one. Every other session of the account ends."""
    assert visit.session is not None
    users, user = visit.console.users, visit.user
    key = f"password:{user.id}"
    if (wait := await visit.console.limits.take(key, OF_ONE_S_OWN)) is not None:
        return await _page(visit, {"present": f"Too many attempts. Try again in {wait} seconds."}, 429)
    if not user.has_password or await users.check(user.name, visit.field("present")) is None:
        await visit.audit("password.refused", user.name)
        return await _page(visit, {"present": "That is not your present password."}, 422)
    if visit.field("new") != visit.field("again"):
        return await _page(visit, {"again": "The two are not the same."}, 422)
    try:
        users.judge(user, visit.field("new"))
    except BadPassword as fault:
        return await _page(visit, {"new": f"{fault.why[0].upper()}{fault.why[1:]}."}, 422)
    await visit.audit("password.changed", user.name)
    ended = await users.set_password(user.id, visit.field("new"), keep_session=visit.session.id)
    visit.flash("Your password is changed." + (f" Other sessions ended: {ended}." if ended else ""))
    return visit.redirect(ACCOUNT)


async def end_session(visit: Visit) -> Response:
    """Revoke one session of one's own."""
    session_id = str(visit.request.path_params["session_id"])
    if session_id not in {session.id for session in await visit.console.users.sessions_of(visit.user.id)}:
        raise NotFound
    await visit.audit("session.ended", visit.user.name)
    await visit.console.users.end(visit.user.id, session_id)
    visit.flash("That session has ended.")
    return visit.redirect(ACCOUNT)


async def end_others(visit: Visit) -> Response:
    """Revoke every session of one's own but this."""
    assert visit.session is not None
    await visit.audit("session.ended", visit.user.name, {"which": "all others"})
    ended = await visit.console.users.end_all(visit.user.id, keep=visit.session.id)
    visit.flash(f"Sessions ended: {ended}.")
    return visit.redirect(ACCOUNT)


async def change_theme(visit: Visit) -> Response:
    """Light, dark, or as the system says; for who has no script (with one, `console.js` does it)."""
    chosen = visit.field("theme")
    if chosen in cookies.THEMES:
        visit.set_cookie(cookies.THEME, chosen, seconds=A_YEAR)
    elif chosen == "system":
        visit.drop_cookie(cookies.THEME)
    else:
        raise BadForm
    return visit.redirect(cookies.own_path(visit.field("next"), ACCOUNT if visit.session else cookies.SIGN_IN))


async def _page(visit: Visit, wrong: dict[str, str] | None = None, status: int = 200) -> Response:
    sessions = await visit.console.users.sessions_of(visit.user.id)
    return await visit.page(
        "console/account.html", sessions=sessions, this=visit.session, wrong=wrong or {}, roles=visit.user.role.value, status=status
    )
