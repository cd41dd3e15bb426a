"""Signing in and out, as a browser does it."""

import asyncio

import pytest

from app.store.console_tables import Role
from app.store.engine import Database
from app.web.console import session as cookies
from tests.web.console.office import PASSWORD, Office, set_cookies, words


async def test_somebody_signs_in_and_is_where_they_wanted_to_be(office):
    await office.user("ann", Role.REVIEWER)
    browser = office.browser()
    answer = await browser.get("/console/calls?agent=sales&page=2")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/console/sign-in?next=%2Fconsole%2Fcalls%3Fagent%3Dsales%26page%3D2",
    )
    answer = await browser.get(answer.headers["location"])
    assert answer.status_code == 200
    assert 'value="/console/calls?agent=sales&amp;page=2"' in answer.text
    answer = await browser.sign_in("Ann", next="/console/calls?agent=sales&page=2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/calls?agent=sales&page=2")
    assert (await browser.get("/console/calls")).status_code == 200
    assert (await office.audit()) == [("user:ann", "sign_in.done", "ann", {"by": "password"})]


async def test_the_sessions_cookie_is_as_safe_as_a_cookie_can_be(sqlite_office):
    await sqlite_office.user("ann")
    browser = sqlite_office.browser()
    given = set_cookies(await browser.sign_in("ann"))
    made = given["__Host-callrow"].lower()
    assert all(f"; {word}" in made for word in ("secure", "httponly", "samesite=lax", "path=/", "max-age=43200"))
    assert "domain" not in made
    assert "max-age=0" in given["__Host-callrow-visit"].lower()  # the visitor's word is of no more use


async def test_on_this_machine_the_cookie_goes_without_https(sqlite_url):
    database = Database(sqlite_url)
    office = Office(database, PUBLIC_URL="http://127.0.0.1:8080")
    await office.user("ann")
    browser = office.browser()
    made = set_cookies(await browser.sign_in("ann"))["callrow"].lower()
    assert "httponly" in made
    assert "secure" not in made
    assert (await browser.get("/console/calls")).status_code == 200
    await office.close()
    await database.close()


async def test_a_wrong_name_and_a_wrong_password_look_the_same(sqlite_office):
    await sqlite_office.user("ann")
    browser = sqlite_office.browser()
    said = []
    for name, password in (("ann", "not that password"), ("nobody", "not that password"), ("", ""), ("ann", "")):
        answer = await browser.sign_in(name, password)
        assert answer.status_code == 401
        assert browser.cookie(cookies.SESSION) is None
        assert password == "" or password not in answer.text
        said.append(words(answer))
    assert len(set(said)) == 1
    assert await sqlite_office.audit() == [
        ("nobody", "sign_in.refused", "ann", None),
        ("nobody", "sign_in.refused", None, None),  # a name that there is not may be a password: it is not kept
        ("nobody", "sign_in.refused", None, None),
        ("nobody", "sign_in.refused", "ann", None),
    ]


async def test_a_session_from_before_is_not_taken_over(sqlite_office):
    """Whoever planted a session's cookie in a browser is not signed in with it (session fixation)."""
    await sqlite_office.user("ann")
    browser = sqlite_office.browser()
    browser.put_cookie(cookies.SESSION, "planted by somebody")
    answer = await browser.sign_in("ann")
    assert answer.status_code == 303
    assert browser.cookie(cookies.SESSION) != "planted by somebody"
    thief = sqlite_office.browser()
    thief.put_cookie(cookies.SESSION, "planted by somebody")
    assert (await thief.get("/console/calls")).status_code == 303


async def test_who_signs_in_again_has_one_session_in_that_browser(sqlite_office):
    await sqlite_office.user("bob")
    browser = await sqlite_office.signed_in(name="ann")
    before = browser.cookie(cookies.SESSION)
    assert (await browser.sign_in("bob")).status_code == 303
    assert await sqlite_office.console.users.session(before) is None
    assert "bob" in words(await browser.get("/console/calls"))


async def test_signing_out_ends_the_session_and_not_only_the_cookie(office):
    browser = await office.signed_in("admin")
    kept = browser.cookie(cookies.SESSION)
    answer = await browser.post("/console/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    assert browser.cookie(cookies.SESSION) is None
    assert "You are signed out." in words(await browser.get("/console/sign-in"))
    assert "You are signed out." not in words(await browser.get("/console/sign-in"))
    browser.put_cookie(cookies.SESSION, kept)  # T39: replayed
    assert (await browser.get("/console/calls")).status_code == 303
    assert [line[:2] for line in await office.audit()] == [("user:the-admin", "sign_out.done")]


async def test_signing_out_is_no_link(sqlite_office):
    browser = await sqlite_office.signed_in()
    assert (await browser.get("/console/sign-out")).status_code == 404
    assert (await browser.get("/console/calls")).status_code == 200


async def test_who_is_signed_in_goes_on_from_the_page_to_sign_in(sqlite_office):
    browser = await sqlite_office.signed_in()
    answer = await browser.get("/console/sign-in?next=/console/account")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/account")


async def test_an_idle_session_is_over_and_what_a_page_asks_by_itself_is_no_sign_of_life(sqlite_office):
    browser = await sqlite_office.signed_in()
    for _ in range(3):
        sqlite_office.pass_(minutes=29)
        assert (await browser.get("/console/calls")).status_code == 200
    route = next(route for route in sqlite_office.routes if route.path == "/console/calls")
    route.endpoint._background = True
    for minutes, status in ((20, 200), (9, 200), (1, 303)):
        sqlite_office.pass_(minutes=minutes)
        assert (await browser.get("/console/calls")).status_code == status


# ---- where somebody is sent


ELSEWHERE = [
    *("https://evil.example/console/calls", "//evil.example/console", "/\\evil.example", "/console//evil.example"),
    *("/console\\..\\x", "javascript:alert(1)", "/twilio/voice", "/console/../health/live", "console/calls", "/consolex"),
    *("/console/calls\r\nx: y", "/console/calls#x y", "/console/é", "", " /console/calls", "/console/sign-in"),
    *("/console/sign-in/provider", "/console/" + "x" * 3_000, "/console/%0d%0aset-cookie:x\n", "\x00", "/console?x=\t"),
]


@pytest.mark.parametrize("there", ELSEWHERE, ids=ascii)
async def test_nobody_is_sent_anywhere_but_to_the_console(sqlite_office, there):
    assert cookies.own_path(there) == "/console/calls"
    await sqlite_office.user("ann")
    answer = await sqlite_office.browser().sign_in("ann", next=there)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/calls")


@pytest.mark.parametrize("there", ["/console", "/console/calls?x=1&y=%2B%20", "/console/calls/01ABC", "/console/live?a=b/c:d@e"])
def test_a_path_of_the_console_is_gone_on_to(there):
    assert cookies.own_path(there) == there


# ---- tries


async def test_after_five_wrong_passwords_a_name_waits_a_minute_and_nobody_else_does(sqlite_office):
    await sqlite_office.user("ann")
    await sqlite_office.user("bob")
    browser = sqlite_office.browser()
    for _ in range(5):
        assert (await browser.sign_in("ann", "not that password")).status_code == 401
    for name in ("ann", "ANN", " ann "):
        answer = await browser.sign_in(name, PASSWORD)  # even with the right one
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
        assert "Too many attempts. Try again in 60 seconds." in words(answer)
    sqlite_office.pass_(seconds=240)  # the address's tries are paid off as well
    assert (await browser.sign_in("ann")).status_code == 303


async def test_who_tries_a_name_from_one_place_does_not_shut_its_owner_out_at_another(sqlite_url):
    database = Database(sqlite_url)
    office = Office(database, PROXY_HOPS="1")
    await office.user("ann")
    evil, ann = office.browser(**{"x-forwarded-for": "6.6.6.6"}), office.browser(**{"x-forwarded-for": "203.0.113.9"})
    tried = [(await evil.sign_in("ann", "not that password")).status_code for _ in range(12)]
    assert tried == [401] * 5 + [429] * 7
    assert (await ann.sign_in("ann")).status_code == 303
    await office.close()
    await database.close()


async def test_a_name_that_is_tried_from_everywhere_waits_as_well(sqlite_url):
    database = Database(sqlite_url)
    office = Office(database, PROXY_HOPS="1")
    await office.user("ann")
    codes = []
    for number in range(60):
        browser = office.browser(**{"x-forwarded-for": f"10.0.0.{number}"})
        codes.append((await browser.sign_in("ann", "not that password")).status_code)
        office.pass_(seconds=1)
    assert codes.count(401) <= 10
    await office.close()
    await database.close()


async def test_one_address_gets_at_most_ten_hashes_a_minute_out_of_us(sqlite_office):
    """T40, with as many names as there are tries."""
    reached = 0
    is_right = sqlite_office.console.users._passwords.is_right

    async def counted(*args):
        nonlocal reached
        reached += 1
        return await is_right(*args)

    sqlite_office.console.users._passwords.is_right = counted
    browser = sqlite_office.browser()
    word = await browser.word()
    for second in range(60):
        for number in range(3):
            name = f"name{second}-{number}"
            answer = await browser.post("/console/sign-in", word=word, name=name, password="a password to try")
            assert answer.status_code in (401, 429)
        sqlite_office.pass_(seconds=1)
    assert reached <= 10


async def test_tries_at_once_are_counted_all(office):
    await office.user("ann")
    browser = office.browser()
    word = await browser.word()
    answers = await asyncio.gather(
        *(browser.post("/console/sign-in", word=word, name="ann", password="not that password") for _ in range(30))
    )
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 25


async def test_right_passwords_are_not_counted(sqlite_office):
    await sqlite_office.user("ann")
    for _ in range(20):
        assert (await sqlite_office.browser().sign_in("ann")).status_code == 303


@pytest.mark.parametrize(
    ("hops", "forwarded", "found"),
    [
        (0, "6.6.6.6", "127.0.0.1"),
        (1, "6.6.6.6", "6.6.6.6"),
        (1, "6.6.6.6, 7.7.7.7", "7.7.7.7"),
        (2, "6.6.6.6, 7.7.7.7", "6.6.6.6"),
        (2, "1.1.1.1, 6.6.6.6, 7.7.7.7", "6.6.6.6"),
        (3, "6.6.6.6", "6.6.6.6"),
        (1, "", "127.0.0.1"),
        (1, "2001:db8::1:2:3:4", "2001:db8::/64"),
        (1, "[2001:db8::5]", "2001:db8::/64"),
        (1, "::ffff:6.6.6.6", "6.6.6.6"),
        (1, "nonsense" * 50, ("nonsense" * 50)[:64]),
    ],
)
def test_whose_address_it_is_follows_from_how_many_proxies_are_ours(hops, forwarded, found):
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert cookies.client_address({"client": ("127.0.0.1", 1), "headers": headers}, hops) == found


# ---- when something is away


async def test_nobody_signs_in_while_the_audit_log_cannot_be_written(sqlite_office):
    await sqlite_office.user("ann")
    browser = sqlite_office.browser()
    word = await browser.word()
    sqlite_office.break_audit()
    for password in (PASSWORD, "not that password"):
        answer = await browser.post("/console/sign-in", word=word, name="ann", password=password)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert browser.cookie(cookies.SESSION) is None
    assert "nothing can be shown and nothing was changed" in words(answer)


async def test_without_the_database_there_is_a_page_that_says_so(sqlite_office, monkeypatch):
    from app.errors import StoreUnavailable

    browser = await sqlite_office.signed_in()

    async def away(*_args, **_kwargs):
        raise StoreUnavailable("look for a session")

    monkeypatch.setattr(sqlite_office.console.users, "session", away)
    answer = await browser.get("/console/calls")
    assert answer.status_code == 503
    assert "Calls go on. Try again." in words(answer)
    answer = await browser.part("/console/calls")
    assert (answer.status_code, answer.headers["hx-retarget"]) == (503, "#flashes")
    assert "Not available now" in words(answer)


def test_a_browser_is_named_in_a_few_words():
    firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
    phone = (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Safari/604.1"
    )
    assert cookies.browser_name(firefox) == "Firefox on Windows"
    assert cookies.browser_name(phone) == "Safari on iPhone"
    assert cookies.browser_name("<script>") is None
