"""The export of what is filtered: asked for with a reason, audited before its first byte, safe for spreadsheets, or broken."""

import asyncio
import csv
import io
import json
from datetime import timedelta

import pytest

from app.call.disposition import EndReason, Outcome
from app.store.engine import Database
from app.web.console import exports
from app.wrapup import exporting
from tests.store.listed import NOON, put, row
from tests.web.console.office import Office, words

EXPORT = "/console/calls/export"
REASON = "the monthly report"
WHOLE = {"duration_ms": 61_000, "slots": {}, "revision": 2}


@pytest.fixture
async def office(database_url):
    """An office that says where its database is: the file is written by a process of its own."""
    database = Database(database_url)
    made = Office(database, DATABASE_URL=database_url)
    made.house.now = int((NOON + timedelta(minutes=1)).timestamp() * 1_000)
    yield made
    await made.close()
    await database.close()


async def several(office, count, **columns):
    made = [row(office.database, NOON - timedelta(minutes=n), **(WHOLE | columns)) for n in range(count)]
    return await put(office.database, *made)


async def ask(browser, form="csv", query="", reason=REASON):
    return await browser.post(EXPORT, format=form, query=query, reason=reason)


async def test_what_is_filtered_is_written_the_oldest_first_and_noted_before_and_after(office):
    names = await several(office, 3, disposition="sales_lead")
    await several(office, 2)
    await put(office.database, row(office.database, NOON, live=True, disposition="sales_lead"))
    reviewer = await office.signed_in("reviewer")
    answer = await ask(reviewer, query="disposition=sales_lead&period=today")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="calls-2026-11-20-1201.csv"'
    assert answer.headers["cache-control"] == "no-store"
    cells = list(csv.DictReader(io.StringIO(answer.text)))
    assert [cell["call_id"] for cell in cells] == names[::-1]
    (before, after) = (await office.audit())[-2:]
    assert before[:3] == ("user:the-reviewer", "calls.exported", None)
    assert before[3] == {
        "format": "csv", "filters": ["period", "disposition"], "reason": REASON, "since": "2026-11-20T00:00:00+00:00",
    }  # fmt: skip
    assert after == ("user:the-reviewer", "calls.export_ended", None, {"whole": True, "bytes": len(answer.content)})


async def test_no_cell_is_a_formula(office):
    await several(
        office, 1, summary="=HYPERLINK(1)", from_number="+15550100001", outcome=Outcome.FAILED, end_reason=EndReason.DRAINED
    )
    answer = await ask(await office.signed_in("reviewer"), form="excel")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    (cell,) = csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff")))
    assert (cell["summary"], cell["from_number"]) == ("'=HYPERLINK(1)", "'+15550100001")


async def test_json_is_after_the_schema(office):
    (name,) = await several(office, 1)
    reviewer = await office.signed_in("reviewer")
    (found,) = json.loads((await ask(reviewer, form="json")).text)
    (line,) = (await ask(reviewer, form="jsonl")).text.splitlines()
    assert found == json.loads(line)
    assert (found["call_id"], found["outcome"]) == (name, "completed")


async def test_nothing_is_an_empty_file_and_no_fault(office):
    reviewer = await office.signed_in("reviewer")
    assert json.loads((await ask(reviewer, form="json")).text) == []
    assert len((await ask(reviewer)).text.splitlines()) == 1


@pytest.mark.parametrize("reason", ["", "  x ", "for +1 555 010 0001", "y" * 300])
async def test_without_a_reason_that_can_be_kept_nothing_is_exported(sqlite_office, reason):
    reviewer = await sqlite_office.signed_in("reviewer")
    answer = await ask(reviewer, query="outcome=failed", reason=reason)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/calls?outcome=failed")
    assert "Nothing was exported" in words(await reviewer.get(answer.headers["location"]))
    assert "calls.exported" not in str(await sqlite_office.audit())


async def test_where_it_cannot_be_noted_not_a_byte_leaves(sqlite_office):
    reviewer = await sqlite_office.signed_in("reviewer")
    word = await reviewer.word()
    sqlite_office.break_audit()
    for _ in range(exports.AT_ONCE + 1):  # and the place is given back
        answer = await reviewer.post(EXPORT, word=word, format="csv", query="", reason=REASON)
        assert answer.status_code == 503
        assert "call_id" not in answer.text


async def test_a_form_that_is_none_of_ours_is_refused(sqlite_office):
    assert (await ask(await sqlite_office.signed_in("reviewer"), form="xlsx")).status_code == 400


async def test_an_operator_sees_no_export(sqlite_office):
    operator, reviewer = await sqlite_office.signed_in("operator"), await sqlite_office.signed_in("reviewer")
    assert EXPORT not in (await operator.get("/console/calls")).text
    assert EXPORT in (await reviewer.get("/console/calls")).text
    assert (await ask(operator)).status_code == 403


async def test_so_many_at_once_and_no_more(sqlite_office, monkeypatch):
    """Each holds its place until its file has ended or its reader has gone."""
    started, go_on = 0, asyncio.Event()

    class Slow:
        class stdin:
            write = staticmethod(lambda _: None)
            write_eof = staticmethod(lambda: None)

        class stdout:
            @staticmethod
            async def read(_):
                await go_on.wait()
                return b""

        class stderr:
            @staticmethod
            async def read(_):
                return b""

        @staticmethod
        async def wait():
            return 0

        kill = staticmethod(lambda: None)

    async def start(*_args, **_kwargs):
        nonlocal started
        started += 1
        return Slow

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    reviewer = await sqlite_office.signed_in("reviewer")
    word = await reviewer.word()
    fields = {"format": "csv", "query": "", "reason": REASON}
    running = [asyncio.create_task(reviewer.post(EXPORT, word=word, **fields)) for _ in range(exports.AT_ONCE)]
    async with asyncio.timeout(60):
        while started < exports.AT_ONCE:
            await asyncio.sleep(0.01)
    answer = await reviewer.post(EXPORT, word=word, **fields)
    assert answer.status_code == 303 and started == exports.AT_ONCE
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*running)] == [200] * exports.AT_ONCE
    assert (await reviewer.post(EXPORT, word=word, **fields)).status_code == 200


async def test_a_file_that_breaks_off_is_no_file(office):
    """A row that the schema does not know ends the writer: the connection is cut, and what was noted says so."""
    await several(office, 1, revision=0)
    reviewer = await office.signed_in("reviewer")
    word = await reviewer.word()
    reviewer.client._transport.raise_app_exceptions = True
    with pytest.raises(ConnectionError, match="broke off"):
        await reviewer.post(EXPORT, word=word, format="csv", query="", reason=REASON)
    last = (await office.audit())[-1]
    assert last[1] == "calls.export_ended" and last[3]["whole"] is False


def test_what_is_private_does_not_print():
    from app.store.filters import Filters
    from app.wrapup.export import Form

    errand = exporting.Errand(
        form=Form.CSV,
        excel=False,
        zone="UTC",
        slots=[],
        filters=Filters(text="secret"),
        database_url="sqlite:///secret",
        data_key="secret",
    )
    assert "secret" not in repr(errand)
