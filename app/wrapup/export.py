"""Finished rows as a file: CSV for spreadsheets, JSON after the schema for programs. Text comes piece by piece, however many rows.

Rule 1: no cell of a CSV is a formula to anybody's spreadsheet: what might be one begins with an apostrophe. All cells are quoted.
Rule 2: CSV is flat and for people: moments by the business's clocks, one column for each part of a slot. What a value rests on is
in the JSON, which is the very row that webhooks deliver.
Rule 3: memory does not grow with the number of rows.
"""

import csv
import dataclasses
import io
import json
import unicodedata
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from app.store import pages
from app.store.engine import Database
from app.store.filters import Filters
from app.store.listing import Listing, Sort, SortBy
from app.store.tables import RowState
from app.wrapup.row import Row, Slot

PAGE = 500
"""Rows of the flat form that are read at once."""
WHOLE_PAGE = 100
"""Rows with all that belongs to them."""
SLOTS = ("name", "callback_number", "reason")
OTHER_SLOTS = "other_slots"
"""What was noted under a name that has no column, as JSON."""
BOM = "\ufeff"

FLAT = (
    *("call_id", "started_at", "duration_ms", "channel", "direction", "from_number", "to_number", "forwarded_from", "agent"),
    *("outcome", "end_reason", "disposition", "intent", "lead_score", "urgency", "sentiment", "sentiment_course"),
    *("escalated", "escalation_reason", "summary", "next_action"),
)
"""What people look at first; then the slots; then the rest."""
REST = (
    *("needs_review", "review_reasons", "reviewed_at", "analysis", "analysis_fault", "analyzer", "analyzed_at"),
    *("answered_at", "ended_at", "finished_at", "updated_at", "agent_path", "transfer_to", "turns", "barge_ins"),
    *("latency_p50_ms", "latency_p95_ms", "tokens_in", "tokens_out", "cost_usd", "prices_date"),
    *("carrier_status", "carrier_duration_s", "carrier_price", "carrier_price_unit", "caller_attestation"),
    *("model", "prompt_version", "audio_path", "carrier_call_sid", "revision", "version"),
)
NOT_FLAT = ("slots", "judged", "usage")
OF_A_SLOT = ("", "_confirmed", "_source", "_second_reading")

FORMULA = frozenset("=+-@\u2212")
"""As a spreadsheet reads them; full-width and small forms are these in compatibility form (NFKC)."""


class Form(StrEnum):
    """How the rows are written."""

    CSV = "csv"
    JSON = "json"
    """One array."""
    JSONL = "jsonl"
    """One row a line."""


class Export:
    """Exports of one database.

    Args:
        database: where the rows are.
        zone: of the business, for CSV.
        slots: names of slots that get columns of their own, besides those that every reading knows.
    """

    def __init__(self, database: Database, *, zone: ZoneInfo, slots: Iterable[str] = ()) -> None:
        self._database, self._zone = database, zone
        self._slots = tuple(dict.fromkeys((*SLOTS, *slots)))

    async def written(self, form: Form, filters: Filters, *, excel: bool = False) -> AsyncGenerator[tuple[str, int]]:
        """The file in pieces, each with the number of rows in it; the oldest call first. Calls that still go on are left out.

        `excel`: CSV with a mark of its encoding, and with moments as Excel reads them: by the business's clocks and without offset.
        """
        match form:
            case Form.CSV:
                yield (BOM if excel else "") + _lines([self.columns]), 0
                async for rows in self._pages(filters, whole=False):
                    yield _lines(self._cells(row, excel=excel) for row in rows), len(rows)
            case Form.JSONL:
                async for rows in self._pages(filters, whole=True):
                    yield "".join(f"{_json(row)}\n" for row in rows), len(rows)
            case Form.JSON:
                before = "[\n"
                async for rows in self._pages(filters, whole=True):
                    yield before + ",\n".join(_json(row) for row in rows), len(rows)
                    before = ",\n"
                yield ("[]\n" if before == "[\n" else "\n]\n"), 0

    @property
    def columns(self) -> list[str]:
        """The columns of the CSV."""
        of_slots = [f"slot_{name}{part}" for name in self._slots for part in OF_A_SLOT]
        return [*FLAT, *of_slots, OTHER_SLOTS, *REST]

    async def _pages(self, filters: Filters, *, whole: bool) -> AsyncGenerator[list[Row]]:
        read, most = (pages.rows_of, WHOLE_PAGE) if whole else (pages.columns_of, PAGE)
        finished = dataclasses.replace(filters, state=(RowState.FINAL.value,))
        names: list[str] = []
        async for call_id in Listing(self._database).ids(finished, Sort(SortBy.STARTED_AT, descending=False)):
            names.append(call_id)
            if len(names) == most:
                yield [Row.of(row) for row in await read(self._database, names)]
                names = []
        if names:
            yield [Row.of(row) for row in await read(self._database, names)]

    def _cells(self, row: Row, *, excel: bool) -> list[str]:
        return [
            *(self._cell(getattr(row, name), excel=excel) for name in FLAT),
            *(cell for name in self._slots for cell in _slot_cells(row.slots.get(name))),
            _other_slots({name: slot for name, slot in row.slots.items() if name not in self._slots}),
            *(self._cell(getattr(row, name), excel=excel) for name in REST),
        ]

    def _cell(self, value: Any, *, excel: bool) -> str:
        if isinstance(value, datetime):
            local = value.astimezone(self._zone)
            return f"{local:%Y-%m-%d %H:%M:%S}" if excel else local.isoformat(timespec="seconds")
        return _text(value)


def safe(cell: str) -> str:
    """The cell as no spreadsheet computes it: an apostrophe before what begins, spaces aside, like a formula or with a control.

    The characters are those of OWASP's "CSV Injection", with their look-alikes.
    """
    for character in cell:
        if unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cf"):
            continue  # spaces, and what is not seen at all
        control = unicodedata.category(character) == "Cc"
        return f"'{cell}" if control or unicodedata.normalize("NFKC", character)[:1] in FORMULA else cell
    return cell


def _lines(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows([safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6f}"
        case list():
            return "; ".join(str(part) for part in value)
        case Mapping():
            return "; ".join(f"{name}: {part}" for name, part in value.items())
    return str(value)


def _slot_cells(slot: Slot | None) -> list[str]:
    if slot is None:
        return [""] * len(OF_A_SLOT)
    second = slot.second_reading.value if slot.second_reading is not None else None
    return [_text(slot.value), _text(slot.confirmed), slot.source.value, _text(second)]


def _other_slots(slots: Mapping[str, Slot]) -> str:
    return json.dumps({name: slot.value for name, slot in slots.items()}, ensure_ascii=False) if slots else ""


def _json(row: Row) -> str:
    return json.dumps(row.json_ready(), ensure_ascii=False, separators=(",", ":"))
