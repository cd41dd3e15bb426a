"""One's own account: sessions, the password, how it looks."""

import pytest

from app.store.console_tables import Role
from app.web.console import session as cookies
from tests.web.console.office import PASSWORD, set_cookies, words

NEW = "another four words here"


async def test_the_page_shows_who_one_is_and_where_one_is_signed_in(office):
    await office.signed_in(name="ann")
    browser = await office.signed_in(name="ann")
    await office.signed_in(name="bob")
    said = words(await browser.get("/console/account"))
    assert said.count("Chrome on Linux") == 3  # each once, and once more on the button that ends the other
    assert "this one" in said
    assert "bob" not in said


async def test_another_session_of_ones_own_is_ended(office):
    other, browser = await office.signed_in(name="ann"), await office.signed_in(name="ann")
    found = {session.id for session in await office.console.users.sessions_of(browser.user.id)}
    mine = await office.console.users.session(browser.cookie(cookies.SESSION))
    (its,) = found - {mine.id}
    answer = await browser.post(f"/console/account/sessions/{its}/end")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/account")
    assert "That session has ended." in words(await browser.get("/console/account"))
    assert (await other.get("/console/calls")).status_code == 303
    assert (await office.audit())[-1] == ("user:ann", "session.ended", "ann", None)


async def test_a_session_of_somebody_else_is_not_found_and_goes_on(office):
    other, browser = await office.signed_in(name="bob"), await office.signed_in("admin", name="ann")
    (its,) = await office.console.users.sessions_of(other.user.id)
    for name in (its.id, "01NOBODY", "%00"):
        assert (await browser.post(f"/console/account/sessions/{name}/end")).status_code == 404
    assert (await other.get("/console/calls")).status_code == 200
    assert await office.audit() == []


async def test_all_others_are_ended_at_once(sqlite_office):
    others = [await sqlite_office.signed_in(name="ann") for _ in range(3)]
    browser = await sqlite_office.signed_in(name="ann")
    assert (await browser.post("/console/account/sessions/end-others")).status_code == 303
    assert [(await other.get("/console/calls")).status_code for other in others] == [303] * 3
    assert "Sessions ended: 3." in words(await browser.get("/console/account"))


async def test_the_password_is_changed_by_who_knows_it_and_every_other_session_ends(office):
    other, browser = await office.signed_in(name="ann"), await office.signed_in(name="ann")
    answer = await browser.post("/console/account/password", present=PASSWORD, new=NEW, again=NEW)
    assert answer.status_code == 303
    assert "Your password is changed. Other sessions ended: 1." in words(await browser.get("/console/account"))
    assert (await other.get("/console/calls")).status_code == 303
    assert await office.console.users.check("ann", NEW)
    assert (await office.audit())[-1] == ("user:ann", "password.changed", "ann", None)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"present": "not that password", "new": NEW, "again": NEW}, "That is not your present password."),
        ({"present": PASSWORD, "new": NEW, "again": NEW + "x"}, "The two are not the same."),
        ({"present": PASSWORD, "new": "short", "again": "short"}, "A password has at least 12 characters."),
        ({"present": PASSWORD, "new": "a" * 20, "again": "a" * 20}, "That password is too easily guessed."),
        ({}, "That is not your present password."),
    ],
)
async def test_a_password_that_is_not_changed_is_said_why(sqlite_office, fields, said):
    browser = await sqlite_office.signed_in(name="ann")
    answer = await browser.post("/console/account/password", **fields)
    assert answer.status_code == 422
    assert said in words(answer)
    assert NEW not in answer.text
    assert await sqlite_office.console.users.check("ann", PASSWORD)
    assert "password.changed" not in [line[1] for line in await sqlite_office.audit()]


async def test_a_stolen_session_cannot_guess_the_password_for_ever(sqlite_office):
    browser = await sqlite_office.signed_in(name="ann")
    word = await browser.word()
    tried = [
        (
            await browser.post("/console/account/password", word=word, present=f"guess number {number}", new=NEW, again=NEW)
        ).status_code
        for number in range(8)
    ]
    assert tried == [422] * 5 + [429] * 3
    assert [line[1] for line in await sqlite_office.audit()] == ["password.refused"] * 5


async def test_who_signs_in_by_the_provider_only_has_no_password_to_change(sqlite_office):
    await sqlite_office.user("ann", Role.OPERATOR, password=None)
    browser = await sqlite_office.signed_in(name="ann")
    assert "Change your password" not in words(await browser.get("/console/account"))
    assert (await browser.post("/console/account/password", present="", new=NEW, again=NEW)).status_code == 422


async def test_the_password_stays_as_it_was_while_the_audit_log_cannot_be_written(sqlite_office):
    browser = await sqlite_office.signed_in(name="ann")
    word = await browser.word()
    sqlite_office.break_audit()
    answer = await browser.post("/console/account/password", word=word, present=PASSWORD, new=NEW, again=NEW)
    assert answer.status_code == 503
    assert await sqlite_office.console.users.check("ann", PASSWORD)


async def test_light_and_dark_are_remembered_for_the_browser(sqlite_office):
    browser = sqlite_office.browser()
    assert "data-theme=" not in (await browser.get("/console/sign-in")).text
    for theme in ("dark", "light"):
        answer = await browser.post("/console/theme", theme=theme, next="/console/sign-in")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
        assert f"__Host-callrow-theme={theme}" in set_cookies(answer)["__Host-callrow-theme"]
        assert f'data-theme="{theme}"' in (await browser.get("/console/sign-in")).text
    await browser.post("/console/theme", theme="system")
    assert "data-theme=" not in (await browser.get("/console/sign-in")).text
    assert (await browser.post("/console/theme", theme='"><script>')).status_code == 400
    browser.put_cookie(cookies.THEME, '"><script>')
    assert "<script>" not in (await browser.get("/console/sign-in")).text
