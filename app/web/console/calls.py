"""The list of calls: what its address asks, a page at a time, with the calls in progress on top.

Rule 1: all of the list is in its address (`question.py`), but for the columns, which are remembered.
Rule 2: a number that is looked for comes in a form and goes on as its blind index; it stands in no address and no log.
Rule 3: the calls in progress stand on top of the newest page as long as nothing but the agent is filtered: whatever else one may
ask is not known of them yet. Anywhere else they stand in the list, like the others.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import phonenumbers
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.errors import StoreUnavailable
from app.store.console_tables import Role
from app.store.filters import Filters
from app.store.listing import BadCursor, Count, Listing, Page
from app.store.tables import RowState
from app.store.views import Views
from app.web.console import exports, narrowing, rows, saved
from app.web.console import session as cookies
from app.web.console.door import Console, signed_in
from app.web.console.feed import EVERY_S, LATER_MS, MOST_LIVE, Feed
from app.web.console.question import LIST, LONGEST_TEXT, NEWEST, PERIODS, Question
from app.web.console.stream import EventStream, event
from app.web.console.visit import Visit
from app.web.guard import Policy

A_PAGE = 50
COUNTED = 10_000
"""Calls are counted so far; beyond it is "more than"."""
PHONE = re.compile(r"[+(]?[\d\s().\-/+]{5,30}")
CALL_NAME = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def routes(console: Console) -> list[BaseRoute]:
    """The list, and what belongs to it. They stand before whatever takes a call's name in their place."""
    room = CallList(console)
    return [
        console.page(LIST, room.show, Policy.OPERATOR),
        console.page(f"{LIST}/live", room.live, Policy.OPERATOR, background=True),
        console.page(f"{LIST}/find", room.find, Policy.OPERATOR, methods=["POST"]),
        console.page(f"{LIST}/columns", room.choose_columns, Policy.OPERATOR, methods=["POST"]),
        *saved.routes(console, room.views),
        *exports.routes(console, room.zone, room.now),
    ]


class CallList:
    """What the pages of the list have in common in one process."""

    def __init__(self, console: Console) -> None:
        self._console, desk = console, console.desk
        self.zone = ZoneInfo(desk.settings.business_timezone)
        self.listing = Listing(console.database)
        self.views = Views(console.database, clock=self.now)
        self.rows = rows.Rows(console.database, console.shell, self.zone)
        self.feed = Feed(self.listing, clock=self.now, draining=lambda: desk.switchboard.draining, every_s=EVERY_S)
        self._region = phonenumbers.region_code_for_country_code(int(desk.settings.default_country_code))

    def now(self) -> datetime:
        """The present moment."""
        return datetime.fromtimestamp(self._console.desk.clock() / 1_000, UTC)

    # ---- the list

    async def show(self, visit: Visit) -> Response:
        """A page of the list."""
        given = visit.request.query_params.multi_items()
        desktop = await self.views.of(visit.user.id)
        question = Question.of(given)
        if not given and desktop.default is not None:
            return visit.redirect(saved.opening(desktop.default.id, desktop.default.query).address)
        if (index := self._index_of(question.words)) is not None:
            return visit.redirect(Question(number=index).address)
        if given and sorted(given) != sorted(parse_qsl(urlsplit(question.address).query)):
            return visit.redirect(question.address)  # one address for one question
        now = self.now()
        filters, apart = question.filters(now, self.zone), stands_apart(question)
        listed, on_top = replace(filters, state=(RowState.FINAL.value,)) if apart else filters, apart and question.cursor is None
        try:
            page, live = await asyncio.gather(
                self.listing.page(listed, question.sort, question.cursor, A_PAGE), self._live(filters) if on_top else _nothing()
            )
        except BadCursor:
            visit.flash("That place in the list is gone. This is its first page.", "note")
            return visit.redirect(question.but().address)
        if question.cursor is not None and page.previous is None:
            return visit.redirect(question.but().address)  # the first page has the address of the first page
        count = await self._count(filters, page, live)
        columns = rows.chosen(desktop.columns)
        number = next((row["number"] for row in page.rows if question.number and self._is(row["number"], question.number)), None)
        user = visit.user
        return await visit.page(
            "console/calls.html",
            question=question,
            nothing_asked=not question.asked,
            tabs=saved.tabs(desktop, question, user.id),
            chips=narrowing.chips(question, self.zone, number=rows.spaced(number)),
            choices=narrowing.choices(question, self._console.desk, narrowing.SHOWN_FIRST),
            more_choices=narrowing.choices(question, self._console.desk, narrowing.SHOWN_LATER),
            flags=narrowing.FLAG_WORDS,
            ranges=narrowing.RANGE_WORDS,
            periods=PERIODS,
            tools=narrowing.tools(question, self._console.desk),
            headings=rows.headings(columns, question),
            orders=rows.orders(question),
            ordered=next((words for words, _, is_it in rows.orders(question) if is_it), "sorted otherwise"),
            all_columns=rows.COLUMNS,
            shown_columns={column.name for column in columns},
            rows=await self.rows.written(page.rows, columns, question, now),
            live=await self.rows.written(live[:MOST_LIVE], columns, question, now),
            live_more=len(live) > MOST_LIVE,
            has_live_wall="/console/live" in self._console.paths,
            on_top=on_top,
            live_address=f"{LIST}/live" + (f"?{question.query}" if question.query else ""),
            number_of_rows=len(page.rows),
            count=count,
            newer=question.but(cursor=page.previous).address if page.previous else None,
            older=question.but(cursor=page.next).address if page.next else None,
            may_export=user.role.includes(Role.REVIEWER),
            forms=exports.FORMS,
            my_view=next((tab for tab in saved.tabs(desktop, question, user.id) if tab.open and tab.mine), None),
        )

    async def find(self, visit: Visit) -> Response:
        """Look for words, for a number, or for a call by its name. Words narrow what is shown; a number is asked of all calls."""
        text = " ".join(visit.field("text").split())
        question = saved.asking(visit.field("query"))
        if CALL_NAME.fullmatch(text.upper()):
            return visit.redirect(f"{LIST}/{text.upper()}")
        if (index := self._index_of(text)) is not None:
            await visit.audit("calls.looked_up", None, {"by": "number"})
            return visit.redirect(Question(number=index).address)
        return visit.redirect(question.but(words=text[:LONGEST_TEXT]).address)

    async def choose_columns(self, visit: Visit) -> Response:
        """Remember which columns somebody wants to see."""
        wanted = [name for name in visit.form.getlist("column") if name in rows.BY_NAME]
        await self.views.show_columns(visit.user.id, None if visit.field("do") == "usual" else wanted)
        return visit.redirect(cookies.own_path(visit.field("back"), LIST))

    # ---- what goes on

    async def live(self, visit: Visit) -> Response:
        """The rows of calls in progress and of those that have just ended, as they change."""
        assert visit.session is not None
        session, request = visit.session, visit.request
        listener = self.feed.listen(session.id)
        if listener is None:
            return EventStream(_only(event("over", retry_ms=LATER_MS)))
        question = Question.of(request.query_params.multi_items())
        columns = rows.chosen((await self.views.of(visit.user.id)).columns)
        agents = question.chosen.get("agent")

        async def write(changed: list[rows.Row]) -> str:
            wanted = [row for row in changed if agents is None or row["agent"] in agents]
            return str(await self.rows.written(wanted, columns, question, self.now()))

        async def may_stay() -> bool:
            try:
                now = await signed_in(self._console, request, use=False)
            except StoreUnavailable:
                return True
            return now is not None and now.id == session.id

        return EventStream(self.feed.pieces(listener, write, may_stay), ended=partial(self.feed.leave, listener))

    async def _count(self, filters: Filters, page: Page, live: list[dict[str, Any]]) -> Count:
        """How many they are. Where all of them are on this page, nobody need count again."""
        if page.previous is None and page.next is None and len(live) <= MOST_LIVE:
            return Count(len(page.rows) + len(live), more=False)
        return await self.listing.count(filters, up_to=COUNTED)

    async def _live(self, filters: Filters) -> list[dict[str, Any]]:
        return (await self.listing.page(replace(filters, state=(RowState.LIVE.value,)), limit=MOST_LIVE + 1)).rows

    # ---- numbers

    def _index_of(self, text: str) -> str | None:
        """The index of the number that somebody typed, in whatever form; None: it is none."""
        if not PHONE.fullmatch(text) or sum(character.isdigit() for character in text) < 6:
            return None
        try:
            parsed = phonenumbers.parse(text, self._region)
        except phonenumbers.NumberParseException:
            return self._console.database.blind_index(text)
        return self._console.database.blind_index(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))

    def _is(self, number: str | None, index: str) -> bool:
        return self._console.database.blind_index(number) == index


def stands_apart(question: Question) -> bool:
    """Whether the calls in progress stand on top of the first page, and on none of the others (rule 3)."""
    return question.sort == NEWEST and set(question.asked) <= {"agent"}


async def _nothing() -> list[dict[str, Any]]:
    return []


async def _only(piece: str) -> AsyncGenerator[str]:
    yield piece
