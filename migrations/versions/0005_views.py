"""Saved views may be shared; what each user chose for the call list."""

import sqlalchemy as sa
from alembic import op

from migrations.safely import add_columns

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # PostgreSQL knows true and false by itself
    checks = {"shared": "shared IN (0, 1)"} if op.get_bind().dialect.name == "sqlite" else {}
    add_columns("saved_views", [sa.Column("shared", sa.Boolean(), nullable=False, server_default=sa.false())], checks)
    op.create_table(
        "preferences",
        sa.Column("user_id", sa.String(length=26), nullable=False),
        sa.Column("columns", sa.JSON(none_as_null=True)),
        sa.Column("default_view_id", sa.String(length=26)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_preferences_user_id_users"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["default_view_id"], ["saved_views.id"], name=op.f("fk_preferences_default_view_id_saved_views"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_preferences")),
    )
    op.create_index(op.f("ix_preferences_default_view_id"), "preferences", ["default_view_id"])


def downgrade() -> None:
    op.drop_table("preferences")
    with op.batch_alter_table("saved_views") as batch:
        if op.get_bind().dialect.name == "sqlite":
            batch.drop_constraint(op.f("ck_saved_views_shared"), type_="check")
        batch.drop_column("shared")
