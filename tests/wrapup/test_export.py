"""Exports: what stands in them, that no cell is a formula, and that they do not grow in memory."""

import csv
import io
import json
import tracemalloc
import unicodedata
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.call.disposition import Memory, Outcome, Slot
from app.store.calls import Calls
from app.store.engine import Database
from app.store.filters import Filters
from app.wrapup import export
from app.wrapup.export import NOT_FLAT, Export, Form, safe
from app.wrapup.row import Row
from tests.store.shelf import Clock, memory, new_call
from tests.wrapup.rows import finished, read, row_of

BERLIN = ZoneInfo("Europe/Berlin")
ALL = Filters()
HOSTILE = [
    *(
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        '=HYPERLINK("http://evil.example","x")',
        "=cmd|' /C calc'!A0",
    ),
    *("  =1+1", "\u00a0=1+1", "\u3000=1+1", "\u200b=1+1", "\ufeff=1+1", " \t=1+1", "\u202e=1+1", "\x0b=1", "\x00=1"),
    *("\uff1d1+1", "\uff0b1+1", "\uff0d1+1", "\uff20SUM(A1)", "\ufe62 1", "\ufe631", "\ufe66 1", "\ufe6b1", "\u22121"),
    *("+15550100001", "-", "=", '","=1+1', "\u00ad=1+1", "\u2028=1", "  +1", "@", "=\u0000", "\u2060@x", "\t", "\n", "\u180e=1"),
]


def formula_to_somebody(cell: str) -> bool:
    """The other way round: whatever may be dropped from the front of a cell is, and then a sign is looked for."""
    rest = "".join(c for c in unicodedata.normalize("NFKC", cell) if c.isprintable() and not c.isspace())
    return rest[:1] in tuple("=+-@\u2212") or cell[:1] in ("\t", "\r", "\n")


def test_no_cell_is_a_formula():
    assert len(HOSTILE) >= 40
    for payload in HOSTILE:
        assert formula_to_somebody(payload) or payload.startswith('"'), ascii(payload)
        assert not formula_to_somebody(safe(payload)), ascii(payload)


@pytest.mark.parametrize("cell", ["", "Maria", " Maria", "a=b", "1-2", "50 + 1", "'quoted", "Zoë", "\u200bMaria", "   "])
def test_what_is_none_stays_as_it_is(cell: str):
    assert safe(cell) == cell


async def whole(database: Database, form: Form, filters: Filters = ALL, **options: Any) -> str:
    slots = options.pop("slots", ())
    pieces = [piece async for piece in Export(database, zone=BERLIN, slots=slots).written(form, filters, **options)]
    return "".join(text for text, _ in pieces)


async def cells(database: Database, filters: Filters = ALL, **options: Any) -> list[dict[str, str]]:
    text = await whole(database, Form.CSV, filters, **options)
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


async def test_hostile_words_come_back_from_a_csv_as_words(database: Database):
    slots = tuple(Slot(name=f"s{number}", value=payload) for number, payload in enumerate(HOSTILE))
    call_id = await finished(database, memory=memory(slots=slots, summary='=1+1,"x"\r\n', disposition="=odd"))
    text = await whole(database, Form.CSV, slots=[slot.name for slot in slots])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len({len(row) for row in rows}) == 1
    assert not [cell for row in rows for cell in row if formula_to_somebody(cell)]
    stored = (await row_of(database, call_id))["slots"]
    found = dict(zip(*rows, strict=True))
    for slot in slots:
        assert found[f"slot_{slot.name}"] == safe(stored[slot.name]["value"])
    assert found["summary"] == '\'=1+1,"x"\r\n'
    assert text.count('"') % 2 == 0
    assert all(line.startswith('"') for line in text.split("\r\n")[:1])


def test_the_csv_has_every_field_of_the_row_that_is_flat():
    columns = Export(Database("sqlite:///none.db"), zone=BERLIN, slots=("urgency", "name", "plan")).columns
    assert len(columns) == len(set(columns))
    assert {name for name in columns if not name.startswith("slot_")} == set(Row.model_fields) - set(NOT_FLAT) | {"other_slots"}
    assert [name for name in columns if name.startswith("slot_plan")] == [
        *("slot_plan", "slot_plan_confirmed", "slot_plan_source", "slot_plan_second_reading")
    ]


async def test_a_csv_is_for_people(database: Database):
    call_id = await finished(database)
    await read(database, call_id)
    (row,) = await cells(database)
    assert (row["call_id"], row["started_at"]) == (call_id, "2026-11-20T10:00:00+01:00")
    assert (row["from_number"], row["lead_score"], row["escalated"]) == ("'+15550100001", "40", "true")
    assert (row["slot_name"], row["slot_name_confirmed"], row["slot_name_source"]) == ("Maria Lopez", "true", "agent")
    assert (row["slot_reason"], row["slot_reason_source"]) == ("Our whole garden needs doing", "machine")
    assert (row["slot_callback_number"], row["urgency"], row["sentiment_course"]) == ("", "", "positive")
    assert row["review_reasons"] == "name: values_differ"
    assert row["cost_usd"] == "0.072360"
    assert json.loads(row["other_slots"]) == {"urgency": "high"}


async def test_a_csv_for_excel_has_a_mark_and_dates_that_it_knows(database: Database):
    await finished(database)
    text = await whole(database, Form.CSV, excel=True)
    assert text.startswith('\ufeff"call_id"')
    assert '"2026-11-20 10:00:00"' in text


async def test_json_is_what_webhooks_deliver(database: Database):
    names = [await finished(database, sid=f"CA{number}") for number in range(3)]
    await read(database, names[1])
    array = json.loads(await whole(database, Form.JSON))
    lines = [json.loads(line) for line in (await whole(database, Form.JSONL)).splitlines()]
    assert array == lines
    for told in array:
        assert told == Row.of(await row_of(database, told["call_id"])).json_ready()
    assert sorted(told["call_id"] for told in array) == sorted(names)


async def test_where_nothing_is_there_is_an_empty_file_of_its_form(database: Database):
    await Calls(database).born(new_call())  # this one still goes on
    assert json.loads(await whole(database, Form.JSON)) == []
    assert await whole(database, Form.JSONL) == ""
    assert await cells(database) == []


async def test_an_export_is_narrowed_down(database: Database):
    clock, names = Clock(), []
    for number, outcome in enumerate((Outcome.COMPLETED, Outcome.ABANDONED, Outcome.COMPLETED)):
        clock.now = datetime(2026, 11, 20 + number, 9, tzinfo=UTC)
        known = Memory(agent="front-desk", disposition="other" if number == 2 else "sales_lead")
        names.append(await finished(database, sid=f"CA{number}", clock=clock, outcome=outcome, memory=known))

    async def left(**asked: Any) -> list[int]:
        return [names.index(row["call_id"]) for row in await cells(database, Filters(**asked))]

    assert await left() == [0, 1, 2], "the oldest first"
    assert await left(since=datetime(2026, 11, 21, 9, tzinfo=UTC)) == [1, 2]
    assert await left(until=datetime(2026, 11, 21, 9, tzinfo=UTC)) == [0]
    assert await left(outcome=("completed",)) == [0, 2]
    assert await left(outcome=("completed", "abandoned"), disposition=("sales_lead",)) == [0, 1]


@pytest.mark.parametrize("form", list(Form))
async def test_an_export_comes_page_by_page_and_every_row_once(sqlite_url: str, form: Form, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "PAGE", 3)
    monkeypatch.setattr(export, "WHOLE_PAGE", 3)
    database = Database(sqlite_url)
    names = [await finished(database, sid=f"CA{number}", spoken=()) for number in range(7)]
    pieces = [piece async for piece in Export(database, zone=BERLIN).written(form, ALL)]
    await database.close()
    assert [rows for _, rows in pieces if rows] == [3, 3, 1]
    text = "".join(text for text, _ in pieces)
    assert all(text.count(name) == 1 for name in names)


async def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch, sqlite_url: str):
    database = Database(sqlite_url)
    one = (await row_of(database, await finished(database))) | {"utterances": [], "judged": {}}
    await database.close()
    most = 0

    async def many(*_: Any) -> Any:
        for number in range(1_000):
            yield f"{number:026}"

    async def rows(_: Database, names: list[str]) -> list[dict[str, Any]]:
        return [one | {"call_id": name} for name in names]

    monkeypatch.setattr(export, "PAGE", 20)
    monkeypatch.setattr(export.Listing, "ids", many)
    monkeypatch.setattr(export.pages, "columns_of", rows)
    tracemalloc.start()
    try:
        async for _ in Export(database, zone=BERLIN).written(Form.CSV, ALL):
            most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert most < 500_000, "the text of the thousand rows alone is more"
