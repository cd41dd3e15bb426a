"""Signing in by the identity provider: to it, and back.

Rule: what went wrong is said to the person in a sentence, and to the log as a constant; never what the provider wrote.
"""

from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from app import logs
from app.store.console_tables import SignedInBy
from app.web.console import session as cookies
from app.web.console import shell, sign_in
from app.web.console.door import Console
from app.web.console.provider import FLOW_SECONDS, RETURN, SignInRefused
from app.web.console.visit import NotFound, Visit
from app.web.guard import Policy

log = logs.logger("console")

SENTENCES = {
    "denied": "The identity provider did not let you in.",
    "flow": "That sign-in began in another browser, or too long ago. Begin again.",
    "state": "That sign-in began in another browser, or too long ago. Begin again.",
    "unreachable": "The identity provider cannot be reached. Try again, or sign in with a password.",
    "account": "The identity provider knows you, but there is no account for you here. Ask an admin.",
}
OTHERWISE = "The identity provider's answer could not be trusted, so nobody was signed in. Tell an admin."


def routes(console: Console) -> list[BaseRoute]:
    """The way there and back; not found where no provider is set."""
    return [
        console.page("/console/sign-in/provider", to_provider, Policy.PUBLIC),
        console.page(RETURN, and_back, Policy.PUBLIC),
    ]


async def to_provider(visit: Visit) -> Response:
    """Send the browser to the provider."""
    if visit.console.provider is None:
        raise NotFound
    try:
        url, flow = await visit.console.provider.begin(cookies.own_path(visit.request.query_params.get("next")))
    except SignInRefused as refused:
        return await _refused(visit, refused.reason)
    visit.set_cookie(cookies.FLOW, flow, seconds=FLOW_SECONDS)
    return RedirectResponse(url, 303, headers=shell.HEADERS)


async def and_back(visit: Visit) -> Response:
    """The browser comes back: who is it?"""
    provider, console = visit.console.provider, visit.console
    if provider is None:
        raise NotFound
    flow = visit.request_cookies.get(cookies.FLOW)
    visit.drop_cookie(cookies.FLOW)  # whatever comes of it, it is spent
    try:
        person, back = await provider.finish(visit.request.query_params, flow)
    except SignInRefused as refused:
        return await _refused(visit, refused.reason)
    found = await console.users.of_provider(
        person.issuer, person.subject, email=person.email, name=person.name, new_role=provider.new_role
    )
    if found is None:
        return await _refused(visit, "account")
    user, is_new = found
    if is_new:
        await visit.audit("user.added", user.name, {"role": user.role.value, "by": "provider"}, actor=f"user:{user.name}")
    return await sign_in.begin(visit, user, SignedInBy.PROVIDER, cookies.own_path(back))


async def _refused(visit: Visit, reason: str) -> Response:
    log.warning("a sign-in by the identity provider was refused", reason=reason)
    await visit.audit("sign_in.refused", None, {"by": "provider", "reason": reason}, actor="nobody")
    status = 503 if reason == "unreachable" else 403
    return await sign_in.page(visit, cookies.HOME, wrong=SENTENCES.get(reason, OTHERWISE), status=status)
