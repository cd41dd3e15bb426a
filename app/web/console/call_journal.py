"""The raw journal of a call, for admins: every line with what is private in it, and whether the machine would order the same today.

Rule 1: a journal is read a page at a time (`store/journals.py`); each page that is shown is a line in the audit log.
Rule 2: a replay runs in a thread, one at a time in a process: it takes time from the calls that are going on.
What a replay needs of the agents stands in each stream's first line; today's agent files have no part in it.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.routing import BaseRoute

from app.store.journals import FIRST, Place, Replayed
from app.web.console.call_page import CALL, CallRoom
from app.web.console.conversation import moment
from app.web.console.door import Console
from app.web.console.question import LIST
from app.web.console.visit import Visit
from app.web.guard import Policy

A_PAGE = 100
TEMPLATE = "console/call_journal.html"
PLACE = re.compile(r"(\d{1,6})\.(\d{1,9})")
SHOWN_DIFFERENCES = 20


def routes(console: Console) -> list[BaseRoute]:
    """The journal, and its replay."""
    room = JournalRoom(console)
    return [
        console.page(f"{CALL}/journal", room.show_journal, Policy.ADMIN, audits="call.journal_viewed"),
        console.page(f"{CALL}/journal/replay", room.replay, Policy.ADMIN, methods=["POST"], audits="call.replayed"),
    ]


class JournalRoom(CallRoom):
    """The journal of one call."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._one_at_a_time = asyncio.Semaphore(1)

    async def show_journal(self, visit: Visit) -> Response:
        """One page of it."""
        return await self._journal(visit, await self.row(visit))

    async def replay(self, visit: Visit) -> Response:
        """Play it through the machine again, and say whether each order was the same."""
        row = await self.row(visit)
        await visit.audit("call.replayed", row["call_id"])
        async with self._one_at_a_time:
            played = await self.journals.replayed(row["call_id"])
        return await self._journal(visit, row, played)

    async def _journal(self, visit: Visit, row: Mapping[str, Any], played: list[Replayed] | None = None) -> Response:
        call_id, after = row["call_id"], _place(visit.request.query_params.get("after"))
        lines = await self.journals.page(call_id, after, A_PAGE + 1)
        more, lines = len(lines) > A_PAGE, lines[:A_PAGE]
        earlier = None
        if after != FIRST and lines:
            earlier = await self.journals.before(call_id, (lines[0]["epoch"], lines[0]["seq"]), A_PAGE)
        elif after != FIRST:
            earlier = FIRST
        path = f"{LIST}/{call_id}"
        return await visit.page(
            TEMPLATE,
            block="replayed" if played is not None and visit.wants_part else None,
            row=row,
            call_path=path,
            lines=[_shown(line) for line in lines],
            streams=await self.journals.streams(call_id),
            earlier=None if earlier is None else _address(path, earlier),
            later=_address(path, (lines[-1]["epoch"], lines[-1]["seq"])) if more else None,
            at=_address(path, after),
            played=played,
            most=SHOWN_DIFFERENCES,
            line_address=lambda epoch, seq: f"{_address(path, (epoch, max(0, seq - 4)))}#line-{epoch}.{seq}",
            moment=moment,
        )


def _place(after: str | None) -> Place:
    found = PLACE.fullmatch(after or "")
    return FIRST if found is None else (int(found[1]), int(found[2]))


def _address(path: str, place: Place) -> str:
    return f"{path}/journal" + ("" if place == FIRST else "?" + urlencode({"after": f"{place[0]}.{place[1]}"}))


def _shown(line: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: "" if not line[name] else json.dumps(line[name], ensure_ascii=False) for name in ("data", "private")}
    return {**line, **told, "commands": line["commands"] or ""}
