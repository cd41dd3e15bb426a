"""A believable year of calls, made by the database itself, a statement a table; the same on SQLite and PostgreSQL, and every time.

What a call is like follows from its number by arithmetic. The calls lie in the tables as they came, those of a day between seven
and seven o'clock. Secondary indexes and foreign keys are taken away first and made afterwards, as one does with so many rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from app.store.identity import ALPHABET
from app.store.private import Seal

NOW = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)
DAYS = 365
LIVE = 12
PRIME = 2**31 - 1
OURS, CALLER = "+15550100199", "+15550100001"
RETIRED = "spring-campaign"
"""An agent that answered in the first months only, and so on none of the newest pages."""
WORDS = {"garden": 300_000, "roof": 30_000, "invoice": 3_500, "unicorn": 40}
"""Words that somebody searches for, and in how many of a million calls each is."""
WORDS_A_CALL, VOCABULARY = 30, 20_000

TALKED = "outcome IN ('completed', 'transferred')"
DISPOSITIONS = (
    *((180, "appointment_booked"), (200, "message_taken"), (250, "information_given"), (120, "sales_lead")),
    *((100, "callback_requested"), (60, "transferred"), (60, "not_interested"), (4, "wrong_number"), (26, "other")),
)
"""With their shares of a thousand."""
TABLES = ("calls", "turns", "tool_invocations", "search_tokens")


def dice(column: str, salt: int) -> str:
    """A number below 2**31 that follows from the row's and looks like none of its neighbours'."""
    mixed = f"(({column} * {(salt * 48_271_113) % PRIME} + {salt * 7_919}) % {PRIME})"
    return f"(({mixed} * {mixed}) % {PRIME})"


def pick(roll: str, *choices: tuple[int, str]) -> str:
    """One of several values, by their shares of a thousand; the last takes what is left."""
    text, below = "CASE", 0
    for share, value in choices[:-1]:
        below += share
        text += f" WHEN {roll} % 1000 < {below} THEN {value}"
    return f"{text} ELSE {choices[-1][1]} END"


def quoted(*choices: tuple[int, str]) -> list[tuple[int, str]]:
    return [(share, f"'{value}'") for share, value in choices]


def letters(number: str, count: int) -> str:
    """The last `5 * count` bits of a number in the alphabet of our names."""
    return " || ".join(
        f"substr('{ALPHABET}', CAST(({number} >> {shift}) & 31 AS INTEGER) + 1, 1)" for shift in range(5 * (count - 1), -5, -5)
    )


class Year:
    """Fills a migrated, empty database."""

    def __init__(self, connection: sa.Connection, rows: int) -> None:
        self._connection = connection
        self._rows = rows
        self._embedded = connection.dialect.name == "sqlite"
        self._seal = Seal()

    def fill(self) -> None:
        """All of it, committed."""
        if not self._embedded:
            for setting in ("jit = off", "work_mem = '128MB'", "maintenance_work_mem = '256MB'"):
                self._do(f"SET {setting}")
        with self._bare():
            for statement in (self._calls(), self._turns(), self._errands(), *self._tokens()):
                self._do(statement)
                self._connection.commit()

    def _do(self, statement: str) -> None:
        self._connection.exec_driver_sql(statement.replace("%", "%%") if not self._embedded else statement)

    def _moment(self, ms: str) -> str:
        if self._embedded:
            return f"strftime('%Y-%m-%d %H:%M:%f000', ({ms}) / 1000.0, 'unixepoch')"
        return f"to_timestamp(({ms}) / 1000.0)"

    def _numbers(self, first: str, last: str) -> str:
        if self._embedded:
            return f"(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n)"
        return f"(SELECT i::bigint AS i FROM generate_series({first}, {last}) AS i)"

    def _calls(self) -> str:
        begin = int((NOW - timedelta(days=DAYS)).replace(hour=0).timestamp() * 1_000)
        of_day = f"((i * {DAYS}) % {self._rows}) * 43200000 / {self._rows}"
        ms = f"({begin} + (i * {DAYS} / {self._rows}) * 86400000 + 25200000 + {of_day})"
        fence = f"LIMIT {self._rows}"  # so that what is below is worked out once a row, and not at every mention
        rolls = ", ".join(f"{dice('i', salt)} AS r{salt}" for salt in range(1, 14))
        base = f"SELECT i, {ms} AS ms, {rolls} FROM {self._numbers('0', str(self._rows - 1))} AS numbers {fence}"
        live = f"i >= {self._rows - LIVE}"
        outcome = pick(
            "r1",
            *quoted(
                (720, "completed"), (80, "transferred"), (100, "abandoned"), (50, "no_speech"), (35, "turned_away"), (15, "failed")
            ),
        )
        second = f"SELECT base.*, CASE WHEN {live} THEN NULL ELSE {outcome} END AS outcome FROM ({base}) AS base {fence}"
        reason = (
            "CASE outcome WHEN 'completed' THEN CASE WHEN r2 % 3 = 0 THEN 'caller_hung_up' ELSE 'agent_ended' END "
            "WHEN 'transferred' THEN 'transferred' WHEN 'abandoned' THEN 'caller_hung_up' WHEN 'no_speech' THEN 'silence' "
            "WHEN 'turned_away' THEN 'full_house' WHEN 'failed' THEN 'model_unavailable' END"
        )
        duration = f"CASE WHEN {live} THEN NULL WHEN {TALKED} THEN 8000 + (r3 % 420000) * (1 + r4 % 100) / 100 ELSE r3 % 9000 END"
        talked = lambda value: f"CASE WHEN {TALKED} THEN {value} END"  # noqa: E731
        true, false = ("1", "0") if self._embedded else ("true", "false")
        ended = f"CASE WHEN {live} THEN NULL ELSE {self._moment('ms + 60000')} END"
        someone = "(2000000 + r5 % 90000)"
        caller = f"CASE WHEN i % 25000 = 7 THEN '{CALLER}' ELSE '+1555' || {someone} END"
        blind = f"CASE WHEN i % 25000 = 7 THEN '{self._seal.blind_index(CALLER)}' ELSE '{'a' * 24}0' || {someone} END"
        filler = "a conversation with some words in it that nobody will ever read again; "
        noted = '"confirmed":true,"utterance":"u3","agent":"front-desk","at":41200'
        slots = (
            f"""'{{"name":{{"value":"Maria Lopez ' || i || '",{noted}}},'"""
            f""" || '"callback_number":{{"value":"+1555' || {someone} || '",{noted}}}}}'"""
        )
        columns = {
            "call_id": f"{letters('ms', 10)} || {letters('r6', 6)} || {letters('r7', 6)} || {letters('r8', 4)}",
            "carrier_call_sid": "'CA' || (100000000000 + i)",
            "account_sid": "'AC00000000000000000000000000000001'",
            "channel": "'phone'",
            "direction": "'inbound'",
            "from_number": caller,
            "from_index": blind,
            "to_number": f"'{OURS}'",
            "to_index": f"'{self._seal.blind_index(OURS)}'",
            "agent": pick(
                "r9",
                (600, "'front-desk'"),
                (250, "'sales'"),
                (100, "'support'"),
                (50, f"CASE WHEN i < {self._rows // 6} THEN '{RETIRED}' ELSE 'sales' END"),
            ),
            "agent_path": "'[\"front-desk\"]'",
            "epoch": "1",
            "claimed_epoch": "1",
            "next_step": "'talk'",
            "resume_attempts": "0",
            "state": f"CASE WHEN {live} THEN 'live' ELSE 'final' END",
            "started_at": self._moment("ms"),
            "answered_at": self._moment("ms + 900"),
            "ended_at": ended,
            "finished_at": ended,
            "analyzed_at": ended,
            "duration_ms": duration,
            "outcome": "outcome",
            "end_reason": reason,
            "disposition": talked(pick("r2", *quoted(*DISPOSITIONS))),
            "slots": f"CASE WHEN {TALKED} THEN {slots} END",
            "memory": f'\'{{"agent":"front-desk","note":"{filler * 6}\' || i || \'"}}\'',
            "summary": talked(
                "'Maria Lopez wants her garden looked at in the week of number ' || i || '. She will be called back.'"
            ),
            "sentiment": talked(pick("r10", *quoted((120, "negative"), (550, "neutral"), (330, "positive")))),
            "intent": talked(
                pick(
                    "r11",
                    *quoted(
                        (250, "book_appointment"),
                        (150, "buy"),
                        (250, "support"),
                        (80, "complaint"),
                        (200, "leave_message"),
                        (70, "other"),
                    ),
                )
            ),
            "lead_score": talked("CASE WHEN r12 % 20 = 0 THEN NULL ELSE (r12 / 32 % 101) * (r13 / 32 % 101) / 100 END"),
            "urgency": talked(pick("r13", *quoted((250, "low"), (700, "normal"), (50, "high")))),
            "escalated": f"CASE WHEN r10 / 1000 % 100 < 3 THEN {true} ELSE {false} END",
            "next_action": talked("'Call her back on Tuesday before noon, number ' || i"),
            "analysis": f"CASE WHEN {live} THEN 'waiting' WHEN r11 / 1000 % 1000 < 2 THEN 'failed' ELSE 'done' END",
            "needs_review": f"CASE WHEN r12 / 1000 % 100 < 6 THEN {true} ELSE {false} END",
            "revision": "2",
            "turns": "r9 / 1000 % 14",
            "barge_ins": "CASE WHEN r9 / 1000 % 10 < 3 THEN r9 / 10000 % 3 + 1 ELSE 0 END",
            "latency_p50_ms": talked("500 + r6 % 500"),
            "latency_p95_ms": talked("500 + r6 % 500 + r7 % 900"),
            "usage": "'{}'",
            "tokens_in": "5000 + r3 % 9000",
            "tokens_out": "900 + r4 % 2000",
            "cost_usd": talked("0.02 + (r8 % 20000) / 100000.0"),
            "model": "'gpt-realtime-2.1'",
            "audio_path": "'transcode'",
            "created_at": self._moment("ms"),
            "updated_at": self._moment("ms + 61000"),
        }
        return f"INSERT INTO calls ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM ({second}) AS rolled"

    def _some_calls(self, share: int, columns: str = "") -> str:
        """The newest part of the calls, with their place from 0; few tables are needed for the whole year."""
        newest = f"SELECT call_id, started_at, outcome{columns} FROM calls ORDER BY started_at DESC LIMIT {self._rows // share}"
        return f"(SELECT newest.*, row_number() OVER (ORDER BY call_id) AS i FROM ({newest}) AS newest)"

    def _turns(self) -> str:
        """Six turns of each call of the last quarter of the year."""
        roll = dice("(c.i * 7 + n.i)", 3)
        latency = f"500 + {roll} % 600 + CASE WHEN {roll} / 1000 % 100 < 4 THEN {roll} / 512 % 2500 ELSE 0 END"
        false = "0" if self._embedded else "false"
        return (
            "INSERT INTO turns (call_id, epoch, number, agent, utterance, requested_at_ms, latency_ms, tools, interrupted) "
            f"SELECT c.call_id, 1, n.i, 'front-desk', 'u' || n.i, 9000 * n.i, {latency}, 0, {false} "
            f"FROM {self._some_calls(4)} AS c CROSS JOIN {self._numbers('1', '6')} AS n WHERE c.{TALKED} ORDER BY c.call_id, n.i"
        )

    def _errands(self) -> str:
        """Two errands in three calls where there was a talk, and the controls of those of the last quarter."""
        roll = dice("c.i", 5)
        true = "1" if self._embedded else "true"
        status = pick(f"{roll} / 64", *quoted((950, "done"), (25, "failed"), (20, "refused"), (5, "unknown")))
        name = pick(f"{roll} / 4096", *quoted((500, "find_customer"), (300, "book_appointment"), (200, "take_message")))
        kind = "CASE n.i WHEN 1 THEN 'errand' ELSE 'control' END"
        return (
            "INSERT INTO tool_invocations "
            "(call_id, epoch, tool_call, name, agent, kind, effect, status, started_at, finished_at, attempts) "
            f"SELECT c.call_id, 1, 't' || n.i, CASE n.i WHEN 1 THEN {name} ELSE 'note' END, 'front-desk', {kind}, {true}, "
            f"CASE n.i WHEN 1 THEN {status} ELSE 'done' END, c.started_at, c.started_at, 1 "
            f"FROM {self._some_calls(1)} AS c CROSS JOIN {self._numbers('1', '3')} AS n "
            f"WHERE c.{TALKED} AND c.i % 3 > 0 AND (n.i = 1 OR c.i > {self._rows * 3 // 4}) ORDER BY c.call_id"
        )

    def _tokens(self) -> Iterator[str]:
        """The words of the last twentieth of the calls, the frequent ones often; and some words over the whole year."""
        roll = dice("(c.i * 31 + n.i)", 7)
        frequent = (
            f"({roll} % {VOCABULARY}) * ({roll} / 64 % {VOCABULARY}) / {VOCABULARY} * ({roll} / 4096 % {VOCABULARY}) / {VOCABULARY}"
        )
        yield (
            f"INSERT INTO search_tokens (token, started_at, call_id) SELECT DISTINCT {frequent}, c.started_at, c.call_id "
            f"FROM {self._some_calls(20)} AS c CROSS JOIN {self._numbers('1', str(WORDS_A_CALL))} AS n ORDER BY 1, 2, 3"
        )
        words = " UNION ALL ".join(
            f"SELECT {self._seal.blind_word(word)} AS token, {often} AS often, {salt} AS salt"
            for salt, (word, often) in enumerate(WORDS.items(), 20)
        )
        yield (
            "INSERT INTO search_tokens (token, started_at, call_id) SELECT w.token, c.started_at, c.call_id "
            f"FROM {self._some_calls(1)} AS c CROSS JOIN ({words}) AS w "
            f"WHERE {dice('(c.i * w.salt)', 11)} % 1000000 < w.often ORDER BY 1, 2, 3"
        )

    @contextmanager
    def _bare(self) -> Iterator[None]:
        """Without what is dear to keep up to date row by row."""
        if self._embedded:
            found = self._connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            ).all()
            drop, make = [f"DROP INDEX {name}" for name, _ in found], [statement for _, statement in found]
        else:
            tables = ", ".join(f"'{name}'::regclass" for name in TABLES)
            indexes = self._connection.exec_driver_sql(
                "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
                f"WHERE indrelid IN ({tables}) AND NOT indisunique"
            ).all()
            keys = self._connection.exec_driver_sql(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
                f"WHERE contype = 'f' AND conrelid IN ({tables})"
            ).all()
            drop = [f"DROP INDEX {name}" for name, _ in indexes] + [
                f"ALTER TABLE {table} DROP CONSTRAINT {name}" for table, name, _ in keys
            ]
            make = [text for _, text in indexes] + [
                f"ALTER TABLE {table} ADD CONSTRAINT {name} {text}" for table, name, text in keys
            ]
        for statement in drop:
            self._do(statement)
        self._connection.commit()
        yield
        for statement in make:
            self._do(statement)
        self._connection.commit()
