"""The agent at work: its tools, out and back.

Controls act in the call and are answered at once; errands leave, and come back as events.
"""

from app.call import events as e
from app.call.agent import ToolKind
from app.call.commands import Command, GiveResult, KeepTool, KeepTurn, RunErrand, Speak, TakeOver
from app.call.controls import Goodbye, Verdict, decide, refuse
from app.call.errands import read_arguments
from app.call.listening import Listening
from app.call.sentences import TAKEN_OVER

ERRAND_MS = 4_000
"""A caller who hears nothing for so long while a tool is at work is told that we are still there."""


class Work(Listening):
    """The tools' part of a call."""

    @property
    def _session(self) -> int:
        """Which session of the stream this is."""
        raise NotImplementedError

    def _end_by(self, goodbye: Goodbye, at: int) -> list[Command]:
        """A control ends the call as soon as the last sentence has been heard."""
        raise NotImplementedError

    def _tool(self, event: e.ToolCalled, at: int) -> list[Command]:
        if not self.errands.is_new(event.tool_call) or not self.talks:
            return []
        counted: list[Command] = [KeepTurn(turn)] if (turn := self.turns.tool()) else []
        self._watch(at)
        self.asking.worked(event.response)
        self.conversation.used(event.tool_call, event.name, event.arguments)
        tool = self.agent.tool(event.name)
        if tool is not None and tool.kind is ToolKind.ERRAND:
            first = self.errands.twin(event.tool_call, event.name, event.arguments, turn=self.turns.count, session=self._session)
            if first is not None:
                result = self.conversation.result_of(first)
                return counted if result is None else counted + self._told_result(event.tool_call, result, at)
            self.errands.sent(event.tool_call)
            self._timers.setdefault("errand", at + ERRAND_MS)
            return [*counted, RunErrand(event.tool_call, event.name, self.agent.name, event.arguments, tool.budget_ms)]
        arguments = read_arguments(event.arguments)
        if tool is None:
            verdict = refuse("this agent has no such tool")
        elif arguments is None:
            verdict = refuse("the arguments are not a JSON object")
        else:
            verdict = decide(
                tool.name,
                arguments,
                agent=self.agent,
                memory=self.memory,
                slots=self.slots,
                directory=self.house.directory,
                utterance=self.transcript.last_caller,
                at=at,
            )
        return counted + self._carry_out(event, verdict, at)

    def _carry_out(self, event: e.ToolCalled, verdict: Verdict, at: int) -> list[Command]:
        if (goodbye := verdict.goodbye) is not None:
            goodbye.response = event.response
            if self.floor.speaking or self.asking.was_cut(event.response):
                verdict = refuse("the caller is speaking; hear them first")
        done = KeepTool(event.tool_call, event.name, self.agent.name, verdict.refused, event.arguments, verdict.result)
        self.conversation.answered(event.tool_call, verdict.result)
        commands: list[Command] = [done, GiveResult(event.tool_call, verdict.result)]
        if verdict.memory is not None:
            self.memory = verdict.memory
            commands += self._keep_memory()
        if verdict.hand_to is not None:
            self.agent = self.house.agents[verdict.hand_to]
            commands.append(TakeOver(self.agent.name))
        if verdict.goodbye is not None:
            return commands + self._end_by(verdict.goodbye, at)
        if verdict.speak:
            commands += self._speak(Speak(TAKEN_OVER if verdict.hand_to else None), at)
        return commands

    def _result(self, tool_call: str, result: str, at: int) -> list[Command]:
        if not self.errands.back(tool_call) or not self.talks:
            return []
        if not self.errands.out:
            self._timers.pop("errand", None)
        self.conversation.answered(tool_call, result)
        commands: list[Command] = []
        for twin in self.errands.twins(tool_call):
            self.conversation.answered(twin, result)
            commands.append(GiveResult(twin, result))
        return [*commands, *self._told_result(tool_call, result, at)]

    def _told_result(self, tool_call: str, result: str, at: int) -> list[Command]:
        self.conversation.answered(tool_call, result)
        self.asking.owed = self.asking.owed or Speak()
        return [GiveResult(tool_call, result), *self._speak_if_owed(at)]
