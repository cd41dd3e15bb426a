"""What stands before every door: no route without a policy, no body without a limit, headers on every answer."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from app.web import guard
from app.web.guard import BodyGuard, Policy, SafeHeaders, Unguarded
from tests.web.house import PUBLIC, STANDARD, House, sign


@pytest.fixture
async def house(sqlite_house):
    return sqlite_house


class Open:
    policy = Policy.PUBLIC

    async def __call__(self, scope, receive, send):
        await PlainTextResponse("open")(scope, receive, send)


class Thoughtless:
    async def __call__(self, scope, receive, send):
        raise AssertionError("never built")


async def handler(request):
    raise AssertionError("never built")


# ---- the route table


def test_a_route_without_a_policy_stops_the_start():
    routes = [
        Route("/open", Open()),
        Route("/class", Thoughtless()),
        Route("/function", handler),
        WebSocketRoute("/socket", Thoughtless()),
        Mount("/under", routes=[Route("/deep", handler), Route("/fine", Open())]),
        Mount("/app", app=Starlette(routes=[Route("/x", handler)])),
        Mount("/files", app=Thoughtless()),
    ]
    with pytest.raises(Unguarded) as unguarded:
        guard.build(routes, https=True)
    assert unguarded.value.paths == ("/class", "/function", "/socket", "/under/deep", "/app/x", "/files")
    assert "/under/deep" in str(unguarded.value)


def test_a_policy_is_one_of_ours_and_not_just_any_word():
    class Sloppy(Thoughtless):
        policy = "public"

    with pytest.raises(Unguarded):
        guard.build([Route("/x", Sloppy())], https=True)


def test_every_door_of_the_house_says_who_may_come_in():
    house = House(None)
    found = dict(guard.policies(house.routes))
    assert found == {
        "/twilio/voice": Policy.SIGNED,
        "/twilio/resume": Policy.SIGNED,
        "/twilio/fallback": Policy.SIGNED,
        "/twilio/left": Policy.SIGNED,
        "/twilio/status": Policy.SIGNED,
        "/twilio/stream-status": Policy.SIGNED,
        "/twilio/media": Policy.SIGNED_UPGRADE,
        "/health/live": Policy.PUBLIC,
        "/health/ready": Policy.PUBLIC,
    }


async def test_every_signed_route_of_the_table_refuses_what_is_not_signed(house):
    signed = [path for path, policy in guard.policies(house.routes) if policy is Policy.SIGNED]
    assert len(signed) == 6
    for path in signed:
        for method in ("POST", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
            answer = await house.client.request(method, path)
            assert answer.status_code == (403 if method == "POST" else 405), (method, path)
    assert house.calls.asked == []


async def test_a_path_is_exact_or_it_is_no_path(house):
    for path in ("voice/", "/voice", "Voice", "voice%2F", ""):
        answer = await house.knock(path)
        assert answer.status_code == 404, path
    assert house.calls.asked == []


async def test_an_encoded_path_is_signed_as_it_was_sent(house):
    right = sign(f"{PUBLIC}/twilio/voice", STANDARD.items())
    assert (await house.knock("%76oice", signatures=[right])).status_code == 403
    assert (await house.knock("%76oice")).status_code == 200


# ---- headers


async def test_every_answer_bears_the_headers(house):
    answers = [
        await house.knock("voice"),
        await house.knock("voice", signatures=[]),
        await house.client.get("/nowhere"),
        await house.client.get("/health/live"),
        await house.client.post("/twilio/voice", content=b"x" * 70_000),
    ]
    assert [answer.status_code for answer in answers] == [200, 403, 404, 200, 413]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["strict-transport-security"].startswith("max-age=")


async def sent_by(app, scope=None, *messages):
    inbox, sent = list(messages), []

    async def receive():
        return inbox.pop(0)

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/", "headers": [], **(scope or {})}, receive, send)
    return sent


async def test_a_door_that_sets_a_header_itself_keeps_its_own():
    async def own(scope, receive, send):
        await PlainTextResponse("x", headers={"Cache-Control": "private"})(scope, receive, send)

    start, *_ = await sent_by(SafeHeaders(own))
    assert [value for name, value in start["headers"] if name == b"cache-control"] == [b"private"]


def test_over_plain_http_no_browser_is_told_to_insist_on_https():
    assert guard.STRICT_TRANSPORT not in SafeHeaders(Open())._headers


# ---- bodies


def chunk(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


async def echo(scope, receive, send):
    message = await receive()
    assert message["more_body"] is False
    await PlainTextResponse(message["body"] + b"|" + (await receive())["type"].encode())(scope, receive, send)


async def test_a_body_arrives_whole_and_what_comes_after_it_too():
    gone = {"type": "http.disconnect"}
    _, body = await sent_by(BodyGuard(echo), None, chunk(b"ab"), chunk(b""), chunk(b"c", more=False), gone)
    assert body["body"] == b"abc|http.disconnect"


@pytest.mark.parametrize("size", [63, 64, 65])
async def test_the_limit_is_exact(size):
    gone = {"type": "http.disconnect"}
    start, *_ = await sent_by(BodyGuard(echo, limit=64), None, chunk(b"x" * 40), chunk(b"x" * (size - 40), more=False), gone)
    assert start["status"] == (413 if size > 64 else 200)


@pytest.mark.parametrize("length", [b"65", b"9" * 5_000, b"-1", b"x", b""])
async def test_a_length_that_is_too_much_or_none_is_refused_before_anything_is_read(length):
    start, *_ = await sent_by(BodyGuard(echo, limit=64), {"headers": [(b"content-length", length)]})
    assert start["status"] == 413
    assert (b"connection", b"close") in start["headers"]


async def test_who_leaves_in_the_middle_is_let_go():
    assert await sent_by(BodyGuard(echo), None, chunk(b"ab"), {"type": "http.disconnect"}) == []


async def test_a_body_that_does_not_come_is_not_waited_for():
    async def never():
        await asyncio.Event().wait()

    sent = []

    async def send(message):
        sent.append(message)

    await BodyGuard(echo, seconds=0.01)({"type": "http", "method": "POST", "path": "/", "headers": []}, never, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_door_that_is_slow_itself_is_not_cut_by_the_bodys_deadline():
    async def slow(scope, receive, send):
        await receive()
        await asyncio.sleep(0.2)
        await PlainTextResponse("done")(scope, receive, send)

    start, *_ = await sent_by(BodyGuard(slow, seconds=0.05), None, chunk(b"", more=False))
    assert start["status"] == 200


async def test_a_websocket_passes_by():
    seen = []

    async def socket(scope, receive, send):
        seen.append((scope["type"], receive, send))

    async def receive():
        raise AssertionError("not the guard's to read")

    async def send(_):
        raise AssertionError("not the guard's to write")

    await SafeHeaders(BodyGuard(socket))({"type": "websocket"}, receive, send)
    assert seen == [("websocket", receive, send)]
