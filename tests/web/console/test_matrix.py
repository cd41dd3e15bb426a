"""The authorisation matrix (T35): every route of the console, every kind of visitor."""

import pytest

from app.web import guard
from app.web.console import session as cookies
from tests.web.console import matrix
from tests.web.console.matrix import ENTRIES, IN, ROLES, VISITORS, meant, path_of, routes


async def test_every_route_is_in_the_matrix_and_nothing_else_is(sqlite_office):
    there = {name for name, _ in routes(sqlite_office)}
    assert there - set(ENTRIES) == set(), "routes that nobody has thought of: give each its line in tests/web/console/matrix.py"
    assert set(ENTRIES) - there == set()


async def test_every_route_has_the_policy_that_is_meant(sqlite_office):
    assert {name: route.endpoint.policy for name, route in routes(sqlite_office)} == {
        name: entry.policy for name, entry in ENTRIES.items()
    }
    assert [path for path, policy in guard.policies(sqlite_office.routes) if policy is None] == []


async def test_the_doors_let_in_who_is_meant_and_nobody_else(office):
    found = await matrix.asked(office)
    expected = {
        name: {visitor: meant(entry.policy, visitor, socket=name.startswith("SOCKET")) for visitor in VISITORS}
        for name, entry in ENTRIES.items()
    }
    assert found == expected, "\n".join(matrix.lines(found))


async def test_htmx_is_told_in_a_header_where_to_sign_in(sqlite_office):
    let_in = matrix.set_probes(sqlite_office)
    browsers = await matrix.visitors(sqlite_office)
    for name, route in routes(sqlite_office):
        method, entry = name.partition(" ")[0], ENTRIES[name]
        if method != "GET" or entry.policy is guard.Policy.PUBLIC:
            continue
        for visitor in set(VISITORS) - set(ROLES):
            answer = await browsers[visitor].part(path_of(route))
            assert answer.status_code == 401, (name, visitor)
            assert answer.headers["hx-redirect"] == "/console/sign-in?next=%2Fconsole%2Fcalls%3Fx%3D1"
            assert answer.content == b""
    assert let_in == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "https://calls.example.com", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.calls.example.com", "sec-fetch-site": "same-site"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"origin": "http://calls.example.com"},
        {"referer": "https://calls.example.com/console/account"},
    ],
    ids=str,
)
async def test_no_form_from_elsewhere_comes_in_at_any_route(sqlite_office, headers):
    let_in = matrix.set_probes(sqlite_office)
    admin, stranger = await sqlite_office.signed_in("admin"), sqlite_office.browser()
    words = {admin: cookies.form_word(admin.cookie(cookies.SESSION)), stranger: None}
    stranger.put_cookie(cookies.VISIT, "a visitor")
    words[stranger] = cookies.form_word("a visitor")
    changing = [(name, route) for name, route in routes(sqlite_office) if name.startswith("POST")]
    assert changing
    for name, route in changing:
        for browser in (admin, stranger):
            answer = await browser.post(path_of(route), word=words[browser], headers=headers)
            allowed = {403} if browser is admin or ENTRIES[name].policy is guard.Policy.PUBLIC else {303}
            assert answer.status_code in allowed, (name, answer.status_code)
    assert let_in == []


async def test_no_form_without_its_word_comes_in_at_any_route(sqlite_office):
    let_in = matrix.set_probes(sqlite_office)
    admin, other = await sqlite_office.signed_in("admin"), await sqlite_office.signed_in("operator")
    for _, route in ((name, route) for name, route in routes(sqlite_office) if name.startswith("POST")):
        for word in ("", "x", "A" * 43, cookies.form_word(other.cookie(cookies.SESSION)), "é", "=" * 44):
            answer = (
                await admin.post(path_of(route), word=word or None, headers=admin.from_us())
                if word
                else await admin.client.post(path_of(route), headers=admin.from_us())
            )
            assert answer.status_code == 403, (route.path, word)
    assert let_in == []


async def test_a_socket_from_elsewhere_is_refused(sqlite_office):
    let_in = matrix.set_probes(sqlite_office)
    admin = await sqlite_office.signed_in("admin")
    for _, route in ((name, route) for name, route in routes(sqlite_office) if name.startswith("SOCKET")):
        for headers in ({"origin": "https://evil.example"}, {"origin": ""}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            await matrix.knock_at_socket(sqlite_office, path_of(route), admin, **headers)
    assert let_in == []


# ---- what stands about a call


def about_a_call(office):
    return [(name, route) for name, route in routes(office) if "{call_id}" in route.path and not ENTRIES[name].unaudited]


async def test_whatever_is_about_a_call_says_what_it_writes_into_the_audit_log(sqlite_office):
    assert [name for name, route in about_a_call(sqlite_office) if not route.endpoint.audits] == []


async def test_who_is_let_in_to_a_call_has_a_line_and_who_is_not_has_none(office):
    let_in = matrix.set_probes(office)
    browsers = await matrix.visitors(office)
    for name, route in about_a_call(office):
        for visitor, browser in browsers.items():
            before = len(await office.audit())
            outcome = await matrix.ask(office, name, route, browser, let_in)
            new = (await office.audit())[before:]
            if outcome == IN:
                assert new == [(f"user:{browser.user.name}", route.endpoint.audits, "01JNOTHING0000000000000000", None)], name
            else:
                assert new == [], (name, visitor)


async def test_where_the_audit_log_cannot_be_written_nothing_of_a_call_is_shown(sqlite_office):
    matrix.set_probes(sqlite_office)
    admin = await sqlite_office.signed_in("admin")
    sqlite_office.break_audit()
    for name, route in about_a_call(sqlite_office):
        if name.startswith("SOCKET"):
            sent = await matrix.knock_at_socket(sqlite_office, path_of(route), admin)
            assert [message["type"] for message in sent] == ["websocket.close"], name
            continue
        answer = await (
            admin.post(path_of(route), word=matrix.word_of(admin)) if name.startswith("POST") else admin.get(path_of(route))
        )
        assert answer.status_code == 503, name
        assert b"the probe" not in answer.content


async def test_a_call_that_is_not_there_is_not_found_whoever_asks(sqlite_office):
    """Not forbidden: nobody learns from the answer whether there is such a call."""
    for role in ROLES:
        browser = await sqlite_office.signed_in(role)
        for name, route in about_a_call(sqlite_office):
            if name.startswith("GET") and meant(ENTRIES[name].policy, role) == IN:
                for nobody in ("01JNOTHING0000000000000000", "x", "%00", "%2e%2e", "a" * 500):
                    answer = await browser.get(path_of(route, call_id=nobody))
                    assert answer.status_code == 404, (name, role, nobody)


async def test_a_door_about_a_call_writes_before_it_answers(sqlite_office):
    """The routes of today may have none about a call: so here is one."""
    from starlette.responses import PlainTextResponse

    from app.web.guard import Policy, build

    order = []
    console = sqlite_office.console
    append = console.audit.append

    async def noted(*args):
        order.append("line")
        return await append(*args)

    async def page(visit):
        order.append("page")
        return PlainTextResponse("what was said")

    console.audit.append = noted
    sqlite_office.app = build([console.page("/console/x/{call_id}", page, Policy.OPERATOR, audits="call.viewed")], https=True)
    browser = await sqlite_office.signed_in("operator")
    answer = await browser.get("/console/x/01CALL")
    assert (answer.status_code, answer.text, order) == (200, "what was said", ["page", "line"])
    assert (await sqlite_office.audit())[-1] == ("user:the-operator", "call.viewed", "01CALL", None)
    sqlite_office.break_audit()
    answer = await browser.get("/console/x/01CALL")
    assert answer.status_code == 503
    assert "what was said" not in answer.text
