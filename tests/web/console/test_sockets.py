"""The door of a WebSocket (T43): a browser lets any page open one, and sends our cookies along."""

import asyncio

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.twilio.socket import MediaSocket
from app.web.console import session as cookies
from app.web.console.visit import NotFound
from app.web.guard import Policy, build
from app.web.sockets import GuardedHttp
from tests.web.console.matrix import knock_at_socket
from tests.web.console.office import PUBLIC

PATH = "/console/x/{call_id}/listen"
WIDE = 60


@pytest.fixture
def talks(sqlite_office):
    """The console with one socket, for reviewers. Gives what it was asked."""
    heard = []

    async def talk(visit, socket):
        heard.append((visit.user.name, visit.request.path_params["call_id"]))
        if visit.request.path_params["call_id"] == "nobody":
            raise NotFound
        if visit.request.path_params["call_id"] == "broken":
            raise ValueError("+15551234567")
        await socket.accept()
        await socket.send_text("hello")
        await socket.receive_text()

    sqlite_office.app = build([sqlite_office.console.socket(PATH, talk, Policy.REVIEWER, audits="call.listened")], https=True)
    return heard


async def test_who_may_listen_is_let_in_after_a_line_was_written(sqlite_office, talks):
    browser = await sqlite_office.signed_in("reviewer")
    sent = await knock_at_socket(sqlite_office, "/console/x/01CALL/listen", browser)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    assert talks == [("the-reviewer", "01CALL")]
    assert await sqlite_office.audit() == [("user:the-reviewer", "call.listened", "01CALL", None)]


async def test_who_may_not_is_refused_before_anything_is_said(sqlite_office, talks):
    gone = await sqlite_office.signed_in("admin", name="gone")
    await sqlite_office.console.users.end_all(gone.user.id)
    for browser in (sqlite_office.browser(), await sqlite_office.signed_in("operator"), gone):
        sent = await knock_at_socket(sqlite_office, "/console/x/01CALL/listen", browser)
        assert [message["type"] for message in sent] == ["websocket.close"]
    assert talks == []
    assert await sqlite_office.audit() == []


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ({"origin": PUBLIC}, True),
        ({"origin": PUBLIC, "sec-fetch-site": "same-origin"}, True),
        ({"origin": PUBLIC.upper().replace("HTTPS", "https")}, True),
        ({"origin": ""}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "https://evil.example", "sec-fetch-site": "same-origin"}, False),
        ({"origin": PUBLIC, "sec-fetch-site": "cross-site"}, False),
        ({"origin": PUBLIC, "sec-fetch-site": "same-site"}, False),
        ({"origin": "http://calls.example.com"}, False),
        ({"origin": "https://calls.example.com.evil.example"}, False),
        ({"origin": "https://calls.example.com:8443"}, False),
        ({"origin": "https://evil.calls.example.com"}, False),
        ({"origin": "file://"}, False),
    ],
    ids=str,
)
async def test_only_our_own_pages_open_a_socket(sqlite_office, talks, headers, let_in):
    browser = await sqlite_office.signed_in("admin")
    await knock_at_socket(sqlite_office, "/console/x/01CALL/listen", browser, **headers)
    assert bool(talks) is let_in


async def test_where_the_line_cannot_be_written_nobody_listens(sqlite_office, talks):
    browser = await sqlite_office.signed_in("admin")
    sqlite_office.break_audit()
    sent = await knock_at_socket(sqlite_office, "/console/x/01CALL/listen", browser)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert talks == []


@pytest.mark.parametrize("call", ["nobody", "broken"])
async def test_what_is_not_there_or_fails_is_closed_without_a_word(sqlite_office, talks, call, capsys):
    browser = await sqlite_office.signed_in("admin")
    sent = await knock_at_socket(sqlite_office, f"/console/x/{call}/listen", browser)
    assert [message["type"] for message in sent] == ["websocket.close"]
    printed = capsys.readouterr()
    assert "+1555" not in printed.out + printed.err


async def test_behind_the_real_server_a_refusal_is_403(sqlite_office, talks):
    browser = await sqlite_office.signed_in("admin")
    config = uvicorn.Config(
        sqlite_office.app, port=0, http=GuardedHttp, ws=MediaSocket, lifespan="off", log_config=None, proxy_headers=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(WIDE):
        while not server.started:
            await asyncio.sleep(0.01)
    url = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/console/x"
    cookie = f"{sqlite_office.console.cookies.name(cookies.SESSION)}={browser.cookie(cookies.SESSION)}"
    for call, origin, sent in (("01CALL", "https://evil.example", cookie), ("01CALL", PUBLIC, "x=y"), ("nobody", PUBLIC, cookie)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{url}/{call}/listen", additional_headers={"cookie": sent}, origin=origin, proxy=None)
        assert refused.value.response.status_code == 403
    async with connect(f"{url}/01CALL/listen", additional_headers={"cookie": cookie}, origin=PUBLIC, proxy=None) as socket:
        async with asyncio.timeout(WIDE):
            assert await socket.recv() == "hello"
    server.should_exit = True
    async with asyncio.timeout(WIDE):
        await serving
