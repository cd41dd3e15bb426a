"""A model without a voice, for many calls at once; what it says and hears can be counted.

The agent's words are numbers. A frame of sound bears the number of the call, and of the agent's word or the caller's turn. The
model knows only what its session was told, as a model does: it answers turn n with word n; it does not use a tool again that the
conversation it was given shows as used; told that the line was cut off, it says so and repeats the last word it was given.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.call.sentences import CUT_OFF
from tests.web.house import TOKEN

FRAME = 160
SAME_SPEECH_S = 2.0
WORD_FRAMES = 40
"""800 ms a word, made at once."""
AGENT, CALLER, SORRY = 1, 2, 3
TOOL_EVERY, NOTE_TURN, HAND_OFF_TURN = 3, 1, 2


def frame(kind: int, call: int, number: int) -> bytes:
    """20 ms of loud sound that says what it is; calls below 262,144 and numbers below 64."""
    return bytes((kind, call >> 12 & 0x3F, call >> 6 & 0x3F, call & 0x3F, number & 0x3F)) * (FRAME // 5)


def read(sound: bytes) -> tuple[int, int, int] | None:
    """What a frame says: (kind, call, number); None for what is neither the model's nor the caller's."""
    head = sound[:5]
    if len(head) < 5 or head[0] not in (AGENT, CALLER, SORRY) or sound[:FRAME] != head * (FRAME // 5):
        return None
    return head[0], head[1] << 12 | head[2] << 6 | head[3], head[4]


@dataclass
class Told:
    """What one session was told before it was asked for anything, and what it said first."""

    words: list[int] = field(default_factory=list)
    first: str = ""
    text: str = ""


class Session:
    """One session with the model."""

    def __init__(self, model: "Model", connection: ServerConnection, number: int) -> None:
        self._model, self._connection, self._call = model, connection, number
        self.told = Told()
        self._items: list[dict[str, Any]] = []
        self._names = self._turn = 0
        self._heard_at = 0.0
        self._answering: asyncio.Task[None] | None = None
        self._speech: asyncio.Task[None] | None = None
        self._instructions = ""

    async def run(self) -> None:
        """Until it is closed."""
        with contextlib.suppress(ConnectionClosed):
            async for text in self._connection:
                message = json.loads(text)
                match message["type"]:
                    case "input_audio_buffer.append":
                        await self._hear(base64.b64decode(message["audio"]))
                    case "session.update":
                        self._instructions = json.dumps(message["session"])
                        await self._say({"type": "session.updated", "session": message["session"]})
                    case "conversation.item.create":
                        self._items.append(message["item"])
                    case "response.create":
                        wish = message.get("response", {}).get("instructions") or ""
                        self._answering = asyncio.create_task(self._answer(wish))
                    case "response.cancel" if self._answering is not None:
                        self._answering.cancel()
        for task in (self._answering, self._speech):
            if task is not None:
                task.cancel()

    async def _say(self, message: dict[str, Any]) -> None:
        self._names += 1
        await self._connection.send(json.dumps({"event_id": f"event_{self._names}"} | message))

    async def _hear(self, sound: bytes) -> None:
        for start in range(0, len(sound) - FRAME + 1, FRAME):
            found = read(sound[start : start + FRAME])
            if found is None or found[0] != CALLER:
                continue
            _, call, turn = found
            if call != self._call:
                self._model.mixed_up += 1
            heard_at, self._heard_at = self._heard_at, time.monotonic()
            if turn == self._turn and self._heard_at - heard_at < SAME_SPEECH_S:
                continue
            self._turn = turn
            self._speech = asyncio.create_task(self._notice(turn))

    async def _notice(self, turn: int) -> None:
        """A turn of the caller's, long enough to be one."""
        with contextlib.suppress(ConnectionClosed):
            item = f"item_c{turn}_{time.monotonic_ns() % 10**12}"
            start = turn * 1_000
            await self._say({"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": start})
            await asyncio.sleep(0.2)
            await self._say({"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": start + 500})
            self._items.append({"type": "message", "role": "user", "content": [{"text": f"turn {turn}"}]})
            await self._say({"type": "input_audio_buffer.committed", "item_id": item})
            written = {"item_id": item, "content_index": 0, "transcript": f"turn {turn}"}
            await self._say({"type": "conversation.item.input_audio_transcription.completed", **written})

    def _said_before(self) -> list[int]:
        texts = [json.dumps(item.get("content", "")) for item in self._items if item.get("role") == "assistant"]
        return [int(number) for text in texts for number in re.findall(r"word (\d+)", text)]

    async def _answer(self, wish: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            name = f"{self._call}_{time.monotonic_ns()}"
            response = {"id": f"resp_{name}", "status": "in_progress"}
            await self._say({"type": "response.created", "response": response})
            if not self.told.first:
                self.told.words = self._said_before()
                self.told.text = self._instructions + json.dumps(self._items)
                self.told.first = wish or "answer"
            try:
                if (tool := self._tool(wish)) is not None:
                    await self._use(response["id"], name, *tool)
                else:
                    await self._speak(response["id"], name, wish)
            except asyncio.CancelledError:
                await self._say({"type": "response.done", "response": response | {"status": "cancelled", "usage": {}}})
                return
            await self._say({"type": "response.done", "response": response | {"status": "completed", "usage": {}}})

    def _tool(self, wish: str) -> tuple[str, dict[str, Any]] | None:
        if wish or not self._turn:
            return None
        used = {(item["name"], item["arguments"]) for item in self._items if item.get("type") == "function_call"}
        wanted: list[tuple[str, dict[str, Any]]] = []
        if self._turn == NOTE_TURN:
            wanted.append(("note_slot", {"slot": "name", "value": f"Caller {self._call}", "confirmed": False}))
        if self._turn % TOOL_EVERY == 0:
            wanted.append(("take_message", {"message": f"message {self._call} {self._turn}"}))
        if self._turn == HAND_OFF_TURN and self._call % 2 and "You are Robin" not in self._instructions:
            wanted.append(("hand_off", {"to": "sales", "reason": "a garden"}))
        return next(((name, arguments) for name, arguments in wanted if (name, json.dumps(arguments)) not in used), None)

    async def _use(self, response: str, name: str, tool: str, arguments: dict[str, Any]) -> None:
        call = {"type": "function_call", "status": "completed", "call_id": f"call_{name}"[:32], "name": tool}
        call["arguments"] = json.dumps(arguments)
        self._items.append(call)
        if tool == "take_message":
            self._model.asked_for[arguments["message"]] += 1
        await self._say({"type": "response.output_item.done", "response_id": response, "item": call | {"id": f"item_t{name}"}})

    async def _speak(self, response: str, name: str, wish: str) -> None:
        item = f"item_a{name}"
        of = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        kind, number = AGENT, 0 if wish else self._turn  # what it is told to say is no answer
        text = f"word {number}"
        if CUT_OFF in wish:
            before = self._said_before()
            kind, number = SORRY, max(before, default=0)
            text = f"sorry, we were cut off; word {number}"
        self._items.append({"type": "message", "role": "assistant", "content": [{"text": text}]})
        await self._say({"type": "response.output_audio_transcript.delta", "delta": text, **of})
        sound = base64.b64encode(frame(kind, self._call, number) * WORD_FRAMES).decode()
        await self._say({"type": "response.output_audio.delta", "delta": sound, **of})
        await self._say({"type": "response.output_audio.done", **of})


class Model:
    """The provider: a session is known by its caller's pseudonym."""

    def __init__(self) -> None:
        self.sessions: dict[int, list[Session]] = defaultdict(list)
        self.asked_for: dict[str, int] = defaultdict(int)
        """How often each message was asked to be taken."""
        self.mixed_up = 0
        """Frames of a caller in another's session."""
        self._numbers: dict[str, int] = {}

    def expect(self, call: int, number: str) -> None:
        """A call from this number will come."""
        self._numbers[hmac.digest(TOKEN.encode(), b"safety identifier\0" + number.encode(), hashlib.sha256).hex()[:32]] = call

    async def handle(self, connection: ServerConnection) -> None:
        """One connection."""
        call = self._numbers.get(connection.request.headers.get("OpenAI-Safety-Identifier", "") if connection.request else "", -1)
        session = Session(self, connection, call)
        self.sessions[call].append(session)
        await session.run()
