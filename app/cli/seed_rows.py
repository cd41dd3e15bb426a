"""Rows of seeded calls: when they came, how long they took, what the rules read in them; as the tables hold them.

Rule 1: a talk is timed, read (by the very rules of `ANALYZER=rules`) and projected once; a call is a talk at a moment, by a number.
Rule 2: what stands in a row follows from what lies beside it, as if it had been written by a call: `projection.columns` makes it.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from app.call.agent import ToolKind
from app.call.disposition import EndReason, Memory, Outcome, Slot, Turn, Usage, Utterance, outcome_of
from app.cli.seed_talks import Talk, Writer
from app.settings import Settings
from app.store import facts, finishing, projection, search
from app.store.after_facts import ForReading, NewReading
from app.store.after_tables import AFTER_CALL, Source
from app.store.identity import ALPHABET
from app.store.tables import AnalysisState, RowState, ToolStatus
from app.wrapup.facts import Lists
from app.wrapup.reading import read_call
from app.wrapup.rules import RulesAnalyzer

SEEDED = "ACseed"
"""The account of every seeded call: so they are told from real ones."""
OURS = "+15555550199"
MS_A_WORD = {"caller": 340, "agent": 300}
SILENT = (
    (EndReason.CALLER_HUNG_UP, 48), (EndReason.SILENCE, 24), (EndReason.FULL_HOUSE, 10), (EndReason.MODEL_UNAVAILABLE, 5),
    (EndReason.CARRIER_ENDED, 6), (EndReason.NEVER_CONNECTED, 4), (EndReason.WORKER_LOST, 3),
)  # fmt: skip
SHARE_SILENT = 0.19
BY_WEEKDAY = (1.25, 1.1, 1.0, 1.05, 1.1, 0.4, 0.15)
BY_HOUR = (
    *(0.05, 0.03, 0.02, 0.02, 0.04, 0.1, 0.35, 1.6, 4.2, 6.0, 6.6, 6.1, 4.4, 5.0, 6.2, 6.0, 5.2, 3.6, 1.8, 1.0, 0.6, 0.35, 0.2),
    0.1,
)
MACHINE = {"source": Source.MACHINE, "retracts": False, "said_by": None, "note": None}


@dataclass(slots=True)
class Timed:
    """A talk with its times, and everything that follows from it. Times are milliseconds since the call's birth."""

    talk: Talk
    utterances: list[Utterance]
    turns: list[Turn]
    tools: list[tuple[int, int, Any]]
    """When each began, how long it took, and itself."""
    lasts_ms: int
    memory: Memory = field(repr=False)
    outcome: Outcome
    reading: NewReading | None = None
    words: frozenset[str] = frozenset()
    words_of_summary: frozenset[str] = frozenset()


def timed(talk: Talk, dice: Random) -> Timed:
    """Who spoke when, with latencies as they are: most below a second, a few far above."""
    said: list[Utterance] = []
    turns: list[Turn] = []
    tools: list[tuple[int, int, Any]] = []
    at, asked = 1_200, None
    for number, line in enumerate(talk.lines):
        for tool in (tool for tool in talk.tools if tool.before == number):
            took = int(dice.lognormvariate(5.4, 0.5)) if tool.status == "done" else 5_000
            tools.append((at + 200, took, tool))
            at += took + 150
        lasts = max(700, MS_A_WORD[line.speaker] * len((line.text or "x").split()))
        key = f"{'u' if line.speaker == 'caller' else 'a'}{number}"
        if line.speaker == "caller":
            at += dice.randrange(150, 1_400)
            said.append(Utterance(key=key, speaker="caller", started_at=at, ended_at=at + lasts, heard=line.text))
            asked, at = key, at + lasts
            continue
        latency = min(6_000, int(dice.lognormvariate(6.62, 0.28)) + (1_500 if dice.random() < 0.02 else 0))
        began = at + latency if asked else at
        words = (line.text or "").split()
        heard = len(words) if line.cut is None else max(1, int(len(words) * line.cut))
        heard_ms = lasts * heard // len(words)
        said.append(
            Utterance(
                key=key,
                speaker="agent",
                agent=line.agent,
                started_at=began,
                ended_at=began + heard_ms,
                heard=" ".join(words[:heard]),
                unheard=" ".join(words[heard:]) or None,
                heard_ms=heard_ms,
                generated_ms=lasts,
                interrupted=line.cut is not None,
            )
        )
        turns.append(
            Turn(
                number=len(turns) + 1,
                agent=line.agent or talk.agents[0],
                utterance=asked,
                speech_ended_at=at if asked else None,
                committed_at=at + 500 if asked else None,
                requested_at=at + 510 if asked else at,
                first_audio_at=began - 60,
                audible_at=began,
                latency_ms=latency if asked else None,
                tools=sum(tool.before == number for tool in talk.tools),
                interrupted=line.cut is not None,
            )
        )
        asked, at = None, began + heard_ms
    lasts_ms = at + dice.randrange(400, 1_500) if talk.lines else dice.randrange(0, 9_000)
    return _whole(talk, said, turns, tools, lasts_ms)


def _whole(talk: Talk, said: list[Utterance], turns: list[Turn], tools: list[Any], lasts_ms: int) -> Timed:
    ends = {number: utterance for number, utterance in enumerate(said)}
    slots = tuple(
        Slot(name=name, value=value, utterance=ends[line].key, agent=talk.agents[-1], confirmed=sure, at=ends[line].ended_at + 900)
        for name, value, line, sure in talk.slots
    )
    spoken_s = sum(utterance.ended_at - utterance.started_at for utterance in said) / 1_000
    caller_s = sum(u.ended_at - u.started_at for u in said if u.speaker == "caller") / 1_000
    usage = Usage(
        text_in=900 * len(turns), text_cached=700 * len(turns), audio_in=int(caller_s * 10 * (1 + len(turns))),
        audio_cached=int(caller_s * 9 * len(turns)), text_out=40 * len(turns), audio_out=int((spoken_s - caller_s) * 20),
        transcription_seconds=round(caller_s, 1), responses=len(turns),
    )  # fmt: skip
    caller_turns = sum(turn.utterance is not None for turn in turns)
    memory = Memory(
        agent=talk.agents[-1],
        agent_path=tuple(talk.agents),
        slots=slots,
        barge_ins=sum(turn.interrupted for turn in turns),
        turns=len(turns),
        caller_turns=caller_turns,
        usage=usage,
        disposition=talk.disposition,
        intent=talk.intent,
        summary=talk.summary,
        next_action=talk.next_action,
        escalated=talk.escalated,
        transfer_to=talk.transfer_to,
        caller_spoke=caller_turns > 0,
    )
    outcome = outcome_of(talk.ended, caller_spoke=memory.caller_spoke)
    if talk.ended is EndReason.MODEL_UNAVAILABLE:
        outcome = Outcome.TURNED_AWAY
    made = Timed(talk, said, turns, tools, lasts_ms, memory, outcome)
    made.words = frozenset(word for utterance in said for word in search.words(utterance.heard or ""))
    return made


class Sheaf:
    """The talks of one seed, read, and calls made of them.

    Args:
        settings: lists, prices and time zone of the business.
        talks: how many different ones; there are two dozen silent ones besides.
    """

    def __init__(self, dice: Random, settings: Settings, talks: int) -> None:
        self._dice, self._settings = dice, settings
        writer = Writer(dice)
        self.talks = [timed(writer.talk(), dice) for _ in range(talks)]
        reasons, shares = [reason for reason, _ in SILENT], [share for _, share in SILENT]
        self.silent = [timed(writer.silent(*dice.choices(reasons, shares)), dice) for _ in range(24)]
        self._writer = writer
        asyncio.run(self._read(Lists.of(settings)))

    async def _read(self, lists: Lists) -> None:
        analyzer = RulesAnalyzer(lists)
        for each in (*self.talks, *self.silent):
            keys = {utterance.key: facts.ref(1, utterance.key) for utterance in each.utterances}
            known = ForReading(
                call_id="",
                final=True,
                analysis=AnalysisState.WAITING,
                attempts=0,
                utterances=tuple(replace(utterance, key=keys[utterance.key]) for utterance in each.utterances),
                slots=tuple(replace(slot, utterance=keys[slot.utterance or ""]) for slot in each.memory.slots),
                filed=projection.filed(each.memory),
                tools=tuple((tool.name, "", tool.effect, tool.status) for _, _, tool in each.tools),
                results=tuple(tool.result for _, _, tool in each.tools),
                outcome=each.outcome,
                end_reason=each.talk.ended,
            )
            each.reading = await read_call(known, analyzer, lists)
            summary = next((judged.value for judged in each.reading.judgements if judged.field == "summary"), None)
            each.words_of_summary = frozenset(search.words(summary or ""))

    def any(self) -> Timed:
        """One of them, as they come."""
        return self._dice.choice(self.silent if self._dice.random() < SHARE_SILENT else self.talks)

    def name(self, at: datetime) -> str:
        """A call's name, from these dice."""
        number = (int(at.timestamp() * 1_000) << 80) | self._dice.getrandbits(80)
        return "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))

    def from_number(self, each: Timed) -> str | None:
        """Who calls: people call again, others once; a few tell no number."""
        roll = self._dice.random()
        return None if roll < 0.03 else each.talk.number if roll < 0.45 else self._writer.number()

    # ---- rows

    def call(self, each: Timed, at: datetime, blind_index: Any, *, live_ms: int | None = None) -> dict[str, Any]:
        """The row in `calls`; with `live_ms` of a call that has gone on for so long."""
        new = facts.NewCall(
            carrier_call_sid=None,
            account_sid=SEEDED,
            from_number=self.from_number(each),
            to_number=OURS,
            agent=each.talk.agents[0],
            attestation=self._dice.choice(("A", "A", "A", "B", None)),
            audio_path="transcode",
            model=self._settings.realtime_model,
            prompt_version="seeded",
        )
        row = facts.newborn_columns(self.name(at), new, at, blind_index)
        row |= {"carrier_call_sid": f"CAseed{row['call_id']}", "transfer_to": None, "claimed_epoch": int(bool(each.utterances))}
        row |= {"answered_at": at + timedelta(milliseconds=700), "worker": "seed", "carrier_status": "in-progress"}
        row |= dict.fromkeys(ENDING)
        row |= {"analysis": AnalysisState.WAITING, "analysis_attempts": 0, "needs_review": False, "revision": 0}
        if live_ms is not None:
            memory = replace(each.memory, summary=None, disposition=None, next_action=None, escalated=False)
            memory = replace(memory, slots=tuple(slot for slot in memory.slots if slot.at < live_ms))
            return row | facts.memory_columns(memory) | {"sentiment_course": None, "escalation_reason": None}
        return row | self._ended(each, at, row["call_id"])

    def _ended(self, each: Timed, at: datetime, call_id: str) -> dict[str, Any]:
        usage, settings, lasts = each.memory.usage, self._settings, each.lasts_ms
        ended = at + timedelta(milliseconds=lasts)
        latencies = [turn.latency_ms for turn in each.turns if turn.latency_ms is not None]
        price = finishing.price_of(settings.realtime_model, settings.prices)
        cost = finishing.cost(usage, price, settings.per_transcription_minute) if each.turns else None
        analyzed = ended + timedelta(milliseconds=2_400 + self._dice.randrange(4_000))
        return {
            **facts.memory_columns(each.memory),
            **projection.columns(self.known(each, analyzed)),
            "state": RowState.FINAL,
            "carrier_status": "completed",
            "carrier_duration_s": -(-lasts // 1_000),
            "outcome": each.outcome,
            "end_reason": each.talk.ended,
            "transfer_to": each.talk.transfer_to,
            "ended_at": ended,
            "finished_at": ended + timedelta(milliseconds=120),
            "duration_ms": lasts,
            "latency_p50_ms": finishing.nearest_rank(latencies, 50),
            "latency_p95_ms": finishing.nearest_rank(latencies, 95),
            "usage": {"openai": msgspec.to_builtins(usage)} if each.turns else None,
            "tokens_in": finishing.tokens_in(usage) if each.turns else None,
            "tokens_out": finishing.tokens_out(usage) if each.turns else None,
            "cost_usd": None if cost is None else float(cost),
            "prices_date": settings.prices_date,
            "analysis": AnalysisState.DONE,
            "analysis_attempts": 1,
            "analyzed_at": analyzed,
            "revision": 2,
            "updated_at": analyzed,
        }

    def known(self, each: Timed, at: datetime) -> projection.Known:
        """What the projection is made of."""
        assert each.reading is not None
        head = {"analyzer": each.reading.analyzer}
        read = {judged["field"]: judged for judged in self.judged(each, at)}
        reasons: Mapping[str, str] = each.reading.review_reasons or {}
        return projection.Known(
            memory=each.memory, reading=head, review_reasons=reasons, read=read, said={}, applied_at=at, reviewed_at=None
        )

    def judged(self, each: Timed, at: datetime) -> list[dict[str, Any]]:
        """The judgements of the reading, without their call."""
        assert each.reading is not None
        fields = ("field", "value", "confidence", "analyzer", "model", "prompt_version", "reasons", "dropped")
        return [
            {**{name: getattr(one, name) for name in fields}, "evidence": list(one.evidence), "at": at, **MACHINE}
            for one in each.reading.judgements
        ]

    def noted(self, each: Timed, at: datetime) -> list[dict[str, Any]]:
        """The agent's own notes as judgements, without their call."""
        filed = {name: value for name, value in projection.filed(each.memory).items() if name not in ("escalated", "urgency")}
        if each.memory.escalated:
            filed["escalation"] = True
        nothing = dict.fromkeys(
            ("reading_id", "confidence", "analyzer", "model", "prompt_version", "reasons", "dropped", "said_by", "note")
        )
        found: list[tuple[str, Any, list[str]]] = [(name, value, []) for name, value in filed.items() if value is not None]
        found += [(slot.name, slot.value, [facts.ref(1, slot.utterance or "")]) for slot in each.memory.slots]
        return [
            {**nothing, "field": name, "value": value, "evidence": evidence, "source": Source.AGENT, "retracts": False, "at": at}
            for name, value, evidence in found
        ]

    def reading(self, each: Timed, call_id: str, at: datetime) -> dict[str, Any]:
        """The row of the reading."""
        assert each.reading is not None
        names = ("analyzer", "model", "prompt_version", "rubric", "tokens_in", "tokens_out", "review_reasons")
        row = {name: getattr(each.reading, name) for name in names}
        return row | {"id": self.name(at), "call_id": call_id, "batch": AFTER_CALL, "created_at": at, "applied_at": at}

    @staticmethod
    def invocations(each: Timed, call_id: str, at: datetime) -> Iterator[dict[str, Any]]:
        """The rows of the errands."""
        for number, (began, took, tool) in enumerate(each.tools, 1):
            started = at + timedelta(milliseconds=began)
            yield {
                "call_id": call_id,
                "epoch": 1,
                "tool_call": f"call_{number}",
                "name": tool.name,
                "agent": each.talk.agents[0] if tool.before < 2 else each.talk.agents[-1],
                "kind": ToolKind.ERRAND,
                "effect": tool.effect,
                "arguments": msgspec.json.encode(tool.arguments).decode(),
                "result": None if tool.result is None else msgspec.json.encode(tool.result).decode(),
                "status": ToolStatus(tool.status),
                "reason": None if tool.status == "done" else "TimeoutError",
                "started_at": started,
                "finished_at": started + timedelta(milliseconds=took),
                "duration_ms": took,
                "attempts": 1 if tool.status == "done" else 2,
            }


ENDING = (
    *(
        "ended_at",
        "finished_at",
        "analyzed_at",
        "duration_ms",
        "outcome",
        "end_reason",
        "sentiment",
        "sentiment_course",
        "lead_score",
    ),
    *("escalation_reason", "review_reasons", "latency_p50_ms", "latency_p95_ms", "usage", "tokens_in", "tokens_out", "cost_usd"),
    *("prices_date", "carrier_duration_s", "analyzer", "analysis_fault", "slots", "memory", "urgency"),
    *("disposition", "intent", "summary", "next_action", "reviewed_at", "reviewed_by"),
)


def moments(dice: Random, calls: int, days: int, until: datetime, zone: ZoneInfo) -> list[datetime]:
    """When they came, in order: by the weekday and the hour, and each day a little more or less than others."""
    first, hours, weights = until.astimezone(zone).date() - timedelta(days=days - 1), [], []
    for number in range(days):
        day: date = first + timedelta(days=number)
        busy = BY_WEEKDAY[day.weekday()] * dice.uniform(0.8, 1.2)
        for hour in range(24):
            start = datetime.combine(day, time(hour), zone).astimezone(UTC)
            if start < until:
                hours.append(start)
                weights.append(busy * BY_HOUR[hour])
    found = []
    for start in dice.choices(hours, weights, k=calls):
        within = min(3_600_000, int((until - start).total_seconds() * 1_000))
        found.append(start + timedelta(milliseconds=dice.randrange(max(1, within))))
    return sorted(found)
