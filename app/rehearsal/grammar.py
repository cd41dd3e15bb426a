"""What can be heard: the JSGF file read into small automata, one for each state of the dialogue.

PocketSphinx reads JSGF itself, but keeps every use of a rule apart: ten states cost it 230 MB and a second. Determined and minimal,
the same sentences cost 1 MB and are decoded four times as fast.

Rule 1: the subset of JSGF that talk.gram uses: rules, `public`, alternatives, groups, options; no weights, tags, repetition or
recursion.
"""

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.errors import OurFault

FOLDER = Path(__file__).with_name("grammars")

type Part = str | tuple[str, tuple["Part", ...]]
"""A word, a `<rule>`, or ("all" | "any" | "maybe", parts)."""


class BadGrammar(OurFault):
    """The grammar's file is wrong. `wrong` says what, near which words."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong
        super().__init__(wrong)

    def __str__(self) -> str:
        return f"the grammar is wrong: {self.wrong}"


@dataclass(frozen=True, slots=True)
class Automaton:
    """The sentences of one state: `arcs[n]` leads from n by a word; `ends` are where a sentence may stop. It begins at 0."""

    arcs: tuple[Mapping[str, int], ...]
    ends: frozenset[int]

    def accepts(self, words: Iterable[str]) -> bool:
        """Whether this is one of the sentences."""
        at: int | None = 0
        for word in words:
            at = None if at is None else self.arcs[at].get(word)
        return at in self.ends

    @property
    def words(self) -> frozenset[str]:
        """Every word of the sentences."""
        return frozenset(word for arcs in self.arcs for word in arcs)


class Grammar:
    """All rules of a file."""

    def __init__(self, text: str) -> None:
        self._rules: dict[str, Part] = {}
        self.states: dict[str, Automaton] = {}
        text = re.sub(r"/\*.*?\*/|#JSGF[^;]*;|grammar [^;]*;", " ", text, flags=re.DOTALL)
        tokens = _Tokens(re.findall(r"<[^>]*>|[=;|()\[\]]|[^\s=;|()\[\]<>]+", text))
        public = []
        while tokens.more:
            is_public = tokens.take_if("public")
            name = tokens.take()
            tokens.expect("=")
            self._rules[name] = _alternatives(tokens)
            tokens.expect(";")
            if is_public:
                public.append(name)
        for name in public:
            self.states[name.strip("<>")] = _minimal(*_nondeterministic(self._rules, name))

    @property
    def words(self) -> frozenset[str]:
        """Every word that can be heard."""
        return frozenset[str]().union(*(automaton.words for automaton in self.states.values()))

    def sentence(self, rule: str, dice: random.Random) -> list[str]:
        """A sentence of a rule (its bare name), drawn at random."""
        return _drawn(self._rules, f"<{rule}>", dice)


@cache
def talk() -> Grammar:
    """The grammar that comes with us."""
    return Grammar((FOLDER / "talk.gram").read_text())


def spoken_words(text: str) -> list[str]:
    """The words of a written sentence as the grammar has them: lower case, no punctuation, digits one by one."""
    digits = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    text = re.sub(r"\d", lambda digit: f" {digits[int(digit[0])]} ", text.lower().replace("’", "'").replace("mm-hmm", "mm-hm"))
    return [word for word in re.findall(r"[a-z'-]+", text) if word.strip("-'")]


def states_for(text: str) -> list[str]:
    """The states of the dialogue in which a written sentence is understood; empty if in none."""
    words = spoken_words(text)
    return [name for name, automaton in talk().states.items() if automaton.accepts(words)]


class _Tokens:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at = tokens, 0

    @property
    def more(self) -> bool:
        return self._at < len(self._tokens)

    @property
    def next(self) -> str:
        return self._tokens[self._at] if self.more else ""

    def take(self) -> str:
        token = self.next
        self._at += 1
        return token

    def take_if(self, token: str) -> bool:
        found = self.next == token
        self._at += found
        return found

    def expect(self, token: str) -> None:
        if not self.take_if(token):
            near = " ".join(self._tokens[max(0, self._at - 5) : self._at + 1])
            raise BadGrammar(f"no {token!r} after: {near}")


def _alternatives(tokens: _Tokens) -> Part:
    parts = [_sequence(tokens)]
    while tokens.take_if("|"):
        parts.append(_sequence(tokens))
    return parts[0] if len(parts) == 1 else ("any", tuple(parts))


def _sequence(tokens: _Tokens) -> Part:
    parts: list[Part] = []
    while tokens.next not in ("|", ";", ")", "]", ""):
        if tokens.take_if("("):
            parts.append(_alternatives(tokens))
            tokens.expect(")")
        elif tokens.take_if("["):
            parts.append(("maybe", (_alternatives(tokens),)))
            tokens.expect("]")
        else:
            parts.append(tokens.take())
    return parts[0] if len(parts) == 1 else ("all", tuple(parts))


def _drawn(rules: Mapping[str, Part], part: Part, dice: random.Random) -> list[str]:
    if isinstance(part, str):
        return _drawn(rules, rules[part], dice) if part.startswith("<") else [part]
    kind, parts = part
    if kind == "any":
        parts = (dice.choice(parts),)
    elif kind == "maybe" and dice.random() < 0.5:
        parts = ()
    return [word for inner in parts for word in _drawn(rules, inner, dice)]


type Loose = list[list[tuple[str | None, int]]]
"""States with arcs; None is an arc that needs no word."""


def _nondeterministic(rules: Mapping[str, Part], top: str) -> tuple[Loose, int, int]:
    states: Loose = []

    def new() -> int:
        states.append([])
        return len(states) - 1

    def build(part: Part, start: int, inside: tuple[str, ...]) -> int:
        if isinstance(part, str):
            if not part.startswith("<"):
                end = new()
                states[start].append((part, end))
                return end
            if part not in rules or part in inside:
                raise BadGrammar(f"{part} {'is not there' if part not in rules else 'contains itself'}")
            return build(rules[part], start, (*inside, part))
        kind, parts = part
        if kind == "all":
            for inner in parts:
                start = build(inner, start, inside)
            return start
        end = new()
        if kind == "maybe":
            states[start].append((None, end))
        for inner in parts:
            states[build(inner, start, inside)].append((None, end))
        return end

    first = new()
    return states, first, build(top, first, ())


def _minimal(states: Loose, first: int, last: int) -> Automaton:
    determined: dict[frozenset[int], int] = {}
    arcs: list[dict[str, int]] = []
    ends: set[int] = set()

    def reach(start: Iterable[int]) -> frozenset[int]:
        seen, todo = set(start), list(start)
        while todo:
            for word, onward in states[todo.pop()]:
                if word is None and onward not in seen:
                    seen.add(onward)
                    todo.append(onward)
        return frozenset(at for at in seen if at == last or any(word for word, _ in states[at]))

    def number(place: frozenset[int]) -> int:
        if place not in determined:
            determined[place] = len(arcs)
            arcs.append({})
            todo.append(place)
        return determined[place]

    todo: list[frozenset[int]] = []
    number(reach([first]))
    while todo:
        place = todo.pop()
        if last in place:
            ends.add(determined[place])
        leads: dict[str, set[int]] = {}
        for at in place:
            for word, onward in states[at]:
                if word is not None:
                    leads.setdefault(word, set()).add(onward)
        arcs[determined[place]] = {word: number(reach(onward)) for word, onward in sorted(leads.items())}
    return _merged(arcs, ends)


def _merged(arcs: list[dict[str, int]], ends: set[int]) -> Automaton:
    """States with the same future become one. Without loops, one pass from the ends finds them all."""
    same: dict[tuple[bool, tuple[tuple[str, int], ...]], int] = {}
    kept: dict[int, int] = {}

    def canon(at: int) -> int:
        if at not in kept:
            future = (at in ends, tuple((word, canon(onward)) for word, onward in arcs[at].items()))
            kept[at] = same.setdefault(future, at)
        return kept[at]

    start = canon(0)
    order = [start, *sorted(set(kept.values()) - {start})]
    number = {at: place for place, at in enumerate(order)}
    return Automaton(
        tuple({word: number[kept[onward]] for word, onward in arcs[at].items()} for at in order),
        frozenset(number[at] for at in order if at in ends),
    )
