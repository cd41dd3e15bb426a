"""Watches a migration on PostgreSQL and says which of its statements a big table would not bear while calls are in progress.

Asked is the database itself, within the transaction of the statement: which locks we hold (`pg_locks`), which files are new
(`pg_class.relfilenode`), how many rows we read one after the other, changed and removed (`pg_stat_xact_user_tables`).
Rule 1: while a lock is held that keeps others from writing a table that was there before, no such table is read whole; and none is
ever rewritten.
Rule 2: no transaction changes or removes more than a part of a table: the rows stay locked until its end.
What runs outside a transaction is tried inside one first and rolled back. What PostgreSQL refuses to do there (to build an index
CONCURRENTLY, to VACUUM) locks nobody out, unless it rewrites the table.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from psycopg import sql

from app.store import migrate
from app.store.engine import migration_engine

ROWS = 400
"""In each table that is watched."""
PART = ROWS // 2
"""Who reads, changes or removes as many rows has gone over the table; who goes by batches stays below."""

# The modes are those that conflict with the one of INSERT, UPDATE and DELETE (PostgreSQL's manual, 13.3.1).
STATE = """
SELECT c.oid, c.relname, c.relfilenode, coalesce(s.seq_tup_read, 0), coalesce(s.n_tup_upd + s.n_tup_del, 0),
       EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = pg_backend_pid() AND l.relation = c.oid AND l.granted
               AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
FROM pg_class AS c LEFT JOIN pg_stat_xact_user_tables AS s ON s.relid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
"""


@dataclass(frozen=True, slots=True)
class Table:
    """What the database says of a table at a moment."""

    name: str
    file: int
    """Another one: the table was rewritten."""
    read: int
    changed: int
    locked: bool
    """By us, against those who write."""


class Enough(Exception):
    """Raised by a migration of the tests at its end: it was looked at, and all of it is to be undone."""


type State = dict[int, Table]


def look(connection: "psycopg.Connection[Any]") -> State:
    """All tables, by their number, which stays when they are renamed."""
    with connection.cursor() as cursor:
        return {oid: Table(*told) for oid, *told in cursor.execute(STATE).fetchall()}


@dataclass(slots=True)
class Watch:
    """Listens to the statements of one migration. Tables that it makes itself are nobody's concern."""

    tables: State
    """That were there before."""
    complaints: list[str] = field(default_factory=list)
    _began: State = field(default_factory=dict)
    """The tables when the transaction began; empty outside of any."""
    _before: State = field(default_factory=dict)
    """The tables when the statement began."""

    def listen(self, engine: sa.Engine) -> None:
        """Hear everything that is sent on connections of this engine from now on."""
        sa.event.listen(engine, "before_cursor_execute", self._before_statement)
        sa.event.listen(engine, "after_cursor_execute", self._after_statement)
        for end in ("commit", "rollback"):
            sa.event.listen(engine, end, self._ended)

    def _before_statement(self, _c: Any, cursor: Any, statement: str, parameters: Any, _x: Any, _many: bool) -> None:
        if cursor.connection.autocommit:
            self._try(cursor.connection, statement, parameters)
        self._before = look(cursor.connection)
        self._began = self._began or self._before

    def _after_statement(self, _c: Any, cursor: Any, statement: str, _parameters: Any, _x: Any, _many: bool) -> None:
        after = look(cursor.connection)
        if cursor.connection.autocommit:
            self._judge_files(after, statement)
        else:
            self._judge(after, statement)

    def _ended(self, _connection: Any) -> None:
        self._began = {}

    def _try(self, connection: "psycopg.Connection[Any]", statement: str, parameters: Any) -> None:
        """A statement outside of any transaction: what would it do inside of one?"""
        connection.execute("BEGIN")
        try:
            self._began = self._before = look(connection)
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
            self._judge(look(connection), statement)
        except psycopg.errors.ActiveSqlTransaction:
            pass  # what it does outside of one will be seen by its traces
        finally:
            connection.execute("ROLLBACK")
            self._began = {}

    def _judge(self, after: State, statement: str) -> None:
        """Both rules, for a statement that is done and whose transaction is not."""
        self._judge_files(after, statement)
        locked = ", ".join(sorted(after[oid].name for oid in self.tables if oid in after and after[oid].locked))
        for oid in self.tables.keys() & after.keys():
            now, before, began = after[oid], self._before[oid], self._began[oid]
            if now.read - before.read >= PART and locked:
                self._complain(statement, f"reads {now.name} whole while nobody can write {locked}")
            if now.changed - began.changed >= PART > before.changed - began.changed:
                self._complain(statement, f"changes {now.name} whole in one transaction")

    def _judge_files(self, after: State, statement: str) -> None:
        for oid in self.tables.keys() & after.keys():
            if after[oid].file != self._before[oid].file:
                self._complain(statement, f"rewrites {after[oid].name}")

    def _complain(self, statement: str, why: str) -> None:
        complaint = f"{why}: {' '.join(statement.split())[:100]}"
        if complaint not in self.complaints:  # a statement outside of a transaction was tried before
            self.complaints.append(complaint)


def complaints(url: str, revision: str, scripts: Path | None = None) -> list[str]:
    """Migrate to a revision, by the scripts of another folder if one is given; what a big table would not bear."""
    engine = migration_engine(url)
    try:
        with engine.connect() as connection:
            watch = Watch(look(connection.connection.driver_connection))
            connection.rollback()
            watch.listen(engine)
            config = migrate.config(connection)
            if scripts is not None:
                config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            with suppress(Enough):
                command.upgrade(config, revision)
                connection.commit()
    finally:
        engine.dispose()
    return watch.complaints


def fill(url: str) -> None:
    """Put `ROWS` rows into every table that is empty.

    Raises:
        LookupError: nobody has said what the rows of a table look like.
    """
    with psycopg.connect(url) as connection:
        for table in sorted((found.name for found in look(connection).values()), key=lambda name: (name not in FIRST, name)):
            if connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(table))).fetchone() is not None:
                continue
            if table not in FILLED:
                raise LookupError(f"say in tests/store/big_tables.py how rows of {table} are made")
            columns, values = FILLED[table]
            connection.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM generate_series(1, {ROWS}) AS i")


NAME = "lpad(i::text, 26, '0')"
FIRST = ("calls", "readings", "users")
FILLED = {
    "calls": (
        "call_id, channel, direction, agent, agent_path, epoch, claimed_epoch, next_step, resume_attempts, state, started_at, "
        "escalated, turns, barge_ins, created_at, updated_at",
        f"{NAME}, 'phone', 'inbound', 'front-desk', '[]', 1, 0, 'talk', 0, 'live', now(), false, 0, 0, now(), now()",
    ),
    "utterances": (
        "call_id, epoch, key, position, speaker, started_at_ms, ended_at_ms, interrupted, untranscribed",
        f"{NAME}, 1, 'u1', 1, 'caller', 0, 0, false, false",
    ),
    "turns": ("call_id, epoch, number, agent, requested_at_ms, tools, interrupted", f"{NAME}, 1, 1, 'front-desk', 0, 0, false"),
    "call_events": ("call_id, epoch, seq, at_ms, name", f"{NAME}, 1, 1, 0, 'Said'"),
    "tool_invocations": (
        "call_id, epoch, tool_call, name, agent, kind, effect, status, started_at, attempts",
        f"{NAME}, 1, 't1', 'find_customer', 'front-desk', 'errand', false, 'intended', now(), 0",
    ),
    "workers": ("id, started_at, heartbeat_at, live_calls", f"{NAME}, now(), now(), 0"),
    "audit_log": ("seq, at, actor, action, prev_hash, hash", "i, now(), 'ann', 'looked', '', i::text"),
    "business_customers": ("number, number_index, name", "'+1', i::text, 'Maria'"),
    "business_appointments": (
        "opening, call_id, tool_call, created_at",
        f"now() + i * interval '1 hour', {NAME}, 't1', now()",
    ),
    "business_messages": ("call_id, tool_call, text, created_at", f"{NAME}, 't1', 'hello', now()"),
    "readings": (
        "id, call_id, batch, analyzer, prompt_version, rubric, tokens_in, tokens_out, created_at",
        f"{NAME}, {NAME}, 'call', 'rules', '1', '1', 0, 0, now()",
    ),
    "judgements": ("call_id, field, source, evidence, retracts, at", f"{NAME}, 'intent', 'agent', '[]', false, now()"),
    "deliveries": (
        "id, call_id, kind, destination, event, revision, body, state, attempts, created_at, updated_at",
        f"{NAME}, {NAME}, 'webhook', 'crm', 'call.finished', 1, '', 'dead', 0, now(), now()",
    ),
    "reconciliations": ("at, since_at, until_at, calls, gaps, repaired", "now(), now(), now(), 0, 0, 0"),
    "search_tokens": ("token, started_at, call_id", f"i, now(), {NAME}"),
    "users": ("id, name, role, created_at, updated_at", f"{NAME}, i::text, 'operator', now(), now()"),
    "sessions": (
        "id, token_hash, user_id, signed_in_by, created_at, seen_at, expires_at",
        f"{NAME}, i::text, {NAME}, 'password', now(), now(), now()",
    ),
    "saved_views": ("id, owner_id, name, query, created_at, updated_at", f"{NAME}, {NAME}, 'mine', '', now(), now()"),
    "preferences": ("user_id", NAME),
    "sign_in_limits": ("key, due_ms", "i::text, 0"),
}
"""What a row of each table is made of when the table is new: its columns, and their values for the row number i."""
