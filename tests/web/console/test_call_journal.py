"""The journal of a call, and its replay, for admins."""

import html
import json
import re
from dataclasses import replace

import pytest

from tests.call.test_journal import played
from tests.web.console import story
from tests.web.console.office import words
from tests.web.console.story import lines, said


async def with_journal(office, journal):
    call_id, clock = await story.begun(office)
    await story.ended(office, call_id, clock, journal=[(1, line) for line in journal])
    return call_id


async def test_the_journal_is_read_a_page_at_a_time(office):
    journal = played().journal()
    call_id = await with_journal(office, journal)
    browser = await office.signed_in("admin")
    path, seen, back = f"/console/calls/{call_id}/journal", [], []
    while path:
        answer = await browser.get(path)
        assert answer.status_code == 200
        seen += re.findall(r'<tr id="line-1\.(\d+)"', answer.text)
        back.append(path)
        found = re.search(r'rel="next" href="([^"]+)"', answer.text)
        path = html.unescape(found[1]) if found else None
    assert [int(number) for number in seen] == [line.seq for line in journal]
    assert len(back) == -(-len(journal) // 100)
    assert len(await lines(office)) == len(back)
    assert {action for _, action, _ in await lines(office)} == {"call.journal_viewed"}
    if len(back) > 1:
        answer = await browser.get(back[1])
        assert html.unescape(re.search(r'rel="prev" href="([^"]+)"', answer.text)[1]) == back[0]
    assert "Nothing behind this line" in words(await browser.get(f"{back[0]}?after=9.9"))
    assert (await browser.get(f"{back[0]}?after=nonsense")).status_code == 200


async def test_a_replay_says_that_the_machine_orders_the_same(office):
    journal = played().journal()
    call_id = await with_journal(office, journal)
    browser = await office.signed_in("admin")
    answer = await browser.post(f"/console/calls/{call_id}/journal/replay")
    assert f"Stream 1 : the same orders, all {len(journal)} lines" in said(answer.text)
    assert await lines(office) == [("user:the-admin", "call.replayed", None)]


async def test_a_replay_leads_to_the_first_line_that_differs(sqlite_office):
    journal = played().journal()
    index = next(index for index, line in enumerate(journal) if line.name == "CallerTurnCommitted")
    journal[index] = replace(journal[index], commands="deadbeef")
    call_id = await with_journal(sqlite_office, journal)
    browser = await sqlite_office.signed_in("admin")
    answer = await browser.post(f"/console/calls/{call_id}/journal/replay")
    text = said(answer.text)
    assert f"1 of {len(journal)} lines differ; the first is line {journal[index].seq} at" in text
    assert "deadbeef" in text
    link = html.unescape(re.search(r'the first is <a href="([^"]+)"', answer.text)[1])
    assert f'<tr id="{link.partition("#")[2]}"' in (await browser.get(link)).text


@pytest.mark.parametrize("broken", ["no beginning", "an unknown event", "another shape"])
async def test_a_journal_that_cannot_be_played_says_why(sqlite_office, broken):
    journal = played().journal()
    match broken:
        case "no beginning":
            journal = journal[1:]
        case "an unknown event":
            journal[3] = replace(journal[3], name="SomethingOfLastYear")
        case "another shape":
            journal[0] = replace(journal[0], data={"nothing": 1})
    call_id = await with_journal(sqlite_office, journal)
    answer = await (await sqlite_office.signed_in("admin")).post(f"/console/calls/{call_id}/journal/replay")
    assert answer.status_code == 200
    assert "stream 1 cannot be replayed: " in said(answer.text)


async def test_what_is_private_in_a_journal_is_shown_to_who_may_see_it_and_changed_by_nobody(sqlite_office):
    journal = played().journal()
    call_id = await with_journal(sqlite_office, journal)
    spoken = next(line for line in journal if line.private and "text" in line.private)
    answer = await (await sqlite_office.signed_in("admin")).get(f"/console/calls/{call_id}/journal")
    assert html.escape(json.dumps(spoken.private["text"]), quote=False).strip('"') in html.unescape(answer.text)
    before = await sqlite_office.console.desk.calls.events(call_id)
    await (await sqlite_office.signed_in("admin")).post(f"/console/calls/{call_id}/journal/replay")
    assert await sqlite_office.console.desk.calls.events(call_id) == before
