"""The tables of the house (its workers, its audit log) and of the example business, which an adopter replaces.

The business's tables point at calls by their id and not by a foreign key: an appointment outlives the call it was made in.
Whoever imports `metadata` from here has all tables in it.
"""

import sqlalchemy as sa

import app.store.after_tables
import app.store.console_tables  # noqa: F401 (their tables are in `metadata` once they are imported)
from app.store.private import CallName, PlainText, Private
from app.store.tables import Moment, json_column, metadata, not_negative

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", PlainText, primary_key=True),
    sa.Column("address", PlainText),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("heartbeat_at", Moment, nullable=False),
    sa.Column("live_calls", sa.Integer, nullable=False),
    *not_negative("live_calls"),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("actor", PlainText, nullable=False),
    sa.Column("action", PlainText, nullable=False),
    sa.Column("subject", PlainText),
    json_column("details"),
    sa.Column("prev_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.CheckConstraint("seq >= 1", name="seq_positive"),
)

business_customers = sa.Table(
    "business_customers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", Private("business_customers.number"), nullable=False),
    sa.Column("number_index", sa.String(32), nullable=False, unique=True),
    sa.Column("name", Private("business_customers.name"), nullable=False),
    sa.Column("since", sa.Date),
    sa.Column("note", Private("business_customers.note")),
)

business_appointments = sa.Table(
    "business_appointments",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("opening", Moment, nullable=False, unique=True),
    sa.Column("call_id", CallName(), nullable=False),
    sa.Column("tool_call", PlainText, nullable=False),
    sa.Column("name", Private("business_appointments.name")),
    sa.Column("number", Private("business_appointments.number")),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("call_id", "tool_call"),
)

business_messages = sa.Table(
    "business_messages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("call_id", CallName(), nullable=False),
    sa.Column("tool_call", PlainText, nullable=False),
    sa.Column("number", Private("business_messages.number")),
    sa.Column("text", Private("business_messages.text"), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("call_id", "tool_call"),
)
