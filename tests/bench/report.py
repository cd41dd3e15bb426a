"""From runs to figures: what several runs of one cell say together, as ratios to the yardstick, and as a table to read."""

from statistics import median
from typing import Any

GOAL_CPU = {"passthrough": 0.6, "transcode": 0.85}
GOAL_TRUNCATION_MS = 5.0
GOAL_MB_A_CALL = 0.3
GOAL_CALLS = {"passthrough": 400, "transcode": 250}

HEADINGS = (
    "path", "calls", "bridge", "CPU s/call-min", "to yardstick", "MB/call", "in p50/p99 ms", "out p50/p99 ms",
    "barge-in p50/p99 ms", "truncation |p50|/|p99| ms", "first audio ms", "lost", "invented", "altered", "leaked",
)  # fmt: skip


def cell(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Several runs of one target at one load, taken together: costs summed, latencies the median of the runs, harm summed."""
    minutes = sum(run["calls"] * run["seconds"] / 60 for run in runs)

    def middle(*keys: str) -> float | None:
        values = []
        for run in runs:
            value: Any = run
            for key in keys:
                value = value[key]
            if value is not None:
                values.append(value)
        return median(values) if values else None

    samples = {name: sum(run["samples"][name] for run in runs) for name in runs[0]["samples"]}
    complaints: dict[str, int] = {}
    for run in runs:
        for name, count in run["complaints"].items():
            complaints[name] = complaints.get(name, 0) + count
    return {
        "runs": len(runs),
        "cpu_seconds_per_call_minute": sum(run["cpu_seconds"] for run in runs) / minutes,
        "megabytes_per_call": middle("megabytes_per_call"),
        "latency_ms": {
            name: {"p50": middle("latency_ms", name, "p50"), "p99": middle("latency_ms", name, "p99")}
            for name in ("inbound", "outbound", "barge_in", "first_audio")
        },
        "truncation_error_ms": {name: middle("truncation_error_ms", name) for name in ("p50", "abs_p50", "abs_p99")},
        "agent_audible": middle("agent_audible"),
        "turns": sum(run["turns"] for run in runs),
        "barge_ins": sum(run["barge_ins"] for run in runs),
        "unanswered_barge_ins": sum(run["barge_ins"] - run["latency_ms"]["barge_in"]["n"] for run in runs),
        "stalled_calls": sum(run["stalled_calls"] for run in runs),
        "samples": samples,
        "complaints": complaints,
        "others_on_the_core": middle("others_on_the_core"),
        "load_cpu": middle("load", "cpu"),
        "load_tick_late_ms_p99": middle("load", "tick_late_ms", "p99"),
    }


def ratios(ours: dict[str, Any], yardstick: dict[str, Any]) -> dict[str, float | None]:
    """Ours over the yardstick's; None where the yardstick has no figure."""

    def over(mine: float | None, theirs: float | None) -> float | None:
        return mine / theirs if mine is not None and theirs else None

    mine, theirs = ours["latency_ms"], yardstick["latency_ms"]
    return {
        "cpu": over(ours["cpu_seconds_per_call_minute"], yardstick["cpu_seconds_per_call_minute"]),
        "megabytes_per_call": over(ours["megabytes_per_call"], yardstick["megabytes_per_call"]),
        **{
            f"{name}_{at}": over(mine[name][at], theirs[name][at])
            for name in ("inbound", "outbound", "barge_in")
            for at in ("p50", "p99")
        },
    }


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _pair(spread: dict[str, float | None], first: str = "p50", second: str = "p99") -> str:
    return f"{_number(spread[first])} / {_number(spread[second], 1)}"


def row(path: str, calls: int, target: str, found: dict[str, Any], ratio: float | None) -> list[str]:
    latency, samples = found["latency_ms"], found["samples"]
    return [
        path, str(calls), target, _number(found["cpu_seconds_per_call_minute"], 3), _number(ratio),
        _number(found["megabytes_per_call"]), _pair(latency["inbound"]), _pair(latency["outbound"]), _pair(latency["barge_in"]),
        _pair(found["truncation_error_ms"], "abs_p50", "abs_p99"), _number(latency["first_audio"]["p50"], 1),
        str(samples["lost_in"] + samples["lost_out"]), str(samples["invented_in"] + samples["invented_out"] + samples["unknown"]),
        str(samples["altered_in"] + samples["altered_out"] + samples["unknown_in"]), str(samples["leaked"]),
    ]  # fmt: skip


def table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    """Columns as wide as they must be, as Markdown has them."""
    widths = [max(len(line[place]) for line in (headings, *rows)) for place in range(len(headings))]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def judgement(path: str, calls: int, ours: dict[str, Any], yardstick: dict[str, Any] | None) -> list[str]:
    """What was aimed at and what was found, a sentence each."""
    said = []

    def say(what: str, found: float | None, goal: float, digits: int = 2) -> None:
        if found is not None:
            verdict = "reached" if found <= goal else "NOT reached"
            said.append(f"{path}, {calls} calls: {what} {found:.{digits}f}, aim at most {goal:g}: {verdict}")

    if yardstick is not None:
        say("CPU to the yardstick's", ratios(ours, yardstick)["cpu"], GOAL_CPU[path])
    say("truncation error (median) ms", ours["truncation_error_ms"]["abs_p50"], GOAL_TRUNCATION_MS, 1)
    say("MB a call", ours["megabytes_per_call"], GOAL_MB_A_CALL)
    say("samples lost, invented, altered or leaked", sum(ours["samples"].values()), 0, 0)
    say("barge-ins without a clear", ours["unanswered_barge_ins"], 0, 0)
    return said
