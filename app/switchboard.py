"""All live calls of this process: admit, connect, find, drain.

Rule 1: a slot is reserved in the webhook and held for as long as its token lives; a media socket without a token that is right gets
nothing.
Rule 2: one bridge a call. A stream with a higher epoch ends the part of the one before.
Rule 3: what a live call must have written is written by its bridge; what has no bridge is the doors' to finish.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.audio.lines import Lines
from app.audio.path import audio_path
from app.bridge import Bridge
from app.call.agent import Agent
from app.call.commands import KeepMemory, KeepTool, KeepTurn, KeepUtterance, ModelCommand, OpenModel, RunErrand
from app.call.disposition import Filed, Intent, Memory, Utterance
from app.call.errands import ErrandContext
from app.call.events import CarrierEnded, DrainRequested, Event, StreamMovedOn
from app.call.journal import Line
from app.call.machine import Call
from app.call.talk import House
from app.errors import BadCarrierMessage, ModelUnavailable, StoreUnavailable
from app.logs import logger
from app.realtime.breaker import Breaker
from app.realtime.leg import ModelLeg
from app.realtime.session import SessionOptions
from app.settings import Settings
from app.store.calls import Calls, CallState
from app.store.writer import Writer
from app.twilio.leg import CallerLeg
from app.twilio.socket import EXTENSION
from app.twilio.token import StreamTokens
from app.twilio.wire import Start

log = logger("switchboard")

SLOT_S = 60.0
HEALTHY_S = 30.0
LOOK_S = 1.0
FILE_FOR_S = 600.0
POLICY_VIOLATION = 1008


class Errands(Protocol):
    """The toolbox, as a bridge needs it."""

    async def run(self, order: RunErrand, context: ErrandContext, allowed: frozenset[str]) -> str: ...


@dataclass(slots=True)
class _Keeper:
    """The store, bound to one call and epoch."""

    board: "Switchboard"
    call_id: str
    epoch: int

    def keep(self, item: Line | KeepUtterance | KeepTurn | KeepTool | KeepMemory) -> None:
        self.board.writer.put(self.call_id, self.epoch, item)

    async def plan(self, intent: Intent, target: str | None) -> None:
        if self.board.leaves_well(self.call_id):  # what is left in order was in order: no attempt that failed
            await self.board.calls.healthy(self.call_id, self.epoch)
        await self.board.calls.plan(self.call_id, self.epoch, intent, target)
        await self.board.writer.flush(self.call_id)

    async def file(self, filed: Filed) -> None:
        """Finish the row; while the database is away, try again, for up to ten minutes."""
        give_up, pause = time.monotonic() + FILE_FOR_S, 0.1
        while True:
            try:
                await self.board.writer.flush(self.call_id)
                settings = self.board.settings
                await self.board.calls.finish(
                    self.call_id,
                    filed,
                    epoch=self.epoch,
                    prices=settings.prices,
                    prices_date=settings.prices_date,
                    per_transcription_minute=settings.per_transcription_minute,
                )
                return
            except StoreUnavailable:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)


class _Session:
    """One session with the model, for one call: opened for whoever is its agent by then, and counted by the breaker."""

    def __init__(
        self, breaker: Breaker, leg: ModelLeg, call: Call, history: Sequence[Utterance], voice: str | None, order: OpenModel
    ) -> None:
        self._breaker, self._leg, self._call, self._history, self._voice = breaker, leg, call, history, voice
        self._is_retry = order.tries > 1
        self.append: Callable[[bytes], None] = leg.append
        self.send: Callable[[ModelCommand], None] = leg.send
        self.close: Callable[[], Coroutine[Any, Any, None]] = leg.close

    async def open(self) -> None:
        """As ModelLeg's; and refused, to be tried again, while too many calls try again."""
        if not self._is_retry:
            self._breaker.tried()
        elif not self._breaker.may_retry():
            raise ModelUnavailable("retry_budget")
        try:
            await self._leg.open(self._call.agent, self._history, voice=self._voice)
        except ModelUnavailable as fault:
            if fault.code != "by_us":  # a caller who hung up meanwhile
                self._breaker.failed()
            raise
        self._breaker.succeeded()


class Switchboard:
    """Admits, connects and finds the calls of one process."""

    def __init__(
        self,
        settings: Settings,
        *,
        agents: Mapping[str, Agent],
        calls: Calls,
        writer: Writer,
        toolbox: Errands,
        tokens: StreamTokens,
        worker: str,
    ) -> None:
        self.settings, self.agents, self.calls, self.writer = settings, agents, calls, writer
        self._toolbox, self._tokens, self._worker = toolbox, tokens, worker
        self._house = House(
            agents=agents,
            directory=tuple(settings.transfer_to),
            country_code=settings.default_country_code,
            max_ms=settings.max_call_seconds * 1_000,
            rollover_ms=int(settings.session_rollover_minutes * 60_000),
        )
        self._lines = Lines(settings.lines_dir, settings.realtime_model)
        self._options = SessionOptions.of(settings)
        self._bridges: dict[str, Bridge] = {}
        self._reserved: dict[str, float] = {}
        self._breaker = Breaker(time.monotonic)
        self._probe: asyncio.Task[None] | None = None
        self.draining = self._hands_over = False

    # ---- what the doors may ask

    @property
    def live(self) -> int:
        """Calls that have a bridge or a reserved slot here."""
        self._forget_stale_slots()
        return len(self._bridges.keys() | self._reserved.keys())

    @property
    def model_available(self) -> bool:
        """Whether the model's provider was reachable of late: else new calls are told so at once."""
        return not self._breaker.is_open

    def admit(self, call_id: str, epoch: int) -> bool:
        """Keep a slot for a stream of this call while its token lives. False: the house is full, or about to close."""
        if self._hands_over:
            return False
        if call_id not in self._bridges and call_id not in self._reserved and self.live >= self.settings.max_calls:
            return False
        self._reserved[call_id] = time.monotonic() + SLOT_S
        return True

    def release(self, call_id: str) -> None:
        """Give back a slot that was kept and will not be used."""
        self._reserved.pop(call_id, None)

    def carrier_ended(self, call_id: str, status: str) -> bool:
        """The carrier says that a call is over. True: a bridge here takes care of its row."""
        self.release(call_id)
        bridge = self._bridges.get(call_id)
        if bridge is None:
            return False
        takes_care = bridge.will_file
        bridge.post(CarrierEnded(status))
        return takes_care

    def carries(self, call_id: str) -> bool:
        """A bridge here carries this call."""
        return call_id in self._bridges

    def moved_on(self, call_id: str, epoch: int) -> None:
        """This call has gone on to a new epoch: a bridge here of an older one has no say any more."""
        bridge = self._bridges.get(call_id)
        if bridge is not None and bridge.epoch < epoch:
            bridge.post(StreamMovedOn())

    # ---- one media socket

    async def media(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve one media socket, from its upgrade to its end."""
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})
        leg = CallerLeg(receive, send, scope.get("extensions", {}).get(EXTENSION))
        try:
            start = await leg.meet()
            state, epoch = await self._authenticated(start)
            bridge = await self._bridge(state, epoch, leg)
        except BadCarrierMessage as fault:
            log.warning("a media socket was refused", reason=fault.kind)
            await leg.close(POLICY_VIOLATION)
            return
        except StoreUnavailable:
            log.error("a media socket could not be checked: the database is away")
            await leg.close(1011)
            return
        await self._carry(state, bridge, leg)

    async def _authenticated(self, start: Start) -> tuple[CallState, int]:
        """Whose stream it is: by the token, which is spent here."""
        told, facts = start.start.custom_parameters, start.start
        call_id, epoch_text, token = told.get("call_id", ""), told.get("epoch", ""), told.get("token", "")
        epoch = int(epoch_text) if epoch_text.isascii() and epoch_text.isdigit() and len(epoch_text) < 10 else 0
        if not self._tokens.check(token, call_id, epoch, int(time.time() * 1_000)):
            raise BadCarrierMessage("token")
        sound = facts.media_format
        if (sound.encoding, sound.sample_rate, sound.channels) != ("audio/x-mulaw", 8000, 1):
            raise BadCarrierMessage("media format")
        state = await self.calls.find(call_id)
        if state is None or state.carrier_call_sid != facts.call_sid or state.account_sid != facts.account_sid:
            raise BadCarrierMessage("call")
        if not await self.calls.claim(call_id, epoch, worker=self._worker, stream_sid=start.stream_sid):
            raise BadCarrierMessage("spent token")
        return state, epoch

    async def _carry(self, state: CallState, bridge: Bridge, leg: CallerLeg) -> None:
        epoch = bridge.epoch
        self.moved_on(state.call_id, epoch)
        self._bridges[state.call_id] = bridge
        self.release(state.call_id)
        healthy = asyncio.get_running_loop().call_later(HEALTHY_S, self._healthy, state.call_id, epoch)
        log.info("a stream began", call_id=state.call_id, epoch=epoch, live=len(self._bridges))
        try:
            await bridge.run()
        finally:
            healthy.cancel()
            if self._bridges.get(state.call_id) is bridge:
                del self._bridges[state.call_id]
            log.info("a stream ended", call_id=state.call_id, epoch=epoch, faults=dict(leg.faults) or None)

    async def _bridge(self, state: CallState, epoch: int, leg: CallerLeg) -> Bridge:
        memory = state.memory or Memory(agent=state.agent, agent_path=(state.agent,))
        if memory.agent not in self.agents:  # its file went while the call was between two streams
            first = self.settings.first_agent
            memory = replace(memory, agent=first, agent_path=(*memory.agent_path, first))
        history = await self.calls.history(state.call_id) if epoch > 1 else []
        number = state.from_number
        call = Call(replace(self._house, can_be_called_back=number is not None), memory, resumed=epoch > 1)
        met_first = self.agents.get(next(iter(memory.agent_path), memory.agent))
        voice = met_first.voice if met_first is not None else None  # a caller hears one voice, whoever the agent is

        def session(post: Callable[[Event], None], order: OpenModel) -> _Session:
            leg = self._leg(post, self._pseudonym(number) if number else None, order.hold_ms)
            return _Session(self._breaker, leg, call, history, voice, order)

        def line(name: str) -> tuple[str, bytes]:
            found = self._lines.find(name, voice or self._options.voice)
            return found.text, found.sound

        async def errand(order: RunErrand, context: ErrandContext) -> str:
            agent = self.agents[order.agent]
            return await self._toolbox.run(order, context, frozenset(tool.name for tool in agent.tools))

        return Bridge(
            call,
            call_id=state.call_id,
            epoch=epoch,
            caller_number=number,
            born_ago_ms=self.calls.age_ms(state),
            caller=leg,
            sessions=session,
            line=line,
            keeper=_Keeper(self, state.call_id, epoch),
            errand=errand,
        )

    def _leg(self, post: Callable[[Event], None], pseudonym: str | None, hold_ms: int) -> ModelLeg:
        return ModelLeg(
            self._options,
            audio_path(self.settings.audio_path),
            post,
            agents=self.agents,
            url=self.settings.realtime_url,
            api_key=self.settings.openai_api_key.get_secret_value(),
            safety_identifier=pseudonym,
            hold_ms=hold_ms,
        )

    def _pseudonym(self, number: str) -> str:
        """A caller's name towards the provider: always the same for a number, and no way back to it."""
        key = self.settings.auth_tokens[0].encode()
        return hmac.digest(key, b"safety identifier\0" + number.encode(), "sha256").hex()[:32]

    def _healthy(self, call_id: str, epoch: int) -> None:
        task = asyncio.ensure_future(self.calls.healthy(call_id, epoch))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    # ---- the house

    async def watch(self) -> None:
        """Look after the streams, each second: one whose peer reads nothing is closed. Runs until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                self._forget_stale_slots()
                if self._breaker.may_probe():
                    self._probe = asyncio.ensure_future(self._ask_the_provider())
                for bridge in list(self._bridges.values()):
                    if bridge.is_stalled:
                        log.warning("a stream's peer reads nothing; it is closed", call_id=bridge.call_id)
                        bridge.give_up()
        finally:
            if self._probe is not None:
                self._probe.cancel()

    async def _ask_the_provider(self) -> None:
        """A session for nobody, closed at once: so that no caller has to find out whether the provider is back."""
        leg = self._leg(lambda event: None, None, 0)
        try:
            await leg.open(self.agents[self.settings.first_agent])
        except ModelUnavailable as fault:
            log.warning("the provider is still away", reason=fault.reason, code=fault.code)
        else:
            log.info("the provider is back")
            self._breaker.succeeded()
        finally:
            await leg.close()

    def drain(self) -> None:
        """Take no new calls; those that are live go on."""
        self.draining = True

    def hand_over(self) -> None:
        """Leave every live call to another worker, in its next pause; and take none back."""
        self.draining = self._hands_over = True
        for bridge in list(self._bridges.values()):
            bridge.post(DrainRequested())

    def leaves_well(self, call_id: str) -> bool:
        """The call is being left in a pause, for another worker to go on with."""
        bridge = self._bridges.get(call_id)
        return bridge is not None and bridge.call.memory.handed_over

    def _forget_stale_slots(self) -> None:
        now = time.monotonic()
        for call_id in [call_id for call_id, until in self._reserved.items() if until <= now]:
            del self._reserved[call_id]
