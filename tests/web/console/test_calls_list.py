"""The list of calls: what is shown, narrowed, sorted, paged, found, saved and chosen; on both databases."""

import re
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
import sqlalchemy as sa

from app.call.disposition import EndReason, Outcome
from app.store.console_tables import saved_views
from app.store.search import index_call
from app.store.tables import calls
from app.web.console.calls import A_PAGE, COUNTED
from tests.store.listed import NOON, put, row, say
from tests.store.shelf import CALLED, CALLER
from tests.web.console.office import words

LIST = "/console/calls"
ALL = f"{LIST}?view=all"
OTHER = "+15550100077"


@pytest.fixture
async def browser(office):
    """An operator's, at noon and one minute."""
    office.house.now = int((NOON + timedelta(minutes=1)).timestamp() * 1_000)
    return await office.signed_in("operator")


async def several(office, count, **columns):
    """Calls a minute apart, the newest first."""
    return await put(office.database, *[row(office.database, NOON - timedelta(minutes=n), **columns) for n in range(count)])


def shown(answer):
    """The names of the calls of a page, in order."""
    assert answer.status_code == 200, answer.headers.get("location")
    return re.findall(r'<tr id="c-(\w+)"', answer.text)


def link(answer, text):
    """Where the link of these words leads; None: there is none."""
    found = re.search(rf'<a[^>]*href="([^"]*)"[^>]*>(?:<svg.*?</svg>)?{re.escape(text)}', answer.text, re.DOTALL)
    return found and found[1].replace("&amp;", "&")


async def follow(browser, answer):
    """Where an answer leads, as far as it leads."""
    while answer.status_code == 303:
        answer = await browser.get(answer.headers["location"])
    return answer


# ---- the list


async def test_an_empty_list_says_why_it_is_empty(office, browser):
    answer = await browser.get(LIST)
    assert "No calls yet" in words(answer)
    assert "0 calls" in words(answer)


async def test_a_row_says_what_operators_look_for(office, browser):
    (name,) = await put(
        office.database,
        row(
            office.database, NOON, duration_ms=65_000, disposition="sales_lead", intent="buy", sentiment="negative", lead_score=88,
            urgency="high", escalated=True, escalation_reason="wants_a_person, danger", latency_p95_ms=3_210, needs_review=True,
            review_reasons={"name": "values_differ"},
        ),
    )  # fmt: skip
    answer = await browser.get(LIST)
    assert shown(answer) == [name]
    text = words(answer)
    for said in (
        "1:05",
        "sales lead",
        "buy",
        "negative",
        "88",
        "high",
        "wants a person, danger",
        "3.21 s",
        "+1 555-010-0001",
        "completed",
    ):
        assert said in text, said
    assert f'href="/console/calls/{name}"' in answer.text
    assert 'datetime="2026-11-20T12:00:00Z"' in answer.text
    assert "1 call" in text and "1 calls" not in text


async def test_what_a_caller_said_is_text_and_never_markup(office, browser):
    await put(office.database, row(office.database, NOON, intent="<script>alert(1)</script>", agent='"><b>x', summary="<i>'\"&"))
    await browser.post(f"{LIST}/columns", column="summary", back=ALL)
    answer = await browser.get(f"{LIST}?agent=%22%3E%3Cb%3Ex&q=&view=all")
    answer = await follow(browser, answer)
    assert "<script>alert" not in answer.text and "<b>x" not in answer.text and "<i>'" not in answer.text
    assert "&lt;i&gt;" in answer.text


async def test_what_is_filtered_is_in_the_address_and_each_chip_leads_to_the_list_without_it(office, browser):
    hot = await several(office, 2, lead_score=90, outcome=Outcome.TRANSFERRED, end_reason=EndReason.TRANSFERRED)
    cold = await several(office, 3, lead_score=10)
    answer = await browser.get(f"{LIST}?outcome=transferred&score_from=70")
    assert set(shown(answer)) == set(hot)
    assert "Lead score 70 or more" in words(answer)
    without = re.search(r'href="([^"]*)" title="Remove"[^>]*>.*?Remove Lead score', answer.text, re.DOTALL)
    hrefs = re.findall(r'<a href="([^"]*)" title="Remove">', answer.text)
    assert without and len(hrefs) == 2
    fewer = await browser.get(hrefs[0].replace("&amp;", "&"))
    assert set(shown(fewer)) == set(hot)  # without the outcome
    assert set(shown(await browser.get(link(fewer, "Show all calls") or ALL))) == {*hot, *cold}


async def test_an_address_that_is_not_the_one_of_its_question_leads_on_to_it(office, browser):
    answer = await browser.get(f"{LIST}?q=&outcome=failed&score_from=&sort=-started_at&nonsense=1")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{LIST}?outcome=failed")
    assert (await browser.get(f"{LIST}?outcome=failed")).status_code == 200
    assert (await browser.get(f"{LIST}?q=")).headers["location"] == ALL


STRANGE = (
    *("outcome=nonsense", "disposition=a%00b", "agent=" + "x" * 500, "number=1", "at=AAAA", "at=%00", "score_from=" + "9" * 40),
    *("from=0001-01-01", "to=9999-12-31T23:59:59%2B23:59", "q=%00", "q=%F0%9F%8C%B3", "sort=summary", "view=%27%22%3E"),
)


@pytest.mark.parametrize("query", STRANGE)
async def test_no_address_breaks_the_page(office, browser, query):
    await several(office, 2)
    answer = await follow(browser, await browser.get(f"{LIST}?{query}"))
    assert answer.status_code == 200


async def test_headers_sort_and_say_how_it_is_sorted(office, browser):
    scores = enumerate((5, None, 95, 50))
    names = await put(
        office.database, *[row(office.database, NOON - timedelta(minutes=n), lead_score=score) for n, score in scores]
    )
    first = await browser.get(LIST)
    by_score = await browser.get(link(first, "Lead score"))
    assert shown(by_score) == [names[2], names[3], names[0], names[1]]  # what is not known, last
    assert 'aria-sort="descending"' in by_score.text
    other_way = await browser.get(link(by_score, "Lead score"))
    assert shown(other_way) == [names[0], names[3], names[2], names[1]]
    assert 'aria-sort="ascending"' in other_way.text


async def test_pages_follow_one_another_and_lead_back_whatever_arrives(office, browser):
    names = await several(office, 2 * A_PAGE + 5)
    first = await browser.get(LIST)
    assert shown(first) == names[:A_PAGE] and link(first, "Newer") is None
    second = await browser.get(link(first, "Older"))
    await put(office.database, *[row(office.database, NOON + timedelta(seconds=n)) for n in (1, 2, 3)])
    third = await browser.get(link(second, "Older"))
    assert shown(second) + shown(third) == names[A_PAGE:]
    assert link(third, "Older") is None
    assert shown(await browser.get(link(third, "Newer"))) == shown(second)
    back = await browser.get(link(second, "Newer"))
    assert shown(back) == names[:A_PAGE] and link(back, "Newer")


async def test_the_first_page_has_the_address_of_the_first_page(office, browser):
    names = await several(office, A_PAGE + 5)
    second = await browser.get(link(await browser.get(LIST), "Older"))
    back = await browser.get(link(second, "Newer"))
    assert (back.status_code, back.headers["location"]) == (303, ALL)
    assert shown(await browser.get(ALL)) == names[:A_PAGE]


async def test_a_place_that_is_none_leads_to_the_first_page_and_says_so(office, browser):
    names = await several(office, 3)
    answer = await browser.get(f"{LIST}?at=bm9uc2Vuc2U")
    assert answer.status_code == 303
    after = await follow(browser, answer)
    assert shown(after) == names and "first page" in words(after)


async def test_a_page_from_which_all_calls_have_gone_leads_back(office, browser):
    await several(office, A_PAGE + 2)
    older = link(await browser.get(LIST), "Older")
    async with office.database.write() as connection:
        newest = sa.select(calls.c.call_id).order_by(calls.c.started_at.desc()).limit(A_PAGE)
        kept = (await connection.execute(newest)).scalars().all()
        await connection.execute(sa.delete(calls).where(calls.c.call_id.not_in(kept)))
    answer = await browser.get(older)
    assert "Nothing further here" in words(answer)
    assert link(answer, "Back")


async def test_calls_are_counted_so_far_and_no_further(office, browser, monkeypatch):
    monkeypatch.setattr("app.web.console.calls.COUNTED", 52)
    await several(office, A_PAGE + 5)
    assert "More than 52 calls" in words(await browser.get(LIST))
    monkeypatch.setattr("app.web.console.calls.COUNTED", 10_000)
    assert f"{A_PAGE + 5} calls" in words(await browser.get(LIST))
    assert COUNTED == 10_000


async def test_a_list_without_a_result_says_what_is_set(office, browser):
    await several(office, 1)
    answer = await browser.get(f"{LIST}?outcome=failed")
    assert "No calls like that" in words(answer) and "Outcome failed" in words(answer)
    answer = await browser.get(f"{LIST}?q=unicorn")
    assert "Words are found whole" in words(answer)


# ---- in progress


async def test_calls_in_progress_stand_on_top_of_the_newest_page(office, browser):
    done = await several(office, 3)
    (live,) = await put(office.database, row(office.database, NOON - timedelta(hours=1), live=True))
    answer = await browser.get(LIST)
    assert shown(answer) == [live, *done]
    assert "1:01:00 live" in words(answer)  # so long it has gone on
    assert 'hx-sse:connect="/console/calls/live"' in answer.text
    assert "4 calls" in words(answer)


async def test_of_one_agent_those_of_that_agent(office, browser):
    await put(office.database, row(office.database, NOON, live=True, agent="sales"))
    (mine,) = await put(office.database, row(office.database, NOON, live=True, agent="front-desk"))
    answer = await browser.get(f"{LIST}?agent=front-desk")
    assert shown(answer) == [mine]
    assert 'hx-sse:connect="/console/calls/live?agent=front-desk"' in answer.text


async def test_anywhere_else_they_stand_in_the_list(office, browser):
    (live,) = await put(office.database, row(office.database, NOON, live=True, from_number=OTHER))
    index = office.database.blind_index(OTHER)
    for query in (f"number={index}", "period=today", "sort=-lead_score", "state=live"):
        answer = await browser.get(f"{LIST}?{query}")
        assert shown(answer) == [live], query
        assert "hx-sse" not in answer.text.replace("hx-sse-4", "")


# ---- looking for something


async def test_words_that_were_said_are_found(office, browser):
    (name, other) = await several(office, 2)
    await say(office.database, name, "I want a new pond behind my house.")
    async with office.database.write() as connection:
        for each in (name, other):
            await index_call(connection, each)
    answer = await browser.post(f"{LIST}/find", text="  Pond  ", query="outcome=completed")
    assert answer.headers["location"] == f"{LIST}?q=Pond&outcome=completed"
    answer = await browser.get(answer.headers["location"])
    assert shown(answer) == [name]
    assert 'value="Pond"' in answer.text


@pytest.mark.parametrize("typed", [CALLER, "+1 (555) 010-0001", "555 010 0001", "1-555-010-0001", "+1.555.010.0001"])
async def test_a_number_is_looked_for_however_it_is_typed_and_is_in_no_address(office, browser, typed):
    (name,) = await put(office.database, row(office.database, NOON, from_number=CALLER))
    await put(office.database, row(office.database, NOON, from_number=OTHER, to_number=CALLED))
    answer = await browser.post(f"{LIST}/find", text=typed, query="outcome=failed&period=today")
    location = answer.headers["location"]
    assert location == f"{LIST}?number={office.database.blind_index(CALLER)}"
    answer = await browser.get(location)
    assert shown(answer) == [name]
    assert "Number +1 555-010-0001" in words(answer)
    assert (await office.audit())[-1] == ("user:the-operator", "calls.looked_up", None, {"by": "number"})
    for address in re.findall(r'(?:href|action|connect)="([^"]*)"', answer.text):
        assert "5550100001" not in re.sub(r"\D", "", address.replace(office.database.blind_index(CALLER), "")), address


async def test_a_number_in_an_address_is_sent_on_without_it(office, browser):
    answer = await browser.get(f"{LIST}?q=%2B15550100001")
    assert answer.headers["location"] == f"{LIST}?number={office.database.blind_index(CALLER)}"


async def test_a_call_is_found_by_its_name(office, browser):
    (name,) = await several(office, 1)
    answer = await browser.post(f"{LIST}/find", text=name.lower(), query="")
    assert answer.headers["location"] == f"{LIST}/{name}"


async def test_looking_for_nothing_is_looking_for_everything(office, browser):
    answer = await browser.post(f"{LIST}/find", text=" ", query="q=pond&outcome=failed")
    assert answer.headers["location"] == f"{LIST}?outcome=failed"


async def test_a_number_in_a_row_leads_to_all_calls_of_it(office, browser):
    names = await put(office.database, *[row(office.database, NOON - timedelta(minutes=n), from_number=OTHER) for n in range(2)])
    await several(office, 1)
    answer = await browser.get(LIST)
    href = re.search(r'<td class="c-number"><a href="([^"]*)"[^>]*>\+1 555-010-0077', answer.text)[1]
    assert shown(await browser.get(href)) == names


# ---- columns


async def test_columns_are_chosen_and_remembered_for_that_user_alone(office, browser):
    await several(office, 1, summary="She wants a pond.", turns=7)
    other = await office.signed_in("reviewer")
    answer = await browser.post(f"{LIST}/columns", column=["summary", "number", "nonsense"], back=ALL)
    assert answer.headers["location"] == ALL
    answer = await browser.get(ALL)
    assert re.findall(r'<th scope="col" class="c-(\w+)', answer.text) == ["time", "number", "summary"]
    assert "She wants a pond." in words(answer)
    assert "c-sentiment" in (await other.get(ALL)).text
    await browser.post(f"{LIST}/columns", do="usual", back=ALL)
    assert "c-sentiment" in (await browser.get(ALL)).text


async def test_it_leads_back_to_the_console_only(office, browser):
    answer = await browser.post(f"{LIST}/columns", column="number", back="https://evil.example/")
    assert answer.headers["location"] == LIST


# ---- views


async def save(browser, name, query, **other):
    answer = await browser.post(f"{LIST}/views", name=name, query=query, **other)
    assert answer.status_code == 303
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))["view"]


async def test_a_view_is_saved_opened_and_noticed_when_it_is_changed(office, browser):
    hot = await several(office, 2, lead_score=90)
    await several(office, 1, lead_score=10)
    view = await save(browser, "Hot leads", "score_from=70&sort=-lead_score")
    answer = await browser.get(link(await browser.get(ALL), "Hot leads"))
    assert set(shown(answer)) == set(hot)
    assert re.search(r'aria-current="page">Hot leads', answer.text)
    changed = await browser.get(f"{LIST}?score_from=80&sort=-lead_score&view={view}")
    assert "Hot leads · changed" in words(changed)


async def test_the_list_begins_with_the_view_that_was_chosen(office, browser):
    await several(office, 1)
    view = await save(browser, "Mine", "outcome=failed")
    assert (await browser.post(f"{LIST}/views/{view}/begin", begin="yes")).status_code == 303
    answer = await browser.get(LIST)
    assert answer.headers["location"] == f"{LIST}?outcome=failed&view={view}"
    assert len(shown(await browser.get(ALL))) == 1  # all calls are still to be had
    await browser.post(f"{LIST}/views/{view}/begin", begin="no")
    assert (await browser.get(LIST)).status_code == 200


async def test_a_shared_view_is_everybodys_to_open_and_the_owners_to_change(office, browser):
    view = await save(browser, "Ours", "outcome=failed", shared="yes")
    other, admin = await office.signed_in("reviewer"), await office.signed_in("admin")
    assert link(await other.get(ALL), "Ours") == f"{LIST}?outcome=failed&view={view}"
    assert "the-operator" in words(await other.get(f"{LIST}/views"))
    assert (await other.post(f"{LIST}/views/{view}", name="Stolen")).status_code == 404
    assert (await other.post(f"{LIST}/views/{view}/delete")).status_code == 404
    assert (await other.post(f"{LIST}/views/{view}/begin", begin="yes")).status_code == 303
    assert (await browser.post(f"{LIST}/views/{view}", name="Renamed", shared="yes")).status_code == 303
    assert link(await other.get(ALL), "Renamed")
    assert (await admin.post(f"{LIST}/views/{view}/delete")).status_code == 303
    assert link(await browser.get(ALL), "Renamed") is None
    assert (await other.get(LIST)).status_code == 200


async def test_a_view_of_ones_own_is_nobody_elses(office, browser):
    view = await save(browser, "Secret", "q=pond")
    admin = await office.signed_in("admin")
    assert link(await admin.get(ALL), "Secret") is None
    for path in (f"{view}", f"{view}/begin", f"{view}/delete"):
        assert (await admin.post(f"{LIST}/views/{path}", name="x", begin="yes")).status_code == 404


async def test_a_view_keeps_the_question_and_nothing_else(office, browser):
    await save(browser, "Mine", "outcome=failed&at=abc&view=x&nonsense=1&score_from=")
    async with office.database.read() as connection:
        assert (await connection.execute(sa.select(saved_views.c.query))).scalars().all() == ["outcome=failed"]


async def test_what_is_wrong_with_a_name_is_said(office, browser):
    answer = await browser.post(f"{LIST}/views", name=" ", query="outcome=failed")
    assert answer.headers["location"] == f"{LIST}?outcome=failed"
    assert "A view needs a name" in words(await browser.get(answer.headers["location"]))
    one, two = await save(browser, "One", ""), await save(browser, "Two", "")
    assert one == two == "all"  # nothing is asked in either
    page = await browser.get(f"{LIST}/views")
    ids = re.findall(r'action="/console/calls/views/(\w+)"', page.text)
    answer = await browser.post(f"{LIST}/views/{ids[1]}", name="One")
    assert answer.status_code == 422 and "another view of that name" in words(answer)
