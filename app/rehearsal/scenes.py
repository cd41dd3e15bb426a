"""Scenes: what a caller does, step by step, and what must hold afterwards. One TOML file each, in `scenes/`.

    title = "A plain booking"
    about = "One paragraph for people."

    [caller]                        # all optional
    number = "+15551230001"
    voice = "klatt5"                # klatt4, klatt5, klatt6 are understood
    words_per_minute = 150
    seed = 1
    noise = { kind = "pink", snr_db = 25 }

    [knows]                         # what `{name}` and the like stand for in the answers
    name = "anna miller"

    [dials.any]                     # what happens when the service dials; a number instead of `any` is for that one
    outcome = "answered"            # answered, busy, no-answer, failed
    ring_ms = 1_200
    talk_ms = 3_000
    says = "Hello, this is the office."

    [[step]]                        # in order; each has one of the words of STEPS
    wait_for_agent = 700            # until the agent was heard and then quiet for so many ms
    [[step]]
    converse = true                 # answer what the agent asks by the table below, until the call ends or `until` was said

    answers = "everyday"            # a file in `answers/`, asked after the scene's own answers

    [[answer]]                      # the first whose `when` (a regular expression) is found in what the agent said
    when = "your name"
    say = ["my name is {name}", "{name}"]       # when asked again: the next, and then the last again

    [expect]
    outcome = "completed"
    slots = { name = "Anna Miller", callback_number = "/5551234567$/" }   # /.../ is a regular expression

Rule 1: a caller's script knows what the agent *said* only to choose an answer; it never knows what the model will make of it.
Rule 2: a step waits at most `within` ms; then the scene has failed with a sentence, and the caller hangs up.
Rule 3: of a shared file of answers a caller gives those for which it `knows` everything.
Rule 4: a word that is not known is a fault of the file, named with its place.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import OurFault

SHIPPED = Path(__file__).with_suffix("")
"""Where the scenes are that come with us."""

FILE = ("title", "about", "caller", "knows", "dials", "step", "answers", "answer", "expect", "time_limit_ms")
PLACES = re.compile(r"\{(\w+)\}")
STEPS = ("say", "wait_for_agent", "interrupt", "pause", "press", "hang_up", "expect_silence", "converse")
WITHIN_MS = 20_000


class BadScene(OurFault):
    """A scene's file is wrong. `complaints` are (place, what is wrong)."""

    def __init__(self, file: str, complaints: Iterable[tuple[str, str]]) -> None:
        self.file, self.complaints = file, list(complaints)
        super().__init__(file, self.complaints)

    def __str__(self) -> str:
        return "\n".join(f"{self.file}: {place}: {wrong}" for place, wrong in self.complaints)


@dataclass(frozen=True, slots=True)
class Noise:
    """A noise bed under the caller's voice. `snr_db` is the voice's level over it."""

    kind: str = "room"
    snr_db: float = 46.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The caller."""

    number: str = "+15551230000"
    voice: str = "klatt5"
    words_per_minute: int = 150
    seed: int = 0
    noise: Noise = Noise()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happens at a number that the service dials."""

    outcome: str = "no-answer"
    ring_ms: int = 1_200
    talk_ms: int | None = 3_000
    says: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing the caller does. `word` is one of STEPS, `value` what stands behind it."""

    word: str
    value: Any
    after_ms: int = 0
    """interrupt: how long the agent has been speaking; say with hang_up: see `hang_up_after_ms`."""
    hang_up_after_ms: int | None = None
    """say: hang up so long into it, in mid-word."""
    within_ms: int = WITHIN_MS
    quiet_ms: int = 800
    """converse: how long the agent must have been quiet before it is answered."""
    until: re.Pattern[str] | None = None
    turns: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer when the agent has said something that `when` is found in."""

    when: re.Pattern[str]
    say: tuple[str, ...] = ()
    press: str = ""
    pause_ms: int = 0
    """A breath before it."""
    hang_up: bool = False
    then_stay_silent: bool = False
    """Say nothing; let the agent go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A whole scene."""

    name: str
    title: str
    about: str = ""
    person: Person = Person()
    dials: Mapping[str, Outcome] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    replies: tuple[Reply, ...] = ()
    expect: Mapping[str, Any] = field(default_factory=dict)
    time_limit_ms: int = 180_000

    @property
    def lines(self) -> list[str]:
        """Everything that the caller may say, in the order of the file."""
        said = [str(step.value) for step in self.steps if step.word in ("say", "interrupt")]
        return said + [text for reply in self.replies for text in reply.say]


def shipped() -> list[str]:
    """The names of the scenes that come with us."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load(name: str) -> Scene:
    """A shipped scene by its name, or any by its path. Raises `BadScene`."""
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    if not path.is_file():
        raise BadScene(name, [("", "there is no such scene; there are: " + ", ".join(shipped()))])
    return read(path.read_text(encoding="utf-8"), path.stem)


def read(text: str, name: str) -> Scene:
    """A scene from the text of its file. Raises `BadScene` with everything that is wrong."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise BadScene(name, [("", str(fault))]) from None
    reader = _Reader(name)
    scene = reader.scene(content)
    if reader.complaints:
        raise BadScene(name, reader.complaints)
    return scene


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name
        self.complaints: list[tuple[str, str]] = []

    def scene(self, content: dict[str, Any]) -> Scene:
        self._known("", content, {*FILE})
        title = self._of(str, "", content, "title", "")
        if not title:
            self._wrong("title", "a scene needs one")
        steps = [self._step(f"step {at}", step) for at, step in enumerate(self._list(content, "step"), 1)]
        if not steps:
            self._wrong("step", "a scene needs at least one")
        knows = self._of(dict, "", content, "knows", {})
        replies = [self._reply(f"answer {at}", reply, knows) for at, reply in enumerate(self._list(content, "answer"), 1)]
        replies += self._shared(self._of(str, "", content, "answers", ""), knows)
        expect = self._of(dict, "", content, "expect", {})
        self._expectations(expect)
        return Scene(
            name=self._name,
            title=title,
            about=self._of(str, "", content, "about", ""),
            person=self._person(self._of(dict, "", content, "caller", {})),
            dials={
                number: self._outcome(f"dials.{number}", plan) for number, plan in self._of(dict, "", content, "dials", {}).items()
            },
            steps=tuple(step for step in steps if step is not None),
            replies=tuple(reply for reply in replies if reply is not None),
            expect=expect,
            time_limit_ms=self._of(int, "", content, "time_limit_ms", 180_000),
        )

    def _wrong(self, place: str, wrong: str) -> None:
        self.complaints.append((place, wrong))

    def _known(self, place: str, content: Mapping[str, Any], names: set[str]) -> None:
        for name in content.keys() - names:
            self._wrong(f"{place} {name}".strip(), "is not known here; known are " + ", ".join(sorted(names)))

    def _of[T](self, kind: type[T], place: str, content: Mapping[str, Any], name: str, default: T) -> T:
        value = content.get(name, default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self._wrong(f"{place} {name}".strip(), f"must be of the type {kind.__name__}")
            return default
        return value

    def _list(self, content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        entries = self._of(list, "", content, name, [])
        if not all(isinstance(entry, dict) for entry in entries):
            self._wrong(name, f"is written [[{name}]]")
            return []
        return entries

    def _pattern(self, place: str, text: str) -> re.Pattern[str]:
        try:
            return re.compile(text, re.IGNORECASE)
        except re.error as fault:
            self._wrong(place, f"is no regular expression: {fault}")
            return re.compile("$^")

    def _person(self, content: dict[str, Any]) -> Person:
        self._known("caller", content, {"number", "voice", "words_per_minute", "seed", "noise"})
        noise = self._of(dict, "caller", content, "noise", {})
        self._known("caller.noise", noise, {"kind", "snr_db"})
        kind = self._of(str, "caller.noise", noise, "kind", "room")
        if kind not in ("room", "pink", "white", "none"):
            self._wrong("caller.noise kind", "is one of room, pink, white, none")
        anybody = Person()
        return Person(
            number=self._of(str, "caller", content, "number", anybody.number),
            voice=self._of(str, "caller", content, "voice", anybody.voice),
            words_per_minute=self._of(int, "caller", content, "words_per_minute", anybody.words_per_minute),
            seed=self._of(int, "caller", content, "seed", anybody.seed),
            noise=Noise(kind, self._of(float, "caller.noise", noise, "snr_db", Noise().snr_db if kind == "room" else 20.0)),
        )

    def _outcome(self, place: str, content: Any) -> Outcome:
        if not isinstance(content, dict):
            self._wrong(place, "must be a table")
            return Outcome()
        self._known(place, content, {"outcome", "ring_ms", "talk_ms", "says"})
        outcome = self._of(str, place, content, "outcome", "no-answer")
        if outcome not in ("answered", "busy", "no-answer", "failed"):
            self._wrong(f"{place} outcome", "is one of answered, busy, no-answer, failed")
        talk = self._of(int, place, content, "talk_ms", 3_000)
        return Outcome(
            outcome=outcome,
            ring_ms=self._of(int, place, content, "ring_ms", 1_200),
            talk_ms=None if talk < 0 else talk,
            says=self._of(str, place, content, "says", ""),
        )

    def _step(self, place: str, content: dict[str, Any]) -> Step | None:
        words = [word for word in STEPS if word in content]
        if len(words) != 1:
            self._wrong(place, "needs exactly one of " + ", ".join(STEPS))
            return None
        word = words[0]
        kinds: dict[str, type] = {"say": str, "interrupt": str, "press": str, "hang_up": bool, "converse": bool}
        self._known(place, content, {word, "within"} | _EXTRAS.get(word, set()))
        until = self._of(str, place, content, "until", "")
        hang_up_after = self._of(int, place, content, "hang_up_after", -1)
        return Step(
            word=word,
            value=self._of(kinds.get(word, int), place, content, word, kinds.get(word, int)()),
            after_ms=self._of(int, place, content, "after", 0),
            hang_up_after_ms=None if hang_up_after < 0 else hang_up_after,
            within_ms=self._of(int, place, content, "within", WITHIN_MS),
            quiet_ms=self._of(int, place, content, "quiet", 800),
            until=self._pattern(f"{place} until", until) if until else None,
            turns=self._of(int, place, content, "turns", 24),
        )

    def _shared(self, name: str, knows: Mapping[str, Any]) -> list[Reply | None]:
        if not name:
            return []
        path = SHIPPED / "answers" / f"{name}.toml"
        if not path.is_file():
            self._wrong("answers", f"there is no {path.name} in answers/")
            return []
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        replies = []
        for at, reply in enumerate(self._list(content, "answer"), 1):
            say = reply.get("say", [])
            needed = {name for line in ([say] if isinstance(say, str) else say) for name in PLACES.findall(line)}
            if needed <= knows.keys():
                replies.append(self._reply(f"{path.name} answer {at}", reply, knows))
        return replies

    def _filled(self, place: str, line: str, knows: Mapping[str, Any]) -> str:
        def put(found: re.Match[str]) -> str:
            if found[1] not in knows:
                self._wrong(place, f"the caller does not know {found[0]}")
            return str(knows.get(found[1], ""))

        return PLACES.sub(put, line)

    def _reply(self, place: str, content: dict[str, Any], knows: Mapping[str, Any]) -> Reply | None:
        self._known(place, content, {"when", "say", "press", "pause", "hang_up", "wait"})
        if not (when := self._of(str, place, content, "when", "")):
            self._wrong(f"{place} when", "is missing")
            return None
        say = content.get("say", [])
        lines = [say] if isinstance(say, str) else say
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            self._wrong(f"{place} say", "must be a text or a list of texts")
            return None
        reply = Reply(
            when=self._pattern(f"{place} when", when),
            say=tuple(self._filled(f"{place} say", line, knows) for line in lines),
            press=self._of(str, place, content, "press", ""),
            pause_ms=self._of(int, place, content, "pause", 0),
            hang_up=self._of(bool, place, content, "hang_up", False),
            then_stay_silent=self._of(bool, place, content, "wait", False),
        )
        if not (reply.say or reply.press or reply.hang_up or reply.then_stay_silent):
            self._wrong(place, "needs one of say, press, hang_up, wait")
        return reply

    def _expectations(self, expect: dict[str, Any]) -> None:
        for name in expect.keys() - EXPECTATIONS.keys():
            self._wrong(f"expect {name}", "is not known; known are " + ", ".join(EXPECTATIONS))


_EXTRAS: dict[str, set[str]] = {
    "say": {"hang_up_after"},
    "interrupt": {"after"},
    "converse": {"until", "quiet", "turns"},
}

EXPECTATIONS: dict[str, str] = {
    "outcome": "the row's outcome, or a list of allowed ones",
    "end_reason": "likewise",
    "disposition": "likewise",
    "intent": "likewise",
    "urgency": "likewise",
    "escalated": "true or false",
    "agent_path": "the agents that had the call, in order",
    "slots": "values by name; /.../ is a regular expression; false means that it must not be there",
    "confirmed": "slots that must have been confirmed by the caller",
    "tools": "tools that must have been called, in this order, others between them allowed",
    "no_tools": "tools that must not have been called",
    "failed_tools": "how many tool invocations may have ended badly, default 0",
    "turns": "number, or { min, max }",
    "barge_ins": "number, or { min, max }",
    "heard": "regular expressions that must be found in what the caller heard of the agent, in order",
    "not_heard": "regular expressions that must not be found there",
    "caller_said": "regular expressions that must be found in what the caller was understood to say, in order",
    "unheard": "true: something the agent generated was not heard; false: nothing was left unheard",
    "dialed": "numbers that the service dialed, in order; /.../ is a regular expression",
    "streams": "number of media streams",
    "hung_up_by": "caller, account, hang-up verb, end of document, time limit",
    "heard_tolerance_ms": "how far the row's sum of heard_ms may be from what the line played",
}
