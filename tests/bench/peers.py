"""Both ends of N calls in one process of its own: the pretend carrier and the pretend model, told what to do by one JSON argument.

It prints one JSON line for each thing that the bench must know: `progress`, `steady` (all calls are up and warm: start to count
CPU), `measured` (stop), `done` with the result, or `failed` with the reason. Latencies belong to the window between `steady` and
`measured`; what was lost, invented, altered or leaked is counted over the whole life of every call.

Calls begin one after the other: the next webhook is sent when the call before it has both its sockets. So a session with the model
is known to be that of the call which is being set up, without looking into what the service says to the model.
"""

import gc
import json
import os
import random
import resource
import sys
import time
from dataclasses import asdict, dataclass

from tests.bench.carrier import CALLED, Phone, Stream, Webhook
from tests.bench.facts import Call, Facts
from tests.bench.loop import Listener, Loop, now
from tests.bench.model import Door
from tests.bench.sound import FRAME, FRAME_MS

SET_UP_WITHIN = 15.0
FIRST_AUDIO_WITHIN = 15.0
CLOSE_WITHIN = 10.0
STALLED_AFTER = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    service: str
    model_port: int
    account: str
    token: str
    calls: int
    seconds: float
    warm: float = 4.0
    every: float = 0.04
    """At least so long between two webhooks."""
    core: int | None = None
    seed: int = 1


class CannotMeasure(Exception):
    """The service did not do what a bridge does; the run says nothing about its cost."""


def tell(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def per_cent(values: list[float], *, of: float) -> float | None:
    """A quantile of sorted values, by the nearest rank."""
    return values[min(len(values) - 1, int(len(values) * of))] if values else None


class Peers:
    """The run."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.loop, self.facts = plan, Loop(), Facts()
        self.calls: list[Call] = []
        self.beginning: Call | None = None
        self._dice = random.Random(plan.seed)
        self._slots: list[list[Phone]] = [[] for _ in range(FRAME_MS)]
        self._begun_at = 0.0
        self._cpu = 0.0
        self._settled = 0
        self._result: dict[str, object] = {}
        Listener(self.loop, plan.model_port, lambda sock: self._accept(sock))
        self.loop.ticks.append(self._tick)

    def run(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()  # nothing here is cyclic for long, and a collection is a pause in somebody's latency
        self.loop.after(0, self._next_call)
        self.loop.run()

    # ---- frames

    def _tick(self, tick: int, _: float) -> None:
        for phone in self._slots[tick % FRAME_MS]:
            phone.send_frame()

    # ---- setting up

    def _accept(self, sock: object) -> None:
        Door(self.loop, sock, self._admit)  # type: ignore[arg-type]

    def _admit(self) -> Call | None:
        call = self.beginning
        return call if call is not None and call.model is None else None

    def _form(self, call: Call, status: str, **more: str) -> dict[str, str]:
        caller = f"+1555{call.number + 1_000_000:07d}"
        return {
            "AccountSid": self.plan.account, "ApiVersion": "2010-04-01", "CallSid": call.call_sid, "CallStatus": status,
            "Called": CALLED, "Caller": caller, "CallerCity": "", "CallerCountry": "US", "CallerState": "", "CallerZip": "",
            "Direction": "inbound", "From": caller, "FromCity": "", "FromCountry": "US", "To": CALLED, "ToCountry": "US", **more,
        }  # fmt: skip

    def _next_call(self) -> None:
        plan = self.plan
        call = Call(len(self.calls), self.facts)
        self.calls.append(call)
        self.beginning = call
        call.webhook_at = self._begun_at = now()
        if call.number and call.number % 100 == 0:
            tell("progress", text=f"{call.number} of {plan.calls} calls are up")
        Webhook(
            self.loop, f"{plan.service}/twilio/voice", self._form(call, "ringing"), plan.token,
            lambda status, body: self._answered(call, status, body),
        )  # fmt: skip
        self.loop.after(0.002, self._wait_for, call)

    def _answered(self, call: Call, status: int, body: bytes) -> None:
        if status != 200:
            raise CannotMeasure(f"the webhook was answered with {status}")
        try:
            stream = Stream(body)
        except (ValueError, SyntaxError) as fault:
            raise CannotMeasure(f"the webhook's answer: {fault}") from None
        call.phone = Phone(self.loop, call, stream, self.plan.account, self.plan.token, lambda: self._open(call))

    def _open(self, call: Call) -> None:
        # The frame clock of each caller has a phase of its own.
        self._slots[self._dice.randrange(FRAME_MS)].append(call.phone)

    def _wait_for(self, call: Call) -> None:
        if call.phone is not None and call.phone.is_open and call.model is not None and call.model.is_configured:
            self.beginning = None
            if len(self.calls) < self.plan.calls:
                self.loop.at(max(now(), self._begun_at + self.plan.every * self._dice.uniform(1, 1.5)), self._next_call)
            else:
                tell("progress", text=f"all {self.plan.calls} calls are up; warming for {self.plan.warm:g} s")
                self.loop.after(self.plan.warm, self._steady, now())
        elif now() - self._begun_at > SET_UP_WITHIN:
            has = f"phone {'open' if call.phone is not None and call.phone.is_open else 'not open'}, "
            has += f"session {'configured' if call.model is not None and call.model.is_configured else 'not configured'}"
            raise CannotMeasure(f"call {call.number + 1} was not set up within {SET_UP_WITHIN:g} s ({has})")
        else:
            self.loop.after(0.002, self._wait_for, call)

    # ---- the window

    def _steady(self, since: float) -> None:
        silent = sum(not call.utterances or call.utterances[0].first_at is None for call in self.calls)
        if silent:
            if now() - since > FIRST_AUDIO_WITHIN:
                raise CannotMeasure(f"{silent} of {len(self.calls)} callers heard nothing within {FIRST_AUDIO_WITHIN:g} s")
            self.loop.after(0.5, self._steady, since)
            return
        self.facts.begin_window()
        del self.loop.lateness[:]
        self._cpu = time.process_time()
        tell("steady")
        self.loop.after(self.plan.seconds, self._measured, now())

    def _measured(self, since: float) -> None:
        seconds = now() - since
        tell("measured")
        facts = self.facts
        stalled = sum(now() - call.latest_activity() > STALLED_AFTER for call in self.calls)
        self._result = {
            "calls": len(self.calls),
            "seconds": seconds,
            "latency_ms": {
                name: self._spread([value * 1_000 for value in figures])
                for name, figures in (
                    ("inbound", facts.inbound),
                    ("outbound", facts.outbound),
                    ("barge_in", facts.barge_in),
                    ("first_audio", facts.first_audio),
                )
            },
            "truncation_error_ms": self._spread(list(facts.truncation_ms), both_sides=True),
            "agent_audible": facts.heard_ms / 1_000 / seconds / len(self.calls),
            "turns": facts.counts["turns"],
            "barge_ins": facts.counts["barge_ins"],
            "stalled_calls": stalled,
            "load": {
                "cpu": (time.process_time() - self._cpu) / seconds,
                "tick_late_ms": self._spread([value * 1_000 for value in self.loop.lateness]),
                "unsent_bytes": sum(call.phone.unsent() + call.model.unsent() for call in self.calls),
            },
        }
        self._hang_up()

    @staticmethod
    def _spread(values: list[float], *, both_sides: bool = False) -> dict[str, float | int | None]:
        values.sort()
        spread: dict[str, float | int | None] = {
            "n": len(values),
            "p50": per_cent(values, of=0.5),
            "p99": per_cent(values, of=0.99),
            "max": values[-1] if values else None,
        }
        if both_sides:
            absolute = sorted(abs(value) for value in values)
            spread["p01"] = per_cent(values, of=0.01)
            spread |= {"abs_p50": per_cent(absolute, of=0.5), "abs_p99": per_cent(absolute, of=0.99)}
        return spread

    # ---- the end

    def _hang_up(self) -> None:
        for call in self.calls:
            call.hung_up = True
            call.phone.hang_up()
        for place, call in enumerate(self.calls):
            self.loop.after(0.1 + place * 0.005, self._report_status, call)
        self.loop.after(0.5, self._close, now())

    def _report_status(self, call: Call) -> None:
        seconds = str(int(now() - call.webhook_at))
        form = self._form(call, "completed", CallDuration=seconds, CallbackSource="call-progress-events", SequenceNumber="0")

        def settled(status: int, _: bytes) -> None:
            self._settled += 1
            if not 200 <= status < 300:
                self.facts.complaints[f"the status callback was answered with {status}"] += 1

        Webhook(self.loop, f"{self.plan.service}/twilio/status", form, self.plan.token, settled)

    def _close(self, since: float) -> None:
        open_models = sum(call.model.fd >= 0 for call in self.calls)
        open_phones = sum(call.phone.fd >= 0 for call in self.calls)
        unsettled = len(self.calls) - self._settled
        if (open_models or open_phones or unsettled) and now() - since < CLOSE_WITHIN:
            self.loop.after(0.2, self._close, since)
            return
        counts = self.facts.counts
        counts["lost_in_samples"] += sum(call.frames_sent - call.frames_arrived for call in self.calls) * FRAME
        self._result |= {
            "samples": {
                name: counts[f"{name}_samples"]
                for name in (
                    "lost_in", "invented_in", "altered_in", "unknown_in",
                    "lost_out", "invented_out", "altered_out", "unknown", "leaked",
                )
            },
            "messages": {
                name: counts[name] for name in ("appends", "played_messages", "marks", "clears", "late_deltas", "trimmed_frames")
            },
            "complaints": dict(self.facts.complaints),
            "left_open": {"model_sockets": open_models, "media_sockets": open_phones, "status_callbacks": unsettled},
        }  # fmt: skip
        tell("done", result=self._result)
        self.loop.stop()


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        Peers(plan).run()
    except (CannotMeasure, ConnectionError, OSError) as fault:
        tell("failed", reason=str(fault) or type(fault).__name__, plan=asdict(plan))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
