"""Runs scenes: starts the pretend model and the pretend carrier as processes of their own, lets a scene's caller call the service,
and says whether what the scene expects held.

    async with Peers(service_url=..., account_sid=..., auth_token=...) as peers:
        ...    # start the service with TWILIO_API_URL=peers.carrier_url and OPENAI_BASE_URL=peers.model_url
        report = await peers.rehearse("booking", read_row=..., on_event=print)

Rule 1: voice and ears (espeak-ng, PocketSphinx) are never imported here; they live in the two children only.
Rule 2: the children end with us: their standard input ends, and they go.
Rule 3: the caller is told what the agent says by the model's own log. Which session belongs to which call is known by their
order: streams and sessions that begin are paired first to first. Calls are placed one after the other, so there is one of each.
"""

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.errors import WorldFault
from app.rehearsal.scenes import load
from app.rehearsal.scenes_check import check

type OnEvent = Callable[[Mapping[str, Any]], None]
type ReadRow = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The row of a call by the carrier's call sid, with `utterances` and `tool_invocations`; None if there is none (yet)."""

READY_WITHIN_S = 60.0
ROW_WITHIN_S = 30.0
"""How long after the end of the call its row may take to be finished, and read by the service's analysis."""
SESSION_WITHIN_S = 10.0
LATE_FRAMES = 100
"""Two seconds' worth."""
SECRETS = ("TWILIO_AUTH_TOKEN", "OPENAI_API_KEY")
"""Real ones are no business of a pretend peer."""
LONGEST_LINE = 2**22


class PeerLost(WorldFault):
    """A process of the rehearsal ended, or did not begin. `peer` is which; `reason` is a constant."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer, self.reason = peer, reason
        super().__init__(peer, reason)

    def __str__(self) -> str:
        return f"the pretend {self.peer} {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a scene."""

    scene: str
    title: str
    call_sid: str
    failures: list[str]
    """What did not hold, a sentence each."""
    row: Mapping[str, Any] | None = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)
    """What the carrier saw; see `carrier_process.facts`."""
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return not self.failures


class Child:
    """A process that speaks JSON lines: events on its standard output, orders on its standard input."""

    def __init__(self, peer: str, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.peer, self._module = peer, module
        self._arguments, self._environment = list(arguments), dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._listeners: list[OnEvent] = []
        self.ended = asyncio.Event()

    def listen(self, listener: OnEvent) -> None:
        """Be told every event from now on."""
        self._listeners.append(listener)

    async def start(self) -> Mapping[str, Any]:
        """Start it and wait until it is ready; its `ready` event. Raises `PeerLost`."""
        ready: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

        def first(event: Mapping[str, Any]) -> None:
            if event.get("event") == "ready" and not ready.done():
                ready.set_result(event)

        self.listen(first)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name not in SECRETS} | self._environment,
            limit=LONGEST_LINE,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        gone = asyncio.create_task(self.ended.wait())
        waiting: list[asyncio.Future[Any]] = [ready, gone]
        await asyncio.wait(waiting, timeout=READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not ready.done():
            await self.stop()
            raise PeerLost(self.peer, "did not start")
        return ready.result()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                event = json.loads(line)
                for listener in self._listeners:
                    listener(event)
        finally:
            self.ended.set()

    def order(self, order: Mapping[str, Any]) -> None:
        """Send one order. Raises `PeerLost` if the process is gone."""
        if self._process is None or self._process.stdin is None or self.ended.is_set():
            raise PeerLost(self.peer, "is gone")
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def stop(self) -> None:
        """Let it go: first by the end of its input, then without asking."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        for end in (None, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                if end is not None:
                    end()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await process.wait()
                    break
        if self._reader is not None:
            await asyncio.wait({self._reader})
            if (fault := self._reader.exception()) is not None:
                raise fault


class Peers:
    """The pretend model and the pretend carrier, for one service.

    `service_url` is where the service will be reached, `public_url` its PUBLIC_URL if that is another. The auth token goes to the
    carrier by its environment. `only_carrier` leaves the model out, for a service that has another; `misbehave` is the model's
    script of misbehaviour. Raises `PeerLost` on entering.
    """

    def __init__(
        self,
        *,
        service_url: str,
        account_sid: str,
        auth_token: str,
        public_url: str | None = None,
        number: str = "+15559870000",
        seed: int = 0,
        only_carrier: bool = False,
        misbehave: str | None = None,
    ) -> None:
        arguments = ["--service", service_url, "--account", account_sid, "--number", number, "--seed", str(seed)]
        if public_url is not None:
            arguments += ["--public", public_url]
        secret = {"TWILIO_AUTH_TOKEN": auth_token}
        self._carrier = Child("carrier", "app.rehearsal.carrier_process", arguments, secret)
        script = [] if misbehave is None else ["--misbehave", misbehave]
        self._model = None if only_carrier else Child("model", "app.rehearsal.model", script, {})
        self.carrier_url = ""
        """For TWILIO_API_URL."""
        self.model_url = ""
        """For OPENAI_BASE_URL."""
        self._placing = asyncio.Lock()
        self._calls: dict[str, _Call] = {}
        """By our own reference, and by the call's sid once that is known."""
        self._sessions: dict[str, _Call] = {}
        self._without_session: list[_Call] = []
        """Calls whose stream has begun, and no session yet."""
        self._without_call: list[tuple[str, list[Mapping[str, Any]]]] = []
        """Sessions that have opened, and no stream yet; with what they told meanwhile."""

    async def __aenter__(self) -> Self:
        self._carrier.listen(self._on_carrier)
        try:
            if self._model is not None:
                self._model.listen(self._on_model)
                self.model_url = str((await self._model.start())["base_url"])
            self.carrier_url = str((await self._carrier.start())["api_url"])
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._carrier.stop()
        if self._model is not None:
            await self._model.stop()

    async def rehearse(
        self,
        name: str,
        *,
        read_row: ReadRow,
        on_event: OnEvent = lambda event: None,
        listen: Path | None = None,
        seed: int | None = None,
    ) -> Report:
        """Let a scene's caller call; wait for the end of the call and for the finished row; judge.

        `name` is a shipped scene's or the path of a file. Events of the call and of its model's session go to `on_event`;
        `listen` is the stereo WAV to write, `seed` another one for the caller's dice and noise. May run several times at once.
        Raises `BadScene`, `PeerLost`.
        """
        scene = load(name)
        began = time.monotonic()
        call = _Call(reference=secrets.token_hex(8), on_event=on_event)
        how = {"scene": name, "reference": call.reference, "listen": listen and str(listen), "seed": seed}
        how = {key: value for key, value in how.items() if value is not None}
        try:
            await self._see_through(call, how)
        except BaseException:
            if call.sid and not call.reported.is_set():
                with contextlib.suppress(PeerLost):
                    self.hang_up(call.sid)  # nobody waits for this call any more
            raise
        finally:
            self._forget(call)
        row = await self._finished_row(call.sid, read_row)
        failures = check(scene, row, call.facts)
        if failures and (late := call.facts["late_frames"]) > LATE_FRAMES:
            failures.append(f"this machine did not keep real time ({late} frames came late); that alone may be why")
        seconds = time.monotonic() - began
        return Report(
            scene=scene.name, title=scene.title, call_sid=call.sid, failures=failures, row=row, facts=call.facts, seconds=seconds
        )

    async def _see_through(self, call: "_Call", how: Mapping[str, Any]) -> None:
        async with self._placing:
            self._calls[call.reference] = call
            self._carrier.order({"place": how})
            await self._unless_gone(call.placed.wait())
            if call.why_not is not None:
                raise PeerLost("carrier", f"could not place the call: {call.why_not}")
            if self._model is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SESSION_WITHIN_S):  # a call that is turned away never has one
                        await self._unless_gone(call.has_session.wait())
        await self._unless_gone(call.reported.wait())

    def hang_up(self, call_sid: str) -> None:
        """Let the caller of a running scene hang up."""
        self._carrier.order({"hang_up": {"call_sid": call_sid}})

    async def _finished_row(self, call_sid: str, read_row: ReadRow) -> Mapping[str, Any] | None:
        until = time.monotonic() + ROW_WITHIN_S
        while True:
            row = await read_row(call_sid)
            finished = row is not None and row.get("finished_at") is not None and row.get("analysis") != "waiting"
            if finished or time.monotonic() > until:
                return row
            await asyncio.sleep(0.1)

    async def _unless_gone(self, what: Coroutine[Any, Any, Any]) -> None:
        """Wait for something that a child is to bring about. Raises `PeerLost` if one of them ends before."""
        children = [child for child in (self._carrier, self._model) if child is not None]
        wanted = asyncio.ensure_future(what)
        ends = [asyncio.create_task(child.ended.wait()) for child in children]
        try:
            await asyncio.wait({wanted, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                gone = next(child for child in children if child.ended.is_set())
                raise PeerLost(gone.peer, "ended in the middle of a scene")
        finally:
            for task in (wanted, *ends):
                task.cancel()

    # ---- what the children tell

    def _on_carrier(self, event: Mapping[str, Any]) -> None:
        call = self._calls.get(event.get("reference") or event.get("call_sid", ""))
        if call is None:
            return
        match event["event"]:
            case "placed":
                call.sid = event["call_sid"]
                self._calls[call.sid] = call
                call.placed.set()
            case "stream_started":
                self._without_session.append(call)
                self._pair()
            case "stream_ended" if call in self._without_session:
                self._without_session.remove(call)
            case "failed":
                call.why_not = str(event["why"])
                call.placed.set()
            case "report":
                call.facts = dict(event)
                call.reported.set()
        call.on_event(event)

    def _on_model(self, event: Mapping[str, Any]) -> None:
        session = event.get("session", "")
        if event["event"] == "session_opened":
            self._without_call.append((session, []))
            self._pair()
        for waiting, told in self._without_call:
            if waiting == session:
                told.append(event)
        if (call := self._sessions.get(session)) is not None:
            self._hand_on(call, event)
        if event["event"] == "session_closed":
            self._sessions.pop(session, None)
            self._without_call = [entry for entry in self._without_call if entry[0] != session]

    def _pair(self) -> None:
        while self._without_session and self._without_call:
            call = self._without_session.pop(0)
            session, told = self._without_call.pop(0)
            self._sessions[session] = call
            call.has_session.set()
            for event in told:
                self._hand_on(call, event)

    def _hand_on(self, call: "_Call", event: Mapping[str, Any]) -> None:
        if event["event"] == "agent_says":
            self._carrier.order({"agent_said": {"call_sid": call.sid, "text": event["text"]}})
        call.on_event({**event, "call_sid": call.sid})

    def _forget(self, call: "_Call") -> None:
        for name in (call.reference, call.sid):
            self._calls.pop(name, None)
        if call in self._without_session:
            self._without_session.remove(call)


@dataclass(eq=False)
class _Call:
    """A running scene's call."""

    reference: str
    on_event: OnEvent
    sid: str = ""
    why_not: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    placed: asyncio.Event = field(default_factory=asyncio.Event)
    has_session: asyncio.Event = field(default_factory=asyncio.Event)
    reported: asyncio.Event = field(default_factory=asyncio.Event)
