"""Deliveries by HTTP against a server that verifies, counts and misbehaves; and when the next attempt is."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.store.calls import Calls
from app.store.deliveries import Deliveries, Delivery, DeliveryKind, NewDelivery, post
from app.store.engine import Database
from app.wrapup.delivering import NOT_CONFIGURED, Delivering
from app.wrapup.posting import Sent, retry_after
from tests.store.shelf import Clock, new_call
from tests.wrapup.receivers import Answer, authority, drips, hangs, is_reset, receiving, says
from tests.wrapup.rows import SECRETS, all_destinations, settings

WIDE_S = 30.0
BODY = '{"type":"call.finished","data":{"name":"Zoë"}}'


class Desk:
    """One delivery, and what was recorded of it."""

    def __init__(self, kind: DeliveryKind = DeliveryKind.WEBHOOK, body: str = BODY) -> None:
        now = datetime.now(UTC)
        self.delivery: Delivery | None = Delivery(
            id="01HZZZZZZZZZZZZZZZZZZZZZZZ",
            call_id="01HYYYYYYYYYYYYYYYYYYYYYYY",
            kind=kind,
            destination="crm",
            event="call.finished",
            revision=1,
            body=body,
            attempts=0,
            created_at=now,
            next_attempt_at=now,
        )

    async def pending(self, delivery_id: str) -> Delivery | None:
        return self.delivery if self.delivery is not None and self.delivery.id == delivery_id else None

    async def record(self, *_: Any, **__: Any) -> bool:
        raise AssertionError("nothing is recorded here")


async def attempt(of: Settings, kind: DeliveryKind = DeliveryKind.WEBHOOK, body: str = BODY, **options: Any) -> dict[str, Any]:
    desk = Desk(kind, body)
    assert desk.delivery is not None
    return await Delivering(desk, of, **({"limit_s": WIDE_S} | options)).send(desk.delivery.id)


async def webhook(*answers: Answer, **options: Any) -> dict[str, Any]:
    """What comes of an attempt at a receiver that answers so."""
    async with receiving() as receiver:
        receiver.will(*answers)
        return await attempt(settings(**all_destinations(receiver.url)), **options)


# ---- one attempt


@pytest.mark.parametrize("secret", SECRETS)
async def test_a_webhook_is_signed_by_every_secret_to_the_byte_that_is_sent(secret: str):
    async with receiving(secret) as receiver:
        receiver.will(says(204))
        sent = await attempt(settings(**all_destinations(receiver.url)))
    (request,) = receiver.requests
    assert sent == {"status": 204, "fault": None, "retry_after_s": None, "final": False}
    assert (request.line, receiver.refused) == ("POST /hook?token=t HTTP/1.1", 0)
    assert request.body == BODY.encode()
    assert request.headers["webhook-id"] == request.headers["idempotency-key"] == "01HZZZZZZZZZZZZZZZZZZZZZZZ"
    assert request.headers["content-type"] == "application/json"
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < WIDE_S


async def test_a_receiver_with_another_secret_takes_nothing():
    async with receiving("whsec_" + "Q0ND" * 8) as receiver:
        receiver.will(says(401))
        sent = await attempt(settings(**all_destinations(receiver.url)))
    assert (sent["status"], sent["fault"], receiver.refused, receiver.taken) == (401, "refused", 1, {})


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (says(200, b"fine"), Sent(status=200)),
        (says(299), Sent(status=299)),
        (says(500), Sent(status=500, fault="refused")),
        (says(404), Sent(status=404, fault="refused")),
        (says(410), Sent(status=410, fault="refused", final=True)),
        (says(429, retry_after="17"), Sent(status=429, fault="refused", retry_after_s=17.0)),
        (says(503, retry_after="soon"), Sent(status=503, fault="refused")),
        (drips(b"HTTP/1.1 " + b"9" * 200_000, b"9"), Sent(fault="RemoteProtocolError")),
        (drips(b"not http at all\r\n\r\n", b""), Sent(fault="RemoteProtocolError")),
    ],
)
async def test_the_status_decides(answer: Answer, sent: Sent):
    assert await webhook(answer) == sent.json_ready()


async def test_a_connection_that_breaks_is_no_answer():
    sent = await webhook(is_reset())
    assert (sent["status"], sent["final"]) == (None, False)
    assert sent["fault"] in ("ReadError", "RemoteProtocolError")  # as the kernel happens to say it


async def test_no_redirect_is_followed():
    async with receiving() as elsewhere:
        elsewhere.will(says(200))
        sent = await webhook(says(301, location=elsewhere.url), says(200))
        assert (sent["status"], sent["fault"], sent["final"]) == (301, "redirected", False)
        assert elsewhere.requests == []


@pytest.mark.parametrize("answer", [hangs(), drips(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")])
async def test_a_peer_that_hangs_or_drips_is_left_after_the_limit(answer: Answer):
    async with asyncio.timeout(WIDE_S):
        assert await webhook(answer, limit_s=0.3) == Sent(fault="timeout").json_ready()


async def test_an_answer_that_never_ends_was_an_answer_and_little_of_it_is_read():
    async with asyncio.timeout(WIDE_S):
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"
        assert await webhook(drips(head, b"x" * 16_384)) == Sent(status=200).json_ready()
        assert await webhook(drips(head, b""), limit_s=0.3) == Sent(status=200).json_ready()


async def test_nobody_is_there():
    async with receiving() as receiver:
        url = receiver.url
    assert await attempt(settings(**all_destinations(url))) == Sent(fault="ConnectError").json_ready()


async def test_an_answers_cookie_is_not_brought_back():
    async with receiving() as receiver:
        receiver.will(says(200, set_cookie="a=b"))
        desk = Desk()
        delivering = Delivering(desk, settings(**all_destinations(receiver.url)), limit_s=WIDE_S)
        for _ in range(2):
            await delivering.send("01HZZZZZZZZZZZZZZZZZZZZZZZ")
    assert [request.headers.get("cookie") for request in receiver.requests] == [None, None]


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await webhook(says(200)))["fault"] is None


async def test_tls_is_verified(tmp_path: Path):
    ours = authority(tmp_path)
    async with receiving(tls=ours.server()) as receiver:
        receiver.will(says(200))
        to = settings(**all_destinations(receiver.url))
        assert (await attempt(to))["fault"] == "ConnectError"
        assert receiver.requests == []
        assert (await attempt(to, tls=ours.client))["fault"] is None


async def test_a_chat_gets_the_text_and_no_signature():
    async with receiving() as receiver:
        receiver.will(says(200, b"ok"))
        sent = await attempt(settings(**all_destinations(chat=receiver.url)), DeliveryKind.CHAT, '{"text":"a call"}')
    (request,) = receiver.requests
    assert (sent["fault"], json.loads(request.body)) == (None, {"text": "a call"})
    assert not {"webhook-signature", "webhook-id"} & set(request.headers)


@pytest.mark.parametrize("kind", list(DeliveryKind))
async def test_a_destination_that_is_no_longer_configured_is_asked_for_slowly(kind: DeliveryKind):
    sent = await attempt(settings(), kind)
    assert (sent["fault"], sent["final"]) == (NOT_CONFIGURED, False)
    assert sent["retry_after_s"] >= 3_600


async def test_what_is_no_longer_pending_is_not_sent():
    desk = Desk()
    desk.delivery = None
    delivering = Delivering(desk, settings(**all_destinations("http://127.0.0.1:9/")))
    assert await delivering.send("01HZZZZZZZZZZZZZZZZZZZZZZZ") == {"nothing": True}
    await delivering.record("01HZZZZZZZZZZZZZZZZZZZZZZZ", 1, {"nothing": True})


# ---- the law of repetition


def law(clock: Clock, dice: Callable[[], float] = lambda: 0.0, **env: str) -> Delivering:
    return Delivering(Desk(), settings(**env), clock=clock, dice=dice)


def test_pauses_grow_from_seconds_to_half_a_day_until_the_days_are_over():
    clock = Clock()
    born, delivering, pauses = clock.now, law(clock), []
    for number in range(1, 100):
        again = delivering.again_at(born, number, Sent(fault="timeout"))
        if again is None:
            break
        pauses.append((again - clock.now).total_seconds())
        clock.now = again
    assert pauses[:10] == [5, 60, 300, 1_800, 7_200, 18_000, 36_000, 43_200, 43_200, 43_200]
    assert clock.now == born + timedelta(days=3), "the last attempt is at the very end"
    assert len(pauses) == 12


def test_a_crowd_does_not_come_back_as_a_crowd():
    clock = Clock()
    delivering = law(clock, iter([throw / 10 for throw in range(11)]).__next__)
    times = {delivering.again_at(clock.now, 4, Sent(fault="timeout")) for _ in range(11)}
    pauses = sorted((moment - clock.now).total_seconds() for moment in times if moment is not None)
    assert len(pauses) == 11
    assert (pauses[0], pauses[-1]) == (1_800, 2_160)


@pytest.mark.parametrize(
    ("asked", "pause"), [(None, 60), (0.0, 60), (30.0, 60), (600.0, 600), (3_600.0 * 6, 21_600), (10.0**9, 21_600)]
)
def test_a_peer_is_given_the_time_it_asks_for_and_never_makes_us_hurry(asked: float | None, pause: float):
    clock = Clock()
    again = law(clock).again_at(clock.now, 2, Sent(status=429, fault="refused", retry_after_s=asked))
    assert again == clock.now + timedelta(seconds=pause)


@pytest.mark.parametrize(
    ("sent", "age"),
    [
        (Sent(status=410, fault="refused", final=True), timedelta()),
        (Sent(fault="timeout"), timedelta(days=3)),
        (Sent(fault="timeout"), timedelta(days=30)),
        (Sent(status=429, fault="refused", retry_after_s=600.0), timedelta(days=3, minutes=-5)),
    ],
)
def test_there_is_an_end(sent: Sent, age: timedelta):
    clock = Clock()
    assert law(clock).again_at(clock.now - age, 3, sent) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("", None), ("7", 7.0), ("1.5", 1.5), ("-1", None), ("inf", None), ("nan", None), ("tomorrow", None)],
)
def test_a_pause_is_asked_for_in_seconds(value: str | None, seconds: float | None):
    assert retry_after(value) == seconds


def test_a_pause_is_asked_for_by_a_date():
    there = retry_after(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True))
    assert there is not None
    assert 3_500 < there <= 3_600
    assert retry_after("Fri, 20 Nov 2020 09:00:00 GMT") == 0.0


# ---- through the store


async def waiting(database: Database, clock: Clock) -> str:
    """A delivery that is due."""
    state, _ = await Calls(database, clock=clock).born(new_call())
    new = NewDelivery(kind=DeliveryKind.WEBHOOK, destination="crm", event="call.finished", revision=1, body=BODY)
    async with database.write() as connection:
        await post(connection, database, state.call_id, [new], clock.now)
    ((delivery_id, number),) = await Deliveries(database, clock=clock).due(10)
    assert number == 1
    return delivery_id


async def test_whatever_goes_wrong_on_the_way_it_is_in_effect_once(database: Database):
    clock = Clock()
    clock.now = datetime.now(UTC)  # the receiver checks the time of the signature by its own clock
    delivery_id = await waiting(database, clock)
    deliveries = Deliveries(database, clock=clock)
    async with receiving(SECRETS[1]) as receiver:
        # It takes the message, and breaks before it can say so, twice.
        receiver.will(is_reset(), says(500), says(200))
        to = settings(**all_destinations(receiver.url))
        for number in (1, 2, 3):
            delivering = Delivering(deliveries, to, clock=clock, dice=lambda: 0.0, limit_s=WIDE_S)
            assert await deliveries.due(10) == [(delivery_id, number)]
            sent = await delivering.send(delivery_id)
            for _ in range(2):  # a worker that dies after it recorded records again
                await delivering.record(delivery_id, number, sent)
            (line,) = await deliveries.list()
            if number < 3:
                assert (line["state"], line["attempts"]) == ("pending", number)
                clock.now = datetime.fromisoformat(line["next_attempt_at"])
        assert (line["state"], line["attempts"], line["last_status"], line["last_fault"]) == ("delivered", 3, 200, None)
        assert await delivering.send(delivery_id) == {"nothing": True}
    assert len({request.body for request in receiver.requests}) == 1
    assert (len(receiver.requests), receiver.refused, list(receiver.taken)) == (3, 0, [delivery_id])


async def test_a_dead_delivery_is_seen_and_sent_again_by_a_person_as_the_same_message(database: Database):
    clock = Clock()
    clock.now = datetime.now(UTC)
    delivery_id = await waiting(database, clock)
    deliveries = Deliveries(database, clock=clock)
    async with receiving(SECRETS[0]) as receiver:
        receiver.will(says(410), says(200))
        delivering = Delivering(deliveries, settings(**all_destinations(receiver.url)), clock=clock, limit_s=WIDE_S)
        await delivering.record(delivery_id, 1, await delivering.send(delivery_id))
        assert await deliveries.counts() == {"pending": 0, "delivered": 0, "dead": 1}
        assert await deliveries.due(10) == []
        assert await deliveries.resend(delivery_id, "beatrix")
        assert await deliveries.due(10) == [(delivery_id, 2)]
        await delivering.record(delivery_id, 2, await delivering.send(delivery_id))
    assert await deliveries.counts() == {"pending": 0, "delivered": 1, "dead": 0}
    assert [request.headers["webhook-id"] for request in receiver.requests] == [delivery_id, delivery_id]
