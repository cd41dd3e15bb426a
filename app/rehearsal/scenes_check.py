"""Did it hold? A scene's expectations against the finished row and against what the carrier saw; each failure is one sentence.

Rule 1: the carrier's own facts are the yardstick of the row: what was heard, dialed, complained of.
Rule 2: every expectation is checked, not only the first that fails.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from app.rehearsal.scenes import Scene

HEARD_TOLERANCE_MS = 120
"""For each stretch that was interrupted: between two marks the service can only count time, and its `clear` travels."""
SOME_MS = 100
"""For the whole: stretches are noted in whole milliseconds."""


def check(scene: Scene, row: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> list[str]:
    """What did not hold. `row` is the finished row with `utterances`, `turn_list` and `tool_invocations`, or None if there is none;
    `facts` is what the carrier saw (`carrier_process.facts`)."""
    return list(_failures(scene, row, facts))


def _failures(scene: Scene, row: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> Iterator[str]:
    yield from facts.get("troubles", [])
    for alert in facts.get("violations", []):
        yield f"the carrier complained: {alert}"
    if row is None:
        yield "the call left no row"
        return
    if row.get("finished_at") is None:
        yield "the row was not finished"
    for name, wanted in scene.expect.items():
        yield from _one(name, wanted, row, facts)
    if "failed_tools" not in scene.expect:
        yield from _failed_tools(0, row)
    yield from _heard_ms(scene.expect.get("heard_tolerance_ms"), row, facts)
    yield from _judged(row)


def _one(name: str, wanted: Any, row: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    match name:
        case "outcome" | "end_reason" | "disposition" | "intent" | "urgency":
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if row.get(name) not in allowed:
                yield f"{name} is {row.get(name)!r}, expected {_either(allowed)}"
        case "escalated":
            if bool(row.get(name)) is not wanted:
                yield f"escalated is {row.get(name)!r}, expected {wanted!r}"
        case "agent_path":
            if list(row.get(name) or []) != wanted:
                yield f"the agents were {_listed(row.get(name) or [])}, expected {_listed(wanted)}"
        case "slots":
            yield from _slots(wanted, row)
        case "confirmed":
            for slot in wanted:
                if not (_slot(row, slot) or {}).get("confirmed"):
                    yield f"the slot {slot} was not confirmed"
        case "tools":
            yield from _in_order("the tools called were", wanted, _tools(row))
        case "no_tools":
            for tool in set(wanted) & set(_tools(row)):
                yield f"the tool {tool} was called and should not have been"
        case "failed_tools":
            yield from _failed_tools(wanted, row)
        case "turns" | "barge_ins":
            yield from _number(name, wanted, _count(row, name))
        case "streams":
            yield from _number(name, wanted, facts.get("streams", 0))
        case "heard":
            yield from _found("the caller did not hear", wanted, _words(row, "agent", "heard"))
        case "not_heard":
            text = _words(row, "agent", "heard")
            for pattern in wanted:
                if re.search(pattern, text, re.IGNORECASE):
                    yield f"the caller heard {pattern!r} and should not have; heard was: {text!r}"
        case "caller_said":
            yield from _found("the caller was not understood to say", wanted, _words(row, "caller", "heard"))
        case "unheard":
            text = _words(row, "agent", "unheard")
            if bool(text) is not wanted:
                yield "nothing was left unheard" if wanted else f"something was left unheard: {text!r}"
        case "dialed":
            numbers = [dialed["number"] for dialed in facts.get("dialed", [])]
            if len(numbers) != len(wanted) or not all(map(_fits, wanted, numbers)):
                yield f"the numbers dialed were {_listed(numbers)}, expected {_listed(wanted)}"
        case "hung_up_by":
            if facts.get("by") != wanted:
                yield f"the call was ended by {facts.get('by')!r}, expected {wanted!r}"
        case "heard_tolerance_ms":
            return
        case other:
            yield f"the expectation {other} is not known"


def _slot(row: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    slot = (row.get("slots") or {}).get(name)
    return slot if isinstance(slot, dict) or slot is None else {"value": slot}


def _slots(wanted: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    for name, expected in wanted.items():
        slot = _slot(row, name)
        value = None if slot is None else str(slot.get("value"))
        if expected is False:
            if slot is not None:
                yield f"the slot {name} is {value!r} and should not be there"
        elif value is None:
            yield f"the slot {name} was not filled, expected {expected!r}"
        elif not _fits(str(expected), value):
            yield f"the slot {name} is {value!r}, expected {expected!r}"


def _fits(expected: str, value: str) -> bool:
    if len(expected) > 1 and expected.startswith("/") and expected.endswith("/"):
        return re.search(expected[1:-1], value, re.IGNORECASE) is not None
    return expected.casefold() == value.casefold()


def _tools(row: Mapping[str, Any]) -> list[str]:
    return [str(invocation["name"]) for invocation in row.get("tool_invocations") or []]


def _failed_tools(allowed: int, row: Mapping[str, Any]) -> Iterator[str]:
    bad = [tool for tool in row.get("tool_invocations") or [] if tool.get("status") in ("intended", "failed", "unknown")]
    if len(bad) > allowed:
        named = ", ".join(f"{tool['name']} ({tool.get('status')}: {tool.get('reason')})" for tool in bad)
        yield f"{len(bad)} tool invocations did not end well, expected at most {allowed}: {named}"


def _count(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    return len(value) if isinstance(value, list) else int(value or 0)


def _number(name: str, wanted: Any, value: int) -> Iterator[str]:
    low = wanted.get("min", 0) if isinstance(wanted, dict) else wanted
    high = wanted.get("max") if isinstance(wanted, dict) else wanted
    if value < low or (high is not None and value > high):
        span = f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"
        yield f"{name} is {value}, expected {span}"


def _words(row: Mapping[str, Any], speaker: str, part: str) -> str:
    said = [it for it in row.get("utterances") or [] if it.get("speaker") == speaker]
    return " ".join(str(it[part]) for it in said if it.get(part))


def _found(complaint: str, patterns: Iterable[str], text: str) -> Iterator[str]:
    at = 0
    for pattern in patterns:
        if (found := re.search(pattern, text[at:], re.IGNORECASE)) is None:
            yield f"{complaint} {pattern!r}{' after the one before it' if at else ''}; it was: {text!r}"
        else:
            at += found.end()


def _in_order(complaint: str, wanted: Sequence[str], had: Sequence[str]) -> Iterator[str]:
    left = iter(had)
    if not all(name in left for name in wanted):
        yield f"{complaint} {_listed(had)}, expected in this order {_listed(wanted)}"


def _heard_ms(tolerance: int | None, row: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """The row's sum of what was heard against what the line truly played."""
    spoken = [it for it in row.get("utterances") or [] if it.get("speaker") == "agent" and it.get("heard_ms") is not None]
    if "heard_ms" not in facts or not spoken:
        return
    cut = sum(1 for it in spoken if it.get("interrupted"))
    allowed = SOME_MS + HEARD_TOLERANCE_MS * cut if tolerance is None else tolerance
    noted = sum(int(it["heard_ms"]) for it in spoken)
    if abs(noted - facts["heard_ms"]) > allowed:
        yield f"the row says that {noted} ms were heard, the line played {facts['heard_ms']} ms; allowed are {allowed} ms apart"


def _judged(row: Mapping[str, Any]) -> Iterator[str]:
    """Whether the call was read, and every judged value rests on something that was said."""
    if row.get("analysis", "done") != "done":
        yield f"the reading of the call is {row['analysis']!r} ({row.get('analysis_fault')})"
    said = {it.get("ref") for it in row.get("utterances") or [] if it.get("heard")}
    for name, judged in (row.get("judged") or {}).items():
        if (
            judged.get("value") is not None
            and judged.get("source") == "machine"
            and not said.intersection(judged.get("evidence") or [])
        ):
            yield f"{name} was judged and rests on nothing that was said"


def _either(allowed: Sequence[Any]) -> str:
    return " or ".join(repr(value) for value in allowed)


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(str(name) for name in names) or "none"
