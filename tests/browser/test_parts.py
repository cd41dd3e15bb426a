"""Every part that pages are made of, on one page: looked at by axe, light and dark, wide and narrow; and htmx under our policy."""

import asyncio
from pathlib import Path

import pytest
from starlette.responses import StreamingResponse

from app.store.console_tables import Role
from app.web.console import shell
from app.web.guard import Policy
from tests.browser.browsing import SCHEMES, SIZES

PARTS = Path(__file__).with_name("parts.html").read_text("utf-8")


@pytest.fixture
def parts(served):
    """A page with every part, and what it asks for."""
    console = served.office.console
    template = console.shell.templates.from_string(PARTS)
    posted = []

    async def page(visit):
        return await shell.html(visit.request, template.render({**visit.context()}))

    async def part(visit):
        visit.flash("Never shown with a part.")
        return await shell.html(visit.request, "<strong>a part</strong>")

    async def post(visit):
        posted.append(visit.user.name)
        return await shell.html(visit.request, "posted")

    async def fails(_visit):
        raise ValueError

    async def live(_visit):
        async def events():
            for number in range(3):
                yield f"data: <em>tick {number}</em>\n\n"
                await asyncio.sleep(0.05)
            await asyncio.Event().wait()

        return StreamingResponse(events(), media_type="text/event-stream", headers=shell.HEADERS)

    served.office.app.router.routes[:0] = [
        console.page("/console/parts", page, Policy.OPERATOR),
        console.page("/console/parts", post, Policy.OPERATOR, methods=["POST"]),
        console.page("/console/parts/part", part, Policy.OPERATOR),
        console.page("/console/parts/fails", fails, Policy.OPERATOR),
        console.page("/console/parts/live", live, Policy.OPERATOR, background=True),
    ]
    return posted


async def open_parts(tab):
    await tab.go("/console/parts")
    await tab.page.wait_for_selector("#live em")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_every_part_is_for_everybody(parts, open_tab, scheme, size):
    async with open_tab(scheme=scheme, size=size) as tab:
        await tab.sign_in(Role.ADMIN)
        await open_parts(tab)
        await tab.look(f"parts-{size}-{scheme}")
        assert await tab.axe() == []
        assert await tab.too_wide() == []
        await tab.page.click("text=Correct >> nth=0")
        assert await tab.page.is_visible("text=Correct the disposition")
        await tab.look(f"dialog-{size}-{scheme}")
        assert await tab.axe() == []
        await tab.page.keyboard.press("Escape")
        assert not await tab.page.is_visible("text=Correct the disposition")


async def test_htmx_gets_posts_and_streams_under_our_policy(parts, open_tab):
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR, name="ann")
        await open_parts(tab)
        await tab.page.wait_for_selector("#live em:has-text('tick 2')")
        await tab.page.click("#get")
        await tab.page.wait_for_selector("#part strong")
        await tab.page.click("#post")  # its word comes from the body's own attribute
        await tab.page.wait_for_selector("#part:has-text('posted')")
        assert parts == ["ann"]
        tab.expected = {500}
        await tab.page.click("#fail")
        await tab.page.wait_for_selector("#flashes .flash.wrong")
        assert "It was our fault" in await tab.page.inner_text("#flashes")
        assert await tab.page.inner_text("#part") == "posted"  # what was on the screen stays
        await tab.look("htmx-failed")
        await tab.page.click("[data-dismiss]")
        assert await tab.page.inner_text("#flashes") == ""


async def test_a_page_whose_session_is_over_goes_to_the_sign_in_and_comes_back(parts, served, open_tab):
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR, name="ann")
        await open_parts(tab)
        await served.office.console.users.end_all((await served.user("ann")).id)
        tab.expected = {401}
        await tab.page.click("#get")
        await tab.page.wait_for_url("**/console/sign-in?next=%2Fconsole%2Fparts")
        await tab.sign_in_by_hand("ann")
        await tab.page.wait_for_url("**/console/parts")


async def test_the_back_button_shows_a_whole_page(parts, open_tab):
    async with open_tab() as tab:
        await tab.sign_in(Role.OPERATOR)
        await open_parts(tab)
        await tab.page.click("#push")
        await tab.page.wait_for_url("**/console/parts/part")
        await tab.page.go_back()
        await tab.page.wait_for_selector("h1")
        assert await tab.page.inner_text("#part") == "nothing yet"
