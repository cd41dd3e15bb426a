"""Signing in, one's own account, and the frame of every page, as they look and feel in a browser."""

import pytest

from app.store.console_tables import Role
from tests.browser.browsing import SCHEMES, SIZES
from tests.web.console.office import PASSWORD

MOST_BYTES = 100_000


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_somebody_signs_in_looks_around_and_signs_out(served, open_tab, scheme, size):
    await served.user("ann", Role.ADMIN)
    name = f"{size}-{scheme}"
    async with open_tab(scheme=scheme, size=size) as tab:
        await tab.go("/console/calls")
        assert tab.page.url.endswith("/console/sign-in")
        await tab.look(f"sign-in-{name}")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
        tab.expected = {401}
        await tab.sign_in_by_hand("ann", "not that password")
        await tab.page.wait_for_selector("[role=alert]")
        await tab.look(f"sign-in-wrong-{name}")
        assert await tab.axe() == []
        await tab.sign_in_by_hand("ann")
        await tab.page.wait_for_url("**/console/calls")
        await tab.settled()
        await tab.look(f"calls-empty-{name}")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
        await tab.page.click("details.menu summary")
        await tab.look(f"menu-{name}")
        assert await tab.axe("body > header") == []  # what the menu covers is not in reach, and should not be
        await tab.page.click("text=Your account")
        await tab.settled()
        await tab.look(f"account-{name}")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
        await tab.page.click("details.menu summary")
        await tab.page.click("text=Sign out")
        await tab.page.wait_for_url("**/console/sign-in")
        await tab.look(f"signed-out-{name}")
        assert await tab.page.inner_text(".flash p") == "You are signed out."
        assert await tab.axe() == []
        await tab.page.go_back()  # what was seen is not shown again
        await tab.settled()
        assert tab.page.url.endswith("/console/sign-in") or "/console/sign-in?" in tab.page.url


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_what_is_not_there_is_said_in_the_same_clothes(served, open_tab, scheme, size):
    async with open_tab(scheme=scheme, size=size) as tab:
        await tab.sign_in(Role.OPERATOR)
        await tab.go("/console/nowhere", status=404)
        await tab.look(f"not-found-{size}-{scheme}")
        assert await tab.axe() == []
        assert await tab.too_wide() == []


async def test_everything_works_with_the_keyboard_alone(served, open_tab):
    await served.user("ann", Role.ADMIN)
    async with open_tab() as tab:
        keyboard = tab.page.keyboard
        await tab.go("/console/sign-in")
        assert (await tab.focus())["id"] == "field-name"
        await keyboard.type("ann")
        await keyboard.press("Tab")
        await keyboard.type(PASSWORD)
        await keyboard.press("Enter")
        await tab.page.wait_for_url("**/console/calls")
        await tab.settled()
        seen = []
        for _ in range(5):
            await keyboard.press("Tab")
            seen.append(await tab.focus())
        assert [it["words"] for it in seen[:2]] == ["Skip to the content", "Callrow"]
        assert {"Calls", "Switch between light and dark"} < {it["words"] for it in seen}
        assert [it for it in seen if not it["seen"]] == []
        await tab.page.reload()
        await keyboard.press("Tab")
        await keyboard.press("Enter")
        assert (await tab.focus())["id"] == "main"
        while (await tab.focus())["tag"] != "summary":
            await keyboard.press("Shift+Tab")
        await keyboard.press("Enter")
        assert await tab.page.is_visible("text=Your account")
        await keyboard.press("Escape")
        assert not await tab.page.is_visible("text=Your account")
        assert (await tab.focus())["tag"] == "summary"
        await keyboard.press("Enter")
        await keyboard.press("Tab")
        await keyboard.press("Enter")
        await tab.page.wait_for_url("**/console/account")


@pytest.mark.parametrize("path", ["/console/sign-in", "/console/account"])
async def test_a_page_is_light_the_first_time_and_nearly_nothing_the_second(served, open_tab, path):
    async with open_tab() as tab:
        await tab.sign_in(Role.ADMIN) if path != "/console/sign-in" else None
        await tab.begin()
        await tab.go(path)
        assert 0 < tab.weight < MOST_BYTES, tab.weight
        assert len(tab.asked) <= 8, tab.asked
        first = tab.weight
        await tab.begin()
        await tab.go(path)
        assert tab.weight < first / 3


async def test_the_choice_of_light_or_dark_holds_at_once_and_for_good(served, open_tab):
    async with open_tab(scheme="light") as tab:

        async def is_dark():
            colour = await tab.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) < 150

        await tab.go("/console/sign-in")
        assert not await is_dark()
        for dark in (True, False, True):
            await tab.page.click("[data-theme-form] button")
            assert await is_dark() is dark
            await tab.settled()
        await tab.look("chosen-dark")
        await tab.go("/console/sign-in")
        assert await is_dark()
        assert await tab.axe() == []


async def test_it_works_without_a_script(served, open_tab):
    await served.user("ann")
    async with open_tab(java_script_enabled=False) as tab:
        await tab.go("/console/account")
        await tab.page.click("[data-theme-form] button")
        await tab.settled()
        assert await tab.page.get_attribute("html", "data-theme") == "dark"
        await tab.sign_in_by_hand("ann")
        await tab.page.wait_for_url("**/console/*")
        await tab.go("/console/account")
        await tab.page.click("details.menu summary")
        await tab.page.click("text=Sign out")
        await tab.page.wait_for_url("**/console/sign-in")


async def test_a_form_is_not_sent_twice_by_an_impatient_hand(served, open_tab):
    await served.user("ann")
    async with open_tab() as tab:
        await tab.go("/console/sign-in")
        await tab.begin()
        await tab.page.fill("input[name=name]", "ann")
        await tab.page.fill("input[name=password]", PASSWORD)
        await tab.page.dblclick("main button:has-text('Sign in')")
        await tab.page.wait_for_url("**/console/calls")
        assert len(await served.office.console.users.sessions_of((await served.user("ann")).id)) == 1
