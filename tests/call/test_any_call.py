"""Whatever happens to a call, in whatever order, it keeps its promises. A hypothesis state machine."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.call import commands as c
from app.call import events as e
from app.call.agent import FloorPolicy
from app.call.disposition import Usage
from app.call.journal import replay
from app.call.machine import Phase
from tests.call.scene import Scene

CALLS = st.sampled_from(
    ["note_slot", "hand_off", "transfer_to_human", "end_call", "wait_for_caller", "look_up", "book", "nonsense"]
)
ARGUMENTS = st.sampled_from(
    [
        "{}",
        "{",
        '{"slot": "name", "value": "Ann"}',
        '{"to": "sales"}',
        '{"to": "manager"}',
        '{"disposition": "other", "summary": "s"}',
    ]
)


class AnyCall(RuleBasedStateMachine):
    """The world does what it likes; the rules below never break."""

    @initialize(protected=st.sampled_from([0, 400]), interruptible=st.booleans(), opened=st.sampled_from([True, True, False]))
    def begin(self, protected: int, interruptible: bool, opened: bool) -> None:
        policy = FloorPolicy(protected_ms=protected, interruptible=interruptible, silence_ms=3_000, silence_prompts=1)
        self.scene = Scene(policy, rollover_ms=3_000)
        self.session = self.spare = "none"  # or `opening`, or `ready`
        self.running: list[str] = []
        self.asked = 0
        self.errands: list[str] = []
        self.names = 0
        self.after_clear: set[str] = set()  # responses cut by us
        self.phases = [self.scene.call.phase]
        if opened:
            self.tell(e.StreamStarted())
            self.model_is_ready(100, None)
            self.agent_answers(1_000)

    def tell(self, event: e.Event, later: int = 0) -> None:
        scene = self.scene
        before = scene.call.over
        ordered = scene.tell(event, at=scene.at + later)
        assert not (before and ordered), "an order after the end"
        for command in ordered:
            match command:
                case c.Speak():
                    assert not self.running and not self.asked, "two responses at a time"
                    assert self.session == "ready", "an order to nobody"
                    self.asked = 1
                case c.OpenModel(beside=True):
                    assert self.session == "ready" and self.spare == "none", "two connections at most"
                    self.spare = "opening"
                case c.OpenModel():
                    assert self.session != "opening", "one opening at a time"
                    self.session, self.spare, self.running, self.asked = "opening", "none", [], 0
                case c.SwapModel():
                    assert self.spare == "ready"
                    self.session, self.spare, self.running, self.asked = "ready", "none", [], 0
                case c.CloseModel():
                    self.session, self.spare, self.running, self.asked = "none", "none", [], 0
                case c.Recall():
                    assert self.session == "ready"
                case c.CancelSpeech(response=response):
                    assert response in self.running, "a cancel with nothing to cancel"
                    self.after_clear.add(response)
                case c.RunErrand(tool_call=tool_call):
                    assert tool_call not in self.errands
                    self.errands.append(tool_call)
                case c.PlayAudio(payload=payload, size=size):
                    assert len(payload) == size
                    assert isinstance(event, e.AgentAudio) and event.response not in self.after_clear, "late audio was played"
        if self.phases[-1] is not scene.call.phase:
            self.phases.append(scene.call.phase)

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    @rule(later=st.integers(0, 2_000))
    def stream_starts(self, later: int) -> None:
        self.tell(e.StreamStarted(), later)

    @precondition(lambda self: self.session == "opening")
    @rule(later=st.integers(0, 2_000), lasts_ms=st.sampled_from([None, 1, 301_000, 3_600_000]))
    def model_is_ready(self, later: int, lasts_ms: int | None) -> None:
        self.session = "ready"
        self.tell(e.ModelReady(lasts_ms), later)

    @precondition(lambda self: self.session == "opening")
    @rule(later=st.integers(0, 3_000), fatal=st.integers(0, 9))
    def no_model_is_to_be_had(self, later: int, fatal: int) -> None:
        self.session = "none"
        self.tell(e.ModelLost("refused", fatal == 0), later)

    @precondition(lambda self: self.spare == "opening")
    @rule(later=st.integers(0, 2_000), lost=st.booleans())
    def spare_is_ready_or_not(self, later: int, lost: bool) -> None:
        self.spare = "none" if lost else "ready"
        self.tell(e.SpareLost("refused", True) if lost else e.SpareReady(), later)

    @precondition(lambda self: self.spare == "ready")
    @rule(later=st.integers(0, 500))
    def spare_goes(self, later: int) -> None:
        self.spare = "none"
        self.tell(e.SpareLost("dropped"), later)

    @precondition(lambda self: self.asked and not self.running)
    @rule(later=st.integers(0, 900))
    def response_begins(self, later: int) -> None:
        response = self.name("r")
        self.running, self.asked = [response], 0
        self.tell(e.ResponseStarted(response), later)

    @precondition(lambda self: self.asked and not self.running)
    @rule(ms=st.integers(100, 2_000))
    def agent_answers(self, ms: int) -> None:
        """A whole answer, heard to its end."""
        self.response_begins(300)
        self.agent_speaks(ms, False, True, "Hello there. ", False)
        if self.running:
            self.response_ends("completed", 100)
        for _ in range(len(self.scene.marks)):
            if self.scene.marks:
                self.tell(e.MarkReturned(self.scene.marks.pop(0)), 90)

    @precondition(lambda self: self.running)
    @rule(
        ms=st.integers(1, 3_000),
        same=st.booleans(),
        ended=st.booleans(),
        text=st.sampled_from(["", "Hello there. ", "One moment, "]),
        silent=st.booleans(),
    )
    def agent_speaks(self, ms: int, same: bool, ended: bool, text: str, silent: bool) -> None:
        response = self.running[0]
        utterance = f"{response}-i" if same else self.name("i")
        if text:
            self.tell(e.AgentWords(response, utterance, text))
        kind = e.AgentSilence if silent and same else e.AgentAudio
        self.tell(kind(response, utterance, ms * 8 + ms % 3, bytes(ms * 8 + ms % 3)))
        if ended:
            self.tell(e.AgentUtteranceEnded(response, utterance))

    @precondition(lambda self: self.running)
    @rule(status=st.sampled_from(["completed", "completed", "failed", "incomplete"]), later=st.integers(0, 500))
    def response_ends(self, status: str, later: int) -> None:
        response = self.running.pop()
        self.tell(
            e.ResponseEnded(response, "cancelled" if response in self.after_clear else status, usage=Usage(responses=1)), later
        )

    @precondition(lambda self: self.running)
    @rule(name=CALLS, arguments=ARGUMENTS, again=st.booleans())
    def tool_is_called(self, name: str, arguments: str, again: bool) -> None:
        tool_call = self.name("t")
        for _ in range(2 if again else 1):
            self.tell(e.ToolCalled(self.running[0], tool_call, name, arguments))

    @precondition(lambda self: self.errands)
    @rule(pick=st.integers(0, 5), failed=st.booleans(), later=st.integers(0, 3_000))
    def errand_is_back(self, pick: int, failed: bool, later: int) -> None:
        tool_call = self.errands.pop(pick % len(self.errands))
        self.tell(e.ErrandFailed(tool_call, "no") if failed else e.ErrandReturned(tool_call, "{}"), later)

    @precondition(lambda self: self.scene.marks)
    @rule(count=st.integers(1, 30), later=st.integers(0, 400))
    def audio_is_heard(self, count: int, later: int) -> None:
        for _ in range(min(count, len(self.scene.marks))):
            if self.scene.marks:
                self.tell(e.MarkReturned(self.scene.marks.pop(0)), later)

    @precondition(lambda self: self.session == "ready")
    @rule(ms=st.integers(10, 2_000), committed=st.booleans(), text=st.sampled_from([None, "", "yes please"]))
    def caller_speaks(self, ms: int, committed: bool, text: str | None) -> None:
        utterance = self.name("u")
        session = self.scene.all_of(c.OpenModel)
        self.tell(e.CallerSpeechStarted(utterance, 80), 100)
        said = [(e.CallerSpeechStopped(utterance, 500), ms + 500), (e.CallerTurnCommitted(utterance), 0)]
        for event, later in [*said, (e.CallerTranscribed(utterance, text or ""), 50)] if committed else []:
            if self.scene.all_of(c.OpenModel) != session or (text is None and isinstance(event, e.CallerTranscribed)):
                return  # what a session would have said that is gone is dropped at the door
            self.tell(event, later)

    @rule(key=st.sampled_from("19#*"))
    def caller_presses(self, key: str) -> None:
        self.tell(e.DigitPressed(key), 100)

    @rule(
        event=st.sampled_from([e.StreamEnded(True), e.StreamEnded(False), e.CarrierEnded("completed"), e.StreamMovedOn()]),
        chance=st.integers(0, 9),
    )
    def caller_goes(self, event: e.Event, chance: int) -> None:
        if chance == 0:
            self.tell(event, 100)

    @precondition(lambda self: self.session == "ready")
    @rule(fatal=st.booleans(), chance=st.integers(0, 3))
    def model_goes(self, fatal: bool, chance: int) -> None:
        if chance == 0:
            self.session, self.running, self.asked = "none", [], 0
            self.tell(e.ModelLost("closed", fatal), 10)

    @precondition(lambda self: self.scene.call.deadline is not None)
    @rule()
    def time_passes(self) -> None:
        self.tell(e.DeadlinePassed(), max(0, (self.scene.call.deadline or 0) - self.scene.at))

    @invariant()
    def promises(self) -> None:
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        assert len(scene.all_of(c.FileCall)) <= 1, "the row is filed at most once"
        assert len(scene.all_of(c.LeaveStream)) <= 1
        assert scene.call.over or scene.call.deadline is not None, "every wait is bounded"
        for utterance, heard in scene.call.playout.heard.items():
            assert heard <= scene.call.playout.queued[utterance]
        order = [Phase.OPENING, Phase.TALKING, Phase.ENDING, Phase.LEAVING, Phase.WRAPPING, Phase.OVER]
        for before, after in zip(self.phases, self.phases[1:], strict=False):
            assert order.index(after) > order.index(before) or (before, after) == (Phase.ENDING, Phase.TALKING)

    def teardown(self) -> None:
        if not hasattr(self, "scene"):
            return
        # However it stands now: once the caller is gone, it ends, within its own deadlines.
        scene = self.scene
        scene.tell(e.StreamEnded(clean=False), at=scene.at + 1)
        for _ in range(10):
            if scene.call.over:
                break
            scene.wait()
        assert scene.call.over
        given = {command.tool_call for command in scene.all_of(c.GiveResult)}
        assert len(given) == len(scene.all_of(c.GiveResult)), "a tool call is answered once"
        assert list(replay(scene.journal())) == []


TestAnyCall = AnyCall.TestCase
TestAnyCall.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
