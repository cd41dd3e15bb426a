"""What narrows a list of calls, in words: the chips of what is set, each with the address without it, and what the form offers.

Rule: whatever stands in an address is shown, also what the form would never have offered: nobody is to wonder why a call is
missing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from app.call.agent import ToolKind
from app.call.disposition import EndReason, Outcome
from app.store.tables import AnalysisState, RowState, Sentiment, ToolStatus
from app.web.console.question import DAY, NOT_KNOWN, PERIODS, Question
from app.web.desk import Desk
from app.wrapup.facts import Urgency

UNKNOWN_WORDS = "not known"
TITLES = {
    "agent": "Agent",
    "outcome": "Outcome",
    "disposition": "Disposition",
    "intent": "Intent",
    "sentiment": "Sentiment",
    "urgency": "Urgency",
    "end_reason": "End reason",
    "analysis": "Reading",
    "state": "State",
    "tool": "Tool",
    "tool_status": "Tool’s result",
}
MAY_BE_UNKNOWN = ("outcome", "disposition", "intent", "sentiment", "urgency", "end_reason")
SHOWN_FIRST = ("agent", "outcome", "disposition", "intent", "sentiment", "urgency")
SHOWN_LATER = ("end_reason", "tool_status", "analysis")
FLAG_WORDS = {
    "review": ("To review", "Nothing to review"),
    "escalated": ("Escalated", "Not escalated"),
    "barged": ("Interrupted", "Never interrupted"),
}
RANGE_WORDS = {"score": ("Lead score", ""), "duration": ("Duration", " s"), "latency": ("Latency", " ms")}


@dataclass(frozen=True, slots=True)
class Chip:
    """One thing that is set. `address`: the list without it."""

    title: str
    words: str
    address: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One group of boxes to tick: (value, words, whether it is ticked) each."""

    name: str
    title: str
    options: tuple[tuple[str, str, bool], ...]

    @property
    def set(self) -> int:
        """How many are ticked."""
        return sum(ticked for _, _, ticked in self.options)


def chips(question: Question, zone: ZoneInfo, *, number: str | None = None) -> list[Chip]:
    """All that is set. `number`: the number behind the index, if some row of the list has it."""
    found = []
    if question.words:
        found.append(Chip("Words", question.words, question.without("words").address))
    if question.number:
        found.append(Chip("Number", number or "as looked up", question.without("number").address))
    if question.period:
        found.append(Chip("Period", PERIODS[question.period], question.without("period").address))
    if question.since or question.until:
        found.append(Chip("Period", _days(question, zone), question.without("days").address))
    for name, words in question.chosen.items():
        found += [Chip(TITLES[name], said(word), question.without(name, word).address) for word in words]
    for name, (title, unit) in RANGE_WORDS.items():
        lowest, highest = question.bounds.get(f"{name}_from"), question.bounds.get(f"{name}_to")
        if lowest is not None or highest is not None:
            found.append(Chip(title, _span(lowest, highest, unit), question.without(name).address))
    for name, flag in question.flags.items():
        found.append(Chip("", FLAG_WORDS[name][not flag], question.without(name).address))
    return found


def choices(question: Question, desk: Desk, names: Sequence[str]) -> list[Choice]:
    """The groups of the form by these names; what is ticked and not among what there is, is there all the same."""
    offered: dict[str, Iterable[str]] = {
        "agent": sorted(desk.agents),
        "outcome": Outcome,
        "end_reason": EndReason,
        "disposition": desk.settings.dispositions,
        "intent": desk.settings.intents,
        "sentiment": reversed(Sentiment),
        "urgency": reversed(Urgency),
        "analysis": AnalysisState,
        "state": RowState,
        "tool_status": ToolStatus,
    }
    found = []
    for name in names:
        ticked = question.chosen.get(name, ())
        words = dict.fromkeys([*map(str, offered[name]), *((NOT_KNOWN,) if name in MAY_BE_UNKNOWN else ()), *ticked])
        found.append(Choice(name, TITLES[name], tuple((word, said(word), word in ticked) for word in words)))
    return found


def tools(question: Question, desk: Desk) -> list[tuple[str, str]]:
    """The errands that agents may run, for the form."""
    names = {tool.name for agent in desk.agents.values() for tool in agent.tools if tool.kind is ToolKind.ERRAND}
    return [("", "any"), *((name, said(name)) for name in sorted(names | set(question.chosen.get("tool", ()))))]


def said(word: str) -> str:
    """A word of a list, as people write it."""
    return UNKNOWN_WORDS if word == NOT_KNOWN else word.replace("_", " ")


def _span(lowest: int | None, highest: int | None, unit: str) -> str:
    if lowest is None:
        return f"up to {highest}{unit}"
    if highest is None:
        return f"{lowest}{unit} or more"
    return f"{lowest}{unit}" if lowest == highest else f"{lowest} to {highest}{unit}"


def _days(question: Question, zone: ZoneInfo) -> str:
    since, until = _day(question.since, zone), _day(question.until, zone)
    if since and until:
        return since if since == until else f"{since} to {until}"
    return f"from {since}" if since else f"until {until}"


def _day(value: str, zone: ZoneInfo) -> str:
    if not value:
        return ""
    moment = datetime.fromisoformat(value)
    if DAY.fullmatch(value):
        return f"{moment:%-d %b %Y}"
    return f"{moment.astimezone(zone) if moment.tzinfo else moment:%-d %b %Y, %H:%M}"
