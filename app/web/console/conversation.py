"""A conversation as a page shows it: what was said and done in order, and who spoke when, drawn to scale.

Rule 1: words heard and words never heard stand apart, in what is read as in what is drawn.
Rule 2: a drawing is given as shares of its width in percent, so that it fits every screen and its letters keep their size.
Rule 3: here is arithmetic over a row of `Calls.row()`; nothing is asked of anybody, and nothing is escaped: templates do that.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.call.disposition import Slot
from app.store.facts import slot_refs

type Row = Mapping[str, Any]

OBJECTIVE_MS = 1_000
"""In which a caller is to hear an answer."""
STAGES = (
    ("detected", "end of speech noticed", "speech_ended_at_ms", "committed_at_ms"),
    ("asked", "answer asked for", "committed_at_ms", "requested_at_ms"),
    ("voiced", "first sound made", "requested_at_ms", "first_audio_at_ms"),
    ("heard", "heard by the caller", "first_audio_at_ms", "audible_at_ms"),
)
"""Of an answer: name, words, and between which moments of its turn it lies."""
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600)
MOST_TICKS = 8
NARROWEST = 0.35
"""Percent: what is shorter is drawn as wide as this, to be seen at all."""
SHORT_TEXT = 70
QUIET = ("note_slot", "wait_for_caller")
"""Controls that go on beside the talk, many a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in the conversation: `kind` is `said`, `tool`, `handoff` or `stream`."""

    kind: str
    at_ms: int
    until_ms: int
    anchor: str
    epoch: int
    agent: str | None = None
    new_agent: bool = False
    """This agent was not the last to speak."""
    # said
    speaker: str = ""
    ref: str = ""
    heard: str | None = field(default=None, repr=False)
    unheard: str | None = field(default=None, repr=False)
    interrupted: bool = False
    barges_in: bool = False
    """The caller takes the floor with it."""
    untranscribed: bool = False
    heard_ms: int | None = None
    generated_ms: int | None = None
    turn: Row | None = None
    """The turn that it began, with its latency."""
    # tool
    name: str = ""
    status: str = ""
    effect: bool = False
    control: bool = False
    arguments: str = field(default="", repr=False)
    result: str = field(default="", repr=False)
    in_short: str = field(default="", repr=False)
    reason: str | None = None
    tried: int = 0
    to: str | None = None
    """To whom a call was handed."""

    @property
    def quiet(self) -> bool:
        """Said in passing."""
        return self.name in QUIET and self.status == "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A stretch of a drawing; `x` and `width` in percent."""

    x: float
    width: float
    kind: str
    title: str = field(repr=False)
    anchor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A moment of a drawing, with a word beside it where there is room."""

    x: float
    kind: str
    title: str
    label: str = ""
    anchor: str = ""
    at_end: bool = False
    """There is no room to the right of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLine:
    """Who spoke when."""

    total_ms: int
    caller: tuple[Bar, ...]
    agent: tuple[Bar, ...]
    unheard: tuple[Bar, ...]
    tools: tuple[Bar, ...]
    signs: tuple[Sign, ...]
    ticks: tuple[Sign, ...]
    description: str

    @property
    def long(self) -> bool:
        """Too long for the width of a telephone."""
        return self.total_ms > 90_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How long a caller waited for one answer, by stage."""

    number: int
    epoch: int
    anchor: str | None
    at_ms: int | None
    latency_ms: int
    stages: tuple[Bar, ...]
    in_words: str
    tools: int
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """All answers of a call, drawn to one scale."""

    answers: tuple[Answer, ...]
    scale_ms: int
    objective: float
    """Where the objective stands, in percent."""
    late: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """All of it."""

    items: tuple[Item, ...]
    line: TimeLine
    latencies: Latencies
    cites: Mapping[str, Item]
    """What was said, by its ref."""

    def cited(self, refs: Iterable[Any]) -> list[Item]:
        """The utterances of that name that there are."""
        return [self.cites[ref] for ref in refs if ref in self.cites]


def conversation(row: Row, opened: Mapping[int, int], *, now: datetime) -> Conversation:
    """The conversation of a row. `opened`: when its streams were (`Journals.opened`)."""
    said = _said(row)
    items = [*said, *_tools(row), *_streams(row, opened, said)]
    order = {"stream": 0, "handoff": 2, "tool": 2, "said": 1}
    items.sort(key=lambda item: (item.epoch, item.at_ms, order[item.kind]))
    return Conversation(
        items=tuple(items),
        line=_line(row, items, now),
        latencies=_latencies(row, {item.ref: item for item in said}),
        cites={item.ref: item for item in said},
    )


def anchor(ref: str) -> str:
    """The name of an utterance's place in the page."""
    return "said-" + re.sub(r"[^\w.-]", "_", ref)


def slots_heard_in(row: Row) -> dict[str, str]:
    """For each slot of a row the ref of the utterance it was heard in, where that is known."""
    slots = [
        Slot(name=name, value="", utterance=entry["utterance"], at=entry.get("at") or 0)
        for name, entry in (row.get("slots") or {}).items()
        if isinstance(entry, Mapping) and entry.get("utterance")
    ]
    return slot_refs(slots, [(said["epoch"], said["key"], said["started_at_ms"]) for said in row["utterances"]])


def moment(ms: int) -> str:
    """A moment of a call for people: minutes and seconds since its beginning."""
    minutes, seconds = divmod(max(0, ms) // 1_000, 60)
    return f"{minutes}:{seconds:02}"


# ---- what was said and done


def _said(row: Row) -> list[Item]:
    turns = {f"{turn['epoch']}.{turn['utterance']}": turn for turn in row["turn_list"] if turn["utterance"]}
    found: list[Item] = []
    cut: list[tuple[int, int]] = []
    last_agent = None
    for said in row["utterances"]:
        by_agent = said["speaker"] == "agent"
        new_agent = by_agent and said["agent"] != last_agent and last_agent is not None
        last_agent = said["agent"] if by_agent else last_agent
        if by_agent and said["interrupted"]:
            cut.append((said["epoch"], said["ended_at_ms"]))
        found.append(
            Item(
                kind="said",
                at_ms=said["started_at_ms"],
                until_ms=max(said["started_at_ms"], said["ended_at_ms"]),
                anchor=anchor(said["ref"]),
                epoch=said["epoch"],
                speaker=said["speaker"],
                agent=said["agent"],
                new_agent=new_agent,
                ref=said["ref"],
                heard=said["heard"],
                unheard=said["unheard"],
                interrupted=said["interrupted"],
                untranscribed=said["untranscribed"],
                heard_ms=said["heard_ms"],
                generated_ms=said["generated_ms"],
                turn=turns.get(said["ref"]),
            )
        )
    takers = {taker for epoch, at_ms in cut if (taker := _who_took_the_floor(found, epoch, at_ms)) is not None}
    return [_with(item, barges_in=True) if item.ref in takers else item for item in found]


def _who_took_the_floor(said: Sequence[Item], epoch: int, at_ms: int) -> str | None:
    """The last of the caller's utterances that had begun when the agent fell silent, if it was still going on."""
    begun = [item for item in said if item.speaker == "caller" and item.epoch == epoch and item.at_ms <= at_ms + 300]
    return begun[-1].ref if begun and begun[-1].until_ms >= at_ms - 300 else None


def _with(item: Item, **other: Any) -> Item:
    return Item(**{name: getattr(item, name) for name in Item.__slots__} | other)


def _tools(row: Row) -> list[Item]:
    born = datetime.fromisoformat(row["started_at"])
    found = []
    for number, tool in enumerate(row["tool_invocations"]):
        at_ms = max(0, round((datetime.fromisoformat(tool["started_at"]) - born).total_seconds() * 1_000))
        to = _value(tool["arguments"], "to") if tool["name"] in ("hand_off", "transfer_to_human") else None
        handed = to is not None and tool["name"] == "hand_off" and tool["status"] == "done"
        found.append(
            Item(
                kind="handoff" if handed else "tool",
                at_ms=at_ms,
                until_ms=at_ms + (tool["duration_ms"] or 0),
                anchor=f"tool-{number}",
                epoch=tool["epoch"],
                agent=tool["agent"],
                name=tool["name"],
                status=tool["status"],
                effect=tool["effect"],
                control=tool["kind"] == "control",
                arguments=_pretty(tool["arguments"]),
                result=_pretty(tool["result"]),
                in_short=_in_short(tool["arguments"]),
                reason=tool["reason"],
                tried=tool["attempts"],
                to=to,
            )
        )
    return found


def _streams(row: Row, opened: Mapping[int, int], said: Sequence[Item]) -> list[Item]:
    """Every stream after the first: the caller stayed on the line, the connection was made anew."""
    begun: dict[int, int] = {}
    for item in said:
        begun[item.epoch] = min(item.at_ms, begun.get(item.epoch, item.at_ms))
    begun |= opened
    return [
        Item(kind="stream", at_ms=at_ms, until_ms=at_ms, anchor=f"stream-{epoch}", epoch=epoch)
        for epoch, at_ms in sorted(begun.items())
        if epoch > 1
    ]


def _value(arguments: Any, name: str) -> str | None:
    value = arguments.get(name) if isinstance(arguments, Mapping) else None
    return value if isinstance(value, str) else None


def _pretty(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _in_short(arguments: Any) -> str:
    if not isinstance(arguments, Mapping):
        return ""
    told = ", ".join(f"{name}: {_word(value)}" for name, value in arguments.items() if value not in (None, ""))
    return told if len(told) <= SHORT_TEXT else f"{told[: SHORT_TEXT - 1].rstrip()}…"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---- drawn to scale


def _line(row: Row, items: Sequence[Item], now: datetime) -> TimeLine:
    born = datetime.fromisoformat(row["started_at"])
    ended = datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else now
    total = max(1_000, round((ended - born).total_seconds() * 1_000), *(item.until_ms for item in items), 0)

    def bar(item: Item, kind: str, title: str, *, begin: int | None = None, end: int | None = None) -> Bar:
        begin, end = item.at_ms if begin is None else begin, item.until_ms if end is None else end
        x = min(_share(begin, total), 100 - NARROWEST)
        return Bar(
            x=x,
            width=round(max(NARROWEST, min(100.0, _share(end, total)) - x), 3),
            kind=kind,
            title=title,
            anchor=item.anchor,
        )

    said = [item for item in items if item.kind == "said"]
    caller = [item for item in said if item.speaker == "caller"]
    agent = [item for item in said if item.speaker == "agent" and (item.heard or item.until_ms > item.at_ms)]
    lost = [item for item in said if item.speaker == "agent" and _lost_ms(item)]
    tools = [item for item in items if item.kind == "tool" and not item.quiet]
    return TimeLine(
        total_ms=total,
        caller=tuple(bar(item, "untranscribed" if item.untranscribed else "caller", _told(item)) for item in caller),
        agent=tuple(bar(item, "agent", _told(item)) for item in agent),
        unheard=tuple(
            bar(item, "unheard", f"{moment(item.until_ms)} not heard: {_cut(item.unheard)}", begin=item.until_ms, end=end)
            for item in lost
            if (end := min(total, item.until_ms + _lost_ms(item)))
        ),
        tools=tuple(bar(item, f"tool {item.status}", f"{moment(item.at_ms)} {item.name}: {item.status}") for item in tools),
        signs=tuple(_signs(items, total)),
        ticks=tuple(_ticks(total)),
        description=_in_words(row, caller, agent, tools, total),
    )


def _signs(items: Sequence[Item], total: int) -> Iterable[Sign]:
    labelled = -100.0
    for item in items:
        x = _share(item.at_ms, total)
        if item.kind == "handoff":
            kind, title, label = "handoff", f"{moment(item.at_ms)} {item.agent} hands over to {item.to}", f"{item.to}"
        elif item.kind == "stream":
            kind, title, label = "stream", f"{moment(item.at_ms)} stream {item.epoch} begins", f"stream {item.epoch}"
        elif item.interrupted and item.speaker == "agent":
            x = _share(item.until_ms, total)
            kind, title, label = "barge-in", f"{moment(item.until_ms)} the caller takes the floor", ""
        else:
            continue
        if label and abs(x - labelled) < 14:
            label = ""  # it would stand upon the one before; the sign's title still says it
        labelled = x if label else labelled
        yield Sign(x=x, kind=kind, title=title, label=label, anchor=item.anchor, at_end=x > 84)


def _ticks(total: int) -> Iterable[Sign]:
    seconds = total / 1_000
    step = next((step for step in STEPS_S if seconds / step <= MOST_TICKS), STEPS_S[-1] * (1 + int(seconds // (STEPS_S[-1] * 8))))
    for at in range(0, int(seconds) + 1, step):
        yield Sign(x=_share(at * 1_000, total), kind="tick", title="", label=moment(at * 1_000), at_end=at * 1_000 > total * 0.93)


def _lost_ms(item: Item) -> int:
    """How much of a sentence was made and never heard."""
    if item.generated_ms is None or item.heard_ms is None or not item.unheard:
        return 0
    return max(0, item.generated_ms - item.heard_ms)


def _in_words(row: Row, caller: Sequence[Item], agent: Sequence[Item], tools: Sequence[Item], total: int) -> str:
    def spoke(items: Sequence[Item]) -> str:
        seconds = sum(item.until_ms - item.at_ms for item in items) / 1_000
        return f"spoke {seconds:.0f} s in {len(items)} stretch{'' if len(items) == 1 else 'es'}"

    parts = [f"{moment(total)} in all", f"the caller {spoke(caller)}", f"the agent {spoke(agent)}"]
    cuts = sum(item.interrupted for item in agent)
    parts.append(f"{cuts} barge-in{'' if cuts == 1 else 's'}")
    if tools:
        parts.append(f"{len(tools)} tool call{'' if len(tools) == 1 else 's'}")
    return ", ".join(parts) + ". The transcript below says the same in words."


def _told(item: Item) -> str:
    words = _cut(item.heard) if item.heard else "not transcribed" if item.untranscribed else "nothing was heard"
    return f"{moment(item.at_ms)} {item.agent or item.speaker}: {words}"


def _cut(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= SHORT_TEXT else f"{text[: SHORT_TEXT - 1].rstrip()}…"


def _share(ms: int, total: int) -> float:
    return round(max(0, min(ms, total)) * 100 / total, 3)


def _latencies(row: Row, said: Mapping[str, Item]) -> Latencies:
    measured = [turn for turn in row["turn_list"] if turn["latency_ms"] is not None]
    scale = max([OBJECTIVE_MS * 3 // 2, *(turn["latency_ms"] for turn in measured)])
    answers = []
    for turn in measured:
        begun = turn["speech_ended_at_ms"]
        stages: list[Bar] = []
        words: list[str] = []
        for kind, in_words, since, until in STAGES:
            if turn[since] is None or turn[until] is None or begun is None or turn[until] <= turn[since]:
                continue
            took = turn[until] - turn[since]
            x = _share(turn[since] - begun, scale)
            width = round(min(100 - x, _share(took, scale)), 3)
            stages.append(Bar(x=x, width=width, kind=kind, title=f"{in_words}: {took} ms"))
            words.append(f"{in_words} after {took} ms more" if words else f"{in_words} after {took} ms")
        item = said.get(f"{turn['epoch']}.{turn['utterance']}")
        answers.append(
            Answer(
                number=turn["number"],
                epoch=turn["epoch"],
                anchor=item.anchor if item else None,
                at_ms=item.at_ms if item else begun,
                latency_ms=turn["latency_ms"],
                stages=tuple(stages),
                in_words=", ".join(words),
                tools=turn["tools"],
                late=turn["latency_ms"] > OBJECTIVE_MS,
            )
        )
    return Latencies(
        answers=tuple(answers),
        scale_ms=scale,
        objective=_share(OBJECTIVE_MS, scale),
        late=sum(answer.late for answer in answers),
    )
