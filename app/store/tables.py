"""The tables of a call: shapes, and nothing that thinks. One row in `calls` for every phone call, the rest beside it.

Rule 1: a closed list is a CHECK, by its values and not its names; a count is never negative; a final row says how it ended.
Rule 2: text that a person, a model or a carrier gives has no length limit, and what no database keeps is taken out of it
(`PlainText`, `Private`): a long or a strange word must not cost the row.
Rule 3: `*_at` columns are moments in UTC; `*_at_ms` columns are milliseconds since the call's birth (`calls.started_at`).
Rule 4: what is private is `Private` or `PrivateJSON`; a number has a blind index beside it.
What comes after a call (readings, judgements, deliveries) is in `after_tables.py`, the tables of the house and of the example
business are in `house_tables.py`, all in the same metadata.
"""

from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from app.call.agent import ToolKind
from app.call.disposition import EndReason, Intent, Outcome
from app.settings import AudioPathName
from app.store.private import BlindWord, CallName, PlainText, Private, PrivateJSON

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Channel(StrEnum):
    """How the caller reached us."""

    PHONE = "phone"
    BROWSER = "browser"


class Direction(StrEnum):
    """Who called whom, seen from us."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class RowState(StrEnum):
    """A row is live until it is finished, once."""

    LIVE = "live"
    FINAL = "final"


class Sentiment(StrEnum):
    """The caller's, as the analysis after the call judged it."""

    NEGATIVE = "negative"
    NEUTRAL = "neutral"
    POSITIVE = "positive"


class AnalysisState(StrEnum):
    """How far the reading of a finished call has come."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    """For good; `analysis_fault` says why. A person may have it read again."""


class Speaker(StrEnum):
    """Whose utterance."""

    CALLER = "caller"
    AGENT = "agent"


class ToolStatus(StrEnum):
    """How far an invocation has come. `unknown`: begun, and nobody can say whether it took effect."""

    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Moment(sa.types.TypeDecorator[datetime]):
    """A moment in UTC, on SQLite as well, which keeps no time zone. A datetime without one is refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def one_of(words: type[StrEnum], column: str) -> sa.Enum:
    """A closed list, kept by value (rule 1). The constraint bears the column's name."""
    return sa.Enum(
        words,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
        name=column,
    )


def not_negative(*columns: str) -> list[sa.CheckConstraint]:
    """Rule 1, a constraint for each column."""
    return [sa.CheckConstraint(f"{column} >= 0", name=f"{column}_not_negative") for column in columns]


def json_column(name: str, *, nullable: bool = True) -> sa.Column[object]:
    """Plain JSON on both databases; None is NULL and not JSON's null."""
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=nullable)


def due_index(table: str, column: str) -> sa.Index:
    """What is due, and nothing else: the sweeper looks every second, and nearly every row is done."""
    due = sa.text(f"{column} IS NOT NULL")
    return sa.Index(f"ix_{table}_{column}", column, sqlite_where=due, postgresql_where=due)


def of_call(*, primary_key: bool) -> sa.Column[str]:
    """The call that a row belongs to; it goes when the call's row goes."""
    return sa.Column(
        "call_id", CallName(), sa.ForeignKey("calls.call_id", ondelete="CASCADE"), primary_key=primary_key, nullable=False
    )


COUNTED = (
    *("state", "outcome", "end_reason", "disposition", "intent", "sentiment", "agent", "lead_score", "escalated", "needs_review"),
    *("analysis", "duration_ms", "latency_p50_ms", "latency_p95_ms", "barge_ins", "cost_usd"),
)
"""What calls are filtered and counted by. It stands in the index by time, behind the key: so a filter skips what it does not want
without looking at the row, and a report of a month reads some megabytes instead of all its rows. Only what comes from closed or
configured lists, and numbers: an index entry has a limit of 2,700 bytes, and a long word must not cost the row (so `urgency`, a
slot's value while the call lasts, is not here). Not `turns`, which change with every turn: the row is then written without touching
any index."""


calls = sa.Table(
    "calls",
    metadata,
    sa.Column("call_id", CallName(), primary_key=True),
    sa.Column("carrier_call_sid", PlainText, unique=True),
    sa.Column("account_sid", PlainText),
    sa.Column("channel", one_of(Channel, "channel"), nullable=False),
    sa.Column("direction", one_of(Direction, "direction"), nullable=False),
    sa.Column("from_number", Private("calls.from_number")),
    sa.Column("from_index", sa.String(32)),
    sa.Column("to_number", Private("calls.to_number")),
    sa.Column("to_index", sa.String(32)),
    sa.Column("forwarded_from", Private("calls.forwarded_from")),
    sa.Column("caller_attestation", PlainText),
    # who answers, and on which stream
    sa.Column("agent", PlainText, nullable=False),
    json_column("agent_path", nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("claimed_epoch", sa.Integer, nullable=False),
    sa.Column("next_step", one_of(Intent, "next_step"), nullable=False),
    sa.Column("transfer_to", PlainText),
    sa.Column("resume_attempts", sa.Integer, nullable=False),
    sa.Column("state", one_of(RowState, "state"), nullable=False),
    sa.Column("carrier_status", PlainText),
    sa.Column("carrier_sequence", sa.Integer),
    sa.Column("carrier_duration_s", sa.Integer),
    sa.Column("carrier_price", sa.Numeric(12, 6, asdecimal=False)),
    sa.Column("carrier_price_unit", PlainText),
    sa.Column("reconciled_at", Moment),
    sa.Column("stream_sid", PlainText),
    sa.Column("worker", PlainText),
    # times
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("answered_at", Moment),
    sa.Column("ended_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Column("analyzed_at", Moment),
    sa.Column("duration_ms", sa.BigInteger),
    # how it ended, and what came of it
    sa.Column("outcome", one_of(Outcome, "outcome")),
    sa.Column("end_reason", one_of(EndReason, "end_reason")),
    sa.Column("disposition", PlainText),
    sa.Column("slots", PrivateJSON("calls.slots")),
    sa.Column("memory", PrivateJSON("calls.memory")),
    sa.Column("summary", Private("calls.summary")),
    sa.Column("sentiment", one_of(Sentiment, "sentiment")),
    sa.Column("intent", PlainText),
    sa.Column("lead_score", sa.Integer),
    sa.Column("urgency", PlainText),
    sa.Column("escalated", sa.Boolean(create_constraint=True, name="escalated"), nullable=False),
    sa.Column("escalation_reason", PlainText),
    sa.Column("next_action", Private("calls.next_action")),
    json_column("sentiment_course"),
    # the reading of it, and what a person should look at
    sa.Column("analysis", one_of(AnalysisState, "analysis"), nullable=False, server_default=AnalysisState.WAITING.value),
    sa.Column("analysis_attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("analysis_due_at", Moment),
    sa.Column("analysis_fault", PlainText),
    sa.Column("analyzer", PlainText),
    sa.Column("needs_review", sa.Boolean(create_constraint=True, name="needs_review"), nullable=False, server_default=sa.false()),
    json_column("review_reasons"),
    sa.Column("reviewed_at", Moment),
    sa.Column("reviewed_by", PlainText),
    sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
    # what it took
    sa.Column("turns", sa.Integer, nullable=False),
    sa.Column("barge_ins", sa.Integer, nullable=False),
    sa.Column("latency_p50_ms", sa.Integer),
    sa.Column("latency_p95_ms", sa.Integer),
    json_column("usage"),
    sa.Column("tokens_in", sa.BigInteger),
    sa.Column("tokens_out", sa.BigInteger),
    sa.Column("cost_usd", sa.Numeric(12, 6, asdecimal=False)),
    sa.Column("prices_date", sa.Date),
    sa.Column("model", PlainText),
    sa.Column("prompt_version", PlainText),
    sa.Column("audio_path", one_of(AudioPathName, "audio_path")),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
    *not_negative(
        *("resume_attempts", "carrier_sequence", "carrier_duration_s", "duration_ms", "turns", "barge_ins", "latency_p50_ms"),
        *("latency_p95_ms", "tokens_in", "tokens_out", "cost_usd", "analysis_attempts", "carrier_price", "revision"),
    ),
    sa.CheckConstraint("epoch >= 1", name="epoch_positive"),
    sa.CheckConstraint("claimed_epoch >= 0 AND claimed_epoch <= epoch", name="claimed_epoch_not_ahead"),
    sa.CheckConstraint("lead_score >= 0 AND lead_score <= 100", name="lead_score_0_to_100"),
    sa.CheckConstraint(
        "(state = 'live' AND outcome IS NULL AND end_reason IS NULL AND ended_at IS NULL AND finished_at IS NULL) OR "
        "(state = 'final' AND outcome IS NOT NULL AND end_reason IS NOT NULL AND ended_at IS NOT NULL AND finished_at IS NOT NULL)",
        name="final_says_how_it_ended",
    ),
    # the list by time, with every filter; all reports of a window
    sa.Index("ix_calls_by_time", "started_at", "call_id", *COUNTED),
    # the list by each of the other columns that it can be sorted by, over all time
    sa.Index(None, "lead_score", "call_id"),
    sa.Index(None, "duration_ms", "call_id"),
    sa.Index(None, "latency_p95_ms", "call_id"),
    # the live calls, on top of the list and for the sweeper
    sa.Index(None, "state", "started_at"),
    # all calls of a number
    sa.Index(None, "from_index"),
    sa.Index(None, "to_index"),
    due_index("calls", "analysis_due_at"),
)

utterances = sa.Table(
    "utterances",
    metadata,
    of_call(primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", PlainText, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("speaker", one_of(Speaker, "speaker"), nullable=False),
    sa.Column("agent", PlainText),
    sa.Column("started_at_ms", sa.BigInteger, nullable=False),
    sa.Column("ended_at_ms", sa.BigInteger, nullable=False),
    sa.Column("heard", Private("utterances.heard")),
    sa.Column("unheard", Private("utterances.unheard")),
    sa.Column("heard_ms", sa.BigInteger),
    sa.Column("generated_ms", sa.BigInteger),
    sa.Column("interrupted", sa.Boolean(create_constraint=True, name="interrupted"), nullable=False),
    sa.Column("untranscribed", sa.Boolean(create_constraint=True, name="untranscribed"), nullable=False),
    *not_negative("started_at_ms", "ended_at_ms", "heard_ms", "generated_ms"),
)

turns = sa.Table(
    "turns",
    metadata,
    of_call(primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("agent", PlainText, nullable=False),
    sa.Column("utterance", PlainText),
    sa.Column("speech_ended_at_ms", sa.BigInteger),
    sa.Column("committed_at_ms", sa.BigInteger),
    sa.Column("requested_at_ms", sa.BigInteger, nullable=False),
    sa.Column("first_audio_at_ms", sa.BigInteger),
    sa.Column("audible_at_ms", sa.BigInteger),
    sa.Column("latency_ms", sa.Integer),
    sa.Column("tools", sa.Integer, nullable=False),
    sa.Column("interrupted", sa.Boolean(create_constraint=True, name="interrupted"), nullable=False),
    *not_negative("number", "speech_ended_at_ms", "committed_at_ms", "requested_at_ms", "first_audio_at_ms", "audible_at_ms"),
    *not_negative("latency_ms", "tools"),
)

call_events = sa.Table(
    "call_events",
    metadata,
    of_call(primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("name", PlainText, nullable=False),
    json_column("data"),
    sa.Column("private", PrivateJSON("call_events.private")),
    sa.Column("commands", PlainText),
    *not_negative("seq", "at_ms"),
)

tool_invocations = sa.Table(
    "tool_invocations",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    of_call(primary_key=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("tool_call", PlainText, nullable=False),
    sa.Column("name", PlainText, nullable=False),
    sa.Column("agent", PlainText, nullable=False),
    sa.Column("kind", one_of(ToolKind, "kind"), nullable=False),
    sa.Column("effect", sa.Boolean(create_constraint=True, name="effect"), nullable=False),
    sa.Column("arguments", Private("tool_invocations.arguments")),
    sa.Column("result", Private("tool_invocations.result")),
    sa.Column("status", one_of(ToolStatus, "status"), nullable=False),
    sa.Column("reason", PlainText),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("finished_at", Moment),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("attempts", sa.Integer, nullable=False),
    *not_negative("duration_ms", "attempts"),
    sa.CheckConstraint("status = 'intended' OR finished_at IS NOT NULL", name="answered_says_when"),
    sa.UniqueConstraint("call_id", "tool_call"),
    # how the tools fared in a window, and the calls in which one failed; controls, which are many and cannot fail, are not in it
    sa.Index(
        "ix_tool_invocations_errands",
        *("status", "started_at", "name", "call_id"),
        postgresql_where=sa.text("kind = 'errand'"),
        sqlite_where=sa.text("kind = 'errand'"),
    ),
)

search_tokens = sa.Table(
    "search_tokens",
    metadata,
    sa.Column("token", BlindWord, primary_key=True, autoincrement=False),
    # the call's, so that the entries of a word lie in the order of the list
    sa.Column("started_at", Moment, primary_key=True),
    of_call(primary_key=True),
    # to index a call anew, and to take it out when it goes
    sa.Index(None, "call_id"),
    sqlite_with_rowid=False,
)
