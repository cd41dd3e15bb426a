"""The house's own lines: sentences for when no agent can speak, as clips of line audio, ready before they are needed.

A clip is in the agent's own voice where `callrow lines` has had it spoken by the model, else in a neutral voice that is shipped.

Rule 1: everything is loaded when the process starts. Finding a line reads no file and asks nobody.
Rule 2: a learned clip is known by its voice, its model and its words: when one of these changes, it is not found, and the neutral
one is said until it has been learnt anew.
Rule 3: the words that are told with a clip are those that are in it.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.audio.g711 import BYTES_PER_MS
from app.errors import BadSetting

SHIPPED: Final = Path(__file__).parent / "lines"
SENTENCES: Final = "sentences.toml"
SHORTEST_MS, LONGEST_MS = 200, 20_000


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence and its sound, as line audio."""

    text: str
    sound: bytes = field(repr=False)


class Lines:
    """All lines of one process. `folder`: where learned clips, and sentences of one's own, are looked for.

    Raises:
        BadSetting: the folder's `sentences.toml` cannot be read, or names a line that there is not.
    """

    def __init__(self, folder: Path | None, model: str) -> None:
        self._model = model
        self._neutral = {
            name: Line(text, (SHIPPED / f"{name}.ulaw").read_bytes()) for name, text in _sentences(SHIPPED / SENTENCES).items()
        }
        own = _own_sentences(folder / SENTENCES, set(self._neutral)) if folder is not None else {}
        self.texts: Mapping[str, str] = {name: line.text for name, line in self._neutral.items()} | own
        """The words of every line, by its name, as `callrow lines` has them spoken."""
        self._learned = {path.name: path.read_bytes() for path in sorted(folder.glob("*.ulaw"))} if folder is not None else {}

    def find(self, name: str, voice: str) -> Line:
        """A line by its name, in this voice of the model's if it was learnt. Raises KeyError for a name that there is not."""
        text = self.texts[name]
        sound = self._learned.get(clip_name(name, text, voice=voice, model=self._model))
        if sound is None or not is_plausible(sound):
            return self._neutral[name]
        return Line(text, sound)

    def is_learned(self, name: str, voice: str) -> bool:
        """Whether there is a clip in this voice."""
        return self.find(name, voice) is not self._neutral[name]


def clip_name(name: str, text: str, *, voice: str, model: str) -> str:
    """The file of a learned clip (rule 2)."""
    digest = hashlib.sha256("\0".join((voice, model, text)).encode()).hexdigest()[:16]
    return f"{name}-{digest}.ulaw"


def is_plausible(sound: bytes) -> bool:
    """Whether a clip is about as long as a sentence."""
    return SHORTEST_MS * BYTES_PER_MS <= len(sound) <= LONGEST_MS * BYTES_PER_MS


def _sentences(path: Path) -> dict[str, str]:
    return {name: str(text).strip() for name, text in tomllib.loads(path.read_text("utf-8")).items()}


def _own_sentences(path: Path, known: set[str]) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        own = _sentences(path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise BadSetting([("LINES_DIR", f"{path.name}: {fault}", "see app/audio/lines/sentences.toml")]) from None
    if unknown := sorted(set(own) - known):
        wrong = f"{path.name} names lines that there are not: {', '.join(unknown)}"
        raise BadSetting([("LINES_DIR", wrong, f"the lines are {', '.join(sorted(known))}")])
    return {name: text for name, text in own.items() if text}
