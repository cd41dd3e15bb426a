"""The pretend carrier as a process of its own, with callers who speak.

    python -m app.rehearsal.carrier_process --service http://127.0.0.1:8000 --account AC... [--public URL] [--number +1...]

The auth token is read from the environment (TWILIO_AUTH_TOKEN), never from the command line. Orders come as JSON lines on standard
input, events go as JSON lines to standard output:

    {"place": {"scene": "booking", "seed": 3, "listen": "call.wav", "reference": "mine"}}   -> placed, ringing, ..., report
    {"agent_said": {"call_sid": "CA...", "text": "..."}}   what the agent says, for the caller to choose an answer
    {"hang_up": {"call_sid": "CA..."}}                     the caller hangs up
    {"quit": true}                                         or the end of standard input

Every event of a call bears `call_sid`; the last one is `report`, with what the carrier saw. `failed` says why a call could not be
placed. First of all comes `{"event": "ready", "api_url": ...}`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from app.rehearsal.carrier import Carrier, Number
from app.rehearsal.carrier_call import Call
from app.rehearsal.carrier_scene import SceneCaller, call_plan, spoken
from app.rehearsal.line import BYTES_PER_MS
from app.rehearsal.scenes import Person, load

ANNOUNCER = Person(voice="klatt6")


def facts(call: Call, caller: SceneCaller | None = None) -> dict[str, Any]:
    """What the carrier saw of a finished call."""
    return {
        "call_sid": call.sid,
        "status": call.status,
        "by": next((event["by"] for event in reversed(call.events) if event["event"] == "ended"), None),
        "duration_s": call.duration_s,
        "streams": len(call.streams),
        "heard_ms": sum(stream.heard_bytes for stream in call.streams) // BYTES_PER_MS,
        "received_ms": sum(stream.received_bytes for stream in call.streams) // BYTES_PER_MS,
        "clears": sum(stream.clears for stream in call.streams),
        "unheard_ms": sum(stream.playout.thrown_away + stream.playout.queued for stream in call.streams) // BYTES_PER_MS,
        "dialed": call.dialed,
        "announced": call.announced,
        "alerts": [str(alert) for alert in call.alerts],
        "violations": [str(alert) for alert in call.violations],
        "late_frames": call.line.late_frames,
        "troubles": caller.troubles if caller is not None else [],
    }


class Desk:
    """Takes orders and reports; one carrier, any number of calls at a time."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._callers: dict[str, SceneCaller] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults: list[Exception] = []
        """What went wrong in us, not in a call."""

    async def take(self, order: Mapping[str, Any]) -> bool:
        """Carry out one order; False means to stop."""
        match order:
            case {"place": {"scene": str(scene), **how}}:
                self._begin(self._play(scene, {str(name): value for name, value in how.items()}))
            case {"agent_said": {"call_sid": str(sid), "text": str(text)}}:
                if sid in self._callers:
                    self._callers[sid].agent_said(text)
            case {"hang_up": {"call_sid": str(sid)}}:
                if sid in self._carrier.calls:
                    self._carrier.calls[sid].hang_up()
            case {"quit": _}:
                return False
            case _:
                say({"event": "misunderstood", "order": sorted(order)})
        return True

    async def _place(self, name: str, how: Mapping[str, Any]) -> tuple[Call, SceneCaller]:
        scene = load(name)
        if "seed" in how:
            scene = replace(scene, person=replace(scene.person, seed=int(how["seed"])))
        call: Call | None = None

        def tell(kind: str, content: Mapping[str, Any]) -> None:
            if call is not None:
                call.tell(kind, content)

        # In a thread: the clocks of the other calls must not wait for a voice to be made.
        caller = await asyncio.to_thread(SceneCaller, scene, spoken, tell)
        plan = await asyncio.to_thread(call_plan, scene, spoken)
        call = await self._carrier.place(caller, plan)
        self._callers[call.sid] = caller
        placed = {"call_sid": call.sid, "scene": scene.name, "title": scene.title, "from": scene.person.number}
        say({"event": "placed", "reference": how.get("reference"), **placed})
        return call, caller

    async def _play(self, name: str, how: Mapping[str, Any]) -> None:
        try:
            call, caller = await self._place(name, how)
        except Exception as fault:
            say({"event": "failed", "reference": how.get("reference"), "why": type(fault).__name__})
            raise
        try:
            await call.ended()
        except Exception as fault:
            caller.troubles.append(f"the caller's script broke: {type(fault).__name__}")
            raise
        finally:
            if (listen := how.get("listen")) is not None:
                await asyncio.to_thread(call.line.recording.save, Path(listen))
            del self._callers[call.sid]
            say({"event": "report", **facts(call, caller)})

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(fault := task.exception(), Exception):
            self.faults.append(fault)

    async def empty(self) -> None:
        """Wait until every call has been reported."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def say(event: Mapping[str, Any]) -> None:
    """Write one event, at once."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def serve(carrier: Carrier) -> None:
    """Take orders from standard input until it ends."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with carrier:
        desk = Desk(carrier)
        say({"event": "ready", "api_url": carrier.api_url})
        while line := await orders.readline():
            if not await desk.take(json.loads(line)):
                break
        for call in carrier.calls.values():
            if not call.finished:
                call.hang_up()
        await desk.empty()
    if desk.faults:
        raise ExceptionGroup("calls that could not be carried", desk.faults)


@click.command()
@click.option("--service", required=True, help="Where the service is reached.")
@click.option("--public", default=None, help="What the service is known by; the same if not given.")
@click.option("--account", required=True, help="The account's sid, AC...")
@click.option("--number", default="+15559870000", help="The number that is called.")
@click.option("--port", default=0, help="The REST interface's port; 0 takes a free one.")
@click.option("--seed", default=0, help="The dice's seed.")
def main(service: str, public: str | None, account: str, number: str, port: int, seed: int) -> None:
    """Be the carrier until standard input ends."""
    token = os.environ.get("TWILIO_AUTH_TOKEN")
    if not token:
        raise click.UsageError("TWILIO_AUTH_TOKEN is not set")
    known = (public or service).rstrip("/")
    carrier = Carrier(
        auth_token=token,
        account_sid=account,
        service_url=service,
        public_url=known,
        number=Number(phone_number=number, voice_url=f"{known}/twilio/voice", status_callback=f"{known}/twilio/status"),
        seed=seed,
        api_port=port,
        speak=partial(spoken, person=ANNOUNCER),
        on_event=say,
    )
    asyncio.run(serve(carrier))


if __name__ == "__main__":
    main()
