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
LINE = b"\x33" * 1_600


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
    """One session of the model's side; `opens` decides what comes of its opening."""

    def __init__(self, post, order: c.OpenModel, opens) -> None:
        self.post, self.order, self._opens = post, order, opens
        self.heard: list[bytes] = []
        self.told: list[c.Command] = []
        self.ended = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self.ended.is_set()

    async def open(self) -> None:
        await self._opens(self)

    def append(self, mulaw: bytes) -> None:
        self.heard.append(mulaw)

    def send(self, command) -> None:
        self.told.append(command)

    async def close(self) -> None:
        self.ended.set()


async def never(model: Model) -> None:
    """An opening that comes to nothing by itself."""
    await model.ended.wait()
    raise ModelUnavailable("closed", "by_us")


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

    def __init__(self, floor: FloorPolicy | None = None, *, errand=None, opens=None, **more) -> None:
        self.caller, self.keeper, self.opens = Caller(), Keeper(), opens
        self.sessions: list[Model] = []
        self.call = Call(house(floor or FloorPolicy(), **more), Memory(agent="desk", agent_path=("desk",)))

        async def ready(model: Model) -> None:
            model.post(e.ModelReady())

        def session(post, order) -> Model:
            self.sessions.append(Model(post, order, opens or ready))
            return self.sessions[-1]

        async def none(order, context) -> str:
            raise AssertionError("no errand was expected")

        self.bridge = Bridge(
            self.call,
            call_id="call-1",
            epoch=1,
            caller_number="+15550100001",
            born_ago_ms=150,
            caller=self.caller,
            sessions=session,
            line=lambda name: (f"<{name}>", LINE),
            keeper=self.keeper,
            errand=errand or none,
        )

    @property
    def model(self) -> Model:
        """The newest session."""
        return self.sessions[-1]

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
        if self.rig.opens is None:
            await self.rig.until(lambda: self.rig.call.talks)
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
    assert rig.model.heard[1:] == [b"a" * 160], "after the nothing that was kept"
    rig.bridge.post(e.CarrierEnded("completed"))
    await rig.until(lambda: not rig.call.listening)
    rig.caller.hear(b"b" * 160)
    assert rig.model.heard[1:] == [b"a" * 160]


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
    rig = Rig(opens=never)
    plan, close = rig.keeper.plan, rig.caller.close

    async def planned(intent, target):
        order.append("plan")
        await plan(intent, target)

    async def closed(code=1000):
        order.append("close")
        await close(code)

    rig.keeper.plan, rig.caller.close = planned, closed
    async with running(rig):
        rig.bridge.post(e.ModelLost("refused", fatal=True))
        await rig.until(rig.marks)
        rig.caller_hears_all()
        await rig.until(rig.caller.closed.is_set)
    assert order[:2] == ["plan", "close"] and rig.keeper.plans == [(Intent.TRANSFER, "manager")]


@pytest.mark.parametrize("fault", [StoreUnavailable("plan"), Fenced("call-1", 1)])
async def test_a_store_that_cannot_take_the_plan_does_not_keep_the_line_open(fault):
    rig = Rig(opens=never)
    rig.keeper.fault = fault
    async with running(rig):
        rig.bridge.post(e.ModelLost("refused", fatal=True))
        await rig.until(rig.marks)
        rig.caller_hears_all()
        await rig.until(rig.caller.closed.is_set)


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


# ---- sessions with the model


def said(rig: Rig, session: int, text: str, *, ms: int = 100) -> None:
    """A session says something."""
    post, number = rig.sessions[session].post, session + 1
    post(e.ResponseStarted(f"r{number}"))
    post(e.AgentWords(f"r{number}", f"i{number}", text))
    post(e.AgentAudio(f"r{number}", f"i{number}", ms * 8, bytes([0x40 + number]) * ms * 8))


def played(rig: Rig) -> bytes:
    return b"".join(command.payload for command in rig.caller.sent if isinstance(command, c.PlayAudio))


async def test_a_lost_session_is_followed_by_another_and_cannot_speak_any_more(rig):
    said(rig, 0, "Hello there, this is Example Plumbing.", ms=1_500)
    rig.sessions[0].post(e.ModelLost("dropped"))
    await rig.until(lambda: len(rig.sessions) == 2 and any(isinstance(told, c.Speak) for told in rig.model.told))
    before = len(rig.caller.sent)
    rig.sessions[0].post(e.AgentAudio("r1", "late", 800, b"\x11" * 800))
    rig.sessions[0].post(e.ToolCalled("r1", "t9", "book", "{}"))
    rig.sessions[0].post(e.ModelLost("dropped"))
    assert len(rig.caller.sent) == before and len(rig.sessions) == 2, "it is dropped at the door"
    said(rig, 1, "As I said.")
    assert played(rig).endswith(b"\x42" * 800)
    assert [type(told) for told in rig.model.told[:2]] == [c.Recall, c.Speak]


async def test_what_the_caller_said_to_a_lost_session_is_given_to_the_next_before_what_they_say_now(rig):
    frames = [bytes([number]) * 160 for number in range(200)]
    for frame in frames[:100]:
        rig.caller.hear(frame)
    rig.sessions[0].post(e.CallerSpeechStarted("u1", ago_ms=100))
    rig.sessions[0].post(e.ModelLost("dropped"))
    rig.caller.hear(frames[100])
    again, live = rig.sessions[1].heard
    assert live == frames[100]
    assert again and b"".join(frames[:100]).endswith(again)
    assert len(again) == rig.sessions[1].order.hear_again_ms * 8 >= 100 * 8


async def test_of_an_opening_that_fails_the_caller_is_heard_again_by_the_next_try():
    openings = []

    async def second_time(model: Model) -> None:
        openings.append(model)
        if len(openings) == 2:
            raise ModelUnavailable("unreachable")
        model.post(e.ModelReady())

    async with running(Rig(opens=second_time)) as rig:
        await rig.until(lambda: rig.call.talks)
        rig.bridge.post(e.CallerSpeechStarted("u1"))
        rig.caller.hear(b"\x21" * 160)
        rig.sessions[0].post(e.ModelLost("dropped"))
        await rig.until(lambda: len(rig.sessions) == 3)
        rig.caller.hear(b"\x22" * 160)
        assert b"".join(rig.sessions[2].heard) == b"\x21" * 160 + b"\x22" * 160
        assert [session.order.tries for session in rig.sessions[1:]] == [1, 2]


async def test_a_line_of_the_house_is_played_and_kept_like_the_agents_own_words(rig):
    rig.bridge.post(e.CallerTurnCommitted("u1"))
    rig.sessions[0].post(e.ModelLost("dropped"))
    assert played(rig) == LINE
    rig.caller_hears_all()
    kept = [item.utterance for item in rig.keeper.kept if isinstance(item, c.KeepUtterance)][-1]
    assert (kept.key, kept.heard, kept.heard_ms, kept.interrupted) == ("line-1", "<one_moment>", 200, False)


async def test_a_spare_session_takes_over_in_a_pause_and_the_one_before_is_closed():
    async with running(Rig(rollover_ms=100)) as rig:
        said(rig, 0, "Hello.")
        rig.bridge.post(e.AgentUtteranceEnded("r1", "i1"))
        rig.bridge.post(e.ResponseEnded("r1"))
        rig.caller_hears_all()
        rig.caller.hear(b"\x21" * 160)
        await rig.until(lambda: len(rig.sessions) == 2 and rig.sessions[0].closed)
        assert rig.sessions[1].order.beside and not rig.sessions[1].closed
        assert [type(told) for told in rig.sessions[1].told] == [c.Recall]
        assert rig.sessions[1].heard == [b"\x21" * 160], "so that a word that was just begun is not lost"
        rig.sessions[0].post(e.CallerSpeechStarted("old"))
        rig.sessions[1].post(e.CallerSpeechStarted("new"))
        assert rig.call.floor.speaking == "new"
        assert played(rig) == b"\x41" * 800, "nothing was heard of it"
    assert list(replay(rig.lines())) == []


async def test_a_spare_session_that_is_lost_before_its_turn_costs_nothing(rig):
    async with running(Rig(rollover_ms=50)) as rig:
        said(rig, 0, "Hello.")  # and the response goes on
        await rig.until(lambda: len(rig.sessions) == 2)
        rig.sessions[1].post(e.ModelLost("dropped"))
        await rig.until(lambda: rig.sessions[1].closed)
        said(rig, 1, "I am nobody.")
        assert not rig.sessions[0].closed and played(rig) == b"\x41" * 800
