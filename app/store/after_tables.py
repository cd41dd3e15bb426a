"""The tables of what comes after a call: readings, what they judged, what leaves the house, and the comparison with the carrier.

Rule 1: `judgements` is append-only: a person's word stands beside the machine's, never over it. What is in force is a projection,
kept in the columns of `calls`: an operator's word before the newest reading that was applied and not withdrawn.
Rule 2: a delivery is written in the transaction that changed the row it tells of; its id is the message's id for ever, and its body
is what is sent, to the byte, at every attempt.
Rule 3: an address or a secret of a destination is a setting and never in a table.
"""

from enum import StrEnum

import sqlalchemy as sa

from app.store.private import CallName, PlainText, Private, PrivateJSON
from app.store.tables import Moment, due_index, json_column, metadata, not_negative, of_call, one_of

AFTER_CALL = "call"
"""The batch of the reading that every call gets when it has ended; any other is a rescoring's."""


class Source(StrEnum):
    """Who said it."""

    AGENT = "agent"
    """Noted during the call."""
    MACHINE = "machine"
    """An analyzer, afterwards."""
    OPERATOR = "operator"


class DeliveryKind(StrEnum):
    """By which road."""

    WEBHOOK = "webhook"
    MAIL = "mail"
    CHAT = "chat"


class DeliveryState(StrEnum):
    """How far it has come."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up; `last_fault` says why. An operator may send it again."""


def _row_id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


readings = sa.Table(
    "readings",
    metadata,
    sa.Column("id", CallName(), primary_key=True),
    of_call(primary_key=False),
    sa.Column("batch", PlainText, nullable=False),
    sa.Column("analyzer", PlainText, nullable=False),
    sa.Column("model", PlainText),
    sa.Column("prompt_version", PlainText, nullable=False),
    sa.Column("rubric", PlainText, nullable=False),
    sa.Column("tokens_in", sa.BigInteger, nullable=False),
    sa.Column("tokens_out", sa.BigInteger, nullable=False),
    json_column("review_reasons"),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("applied_at", Moment),
    sa.Column("withdrawn_at", Moment),
    sa.Column("withdrawn_by", PlainText),
    *not_negative("tokens_in", "tokens_out"),
    sa.UniqueConstraint("call_id", "batch"),
    sa.Index(None, "batch"),
)

judgements = sa.Table(
    "judgements",
    metadata,
    _row_id(),
    of_call(primary_key=False),
    sa.Column("reading_id", CallName(), sa.ForeignKey("readings.id", ondelete="CASCADE")),
    sa.Column("field", PlainText, nullable=False),
    sa.Column("value", PrivateJSON("judgements.value")),
    sa.Column("source", one_of(Source, "source"), nullable=False),
    json_column("evidence", nullable=False),
    sa.Column("confidence", sa.Float),
    sa.Column("analyzer", PlainText),
    sa.Column("model", PlainText),
    sa.Column("prompt_version", PlainText),
    sa.Column("reasons", PrivateJSON("judgements.reasons")),
    sa.Column("dropped", PlainText),
    sa.Column("retracts", sa.Boolean(create_constraint=True, name="retracts"), nullable=False),
    sa.Column("said_by", PlainText),
    sa.Column("note", Private("judgements.note")),
    sa.Column("at", Moment, nullable=False),
    sa.CheckConstraint("confidence >= 0 AND confidence <= 1", name="confidence_0_to_1"),
    sa.CheckConstraint("source <> 'operator' OR said_by IS NOT NULL", name="operator_has_a_name"),
    sa.Index(None, "call_id", "field", "id"),
    sa.Index(None, "reading_id"),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", CallName(), primary_key=True),
    of_call(primary_key=False),
    sa.Column("kind", one_of(DeliveryKind, "kind"), nullable=False),
    sa.Column("destination", PlainText, nullable=False),
    sa.Column("event", PlainText, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("body", Private("deliveries.body"), nullable=False),
    sa.Column("state", one_of(DeliveryState, "state"), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", Moment),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_fault", PlainText),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("delivered_at", Moment),
    sa.Column("updated_at", Moment, nullable=False),
    *not_negative("revision", "attempts"),
    sa.CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="pending_is_due"),
    sa.UniqueConstraint("call_id", "kind", "destination", "event", "revision"),
    due_index("deliveries", "next_attempt_at"),
    sa.Index(None, "state", "created_at"),
)

reconciliations = sa.Table(
    "reconciliations",
    metadata,
    _row_id(),
    sa.Column("at", Moment, nullable=False),
    sa.Column("since_at", Moment, nullable=False),
    sa.Column("until_at", Moment, nullable=False),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("gaps", sa.Integer, nullable=False),
    sa.Column("repaired", sa.Integer, nullable=False),
    json_column("details"),
    *not_negative("calls", "gaps", "repaired"),
    sa.Index(None, "at"),
)
