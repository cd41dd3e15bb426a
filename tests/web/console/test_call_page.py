"""The page of one call: what it shows to whom, what is changed from it, and what stands in the audit log of that."""

import html
import re
from dataclasses import replace

import pytest

from app.call.disposition import Slot
from app.store.judgements import Judgements
from app.web.console.conversation import conversation
from tests.web.console import story
from tests.web.console.office import Office, words
from tests.web.console.story import PAYLOADS, lines, page, part_of, said

HOOK = {"WEBHOOK_URL": "https://crm.example.com/hook", "WEBHOOK_SECRET": "whsec_" + "A" * 32}


@pytest.fixture
async def busy(database):
    """An office that tells a CRM of its calls, on both databases."""
    made = Office(database, **HOOK)
    yield made
    await made.close()


# ---- what it shows


async def test_the_page_says_what_was_said_done_and_judged(busy):
    call_id = await story.told(busy)
    browser = await busy.signed_in("operator")
    answer = await page(browser, call_id)
    text = words(answer)
    for shown in (
        "+1 555-010-0001", "completed", "appointment booked", "front-desk → sales", "caller hung up", "1:17", "$0.297",
        "0.82 s p95 2.50 s", "TN-Validation-Passed-A", "completed, 77 s", call_id, story.SAID,
        "The connection was made anew: stream 2",
        "front-desk hands over to sales", "Maria Lopez wants about thirty metres of cedar fence", "85 of 100",
        "wants work: asks for a new fence",
        "rules, rules-3, 82 % sure", "none (what was proposed rested on nothing that was said)",
        "3 of 6 answers took longer than 1 s",
        "call finished to crm by webhook pending", "Somebody should look at this call",
    ):  # fmt: skip
        assert shown in text, shown
    assert "the caller spoke 24 s in 8 stretches" in text
    assert await lines(busy) == [("user:the-operator", "call.viewed", None)]


async def test_heard_and_unheard_words_stand_apart_and_a_barge_in_is_marked(sqlite_office):
    call_id = await story.told(sqlite_office)
    answer = await page(await sqlite_office.signed_in(), call_id)
    cut = part_of(answer, "said-1.a4")
    heard, _, unheard = cut.partition("<s>")
    assert "Would Tuesday suit you," in heard
    assert "interrupted after 3.8 s" in heard
    assert 'class="tag">not heard' in heard
    assert story.UNHEARD in unheard
    assert story.UNHEARD not in heard
    assert "takes the floor" in part_of(answer, "said-1.u4")
    assert answer.text.count("takes the floor") == 1 + answer.text.count("the caller takes the floor")  # and once in the drawing
    assert "the words were never transcribed" in part_of(answer, "said-1.u5")
    assert "answered after 2.50 s, late" in part_of(answer, "said-1.u4")
    assert "late" not in part_of(answer, "said-1.u1")


async def test_tools_stand_where_they_were_used_with_what_was_asked_and_answered(sqlite_office):
    call_id = await story.told(sqlite_office)
    answer = await page(await sqlite_office.signed_in(), call_id)
    order = re.findall(r'<li class="[^"]*" id="([^"]+)"', answer.text)
    assert order.index("said-1.u4") < order.index("tool-2") < order.index("said-1.a5")
    assert order.index("tool-1") < order.index("said-1.a3")
    assert order.index("said-1.u5") < order.index("stream-2") < order.index("said-2.a1")
    booked, failed = said(part_of(answer, "tool-3")), said(part_of(answer, "tool-4"))
    for shown in (
        "book_appointment",
        "done",
        '"opening": "2026-11-24T09:30"',
        '"booked": true',
        "changes something outside",
        "0.90 s",
    ):
        assert shown in booked, shown
    for shown in ("failed: not reachable", "0.10 s, 2 tries", "She has a dog."):
        assert shown in failed, shown


async def test_every_value_leads_to_the_words_it_rests_on(sqlite_office):
    call_id = await story.told(sqlite_office)
    answer = await page(await sqlite_office.signed_in(), call_id)
    anchors = set(re.findall(r'\bid="([^"]+)"', answer.text))
    assert len(anchors) == len(re.findall(r'\bid="([^"]+)"', answer.text))  # no name twice
    links = re.findall(r'class="cite" href="#([^"]+)"', answer.text)
    assert set(links) <= anchors
    assert re.findall(r'href="#([^"]+)"', part_of(answer, "field-summary"))[:3] == ["said-1.u1", "said-1.u2", "said-2.u1"]
    assert re.findall(r'href="#([^"]+)"', part_of(answer, "field-sentiment_course"))[:3] == ["said-1.u1", "said-1.u4", "said-2.u3"]


async def test_a_slot_says_who_noted_it_where_and_what_the_second_reading_finds(sqlite_office):
    call_id = await story.told(sqlite_office)
    answer = await page(await sqlite_office.signed_in(), call_id)
    number = part_of(answer, "field-callback_number")
    for shown in (
        "confirmed",
        "noted by sales",
        f"second reading: {story.READ_NUMBER} , which differs, 77 % sure",
        "the agent noted something else",
    ):
        assert shown in said(number), shown
    assert story.NOTED_NUMBER in number
    # the agent knew "u2" alone: of the two utterances of that name it is the one before the slot was noted
    assert 'noted by sales <a class="cite" href="#said-2.u2"' in number
    assert 'noted by front-desk <a class="cite" href="#said-1.u2"' in part_of(answer, "field-reason")
    assert "second reading: the same, 82 % sure" in said(part_of(answer, "field-name"))


async def test_what_is_drawn_is_drawn_to_scale():
    row = {
        "started_at": "2026-11-20T09:00:00+00:00", "ended_at": "2026-11-20T09:01:40+00:00", "slots": {}, "tool_invocations": [],
        "utterances": [
            {"ref": "1.a1", "epoch": 1, "key": "a1", "speaker": "agent", "agent": "sales", "started_at_ms": 10_000,
            "ended_at_ms": 20_000,
             "heard": "Hello", "unheard": "and more", "heard_ms": 10_000, "generated_ms": 40_000, "interrupted": True,
             "untranscribed": False},
            {"ref": "1.u1", "epoch": 1, "key": "u1", "speaker": "caller", "agent": None, "started_at_ms": 19_800,
            "ended_at_ms": 19_801,
             "heard": "Stop", "unheard": None, "heard_ms": None, "generated_ms": None, "interrupted": False,
             "untranscribed": False},
        ],
        "turn_list": [
            {"epoch": 1, "number": 1, "utterance": "u1", "speech_ended_at_ms": 20_000, "committed_at_ms": 20_500,
            "requested_at_ms": 20_500,
             "first_audio_at_ms": 21_000, "audible_at_ms": 22_000, "latency_ms": 2_000, "tools": 0},
        ],
    }  # fmt: skip
    talk = conversation(row, {}, now=None)
    (agent,), (caller,), (lost,) = talk.line.agent, talk.line.caller, talk.line.unheard
    assert (agent.x, agent.width) == (10, 10)
    assert (lost.x, lost.width) == (20, 30)
    assert caller.x == 19.8
    assert caller.width == 0.35  # too short to be seen otherwise
    assert [(sign.kind, sign.x) for sign in talk.line.signs] == [("barge-in", 20)]
    assert [item.ref for item in talk.items if item.barges_in] == ["1.u1"]
    assert [tick.label for tick in talk.line.ticks] == ["0:00", "0:15", "0:30", "0:45", "1:00", "1:15", "1:30"]
    (answer,) = talk.latencies.answers
    assert [(stage.kind, stage.x, stage.width) for stage in answer.stages] == [
        ("detected", 0, 25),
        ("voiced", 25, 25),
        ("heard", 50, 50),
    ]
    assert (talk.latencies.objective, answer.late) == (50, True)


async def test_nothing_that_a_caller_says_is_markup(sqlite_office):
    """T37: in the transcript, in tools, in slots, in values and their reasons, in notes, in the drawing."""
    first = tuple(
        replace(said, heard=payload, unheard=payload if said.unheard else None)
        for said, payload in zip(story.FIRST, (*PAYLOADS, *PAYLOADS), strict=False)
    )
    slots = tuple(
        Slot(name=name, value=payload, utterance="u1", agent=payload)
        for name, payload in zip(("name", "reason", "size"), PAYLOADS[1:], strict=False)
    )
    call_id, clock = await story.begun(sqlite_office)
    known = story.memory(slots=slots, summary=PAYLOADS[0], agent_path=("front-desk", PAYLOADS[1]))
    await story.ended(sqlite_office, call_id, clock, said=(first, story.SECOND), known=known)
    reasons = [{"name": payload, "because": payload, "evidence": ["1.u1"]} for payload in PAYLOADS]
    judged = [
        story.judged("summary", PAYLOADS[0], analyzer=PAYLOADS[1], prompt_version=PAYLOADS[2]),
        story.judged("lead_score", 10, reasons=reasons),
        story.judged("next_action", " ".join(PAYLOADS)),
        story.judged("name", PAYLOADS[4], ("1.u1",)),
    ]
    await story.read(sqlite_office, call_id, clock, judgements=judged)
    browser = await sqlite_office.signed_in("admin")
    await browser.post(f"/console/calls/{call_id}/judged/reason/correct", value=PAYLOADS[4], note=PAYLOADS[1])
    for path in ("", "/journal"):
        answer = await browser.get(f"/console/calls/{call_id}{path}")
        assert answer.status_code == 200
        for forbidden in ("<script>alert", "<img", "<svg onload", "<hx-partial hx-target='body'", " onmouseover='", "49 {%"):
            assert forbidden not in answer.text.replace('<img src="/console/static/', ""), forbidden
    shown = html.unescape((await page(browser, call_id)).text)
    for payload in PAYLOADS:
        assert payload in shown, payload  # it is shown, as text
    raw = await browser.get(f"/console/calls/{call_id}/row.json")
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-content-type-options"] == "nosniff"


async def test_a_call_in_which_nobody_said_a_word_has_a_page_too(sqlite_office):
    call_id, clock = await story.begun(sqlite_office)
    await story.ended(sqlite_office, call_id, clock, said=((), ()), known=story.memory(slots=(), summary=None, disposition=None))
    text = words(await page(await sqlite_office.signed_in(), call_id))
    assert "Linden Gardens, hello!" in text
    assert "The call is being read. Until then stands what the agent noted." in text


async def test_who_calls_without_a_number_has_withheld_it(sqlite_office):
    call_id = await story.told(sqlite_office, number=None)
    answer = await page(await sqlite_office.signed_in(), call_id)
    assert "<h1>Withheld number</h1>" in answer.text


# ---- which call, and for whom


@pytest.mark.parametrize(
    "name", ["01M7Q4TDJ022EQMCZBGE0750ME", "01m7q4tdj022eqmczbge0750me", "x", "%00", "CA" + "7" * 32, "8" * 26]
)
async def test_a_call_that_there_is_not_is_not_found_and_leaves_no_line(sqlite_office, name):
    await story.told(sqlite_office)
    browser = await sqlite_office.signed_in("admin")
    for path in ("", "/row.json", "/journal", "/again?word=x"):
        assert (await browser.get(f"/console/calls/{name}{path}")).status_code == 404
    for path in (
        "judged/summary/correct",
        "judged/summary/take-back",
        "reviewed",
        "read-again",
        "deliveries/x/resend",
        "journal/replay",
    ):
        assert (await browser.post(f"/console/calls/{name}/{path}", value="x")).status_code == 404
    assert await lines(sqlite_office) == []


async def test_each_role_is_offered_what_it_may_do(busy):
    call_id = await story.told(busy)
    offered = {}
    for role in ("operator", "reviewer", "admin"):
        browser = await busy.signed_in(role)
        answer = await page(browser, call_id)
        offered[role] = {
            what
            for what, sign in {"correct": "/correct", "look": "/reviewed", "row": "row.json", "journal": "/journal"}.items()
            if sign in answer.text
        }
        assert (await browser.get(f"/console/calls/{call_id}/row.json")).status_code == (200 if role != "operator" else 403)
        assert (await browser.get(f"/console/calls/{call_id}/journal")).status_code == (200 if role == "admin" else 403)
    assert offered == {
        "operator": {"correct"},
        "reviewer": {"correct", "look", "row"},
        "admin": {"correct", "look", "row", "journal"},
    }


async def test_the_raw_row_is_the_row(sqlite_office):
    call_id = await story.told(sqlite_office)
    raw = (await (await sqlite_office.signed_in("reviewer")).get(f"/console/calls/{call_id}/row.json")).json()
    assert raw == await sqlite_office.console.desk.calls.row(call_id)
    assert await lines(sqlite_office) == [("user:the-reviewer", "call.row_viewed", None)]


# ---- from the list, and to the next


async def test_the_next_and_the_previous_call_are_those_of_the_list_that_one_came_from(office):
    calls = [await story.told(office, sid="CA" + str(number) * 32, ago_s=100_000 - 1_000 * number) for number in range(3)]
    await Judgements(office.database).correct(calls[1], "intent", "complaint", by="ann")
    browser = await office.signed_in()
    answer = await page(browser, calls[1], "?sort=started_at&agent=sales")
    before, behind = (
        re.search(r'rel="prev"[^>]*href="([^"]+)"', answer.text)[1],
        re.search(r'rel="next"[^>]*href="([^"]+)"', answer.text)[1],
    )
    assert html.unescape(before) == f"/console/calls/{calls[0]}?agent=sales&sort=started_at"
    assert html.unescape(behind) == f"/console/calls/{calls[2]}?agent=sales&sort=started_at"
    assert 'href="/console/calls?agent=sales&amp;sort=started_at" class="back"' in answer.text
    answer = await page(browser, calls[1])  # all calls, the newest first
    assert f'rel="next" data-key="n" href="/console/calls/{calls[0]}"' in answer.text
    answer = await page(browser, calls[1], "?intent=complaint")  # alone in its list
    assert 'rel="next"' not in answer.text
    assert 'rel="prev"' not in answer.text


# ---- corrections


async def test_a_correction_stands_with_its_note_and_both_lines_of_the_audit_log(busy):
    call_id = await story.told(busy)
    browser = await busy.signed_in()
    answer = await browser.post(
        f"/console/calls/{call_id}/judged/callback_number/correct?agent=sales", value="(555) 010-0007", note=" Heard  seven. "
    )
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/calls/{call_id}?agent=sales#field-callback_number")
    row = await busy.console.desk.calls.row(call_id)
    assert (row["slots"]["callback_number"]["value"], row["judged"]["callback_number"]["said_by"]) == (
        "+15550100007",
        "user:the-operator",
    )
    assert await lines(busy) == [
        ("user:the-operator", "call.corrected", {"field": "callback_number"}),
        ("user:the-operator", "correct", {"field": "callback_number"}),
    ]
    answer = await page(browser, call_id)
    number = said(part_of(answer, "field-callback_number"))
    for shown in (
        "+15550100007",
        "corrected by the-operator",
        "Heard seven.",
        f"the agent had noted: {story.NOTED_NUMBER}",
        "Take back",
    ):
        assert shown in number, shown
    assert "Callback number: corrected." in words(answer)
    assert "the agent noted something else" not in number
    assert words(answer).count("call changed to crm") == 1


async def test_everything_that_was_ever_said_of_a_field_is_there_oldest_first(sqlite_office):
    call_id = await story.told(sqlite_office)
    ann, bob = await sqlite_office.signed_in(name="ann"), await sqlite_office.signed_in(name="bob")
    path = f"/console/calls/{call_id}/judged/intent"
    for browser, word in ((ann, "complaint"), (bob, "Support"), (ann, "")):
        sent = {"value": word} if word else {}
        assert (await browser.post(f"{path}/{'correct' if word else 'take-back'}", **sent)).status_code == 303
    history = said(
        re.search(
            r'<details class="history">.*?</details>', part_of(await page(ann, call_id), "field-intent") + "</article>", re.DOTALL
        )[0]
    )
    order = [
        history.index(word)
        for word in (
            "the agent, during the call",
            "the reading after the call",
            "complaint",
            "ann,",
            "support",
            "bob,",
            "took the correction back",
        )
    ]
    assert order == sorted(order), history
    assert said(part_of(await page(ann, call_id), "field-intent")).startswith("Intent buy rules, rules-3, 82 % sure")


@pytest.mark.parametrize(
    ("field", "typed", "because"),
    [
        ("lead_score", "101", "Lead score is a whole number from 0 to 100."),
        ("callback_number", "12", "Callback number is a whole telephone number"),
        ("disposition", "<b>nonsense</b>", "Disposition is one of: "),
        ("summary", "   ", "Summary is a text of 1 to 2,000 characters."),
    ],
)
async def test_what_a_field_cannot_have_is_refused_beside_it_and_what_was_typed_stays(sqlite_office, field, typed, because):
    call_id = await story.told(sqlite_office)
    browser = await sqlite_office.signed_in()
    answer = await browser.post(f"/console/calls/{call_id}/judged/{field}/correct", value=typed, note="my note")
    assert answer.status_code == 422
    here = part_of(answer, f"field-{field}")
    assert because in said(here)
    assert '<details class="correct" name="correct" open>' in here
    assert 'value="my note"' in here
    assert 'aria-invalid="true"' in here
    assert answer.text.count('name="correct" open') == 1
    assert await lines(sqlite_office) == [("user:the-operator", "call.correction_refused", {"field": field})]


async def test_there_is_none_is_a_correction_too_but_not_of_yes_and_no(sqlite_office):
    call_id = await story.told(sqlite_office)
    browser = await sqlite_office.signed_in()
    assert (await browser.post(f"/console/calls/{call_id}/judged/lead_score/correct", value="85", nothing="yes")).status_code == 303
    row = await sqlite_office.console.desk.calls.row(call_id)
    assert (row["lead_score"], row["judged"]["lead_score"]["source"]) == (None, "operator")
    assert (await browser.post(f"/console/calls/{call_id}/judged/escalation/correct", nothing="yes")).status_code == 400
    assert (await browser.post(f"/console/calls/{call_id}/judged/escalation/correct", value="yes")).status_code == 303
    assert (await sqlite_office.console.desk.calls.row(call_id))["escalated"] is True


@pytest.mark.parametrize("field", ["sentiment_course", "nothing", "cost_usd", "%2e%2e", "summary%00"])
async def test_what_is_no_field_is_not_corrected(sqlite_office, field):
    call_id = await story.told(sqlite_office)
    browser = await sqlite_office.signed_in()
    assert (await browser.post(f"/console/calls/{call_id}/judged/{field}/correct", value="x")).status_code == 404
    assert [line for line in await lines(sqlite_office) if line[1] != "call.viewed"] == []


async def test_htmx_is_given_the_part_that_changed_and_what_is_to_be_said(sqlite_office):
    call_id = await story.told(sqlite_office)
    browser = await sqlite_office.signed_in()
    word = await browser.word()
    sent = {"x-csrf-token": word, "content-type": "application/x-www-form-urlencoded"}
    path = f"/console/calls/{call_id}/judged/urgency/correct"
    answer = await browser.client.post(
        path, content="value=high", headers={**browser.from_us(), **sent, "hx-request": "true", "hx-request-type": "partial"}
    )
    assert answer.status_code == 200
    assert answer.text.lstrip().startswith('<div id="call">')
    assert "<html" not in answer.text
    assert re.search(r'<hx-partial hx-target="#flashes".*Urgency: corrected\.', answer.text, re.DOTALL)
    answer = await browser.client.post(
        path, content="value=enormous", headers={**browser.from_us(), **sent, "hx-request": "true", "hx-request-type": "partial"}
    )
    assert answer.status_code == 422
    assert "Urgency is one of: low, normal, high." in answer.text
    assert "<hx-partial" not in answer.text


async def test_without_the_audit_log_nothing_is_corrected(sqlite_office):
    call_id = await story.told(sqlite_office)
    browser = await sqlite_office.signed_in()
    word = await browser.word()
    sqlite_office.break_audit()
    assert (await browser.get(f"/console/calls/{call_id}")).status_code == 503
    for typed in ("high", "enormous"):
        answer = await browser.post(f"/console/calls/{call_id}/judged/urgency/correct", word=word, value=typed)
        assert answer.status_code == 503
        assert story.SAID not in answer.text
    assert (await sqlite_office.console.desk.calls.row(call_id))["judged"]["urgency"]["source"] == "machine"


# ---- a look, a reading, a delivery


async def test_a_reviewer_says_that_they_have_looked(busy):
    call_id = await story.told(busy)
    assert (await (await busy.signed_in("operator")).post(f"/console/calls/{call_id}/reviewed")).status_code == 403
    browser = await busy.signed_in("reviewer")
    answer = await browser.post(f"/console/calls/{call_id}/reviewed")
    assert answer.headers["location"] == f"/console/calls/{call_id}#review"
    assert await lines(busy) == [("user:the-reviewer", "call.reviewed", None), ("user:the-reviewer", "reviewed", None)]
    text = words(await page(browser, call_id))
    assert "Somebody should look" not in text
    assert "Looked at by the-reviewer," in text


async def test_an_admin_has_a_reading_tried_again_that_was_given_up(sqlite_office):
    call_id, clock = await story.begun(sqlite_office)
    await story.ended(sqlite_office, call_id, clock)
    judgements = Judgements(sqlite_office.database, clock=clock)
    assert await judgements.give_up(call_id, 1, "quota")
    reviewer, admin = await sqlite_office.signed_in("reviewer"), await sqlite_office.signed_in("admin")
    assert "read-again" not in (await page(reviewer, call_id)).text
    answer = await page(admin, call_id)
    assert "The call could not be read quota, after 1 try. What stands is what the agent noted." in said(answer.text)
    assert (await admin.post(f"/console/calls/{call_id}/read-again")).status_code == 303
    assert (await sqlite_office.console.desk.calls.row(call_id))["analysis"] == "waiting"
    assert "It is read, or will be anyway." in words(await _after(admin, f"/console/calls/{call_id}/read-again", call_id))


async def test_an_admin_sends_a_delivery_again_if_it_is_of_this_call(busy):
    call_id = await story.told(busy)
    other = await story.told(busy, sid="CA" + "8" * 32)
    from app.store.deliveries import Deliveries

    deliveries = Deliveries(busy.database)
    (mine,), (theirs,) = await deliveries.list(call_id=call_id), await deliveries.list(call_id=other)
    for each in (mine, theirs):
        assert await deliveries.record(each["id"], 1, status=410, fault="gone", again_at=None)
    admin = await busy.signed_in("admin")
    assert "dead" in words(await page(admin, call_id))
    assert (await admin.post(f"/console/calls/{call_id}/deliveries/{theirs['id']}/resend")).status_code == 404
    assert (await admin.post(f"/console/calls/{call_id}/deliveries/{mine['id']}/resend")).status_code == 303
    assert [each["state"] for each in (*await deliveries.list(call_id=call_id), *await deliveries.list(call_id=other))] == [
        "pending",
        "dead",
    ]
    assert (await lines(busy))[-2:] == [
        ("user:the-admin", "call.delivery_resent", {"delivery": mine["id"]}),
        ("user:the-admin", "resend", {"delivery": mine["id"], "kind": "webhook", "event": "call.finished"}),
    ]


async def _after(browser, path, call_id):
    assert (await browser.post(path)).status_code == 303
    return await page(browser, call_id)
