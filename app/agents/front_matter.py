"""The front matter of an agent file: TOML between two lines of `+++`, and on which line each key stands.

tomllib tells no lines, so the text is read a second time, statement by statement: a statement ends where the lines gathered so far
parse for the first time. That holds for arrays and strings over several lines too, which a search for `key =` would trip over.
"""

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from typing import Any

FENCE = "+++"

type Path = tuple[str | int, ...]
"""A key's place: names of tables and keys, and positions in arrays of tables, such as ("slots", 1, "kind")."""


class Unreadable(Exception):
    """The file has no front matter, or none that is TOML. `line` counts from 1 in the whole file."""

    def __init__(self, line: int, sentence: str) -> None:
        self.line, self.sentence = line, sentence
        super().__init__(line, sentence)


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What stands between the fences, and what follows them."""

    values: dict[str, Any]
    lines: dict[Path, int]
    text: str
    """The rest of the file: the instructions."""
    text_line: int
    """Where the instructions begin: the first line below the fence that is not blank, or else the fence."""

    def line(self, *path: str | int) -> int:
        """The line of a key; for a key that is not there, of the table that lacks it; at worst the opening fence."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str) -> FrontMatter:
    """Split a file and read its front matter.

    Raises:
        Unreadable: the first line is not the fence, the closing fence is missing, or what stands between is not TOML.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[0].rstrip() != FENCE:
        raise Unreadable(1, f"the file does not begin with a line {FENCE}, so it has no front matter")
    close = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == FENCE), None)
    if close is None:
        raise Unreadable(len(lines), f"the front matter is never closed: a second line {FENCE} is missing")
    try:
        values = tomllib.loads("\n".join(lines[1:close]))
    except tomllib.TOMLDecodeError as fault:
        raise Unreadable(*_where(str(fault), close)) from None
    body = lines[close + 1 :]
    blank = next((number for number, line in enumerate(body) if line.strip()), -1)
    return FrontMatter(
        values=values,
        lines=_key_lines(lines[1:close]),
        text="\n".join(body).strip(),
        text_line=close + 2 + blank,
    )


def _where(complaint: str, close: int) -> tuple[int, str]:
    """tomllib says "(at line 3, column 5)", counted in what it was given, or "(at end of document)"."""
    at = re.search(r" \(at line (\d+), column \d+\)$", complaint)
    sentence = re.sub(r" \(at [^)]*\)$", "", complaint)
    return int(at[1]) + 1 if at else close, f"the front matter is not TOML: {sentence[:1].lower()}{sentence[1:]}"


def _key_lines(lines: list[str]) -> dict[Path, int]:
    """The line, counted in the whole file, of every table and key of TOML that is known to be good."""
    found: dict[Path, int] = {}
    tables: Counter[Path] = Counter()
    table: Path = ()
    gathered: list[str] = []
    began = 0
    for number, line in enumerate(lines, 2):  # line 1 is the fence
        if not gathered:
            began = number
        gathered.append(line)
        try:
            statement = tomllib.loads("\n".join(gathered))
        except tomllib.TOMLDecodeError:
            continue
        is_header, gathered = gathered[0].lstrip().startswith("["), []
        if not statement:
            continue  # a blank line or a comment
        path: Path = () if is_header else table
        rest: Any = statement
        while rest and isinstance(rest, dict):
            name, rest = next(iter(rest.items()))
            path = (*path, name)
            if is_header and tables[path] and not (isinstance(rest, list) and rest == [{}]):
                path = (*path, tables[path] - 1)  # [slots.more] belongs to the last [[slots]]
            found.setdefault(path, began)
        if is_header:
            if rest == [{}]:
                tables[path] += 1
                path = (*path, tables[path] - 1)
                found[path] = began
            table = path
    return found
