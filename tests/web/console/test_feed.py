"""The feed of live calls: one look for everybody, everything told once, and an end to it."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.call.disposition import EndReason, Outcome
from app.errors import StoreUnavailable
from app.store.listing import Listing
from app.store.tables import RowState, calls
from app.web.console import feed as feeds
from app.web.console.feed import FRESH, MOST_OF_ONE, Feed
from app.web.console.stream import EventStream, event
from tests.store.listed import NOON, put, row
from tests.web.console.office import Office

PATIENCE_S = 60
EVERY_S = 0.02


class Counting(Listing):
    """Counts, and fails when it is told to."""

    def __init__(self, database):
        super().__init__(database)
        self.asked, self.broken = 0, False

    async def page(self, filters, *args, **kwargs):
        self.asked += filters.state == ("live",)
        if self.broken:
            raise StoreUnavailable("list calls")
        return await super().page(filters, *args, **kwargs)


class Watch:
    """A feed under test, and a clock that stands until it is moved."""

    def __init__(self, database, **other):
        self.database, self.listing, self.now, self.draining = database, Counting(database), NOON + timedelta(seconds=5), False
        self.feed = Feed(self.listing, clock=lambda: self.now, draining=lambda: self.draining, every_s=EVERY_S, **other)

    async def finish(self, name, **columns):
        ended = {"state": RowState.FINAL, "outcome": Outcome.COMPLETED, "end_reason": EndReason.AGENT_ENDED}
        await self.change(name, **ended, ended_at=self.now, finished_at=self.now, duration_ms=60_000, **columns)

    async def change(self, name, **columns):
        async with self.database.write() as connection:
            await connection.execute(sa.update(calls).where(calls.c.call_id == name).values(columns))

    async def looked(self, times=2):
        """Wait until it has looked so often more."""
        until = self.feed.looks + times
        async with asyncio.timeout(PATIENCE_S):
            while self.feed.looks < until:
                await asyncio.sleep(EVERY_S / 4)

    @asynccontextmanager
    async def listener(self, session="s1", stay=lambda: True):
        """Somebody who looks on: `told` are the events so far, `rows` the last state of each call."""
        heard = self.feed.listen(session)
        assert heard is not None
        reader = Reader()

        async def write(rows):
            reader.rows |= {row["call_id"]: row for row in rows}
            reader.batches.append([row["call_id"] for row in rows])
            return " ".join(row["call_id"] for row in rows)

        async def may_stay():
            return stay()

        async def read():
            async for piece in self.feed.pieces(heard, write, may_stay):
                reader.take(piece)

        reader.task = asyncio.create_task(read())
        try:
            yield reader
        finally:
            self.feed.leave(heard)
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)


class Reader:
    def __init__(self):
        self.rows, self.batches, self.events, self.live, self.task, self.text = {}, [], [], None, None, ""

    def take(self, piece):
        self.text += piece
        for part in piece.removesuffix("\n\n").split("\n\n"):
            fields = dict(line.partition(": ")[::2] for line in part.split("\n") if not line.startswith(":"))
            if "event" in fields:
                self.events.append(fields["event"])
                if fields["event"] == "live":
                    self.live = fields["data"].split()

    async def until(self, true):
        async with asyncio.timeout(PATIENCE_S):
            while not true(self):
                if self.task.done():
                    self.task.result()  # what went wrong with it
                    raise AssertionError(f"it is over: {self.events}")
                await asyncio.sleep(EVERY_S / 4)


@pytest.fixture
def watch(database):
    return Watch(database)


async def test_at_first_one_is_told_of_all_calls_in_progress(watch):
    first, second = await put(
        watch.database, row(watch.database, NOON, live=True), row(watch.database, NOON - timedelta(hours=1), live=True)
    )
    await put(watch.database, row(watch.database, NOON - timedelta(days=1)))
    async with watch.listener() as reader:
        await reader.until(lambda it: it.live is not None)
        assert reader.batches == [[second, first]]  # the oldest first
        assert reader.live == [second, first]


async def test_where_nothing_goes_on_that_is_told_too(watch):
    async with watch.listener() as reader:
        await reader.until(lambda it: it.live is not None)
        assert (reader.rows, reader.live) == ({}, [])
        await watch.looked(5)
        assert reader.events == ["rows", "live"]  # and not again


async def test_a_call_comes_changes_ends_and_is_read_and_each_is_told_once(watch):
    async with watch.listener() as reader:
        await reader.until(lambda it: it.live is not None)
        (name,) = await put(watch.database, row(watch.database, NOON, live=True))
        await reader.until(lambda it: it.live == [name])
        await watch.change(name, intent="buy")
        await reader.until(lambda it: it.rows[name]["intent"] == "buy")
        await watch.finish(name)
        await reader.until(lambda it: it.rows[name]["state"] == "final" and it.live == [])
        await watch.change(name, sentiment="positive")
        await reader.until(lambda it: it.rows[name]["sentiment"] == "positive")
        await watch.looked(5)
        assert reader.batches == [[], [name], [name], [name], [name]]


async def test_a_call_that_has_begun_and_ended_between_two_looks_is_told(watch):
    async with watch.listener() as reader:
        await reader.until(lambda it: it.live is not None)
        (name,) = await put(watch.database, row(watch.database, watch.now - timedelta(seconds=1), ended_at=watch.now))
        await reader.until(lambda it: name in it.rows)
        assert reader.rows[name]["outcome"] == "completed"


async def test_after_a_while_a_call_that_has_ended_is_looked_at_no_more(watch):
    (name,) = await put(watch.database, row(watch.database, NOON, live=True))
    async with watch.listener() as reader:
        await reader.until(lambda it: it.live == [name])
        await watch.finish(name)
        await reader.until(lambda it: it.live == [])
        watch.now += FRESH + timedelta(seconds=1)
        await watch.looked(3)
        await watch.change(name, sentiment="negative")
        await watch.looked(3)
        assert reader.rows[name]["sentiment"] is None


async def test_one_look_serves_everybody_and_nobody_looks_where_nobody_looks_on(watch):
    assert (watch.listing.asked, watch.feed.looks) == (0, 0)
    async with watch.listener("a") as one, watch.listener("b") as two, watch.listener("c") as three:
        for reader in (one, two, three):
            await reader.until(lambda it: it.live is not None)
        await watch.looked(6)
        assert watch.listing.asked <= watch.feed.looks + 1
    async with asyncio.timeout(PATIENCE_S):
        await watch.feed._looking  # it ends by itself
    assert watch.feed.listeners == 0
    asked = watch.listing.asked
    await asyncio.sleep(5 * EVERY_S)
    assert watch.listing.asked == asked


async def test_who_comes_later_is_told_of_all_that_is_there(watch):
    (name,) = await put(watch.database, row(watch.database, NOON, live=True))
    async with watch.listener("a") as one:
        await one.until(lambda it: it.live == [name])
        async with watch.listener("b") as two:
            await two.until(lambda it: it.live == [name])
            assert two.batches[0] == [name]
            assert one.batches == [[name]]


async def test_who_does_not_listen_is_told_the_last_state_once(watch):
    (name,) = await put(watch.database, row(watch.database, NOON, live=True))
    slow = watch.feed.listen("slow")
    await watch.looked(3)
    for intent in ("buy", "support", "complaint"):
        await watch.change(name, intent=intent)
        await watch.looked(2)
    assert [changed["intent"] for changed in slow.changed.values()] == ["complaint"]
    watch.feed.leave(slow)


async def test_there_is_a_limit_to_how_many_look_on_and_to_how_many_of_one_session(database):
    watch = Watch(database, most=MOST_OF_ONE + 2)
    mine = [watch.feed.listen("mine") for _ in range(MOST_OF_ONE + 1)]
    assert mine[-1] is None and None not in mine[:-1]
    others = [watch.feed.listen(f"other {n}") for n in range(3)]
    assert others[-1] is None and None not in others[:-1]
    watch.feed.leave(mine[0])
    assert watch.feed.listen("late") is not None
    for listener in tuple(watch.feed._listeners):
        watch.feed.leave(listener)
    await watch.feed._looking


async def test_it_ends_when_the_worker_drains(watch):
    async with watch.listener() as reader:
        await reader.until(lambda it: it.live is not None)
        watch.draining = True
        async with asyncio.timeout(PATIENCE_S):
            await reader.task
        assert reader.events[-1] == "over"
        assert f"retry: {feeds.LATER_MS}\n" in reader.text
    assert watch.feed.listen("late") is None


async def test_a_database_that_is_away_is_said_and_so_is_its_return(watch):
    (name,) = await put(watch.database, row(watch.database, NOON, live=True))
    async with watch.listener() as reader:
        await reader.until(lambda it: it.live == [name])
        watch.listing.broken = True
        await reader.until(lambda it: it.events[-1] == "away")
        await watch.looked(4)
        assert reader.events.count("away") == 1
        await watch.change(name, intent="buy")
        watch.listing.broken = False
        await reader.until(lambda it: it.rows[name]["intent"] == "buy")
        assert "back" in reader.events


async def test_who_may_not_stay_is_let_go(watch, monkeypatch):
    monkeypatch.setattr(feeds, "QUIET_S", 0.05)
    may = True
    async with watch.listener(stay=lambda: may) as reader:
        await reader.until(lambda it: it.text.count(":\n\n") >= 2)  # it is quiet, and may stay
        may = False
        async with asyncio.timeout(PATIENCE_S):
            await reader.task
        assert reader.events[-1] == "over"


# ---- the stream as it is served


@pytest.fixture
async def office(sqlite_url, monkeypatch):
    from app.store.engine import Database

    monkeypatch.setattr("app.web.console.calls.EVERY_S", EVERY_S)
    database = Database(sqlite_url)
    made = Office(database)
    made.house.now = int((NOON + timedelta(seconds=5)).timestamp() * 1_000)
    yield made
    await made.close()
    await database.close()


class Served:
    def __init__(self):
        self.started, self.text, self.over = None, "", False

    async def until(self, true):
        async with asyncio.timeout(PATIENCE_S):
            while not true(self):
                await asyncio.sleep(EVERY_S / 4)


@asynccontextmanager
async def served(office, browser, path="/console/calls/live"):
    """The stream as the server gets it; afterwards the browser goes away, and everything about it has ended."""
    gone, first, it = asyncio.Event(), [{"type": "http.request", "body": b"", "more_body": False}], Served()
    jar = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    address, _, query = path.partition("?")
    scope = {
        "type": "http", "method": "GET", "path": address, "raw_path": address.encode(), "query_string": query.encode(),
        "root_path": "", "scheme": "https", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("calls.example.com", 443),
        "headers": [(b"host", b"calls.example.com"), (b"cookie", jar.encode()), (b"accept", b"text/event-stream")],
    }  # fmt: skip

    async def receive():
        if first:
            return first.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            it.started = message
        else:
            it.text += message.get("body", b"").decode()
            it.over = not message.get("more_body")

    task = asyncio.create_task(office.app(scope, receive, send))
    try:
        yield it
    finally:
        gone.set()
        async with asyncio.timeout(PATIENCE_S):
            await task


async def test_the_stream_writes_rows_as_the_page_does(office):
    browser = await office.signed_in("operator")
    (name,) = await put(office.database, row(office.database, NOON, live=True, intent="<b>buy</b>"))
    async with served(office, browser) as stream:
        await stream.until(lambda it: "event: live" in it.text)
        headers = dict(stream.started["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert (
            headers[b"cache-control"] == b"no-store" and b"content-length" not in headers and headers[b"x-accel-buffering"] == b"no"
        )
        of_stream = "\n".join(line.removeprefix("data: ") for line in stream.text.splitlines() if line.startswith("data: <"))
        page = (await browser.get("/console/calls?view=all")).text
        written = page[page.index(f'<tr id="c-{name}"') :].partition("</tr>")[0]
        assert of_stream.startswith(written.splitlines()[0])
        assert "&lt;b&gt;buy" in of_stream and "<b>" not in of_stream


async def test_the_stream_of_one_agent_is_of_that_agent_and_leads_to_its_calls(office):
    browser = await office.signed_in("operator")
    (mine,) = await put(office.database, row(office.database, NOON, live=True, agent="front-desk"))
    (other,) = await put(office.database, row(office.database, NOON, live=True, agent="sales"))
    async with served(office, browser, "/console/calls/live?agent=front-desk") as stream:
        await stream.until(lambda it: "event: live" in it.text)
        assert f'id="c-{mine}"' in stream.text and f'id="c-{other}"' not in stream.text
        assert f"/console/calls/{mine}?agent=front-desk" in stream.text


async def test_to_look_on_is_no_sign_that_somebody_is_there(office):
    browser = await office.signed_in("operator")
    office.pass_(minutes=29)
    async with served(office, browser) as stream:
        await stream.until(lambda it: "event: live" in it.text)
    office.pass_(minutes=2)
    assert (await browser.get("/console/calls?view=all")).status_code == 303


async def test_who_was_signed_out_is_told_nothing_more(office, monkeypatch):
    monkeypatch.setattr(feeds, "QUIET_S", 0.05)
    browser = await office.signed_in("operator")
    async with served(office, browser) as stream:
        await stream.until(lambda it: "event: live" in it.text)
        await office.console.users.end_all(browser.user.id)
        await stream.until(lambda it: it.over)
        assert "event: over" in stream.text


async def test_where_too_many_look_on_one_is_told_to_come_back(office, monkeypatch):
    monkeypatch.setattr(feeds, "MOST_OF_ONE", 0)
    browser = await office.signed_in("operator")
    async with served(office, browser) as stream:
        await stream.until(lambda it: it.over)
        assert stream.text == f"retry: {feeds.LATER_MS}\nevent: over\ndata: \n\n"


async def test_who_does_not_read_is_cut_off_and_forgotten(monkeypatch):
    monkeypatch.setattr("app.web.console.stream.SLOWEST_S", 0.05)
    ended, closed = [], []

    async def pieces():
        try:
            while True:
                yield event("rows", "something")
        finally:
            closed.append(True)

    async def never():
        await asyncio.Event().wait()

    sent = 0

    async def send(message):
        nonlocal sent
        sent += 1
        if sent > 3:
            await never()  # the connection's buffer is full

    async with asyncio.timeout(PATIENCE_S):
        await EventStream(pieces(), ended=lambda: ended.append(True))({"type": "http", "path": "/x"}, never, send)
    assert (ended, closed) == ([True], [True])


def test_an_event_of_several_lines_is_one_event():
    assert event("rows", "a\nb", retry_ms=5) == "retry: 5\nevent: rows\ndata: a\ndata: b\n\n"
    assert event("live") == "event: live\ndata: \n\n"
