"""A call as it happens, in lines for people: who speaks, what was heard and what not, tools, barge-in, how long an answer took.

Pure: it is shown the row again and again as it grows, and says what is new. Times are seconds since the call's birth.

Rule: an utterance is told once, when its row has stayed the same from one look to the next; words come in more than one piece.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

type Row = Mapping[str, Any]


MOST_QUOTED, LONGEST_QUOTE = 3, 100
PATIENT_LOOKS = 15
"""So often a caller's words that are still to come hold up what came after them."""


class Watch:
    """What has been told of one call."""

    def __init__(self) -> None:
        self._told: set[tuple[Any, ...]] = set()
        self._seen: dict[tuple[Any, ...], Row] = {}
        self._looks: dict[tuple[Any, ...], int] = {}
        self._agent: str | None = None

    def see(self, row: Row) -> list[str]:
        """What is new in the row since the last look, in the order it happened."""
        final = row.get("state") == "final"
        tools = [{**tool, "at_ms": since(row, tool["started_at"])} for tool in row["tool_invocations"]]
        things: list[tuple[tuple[Any, ...], Row, int, str | None]] = [
            *((("said", said["epoch"], said["key"]), said, *utterance_line(said)) for said in row["utterances"]),
            *((("turn", turn["epoch"], turn["number"]), turn, *turn_line(turn)) for turn in row["turn_list"]),
            *((("tool", tool["tool_call"]), tool, *tool_line(tool)) for tool in tools),
        ]
        told = []
        for key, thing, _at, line in sorted(things, key=lambda thing: thing[2]):
            if key in self._told:
                continue
            settled = final or self._seen.get(key) == thing
            self._seen[key] = thing
            if settled and line is not None:
                self._told.add(key)
                told.append(line)
            elif key[0] == "said" and not final:
                self._looks[key] = self._looks.get(key, 0) + 1
                if self._looks[key] <= PATIENT_LOOKS:
                    break
        if row.get("agent") != self._agent:
            if self._agent is not None:
                told.append(f"{'':>8}  {self._agent} hands the call to {row.get('agent')}")
            self._agent = row.get("agent")
        return told


def utterance_line(said: Row) -> tuple[int, str | None]:
    """When it began, and its line; none while a caller's words are still to come."""
    at = int(said["started_at_ms"])
    if said["speaker"] == "caller":
        if said["heard"] is None and not said["untranscribed"]:
            return at, None
        return at, _line(at, "caller", said["heard"] or "(something that was not understood)")
    text = said["heard"] or ""
    if said["interrupted"]:
        text = f"{text} -- cut off after {(said['heard_ms'] or 0) / 1_000:.1f} s" if text else "(not heard at all)"
        text += f'; not heard: "{said["unheard"]}"' if said["unheard"] else ""
    return at, _line(at, said["agent"] or "agent", text.strip())


def turn_line(turn: Row) -> tuple[int, str | None]:
    """When the answer was heard, and how long the caller waited for it; no line for what the agent says of itself."""
    at = int(turn["audible_at_ms"] or turn["requested_at_ms"])
    if turn["latency_ms"] is None:
        return at, None
    tools = f", with {turn['tools']} tool{'s' * (turn['tools'] != 1)}" if turn["tools"] else ""
    return at, f"{'':>8}  answer heard {turn['latency_ms']:,} ms after the caller stopped{tools}"


def tool_line(tool: Row) -> tuple[int, str | None]:
    """When a tool was called, and its line; none until it is known what came of it."""
    if tool["status"] == "intended":
        return tool["at_ms"], None
    given = (
        ", ".join(f"{name}={value!r}" for name, value in tool["arguments"].items()) if isinstance(tool["arguments"], dict) else ""
    )
    took = f", {tool['duration_ms']:,} ms" if tool["kind"] == "errand" and tool["duration_ms"] is not None else ""
    why = f" ({tool['reason']})" if tool["reason"] else ""
    return tool["at_ms"], f"{'':>8}  tool {tool['name']}({given}): {tool['status']}{why}{took}"


def since(row: Row, moment: str) -> int:
    """Milliseconds from the call's birth to a moment."""
    return round((datetime.fromisoformat(moment) - datetime.fromisoformat(row["started_at"])).total_seconds() * 1_000)


def columns(row: Row) -> dict[str, Any]:
    """The row itself, without what belongs to it: that has been told."""
    return {name: value for name, value in row.items() if name not in ("utterances", "turn_list", "tool_invocations", "judged")}


def judged_lines(row: Row) -> list[str]:
    """Every judged value with who judged it and the words it rests on."""
    said = {utterance["ref"]: utterance for utterance in row["utterances"]}
    lines = []
    for name, judged in row["judged"].items():
        if judged["value"] is None:
            continue
        value = ", ".join(judged["value"]) if isinstance(judged["value"], list) else judged["value"]
        who = judged["analyzer"] or judged["source"]
        sure = "" if judged["confidence"] is None else f", {judged['confidence']:.0%} sure"
        lines.append(f"  {name:<16}  {value}  ({who}{sure})")
        heard = [said[ref] for ref in judged["evidence"] if ref in said]
        lines += [f"{'':>20}{utterance['speaker']}: {_short(utterance['heard'] or '')}" for utterance in heard[:MOST_QUOTED]]
        if len(heard) > MOST_QUOTED:
            lines.append(f"{'':>20}and {len(heard) - MOST_QUOTED} more")
    return lines


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1].rstrip() + "…"


def _line(at: int, who: str, text: str) -> str:
    return f"{at / 1_000:>7.1f}s  {who}: {text}"
