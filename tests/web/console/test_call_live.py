"""The page of a call in progress: it grows by itself, and settles into the page of the finished call."""

import html
import re

from app.call.disposition import Slot
from tests.web.console import story
from tests.web.console.office import words
from tests.web.console.story import lines, page, part_of, said


def again(answer):
    found = re.search(r'hx-get="([^"]+/again\?[^"]+)"', answer.text)
    return html.unescape(found[1]) if found else None


async def test_the_page_of_a_call_in_progress_grows_and_settles(office):
    call_id, clock = await story.begun(office, ago_s=40)
    browser = await office.signed_in()
    answer = await page(browser, call_id, "?state=live")
    assert "in progress" in words(answer)
    assert "Linden Gardens, hello!" in words(answer)
    assert "/correct" not in answer.text
    look = again(answer)
    assert (await browser.part(look)).status_code == 204
    await story.go_on(
        office, call_id, clock, known=story.memory(slots=(Slot(name="name", value="Maria", utterance="u1", at=12_000),))
    )
    answer = await browser.part(look)
    assert answer.status_code == 200
    assert story.SAID in words(answer)
    assert "Maria" in said(part_of(answer, "field-name"))
    assert (await browser.part(again(answer))).status_code == 204
    assert len(await lines(office)) == 1  # the page was seen once
    await story.ended(office, call_id, clock)
    answer = await browser.part(again(answer))
    assert "completed" in words(answer)
    assert again(answer) is not None  # it waits to be read
    await story.read(office, call_id, clock)
    answer = await browser.part(again(answer))
    assert "85 of 100" in words(answer)
    assert again(answer) is None


async def test_a_page_looks_again_only_with_its_own_word(sqlite_office):
    call_id, _ = await story.begun(sqlite_office, ago_s=40)
    other, _ = await story.begun(sqlite_office, ago_s=30, sid="CA" + "8" * 32)
    ann, bob = await sqlite_office.signed_in(name="ann"), await sqlite_office.signed_in(name="bob")
    look = again(await page(ann, call_id))
    assert (await ann.part(look)).status_code == 204
    assert (await bob.part(look)).status_code == 404  # bob has not opened the page, and no line says that he has
    assert (await ann.part(look.replace(call_id, other))).status_code == 404
    assert (await ann.part(re.sub("word=[^&]+", "word=x", look))).status_code == 404
    assert (await ann.part(look.replace("word=", "w="))).status_code == 404


async def test_a_call_that_was_never_read_is_not_looked_at_for_ever(sqlite_office):
    call_id, clock = await story.begun(sqlite_office, ago_s=3_600)
    await story.ended(sqlite_office, call_id, clock)
    assert again(await page(await sqlite_office.signed_in(), call_id)) is None


async def test_nothing_is_judged_before_the_call_has_ended(sqlite_office):
    call_id, _ = await story.begun(sqlite_office, ago_s=40)
    browser = await sqlite_office.signed_in("admin")
    for path in ("judged/summary/correct", "judged/summary/take-back", "reviewed", "read-again", "deliveries/x/resend"):
        assert (await browser.post(f"/console/calls/{call_id}/{path}", value="x")).status_code == 400
    assert await lines(sqlite_office) == []
