"""Moments that a call can be brought to, for tests of the machine. Nothing here awaits."""

import json
from typing import Any

from app.call import commands as c
from app.call import events as e
from app.call.agent import Agent, FloorPolicy, SlotKind, SlotSpec, ToolKind, ToolSpec
from app.call.disposition import Memory
from app.call.journal import Line, Recorder
from app.call.machine import Call, Phase
from app.call.talk import House

BYTES_PER_MS = 8
LINE_MS = 1_000
"""How long the house's own lines are here. They are at hand at once, as the bridge has them."""
POLITE = FloorPolicy()
SLOTS = (
    SlotSpec(name="name", required=True),
    SlotSpec(name="callback_number", kind=SlotKind.PHONE, required=True, read_back=True),
    SlotSpec(name="urgency", kind=SlotKind.CHOICE, choices=("low", "normal", "high")),
)


def control(name: str, **properties: Any) -> ToolSpec:
    return ToolSpec(name=name, kind=ToolKind.CONTROL, description=name, parameters={"type": "object", "properties": properties})


def errand(name: str, **more: Any) -> ToolSpec:
    return ToolSpec(name=name, kind=ToolKind.ERRAND, description=name, parameters={"type": "object"}, **more)


CONTROLS = (
    control("note_slot"),
    control("hand_off"),
    control("transfer_to_human"),
    control("end_call", disposition={"enum": ["booked", "other"]}, intent={"enum": ["book", "other"]}),
    control("wait_for_caller"),
)


def house(floor: FloorPolicy = POLITE, **more: Any) -> House:
    desk = Agent(
        name="desk",
        instructions="Be kind.",
        greeting="Greet the caller.",
        tools=(*CONTROLS, errand("look_up"), errand("book", effect=True, budget_ms=3_000)),
        hands_off_to=("sales",),
        slots=SLOTS,
        floor=floor,
    )
    sales = Agent(name="sales", instructions="Sell.", tools=CONTROLS, slots=SLOTS, floor=floor)
    return House(agents={"desk": desk, "sales": sales}, directory=("manager",), **more)


class Scene:
    """A call being played: `tell` gives it an event and remembers everything it ordered."""

    def __init__(self, floor: FloorPolicy = POLITE, *, resumed: bool = False, memory: Memory | None = None, **more: Any) -> None:
        self.call = Call(house(floor, **more), memory or Memory(agent="desk", agent_path=("desk",)), resumed=resumed)
        self.at = 0
        self.ordered: list[c.Command] = []
        self.lines: list[Line] = []
        self.marks: list[str] = []  # sent, and neither returned nor cleared
        self._recorder = Recorder(self.lines.append)
        self._recorder.opened(self.call, at=0)
        self._responses = self._lines = 0

    def tell(self, event: e.Event, *, at: int | None = None) -> list[c.Command]:
        self.at = max(self.at, self.at if at is None else at)
        commands = self.call.handle(event, at=self.at)
        self._recorder.saw(event, commands, at=self.at)
        self.ordered += commands
        for command in commands:
            if isinstance(command, c.SendMark):
                self.marks.append(command.mark)
            elif isinstance(command, c.ClearPlayout):
                self.marks.clear()
        for command in commands:
            if isinstance(command, c.SayLine):
                self._lines += 1
                payload = b"\x33" * (LINE_MS * BYTES_PER_MS)
                self.tell(e.LineFound(f"line-{self._lines}", command.line, len(payload), f"<{command.line}>", payload))
        return commands

    def journal(self) -> list[Line]:
        self._recorder.flush()
        return self.lines

    def all_of[T](self, kind: type[T]) -> list[T]:
        return [command for command in self.ordered if isinstance(command, kind)]

    def wait(self) -> list[c.Command]:
        """Let time pass until the call's own deadline."""
        due = self.call.deadline
        assert due is not None, "the call waits for nothing"
        return self.tell(e.DeadlinePassed(), at=due)

    def until(self, kind: type[c.Command]) -> list[c.Command]:
        """Let time pass until the call, by itself, orders such a thing; what it ordered then."""
        for _ in range(100):
            ordered = self.wait()
            if any(isinstance(order, kind) for order in ordered):
                return ordered
        raise AssertionError(f"no {kind.__name__} in a hundred deadlines")

    def listened_on(self) -> "Scene":
        """The moment after a caller has gone, in which a last word might still have come, is over."""
        assert self.call.phase is Phase.WRAPPING and self.call.deadline is not None
        self.wait()
        return self

    # ---- moments

    def open(self, *, at: int = 0) -> "Scene":
        self.tell(e.StreamStarted(), at=at)
        self.tell(e.ModelReady(), at=at)
        return self

    def begin_response(self, *, at: int | None = None) -> str:
        self._responses += 1
        response = f"r{self._responses}"
        self.tell(e.ResponseStarted(response), at=at)
        return response

    def say(self, text: str, *, ms: int, response: str, utterance: str | None = None, at: int | None = None) -> str:
        """The model generates a whole utterance at once."""
        utterance = utterance or f"{response}-i"
        self.tell(e.AgentWords(response, utterance, text), at=at)
        self.tell(e.AgentAudio(response, utterance, ms * BYTES_PER_MS, b"\x7f" * (ms * BYTES_PER_MS)))
        self.tell(e.AgentUtteranceEnded(response, utterance))
        return utterance

    def answer(self, text: str = "Very well.", *, ms: int = 1_000, at: int | None = None) -> str:
        """A whole response with one utterance; returns the utterance."""
        response = self.begin_response(at=at)
        utterance = self.say(text, ms=ms, response=response)
        self.tell(e.ResponseEnded(response))
        return utterance

    def hear_all(self, *, at: int | None = None) -> list[c.Command]:
        """The carrier plays everything that is queued, and returns the marks."""
        ordered: list[c.Command] = []
        self.at = self.at if at is None else max(self.at, at)
        while self.marks:
            ordered += self.tell(e.MarkReturned(self.marks.pop(0)))
        return ordered

    def hear(self, marks: int, *, at: int) -> None:
        for _ in range(marks):
            self.tell(e.MarkReturned(self.marks.pop(0)), at=at)

    def caller_says(
        self, utterance: str = "u1", text: str | None = "hello", *, ms: int = 800, at: int | None = None
    ) -> list[c.Command]:
        """The caller speaks and stops; the provider's words come 500 ms late for the end, as they do."""
        self.tell(e.CallerSpeechStarted(utterance, ago_ms=60), at=at)
        ordered = self.tell(e.CallerSpeechStopped(utterance, ago_ms=500), at=self.at + ms + 440)
        ordered += self.tell(e.CallerTurnCommitted(utterance))
        if text is not None:
            ordered += self.tell(e.CallerTranscribed(utterance, text), at=self.at + 200)
        return ordered

    def tool(self, name: str, tool_call: str = "t1", response: str | None = None, **arguments: Any) -> list[c.Command]:
        return self.tell(e.ToolCalled(response or f"r{self._responses}", tool_call, name, json.dumps(arguments)))


def talking(floor: FloorPolicy = POLITE, **more: Any) -> Scene:
    """The greeting has been heard, and the line is quiet."""
    scene = Scene(floor, **more).open()
    scene.answer("Hello, how can I help?", ms=1_000, at=200)
    scene.hear_all(at=1_300)
    assert scene.call.phase is Phase.TALKING
    return scene


def agent_speaking(ms: int = 5_000, floor: FloorPolicy = POLITE, **more: Any) -> Scene:
    """The agent's greeting of so many ms is queued at 0; nothing of it has been acknowledged."""
    scene = Scene(floor, **more).open(at=0)
    response = scene.begin_response()
    scene.say("one two three four five six seven eight nine ten", ms=ms, response=response)
    scene.tell(e.ResponseEnded(response))
    return scene


def kinds(commands: list[c.Command]) -> list[str]:
    return [type(command).__name__ for command in commands]
