"""What every page stands in: headers, static files, templates, messages, faults."""

import gzip
import hashlib
import re
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from starlette.responses import PlainTextResponse

from app.web import guard
from app.web.console import formats, session, shell
from app.web.console.visit import Visit
from app.web.guard import Pace, Policy
from tests.web.console.office import set_cookies, words

STATIC = shell.HERE / "static"
TEMPLATES = shell.HERE / "templates"
ROOT = Path(__file__).parents[3]
MOST_OF_OUR_OWN = 32_000


# ---- what a browser is told


async def test_every_answer_of_the_console_holds_the_browser_to_the_policy(sqlite_office):
    browser, stranger = await sqlite_office.signed_in("admin"), sqlite_office.browser()
    answers = [
        await browser.get("/console/account"),
        await browser.get("/console/nowhere"),
        await stranger.get("/console/sign-in"),
        await stranger.get("/console/calls"),
        await stranger.part("/console/calls"),
        await browser.post("/console/theme", theme="nonsense"),
        await browser.post("/console/theme", word="wrong"),
        await stranger.get(sqlite_office.console.shell.address("console.css")),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 303, 401, 400, 403, 200]
    for answer in answers:
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:",
            "connect-src": "'self'", "media-src": "'self'", "font-src": "'self'", "form-action": "'self'",
            "frame-ancestors": "'none'", "base-uri": "'none'",
        }  # fmt: skip
        assert len(answer.headers.get_list("content-security-policy")) == 1
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert {answer.headers["cache-control"] for answer in answers[:-1]} == {"no-store"}


OURS = [*TEMPLATES.rglob("*.html"), STATIC / "console.js", STATIC / "console.css"]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_in_a_page_breaks_the_policy_or_leaves_the_house(path):
    text = path.read_text("utf-8")
    assert not re.search(r"<style|\sstyle\s*=|\son[a-z]+\s*=\s*[\"']|javascript:|\|\s*safe\b|autoescape|<base\b|<iframe", text), (
        path
    )
    for script in re.findall(r"<script\b[^>]*>[^<]*", text):
        assert re.fullmatch(r'<script (?:type="module" |defer )?src="{{ static\(\'[\w.-]+\'\) }}">', script), script
    assert not re.search(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text.replace("http://www.w3.org/2000/svg", "")), path
    assert not re.search(r"\beval\(|new Function|innerHTML|insertAdjacentHTML|document\.write", text)


def test_our_own_style_and_script_are_small():
    """A page has the style of all pages, and at most one of its own."""
    of_all = (STATIC / "console.css").stat().st_size
    of_one = {path.name: path.stat().st_size for path in STATIC.glob("console-*.css")}
    assert {name: size for name, size in of_one.items() if of_all + size >= MOST_OF_OUR_OWN} == {}
    assert sum(len(gzip.compress(path.read_bytes())) for path in STATIC.iterdir() if path.suffix in (".css", ".js")) < 80_000


# ---- static files


async def test_a_static_file_is_kept_for_ever_under_the_name_of_its_content(sqlite_office):
    browser = sqlite_office.browser()
    for name, file in sqlite_office.console.shell.files.items():
        if "." not in name:
            continue
        address = sqlite_office.console.shell.address(name)
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:16] in address
        for encoding in ("identity", "gzip"):
            answer = await browser.get(address, **{"accept-encoding": encoding})
            assert (answer.status_code, answer.content) == (200, file.content), name
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["vary"] == "Accept-Encoding"
            assert answer.headers["content-type"].startswith(file.kind)
            assert set_cookies(answer) == {}
            again = await browser.get(address, **{"accept-encoding": encoding, "if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
    zipped = await browser.get(address, **{"accept-encoding": "gzip"})
    plain = await browser.get(address, **{"accept-encoding": "identity"})
    assert zipped.headers["etag"] != plain.headers["etag"]


async def test_a_page_of_another_version_gets_todays_file_and_does_not_keep_it(sqlite_office):
    answer = await sqlite_office.browser().get("/console/static/console.0123456789abcdef.css")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name", ["nothing.0123.css", "console.css", ".", "..", "..%2f..%2fguard.py", "%2e%2e/guard.py", "x.x.", "VENDORED", "\x00"]
)
async def test_nothing_else_is_served(sqlite_office, name):
    answer = await sqlite_office.browser().get(f"/console/static/{name.replace(chr(0), '%00')}")
    assert answer.status_code in (303, 404)
    assert b"class" not in answer.content


def test_what_others_made_is_as_they_made_it():
    listed = re.findall(r"^([0-9a-f]{64})  (\S+)", (STATIC / "VENDORED").read_text("utf-8"), re.MULTILINE)
    assert {name: digest for digest, name in listed} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in STATIC.iterdir()
        if path.name != "VENDORED" and not path.name.startswith(("console", "callrow"))
    }
    assert sorted(name for _, name in listed if "LICENSE" in name) == ["htmx-LICENSE.txt", "pico-LICENSE.txt"]


def test_templates_and_static_files_are_in_the_wheel(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path.relative_to(ROOT).as_posix() for folder in (STATIC, TEMPLATES) for path in folder.rglob("*") if path.is_file()}
    assert len(wanted) > 10
    assert wanted - inside == set()


# ---- pages


async def test_a_page_is_compressed_for_who_can_read_it(sqlite_office):
    browser = sqlite_office.browser()
    lengths = set()
    for _ in range(20):
        answer = await browser.get("/console/sign-in", **{"accept-encoding": "gzip, br"})
        assert answer.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in answer.headers["vary"]
        assert "Sign in" in answer.text
        lengths.add(answer.headers["content-length"])
    assert len(lengths) > 3  # a length tells nothing (BREACH)
    assert "content-encoding" not in (await browser.get("/console/sign-in", **{"accept-encoding": "identity"})).headers


async def test_the_word_of_a_form_is_another_each_time_and_is_right_each_time(sqlite_office):
    browser = sqlite_office.browser()
    await browser.get("/console/sign-in")
    found = [await browser.word() for _ in range(3)]
    assert len(set(found)) == 3
    secret = browser.cookie(session.VISIT)
    assert all(session.is_form_word(word, secret) for word in found)
    assert not any(session.is_form_word(word, secret + "x") for word in found)
    for nonsense in ("", "x", None, "é", "A" * 42, "A" * 43, found[0] + "AAAA", found[0][:-4]):
        assert not session.is_form_word(nonsense, secret)


async def test_htmx_may_send_the_word_in_a_header(sqlite_office):
    browser = await sqlite_office.signed_in()
    word = await browser.word()
    sent = {"content-type": "application/x-www-form-urlencoded"}
    assert (await browser.part("/console/sign-out", "POST", **sent, **{"x-csrf-token": "wrong"})).status_code == 403
    answer = await browser.part("/console/sign-out", "POST", **sent, **{"x-csrf-token": word})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/console/sign-in")


PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "{{ 7191 * 7 }}",
    "</title><b>",
]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_whatever_is_given_to_a_page_is_text(sqlite_office, payload):
    browser = sqlite_office.browser()
    told = [
        await browser.sign_in(payload, payload),
        await browser.get("/console/sign-in?next=" + payload.replace(" ", "%20")),
        await browser.get("/console/" + payload.replace("/", "%2f").replace(" ", "%20")),
    ]
    agent = await sqlite_office.signed_in()
    agent.client.headers["user-agent"] = payload
    told.append(await agent.get("/console/account"))
    for answer in told:
        assert "<" not in payload or payload not in answer.text
        assert "50337" not in answer.text


async def test_a_flash_is_shown_once_and_only_as_text(sqlite_office):
    browser = await sqlite_office.signed_in()
    visit = Visit(sqlite_office.console, _request(), None, None)
    visit.flash("<b>done</b>", "wrong")
    visit.flash("second", "no such kind")
    answer = visit.redirect("/console/account")
    visit.put_cookies(answer)
    kept = re.search(r"__Host-callrow-flash=([^;]+)", str(answer.raw_headers))[1]
    browser.put_cookie(session.FLASH, kept)
    page = await browser.get("/console/account")
    assert "&lt;b&gt;done&lt;/b&gt;" in page.text
    assert "second" in words(page)
    assert "second" not in words(await browser.get("/console/account"))
    for nonsense in ("x", "W10=", "e30=", "bnVsbA=="):
        browser.put_cookie(session.FLASH, nonsense)
        assert (await browser.get("/console/account")).status_code == 200


def _request():
    from starlette.requests import Request

    return Request({"type": "http", "method": "GET", "path": "/console", "headers": [], "query_string": b""})


# ---- faults


async def test_a_page_that_fails_says_so_and_nothing_of_why(sqlite_office, capsys):
    async def broken(_visit):
        raise ValueError("+15551234567 said something private")

    route = sqlite_office.console.page("/console/broken", broken, Policy.OPERATOR)
    sqlite_office.app = guard.build([route], https=True)
    browser = await sqlite_office.signed_in()
    answer = await browser.get("/console/broken")
    assert answer.status_code == 500
    assert "It was our fault and is written down." in words(answer)
    part = await browser.part("/console/broken")
    assert (part.status_code, part.headers["hx-retarget"], part.headers["hx-reswap"]) == (500, "#flashes", "outerHTML")
    assert "<html" not in part.text
    printed = capsys.readouterr()
    assert "private" not in answer.text + part.text + printed.out + printed.err


async def test_even_a_frame_that_is_broken_answers(sqlite_office, monkeypatch):
    browser = await sqlite_office.signed_in()

    async def broken(*_args, **_kwargs):
        raise RuntimeError

    monkeypatch.setattr(sqlite_office.console.shell, "render", broken)
    answer = await browser.get("/console/account")
    assert (answer.status_code, answer.text) == (500, "Something went wrong. It was our fault and is written down.")


async def test_what_is_not_there_is_a_page_in_the_same_clothes(sqlite_office):
    browser = await sqlite_office.signed_in()
    for path in ("/console/nowhere", "/console/calls/", "/console/a/b/c"):
        answer = await browser.get(path)
        assert answer.status_code == 404
        assert "There is nothing here, or it is gone." in words(answer)
        assert 'href="/console/calls"' in answer.text
    assert (await browser.client.delete("/console/calls")).status_code == 405


async def test_a_page_that_a_role_lacks_says_so(sqlite_office):
    async def page(_visit):
        return PlainTextResponse("for admins")

    sqlite_office.app = guard.build([sqlite_office.console.page("/console/x", page, Policy.ADMIN)], https=True)
    answer = await (await sqlite_office.signed_in("reviewer")).get("/console/x")
    assert answer.status_code == 403
    assert "Your account may not open this page." in words(answer)
    assert "for admins" not in answer.text


async def test_the_sections_are_those_of_ones_role_and_those_that_there_are(sqlite_office):
    sqlite_office.console.paths.update({"/console/overview", "/console/admin"})
    seen = {}
    for role in ("operator", "reviewer", "admin"):
        page = await (await sqlite_office.signed_in(role)).get("/console/account")
        nav = re.search(r'<nav class="sections".*?</nav>', page.text, re.DOTALL)[0]
        seen[role] = re.findall(r">(\w+)</a>", nav)
    assert seen["operator"] == [name for name in ("Calls", "Live") if f"/console/{name.lower()}" in sqlite_office.console.paths]
    assert seen["reviewer"] == [*seen["operator"], "Overview"]
    assert seen["admin"] == [*seen["reviewer"], "Admin"]


# ---- pace


def test_a_pace_lets_a_burst_through_and_then_so_many_a_second():
    now = [0.0]
    pace = Pace(burst=3, per_second=2, clock=lambda: now[0], most=4)
    assert [pace.allows("a") for _ in range(5)] == [True, True, True, False, False]
    assert pace.allows("b")
    now[0] = 0.5
    assert [pace.allows("a") for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [pace.allows("a") for _ in range(4)] == [True, True, True, False]


def test_a_pace_forgets_who_has_gone_and_never_grows_without_end():
    now = [0.0]
    pace = Pace(burst=1, per_second=1, clock=lambda: now[0], most=3)
    assert [pace.allows(name) for name in "abcd"] == [True, True, True, False]
    now[0] = 2.0
    assert [pace.allows(name) for name in "defg"] == [True, True, True, False]
    assert len(pace._due) <= 3


async def test_a_page_that_asks_and_asks_is_told_to_wait(sqlite_office):
    browser = await sqlite_office.signed_in()
    sqlite_office.console.somebody._clock = lambda: 0.0
    codes = [(await browser.get("/console/account")).status_code for _ in range(122)]
    assert codes == [200] * 120 + [429] * 2
    other = await sqlite_office.signed_in(name="somebody-else")
    assert (await other.get("/console/account")).status_code == 200


# ---- how values are written

BERLIN = formats.filters(ZoneInfo("Europe/Berlin"))


def test_a_moment_is_shown_in_the_business_s_time_zone_and_says_exactly_when_it_was():
    moment = datetime(2026, 7, 1, 22, 30, 5, tzinfo=UTC)
    assert BERLIN["when"](moment) == (
        '<time datetime="2026-07-01T22:30:05Z" title="2026-07-02 00:30:05 CEST">2 Jul 2026, 00:30</time>'
    )
    assert ">00:30:05<" in BERLIN["clock"]("2026-07-01T22:30:05+00:00")
    assert BERLIN["day"](None) == formats.UNKNOWN


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0:00"), (999, "0:00"), (65_400, "1:05"), (3_599_999, "59:59"), (3_600_000, "1:00:00"), (None, formats.UNKNOWN)],
)
def test_a_duration_keeps_its_seconds(ms, shown):
    assert formats.duration(ms) == shown


def test_what_is_not_known_is_a_dash_and_what_is_zero_is_zero():
    assert BERLIN["known"](None) == BERLIN["known"]("") == formats.UNKNOWN
    assert BERLIN["known"](0) == 0
