"""A call as it happens, in lines for people: who speaks, what was heard and what not, tools, barge-in, how long an answer took.

Pure: it is shown the row again and again as it grows, and says what is new. Times are seconds since the call's birth.

Rule: an utterance is told once, when its row has stayed the same from one look to the next; words come in more than one piece.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

type Row = Mapping[str, Any]


class Watch:
    """What has been told of one call."""

    def __init__(self) -> None:
        self._told: set[tuple[Any, ...]] = set()
        self._seen: dict[tuple[Any, ...], Row] = {}
        self._agent: str | None = None

    def see(self, row: Row) -> list[str]:
        """What is new in the row since the last look."""
        final = row.get("state") == "final"
        lines: list[tuple[int, str]] = []
        lines += self._new("utterance", row["utterances"], ("epoch", "key"), utterance_line, final)
        lines += self._new("turn", row["turn_list"], ("epoch", "number"), turn_line, final)
        tools = [{**tool, "at_ms": since(row, tool["started_at"])} for tool in row["tool_invocations"]]
        lines += self._new("tool", tools, ("tool_call",), tool_line, final)
        told = [line for _, line in sorted(lines, key=lambda line: line[0])]
        if row.get("agent") != self._agent:
            if self._agent is not None:
                told.append(f"{'':>8}  {self._agent} hands the call to {row.get('agent')}")
            self._agent = row.get("agent")
        return told

    def _new(
        self,
        kind: str,
        things: Sequence[Row],
        names: tuple[str, ...],
        line: Callable[[Row], tuple[int, str] | None],
        at_once: bool,
    ) -> list[tuple[int, str]]:
        found = []
        for thing in things:
            key = (kind, *(thing[name] for name in names))
            if key in self._told:
                continue
            if at_once or self._seen.get(key) == thing:
                said = line(thing)
                if said is not None:
                    self._told.add(key)
                    found.append(said)
            self._seen[key] = thing
        return found


def utterance_line(said: Row) -> tuple[int, str] | None:
    """One stretch of speech; None while a caller's words are still to come."""
    at = int(said["started_at_ms"])
    if said["speaker"] == "caller":
        if said["heard"] is None and not said["untranscribed"]:
            return None
        return at, _line(at, "caller", said["heard"] or "(something that was not understood)")
    text = said["heard"] or ""
    if said["interrupted"]:
        text = f"{text} -- cut off after {(said['heard_ms'] or 0) / 1_000:.1f} s" if text else "(not heard at all)"
        text += f'; not heard: "{said["unheard"]}"' if said["unheard"] else ""
    return at, _line(at, said["agent"] or "agent", text.strip())


def turn_line(turn: Row) -> tuple[int, str] | None:
    """How long the caller waited for the answer; None for what the agent says of itself, and until it is known."""
    if turn["latency_ms"] is None:
        return None
    at = int(turn["audible_at_ms"])
    tools = f", with {turn['tools']} tool{'s' * (turn['tools'] != 1)}" if turn["tools"] else ""
    return at, f"{'':>8}  answer heard {turn['latency_ms']:,} ms after the caller stopped{tools}"


def tool_line(tool: Row) -> tuple[int, str] | None:
    """One tool; None until it is known what came of it."""
    if tool["status"] == "intended":
        return None
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
    return {name: value for name, value in row.items() if name not in ("utterances", "turn_list", "tool_invocations")}


def _line(at: int, who: str, text: str) -> str:
    return f"{at / 1_000:>7.1f}s  {who}: {text}"
