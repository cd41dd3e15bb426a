"""The page of one call: what came of it and why, beside the conversation; it grows by itself while the call goes on.

Rule 1: whoever sees something of a call is in the audit log before they see it. A page that looks again by itself has a word from
the page that was written down, which holds for that session and that call alone.
Rule 2: the page is one template. What a correction or a second look changes is a block of it, drawn by the same lines.
Rule 3: the list that somebody came from rides along in the address, for the next and the previous call and the way back.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.store.console_tables import Role
from app.store.deliveries import Deliveries
from app.store.journals import Journals
from app.store.judgements import Judgements
from app.store.listing import Listing
from app.web.console import shell
from app.web.console.conversation import OBJECTIVE_MS, Conversation, conversation, moment
from app.web.console.door import Console
from app.web.console.judged import (
    CAME_OF_IT,
    DROPPED,
    by_whom,
    in_words,
    judged_fields,
    label,
    review_lines,
    slot_views,
)
from app.web.console.question import LIST, Question, address
from app.web.console.rows import spaced
from app.web.console.visit import NotFound, Visit
from app.web.guard import Policy
from app.wrapup.facts import Lists
from app.wrapup.outbox import outbox

CALL = "/console/calls/{call_id}"
TEMPLATE = "console/call.html"
NAME = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
LOOK_EVERY_S = {"live": 2, "waiting": 5}
"""How often a page looks again: while the call goes on, and while it waits to be read."""
JUST_NOW_S = 900
"""A call that has waited longer for its reading is not looked at again and again."""
OUTCOME_TONES = {"completed": "good", "transferred": "info", "abandoned": "note", "turned_away": "note", "failed": "bad"}
STATUS_TONES = {"done": "good", "failed": "bad", "refused": "note", "unknown": "note", "intended": "info"}
DELIVERY_TONES = {"delivered": "good", "dead": "bad", "pending": "info"}


def routes(console: Console) -> list[BaseRoute]:
    """The page, what it looks at again, and the row as it is."""
    room = CallRoom(console)
    return [
        console.page(CALL, room.show, Policy.OPERATOR, audits="call.viewed"),
        console.page(f"{CALL}/again", room.again, Policy.OPERATOR, background=True),
        console.page(f"{CALL}/row.json", room.as_json, Policy.REVIEWER, audits="call.row_viewed"),
    ]


@dataclass(frozen=True, slots=True)
class Wrong:
    """A correction that was refused: where, why, and what was typed."""

    field: str
    because: str
    typed: str
    note: str


class CallRoom:
    """What the pages about one call have in common."""

    def __init__(self, console: Console) -> None:
        settings = console.desk.settings
        self.console = console
        self.judgements = Judgements(console.database, outbox(settings), clock=self.now)
        self.deliveries = Deliveries(console.database, clock=self.now)
        self.journals = Journals(console.database)
        self.listing = Listing(console.database)
        self.lists = Lists.of(settings)
        self.zone = ZoneInfo(settings.business_timezone)

    def now(self) -> datetime:
        """The present moment."""
        return datetime.fromtimestamp(self.console.desk.clock() / 1_000, UTC)

    # ---- pages

    async def show(self, visit: Visit) -> Response:
        """The page."""
        return await self.page(visit, await self.row(visit))

    async def again(self, visit: Visit) -> Response:
        """The page looks again: nothing new, or what is new. Only with the word of a page that was audited (rule 1)."""
        row = await self.row(visit)
        query = visit.request.query_params
        if not hmac.compare_digest(query.get("word", ""), _word(visit, row["call_id"])):
            raise NotFound
        if query.get("seen") == await asyncio.to_thread(_fingerprint, row):
            return Response(status_code=204, headers=shell.HEADERS)
        return await self.part(visit, row)

    async def as_json(self, visit: Visit) -> Response:
        """The row as it is kept, with all that belongs to it."""
        row = await self.row(visit)
        text = await asyncio.to_thread(json.dumps, row, ensure_ascii=False, indent=2)
        return Response(text.encode("utf-8", "replace"), media_type="application/json", headers=shell.HEADERS)

    # ---- what they are made of

    async def row(self, visit: Visit) -> dict[str, Any]:
        """The row of the path's call. Raises `NotFound`."""
        call_id = str(visit.request.path_params["call_id"])
        row = await self.console.desk.calls.row(call_id) if NAME.fullmatch(call_id) else None
        if row is None or row["call_id"] != call_id:
            raise NotFound
        return row

    async def page(self, visit: Visit, row: Mapping[str, Any], wrong: Wrong | None = None, *, status: int = 200) -> Response:
        """The page of a row; `wrong` is said beside its field."""
        return await visit.page(TEMPLATE, status=status, **await self.context(visit, row, wrong))

    async def part(self, visit: Visit, row: Mapping[str, Any], wrong: Wrong | None = None, *, status: int = 200) -> Response:
        """That block of it which changes."""
        return await visit.page(TEMPLATE, status=status, block="part", **await self.context(visit, row, wrong))

    async def context(self, visit: Visit, row: Mapping[str, Any], wrong: Wrong | None) -> dict[str, Any]:
        """What the template needs."""
        call_id = row["call_id"]
        question, query = _list_of(visit)
        final = row["state"] == "final"
        newer, older = await self.listing.neighbours(question.filters(self.now(), self.zone), question.sort, call_id)
        opened = await self.journals.opened(call_id)
        said = await self.judgements.of_call(call_id) if final else []
        sent = await self.deliveries.list(call_id=call_id) if final else []
        drawn = await asyncio.to_thread(self._drawn, row, said, opened)
        looks_again = _looks_again(row, self.now())
        number = row["to_number"] if row["direction"] == "outbound" else row["from_number"]
        return drawn | {
            "row": row,
            "live": not final,
            "call_path": f"{LIST}/{call_id}",
            "query": query,
            "list_address": f"{LIST}{query}",
            "newer": newer,
            "older": older,
            "deliveries": sent,
            "wrong": wrong,
            "other_number": spaced(number),
            "number_address": address(number=self.console.database.blind_index(number)) if number else None,
            "may_review": visit.user.role.includes(Role.REVIEWER),
            "may_admin": visit.user.role.includes(Role.ADMIN),
            "look_every": LOOK_EVERY_S.get(looks_again or "", 0),
            "seen": await asyncio.to_thread(_fingerprint, row) if looks_again else "",
            "word": _word(visit, call_id) if looks_again else "",
            "lasts_ms": row["duration_ms"] if final else self._age_ms(row),
            "in_words": in_words,
            "label": label,
            "by_whom": by_whom,
            "moment": moment,
            "objective_ms": OBJECTIVE_MS,
            "outcome_tones": OUTCOME_TONES,
            "status_tones": STATUS_TONES,
            "delivery_tones": DELIVERY_TONES,
            "dropped_words": DROPPED,
        }

    def _drawn(self, row: Mapping[str, Any], said: list[dict[str, Any]], opened: Mapping[int, int]) -> dict[str, Any]:
        talk: Conversation = conversation(row, opened, now=self.now())
        fields = judged_fields(row, said, talk, self.lists)
        return {
            "talk": talk,
            "fields": [fields[which.value] for which in CAME_OF_IT],
            "slots": slot_views(row, fields, talk),
            "reviews": review_lines(row),
        }

    def _age_ms(self, row: Mapping[str, Any]) -> int:
        age = self.now() - datetime.fromisoformat(row["started_at"])
        return max(0, round(age.total_seconds() * 1_000))


def _list_of(visit: Visit) -> tuple[Question, str]:
    """The list that somebody came from, and how its address goes on (rule 3); all calls if they came from none."""
    question = Question.of(visit.request.query_params.multi_items())
    _, _, query = question.address.partition("?")
    return question, f"?{query}" if visit.request.url.query else ""


def _looks_again(row: Mapping[str, Any], now: datetime) -> str | None:
    """Whether there is more to come of a call soon: it goes on, or it has just ended and waits to be read."""
    if row["state"] == "live":
        return "live"
    if row["analysis"] != "waiting" or row["finished_at"] is None:
        return None
    return "waiting" if (now - datetime.fromisoformat(row["finished_at"])).total_seconds() < JUST_NOW_S else None


def _fingerprint(row: Mapping[str, Any]) -> str:
    """Tells one state of a row from another, without saying anything of it."""
    return hashlib.sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:24]


def _word(visit: Visit, call_id: str) -> str:
    """The word with which a page of this session may look at this call again (rule 1)."""
    secret = visit.secret or ""
    made = hmac.digest(secret.encode("utf-8", "replace"), f"callrow: look again at {call_id}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(made[:16]).decode().rstrip("=")
