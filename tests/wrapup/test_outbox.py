"""What is told, to whom: pure, and then through the store's own transaction."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.policy import SMTP
from typing import Any

import pytest

from app.store.after_tables import DeliveryKind
from app.store.deliveries import Deliveries, NewDelivery
from app.store.engine import Database
from app.wrapup import mailing
from app.wrapup.outbox import compact, outbox
from tests.store.shelf import Clock
from tests.wrapup.rows import all_destinations, finished, read, row_of, settings

ALL = all_destinations() | {"ALERTS": "escalation,callback,urgent"}
STARTED = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)


@pytest.fixture
def row() -> dict[str, Any]:
    """A finished row as `Calls.row()` gives it, on which nobody needs to act."""
    ended = STARTED + timedelta(minutes=2)
    moments = {
        "started_at": STARTED,
        "answered_at": STARTED,
        "ended_at": ended,
        "finished_at": ended,
        "analyzed_at": ended + timedelta(seconds=5),
        "updated_at": ended + timedelta(seconds=6),
    }
    return {
        **{name: moment.isoformat() for name, moment in moments.items()},
        "call_id": "01HZZZZZZZZZZZZZZZZZZZZZZZ",
        "revision": 2,
        "channel": "phone",
        "direction": "inbound",
        "from_number": "+15550100001",
        "agent": "front-desk",
        "agent_path": ["front-desk"],
        "outcome": "completed",
        "end_reason": "agent_ended",
        "disposition": "information_given",
        "summary": "Wants to know\r\nBcc: everyone@example.com <b>now</b>",
        "next_action": None,
        "urgency": "normal",
        "escalated": False,
        "escalation_reason": None,
        "slots": {"name": {"value": "@channel Bob <!here>", "source": "agent"}},
        "needs_review": False,
        "analysis": "done",
        "turns": 3,
        "barge_ins": 0,
        "judged": {},
        "utterances": [],
    }


def told(row: dict[str, Any], event: str = "call.finished", **env: str) -> list[NewDelivery]:
    return list(outbox(settings(**(ALL | env)))(row, event))


def to_people(row: dict[str, Any], **env: str) -> dict[tuple[str, str], dict[str, str]]:
    return {(new.kind.value, new.event): json.loads(new.body) for new in told(row, **env) if new.kind is not DeliveryKind.WEBHOOK}


def test_where_nothing_is_configured_nothing_is_told(row: dict[str, Any]):
    assert list(outbox(settings())(row | {"escalated": True}, "call.finished")) == []


@pytest.mark.parametrize(("event", "when"), [("call.finished", "analyzed_at"), ("call.changed", "updated_at")])
def test_the_crm_gets_the_whole_row_for_every_event(row: dict[str, Any], event: str, when: str):
    (new,) = told(row, event)
    assert (new.kind, new.destination, new.event, new.revision) == (DeliveryKind.WEBHOOK, "crm", event, 2)
    body = json.loads(new.body)
    assert (body["type"], body["timestamp"]) == (event, body["data"][when])
    assert datetime.fromisoformat(body["timestamp"]) == datetime.fromisoformat(row[when])
    assert body["data"]["call_id"] == row["call_id"]
    assert new.body == compact(body), "no byte that is not needed"
    assert "\n" not in new.body


def test_a_row_that_could_not_be_read_is_told_all_the_same(row: dict[str, Any]):
    (new,) = told(row | {"analysis": "failed", "analyzed_at": None})
    assert datetime.fromisoformat(json.loads(new.body)["timestamp"]) == datetime.fromisoformat(row["updated_at"])


@pytest.mark.parametrize(
    ("change", "event"),
    [
        ({"escalated": True}, "alert.escalation"),
        ({"disposition": "callback_requested"}, "alert.callback"),
        ({"disposition": "message_taken"}, "alert.callback"),
        ({"outcome": "turned_away", "slots": {"callback_number": {"value": "+15550100001"}}}, "alert.callback"),
        ({"urgency": "high"}, "alert.urgent"),
    ],
)
def test_people_are_told_by_rule_by_mail_and_chat(row: dict[str, Any], change: dict[str, Any], event: str):
    alerts = [new for new in told(row | change) if new.kind is not DeliveryKind.WEBHOOK]
    assert [(new.kind.value, new.destination, new.event, new.revision) for new in alerts] == [
        ("mail", "people", event, 0),
        ("chat", "people", event, 0),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"outcome": "turned_away"},
        {"outcome": "turned_away", "slots": {"callback_number": {"value": None}}},
        {"slots": {"callback_number": {"value": "+15550100001"}}},
        {"slots": None, "disposition": None, "urgency": None},
    ],
)
def test_nobody_is_told_of_a_call_on_which_nobody_needs_to_act(row: dict[str, Any], change: dict[str, Any]):
    assert to_people(row | change) == {}


def test_a_call_may_meet_several_rules(row: dict[str, Any]):
    met = to_people(row | {"escalated": True, "disposition": "message_taken", "urgency": "high"})
    assert len(met) == 6


@pytest.mark.parametrize(
    ("env", "events"),
    [
        ({"ALERTS": "none"}, set()),
        ({"ALERTS": "urgent"}, {"alert.urgent"}),
        ({"SMTP_URL": "", "CHAT_WEBHOOK_URL": ""}, set()),
    ],
)
def test_only_what_is_configured_is_told(row: dict[str, Any], env: dict[str, str], events: set[str]):
    assert {event for _, event in to_people(row | {"escalated": True, "urgency": "high"}, **env)} == events


def test_an_old_call_that_is_read_anew_alarms_nobody_and_the_crm_hears_of_it(row: dict[str, Any]):
    later = {"updated_at": (STARTED + timedelta(days=4)).isoformat()}
    (only,) = told(row | {"escalated": True, "urgency": "high"} | later, "call.changed")
    assert only.destination == "crm"


def test_an_alert_without_details_says_which_call_and_why_and_nothing_that_was_said(row: dict[str, Any]):
    row |= {"escalated": True, "escalation_reason": "threat, my name is Bob, left_angry", "next_action": "Call Bob."}
    (mail, chat) = to_people(row, BUSINESS_TIMEZONE="Europe/Berlin").values()
    assert mail["subject"] == "Callrow: a person should look at a call"
    assert mail["text"].splitlines() == [
        "Call:     01HZZZZZZZZZZZZZZZZZZZZZZZ",
        "Time:     2026-11-20 23:30 (Europe/Berlin)",
        "Rule:     escalation",
        "Concerns: threat, left_angry",
        "",
        "https://calls.example.com/console/calls/01HZZZZZZZZZZZZZZZZZZZZZZZ",
    ]
    assert chat["text"].splitlines()[-1] == "https://calls.example.com/console/calls/01HZZZZZZZZZZZZZZZZZZZZZZZ"
    for private in ("Bob", "5550100001", "Wants"):
        assert private not in json.dumps([mail, chat])


def test_an_alert_with_details_is_a_line_for_each_and_marks_nothing_up(row: dict[str, Any]):
    (mail, chat) = to_people(row | {"escalated": True}, ALERT_DETAILS="full").values()
    assert mail["subject"] == "Callrow: a person should look at a call"
    assert "Name:         @channel Bob <!here>" in mail["text"].splitlines()
    assert "Summary:      Wants to know Bcc: everyone@example.com <b>now</b>" in mail["text"].splitlines()
    assert "Name: @\u200bchannel Bob &lt;!here&gt;" in chat["text"].splitlines()
    assert "<" not in chat["text"]


def test_no_word_of_a_callers_becomes_a_header(row: dict[str, Any]):
    (mail, _) = to_people(row | {"escalated": True}, ALERT_DETAILS="full").values()
    hostile = "Hello\r\nBcc: everyone@example.com\r\n\r\nBody\x00\u2028X: 1"
    for subject in (mail["subject"], hostile):
        letter = mailing.message(
            sender="callrow@example.com",
            to=("a@example.com", "b@example.com"),
            subject=subject,
            text=mail["text"],
            message_id="01HZZZZZZZZZZZZZZZZZZZZZZZ",
            at=STARTED,
        )
        head = letter.as_bytes(policy=SMTP).split(b"\r\n\r\n", 1)[0]
        names = [line.split(b":")[0].lower() for line in head.split(b"\r\n") if line[:1] not in b" \t"]
        assert sorted(names) == [
            *(b"auto-submitted", b"content-transfer-encoding", b"content-type", b"date", b"from", b"message-id"),
            *(b"mime-version", b"subject", b"to"),
        ]
        assert letter["Message-ID"] == "<01HZZZZZZZZZZZZZZZZZZZZZZZ@example.com>"


def test_what_is_no_character_costs_no_delivery():
    assert compact({"a": "b\ud800c", "d": "é"}) == '{"a":"b?c","d":"é"}'


async def test_a_row_is_told_in_its_own_transaction_and_people_once_however_often_it_changes(database: Database):
    clock = Clock()
    rules: Callable[..., Any] = outbox(settings(**ALL))
    call_id = await finished(database, clock=clock)
    judgements = await read(database, call_id, outbox=rules, clock=clock)
    clock.pass_(minutes=1)
    assert await judgements.correct(call_id, "escalation", False, by="beatrix")
    clock.pass_(minutes=1)
    assert await judgements.correct(call_id, "escalation", True, by="beatrix")
    row = await row_of(database, call_id)
    listed = await Deliveries(database, clock=clock).list()
    assert sorted((each["kind"], each["event"], each["revision"]) for each in listed) == [
        ("chat", "alert.callback", 0),
        ("chat", "alert.escalation", 0),
        ("mail", "alert.callback", 0),
        ("mail", "alert.escalation", 0),
        ("webhook", "call.changed", 3),
        ("webhook", "call.changed", 4),
        ("webhook", "call.finished", 2),
    ]
    assert row["revision"] == 4
    newest = next(each["id"] for each in listed if each["revision"] == 4)
    pending = await Deliveries(database, clock=clock).pending(newest)
    assert pending is not None
    body = json.loads(pending.body)
    assert (body["type"], body["data"]["revision"], body["data"]["escalation_reason"]) == ("call.changed", 4, "operator")
