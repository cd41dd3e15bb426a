"""A model and a telephone without a voice: scripted, exact to the frame, and able to fail at any moment.

The model (OpenAI's Realtime protocol, as far as the service uses it) hears by `sound.py`: it knows which frames of which utterance
reached it, and writes down just that. Its answer to utterance n are the words n * 100, n * 100 + 1, ...; told that it was broken
off, it goes on after the last word that the conversation holds. What it does wrong is a `Fault`, one for each session of a call.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.call.sentences import GO_ON
from tests.faults import sound
from tests.web.house import TOKEN

SPEED = 4.0
"""The agent's sound is made so many times faster than it plays."""
SILENCE_MS, PREFIX_MS = 500, 300
TRANSCRIPT_S = 0.15
THINKS_S = 0.2
WORDS_AN_ANSWER = 8


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in one session, and when: `at` is the point, `after` how many of it pass before.

    `refuse` (status), `created`, `updated` (handshake messages received), `deltas`, `frames` (of the caller's speech), `committed`,
    `tool` (calls made), `result` (answers to them), `done` (responses), `response` (orders for one), `quiet` (frames of silence).
    """

    at: str = ""
    after: int = 0
    how: str = "drop"
    """`drop`: no close frame. `close`: 1011. `expire`: session_expired and 1001. `hole`: nothing more is sent, read or answered.
    `hush`: from here on the voice is digital silence."""


@dataclass(slots=True)
class Script:
    """What the model does in one call."""

    faults: list[Fault | None] = field(default_factory=list)
    """By session; beyond the end there is none."""
    tools: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """By utterance: the tool that is called before it is answered."""


@dataclass(slots=True)
class Call:
    """What the model knows of one call."""

    script: Script
    sessions: list["Session"] = field(default_factory=list)
    attempts: int = 0
    most_at_once: int = 0
    faults_at: list[float] = field(default_factory=list)

    @property
    def open(self) -> int:
        """Connections now, but for those that were made a black hole: there nobody can see that the other side has gone."""
        return sum(session.is_open and not session.is_hole for session in self.sessions)

    @property
    def last(self) -> "Session":
        """The newest session."""
        return self.sessions[-1]


class Provider:
    """All calls' model. A call is known by its caller's pseudonym."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self.complaints: list[str] = []
        self._server: Server
        self.is_down = False

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._admit, ping_interval=None, close_timeout=0.2, compression=None
        )
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def close(self) -> None:
        """End all sessions."""
        for call in self._calls.values():
            for session in call.sessions:
                session.connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def expect(self, number: str, script: Script) -> Call:
        """A call from this number will come."""
        name = hmac.digest(TOKEN.encode(), b"safety identifier\0" + number.encode(), hashlib.sha256).hex()[:32]
        call = self._calls[name] = Call(script)
        return call

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        call = self._calls.get(request.headers.get("OpenAI-Safety-Identifier", ""))
        if self.is_down:
            return connection.respond(http.HTTPStatus(503), "{}")
        if call is None:
            return None
        number, call.attempts = call.attempts, call.attempts + 1
        fault = call.script.faults[number] if number < len(call.script.faults) else None
        if fault is not None and fault.at == "refuse":
            call.faults_at.append(asyncio.get_running_loop().time())
            body = {"error": {"type": "x", "code": f"scripted_{fault.after}", "message": "No."}}
            return connection.respond(http.HTTPStatus(fault.after), json.dumps(body))
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        call = self._calls.get(connection.request.headers.get("OpenAI-Safety-Identifier", ""))
        if call is None:  # a probe
            call = Call(Script())
        number = call.attempts - 1
        fault = call.script.faults[number] if 0 <= number < len(call.script.faults) else None
        session = Session(self, call, connection, fault)
        call.sessions.append(session)
        call.most_at_once = max(call.most_at_once, call.open)
        await session.run()


class Dropped(Exception):
    """The script has ended the session."""


class Session:
    """One session."""

    def __init__(self, provider: Provider, call: Call, connection: ServerConnection, fault: Fault | None) -> None:
        """`fault`: what goes wrong in it."""
        self.provider, self.call, self.connection, self.fault = provider, call, connection, fault
        self.number = len(call.sessions)
        self.began = asyncio.get_running_loop().time()
        self.is_open = True
        self.items: list[dict[str, Any]] = []
        self.orders: list[str | None] = []
        self.results: dict[str, str] = {}
        self.hushed = self.is_hole = False
        self._left = dict.fromkeys((fault.at,), fault.after) if fault else {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._response: asyncio.Task[None] | None = None
        self._response_id = ""
        self._unread = bytearray()
        self._appended = self._quiet = self._names = 0  # the first two in bytes
        self._speaking: str | None = None
        self._utterance: list[tuple[int, int]] = []
        self.turns: list[int] = []
        """The utterances that were committed here, by number; a stretch that was none is -1."""

    # ---- the socket

    async def run(self) -> None:
        try:
            await self._passes("created")
            await self._send({"type": "session.created", "session": {"expires_at": 0}})
            async for text in self.connection:
                await self._take(json.loads(text))
        except (ConnectionClosed, Dropped):
            pass
        finally:
            self.is_open = False
            for task in self._tasks:
                task.cancel()

    async def _send(self, message: dict[str, Any]) -> None:
        self._names += 1
        if self.is_hole:
            await asyncio.Event().wait()
        await self.connection.send(json.dumps({**message, "event_id": f"event_{self._names}"}))

    async def _passes(self, point: str) -> None:
        """A point is passed at which something may go wrong."""
        if point not in self._left or self.hushed:
            return
        self._left[point] -= 1
        if self._left[point] > 0:
            return
        fault = self.fault
        assert fault is not None
        self.call.faults_at.append(asyncio.get_running_loop().time())
        match fault.how:
            case "hush":
                self.hushed = True
                return
            case "hole":
                self.is_hole = True
                self.connection.transport.pause_reading()
                self._stop()
                await asyncio.Event().wait()
            case "drop":
                self.connection.transport.abort()
            case "close":
                await self.connection.close(1011)
            case "expire":
                await self._send({"type": "error", "error": {"type": "x", "code": "session_expired", "message": "60 minutes"}})
                await self.connection.close(1001, "Your session hit the maximum duration of 60 minutes.")
        self.is_open = False
        self._stop()
        raise Dropped

    def _stop(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _later(self, work: Any) -> asyncio.Task[None]:
        async def guarded() -> None:
            with contextlib.suppress(ConnectionClosed, Dropped):
                await work

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}_{id(self.call) % 9973}_{self.number}_{self._names}"

    # ---- what the service says

    async def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "input_audio_buffer.append":
                await self._hear(base64.b64decode(message["audio"]))
            case "session.update":
                await self._passes("updated")
                await self._send({"type": "session.updated", "session": message["session"]})
            case "conversation.item.create":
                await self._item(message["item"])
            case "response.create":
                if self._response is not None and not self._response.done():
                    self.provider.complaints.append("two responses at a time")
                    return
                instructions = message["response"].get("instructions")
                self.orders.append(instructions)
                self._response_id = self._name("resp")
                self._response = self._later(self._respond(self._response_id, instructions))
            case "response.cancel":
                if self._response is not None and not self._response.done():
                    self._response.cancel()
                    await self._done(self._response_id, "cancelled")
            case "conversation.item.truncate":
                if not any(item.get("id") == message["item_id"] for item in self.items):
                    self.provider.complaints.append("an item was truncated that this session does not have")
            case other:
                self.provider.complaints.append(f"an unknown message: {other}")

    async def _item(self, item: dict[str, Any]) -> None:
        self.items.append(item)
        if item["type"] == "function_call_output":
            if not any(known["type"] == "function_call" and known["call_id"] == item["call_id"] for known in self.items):
                self.provider.complaints.append("a result without its call")
            self.results[item["call_id"]] = item["output"]
            await self._passes("result")

    # ---- hearing

    async def _hear(self, audio: bytes) -> None:
        self._unread += audio
        while self._unread:
            # A stretch that is heard again need not begin at the border of a frame: whatever is loud begins one.
            silent = len(self._unread) - len(self._unread.lstrip(b"\xff"))
            if silent:
                await self._silence(min(silent, sound.FRAME))
            elif len(self._unread) >= sound.FRAME:
                await self._speech(bytes(self._unread[: sound.FRAME]))
            else:
                return

    async def _silence(self, size: int) -> None:
        del self._unread[:size]
        self._appended += size
        self._quiet += size
        if self._speaking is None:
            await self._passes("quiet")
        if self._speaking is not None and self._quiet >= SILENCE_MS * sound.BYTES_PER_MS:
            await self._commit()

    async def _speech(self, frame: bytes) -> None:
        del self._unread[: sound.FRAME]
        kind, number = sound.heard(frame)
        if kind != "caller":
            self.provider.complaints.append("a sound that nobody made")
        if self._speaking is None:
            self._speaking, self._utterance = self._name("item"), []
            began = max(0, self._appended // sound.BYTES_PER_MS - PREFIX_MS)
            await self._send({"type": "input_audio_buffer.speech_started", "item_id": self._speaking, "audio_start_ms": began})
        self._appended += sound.FRAME
        self._quiet = 0
        self._utterance.append((number >> 7, number & 0x7F))
        await self._passes("frames")

    async def _commit(self) -> None:
        item, frames, self._speaking = self._speaking, self._utterance, None
        numbers = {utterance for utterance, _ in frames}
        # The words are those that were spoken only if every frame of them came, in order, once.
        whole = len(numbers) == 1 and [frame for _, frame in frames] == list(range(len(frames)))
        turn = numbers.pop() if whole else -1
        self.turns.append(turn)
        text = f"turn {turn} of {len(frames)} frames"
        ended = self._appended // sound.BYTES_PER_MS
        await self._send({"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": ended})
        await self._send({"type": "input_audio_buffer.committed", "item_id": item, "previous_item_id": None})
        content = [{"type": "input_audio", "transcript": text}]
        self.items.append({"type": "message", "role": "user", "id": item, "content": content})
        await self._passes("committed")

        async def transcribe() -> None:
            await asyncio.sleep(TRANSCRIPT_S)
            written = {"item_id": item, "content_index": 0, "transcript": text}
            await self._send({"type": "conversation.item.input_audio_transcription.completed", **written})

        self._later(transcribe())

    # ---- speaking

    def _words(self, instructions: str | None) -> list[int]:
        """What is to be said next: after the last word that was heard, or the answer to what the caller said last."""
        said = [text for item in self.items if item.get("role") == "assistant" for text in _texts(item)]
        if instructions is not None and GO_ON in instructions and said:
            last = sound.number_of(said[-1].replace("[interrupted by caller]", "").split()[-1])
            return list(range(last + 1, last // 100 * 100 + WORDS_AN_ANSWER))
        turns = [text for item in self.items if item.get("role") == "user" for text in _texts(item) if text.startswith("turn ")]
        turn = int(turns[-1].split()[1]) if turns else 0
        return list(range(turn * 100, turn * 100 + WORDS_AN_ANSWER))

    async def _respond(self, response: str, instructions: str | None) -> None:
        await self._passes("response")
        await self._send({"type": "response.created", "response": {"id": response, "status": "in_progress"}})
        await asyncio.sleep(THINKS_S)
        words = self._words(instructions)
        turn = words[0] // 100 if words else 0
        tool = self.call.script.tools.get(turn)
        called = [item for item in self.items if item["type"] == "function_call"]
        if tool is not None and not any(item["name"] == tool[0] for item in called):
            await self._call_tool(response, *tool)
        else:
            await self._say(response, words)
        await self._done(response, "completed")

    async def _call_tool(self, response: str, name: str, arguments: dict[str, Any]) -> None:
        call = {"type": "function_call", "call_id": self._name("call"), "name": name, "arguments": json.dumps(arguments)}
        self.items.append(call)
        item = {**call, "id": self._name("item"), "status": "completed"}
        await self._send({"type": "response.output_item.done", "response_id": response, "item": item})
        await self._passes("tool")

    async def _say(self, response: str, words: list[int]) -> None:
        item = self._name("item")
        of = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        self.items.append({"type": "message", "role": "assistant", "id": item, "content": []})
        for number in words:
            await self._send({"type": "response.output_audio_transcript.delta", "delta": f"{sound.word(number)} ", **of})
            for _ in range(sound.WORD_DELTAS):
                voice = b"\xff" * sound.DELTA if self.hushed else sound.agent_delta(number)
                delta = base64.b64encode(voice).decode()
                await self._send({"type": "response.output_audio.delta", "delta": delta, **of})
                await self._passes("deltas")
                await asyncio.sleep(0.1 / SPEED)
            self.items[-1]["content"].append({"type": "output_audio", "transcript": sound.word(number)})
        await self._send({"type": "response.output_audio.done", **of})

    async def _done(self, response: str, status: str) -> None:
        await self._send({"type": "response.done", "response": {"id": response, "status": status, "usage": {}}})
        await self._passes("done")


def _texts(item: dict[str, Any]) -> list[str]:
    texts = [part.get("text") or part.get("transcript") or "" for part in item.get("content", ())]
    return [" ".join(texts)] if item.get("role") == "assistant" and texts else texts


# ---- the telephone


class Line:
    """What a telephone does with sound: plays what it is sent, frame by frame in real time, and says what is spoken into it."""

    def __init__(self) -> None:
        self._queue: deque[bytes | str] = deque()
        self._rest = b""
        self.to_say: deque[bytes] = deque()
        self.frames: list[tuple[float, str, int]] = []
        """What was heard: (the loop's time, kind, number), every 20 ms."""
        self.cleared = 0
        self.said_at: list[float] = []
        """When the last frame of each of the caller's utterances was said."""

    def play(self, audio: bytes) -> None:
        """Queue sound."""
        audio = self._rest + audio
        whole = len(audio) // sound.FRAME * sound.FRAME
        self._queue.extend(audio[start : start + sound.FRAME] for start in range(0, whole, sound.FRAME))
        self._rest = audio[whole:]

    def mark(self, name: str) -> None:
        """Queue a mark."""
        if self._rest:
            self._queue.append(self._rest.ljust(sound.FRAME, b"\xff"))
            self._rest = b""
        self._queue.append(name)

    def clear(self) -> list[str]:
        """Throw the queue away; the marks in it."""
        self.cleared += 1
        marks = [entry for entry in self._queue if isinstance(entry, str)]
        self._queue.clear()
        self._rest = b""
        return marks

    def tick(self, at: float) -> tuple[bytes, list[str]]:
        """20 ms go by: what is said in them, and the marks that were passed."""
        marks = self._marks()
        entry = self._queue.popleft() if self._queue else None
        assert not isinstance(entry, str)
        self.frames.append((at, *(sound.heard(entry) if entry is not None else ("silence", 0))))
        marks += self._marks()
        frame = self.to_say.popleft() if self.to_say else sound.SILENCE
        if frame is not sound.SILENCE and not self.to_say:
            self.said_at.append(at)
        return frame, marks

    def _marks(self) -> list[str]:
        marks = []
        while self._queue and isinstance(self._queue[0], str):
            marks.append(str(self._queue.popleft()))
        return marks

    def say(self, utterance: int, frames: int) -> None:
        """The caller says an utterance of so many frames."""
        self.to_say.extend(sound.caller_frame(utterance, frame) for frame in range(frames))
