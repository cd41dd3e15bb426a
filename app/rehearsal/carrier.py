"""The pretend carrier: a peer on loopback that does to the service what the real carrier does.

    async with Carrier(auth_token=..., account_sid=..., service_url="http://127.0.0.1:8000") as carrier:
        call = await carrier.place(Scripted(audio=frames, hang_up_after_ms=2_000))
        await call.ended()

It signs its requests, follows the documents it is given, keeps a media stream with a true playout buffer, and offers as
much REST as is used for hanging up and redirecting. It shares no code with the service and does not use the carrier's own package.

Rule 1: what is left to chance (delays, duplicates, order) is drawn from one seed per call; identifiers are always new.
Rule 2: what it complains of (`Call.violations`) is for the scene or the test to judge; it never stops a call for it.
"""

import asyncio
import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from app.rehearsal.carrier_call import Call
from app.rehearsal.carrier_caller import Caller, Handset, LineDead, Scripted
from app.rehearsal.carrier_plans import Account, CallPlan, DialPlan, Number, mumble
from app.rehearsal.carrier_rest import Rest, Server
from app.rehearsal.carrier_stream import MediaStream, StreamEnd, StreamPlan
from app.rehearsal.carrier_web import Origins, Tampering, Webhooks, signature

__all__ = [
    "Account",
    "Call",
    "CallPlan",
    "Caller",
    "Carrier",
    "DialPlan",
    "Handset",
    "LineDead",
    "MediaStream",
    "Number",
    "Scripted",
    "StreamEnd",
    "StreamPlan",
    "Tampering",
    "signature",
]


class Carrier:
    """A carrier with one account and one number whose calls go to the service.

    `service_url` is where the service is reached, `public_url` what it is known by and what is signed (the same if not given).
    `number` overrides where calls go; by default `/twilio/voice` and `/twilio/status` of the public address. `api_port` 0 takes a
    free port; `api_url` says which, once entered. `speak` makes line audio of what `<Say>` says.
    """

    def __init__(
        self,
        *,
        auth_token: str,
        account_sid: str,
        service_url: str,
        public_url: str | None = None,
        number: Number | None = None,
        seed: int = 0,
        api_port: int = 0,
        speak: Callable[[str], bytes] = mumble,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        public = (public_url or service_url).rstrip("/")
        self.account = Account(sid=account_sid, token=auth_token, speak=speak)
        self.number = number or Number(voice_url=f"{public}/twilio/voice", status_callback=f"{public}/twilio/status")
        self.calls: dict[str, Call] = {}
        self._origins = Origins(public=public, service=service_url.rstrip("/"))
        self._webhooks = Webhooks(auth_token, self._origins)
        self._dice = random.Random(seed)
        self._on_event = on_event
        self._numbers = [self.number]
        self.rest = Rest(self.account, self.calls, self._numbers)
        self._server = Server(self.rest.app, port=api_port)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def api_url(self) -> str:
        """Where the REST interface is: `http://127.0.0.1:port`."""
        return self._server.url

    def configure(self, number: Number) -> None:
        """Change the number's configuration, as its owner would in the console."""
        self.number = self._numbers[0] = number

    async def __aenter__(self) -> Self:
        await self._server.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        for call in self.calls.values():
            if not call.finished:
                call.hang_up()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        await self._server.close()
        await self._webhooks.aclose()

    async def place(self, caller: Caller | None = None, plan: CallPlan | None = None) -> Call:
        """Begin a call; it runs by itself. `Call.ended` waits for its end."""
        call = Call(
            caller or Scripted(),
            plan or CallPlan(),
            account=self.account,
            number=self.number,
            origins=self._origins,
            webhooks=self._webhooks,
            dice=random.Random(self._dice.getrandbits(64)),
            on_event=self._on_event,
        )
        self.calls[call.sid] = call
        call.task = asyncio.create_task(call.run())
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)
        return call
