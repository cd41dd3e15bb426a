"""The list of calls."""

from starlette.responses import Response
from starlette.routing import BaseRoute

from app.web.console.door import Console
from app.web.console.visit import Visit
from app.web.guard import Policy


def routes(console: Console) -> list[BaseRoute]:
    """The list."""
    return [console.page("/console/calls", show, Policy.OPERATOR)]


async def show(visit: Visit) -> Response:
    """The page."""
    return await visit.page("console/calls.html")
