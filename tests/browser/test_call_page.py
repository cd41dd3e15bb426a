"""The page of one call in a browser: from a value to the words, correcting, the keyboard, growing by itself; and how it looks."""

import asyncio

import pytest

from app.store.console_tables import Role
from tests.browser.browsing import SCHEMES, SIZES
from tests.call.test_journal import played
from tests.web.console import story
from tests.web.console.story import PAYLOADS

MOST_BYTES = 100_000


def in_view(selector):
    """Whether an element lies within the window and within what scrolls it."""
    return f"""() => {{ const it = document.querySelector({selector!r}), box = it.getBoundingClientRect(),
      panel = it.closest('#talk').getBoundingClientRect();
      return box.top >= Math.max(0, panel.top - 1) && box.bottom <= Math.min(innerHeight, panel.bottom + 1); }}"""


async def opened(tab, call_id, role=Role.OPERATOR, query=""):
    await tab.sign_in(role)
    await tab.go(f"/console/calls/{call_id}{query}")
    return tab.page


async def until(page, true, *arguments):
    """Wait until an expression holds, by looking; a policy without eval lets playwright do no other."""
    async with asyncio.timeout(60):
        while not await page.evaluate(true, *arguments):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_page_can_be_read_by_everybody(served, open_tab, scheme, size):
    call_id = await story.told(served.office)
    async with open_tab(scheme=scheme, size=size) as tab:
        page = await opened(tab, call_id, Role.ADMIN, "?agent=sales")
        await tab.look(f"call-{size}-{scheme}")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
        await page.click("details.more summary")
        for summary in await page.query_selector_all("details.history summary, .event details summary"):
            await summary.evaluate("(it) => { it.parentElement.open = true }")
        await page.click("#field-summary details.correct summary")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
        await tab.look(f"call-open-{size}-{scheme}")


@pytest.mark.parametrize("size", SIZES)
async def test_one_click_leads_from_a_value_to_the_words_it_rests_on(served, open_tab, size):
    call_id = await story.told(served.office)
    async with open_tab(size=size) as tab:
        page = await opened(tab, call_id)
        for field, place in (("disposition", "said-2.u1"), ("lead_score", "said-1.u2"), ("sentiment", "said-2.u3")):
            await page.click(f"#field-{field} .cite >> nth=0")
            await until(page, in_view(f'[id="{place}"]'))
            assert await page.evaluate("[...document.querySelectorAll('.found')].map((it) => it.id)") == [place]
            assert await page.evaluate("document.activeElement.id") == place
            assert page.url.endswith(f"#{place}")
            colour = f"getComputedStyle(document.getElementById('{place}')).backgroundColor"
            await until(page, f"() => {colour} !== getComputedStyle(document.getElementById('said-1.u1')).backgroundColor")
        await page.click('.drawing rect[data-said="said-1.u1"]')
        await until(page, in_view('[id="said-1.u1"]'))
        assert await page.evaluate("document.querySelector('.found').id") == "said-1.u1"


async def test_evidence_stays_beside_the_value_on_a_wide_screen(served, open_tab):
    """Two minutes more of it: the conversation scrolls by itself, and the value that was clicked is still to be seen."""
    more = tuple(
        story.say(f"x{number}", 80_000 + 2_000 * number, 81_500 + 2_000 * number, f"And {number}.") for number in range(60)
    )
    call_id, clock = await story.begun(served.office)
    await story.ended(served.office, call_id, clock, said=(story.FIRST, (*story.SECOND, *more)))
    await story.read(served.office, call_id, clock, judgements=[story.judged("intent", "buy", ("2.x58",))])
    async with open_tab() as tab:
        page = await opened(tab, call_id)
        await page.click("#field-intent .cite")
        await until(page, in_view('[id="said-2.x58"]'))
        box = await page.evaluate(
            "(() => { const it = document.querySelector('#field-intent').getBoundingClientRect(); return [it.top, it.bottom] })()"
        )
        assert 0 <= box[0] < box[1] <= 900


async def test_a_value_is_corrected_stands_and_is_taken_back(served, open_tab):
    call_id = await story.told(served.office)
    async with open_tab() as tab:
        page = await opened(tab, call_id)
        number = "#field-callback_number"
        await page.click(f"{number} details.correct summary")
        await until(page, "() => document.activeElement.name === 'value'")
        tab.expected = {422}
        await page.fill(f"{number} [name=value]", "12")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(f"{number} .error")
        assert await page.evaluate("document.activeElement.id") == "value-callback_number"
        assert await page.input_value(f"{number} [name=value]") == "12"
        assert await tab.axe() == []
        await page.fill(f"{number} [name=value]", "+1 555 010 0007")
        await page.fill(f"{number} [name=note]", "She says seven.")
        await page.click(f"{number} button:has-text('Save')")
        await page.wait_for_selector(".flash:has-text('Callback number: corrected.')")
        shown = await page.inner_text(number)
        assert "+15550100007" in shown
        assert "corrected by the-operator" in shown
        assert "She says seven." in shown
        assert await page.evaluate(f"document.querySelector('{number} details.correct').open") is False
        assert (await tab.focus())["words"] == "Correct Callback number"
        assert (await served.office.console.desk.calls.row(call_id))["slots"]["callback_number"]["value"] == "+15550100007"
        await tab.look("call-corrected")
        await page.click(f"{number} button:has-text('Take back')")
        await page.wait_for_selector(".flash:has-text('Callback number: taken back.')")
        assert story.NOTED_NUMBER in await page.inner_text(number)
        assert await page.locator(f"{number} button:has-text('Take back')").count() == 0
        await page.click(f"{number} details.history summary")
        history = await page.inner_text(f"{number} details.history")
        assert [word in history for word in ("+15550100007", "She says seven.", "took the correction back")] == [True] * 3
        await tab.go(f"/console/calls/{call_id}")  # the server says the same
        assert story.NOTED_NUMBER in await page.inner_text(number)


async def test_a_reviewer_looks_and_says_so(served, open_tab):
    call_id = await story.told(served.office)
    async with open_tab() as tab:
        page = await opened(tab, call_id, Role.REVIEWER)
        await page.click(".review a >> nth=0")
        assert await page.evaluate("document.activeElement.id") == "field-callback_number"
        await page.click("button:has-text('I have looked at it')")
        await page.wait_for_selector(".reviewed")
        assert "Looked at by the-reviewer" in await page.inner_text("#review")


async def test_everything_can_be_done_from_the_keyboard(served, open_tab):
    calls = [await story.told(served.office, sid="CA" + str(number) * 32, ago_s=9_000 - 1_000 * number) for number in range(3)]
    async with open_tab() as tab:
        page = await opened(tab, calls[1], query="?agent=sales")
        keyboard = page.keyboard

        async def found():
            return await page.evaluate("document.querySelector('.found')?.id")

        seen = []
        for key in "jjjkj":
            await keyboard.press(key)
            seen.append(await found())
        assert seen == ["said-1.g0", "said-1.u1", "said-1.a1", "said-1.u1", "said-1.a1"]
        await keyboard.press("?")
        assert await page.is_visible("dialog#keys")
        assert await tab.axe() == []
        await keyboard.press("j")  # not while the help is open
        assert await found() == "said-1.a1"
        await keyboard.press("Escape")
        assert not await page.is_visible("dialog#keys")
        await keyboard.press("c")
        assert await page.evaluate("document.activeElement.id") == "value-callback_number"  # what is doubtful comes first
        await keyboard.type("jknpc?")
        assert await page.input_value("#value-callback_number") == "jknpc?"
        await keyboard.press("Escape")
        assert (await tab.focus())["words"] == "Correct Callback number"
        for key, number in (("n", 0), ("p", 1), ("p", 2)):
            await keyboard.press(key)
            await page.wait_for_url(f"**/console/calls/{calls[number]}?agent=sales")
            await tab.settled()
        await keyboard.press("p")  # there is none before the first
        await keyboard.press("u")
        await page.wait_for_url("**/console/calls?agent=sales")


async def test_the_page_of_a_call_in_progress_grows_by_itself_and_settles(served, open_tab):
    call_id, clock = await story.begun(served.office, ago_s=40)
    async with open_tab() as tab:
        page = await opened(tab, call_id)
        await tab.look("call-live")
        assert await tab.axe() == []
        await page.click("details.more summary")
        await story.go_on(served.office, call_id, clock)
        await page.wait_for_selector(f".talk >> text={story.SAID}")
        assert await page.evaluate("document.querySelector('details.more').open")  # what was opened stays open
        await story.ended(served.office, call_id, clock)
        await page.wait_for_selector(".call-title >> text=completed")
        await page.click("#field-name details.correct summary")
        await page.fill("#value-name", "Maria Lopes")
        await story.read(served.office, call_id, clock)
        await page.wait_for_selector("text=85 of 100")
        assert await page.input_value("#value-name") == "Maria Lopes"  # and what was typed stays typed
        assert await page.evaluate("document.querySelector('#field-name details.correct').open")
        await until(page, "() => document.getElementById('look-again') === null")
        await tab.begin()
        await asyncio.sleep(6)  # longer than it ever looked again after
        assert tab.asked == []


async def test_a_page_does_not_ask_more_often_the_longer_it_is_open(served, open_tab):
    call_id, clock = await story.begun(served.office, ago_s=40)
    async with open_tab() as tab:
        page = await opened(tab, call_id)
        for number in range(3):
            await story.go_on(
                served.office, call_id, clock, first=(story.say(f"y{number}", 20_000 + number, 21_000, f"More {number}."),)
            )
            await page.wait_for_selector(f".talk >> text=More {number}.")
        await tab.begin()
        await asyncio.sleep(5)
        assert 1 <= len(tab.asked) <= 4, tab.asked


async def test_what_a_caller_said_runs_nowhere(served, open_tab):
    from dataclasses import replace

    said = tuple(replace(each, heard=payload) for each, payload in zip(story.FIRST, (*PAYLOADS, *PAYLOADS), strict=False))
    call_id, clock = await story.begun(served.office)
    await story.ended(served.office, call_id, clock, said=(said, story.SECOND))
    await story.read(served.office, call_id, clock)
    async with open_tab() as tab:
        page = await opened(tab, call_id, Role.ADMIN)
        page.on("dialog", lambda dialog: tab.problems.append(f"a dialog: {dialog.message}"))
        assert PAYLOADS[0] in await page.inner_text("#talk")
        assert await page.locator("#talk img, #talk script, [onload], [onerror], [onmouseover]").count() == 0
        await page.hover("[id='said-1.a1']")
        await tab.go(f"/console/calls/{call_id}/journal")


async def test_the_page_is_light(served, open_tab):
    call_id = await story.told(served.office)
    async with open_tab() as tab:
        await tab.sign_in(Role.ADMIN)
        await tab.begin()
        await tab.go(f"/console/calls/{call_id}")
        assert 0 < tab.weight < MOST_BYTES, tab.weight
        assert len(tab.asked) <= 10, tab.asked


async def test_it_works_without_a_script(served, open_tab):
    call_id = await story.told(served.office)
    async with open_tab(java_script_enabled=False) as tab:
        page = await opened(tab, call_id, Role.REVIEWER, "?agent=sales")
        await page.click("#field-disposition .cite >> nth=0")
        assert page.url.endswith("#said-2.u1")
        await page.click("#field-urgency details.correct summary")
        await page.select_option("#value-urgency", "high")
        await page.click("#field-urgency button:has-text('Save')")
        await page.wait_for_url(f"**/console/calls/{call_id}?agent=sales#field-urgency")
        assert "corrected by the-reviewer" in await page.inner_text("#field-urgency")
        assert await page.inner_text(".flash p") == "Urgency: corrected."
        tab.expected = {422}
        await page.click("#field-lead_score details.correct summary")
        await page.fill("#value-lead_score", "a lot")
        await page.click("#field-lead_score button:has-text('Save')")
        await page.wait_for_selector("#field-lead_score .error")
        assert await page.input_value("#value-lead_score") == "a lot"
        await page.click("button:has-text('I have looked at it')")
        await page.wait_for_selector(".reviewed")


@pytest.mark.parametrize("size", SIZES)
async def test_the_journal_is_read_and_replayed(served, open_tab, size):
    call_id, clock = await story.begun(served.office)
    await story.ended(served.office, call_id, clock, journal=[(1, line) for line in played().journal()])
    async with open_tab(size=size) as tab:
        await tab.sign_in(Role.ADMIN)
        await tab.go(f"/console/calls/{call_id}/journal")
        await tab.page.click("button:has-text('Replay')")
        await tab.page.wait_for_selector(".replay.same")
        await tab.settled()
        await tab.look(f"journal-{size}")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
