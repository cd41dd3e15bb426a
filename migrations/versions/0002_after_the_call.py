"""What comes after a call: its reading and review in `calls`, readings, judgements, deliveries, reconciliations."""

import sqlalchemy as sa
from alembic import op

from migrations.safely import add_columns, add_index, drop_index

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NEW = (
    *("sentiment_course", "analysis", "analysis_attempts", "analysis_due_at", "analysis_fault", "analyzer", "needs_review"),
    *("review_reasons", "reviewed_at", "reviewed_by", "revision", "carrier_price", "carrier_price_unit", "reconciled_at"),
)
CHECKS = {
    "analysis": "analysis IN ('waiting', 'done', 'failed')",
    "analysis_attempts_not_negative": "analysis_attempts >= 0",
    "carrier_price_not_negative": "carrier_price >= 0",
    "revision_not_negative": "revision >= 0",
}


def moment(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def row_id() -> sa.Column[object]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def words(column: str, *closed_list: str) -> sa.Enum:
    return sa.Enum(*closed_list, name=column, native_enum=False, create_constraint=True, length=32)


def of_call(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["call_id"], ["calls.call_id"], name=op.f(f"fk_{table}_call_id_calls"), ondelete="CASCADE")


def not_negative(table: str, *columns: str) -> list[sa.CheckConstraint]:
    return [sa.CheckConstraint(f"{column} >= 0", name=op.f(f"ck_{table}_{column}_not_negative")) for column in columns]


def upgrade() -> None:
    checks = dict(CHECKS)
    if op.get_bind().dialect.name == "sqlite":  # PostgreSQL knows true and false by itself
        checks["needs_review"] = "needs_review IN (0, 1)"
    add_columns(
        "calls",
        [
            sa.Column("sentiment_course", sa.JSON(none_as_null=True)),
            sa.Column("analysis", sa.String(length=32), nullable=False, server_default="waiting"),
            sa.Column("analysis_attempts", sa.Integer(), nullable=False, server_default="0"),
            moment("analysis_due_at"),
            sa.Column("analysis_fault", sa.Text()),
            sa.Column("analyzer", sa.Text()),
            sa.Column("needs_review", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("review_reasons", sa.JSON(none_as_null=True)),
            moment("reviewed_at"),
            sa.Column("reviewed_by", sa.Text()),
            sa.Column("revision", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("carrier_price", sa.Numeric(precision=12, scale=6, asdecimal=False)),
            sa.Column("carrier_price_unit", sa.Text()),
            moment("reconciled_at"),
        ],
        checks,
    )
    op.create_table(
        "readings",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("analyzer", sa.Text(), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("prompt_version", sa.Text(), nullable=False),
        sa.Column("rubric", sa.Text(), nullable=False),
        sa.Column("tokens_in", sa.BigInteger(), nullable=False),
        sa.Column("tokens_out", sa.BigInteger(), nullable=False),
        sa.Column("review_reasons", sa.JSON(none_as_null=True)),
        moment("created_at", nullable=False),
        moment("applied_at"),
        moment("withdrawn_at"),
        sa.Column("withdrawn_by", sa.Text()),
        *not_negative("readings", "tokens_in", "tokens_out"),
        of_call("readings"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_readings")),
        sa.UniqueConstraint("call_id", "batch", name=op.f("uq_readings_call_id_batch")),
    )
    op.create_index(op.f("ix_readings_batch"), "readings", ["batch"])
    op.create_table(
        "judgements",
        row_id(),
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("reading_id", sa.String(length=26)),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("value", sa.Text()),
        sa.Column("source", words("source", "agent", "machine", "operator"), nullable=False),
        sa.Column("evidence", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("confidence", sa.Float()),
        sa.Column("analyzer", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("prompt_version", sa.Text()),
        sa.Column("reasons", sa.Text()),
        sa.Column("dropped", sa.Text()),
        sa.Column("retracts", sa.Boolean(create_constraint=True, name="retracts"), nullable=False),
        sa.Column("said_by", sa.Text()),
        sa.Column("note", sa.Text()),
        moment("at", nullable=False),
        sa.CheckConstraint("confidence >= 0 AND confidence <= 1", name=op.f("ck_judgements_confidence_0_to_1")),
        sa.CheckConstraint("source <> 'operator' OR said_by IS NOT NULL", name=op.f("ck_judgements_operator_has_a_name")),
        of_call("judgements"),
        sa.ForeignKeyConstraint(
            ["reading_id"], ["readings.id"], name=op.f("fk_judgements_reading_id_readings"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_judgements")),
    )
    op.create_index(op.f("ix_judgements_call_id_field_id"), "judgements", ["call_id", "field", "id"])
    op.create_index(op.f("ix_judgements_reading_id"), "judgements", ["reading_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.Column("kind", words("kind", "webhook", "mail", "chat"), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", words("state", "pending", "delivered", "dead"), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        moment("next_attempt_at"),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_fault", sa.Text()),
        moment("created_at", nullable=False),
        moment("delivered_at"),
        moment("updated_at", nullable=False),
        *not_negative("deliveries", "revision", "attempts"),
        sa.CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name=op.f("ck_deliveries_pending_is_due")),
        of_call("deliveries"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            *("call_id", "kind", "destination", "event", "revision"),
            name=op.f("uq_deliveries_call_id_kind_destination_event_revision"),
        ),
    )
    op.create_index(op.f("ix_deliveries_state_created_at"), "deliveries", ["state", "created_at"])
    op.create_table(
        "reconciliations",
        row_id(),
        moment("at", nullable=False),
        moment("since_at", nullable=False),
        moment("until_at", nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("gaps", sa.Integer(), nullable=False),
        sa.Column("repaired", sa.Integer(), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True)),
        *not_negative("reconciliations", "calls", "gaps", "repaired"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
    )
    op.create_index(op.f("ix_reconciliations_at"), "reconciliations", ["at"])
    add_index("ix_calls_analysis_due_at", "calls", ["analysis_due_at"], where="analysis_due_at IS NOT NULL")
    add_index("ix_deliveries_next_attempt_at", "deliveries", ["next_attempt_at"], where="next_attempt_at IS NOT NULL")


def downgrade() -> None:
    drop_index("ix_calls_analysis_due_at", "calls")
    for table in ("reconciliations", "deliveries", "judgements", "readings"):
        op.drop_table(table)
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("calls") as batch:
        for name in (*CHECKS, *(("needs_review",) if on_sqlite else ())):
            batch.drop_constraint(op.f(f"ck_calls_{name}"), type_="check")
        for column in reversed(NEW):
            batch.drop_column(column)
