"""The model's leg of one call: a session opened, configured and proved; then audio and commands out, events in.

Rule 1: nobody is heard before `session.updated` has shown the format that we asked for. What the caller says until then is kept,
and is then heard faster than it was spoken, before what is said now.
Rule 2: after `open` has returned, what goes wrong is an event. A session that ends is exactly one ModelLost, unless we ended it.
Rule 3: while a session is being configured any `error` is its refusal: not every refusal names the message it refuses.
Rule 4: nothing here waits but `open` and `close`.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus

from app.audio.g711 import BYTES_PER_MS
from app.audio.path import AudioPath
from app.call.agent import Agent, Capabilities, TurnTaking
from app.call.commands import CloseModel, FinishHearing, ModelCommand, Recall, TakeOver
from app.call.disposition import Utterance
from app.call.events import Event, ModelComplained, ModelLost, ModelReady
from app.errors import BadModelMessage, ModelUnavailable
from app.logs import logger
from app.realtime import messages as m
from app.realtime import session, socket
from app.realtime.session import SessionOptions
from app.realtime.wire import Complaint, SessionCreated, SessionUpdated, Wire, create_item, update_session

log = logger("realtime")

READY_WITHIN_S = 3.0
"""How long a session may take to be ready, from the first packet on."""
CATCH_UP = 400 * BYTES_PER_MS
"""With every 20 ms of the line so much of what was kept is heard: twenty times as fast as it was spoken."""
LONGEST_SESSION_S = 86_400.0
LAST_SILENCE_MS = 200
"""What is appended beyond the silence window after the caller's last words, so that the detector sees the end of them."""

_CODE = re.compile(r"[a-z0-9_.-]{1,64}")
NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
PASSING = frozenset({"server_error", "rate_limit_exceeded"})
"""Errors that say nothing about what was asked."""
EXPIRED = "maximum duration"


class ModelLeg:
    """One session with the model, for one stream of one call."""

    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(
        self,
        options: SessionOptions,
        path: AudioPath,
        post: Callable[[Event], None],
        *,
        agents: Mapping[str, Agent],
        url: str,
        api_key: str,
        safety_identifier: str | None = None,
        hold_ms: int = 1_000,
    ) -> None:
        self._options, self._path, self._post, self._agents = options, path, post, agents
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}", "User-Agent": "callrow"}
        if safety_identifier is not None:
            self._headers["OpenAI-Safety-Identifier"] = safety_identifier
        self._wire = Wire(path, prefix_ms=options.vad_prefix_ms, silence_ms=options.vad_silence_ms)
        self._socket: socket.Socket | None = None
        self._send: Callable[[bytes], None] = _nowhere
        self._agent: Agent
        self._held = bytearray()
        self._most_held = hold_ms * BYTES_PER_MS
        self._until = 0.0  # the loop's time by which the session must be ready
        self._expires_at: float | None = None
        self._proof: asyncio.Future[SessionUpdated | Complaint] | None = None
        self._updates: dict[str, dict[str, Any]] = {}
        self._update_count = 0
        self._hears = False  # the caller's audio is wanted
        self._lives = False  # open, and not yet at its end
        self._over = False  # will not live any more
        self._failed: ModelUnavailable | None = None
        self.bad_messages = 0

    @property
    def unknown_events(self) -> int:
        """Messages of kinds that we do not know."""
        return self._wire.unknown_events

    @property
    def appended_ms(self) -> float:
        """How much of the caller the model was given, in milliseconds of audio."""
        return self._wire.appended_ms

    # ---- from the call

    async def open(self, agent: Agent, history: Sequence[Utterance] = (), *, voice: str | None = None) -> None:
        """Connects, configures, proves the format, tells the history of earlier streams, and posts ModelReady. To be called once.

        `voice` is the one that the caller knows already, if it is not the agent's own.

        Raises:
            ModelUnavailable: within READY_WITHIN_S. `refused` (the upgrade; code: the provider's, or `http_<status>`),
                `unreachable`, `timeout`, `closed` (before it was proved, also by us), `rejected_session` (code: the provider's,
                or what is otherwise than asked).
        """
        self._agent = agent
        self._until = asyncio.get_running_loop().time() + READY_WITHIN_S
        try:
            await self._connect()
            await self._configure(agent, voice)
        except BaseException:
            self._over = True
            if self._socket is not None:
                self._socket.abort("never_configured")
            raise
        for item in session.history_items(history):
            self._send(create_item(item))
        self._lives = self._hears = True
        self._post(ModelReady(self._lasts_ms()))
        if self._held and self._hears:
            self._catch_up(b"")

    def append(self, mulaw: bytes) -> None:
        """The next stretch of the caller, line audio. Kept until the session is proved, dropped when nobody hears any more."""
        if self._hears:
            if self._held:
                self._catch_up(mulaw)
            elif message := self._wire.append(mulaw):
                self._send(message)
        elif not self._lives and not self._over:
            self._held += mulaw
            del self._held[: -self._most_held]

    def _catch_up(self, mulaw: bytes) -> None:
        """What was kept comes before what is said now (rule 1)."""
        self._held += mulaw
        piece = bytes(self._held[:CATCH_UP])
        del self._held[:CATCH_UP]
        self._wire.behind_ms = len(self._held) // BYTES_PER_MS
        if message := self._wire.append(piece):
            self._send(message)

    def send(self, command: ModelCommand) -> None:
        """Carries a command out, at once. Without a session it is dropped: the call has been, or will be, told so."""
        match command:
            case CloseModel():
                self._end()
            case _ if not self._lives:
                pass
            case FinishHearing():
                self._finish_hearing()
            case Recall(slots, said):
                for item in session.recalled_items(slots, said):
                    self._send(create_item(item))
            case TakeOver(name):
                before, self._agent = self._agent, self._agents[name]
                self._update(session.takeover(self._agent, self._options, before))
            case _:
                for message in self._wire.encode(command, self._agent):
                    self._send(message)

    async def close(self) -> None:
        """Ends the session; returns when the connection is gone, within a second or two. Harmless if there is none."""
        self._end()
        if self._socket is not None:
            await asyncio.wait([self._socket.closed], timeout=2 * socket.CLOSE_S)

    # ---- opening

    async def _connect(self) -> None:
        try:
            self._socket = await socket.connect(self._url, self._headers, self._heard, self._closed, open_s=READY_WITHIN_S)
        except InvalidStatus as refusal:
            raise _refused(refusal.response.status_code, bytes(refusal.response.body or b"")) from None
        except InvalidMessage:
            raise ModelUnavailable("unreachable", "no_http") from None
        except InvalidHandshake:
            raise ModelUnavailable("refused", "no_websocket", retryable=False) from None
        except TimeoutError:
            raise ModelUnavailable("timeout", "connect") from None
        except OSError as fault:
            lasting = isinstance(fault, ssl.SSLCertVerificationError)
            raise ModelUnavailable("unreachable", type(fault).__name__, retryable=not lasting) from None
        self._send = self._socket.send_text

    async def _configure(self, agent: Agent, voice: str | None) -> None:
        asked = session.session(agent, self._options, self._path, voice=voice)
        answer = await self._ask(asked)
        if isinstance(answer, Complaint) and answer.code == "cannot_update_voice":
            asked = session.session(agent, self._options, self._path, with_voice=False)
            answer = await self._ask(asked)
        if isinstance(answer, Complaint):
            raise ModelUnavailable("rejected_session", answer.code, retryable=answer.code in PASSING)
        if wrong := session.misgiven(answer.session, asked):
            raise ModelUnavailable("rejected_session", wrong, retryable=False)
        self._updates.clear()
        self._expires_at = session.expires_at(answer.session) or self._expires_at

    def _lasts_ms(self) -> int | None:
        """How long the session will last by the provider's word, which is a time of day: a clock that is wrong is not believed."""
        left_s = 0.0 if self._expires_at is None else self._expires_at - time.time()
        return int(left_s * 1_000) if 0 < left_s <= LONGEST_SESSION_S else None

    async def _ask(self, asked: dict[str, Any]) -> SessionUpdated | Complaint:
        if self._failed is not None:
            raise self._failed
        self._proof = asyncio.get_running_loop().create_future()
        try:
            self._update(asked)
            async with asyncio.timeout_at(self._until):
                answer = await self._proof
        except TimeoutError:
            raise ModelUnavailable("timeout", "session_update") from None
        finally:
            self._proof = None
        if self._failed is not None:  # between the answer and our waking up
            raise self._failed
        return answer

    # ---- to the provider

    def _update(self, asked: dict[str, Any]) -> None:
        self._update_count += 1
        event_id = f"session_{self._update_count}"
        self._updates[event_id] = asked
        self._send(update_session(asked, event_id))

    def _finish_hearing(self) -> None:
        """Under server VAD the silence ends the utterance and the provider commits it; a commit of ours would be refused, or make
        an utterance of what was no speech."""
        if not self._hears:
            return
        while self._held:
            self._catch_up(b"")
        self._hears = False
        if self._agent.floor.turn_taking is TurnTaking.PROVIDER:
            self._update(session.no_more_answers(self._options))
        self._send(self._wire.append_last(self._options.vad_silence_ms + LAST_SILENCE_MS))

    def _end(self) -> None:
        self._over = True
        self._lives = self._hears = False
        self._held.clear()
        if self._socket is not None:
            self._socket.close()
        self._fail(ModelUnavailable("closed", "by_us"))

    # ---- from the provider

    def _heard(self, message: bytes) -> None:
        try:
            said = self._wire.decode(message)
        except BadModelMessage as fault:
            self.bad_messages += 1
            if (
                self.bad_messages & (self.bad_messages - 1) == 0
            ):  # the first, the second, the fourth: a flood of them is no flood here
                log.warning("unreadable message from the model skipped", kind=fault.kind, count=self.bad_messages)
            return
        for event in said:
            if type(event) in _NOTES:
                self._take_note(event)  # type: ignore[arg-type]
            elif self._lives:
                self._post(event)  # type: ignore[arg-type]

    def _take_note(self, note: SessionCreated | SessionUpdated | Complaint | ModelLost) -> None:
        if isinstance(note, ModelLost):
            self._lose(note)
        elif isinstance(note, SessionCreated):
            self._expires_at = session.expires_at(note.session)
        elif self._proof is not None:
            if not self._proof.done():
                self._proof.set_result(note)  # rule 3
        elif self._lives:
            self._complain(self._verdict(note))

    def _verdict(self, note: SessionUpdated | Complaint) -> str | None:
        """What is wrong, if anything. Updates are answered in the order in which they were sent."""
        if isinstance(note, Complaint):
            self._updates.pop(note.event_id or "", None)
            return note.code
        if not self._updates:
            return None
        return session.misgiven(note.session, self._updates.pop(next(iter(self._updates))))

    def _complain(self, code: str | None) -> None:
        if code is not None:
            log.info("the model complained", code=code)
            self._post(ModelComplained(code))

    def _closed(self, code: int, reason: str) -> None:
        self._lose(_lost(code, reason))

    def _lose(self, loss: ModelLost) -> None:
        if self._lives:
            self._end()
            log.warning("the model's session ended", reason=loss.reason, fatal=loss.fatal)
            self._post(loss)
        else:
            self._fail(ModelUnavailable("closed", loss.reason, retryable=not loss.fatal))

    def _fail(self, fault: ModelUnavailable) -> None:
        """For `open`, if it is under way."""
        self._failed = self._failed or fault
        if self._proof is not None and not self._proof.done():
            self._proof.set_exception(self._failed)


_NOTES = frozenset({SessionCreated, SessionUpdated, Complaint, ModelLost})


def _nowhere(_message: bytes) -> None:
    """Where messages go without a connection."""


def _refused(status: int, body: bytes) -> ModelUnavailable:
    """The upgrade was answered with an error, such as 401 for a bad key, 429 for a limit or an empty account."""
    code = f"http_{status}"
    try:
        named = msgspec.json.decode(body, type=m.Error).error.code
    except (msgspec.MsgspecError, ValueError, RecursionError):
        named = None  # not every refusal explains itself
    if named and _CODE.fullmatch(named):
        code = named
    retryable = (status in (408, 409, 429) or status >= 500) and code not in NO_CREDIT
    return ModelUnavailable("refused", code, retryable=retryable)


def _lost(code: int, reason: str) -> ModelLost:
    """What a close code means (OpenAI's Realtime documentation)."""
    if code == socket.ABNORMAL:
        return ModelLost(reason or "dropped")
    if code == 1001 and EXPIRED in reason:
        return ModelLost("session_expired")
    return ModelLost(f"closed_{code}", fatal=code == 1008 or code >= 3000)
