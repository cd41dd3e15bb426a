"""Calls whose model fails, over real sockets: the whole service in this process, with the peers of `voiceless.py`.

A run is a `Scenario` played once; what it comes to is an `Observed`, with what the caller heard and when. All is seeded. In long:

    python -m tests.faults.provider_figures --runs 50 --seed 1
"""

import asyncio
import base64
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx2
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app import main
from app.call.journal import Difference, Line, replay
from app.settings import Settings
from app.store import migrate
from app.store.calls import Calls
from app.store.engine import Database
from app.twilio.socket import MediaSocket
from app.web.sockets import GuardedHttp
from tests.faults import sound
from tests.faults import voiceless as peers
from tests.faults.voiceless import Fault, Script
from tests.web.house import ACCOUNT, TOKEN, sign

SOON = 60.0
TICK_S = 0.02
NEVER = float("inf")

AGENT = """+++
name = "front-desk"
greeting = "Greet the caller."
tools = ["take_message"]
transfer = true

[floor]
silence_ms = 20_000
+++
You answer the telephone.
"""


async def until(true: Callable[[], Any], within: float = SOON) -> None:
    """Wait for something, generously."""
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.01)


class House:
    """The service and its peers."""

    def __init__(self, url: str, provider: peers.Provider, database_url: str) -> None:
        self.url, self.provider, self.database_url = url, provider, database_url
        self.client = httpx2.AsyncClient(base_url=url, timeout=SOON, trust_env=False)
        self.phones: list[Phone] = []
        self._calls = 0

    async def tick(self) -> None:
        """The telephones' clock, for all of them."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += TICK_S
            await asyncio.sleep(max(0.0, due - loop.time()))
            for phone in list(self.phones):
                await phone.tick(due)

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        form = {"AccountSid": ACCOUNT, **fields}
        headers = {
            "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
            "x-twilio-signature": sign(f"{self.url}{path}", form.items()),
        }
        return await self.client.post(path, content=urlencode(form), headers=headers)

    def phone(self, script: Script, *, withheld: bool = False) -> "Phone":
        """A caller of their own number, and what the model will do to their call."""
        self._calls += 1
        number = f"+1555{self._calls:07d}"
        return Phone(self, f"CA{self._calls:032d}", number, self.provider.expect(number, script))


class Phone:
    """One caller."""

    def __init__(self, house: House, sid: str, number: str, model: peers.Call) -> None:
        self.house, self.sid, self.number, self.model = house, sid, number, model
        self.line = peers.Line()
        self.status, self.streams = "ringing", 0
        self.said: list[str] = []
        self.dialled: list[str] = []
        self._socket: ClientConnection | None = None
        self._stream = ""
        self._chunk = 0
        self._following: asyncio.Task[None] | None = None
        self.is_over = False

    @property
    def kinds(self) -> list[str]:
        """What was heard, as kinds."""
        return [kind for _, kind, _ in self.line.frames]

    async def _post(self, path: str, **fields: str) -> httpx2.Response:
        standing = {"CallSid": self.sid, "From": self.number, "To": "+15559870000", "CallStatus": self.status}
        return await self.house.post(path, **standing, Direction="inbound", **fields)

    async def rings(self) -> None:
        """The call comes in; from then on it does what it is told."""
        self._following = asyncio.create_task(self._follow("/twilio/voice"))
        await until(lambda: self._socket is not None or self.is_over)

    async def _follow(self, path: str, **fields: str) -> None:
        """Documents, one after the other, until one says that this is all."""
        while not self.is_over:
            answer = await self._post(path, **fields)
            fields = {}
            assert answer.status_code == 200, answer.status_code
            root = ElementTree.fromstring(answer.content)
            self.said += [say.text or "" for say in root.iter("Say")]
            stream, dial = root.find("./Connect/Stream"), root.find("./Dial")
            if stream is not None:
                self.status = "in-progress"
                await self._talk(stream.attrib["url"], {it.attrib["name"]: it.attrib["value"] for it in stream})
                path = _path(root.find("./Connect").attrib["action"])  # type: ignore[union-attr]
            elif dial is not None:
                self.dialled.append("".join(dial.itertext()).strip())
                path, fields = _path(dial.attrib["action"]), {"DialCallStatus": "completed"}
            else:
                break
        await self._ended()

    async def _talk(self, url: str, parameters: dict[str, str]) -> None:
        self.streams += 1
        self._stream = f"MZ{self.streams:032d}"
        async with connect(url, additional_headers={"x-twilio-signature": sign(url, ())}, proxy=None, compression=None) as opened:
            await opened.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
            start = {
                "accountSid": ACCOUNT, "streamSid": self._stream, "callSid": self.sid, "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}, "customParameters": parameters,
            }  # fmt: skip
            await opened.send(json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self._stream}))
            self._socket = opened
            self.house.phones.append(self)
            try:
                with contextlib.suppress(ConnectionClosed):
                    async for text in opened:
                        await self._told(json.loads(text))
            finally:
                self.house.phones.remove(self)
                self._socket = None

    async def _told(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "media":
                self.line.play(base64.b64decode(message["media"]["payload"]))
            case "mark":
                self.line.mark(message["mark"]["name"])
            case "clear":
                await self._return(self.line.clear())

    async def _return(self, marks: Iterable[str]) -> None:
        for name in marks:
            await self._send({"event": "mark", "streamSid": self._stream, "mark": {"name": name}})

    async def _send(self, message: dict[str, Any]) -> None:
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(json.dumps(message))

    async def tick(self, at: float) -> None:
        """20 ms of this telephone."""
        frame, marks = self.line.tick(at)
        await self._return(marks)
        self._chunk += 1
        media = {"track": "inbound", "chunk": str(self._chunk), "timestamp": "0", "payload": base64.b64encode(frame).decode()}
        await self._send({"event": "media", "sequenceNumber": str(self._chunk), "streamSid": self._stream, "media": media})

    async def hangs_up(self) -> None:
        """The caller hangs up."""
        if self.is_over:
            return
        self.is_over, self.status = True, "completed"
        if self._socket is not None:
            await self._send({"event": "stop", "streamSid": self._stream, "stop": {}})
            with contextlib.suppress(AttributeError):
                await self._socket.close()
        assert self._following is not None
        async with asyncio.timeout(SOON):
            await self._following

    async def _ended(self) -> None:
        self.is_over, self.status = True, "completed"
        await self._post("/twilio/status", CallDuration="7", SequenceNumber="3")


def _path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


@contextlib.asynccontextmanager
async def house(folder: Path, *, beyond: dict[str, Any] | None = None, **env: str) -> AsyncIterator[House]:
    """The service over an SQLite database of its own. `beyond`: settings such as no environment may ask for."""
    agents, database_url = folder / "agents", f"sqlite:///{folder / 'calls.db'}"
    agents.mkdir(exist_ok=True)
    (agents / "front-desk.md").write_text(AGENT)
    await asyncio.to_thread(migrate.upgrade, database_url)
    provider = peers.Provider()
    model_port = await provider.start()
    listening = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    port = listening.getsockname()[1]
    settings = Settings.from_env(
        {
            "PUBLIC_URL": f"http://127.0.0.1:{port}", "TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": TOKEN,
            "OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1", "AUDIO_PATH": "passthrough",
            "DATABASE_URL": database_url, "AGENTS_DIR": str(agents), "LINES_DIR": str(folder / "lines"),
            "SPOOL_DIR": str(folder / "spool"), "CALLS_A_MINUTE_PER_CALLER": "0", "MAX_LOOP_LAG_MS": "10000", **env,
        }
    )  # fmt: skip
    application = main.application(settings.model_copy(update=beyond or {}))
    config = uvicorn.Config(
        application, http=GuardedHttp, ws=MediaSocket, ws_max_size=65_536, ws_per_message_deflate=False,
        lifespan="on", log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    await until(lambda: server.started or serving.done())
    it = House(settings.public_url, provider, database_url)
    ticking = asyncio.create_task(it.tick())
    try:
        yield it
    finally:
        ticking.cancel()
        await it.client.aclose()
        server.should_exit = True
        async with asyncio.timeout(SOON):
            await serving
        await provider.close()


# ---- what is played


@dataclass(frozen=True, slots=True)
class Scenario:
    """One call: what fails, and what the caller does."""

    name: str
    faults: tuple[Fault | None, ...]
    utterances: tuple[int, ...] = (1,)
    """Spoken one after the other, each when the one before has been answered in full."""
    frames: int = 40
    tools: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    pause: float = 0.3
    """Seconds, before the caller speaks."""
    answered: bool = True
    """Every utterance gets its answer in the end; else the call ends by itself."""


@dataclass(slots=True)
class Observed:
    """What came of it. Times in seconds; None where there was nothing of the kind."""

    scenario: Scenario
    row: dict[str, Any]
    differences: list[Difference]
    words: list[int]
    spells: list[sound.Spell]
    phone: Phone
    first_sound: float | None = None
    """From the fault, or the end of what the caller was saying, to the first sound that they heard; 0 if there was sound."""
    first_word: float | None = None
    """From there to the first word that was made after the fault."""
    dead_air: float = 0.0
    """The longest stretch without any sound from there to that first word."""


def last_word(turn: int) -> int:
    """The last word of the answer to an utterance (0: the greeting)."""
    return turn * 100 + peers.WORDS_AN_ANSWER - 1


def was_heard(phone: Phone, number: int) -> bool:
    return any(kind == "word" and found == number for _, kind, found in phone.line.frames)


async def play(it: House, scenario: Scenario) -> Observed:
    """One call, from the first ring to its finished row."""
    phone = it.phone(Script(list(scenario.faults), scenario.tools))
    await phone.rings()
    await until(lambda: phone.is_over or was_heard(phone, last_word(0)))
    for utterance in scenario.utterances:
        if phone.is_over:
            break
        await asyncio.sleep(scenario.pause)
        phone.line.say(utterance, scenario.frames)
        await until(lambda turn=utterance: phone.is_over or (scenario.answered and was_heard(phone, last_word(turn))))
    if scenario.answered:
        await asyncio.sleep(0.6)
        await phone.hangs_up()
    await until(lambda: phone.is_over)
    return await observe(it, scenario, phone)


def _first_new(phone: Phone) -> float:
    """When the first word was heard that was made after the fault; far in the future if there was none."""
    first_fault = min(phone.model.faults_at, default=NEVER)
    made = _made_by([session for session in phone.model.sessions if session.began > first_fault])
    return next((at for at, kind, number in phone.line.frames if kind == "word" and number in made), NEVER)


async def observe(it: House, scenario: Scenario, phone: Phone) -> Observed:
    """What came of a call that is over."""
    database = Database(it.database_url)
    calls = Calls(database)
    try:
        async with asyncio.timeout(SOON):
            while (row := await calls.row(phone.sid)) is None or row["state"] != "final":
                await asyncio.sleep(0.05)
        events = await calls.events(row["call_id"])
    finally:
        await database.close()
    with contextlib.suppress(TimeoutError):
        await until(lambda: not phone.model.open, 10.0)  # last words are waited for
    differences: list[Difference] = []
    for epoch in sorted({event["epoch"] for event in events}):
        lines = [
            Line(event["seq"], event["at"], event["name"], event["data"] or {}, event["private"], event["commands"] or "")
            for event in events
            if event["epoch"] == epoch
        ]
        differences += replay(lines)
    found = sound.spells(phone.line.frames)
    observed = Observed(scenario, row, differences, sound.words_heard(found), found, phone)
    if phone.model.faults_at:
        _measure(observed)
    return observed


def _measure(observed: Observed) -> None:
    frames, new = observed.phone.line.frames, _first_new(observed.phone)
    fault_at = max(observed.phone.model.faults_at[0], *(at for at in [0.0, *observed.phone.line.said_at] if at < new))
    after = [(at, kind, number) for at, kind, number in frames if at >= fault_at]
    sounds = [at for at, kind, _ in after if kind != "silence"]
    observed.first_sound = max(0.0, sounds[0] - fault_at - TICK_S) if sounds else None
    observed.first_word = new - fault_at if new < NEVER else None
    silent = 0.0
    for at, kind, _ in after:
        if at > new:
            break
        if kind != "silence":
            observed.dead_air, silent = max(observed.dead_air, silent), 0.0
        else:
            silent += TICK_S


def _made_by(sessions: list[peers.Session]) -> set[int]:
    made: set[int] = set()
    for session in sessions:
        for item in session.items:
            for part in item.get("content", ()):
                if part.get("type") == "output_audio":
                    made.add(sound.number_of(part["transcript"]))
    return made


def scenarios(dice: random.Random) -> list[Scenario]:
    """One of each kind; where exactly it fails is thrown."""
    how = dice.choice(("drop", "drop", "close", "expire"))
    message = {2: ("take_message", {"message": "Please call."})}
    return [
        Scenario("before ready: created", (Fault("created"),)),
        Scenario("before ready: updated", (Fault("updated", 1, how),)),
        Scenario("before ready: refused with 429, 500 and 503", (Fault("refuse", 429), Fault("refuse", 500), Fault("refuse", 503))),
        Scenario("while the greeting is said", (Fault("deltas", dice.randint(4, 22), how),)),
        Scenario("while the agent answers", (Fault("deltas", 24 + dice.randint(4, 22), how),)),
        Scenario("while the caller speaks", (Fault("frames", dice.randint(1, 39), how),)),
        Scenario("between the caller's last word and its transcript", (Fault("committed", 1, how),)),
        Scenario("when the answer is asked for", (Fault("response", 2, how),)),
        Scenario("while a tool runs", (Fault("tool", 1, how),), (2,), tools=message),
        Scenario("when the tool's result is given", (Fault("result", 1, how),), (2,), tools=message),
        Scenario("while what is generated plays out", (Fault("done", 2, how),), (1, 3)),
        Scenario("while nobody speaks", (Fault("quiet", dice.randint(150, 190), how),), (1, 3), pause=1.5),
        Scenario("in two sessions one after the other", (Fault("deltas", 30, how), Fault("deltas", dice.randint(2, 9), how))),
        Scenario(
            "after the last tool", (Fault("tool", 1, how),), (4,), answered=False,
            tools={4: ("end_call", {"summary": "Done."})},
        ),
        Scenario(
            "during a transfer", (Fault("tool", 1, how),), (5,), answered=False,
            tools={5: ("transfer_to_human", {"to": "sales", "reason": "asked"})},
        ),
    ]  # fmt: skip


def wrongs(observed: Observed) -> list[str]:
    """Every invariant that a call broke."""
    row, phone, scenario = observed.row, observed.phone, observed.scenario
    wrong = []
    if observed.differences:
        wrong.append(f"the journal replays otherwise: {observed.differences[0]}")
    if not sound.is_rising(observed.words):
        wrong.append(f"words twice or in another order: {observed.words}")
    said = " ".join(u["heard"] or "" for u in row["utterances"] if u["speaker"] == "agent" and not u["key"].startswith("line-"))
    numbers = [sound.number_of(text) for text in said.split()]
    if not sound.is_rising(numbers):
        wrong.append(f"words twice in the transcript: {numbers}")
    turns = [u["heard"] for u in row["utterances"] if u["speaker"] == "caller"]
    if [int(text.split()[1]) for text in turns if text] != list(scenario.utterances):
        wrong.append(f"the caller's turns in the transcript: {turns}")
    if scenario.answered and row["outcome"] != "completed":
        wrong.append(f"outcome {row['outcome']}, {row['end_reason']}")
    if phone.model.most_at_once > 1:
        wrong.append(f"{phone.model.most_at_once} connections at once")
    if phone.model.open:
        wrong.append("a session was left open")
    effects = [tool for tool in row["tool_invocations"] if tool["name"] == "take_message"]
    if len(effects) != ("take_message" in {name for name, _ in scenario.tools.values()}) or any(
        t["status"] != "done" for t in effects
    ):
        wrong.append(f"effects: {[(tool['name'], tool['status']) for tool in effects]}")
    return wrong + phone.house.provider.complaints
