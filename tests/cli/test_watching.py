"""A call told while it happens."""

from typing import Any

from app.cli.watching import PATIENT_LOOKS, Watch


def row(**parts: Any) -> dict[str, Any]:
    known = {"state": "live", "agent": "front-desk", "started_at": "2026-11-20T09:00:00+00:00"}
    return known | {"utterances": [], "turn_list": [], "tool_invocations": []} | parts


def said(key: str, speaker: str, heard: str | None, at: int = 1_000, **other: Any) -> dict[str, Any]:
    known = {
        "epoch": 1,
        "key": key,
        "speaker": speaker,
        "agent": "front-desk" if speaker == "agent" else None,
        "started_at_ms": at,
        "ended_at_ms": at + 900,
        "heard": heard,
        "unheard": None,
        "heard_ms": 900,
        "generated_ms": 900,
        "interrupted": False,
        "untranscribed": False,
    }
    return known | other


def turn(**other: Any) -> dict[str, Any]:
    known = {"epoch": 1, "number": 2, "latency_ms": 840, "requested_at_ms": 4_500, "audible_at_ms": 5_000, "tools": 0}
    return known | {"interrupted": False} | other


def tool(**other: Any) -> dict[str, Any]:
    known = {"tool_call": "t1", "name": "book_appointment", "arguments": {"opening": "2026-11-24T10:00"}, "status": "done"}
    more = {"kind": "errand", "reason": None, "duration_ms": 12, "started_at": "2026-11-20T09:00:02.500000+00:00"}
    return known | more | other


def told(*rows: dict[str, Any]) -> list[str]:
    watch = Watch()
    return [line.strip() for each in rows for line in watch.see(each)]


def test_an_utterance_is_told_once_when_it_has_stopped_changing():
    one = row(utterances=[said("a", "agent", "Hello there.")])
    assert told(one) == []
    assert told(one, one, one) == ["1.0s  front-desk: Hello there."]


def test_an_utterance_still_growing_waits():
    first, second = (row(utterances=[said("a", "agent", text)]) for text in ("Hello", "Hello there."))
    assert told(first, second, second) == ["1.0s  front-desk: Hello there."]


def test_a_caller_is_told_when_the_words_are_there_or_will_not_come():
    silent = row(utterances=[said("c", "caller", None)])
    assert told(silent, silent) == []
    worded = row(utterances=[said("c", "caller", "Good morning.")])
    assert told(silent, silent, worded, worded) == ["1.0s  caller: Good morning."]
    given_up = row(utterances=[said("c", "caller", None, untranscribed=True)])
    assert told(silent, given_up, given_up) == ["1.0s  caller: (something that was not understood)"]


def test_a_barge_in_shows_what_was_heard_and_what_was_not():
    cut = row(utterances=[said("a", "agent", "We have Tuesday", unheard="and Friday at ten.", heard_ms=1_240, interrupted=True)])
    assert told(cut, cut) == ['1.0s  front-desk: We have Tuesday -- cut off after 1.2 s; not heard: "and Friday at ten."']


def test_words_never_heard_are_told_as_such():
    cut = row(utterances=[said("a", "agent", "", unheard="Goodbye.", heard_ms=0, interrupted=True)])
    assert told(cut, cut) == ['1.0s  front-desk: (not heard at all); not heard: "Goodbye."']


def test_an_answer_is_told_with_its_latency_and_its_tools():
    assert told(row(turn_list=[turn()]), row(turn_list=[turn()])) == ["answer heard 840 ms after the caller stopped"]
    with_tools = row(turn_list=[turn(tools=2)])
    assert told(with_tools, with_tools) == ["answer heard 840 ms after the caller stopped, with 2 tools"]


def test_what_the_agent_says_of_itself_has_no_latency():
    greeting = row(turn_list=[turn(latency_ms=None)])
    assert told(greeting, greeting) == []


def test_a_tool_is_told_when_it_is_known_what_came_of_it():
    out, back = row(tool_invocations=[tool(status="intended", duration_ms=None)]), row(tool_invocations=[tool()])
    assert told(out, out, back, back) == ["tool book_appointment(opening='2026-11-24T10:00'): done, 12 ms"]
    failed = row(tool_invocations=[tool(status="failed", reason="TimeoutError", arguments="{broken")])
    assert told(failed, failed) == ["tool book_appointment(): failed (TimeoutError), 12 ms"]


def test_a_control_takes_no_time_worth_telling():
    note = row(tool_invocations=[tool(name="note_slot", arguments={"slot": "name"}, kind="control", duration_ms=0)])
    assert told(note, note) == ["tool note_slot(slot='name'): done"]


def test_what_is_new_at_once_is_told_in_the_order_it_happened():
    first, last = said("a", "agent", "One moment.", 2_000), said("b", "agent", "Booked.", 3_000)
    both = row(state="final", utterances=[last, first], tool_invocations=[tool()])
    assert [line.split()[0] for line in told(both)] == ["2.0s", "tool", "3.0s"]


def test_a_callers_words_are_waited_for_before_what_came_of_them_is_told():
    silent = row(utterances=[said("c", "caller", None)], tool_invocations=[tool()])
    assert told(silent, silent, silent) == []
    worded = row(utterances=[said("c", "caller", "Book it.")], tool_invocations=[tool()])
    assert [line.split()[0] for line in told(silent, silent, worded, worded, worded)] == ["1.0s", "tool"]


def test_words_that_do_not_come_hold_nothing_up_for_long():
    silent = row(utterances=[said("c", "caller", None)], tool_invocations=[tool()])
    assert [line.split()[0] for line in told(*[silent] * (PATIENT_LOOKS + 2))] == ["tool"]


def test_a_handoff_is_told():
    assert told(row(), row(agent="sales"), row(agent="sales")) == ["front-desk hands the call to sales"]


def test_what_came_last_is_told_at_the_end_in_the_order_it_was_said():
    last = row(state="final", utterances=[said("b", "caller", "Bye.", 9_000), said("a", "agent", "Goodbye.", 8_000)])
    assert told(last) == ["8.0s  front-desk: Goodbye.", "9.0s  caller: Bye."]


def test_nothing_is_told_twice_however_often_it_is_looked_at():
    last = row(state="final", utterances=[said("a", "agent", "Hello.")], turn_list=[turn()], tool_invocations=[tool()])
    assert len(told(last, last, last)) == 3
