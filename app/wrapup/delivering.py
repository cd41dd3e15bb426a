"""Deliveries on their way: one attempt, and when the next one is.

Rule 1: at least once on the wire, once in effect: a delivery bears the same id and the same bytes at every attempt, and a
receiver that keeps ids takes it once. (`webhook-id` and `idempotency-key`; a mail's Message-ID.)
Rule 2: what is not delivered is tried again until DELIVER_DAYS after it was written; then, or when the peer says for good, it is
dead and an operator's to send again.
Rule 3: what an attempt leaves behind is a status, a constant and a pause. No address, no secret, no word of anybody.
"""

import json
import random
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

from standardwebhooks.webhooks import Webhook

from app import __version__, logs
from app.settings import Settings
from app.store.deliveries import Delivery, DeliveryKind
from app.store.facts import utc_now
from app.wrapup import mailing, posting
from app.wrapup.posting import Sent

log = logs.logger("wrapup")

PAUSES_S = (5, 60, 300, 1_800, 7_200, 18_000, 36_000)
"""After the first attempt, the second, and so on; then always the last (as the Standard Webhooks convention proposes)."""
LAST_PAUSE_S = 43_200
JITTER = 0.2
"""A pause is up to so much longer, that a crowd of deliveries does not come back as a crowd."""
LONGEST_ASKED_S = 21_600
"""A peer is given as long as it asks for, up to this."""
NOT_CONFIGURED = "not configured"
UNCONFIGURED_PAUSE_S = 3_600


class Desk(Protocol):
    """What of the store is needed (`store/deliveries.py`)."""

    async def pending(self, delivery_id: str) -> Delivery | None:
        """A delivery that is still to be made."""
        ...

    async def record(
        self, delivery_id: str, attempt: int, *, status: int | None, fault: str | None, again_at: datetime | None
    ) -> bool:
        """What came of an attempt, once."""
        ...


class Delivering:
    """Makes the attempts of one configuration's deliveries.

    Args:
        deliveries: where they are kept.
        settings: where they go.
        clock: the present moment.
        dice: 0 to 1, for the jitter.
        limit_s: for one attempt, all of it.
        tls: authorities to verify peers by, for HTTP and SMTP; the machine's by default.
    """

    def __init__(
        self,
        deliveries: Desk,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = utc_now,
        dice: Callable[[], float] = random.random,
        limit_s: float = 20.0,
        tls: Callable[[], ssl.SSLContext] = posting.tls,
    ) -> None:
        self._deliveries, self._settings = deliveries, settings
        self._clock, self._dice, self._limit_s = clock, dice, limit_s
        # Two, for HTTP writes its own protocols into its context.
        self._http_tls, self._mail_tls = tls(), tls()

    async def send(self, delivery_id: str) -> dict[str, Any]:
        """One attempt. What came of it, as `record` takes it; `{"nothing": True}` when there is nothing to send any more."""
        delivery = await self._deliveries.pending(delivery_id)
        if delivery is None:
            return {"nothing": True}
        sent = await self._attempt(delivery)
        log.info(
            "sent a delivery" if sent.fault is None else "a delivery did not arrive",
            call_id=delivery.call_id,
            delivery=delivery.id,
            kind=delivery.kind.value,
            event_name=delivery.event,
            attempt=delivery.attempts + 1,
            status=sent.status,
            fault=sent.fault,
        )
        return sent.json_ready()

    async def record(self, delivery_id: str, attempt: int, sent: dict[str, Any]) -> None:
        """Keep what came of an attempt, once however often it is called, and when the next one is (rule 2)."""
        if sent.get("nothing"):
            return
        delivery = await self._deliveries.pending(delivery_id)
        if delivery is None:
            return
        came = Sent.of(sent)
        again_at = None if came.fault is None else self.again_at(delivery.created_at, attempt, came)
        recorded = await self._deliveries.record(delivery_id, attempt, status=came.status, fault=came.fault, again_at=again_at)
        if recorded and came.fault is not None and again_at is None:
            log.error(
                "a delivery is given up", call_id=delivery.call_id, delivery=delivery_id, kind=delivery.kind.value, fault=came.fault
            )

    def again_at(self, created_at: datetime, attempt: int, sent: Sent) -> datetime | None:
        """When the attempt after number `attempt` is due; None: never. The last one is at the end of DELIVER_DAYS."""
        now, end = self._clock(), created_at + timedelta(days=self._settings.deliver_days)
        if sent.final or now >= end:
            return None
        pause = PAUSES_S[attempt - 1] if attempt <= len(PAUSES_S) else LAST_PAUSE_S
        asked = timedelta(seconds=min(sent.retry_after_s or 0, LONGEST_ASKED_S))
        again = now + max(asked, timedelta(seconds=pause * (1 + JITTER * self._dice())))
        if again <= end:
            return again
        return end if now + asked <= end else None

    async def _attempt(self, delivery: Delivery) -> Sent:
        match delivery.kind:
            case DeliveryKind.WEBHOOK:
                return await self._webhook(delivery)
            case DeliveryKind.MAIL:
                return await self._mail(delivery)
            case DeliveryKind.CHAT:
                return await self._chat(delivery)

    async def _webhook(self, delivery: Delivery) -> Sent:
        """Signed after the Standard Webhooks convention, by every secret, so that a receiver may change from one to the next."""
        if self._settings.webhook_url is None or not self._settings.webhook_secrets:
            return _not_configured()
        now = self._clock().astimezone(UTC)
        signed = [Webhook(secret).sign(delivery.id, now, delivery.body) for secret in self._settings.webhook_secrets]
        headers = {
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signed),
        }
        return await self._post(self._settings.webhook_url, delivery, headers)

    async def _chat(self, delivery: Delivery) -> Sent:
        if self._settings.chat_webhook_url is None:
            return _not_configured()
        return await self._post(self._settings.chat_webhook_url.get_secret_value(), delivery, {})

    async def _post(self, url: str, delivery: Delivery, headers: dict[str, str]) -> Sent:
        common = {
            "content-type": "application/json",
            "user-agent": f"callrow/{__version__}",
            "idempotency-key": delivery.id,
        }
        return await posting.post(url, delivery.body.encode(), common | headers, limit_s=self._limit_s, tls=self._http_tls)

    async def _mail(self, delivery: Delivery) -> Sent:
        if self._settings.smtp_url is None or self._settings.mail_from is None or not self._settings.mail_to:
            return _not_configured()
        told = json.loads(delivery.body)
        letter = mailing.message(
            sender=self._settings.mail_from,
            to=self._settings.mail_to,
            subject=told["subject"],
            text=told["text"],
            message_id=delivery.id,
            at=self._clock(),
        )
        return await mailing.mail(
            mailing.MailServer.of(self._settings.smtp_url.get_secret_value()),
            letter,
            us=mailing.greeting_name(urlsplit(self._settings.public_url).hostname or "localhost"),
            limit_s=self._limit_s,
            tls=self._mail_tls,
        )


def _not_configured() -> Sent:
    """The destination was there when the delivery was written; it may come back."""
    return Sent(fault=NOT_CONFIGURED, retry_after_s=UNCONFIGURED_PAUSE_S)
