"""The console: users, sessions, saved views, and the limits of sign-in."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def moment(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def words(column: str, *closed_list: str) -> sa.Enum:
    return sa.Enum(*closed_list, name=column, native_enum=False, create_constraint=True, length=32)


def of_user(table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], ["users.id"], name=op.f(f"fk_{table}_{column}_users"), ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", words("role", "operator", "reviewer", "admin"), nullable=False),
        sa.Column("password_hash", sa.Text()),
        sa.Column("email", sa.Text()),
        sa.Column("issuer", sa.Text()),
        sa.Column("subject", sa.Text()),
        moment("created_at", nullable=False),
        moment("updated_at", nullable=False),
        moment("password_changed_at"),
        moment("last_sign_in_at"),
        moment("disabled_at"),
        sa.CheckConstraint("(issuer IS NULL) = (subject IS NULL)", name=op.f("ck_users_issuer_and_subject")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_users_issuer_subject")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=26), nullable=False),
        sa.Column("signed_in_by", words("signed_in_by", "password", "provider"), nullable=False),
        sa.Column("browser", sa.Text()),
        moment("created_at", nullable=False),
        moment("seen_at", nullable=False),
        moment("expires_at", nullable=False),
        of_user("sessions", "user_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sessions_token_hash")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"])
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"])
    op.create_table(
        "saved_views",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("owner_id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        moment("created_at", nullable=False),
        moment("updated_at", nullable=False),
        of_user("saved_views", "owner_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_views")),
        sa.UniqueConstraint("owner_id", "name", name=op.f("uq_saved_views_owner_id_name")),
    )
    op.create_table(
        "sign_in_limits",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("due_ms >= 0", name=op.f("ck_sign_in_limits_due_ms_not_negative")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sign_in_limits")),
    )
    op.create_index(op.f("ix_sign_in_limits_due_ms"), "sign_in_limits", ["due_ms"])


def downgrade() -> None:
    for table in ("sign_in_limits", "saved_views", "sessions", "users"):
        op.drop_table(table)
