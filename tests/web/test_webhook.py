"""Who may knock, and what is answered when something breaks. Not about the store: on SQLite alone."""

import asyncio
import sqlite3
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from app.errors import StoreUnavailable
from app.web import sentences, webhook
from tests.web.house import POSTS, PUBLIC, SID, STANDARD, TOKEN, House, sign


@pytest.fixture
async def house(sqlite_house):
    return sqlite_house


# ---- who may come in

BAD_SIGNATURES = {
    "missing": [],
    "empty": [""],
    "wrong": ["A" * 27 + "="],
    "not base64": ["\xff" * 28],
    "two": None,
    "another token": None,
    "another address": None,
}


def bad_signatures(kind, path):
    right = sign(f"{PUBLIC}/twilio/{path}", STANDARD.items())
    match kind:
        case "two":
            return [right, right]
        case "another token":
            return [sign(f"{PUBLIC}/twilio/{path}", STANDARD.items(), "another")]
        case "another address":
            return [sign(f"https://evil.example/twilio/{path}", STANDARD.items())]
    return BAD_SIGNATURES[kind]


@pytest.mark.parametrize("kind", BAD_SIGNATURES)
async def test_without_a_right_signature_nothing_is_touched(house, kind):
    for path in POSTS:
        answer = await house.knock(path, signatures=bad_signatures(kind, path), headers=[("host", "evil.example")])
        assert answer.status_code == 403, path
    assert house.calls.asked == []
    assert house.board.asked == []
    assert await house.count() == 0


async def test_a_get_is_405_even_with_a_right_signature(house):
    for path in POSTS:
        answer = await house.knock(path, method="GET", signatures=[sign(f"{PUBLIC}/twilio/{path}", ())], content="")
        assert answer.status_code == 405, path
    assert house.calls.asked == []


async def test_another_account_is_refused_although_it_signs(house):
    for path in POSTS:
        for account in ("AC" + "9" * 32, "", None):
            assert (await house.knock(path, AccountSid=account)).status_code == 403
    assert house.calls.asked == []


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "multipart/form-data; boundary=x", "text/plain", "", "application/x-www-form-urlencoded; charset=latin-1"],
)
async def test_only_a_form_is_read(house, content_type):
    signature = sign(f"{PUBLIC}/twilio/voice", STANDARD.items())
    headers = {"content-type": content_type, "x-twilio-signature": signature}
    answer = await house.client.post("/twilio/voice", content=urlencode(STANDARD), headers=headers)
    assert answer.status_code == 403
    assert house.calls.asked == []


@pytest.mark.parametrize("body", [b"\xff=1", b"a=%ff", b"&".join(b"a%d=1" % n for n in range(600)), b""])
async def test_a_body_that_cannot_be_what_was_signed_is_refused(house, body):
    assert (await house.knock("voice", content=body)).status_code == 403


async def test_a_field_that_is_read_must_not_stand_there_twice(house):
    other = "CA" + "2" * 32
    pairs = [*STANDARD.items(), ("CallSid", other)]
    answer = await house.knock("voice", signatures=[sign(f"{PUBLIC}/twilio/voice", pairs)], content=urlencode(pairs))
    assert answer.status_code == 400
    assert await house.count() == 0


async def test_an_unknown_field_may_stand_there_twice(house):
    pairs = [*STANDARD.items(), ("AddOn", "a"), ("AddOn", "b")]
    answer = await house.knock("voice", signatures=[sign(f"{PUBLIC}/twilio/voice", pairs)], content=urlencode(pairs))
    assert answer.status_code == 200


@pytest.mark.parametrize("sid", [None, "", "CA1", "MZ" + "1" * 32, SID + "'; DROP TABLE calls"])
async def test_a_call_without_a_sid_is_none_of_the_carriers(house, sid):
    for path in ("voice", "resume?epoch=1", "status", "fallback"):
        assert (await house.knock(path, CallSid=sid)).status_code == 400
    assert await house.count() == 0


@pytest.mark.parametrize("host", ["evil.example", "calls.example.com.evil.example", "127.0.0.1", "a" * 300, "calls.example.com:1"])
async def test_the_host_header_never_shows_in_an_answer(house, host):
    answer = await house.knock("voice", headers=[("host", host), ("x-forwarded-host", host), ("x-forwarded-proto", "http")])
    assert answer.status_code == 200
    urls = [
        value
        for it in ElementTree.fromstring(answer.content).iter()
        for value in (*it.attrib.values(), it.text or "")
        if "//" in value
    ]
    assert len(urls) == 4
    assert all(url.startswith((PUBLIC, "wss://calls.example.com/twilio/media")) for url in urls)


async def test_while_a_token_is_rotated_both_sign(house):
    house = House(house.database, TWILIO_AUTH_TOKEN="new, old")
    for number, (token, status) in enumerate((("new", 200), ("old", 200), (TOKEN, 403))):
        assert (await house.knock("voice", token=token, CallSid="CA" + str(number) * 32)).status_code == status


# ---- when something breaks


@pytest.mark.parametrize("path", ["voice", "fallback"])
@pytest.mark.parametrize("fault", [StoreUnavailable("make the call's row"), RuntimeError("secret +15551230000"), KeyError("x")])
async def test_whatever_breaks_the_caller_hears_a_sentence(house, path, fault):
    house.calls.broken = fault
    document = await house.twiml(path)
    assert document.verbs == ["Say", "Hangup"]
    assert document.said == sentences.OUT_OF_ORDER


async def test_a_database_that_hangs_does_not_keep_the_caller_waiting(house, monkeypatch):
    monkeypatch.setattr(webhook, "PATIENCE_S", 0.05)
    never = asyncio.Event()

    async def hang(*_):
        await never.wait()

    monkeypatch.setattr(house.calls, "born", hang, raising=False)
    assert (await house.twiml("voice")).said == sentences.OUT_OF_ORDER


async def test_a_database_that_was_locked_for_a_while_serves_the_next_caller(house, sqlite_url, monkeypatch):
    monkeypatch.setattr(webhook, "PATIENCE_S", 0.3)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for number in range(3):
        assert (await house.twiml("voice", CallSid=f"CA{number:032d}")).said == sentences.OUT_OF_ORDER
    other.execute("ROLLBACK")
    other.close()
    monkeypatch.undo()
    assert (await house.twiml("voice")).stream
    assert (await house.row())["state"] == "live"


async def test_what_breaks_is_logged_without_words_of_the_request(house, capsys):
    house.calls.broken = RuntimeError("secret +15551230000")
    await house.twiml("voice")
    logged = capsys.readouterr()
    assert "RuntimeError" in logged.out + logged.err
    assert "secret" not in logged.out + logged.err
    assert "5551230000" not in logged.out + logged.err


async def test_a_callback_that_cannot_be_kept_is_told_so(house):
    house.calls.broken = StoreUnavailable("take in a carrier's status")
    assert (await house.knock("status", CallStatus="completed")).status_code == 503
    house.calls.broken = RuntimeError("x")
    assert (await house.knock("status", CallStatus="completed")).status_code == 500


# ---- the media socket

SOCKET = "wss://calls.example.com/twilio/media"


def socket(house, signature=None):
    client = TestClient(house.app)
    return client.websocket_connect("/twilio/media", headers={} if signature is None else {"x-twilio-signature": signature})


def test_the_media_socket_is_handed_on_with_a_right_signature_and_without_one(migrated_sqlite):
    house = House(None)
    for signature in (sign(SOCKET, ()), sign(SOCKET + "/", ()), None):
        with socket(house, signature):
            pass
    assert house.board.asked == [("media", "/twilio/media")] * 3


@pytest.mark.parametrize(
    "signature", ["", "A" * 27 + "=", sign("https://calls.example.com/twilio/media", ()), sign(SOCKET, (), "other")]
)
def test_a_wrong_signature_is_refused_before_the_socket_opens(signature):
    house = House(None)
    with pytest.raises(Exception) as refused, socket(house, signature):
        pass
    assert getattr(refused.value, "code", None) == 1008 or isinstance(refused.value, WebSocketDenialResponse)
    assert house.board.asked == []


def test_a_missing_signature_is_refused_where_the_setting_asks_for_one():
    house = House(None, TWILIO_REQUIRE_STREAM_SIGNATURE="true")
    with pytest.raises(Exception) as refused, socket(house):
        pass
    assert refused.value.code == 1008
    assert house.board.asked == []
    with socket(house, sign(SOCKET, ())):
        pass
    assert house.board.asked == [("media", "/twilio/media")]
