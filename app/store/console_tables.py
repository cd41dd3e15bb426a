"""The tables of the operators' console: who may sign in, who is signed in, and the lists that somebody has kept.

Rule 1: a session is a random word that only its browser knows. Here lies its SHA-256: a copy of the database signs nobody in.
Rule 2: an account is never deleted, only disabled: the audit log and the judgements name it.
Rule 3: names and e-mail addresses of the people who work here are looked up and shown, and so are not `Private`; what they search
for is.
"""

from enum import StrEnum

import sqlalchemy as sa

from app.store.private import CallName, PlainText, Private
from app.store.tables import Moment, json_column, metadata, not_negative, one_of


class Role(StrEnum):
    """What somebody may do in the console. Each may do all that those before it may."""

    OPERATOR = "operator"
    REVIEWER = "reviewer"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """0 for the least."""
        return list(Role).index(self)

    def includes(self, other: "Role") -> bool:
        """Whether who has this role may do what that one may."""
        return self.rank >= other.rank


class SignedInBy(StrEnum):
    """How a session began."""

    PASSWORD = "password"  # noqa: S105 (a word, not a password)
    PROVIDER = "provider"
    """The identity provider said who it is (OpenID Connect)."""


def _of_user(column: str) -> sa.Column[str]:
    return sa.Column(column, CallName(), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False)


users = sa.Table(
    "users",
    metadata,
    sa.Column("id", CallName(), primary_key=True),
    sa.Column("name", PlainText, nullable=False, unique=True),
    sa.Column("role", one_of(Role, "role"), nullable=False),
    sa.Column("password_hash", PlainText),
    sa.Column("email", PlainText, unique=True),
    sa.Column("issuer", PlainText),
    sa.Column("subject", PlainText),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
    sa.Column("password_changed_at", Moment),
    sa.Column("last_sign_in_at", Moment),
    sa.Column("disabled_at", Moment),
    sa.UniqueConstraint("issuer", "subject"),
    sa.CheckConstraint("(issuer IS NULL) = (subject IS NULL)", name="issuer_and_subject"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", CallName(), primary_key=True),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
    _of_user("user_id"),
    sa.Column("signed_in_by", one_of(SignedInBy, "signed_in_by"), nullable=False),
    sa.Column("browser", PlainText),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("seen_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
    sa.Index(None, "user_id"),
    sa.Index(None, "expires_at"),
)

saved_views = sa.Table(
    "saved_views",
    metadata,
    sa.Column("id", CallName(), primary_key=True),
    _of_user("owner_id"),
    sa.Column("name", PlainText, nullable=False),
    sa.Column("query", Private("saved_views.query"), nullable=False),
    sa.Column("shared", sa.Boolean(create_constraint=True, name="shared"), nullable=False, server_default=sa.false()),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
    sa.UniqueConstraint("owner_id", "name"),
)

preferences = sa.Table(
    "preferences",
    metadata,
    sa.Column("user_id", CallName(), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    json_column("columns"),
    sa.Column("default_view_id", CallName(), sa.ForeignKey("saved_views.id", ondelete="SET NULL")),
    sa.Index(None, "default_view_id"),
)

sign_in_limits = sa.Table(
    "sign_in_limits",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("due_ms", sa.BigInteger, nullable=False),
    *not_negative("due_ms"),
    sa.Index(None, "due_ms"),
)
