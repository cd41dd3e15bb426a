"""The list of calls as somebody works with it all day: by mouse, by keyboard, on a telephone, while calls come in."""

from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
import sqlalchemy as sa

from app.call.disposition import EndReason, Outcome
from app.store.console_tables import Role
from app.store.tables import RowState, calls
from app.web.console.calls import A_PAGE
from tests.browser.browsing import SCHEMES, SIZES
from tests.store.listed import NOON, put, row

ALL = "/console/calls?view=all"
MOST_BYTES = 100_000
MOODS = ("positive", None, "neutral", "negative")


@pytest.fixture
async def some(served):
    """Calls of every kind, a minute apart, and one that goes on; the clock stands."""
    served.office.house.now = int((NOON + timedelta(seconds=5)).timestamp() * 1_000)
    database = served.office.database
    made = [
        row(
            database,
            NOON - timedelta(minutes=n + 5),
            duration_ms=40_000 + n * 1_000,
            disposition=("sales_lead", "message_taken", "appointment_booked", None)[n % 4],
            intent=("buy", "leave_message", "book_appointment", "other")[n % 4],
            sentiment=MOODS[n % 4],
            lead_score=None if n % 4 == 3 else (n * 37) % 101,
            urgency=("low", "normal", "high")[n % 3],
            escalated=n % 7 == 0,
            escalation_reason="wants_a_person" if n % 7 == 0 else None,
            latency_p95_ms=600 + n * 60,
            needs_review=n % 5 == 0,
            review_reasons={"name": "values_differ"} if n % 5 == 0 else None,
            outcome=Outcome.TRANSFERRED if n % 6 == 0 else Outcome.COMPLETED,
            end_reason=EndReason.TRANSFERRED if n % 6 == 0 else EndReason.AGENT_ENDED,
            summary="She wants a pond behind the house, with a stone path.",
        )
        for n in range(A_PAGE + 10)
    ]
    names = await put(database, *made)
    (live,) = await put(database, row(database, NOON - timedelta(minutes=2), live=True, intent="buy"))
    return names, live


async def change(served, name, **columns):
    async with served.office.database.write() as connection:
        await connection.execute(sa.update(calls).where(calls.c.call_id == name).values(columns))


async def finish(served, name):
    at = NOON + timedelta(seconds=4)
    ended = {"outcome": Outcome.COMPLETED, "end_reason": EndReason.AGENT_ENDED, "ended_at": at, "finished_at": at}
    await change(served, name, state=RowState.FINAL, duration_ms=124_000, **ended)


async def shown(tab):
    return await tab.page.eval_on_selector_all("tr.call", "rows => rows.map((row) => row.id.slice(2))")


def asked(url):
    """What an address of the list asks."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


async def sees(tab, script, *arguments):
    """Wait until this is true in the page."""
    await tab.page.wait_for_function(script, arg=list(arguments))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_list_is_fit_to_be_seen(served, open_tab, some, scheme, size):
    name = f"list-{size}-{scheme}"
    async with open_tab(scheme=scheme, size=size) as tab:
        await tab.sign_in(Role.REVIEWER)
        for path, what in ((ALL, "all"), ("/console/calls?outcome=transferred&score_from=10&sort=-lead_score", "narrow"),
                           ("/console/calls?q=unicorn", "none"), ("/console/calls/views", "views")):  # fmt: skip
            await tab.go(path)
            await tab.look(f"{name}-{what}")
            assert await tab.axe() == [], path
            assert await tab.too_wide() == [], path
        await tab.go(ALL)
        await tab.page.click("details.narrow > summary")
        await tab.look(f"{name}-filters")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
        await tab.page.keyboard.press("Escape")
        await tab.page.click("button:has-text('Export')")
        await tab.look(f"{name}-export")
        assert await tab.axe() == []


async def test_filters_are_in_the_address_and_the_back_button_goes_back(served, open_tab, some):
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go(ALL)
        everything = await shown(tab)
        await tab.page.click("details.narrow > summary")
        await tab.page.check("input[name=outcome][value=transferred]")
        await tab.page.fill("input[name=score_from]", "10")
        await tab.page.click("#filters button:has-text('Apply')")
        await tab.page.wait_for_url(lambda url: asked(url) == {"outcome": "transferred", "score_from": "10", "view": "all"})
        await tab.settled()
        narrow = await shown(tab)
        assert 0 < len(narrow) < len(everything)
        assert [text.strip() for text in await tab.page.locator(".chip > span").all_inner_texts()] == [
            "Outcome transferred", "Lead score 10 or more",
        ]  # fmt: skip
        await tab.page.click(".chip:has-text('Lead score') a")
        await tab.page.wait_for_url(lambda url: asked(url) == {"outcome": "transferred", "view": "all"})
        await tab.settled()
        assert set(narrow) < set(await shown(tab))
        await tab.page.go_back()
        await tab.settled()
        assert await shown(tab) == narrow
        await tab.page.go_back()
        await tab.settled()
        assert await shown(tab) == everything
        await tab.page.go_forward()
        await tab.settled()
        assert await shown(tab) == narrow


async def test_it_is_sorted_by_its_head_and_turned_page_by_page(served, open_tab, some):
    names, live = some
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go(ALL)
        assert await shown(tab) == [live, *names[:A_PAGE]]
        await tab.page.click(".pages a[rel=next]")
        await tab.page.wait_for_url("**at=*")
        await tab.settled()
        assert await shown(tab) == names[A_PAGE:]
        await tab.page.click(".pages a[rel=prev]")
        await tab.page.wait_for_url("**view=all")
        await tab.settled()
        assert await shown(tab) == [live, *names[:A_PAGE]]
        await tab.page.click("th.c-score a")
        await tab.page.wait_for_url("**sort=-lead_score*")
        await tab.settled()
        scores = await tab.page.eval_on_selector_all("td.c-score", "all => all.map((it) => it.textContent)")
        assert scores == sorted(scores, key=lambda text: -int(text) if text.isdigit() else 1)
        assert await tab.page.get_attribute("th.c-score", "aria-sort") == "descending"


async def test_a_view_is_saved_opened_and_begun_with(served, open_tab, some):
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go("/console/calls?sentiment=negative&sort=-lead_score")
        narrow = await shown(tab)
        await tab.page.click("button:has-text('Save view')")
        await tab.page.fill("#view-name", "Angry people")
        await tab.page.keyboard.press("Enter")
        await tab.page.wait_for_url("**view=0*")
        await tab.settled()
        assert await tab.page.inner_text(".views a[aria-current]") == "Angry people"
        await tab.page.click(".views a:has-text('All calls')")
        await tab.page.wait_for_url("**view=all")
        await tab.page.click("text=Manage")
        await tab.page.wait_for_url("**/views")
        await tab.page.click("button:has-text('Begin with it')")
        await tab.page.wait_for_selector("button[aria-pressed=true]")
        await tab.go("/console/calls")
        assert "sentiment=negative" in tab.page.url
        assert await shown(tab) == narrow


async def test_calls_come_and_go_while_somebody_looks_and_nothing_moves_under_the_hand(served, open_tab, some):
    _, live = some
    database = served.office.database
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.page.mouse.move(5, 5)
        await tab.go(ALL)
        (new,) = await put(database, row(database, NOON, live=True, from_number="+15550100088"))
        await sees(tab, "([name]) => document.querySelector(`#live > tr:first-child`).id === `c-${name}`", new)
        assert (await shown(tab))[:2] == [new, live]
        before = await tab.page.inner_text(f"#c-{new} .c-duration")
        await sees(
            tab, "([name, was]) => document.querySelector(`#c-${name} .c-duration`).innerText !== was", new, before
        )  # it ticks

        await tab.page.hover(f"#c-{live} .c-agent")
        await change(served, live, intent="complaint")  # changes in place, under the mouse
        await sees(tab, "([name]) => document.querySelector(`#c-${name} .c-intent`).innerText === 'complaint'", live)
        names = await put(database, *[row(database, NOON + timedelta(seconds=n), live=True) for n in (1, 2, 3)])
        await tab.page.wait_for_selector("#live-news button:has-text('3 new calls')")
        assert (await shown(tab))[:2] == [new, live]  # they wait
        assert await tab.axe() == []
        await tab.look("list-news")
        await tab.page.click("#live-news button")
        assert (await shown(tab))[:5] == [*names[::-1], new, live]
        assert await tab.page.inner_text("#live-news") == ""

        await finish(served, live)
        await sees(tab, "([name]) => !document.getElementById(`c-${name}`).classList.contains('is-live')", live)
        assert await tab.page.inner_text(f"#c-{live} .c-outcome") == "completed"
        assert await tab.page.inner_text(f"#c-{live} .c-duration") == "2:04"
        await tab.page.mouse.move(5, 5)
        await put(database, row(database, NOON + timedelta(seconds=4), live=True))
        await sees(tab, "([count]) => document.querySelectorAll('#live > tr').length === count", 6)  # nobody points: it comes in


async def test_the_first_call_comes_into_an_empty_list(served, open_tab):
    served.office.house.now = int((NOON + timedelta(seconds=5)).timestamp() * 1_000)
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go(ALL)
        assert "No calls yet" in await tab.page.inner_text("main")
        (name,) = await put(served.office.database, row(served.office.database, NOON, live=True))
        await tab.page.wait_for_selector(f"#c-{name}")


async def test_it_works_with_the_keyboard_alone(served, open_tab, some):
    names, live = some
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go(ALL)
        keyboard = tab.page.keyboard

        async def row_in_focus():
            assert (await tab.focus())["seen"]
            return await tab.page.evaluate("document.activeElement.closest('tr.call')?.id.slice(2)")

        for key, name in (("j", live), ("j", names[0]), ("ArrowDown", names[1]), ("k", names[0]), ("ArrowUp", live), ("k", live)):
            await keyboard.press(key)
            assert await row_in_focus() == name, key
        await keyboard.press("?")
        assert await tab.page.is_visible("#keys")
        await keyboard.press("j")  # not behind the dialog
        await keyboard.press("Escape")
        assert not await tab.page.is_visible("#keys")
        await keyboard.press("f")
        assert await tab.page.is_visible("#filters")
        await keyboard.press("Escape")
        assert not await tab.page.is_visible("#filters")
        assert (await tab.focus())["tag"] == "summary"
        await keyboard.press("/")
        await keyboard.type("jk?f")  # into the field, and nothing else
        assert await tab.page.input_value("#search") == "jk?f"
        await keyboard.press("Control+A")
        await keyboard.type("pond")
        await keyboard.press("Enter")
        await tab.page.wait_for_url("**/console/calls?q=pond")
        await tab.go(ALL)
        await keyboard.press("n")
        await tab.page.wait_for_url("**at=*")
        await tab.settled()
        await keyboard.press("p")
        await tab.page.wait_for_url("**view=all")
        await tab.settled()
        await keyboard.press("j")
        await keyboard.press("j")
        await keyboard.press("Enter")
        await tab.page.wait_for_url(f"**/console/calls/{names[0]}")


async def test_a_click_on_a_row_opens_it_and_a_number_leads_to_its_calls(served, open_tab, some):
    names, _ = some
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go(ALL)
        await tab.page.click(f"#c-{names[1]} .c-number a")
        await tab.page.wait_for_url("**number=*")
        await tab.settled()
        assert await tab.page.inner_text(".chip > span") == "Number +1 555-010-0001"
        await tab.go(ALL)
        await tab.page.click(f"#c-{names[1]} .c-agent")
        await tab.page.wait_for_url(f"**/console/calls/{names[1]}")


async def test_an_export_is_a_file_and_the_page_stays(served, open_tab, some, sqlite_url):
    served.office.console.desk.settings.__dict__["database_url"] = sqlite_url
    for name in some[0]:
        await change(served, name, revision=2)
    async with open_tab() as tab:
        await tab.sign_in(Role.REVIEWER)
        await tab.go("/console/calls?outcome=transferred")
        await tab.page.click(".bar button:has-text('Export')")
        await tab.page.fill("#export-reason", "the monthly report")
        async with tab.page.expect_download() as waiting:
            await tab.page.click("#export form button:has-text('Export')")
        file = await (await waiting.value).path()
        assert len(file.read_text("utf-8").splitlines()) == 1 + len(await shown(tab))
        await tab.page.wait_for_selector("#export form button:not([disabled])", state="attached")


async def test_it_works_without_a_script(served, open_tab, some):
    async with open_tab(java_script_enabled=False) as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go(ALL)
        assert await tab.page.locator("tr.call").count() == A_PAGE + 1
        await tab.page.click("details.narrow > summary")
        await tab.page.check("input[name=outcome][value=transferred]")
        await tab.page.click("#filters button:has-text('Apply')")
        await tab.page.wait_for_url(lambda url: asked(url) == {"outcome": "transferred", "view": "all"})
        await tab.page.fill("#search", "+1 555 010 0001")
        await tab.page.click("search button")
        await tab.page.wait_for_url("**number=*")
        await tab.page.click("details.columns > summary")
        await tab.page.uncheck("input[name=column][value=sentiment]")
        await tab.page.click("text=Show these")
        await tab.page.wait_for_url("**number=*")
        assert await tab.page.locator("th.c-sentiment").count() == 0
        assert await tab.page.locator("th.c-intent").count() == 1


async def test_the_page_is_light(served, open_tab, some):
    async with open_tab() as tab:
        await tab.sign_in(Role.REVIEWER)
        await tab.begin()
        await tab.go(ALL)
        assert 0 < tab.weight < MOST_BYTES, tab.weight
        assert len(tab.asked) <= 11, tab.asked
        await tab.begin()
        await tab.go(ALL)
        assert tab.weight < 25_000
