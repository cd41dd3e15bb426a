"""Reading at scale: the table of searched words, and the indexes of the list and the reports."""

import sqlalchemy as sa
from alembic import op

from migrations.safely import add_index, drop_index

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COUNTED = (
    *("state", "outcome", "end_reason", "disposition", "intent", "sentiment", "agent", "lead_score", "escalated", "needs_review"),
    *("analysis", "duration_ms", "latency_p50_ms", "latency_p95_ms", "barge_ins", "cost_usd"),
)
# A report reads an index alone only where PostgreSQL knows from its last VACUUM that the rows are old. By default that comes when a
# fifth of the table has changed: with a year's calls after two months, and of the last month, which is asked for, it knows nothing.
VACUUMED = {
    "calls": ("autovacuum_vacuum_scale_factor", "autovacuum_analyze_scale_factor"),
    "tool_invocations": ("autovacuum_vacuum_scale_factor", "autovacuum_vacuum_insert_scale_factor"),
    "search_tokens": ("autovacuum_vacuum_insert_scale_factor", "autovacuum_analyze_scale_factor"),
}
PART = 0.02
SORTED = ("lead_score", "duration_ms", "latency_p95_ms")


def upgrade() -> None:
    op.create_table(
        "search_tokens",
        sa.Column("token", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("call_id", sa.String(length=26), nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.call_id"], name=op.f("fk_search_tokens_call_id_calls"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token", "started_at", "call_id", name=op.f("pk_search_tokens")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_search_tokens_call_id"), "search_tokens", ["call_id"])
    add_index("ix_calls_by_time", "calls", ["started_at", "call_id", *COUNTED])
    for column in SORTED:
        add_index(f"ix_calls_{column}_call_id", "calls", [column, "call_id"])
    errands = ["status", "started_at", "name", "call_id"]
    add_index("ix_tool_invocations_errands", "tool_invocations", errands, where="kind = 'errand'")
    # what these did, the new ones do
    drop_index("ix_tool_invocations_status", "tool_invocations")
    drop_index("ix_calls_started_at", "calls")
    drop_index("ix_calls_disposition", "calls")
    if op.get_bind().dialect.name != "sqlite":
        for table, settings in VACUUMED.items():
            op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{setting} = {PART}' for setting in settings)})")


def downgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        for table, settings in VACUUMED.items():
            op.execute(f"ALTER TABLE {table} RESET ({', '.join(settings)})")
    add_index("ix_calls_started_at", "calls", ["started_at"])
    add_index("ix_calls_disposition", "calls", ["disposition"])
    add_index("ix_tool_invocations_status", "tool_invocations", ["status"])
    drop_index("ix_tool_invocations_errands", "tool_invocations")
    for column in reversed(SORTED):
        drop_index(f"ix_calls_{column}_call_id", "calls")
    drop_index("ix_calls_by_time", "calls")
    op.drop_table("search_tokens")
