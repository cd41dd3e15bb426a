"""Saved views of the call list: the row of names above it, and the page on which one's own are looked after."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.responses import Response
from starlette.routing import BaseRoute

from app.store.console_tables import Role
from app.store.views import BadView, Desktop, Views
from app.web.console.door import Console
from app.web.console.question import ALL, LIST, Question
from app.web.console.visit import NotFound, Visit
from app.web.guard import Policy

VIEWS = f"{LIST}/views"
SHIPPED: Mapping[str, tuple[str, str]] = {
    ALL: ("All calls", ""),
    "review": ("To review", "review=yes"),
    "escalated": ("Escalated", "escalated=yes"),
    "missed": ("Missed", "outcome=abandoned&outcome=no_speech&outcome=turned_away&outcome=failed"),
}
"""Views that everybody has: name and query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A view's name above the list. `changed`: it is open, and something of it is asked otherwise now."""

    id: str
    name: str
    address: str
    open: bool = False
    changed: bool = False
    mine: bool = False
    shared_by: str | None = None


def tabs(desktop: Desktop, question: Question, user_id: str) -> list[Tab]:
    """The views as they stand above the list."""
    of_house = [(view_id, name, query, False, None) for view_id, (name, query) in SHIPPED.items()]
    kept = [(v.id, v.name, v.query, v.owner_id == user_id, None if v.owner_id == user_id else v.owner) for v in desktop.views]
    known = {view_id for view_id, *_ in (*of_house, *kept)}
    # an address without a view, or of one that is gone, is that of all calls with something changed
    opened = question.view if question.view in known else ALL
    return [
        Tab(
            id=view_id,
            name=name,
            address=opening(view_id, query).address,
            open=view_id == opened,
            changed=view_id == opened and asking(query).query != question.query,
            mine=mine,
            shared_by=owner,
        )
        for view_id, name, query, mine, owner in (*of_house, *kept)
    ]


def asking(query: str) -> Question:
    """The question of a query as a view or a form keeps it."""
    return Question.of(parse_qsl(query, keep_blank_values=True, max_num_fields=None))


def opening(view_id: str, query: str) -> Question:
    """What opens a view."""
    return asking(query).but(view=view_id)


def routes(console: Console, views: Views) -> list[BaseRoute]:
    """The page, and what its forms do."""

    async def show(visit: Visit) -> Response:
        return await _page(visit)

    async def save(visit: Visit) -> Response:
        question = asking(visit.field("query"))
        try:
            view_id = await views.save(visit.user.id, visit.field("name"), question.query, shared=visit.field("shared") == "yes")
        except BadView as fault:
            visit.flash(f"The view was not saved. {fault}", "wrong")
            return visit.redirect(question.address)
        visit.flash("The view is saved.")
        return visit.redirect(question.but(view=view_id).address)

    async def change(visit: Visit) -> Response:
        try:
            changed = await views.change(_id(visit), visit.user.id, name=visit.field("name"), shared=visit.field("shared") == "yes")
        except BadView as fault:
            return await _page(visit, {_id(visit): str(fault)}, 422)
        if not changed:
            raise NotFound
        visit.flash("The view is changed.")
        return visit.redirect(VIEWS)

    async def begin_with(visit: Visit) -> Response:
        view_id = _id(visit) if visit.field("begin") == "yes" else None
        if not await views.begin_with(visit.user.id, view_id):
            raise NotFound
        visit.flash("The list begins with this view now." if view_id else "The list begins with all calls now.")
        return visit.redirect(VIEWS)

    async def delete(visit: Visit) -> Response:
        gone = await views.delete(_id(visit), visit.user.id)
        if not gone and visit.user.role.includes(Role.ADMIN):
            gone = await views.delete(_id(visit), None)
        if not gone:
            raise NotFound
        visit.flash("The view is deleted.")
        return visit.redirect(VIEWS)

    async def _page(visit: Visit, wrong: Mapping[str, str] | None = None, status: int = 200) -> Response:
        desktop = await views.of(visit.user.id)
        addresses = {view.id: opening(view.id, view.query).address for view in desktop.views}
        return await visit.page(
            "console/views.html",
            status=status,
            desktop=desktop,
            addresses=addresses,
            wrong=wrong or {},
            is_admin=visit.user.role.includes(Role.ADMIN),
        )

    return [
        console.page(VIEWS, show, Policy.OPERATOR),
        console.page(VIEWS, save, Policy.OPERATOR, methods=["POST"]),
        console.page(f"{VIEWS}/{{view_id}}", change, Policy.OPERATOR, methods=["POST"]),
        console.page(f"{VIEWS}/{{view_id}}/begin", begin_with, Policy.OPERATOR, methods=["POST"]),
        console.page(f"{VIEWS}/{{view_id}}/delete", delete, Policy.OPERATOR, methods=["POST"]),
    ]


def _id(visit: Visit) -> str:
    return str(visit.request.path_params["view_id"])
