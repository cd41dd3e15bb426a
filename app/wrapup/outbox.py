"""What is told, to whom, of a change of a row. Pure: the row in, deliveries out; they are written in the row's own transaction.

Rule 1: the CRM gets one event for every finished row and one for every change, with the whole row (`row.py`), if WEBHOOK_URL is
set.
Rule 2: people are told by the rules of ALERTS, once a call and rule, however often the row changes: the revision of an alert is
0. A call that ended longer ago than DELIVER_DAYS alarms nobody: a rescoring of old calls must not ring through the house.
Rule 3: with ALERT_DETAILS=none an alert holds the call's id, its time, the rule, the names of the concerns, and a link. Nothing
that was said, and nobody's name or number.
Rule 4: a caller's words are hostile also here. They become one line each, and nothing in them is a mention or markup of a chat.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.call.disposition import Outcome
from app.settings import Alert, Settings
from app.store.after_tables import DeliveryKind
from app.store.deliveries import NewDelivery
from app.wrapup.facts import Concern, Urgency
from app.wrapup.row import Row

CRM, PEOPLE = "crm", "people"
"""Destinations, by the names under which the store knows them."""
FINISHED, CHANGED = "call.finished", "call.changed"
CALL_BACK = ("callback_requested", "message_taken")
"""Dispositions of the shipped list that ask for a call back."""
LONGEST = 1_000
"""Characters of one value in an alert."""
HEADLINES = {
    Alert.ESCALATION: "a person should look at a call",
    Alert.CALLBACK: "somebody is to be called back",
    Alert.URGENT: "a call is urgent",
}
CONCERNS = (*(concern.value for concern in Concern), "operator")
UNMARKED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b", "[": "[\u200b", "`": "'"})


def outbox(settings: Settings) -> Callable[[Mapping[str, Any], str], Sequence[NewDelivery]]:
    """The rules of a configuration, as the store asks for them: (the row after the change, the event) to what is to be sent."""
    zone = ZoneInfo(settings.business_timezone)

    def of(row: Mapping[str, Any], event: str) -> list[NewDelivery]:
        news = []
        if settings.webhook_url is not None:
            told = Row.of(row).json_ready()
            body = compact({"type": event, "timestamp": _timestamp(told, event), "data": told})
            news.append(
                NewDelivery(kind=DeliveryKind.WEBHOOK, destination=CRM, event=event, revision=int(row["revision"]), body=body)
            )
        for alert in alerts(row, settings):
            words = Telling.of(row, alert, settings, zone)
            if settings.smtp_url is not None:
                news.append(_to_people(DeliveryKind.MAIL, alert, {"subject": words.subject, "text": words.mail()}))
            if settings.chat_webhook_url is not None:
                news.append(_to_people(DeliveryKind.CHAT, alert, {"text": words.chat()}))
        return news

    return of


def alerts(row: Mapping[str, Any], settings: Settings) -> list[Alert]:
    """The rules of ALERTS that a row meets now."""
    ended, changed = _moment(row["ended_at"]), _moment(row["updated_at"])
    if changed - ended > timedelta(days=settings.deliver_days):
        return []
    number = (row.get("slots") or {}).get("callback_number") or {}
    turned_away_with_number = row["outcome"] == Outcome.TURNED_AWAY and bool(number.get("value"))
    met = {
        Alert.ESCALATION: bool(row["escalated"]),
        Alert.CALLBACK: row["disposition"] in CALL_BACK or turned_away_with_number,
        Alert.URGENT: row["urgency"] == Urgency.HIGH,
    }
    return [alert for alert in Alert if alert in settings.alerts and met[alert]]


class Telling:
    """One alert in words: a headline, facts as name and value, and the address of the call."""

    def __init__(self, headline: str, facts: Sequence[tuple[str, str]], link: str) -> None:
        self._headline, self._facts, self._link = headline, facts, link

    @classmethod
    def of(cls, row: Mapping[str, Any], alert: Alert, settings: Settings, zone: ZoneInfo) -> "Telling":
        """What may be said of a row (rule 3)."""
        call_id = str(row["call_id"])
        facts: list[tuple[str, Any]] = [
            ("Call", call_id),
            ("Time", _moment(row["started_at"]).astimezone(zone).strftime(f"%Y-%m-%d %H:%M ({zone.key})")),
            ("Rule", alert.value),
            ("Concerns", _concerns(row.get("escalation_reason"))),
        ]
        if settings.alert_details == "full":
            slots = row.get("slots") or {}
            facts += [
                ("Name", (slots.get("name") or {}).get("value")),
                ("Call back", (slots.get("callback_number") or {}).get("value")),
                ("Calling from", row["from_number"]),
                ("Reason", (slots.get("reason") or {}).get("value")),
                ("Summary", row["summary"]),
                ("Next", row["next_action"]),
            ]
        told = [(name, _one_line(str(value))) for name, value in facts if value]
        return cls(HEADLINES[alert], told, f"{settings.public_url}/console/calls/{call_id}")

    @property
    def subject(self) -> str:
        """Constant for a rule: nothing from outside ever stands in a header."""
        return f"Callrow: {self._headline}"

    def mail(self) -> str:
        """As plain text."""
        width = max(len(name) for name, _ in self._facts) + 2
        return "\n".join([*(f"{name + ':':<{width}}{value}" for name, value in self._facts), "", self._link, ""])

    def chat(self) -> str:
        """As the text of a chat message: what could be markup or a mention is none (rule 4)."""
        lines = [f"{name}: {value.translate(UNMARKED)}" for name, value in self._facts]
        return "\n".join([f"Callrow: {self._headline}", *lines, self._link])


def compact(value: Any) -> str:
    """JSON without a needless byte. Text stands as it is, in UTF-8; what is no character becomes one that says so."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace").decode()


def _to_people(kind: DeliveryKind, alert: Alert, message: dict[str, str]) -> NewDelivery:
    return NewDelivery(kind=kind, destination=PEOPLE, event=f"alert.{alert.value}", revision=0, body=compact(message))


def _timestamp(told: Mapping[str, Any], event: str) -> str:
    """When it happened: of a finished row, when it was judged; of a changed one, when it changed."""
    happened = (told["analyzed_at"] or told["updated_at"]) if event == FINISHED else told["updated_at"]
    return str(happened)


def _concerns(names: Any) -> str:
    """The names that are of the closed list, and no others (rule 3)."""
    given = [part.strip() for part in names.split(",")] if isinstance(names, str) else []
    return ", ".join(name for name in given if name in CONCERNS)


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(value)
