"""One live call over legs of the test's own: order, deadlines, errands, a leg lost."""

import asyncio
import json

import anyio
import pytest

from app.bridge import Bridge
from app.call import commands as c
from app.call import events as e
from app.call.agent import FloorPolicy
from app.call.disposition import EndReason, Intent, Memory, Outcome
from app.call.journal import Line, replay
from app.call.machine import Call
from app.errors import Fenced, ModelUnavailable, StoreUnavailable, ToolRefused
from tests.call.scene import house

SOON = 20.0  # seconds: a bound on waiting, never a measure


class Caller:
    """The caller's side: the test plays the carrier."""

    def __init__(self) -> None:
        self.sent: list[c.Command] = []
        self.sending_since: float | None = None
        self.closed = asyncio.Event()
        self.post = self.hear = None
        self.pumping = asyncio.Event()

    async def pump(self, post, hear) -> None:
        self.post, self.hear = post, hear
        self.pumping.set()
        await self.closed.wait()
        post(e.StreamEnded(clean=False))

    def send(self, command) -> None:
        self.sent.append(command)

    async def close(self, code: int = 1000) -> None:
        self.closed.set()


class Model:
    """The model's side."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.told: list[c.Command] = []
        self.closed = False

    def append(self, mulaw: bytes) -> None:
        self.heard.append(mulaw)

    def send(self, command) -> None:
        self.told.append(command)

    async def close(self) -> None:
        self.closed = True


class Keeper:
    """The store's side; `down` makes it refuse."""

    def __init__(self) -> None:
        self.kept: list = []
        self.plans: list = []
        self.filed: list = []
        self.fault: Exception | None = None

    def keep(self, item) -> None:
        self.kept.append(item)

    async def plan(self, intent, target) -> None:
        if self.fault:
            raise self.fault
        self.plans.append((intent, target))

    async def file(self, filed) -> None:
        self.filed.append((filed.outcome, filed.end_reason))


class Rig:
    """A bridge and all that surrounds it."""

    def __init__(self, floor: FloorPolicy | None = None, *, errand=None, open_model=None) -> None:
        self.caller, self.model, self.keeper = Caller(), Model(), Keeper()
        self.call = Call(house(floor or FloorPolicy()), Memory(agent="desk", agent_path=("desk",)))

        async def opens() -> None:
            self.bridge.post(e.ModelReady())

        async def none(order, context) -> str:
            raise AssertionError("no errand was expected")

        self.bridge = Bridge(
            self.call,
            call_id="call-1",
            epoch=1,
            caller_number="+15550100001",
            born_ago_ms=150,
            caller=self.caller,
            model=self.model,
            open_model=open_model or opens,
            keeper=self.keeper,
            errand=errand or none,
        )

    async def until(self, true) -> None:
        with anyio.fail_after(SOON):
            while not true():
                await asyncio.sleep(0.002)

    def model_says(self, text: str, *, ms: int, response: str = "r1", utterance: str = "i1") -> None:
        for event in (
            e.ResponseStarted(response),
            e.AgentWords(response, utterance, text),
            e.AgentAudio(response, utterance, ms * 8, b"\x55" * (ms * 8)),
            e.AgentUtteranceEnded(response, utterance),
            e.ResponseEnded(response),
        ):
            self.bridge.post(event)

    def marks(self) -> list[str]:
        return [command.mark for command in self.caller.sent if isinstance(command, c.SendMark)]

    def caller_hears_all(self) -> None:
        for mark in self.marks():
            self.bridge.post(e.MarkReturned(mark))

    def lines(self) -> list[Line]:
        return [item for item in self.keeper.kept if isinstance(item, Line)]


@pytest.fixture
async def rig():
    async with running(Rig()) as it:
        yield it


class running:
    """Runs a rig's bridge, and sees that it ends."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    async def __aenter__(self) -> Rig:
        self.task = asyncio.ensure_future(self.rig.bridge.run())
        await self.rig.until(self.rig.caller.pumping.is_set)
        return self.rig

    async def __aexit__(self, *_) -> None:
        self.rig.bridge.post(e.CarrierEnded("completed"))
        with anyio.fail_after(SOON):
            await self.task


async def test_a_call_is_greeted_heard_and_filed_once():
    async with running(Rig()) as rig:
        await rig.until(lambda: c.Speak("Greet the caller.") in rig.model.told)
        rig.model_says("Hello.", ms=300)
        await rig.until(lambda: len(rig.marks()) == 4)
        played = b"".join(command.payload for command in rig.caller.sent if isinstance(command, c.PlayAudio))
        assert played == b"\x55" * 2_400
        rig.caller_hears_all()
        await rig.until(lambda: any(isinstance(item, c.KeepUtterance) for item in rig.keeper.kept))
    assert rig.keeper.filed == [(Outcome.ABANDONED, EndReason.CALLER_HUNG_UP)]
    assert rig.model.closed and rig.caller.closed.is_set()
    assert list(replay(rig.lines())) == []


async def test_the_callers_sound_goes_straight_to_the_model_while_the_call_listens(rig):
    rig.caller.hear(b"a" * 160)
    assert rig.model.heard == [b"a" * 160]
    rig.bridge.post(e.CarrierEnded("completed"))
    await rig.until(lambda: not rig.call.listening)
    rig.caller.hear(b"b" * 160)
    assert rig.model.heard == [b"a" * 160]


async def test_time_is_counted_from_the_calls_birth():
    async with running(Rig()) as rig:
        pass
    assert all(line.at >= 150 for line in rig.lines())
    assert [line.at for line in rig.lines()] == sorted(line.at for line in rig.lines())


async def test_a_deadline_is_not_slept_through():
    async with running(Rig(FloorPolicy(silence_ms=50))) as rig:
        rig.model_says("Hello.", ms=20)
        await rig.until(rig.marks)
        rig.caller_hears_all()
        await rig.until(
            lambda: any(isinstance(told, c.Speak) and "still there" in (told.instructions or "") for told in rig.model.told)
        )


async def test_an_errand_runs_outside_with_the_servers_state_and_comes_back():
    seen = []

    async def errand(order, context) -> str:
        seen.append((order.name, context.caller_number, dict(context.slots), context.agent, context.epoch))
        return '{"found": true}'

    async with running(Rig(errand=errand)) as rig:
        rig.bridge.post(e.ResponseStarted("r1"))
        rig.bridge.post(e.ToolCalled("r1", "t1", "look_up", "{}"))
        await rig.until(lambda: c.GiveResult("t1", '{"found": true}') in rig.model.told)
    assert seen == [("look_up", "+15550100001", {}, "desk", 1)]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (ToolRefused("it is closed on Sundays"), "it is closed on Sundays"),
        (ValueError("secret 4111"), "the tool failed; say that it did not work, and offer another way"),
    ],
)
async def test_an_errand_that_fails_is_an_answer_and_never_the_calls_end(fault, sentence):
    async def errand(order, context) -> str:
        raise fault

    async with running(Rig(errand=errand)) as rig:
        rig.bridge.post(e.ResponseStarted("r1"))
        rig.bridge.post(e.ToolCalled("r1", "t1", "look_up", "{}"))
        await rig.until(lambda: c.GiveResult("t1", json.dumps({"error": sentence})) in rig.model.told)
        assert not rig.call.over


async def test_the_loop_goes_on_while_an_errand_hangs():
    async def errand(order, context) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async with running(Rig(errand=errand)) as rig:
        rig.bridge.post(e.ResponseStarted("r1"))
        rig.bridge.post(e.ToolCalled("r1", "t1", "book", "{}"))
        rig.bridge.post(e.AgentAudio("r1", "i1", 800, bytes(800)))
        await rig.until(rig.marks)
        rig.bridge.post(e.CallerSpeechStarted("u1"))
        await rig.until(lambda: c.ClearPlayout() in rig.caller.sent)
        for task in list(rig.bridge._tasks):  # the hanging errand; its budget is the toolbox's business
            if "errand" in repr(task):
                task.cancel()


async def test_what_follows_is_stored_before_the_stream_is_closed():
    order = []
    rig = Rig()
    plan, close = rig.keeper.plan, rig.caller.close

    async def planned(intent, target):
        order.append("plan")
        await plan(intent, target)

    async def closed(code=1000):
        order.append("close")
        await close(code)

    rig.keeper.plan, rig.caller.close = planned, closed
    async with running(rig):
        rig.bridge.post(e.ModelLost("closed"))
        await rig.until(rig.caller.closed.is_set)
    assert order[:2] == ["plan", "close"] and rig.keeper.plans == [(Intent.TALK, None)]


@pytest.mark.parametrize("fault", [StoreUnavailable("plan"), Fenced("call-1", 1)])
async def test_a_store_that_cannot_take_the_plan_does_not_keep_the_line_open(fault):
    rig = Rig()
    rig.keeper.fault = fault
    async with running(rig):
        rig.bridge.post(e.ModelLost("closed"))
        await rig.until(rig.caller.closed.is_set)


@pytest.mark.parametrize(("retryable", "intent"), [(True, Intent.TALK), (False, Intent.APOLOGISE)])
async def test_a_model_that_cannot_be_had_leads_to_another_try_or_to_an_apology(retryable, intent):
    async def refused() -> None:
        raise ModelUnavailable("refused", "http_401", retryable=retryable)

    async with running(Rig(open_model=refused)) as rig:
        await rig.until(lambda: rig.keeper.plans)
    assert rig.keeper.plans == [(intent, None)]


async def test_a_fault_of_our_own_gives_the_stream_up_and_files_nothing():
    rig = Rig()

    def broken(event, *, at):
        raise RuntimeError("our bug")

    async with running(rig):
        rig.call.handle = broken
        rig.bridge.post(e.DigitPressed("1"))
        await rig.until(rig.caller.closed.is_set)
    assert rig.keeper.plans == [(Intent.TALK, None)] and rig.keeper.filed == []


async def test_a_peer_that_reads_nothing_is_noticed(rig):
    assert not rig.bridge.is_stalled
    rig.caller.sending_since = asyncio.get_running_loop().time() - 6
    assert rig.bridge.is_stalled


async def test_whose_the_row_is_to_finish():
    rig = Rig()
    async with running(rig):
        assert rig.bridge.will_file
        rig.bridge.post(e.StreamMovedOn())
        assert not rig.bridge.will_file, "another stream has it"


async def test_a_bridge_that_was_given_up_leaves_the_row_to_others():
    rig = Rig()

    def broken(event, *, at):
        raise RuntimeError("our bug")

    async with running(rig):
        rig.call.handle = broken
        rig.bridge.post(e.DigitPressed("1"))
        assert not rig.bridge.will_file


async def test_a_bridge_that_has_its_fact_to_file_keeps_it_until_it_is_done():
    rig = Rig()
    async with running(rig):
        rig.bridge.post(e.CarrierEnded("completed"))
        await rig.until(lambda: rig.call.over)
        assert rig.bridge.will_file


async def test_a_row_is_filed_although_a_leg_does_not_let_itself_be_closed():
    rig = Rig()
    never = asyncio.Event()

    async def stuck(code=1000):
        await never.wait()

    task = asyncio.ensure_future(rig.bridge.run())
    await rig.until(rig.caller.pumping.is_set)
    rig.caller.close = stuck
    rig.bridge.post(e.CarrierEnded("completed"))
    await rig.until(lambda: rig.keeper.filed)
    never.set()
    rig.caller.closed.set()
    with anyio.fail_after(SOON):
        await task
