"""N simultaneous calls through real sockets, against the service and against a tutorial's bridge, in one run.

Both are driven by the same peers, one after the other and again (ABAB), so that a machine that drifts drifts for both. The bridge
under test has the first core of those we may use, the peers have the second. Rounds share `--seconds` between them.
"""

import argparse
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import micro, report
from tests.bench.targets import ROOT, TARGETS, Callrow, Target, TargetFailed, core_busy_seconds, machine, spent, start

PATHS = ("passthrough", "transcode")
P99_LIMIT_MS = 20.0
PROBE_SECONDS = 10.0
MOST_PROBES = 9
OTHERS_LIMIT = 0.1
"""More of the bridge's core than this in other hands, and a late frame says nothing about the bridge: try again."""
TRIES = 3
LOAD_LIMIT = 0.85
"""More of a core than this, and the peers' own queueing is in the latencies."""


class RunFailed(Exception):
    """A run gave no figures."""


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def cores() -> tuple[int | None, int | None]:
    """One for the bridge, one for the peers."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def messages(peers: subprocess.Popen[bytes], until: float) -> Iterator[dict[str, Any]]:
    """What the peers tell, line by line; a peer that says nothing for too long is given up."""
    assert peers.stdout is not None
    os.set_blocking(peers.stdout.fileno(), False)
    got = b""
    with selectors.DefaultSelector() as selector:
        selector.register(peers.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, until - time.monotonic())):
                raise RunFailed("the peers took too long")
            data = peers.stdout.read()
            if not data:
                return
            *lines, got = (got + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


def ramp_every(calls: int) -> float:
    """Seconds between two calls' beginnings: all within about ten seconds."""
    return min(0.04, 8 / calls)


def measure(kind: type[Target], path: str, calls: int, seconds: float, folder: Path, label: str) -> dict[str, Any]:
    """One run: a fresh bridge, N calls, one window.

    Raises:
        RunFailed: a bridge or a call did not get going.
    """
    bridge_core, peers_core = cores()
    try:
        with kind(path, folder, bridge_core) as target:
            idle = spent(target.pid)
            plan = {
                "service": target.url, "model_port": target.model_port, "account": target.account, "token": target.token,
                "calls": calls, "seconds": seconds, "every": ramp_every(calls), "core": peers_core,
            }  # fmt: skip
            command = [sys.executable, "-m", "tests.bench.peers", json.dumps(plan)]
            peers = start(command, peers_core, cwd=ROOT, stdout=subprocess.PIPE)
            try:
                result = _follow(peers, target, idle, calls, seconds, label)
            finally:
                if peers.poll() is None:
                    peers.kill()
                peers.wait()
                assert peers.stdout is not None
                peers.stdout.close()
            end = spent(target.pid)
            result["cpu_seconds_whole_run"] = end.cpu_seconds - idle.cpu_seconds
        result["rows"] = target.checked()
    except TargetFailed as fault:
        raise RunFailed(str(fault)) from None
    if result["complaints"] and kind is Callrow:
        say(f"{label}: complaints: {result['complaints']}")
    if result["others_on_the_core"] > OTHERS_LIMIT:
        say(f"{label}: others had {result['others_on_the_core']:.0%} of the bridge's core: its latencies are partly theirs")
    return result


def _follow(peers: subprocess.Popen[bytes], target: Target, idle: Any, calls: int, seconds: float, label: str) -> dict[str, Any]:
    until = time.monotonic() + 90 + calls * 0.1 + seconds
    before = after = idle
    core, _ = cores()
    busy = 0.0
    for message in messages(peers, until):
        match message["event"]:
            case "progress":
                say(f"{label}: {message['text']}")
            case "steady":
                before, busy = spent(target.pid), -core_busy_seconds(core)
                say(f"{label}: measuring for {seconds:g} s")
            case "measured":
                after, busy = spent(target.pid), busy + core_busy_seconds(core)
            case "failed":
                raise RunFailed(f"{message['reason']}\n{target.tail()}")
            case "done":
                result: dict[str, Any] = message["result"]
                result["cpu_seconds"] = after.cpu_seconds - before.cpu_seconds
                result["others_on_the_core"] = max(0.0, busy - result["cpu_seconds"]) / result["seconds"]
                result["idle_megabytes"] = idle.resident_bytes / 1e6
                result["megabytes_per_call"] = (after.resident_bytes - idle.resident_bytes) / 1e6 / calls
                result["processes"] = after.processes
                return result
    raise RunFailed(f"the peers ended without a result (exit code {peers.wait()})\n{target.tail()}")


def probe(kind: type[Target], path: str, calls: int, folder: Path) -> dict[str, Any]:
    """Whether so many calls are carried in time. A failure while others had the core is tried again, within reason."""
    label = f"{path}, {kind.name}, is {calls} too many?"
    found: dict[str, Any] = {}
    for _ in range(TRIES):
        try:
            result = measure(kind, path, calls, PROBE_SECONDS, folder, label)
        except RunFailed as fault:
            reason = str(fault).splitlines()[0]
            say(f"{label} yes: {reason}")
            return {"calls": calls, "holds": False, "reason": reason, "load_cpu": 0.0}
        worst = max(result["latency_ms"][way]["p99"] or float("inf") for way in ("inbound", "outbound"))
        found = {
            "calls": calls,
            "holds": worst < P99_LIMIT_MS and not result["stalled_calls"] and not result["load"]["unsent_bytes"],
            "p99_ms": worst,
            "cpu": result["cpu_seconds"] / result["seconds"],
            "others_on_the_core": result["others_on_the_core"],
            "load_cpu": result["load"]["cpu"],
            "load_tick_late_ms_p99": result["load"]["tick_late_ms"]["p99"],
        }
        say(f"{label} {'no' if found['holds'] else 'yes'}: p99 {worst:.1f} ms, the bridge had {found['cpu']:.0%} of its core")
        if found["holds"] or found["others_on_the_core"] <= OTHERS_LIMIT:
            break
    return found


def most_calls(kind: type[Target], path: str, guess: int, folder: Path) -> dict[str, Any]:
    """The largest N whose p99 of one frame's added latency, both ways, is below the limit: search up or down, then halve."""
    holds, fails, load_bound = 0, 0, False
    probes: list[dict[str, Any]] = []
    calls = max(10, guess)
    while len(probes) < MOST_PROBES and calls >= 10:
        found = probe(kind, path, calls, folder)
        probes.append(found)
        if found["holds"]:
            holds = max(holds, calls)
        else:
            fails = min(fails or calls, calls)
            load_bound = found["load_cpu"] > LOAD_LIMIT
        if holds and fails:
            if fails - holds <= max(10, holds // 20):
                break
            calls = (holds + fails) // 2
        else:
            calls = calls * 5 // 4 if holds else calls * 3 // 4
    return {"most_calls": holds, "fails_at": fails or None, "bound_by_the_peers": load_bound or not fails, "probes": probes}


def parse(argv: list[str] | None) -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        values = [int(part) for part in text.split(",")]
        if not values or min(values) < 1:
            raise argparse.ArgumentTypeError("numbers above 0, separated by commas")
        return values

    def paths(text: str) -> list[str]:
        values = text.split(",")
        if unknown := set(values) - set(PATHS):
            raise argparse.ArgumentTypeError(f"no such audio path: {', '.join(sorted(unknown))}")
        return values

    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="scripts/bench --database asks a database with a million calls instead; see scripts/bench --database --help",
    )
    parser.add_argument("--calls", type=numbers, default=[10, 50, 100], help="simultaneous calls, default 10,50,100")
    parser.add_argument("--seconds", type=float, default=30.0, help="measured seconds of each target at each load, default 30")
    parser.add_argument("--rounds", type=int, default=2, help="how often the targets take turns, default 2")
    parser.add_argument("--paths", type=paths, default=list(PATHS), help="default passthrough,transcode")
    parser.add_argument("--only", choices=sorted(TARGETS), help="one target alone: no ratios")
    parser.add_argument("--find-max", action="store_true", help=f"search the largest N with p99 below {P99_LIMIT_MS:g} ms")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    args = parser.parse_args(argv)
    if args.seconds <= 0 or args.rounds < 1:
        parser.error("--seconds and --rounds must be above 0")
    return args


def all_runs(args: argparse.Namespace, kinds: list[type[Target]], folder: Path, runs: list[dict[str, Any]]) -> None:
    """Every path at every load, the targets by turns; what is found is appended to `runs`, run by run."""
    for path in args.paths:
        for calls in args.calls:
            for turn in range(args.rounds):
                for kind in kinds:
                    label = f"{path}, {calls} calls, {kind.name}, round {turn + 1} of {args.rounds}"
                    result = measure(kind, path, calls, args.seconds / args.rounds, folder, label)
                    runs.append({"path": path, "target": kind.name, "round": turn + 1, **result})


def cells(runs: list[dict[str, Any]]) -> dict[tuple[str, int, str], Any]:
    """Runs of the same target, path and load, taken together."""
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault((run["path"], run["calls"], run["target"]), []).append(run)
    return {key: report.cell(results) for key, results in found.items()}


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if not sys.platform.startswith("linux"):
        print("scripts/bench reads /proc, epoll and timerfd: it needs Linux", file=sys.stderr)
        return 2
    if cores() == (None, None):
        say("only one core may be used: the peers share it with what they measure; read the figures with care")
    kinds = [TARGETS[args.only]] if args.only else [TARGETS["yardstick"], TARGETS["callrow"]]
    count = len(args.paths) * len(args.calls) * args.rounds * len(kinds)
    minutes = count * (args.seconds / args.rounds + 20) / 60
    say(f"{count} runs, about {minutes:.0f} minutes" + (", and then the search for the most calls" if args.find_max else ""))

    document: dict[str, Any] = {"machine": machine(), "runs": []}
    failed = False
    with tempfile.TemporaryDirectory(prefix="callrow-bench-") as name:
        folder = Path(name)
        try:
            all_runs(args, kinds, folder, document["runs"])
        except RunFailed as fault:  # the bench has failed; what was measured before is shown
            say(f"FAILED: {fault}")
            failed = True
        found = cells(document["runs"])
        say("microseconds a frame of the audio path alone")
        document["microseconds_per_frame"] = micro.measure()
        maxima: dict[tuple[str, str], dict[str, Any]] = {}
        if args.find_max and not failed:
            for path in args.paths:
                for kind in kinds:
                    cost = found[path, max(args.calls), kind.name]["cpu_seconds_per_call_minute"]
                    maxima[path, kind.name] = most_calls(kind, path, int(0.8 * 60 / max(cost, 0.05)), folder)
    return finish(args, document, found, maxima, failed)


def finish(
    args: argparse.Namespace,
    document: dict[str, Any],
    found: dict[tuple[str, int, str], Any],
    maxima: dict[tuple[str, str], dict[str, Any]],
    failed: bool,
) -> int:
    """Print, write, judge."""
    rows, sentences = [], []
    document["cells"] = []
    for (path, calls, name), figures in found.items():
        yardstick = found.get((path, calls, "yardstick"))
        compared = report.ratios(figures, yardstick) if yardstick is not None and name == "callrow" else None
        rows.append(report.row(path, calls, name, figures, compared["cpu"] if compared else None))
        document["cells"].append({"path": path, "calls": calls, "target": name, **figures, "to_yardstick": compared})
        if name == "callrow":
            sentences += report.judgement(path, calls, figures, yardstick)
    if rows:
        print(report.table(report.HEADINGS, rows))
        print("\nlost, invented, altered, leaked: samples at 8 kHz, over the whole life of all calls")
        print("in, out, barge-in: added latency of a caller's frame, of a delta, and from speech_started to clear")
    micros = document["microseconds_per_frame"]
    print(
        f"\naudio path alone, us for 20 ms: up {micros['up']:.1f} (audioop.ratecv {micros['up_ratecv']:.1f}), "
        f"down {micros['down']:.1f} (audioop.ratecv {micros['down_ratecv']:.1f})"
    )
    document["most_calls"] = []
    for (path, name), search in maxima.items():
        document["most_calls"].append({"path": path, "target": name, **search})
        bound = " or more: the peers were at their limit" if search["bound_by_the_peers"] else ""
        print(f"{path}, {name}: most calls with p99 below {P99_LIMIT_MS:g} ms: {search['most_calls']}{bound}")
        if name == "callrow":
            most, goal = search["most_calls"], report.GOAL_CALLS[path]
            sentences.append(f"{path}: most calls {most}, aim at least {goal}: {'reached' if most >= goal else 'NOT reached'}")
    print("\n".join(("", *sentences)))
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
        say(f"written to {args.json}")
    harmed = [cell for cell in document["cells"] if cell["target"] == "callrow" and any(cell["samples"].values())]
    return 1 if failed or harmed else 0
