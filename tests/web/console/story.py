"""A call worth looking at, for the tests of its page: two agents, two streams, an interrupted sentence, tools that worked and one
that did not, a number read in two ways, a mood that changes, answers in time and late.
"""

import html
import json
import re
from datetime import UTC, datetime, timedelta

from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance
from app.call.disposition import EndReason, Filed, Memory, Outcome, Slot, Turn, Usage, Utterance
from app.call.errands import ErrandContext
from app.call.journal import Line
from app.settings import LIST_PRICES, Price
from app.store.calls import Calls, NewCall
from app.store.judgements import Judgements, NewJudgement, NewReading
from app.store.ledger import Ledger
from app.store.writer import Writer
from app.wrapup.outbox import outbox

CALLER, CALLED = "+15550100001", "+15550100199"
SAID = "My fence came down in the storm, and I am rather worried about the dog."
UNHEARD = "or would you rather have somebody call you back first, so that"
NOTED_NUMBER, READ_NUMBER = "+15550100001", "+15550100007"
RUBRIC = "rules, rules-3"


PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "{{ 7 * 7 }} {% raw %}",
    "</textarea></title></svg><svg onload=alert(1)>",
    "<hx-partial hx-target='body'>gone</hx-partial>",
    "javascript:alert(1)//&lt;b&gt;",
)
"""What callers might say who mean harm to a page."""


class Clock:
    """The house's clock, moved as the call goes on."""

    def __init__(self, house, ago_s=600):
        self.house, self.born = house, datetime.fromtimestamp(house.now / 1_000, UTC) - timedelta(seconds=ago_s)
        self.now = self.born

    def __call__(self):
        return self.now

    def at(self, ms):
        self.now = self.born + timedelta(milliseconds=ms)


def say(key, at, until, heard, *, agent=None, **other):
    """An utterance; the agent's if it names one."""
    speaker = "caller" if agent is None else "agent"
    spoken = {} if agent is None else {"heard_ms": until - at, "generated_ms": until - at}
    known = {"key": key, "speaker": speaker, "agent": agent, "started_at": at, "ended_at": until, "heard": heard}
    return Utterance(**(known | spoken | other))


def turn(number, utterance, ended, audible, *, agent="front-desk", detected=480, voiced=180, **other):
    """A turn whose answer was heard at `audible`."""
    asked = ended + detected + 8
    return Turn(
        number=number, agent=agent, utterance=utterance, speech_ended_at=ended, committed_at=ended + detected, requested_at=asked,
        first_audio_at=min(audible, asked + voiced), audible_at=audible, latency_ms=audible - ended, **other,
    )  # fmt: skip


FIRST = (
    say("g0", 900, 4_300, "Linden Gardens, hello! this is Ivy, the AI assistant. How can I help you?", agent="front-desk"),
    say("u1", 5_000, 10_200, SAID),
    say("a1", 11_020, 14_400, "Oh dear, I am sorry. Is it about a new fence, or a repair?", agent="front-desk"),
    say("u2", 15_000, 17_900, "A new one. Cedar, if you do that. About thirty metres."),
    say("a2", 18_700, 21_500, "I’ll put you through to Robin, who plans new projects with you.", agent="front-desk"),
    say("a3", 22_600, 27_000, "Robin here, for new projects. You’d like a cedar fence of about thirty metres?", agent="sales"),
    say("u3", 27_700, 28_500, "That’s right."),
    say(
        *("a4", 29_600, 33_400, "The best start is a visit, it costs you nothing. Would Tuesday suit you,"),
        agent="sales", unheard=UNHEARD, heard_ms=3_800, generated_ms=8_100, interrupted=True,
    ),
    say("u4", 33_100, 36_900, "Tuesday is good! In the morning, please. I have to be at work at noon."),
    say("a5", 39_400, 43_600, "One moment, I am looking. I have half past nine, or eleven o’clock.", agent="sales"),
    say("u5", 44_100, 46_000, None, untranscribed=True),
)  # fmt: skip
SECOND = (
    say("a1", 51_200, 54_600, "Sorry, the line was gone for a moment. Half past nine on Tuesday?", agent="sales"),
    say("u1", 55_100, 58_200, "Half past nine. My name is Maria Lopez, L O P E Z."),
    say("a2", 59_000, 63_200, "Thank you, Maria. Under which number do we reach you?", agent="sales"),
    say("u2", 63_900, 68_800, "Five five five, zero one zero, zero zero zero seven."),
    say(
        "a3",
        70_100,
        75_000,
        "Your visit is booked: Tuesday at half past nine. We look forward to your garden. Goodbye!",
        agent="sales",
    ),
    say("u3", 75_400, 76_600, "Wonderful, thank you! Bye."),
)
TURNS = (
    (1, turn(1, "u1", 10_200, 11_020)),
    (1, turn(2, "u2", 17_900, 18_700)),
    (1, turn(3, "u3", 28_500, 29_600, agent="sales", voiced=420)),
    (1, turn(4, "u4", 36_900, 39_400, agent="sales", voiced=1_700, tools=1)),
    (2, turn(1, "u1", 58_200, 59_000, agent="sales")),
    (2, turn(2, "u2", 68_800, 70_100, agent="sales", voiced=700, tools=2)),
)


def memory(**other):
    slots = (
        Slot(name="name", value="Maria Lopez", utterance="u1", agent="sales", at=58_900),
        Slot(name="callback_number", value=NOTED_NUMBER, utterance="u2", agent="sales", confirmed=True, at=69_200),
        Slot(name="reason", value="a new cedar fence, about thirty metres", utterance="u2", agent="front-desk", at=18_300),
        Slot(name="urgency", value="high", agent="front-desk", at=12_000),
    )
    known = {
        "agent": "sales", "agent_path": ("front-desk", "sales"), "slots": slots, "barge_ins": 1, "turns": 7, "caller_turns": 6,
        "disposition": "appointment_booked", "intent": "buy", "summary": "Maria wants a cedar fence; a visit is booked.",
        "next_action": "Send a designer on Tuesday at half past nine.", "caller_spoke": True,
        "usage": Usage(text_in=3_000, text_cached=900, audio_in=6_000, audio_cached=1_500, text_out=400, audio_out=2_100),
    }  # fmt: skip
    return Memory(**(known | other))


async def begun(office, *, sid="CA" + "7" * 32, ago_s=600, number=CALLER):
    """A call that goes on: the greeting has been said."""
    clock = Clock(office.house, ago_s)
    calls = Calls(office.database, clock=clock)
    new = NewCall(
        carrier_call_sid=sid, account_sid="AC1", from_number=number, to_number=CALLED, agent="front-desk",
        model="gpt-realtime-2.1", prompt_version="3f9a1c", attestation="TN-Validation-Passed-A", audio_path="passthrough",
    )  # fmt: skip
    state, _ = await calls.born(new)
    await calls.claim(state.call_id, 1, worker="w1", stream_sid="MZ1")
    writer = Writer(office.database, clock=clock)
    writer.put(state.call_id, 1, KeepUtterance(FIRST[0]))
    writer.put(state.call_id, 1, KeepMemory(Memory(agent="front-desk", agent_path=("front-desk",))))
    await writer.flush()
    return state.call_id, clock


async def go_on(office, call_id, clock, first=FIRST[1:4], known=None):
    """More of it is said."""
    writer = Writer(office.database, clock=clock)
    for said in first:
        writer.put(call_id, 1, KeepUtterance(said))
    if known is not None:
        writer.put(call_id, 1, KeepMemory(known))
    await writer.flush()


async def ended(office, call_id, clock, *, said=(FIRST, SECOND), known=None, journal=()):
    """All of it has been said, and the row is finished; it waits to be read."""
    calls, writer = Calls(office.database, clock=clock), Writer(office.database, clock=clock)
    ledger = Ledger(office.database, clock=clock)
    for epoch, spoken in enumerate(said, start=1):
        for each in spoken:
            writer.put(call_id, epoch, KeepUtterance(each))
    for epoch, each in TURNS:
        writer.put(call_id, epoch, KeepTurn(each))
    for epoch, line in journal or ((1, _opened(0)), (2, _opened(50_400))):
        writer.put(call_id, epoch, line)
    clock.at(18_300)
    writer.put(
        call_id,
        1,
        KeepTool("t1", "note_slot", "front-desk", False, '{"slot": "reason", "value": "a cedar fence"}', '{"noted": "reason"}'),
    )
    await writer.flush()
    clock.at(21_700)
    writer.put(call_id, 1, KeepTool("t2", "hand_off", "front-desk", False, '{"to": "sales"}', '{"handed_to": "sales"}'))
    await writer.flush()
    await _errand(
        ledger,
        call_id,
        1,
        clock,
        "t3",
        "offer_appointments",
        {"day": "Tuesday", "part": "morning"},
        37_400,
        1_450,
        {"openings": ["09:30", "11:00"]},
    )
    await calls.advance(call_id, 1)
    await calls.claim(call_id, 2, worker="w1", stream_sid="MZ2")
    await _errand(
        ledger,
        call_id,
        2,
        clock,
        "t4",
        "book_appointment",
        {"opening": "2026-11-24T09:30"},
        69_000,
        900,
        {"booked": True},
        effect=True,
    )
    await _errand(ledger, call_id, 2, clock, "t5", "take_message", {"text": "She has a dog."}, 69_950, 100, None, effect=True)
    await writer.flush()
    clock.at(77_300)
    prices = {name: Price(**price) for name, price in LIST_PRICES.items()}
    filed = Filed(outcome=Outcome.COMPLETED, end_reason=EndReason.CALLER_HUNG_UP, memory=known or memory(), ended_at=77_300)
    assert await calls.finish(call_id, filed, epoch=None, prices=prices, prices_date=datetime(2026, 11, 1).date())
    await calls.carrier_status("CA" + "7" * 32, "completed", sequence=4, duration_s=77)


async def _errand(ledger, call_id, epoch, clock, tool_call, name, arguments, at, took, result, effect=False):
    context = ErrandContext(call_id=call_id, epoch=epoch, agent="sales", caller_number=CALLER, slots={})
    clock.at(at)
    await ledger.intend(context, tool_call, name, json.dumps(arguments), effect)
    clock.at(at + took)
    if result is None:
        await ledger.failed(context, tool_call, "not_reachable", attempts=2)
    else:
        await ledger.done(context, tool_call, json.dumps(result))


def judged(field, value, evidence=("1.u1",), **other):
    known = {"confidence": 0.82, "analyzer": "rules", "prompt_version": "rules-3"}
    if value is None:
        evidence, known["confidence"] = (), 0.0
    return NewJudgement(field=field, value=value, evidence=evidence, **(known | other))


def reading(call_id, **other):
    """A reading that finds another number than the agent noted, and no next action."""
    reasons = [
        {"name": "wants_work", "because": "asks for a new fence", "evidence": ["1.u2"]},
        {"name": "agrees_to_a_visit", "because": "Tuesday morning", "evidence": ["1.u4", "2.u1"]},
    ]
    known = [
        judged(
            "summary",
            "Maria Lopez wants about thirty metres of cedar fence after a storm. A visit is booked for Tuesday, half past nine.",
            ("1.u1", "1.u2", "2.u1"),
        ),
        judged("sentiment", "positive", ("2.u3",), confidence=0.9),
        judged("sentiment_course", ["negative", "neutral", "positive"], ("1.u1", "1.u4", "2.u3")),
        judged("intent", "buy", ("1.u2",)),
        judged("lead_score", 85, ("1.u2", "1.u4"), reasons=reasons),
        judged("urgency", "normal", ("1.u1",), confidence=0.55),
        judged("escalation", None),
        judged("disposition", "appointment_booked", ("2.u1",)),
        judged("next_action", None, dropped="no_evidence"),
        judged("name", "Maria Lopez", ("2.u1",)),
        judged("callback_number", READ_NUMBER, ("2.u2",), confidence=0.77),
        judged("reason", None, dropped="not_said"),
    ]
    made = {"analyzer": "rules", "prompt_version": "rules-3", "rubric": "rubric-1", "judgements": known}
    reasons_to_look = {"callback_number": "values_differ", "reason": "not_in_transcript"}
    return NewReading(call_id=call_id, review_reasons=reasons_to_look, **(made | other))


async def read(office, call_id, clock, **other):
    """Its reading is in force."""
    judgements = Judgements(office.database, outbox(office.house.settings), clock=clock)
    clock.at(81_000)
    assert await judgements.settle(call_id, await judgements.keep(reading(call_id, **other)))


async def told(office, *, sid="CA" + "7" * 32, ago_s=600, number=CALLER, **other):
    """The whole of it: talked, ended and read. The call's name."""
    call_id, clock = await begun(office, sid=sid, ago_s=ago_s, number=number)
    await ended(office, call_id, clock, **other)
    await read(office, call_id, clock)
    return call_id


def _opened(at):
    return Line(1, at, "opened", {}, None, "")


# ---- looking at its page


async def page(browser, call_id, query=""):
    answer = await browser.get(f"/console/calls/{call_id}{query}")
    assert answer.status_code == 200, answer.text
    return answer


def part_of(answer, element_id):
    """The markup from this element on, to the next one of its kind."""
    found = re.search(rf'<(\w+)[^>]* id="{re.escape(element_id)}".*?</\1>', answer.text, re.DOTALL)
    assert found, element_id
    return found[0]


def said(markup):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


async def lines(office, since=0):
    return [(actor, action, details) for actor, action, _, details in (await office.audit())[since:]]
