"""Create the tables: a call and what belongs to it, the house's workers and audit log, the example business."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FINAL_SAYS_HOW_IT_ENDED = (
    "(state = 'live' AND outcome IS NULL AND end_reason IS NULL AND ended_at IS NULL AND finished_at IS NULL) OR "
    "(state = 'final' AND outcome IS NOT NULL AND end_reason IS NOT NULL AND ended_at IS NOT NULL AND finished_at IS NOT NULL)"
)


def words(column: str, *closed_list: str) -> sa.Enum:
    return sa.Enum(*closed_list, name=column, native_enum=False, create_constraint=True, length=32)


def flag(column: str) -> sa.Boolean:
    return sa.Boolean(create_constraint=True, name=column)


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_audit_log_seq_positive")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("hash", name=op.f("uq_audit_log_hash")),
    )
    op.create_table(
        "business_appointments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("opening", sa.DateTime(timezone=True), nullable=False),
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("tool_call", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_business_appointments")),
        sa.UniqueConstraint("call_id", "tool_call", name=op.f("uq_business_appointments_call_id_tool_call")),
        sa.UniqueConstraint("opening", name=op.f("uq_business_appointments_opening")),
    )
    op.create_table(
        "business_customers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("number_index", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since", sa.Date(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_business_customers")),
        sa.UniqueConstraint("number_index", name=op.f("uq_business_customers_number_index")),
    )
    op.create_table(
        "business_messages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("tool_call", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_business_messages")),
        sa.UniqueConstraint("call_id", "tool_call", name=op.f("uq_business_messages_call_id_tool_call")),
    )
    op.create_table(
        "calls",
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("carrier_call_sid", sa.Text(), nullable=True),
        sa.Column("account_sid", sa.Text(), nullable=True),
        sa.Column(
            "channel",
            words("channel", "phone", "browser"),
            nullable=False,
        ),
        sa.Column(
            "direction",
            words("direction", "inbound", "outbound"),
            nullable=False,
        ),
        sa.Column("from_number", sa.Text(), nullable=True),
        sa.Column("from_index", sa.String(length=32), nullable=True),
        sa.Column("to_number", sa.Text(), nullable=True),
        sa.Column("to_index", sa.String(length=32), nullable=True),
        sa.Column("forwarded_from", sa.Text(), nullable=True),
        sa.Column("caller_attestation", sa.Text(), nullable=True),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("agent_path", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("claimed_epoch", sa.Integer(), nullable=False),
        sa.Column(
            "next_step",
            words("next_step", "talk", "hang_up", "transfer", "apologise"),
            nullable=False,
        ),
        sa.Column("transfer_to", sa.Text(), nullable=True),
        sa.Column("resume_attempts", sa.Integer(), nullable=False),
        sa.Column("state", words("state", "live", "final"), nullable=False),
        sa.Column("carrier_status", sa.Text(), nullable=True),
        sa.Column("carrier_sequence", sa.Integer(), nullable=True),
        sa.Column("carrier_duration_s", sa.Integer(), nullable=True),
        sa.Column("stream_sid", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("analyzed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column(
            "outcome",
            words("outcome", "completed", "transferred", "abandoned", "no_speech", "turned_away", "failed"),
            nullable=True,
        ),
        sa.Column(
            "end_reason",
            words(
                "end_reason",
                "agent_ended",
                "caller_hung_up",
                "silence",
                "transferred",
                "time_limit",
                "full_house",
                "unknown_agent",
                "model_unavailable",
                "never_connected",
                "carrier_ended",
                "drained",
                "worker_lost",
            ),
            nullable=True,
        ),
        sa.Column("disposition", sa.Text(), nullable=True),
        sa.Column("slots", sa.Text(), nullable=True),
        sa.Column("memory", sa.Text(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column(
            "sentiment",
            words("sentiment", "negative", "neutral", "positive"),
            nullable=True,
        ),
        sa.Column("intent", sa.Text(), nullable=True),
        sa.Column("lead_score", sa.Integer(), nullable=True),
        sa.Column("urgency", sa.Text(), nullable=True),
        sa.Column("escalated", flag("escalated"), nullable=False),
        sa.Column("escalation_reason", sa.Text(), nullable=True),
        sa.Column("next_action", sa.Text(), nullable=True),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("barge_ins", sa.Integer(), nullable=False),
        sa.Column("latency_p50_ms", sa.Integer(), nullable=True),
        sa.Column("latency_p95_ms", sa.Integer(), nullable=True),
        sa.Column("usage", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("tokens_in", sa.BigInteger(), nullable=True),
        sa.Column("tokens_out", sa.BigInteger(), nullable=True),
        sa.Column("cost_usd", sa.Numeric(precision=12, scale=6, asdecimal=False), nullable=True),
        sa.Column("prices_date", sa.Date(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("prompt_version", sa.Text(), nullable=True),
        sa.Column(
            "audio_path",
            words("audio_path", "transcode", "passthrough"),
            nullable=True,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            FINAL_SAYS_HOW_IT_ENDED,
            name=op.f("ck_calls_final_says_how_it_ended"),
        ),
        sa.CheckConstraint("barge_ins >= 0", name=op.f("ck_calls_barge_ins_not_negative")),
        sa.CheckConstraint("carrier_duration_s >= 0", name=op.f("ck_calls_carrier_duration_s_not_negative")),
        sa.CheckConstraint("carrier_sequence >= 0", name=op.f("ck_calls_carrier_sequence_not_negative")),
        sa.CheckConstraint("claimed_epoch >= 0 AND claimed_epoch <= epoch", name=op.f("ck_calls_claimed_epoch_not_ahead")),
        sa.CheckConstraint("cost_usd >= 0", name=op.f("ck_calls_cost_usd_not_negative")),
        sa.CheckConstraint("duration_ms >= 0", name=op.f("ck_calls_duration_ms_not_negative")),
        sa.CheckConstraint("epoch >= 1", name=op.f("ck_calls_epoch_positive")),
        sa.CheckConstraint("latency_p50_ms >= 0", name=op.f("ck_calls_latency_p50_ms_not_negative")),
        sa.CheckConstraint("latency_p95_ms >= 0", name=op.f("ck_calls_latency_p95_ms_not_negative")),
        sa.CheckConstraint("lead_score >= 0 AND lead_score <= 100", name=op.f("ck_calls_lead_score_0_to_100")),
        sa.CheckConstraint("resume_attempts >= 0", name=op.f("ck_calls_resume_attempts_not_negative")),
        sa.CheckConstraint("tokens_in >= 0", name=op.f("ck_calls_tokens_in_not_negative")),
        sa.CheckConstraint("tokens_out >= 0", name=op.f("ck_calls_tokens_out_not_negative")),
        sa.CheckConstraint("turns >= 0", name=op.f("ck_calls_turns_not_negative")),
        sa.PrimaryKeyConstraint("call_id", name=op.f("pk_calls")),
        sa.UniqueConstraint("carrier_call_sid", name=op.f("uq_calls_carrier_call_sid")),
    )
    op.create_index(op.f("ix_calls_disposition"), "calls", ["disposition"])
    op.create_index(op.f("ix_calls_from_index"), "calls", ["from_index"])
    op.create_index(op.f("ix_calls_started_at"), "calls", ["started_at"])
    op.create_index(op.f("ix_calls_state_started_at"), "calls", ["state", "started_at"])
    op.create_index(op.f("ix_calls_to_index"), "calls", ["to_index"])

    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("live_calls", sa.Integer(), nullable=False),
        sa.CheckConstraint("live_calls >= 0", name=op.f("ck_workers_live_calls_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "call_events",
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("private", sa.Text(), nullable=True),
        sa.Column("commands", sa.Text(), nullable=True),
        sa.CheckConstraint("at_ms >= 0", name=op.f("ck_call_events_at_ms_not_negative")),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_call_events_seq_not_negative")),
        sa.ForeignKeyConstraint(["call_id"], ["calls.call_id"], name=op.f("fk_call_events_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_id", "epoch", "seq", name=op.f("pk_call_events")),
    )
    op.create_table(
        "tool_invocations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("tool_call", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("kind", words("kind", "control", "errand"), nullable=False),
        sa.Column("effect", flag("effect"), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column(
            "status",
            words("status", "intended", "done", "failed", "refused", "unknown"),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.CheckConstraint("status = 'intended' OR finished_at IS NOT NULL", name=op.f("ck_tool_invocations_answered_says_when")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_tool_invocations_attempts_not_negative")),
        sa.CheckConstraint("duration_ms >= 0", name=op.f("ck_tool_invocations_duration_ms_not_negative")),
        sa.ForeignKeyConstraint(["call_id"], ["calls.call_id"], name=op.f("fk_tool_invocations_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tool_invocations")),
        sa.UniqueConstraint("call_id", "tool_call", name=op.f("uq_tool_invocations_call_id_tool_call")),
    )
    op.create_index(op.f("ix_tool_invocations_status"), "tool_invocations", ["status"])

    op.create_table(
        "turns",
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("utterance", sa.Text(), nullable=True),
        sa.Column("speech_ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("committed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("requested_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("first_audio_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("audible_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("tools", sa.Integer(), nullable=False),
        sa.Column("interrupted", flag("interrupted"), nullable=False),
        sa.CheckConstraint("audible_at_ms >= 0", name=op.f("ck_turns_audible_at_ms_not_negative")),
        sa.CheckConstraint("committed_at_ms >= 0", name=op.f("ck_turns_committed_at_ms_not_negative")),
        sa.CheckConstraint("first_audio_at_ms >= 0", name=op.f("ck_turns_first_audio_at_ms_not_negative")),
        sa.CheckConstraint("latency_ms >= 0", name=op.f("ck_turns_latency_ms_not_negative")),
        sa.CheckConstraint("number >= 0", name=op.f("ck_turns_number_not_negative")),
        sa.CheckConstraint("requested_at_ms >= 0", name=op.f("ck_turns_requested_at_ms_not_negative")),
        sa.CheckConstraint("speech_ended_at_ms >= 0", name=op.f("ck_turns_speech_ended_at_ms_not_negative")),
        sa.CheckConstraint("tools >= 0", name=op.f("ck_turns_tools_not_negative")),
        sa.ForeignKeyConstraint(["call_id"], ["calls.call_id"], name=op.f("fk_turns_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_id", "epoch", "number", name=op.f("pk_turns")),
    )
    op.create_table(
        "utterances",
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column(
            "speaker",
            words("speaker", "caller", "agent"),
            nullable=False,
        ),
        sa.Column("agent", sa.Text(), nullable=True),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("heard", sa.Text(), nullable=True),
        sa.Column("unheard", sa.Text(), nullable=True),
        sa.Column("heard_ms", sa.BigInteger(), nullable=True),
        sa.Column("generated_ms", sa.BigInteger(), nullable=True),
        sa.Column("interrupted", flag("interrupted"), nullable=False),
        sa.Column("untranscribed", flag("untranscribed"), nullable=False),
        sa.CheckConstraint("ended_at_ms >= 0", name=op.f("ck_utterances_ended_at_ms_not_negative")),
        sa.CheckConstraint("generated_ms >= 0", name=op.f("ck_utterances_generated_ms_not_negative")),
        sa.CheckConstraint("heard_ms >= 0", name=op.f("ck_utterances_heard_ms_not_negative")),
        sa.CheckConstraint("started_at_ms >= 0", name=op.f("ck_utterances_started_at_ms_not_negative")),
        sa.ForeignKeyConstraint(["call_id"], ["calls.call_id"], name=op.f("fk_utterances_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_id", "epoch", "key", name=op.f("pk_utterances")),
    )
    append_only("audit_log")


def append_only(table: str) -> None:
    """What is in the log stays as it is, whoever asks."""
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
    )


def downgrade() -> None:
    op.drop_table("utterances")
    op.drop_table("turns")
    op.drop_table("tool_invocations")
    op.drop_table("call_events")
    op.drop_table("workers")
    op.drop_table("calls")
    op.drop_table("business_messages")
    op.drop_table("business_customers")
    op.drop_table("business_appointments")
    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_append_only()")
