"""Sound that says what it is: so that a telephone can tell, word by word, what it heard, and a model what was said to it.

Everything is in frames of 20 ms of mu-law, loud, and passes through untouched (`AUDIO_PATH=passthrough`). A frame of the agent's
alternates two bytes that hold a word's number; a frame of the caller's holds the number of the utterance and of the frame in it.
What is neither, and not silence, is a line of the house's.
"""

from dataclasses import dataclass
from itertools import pairwise

FRAME_MS, FRAME = 20, 160
BYTES_PER_MS = 8
SILENCE = b"\xff" * FRAME
DELTA = 5 * FRAME
WORD_DELTAS = 3
WORD_MS = 300
"""Every word of the agent's takes so long: three deltas of 100 ms."""

_LETTERS = "abcdefghijklmnop"
_AGENT, _CALLER = 0x00, 0x20


def word(number: int) -> str:
    """A word's text: four letters, so that all take equally long to say."""
    return "".join(_LETTERS[number >> shift & 15] for shift in (12, 8, 4, 0))


def number_of(text: str) -> int:
    """The number of a word."""
    value = 0
    for letter in text:
        value = value << 4 | _LETTERS.index(letter)
    return value


def _pair(kind: int, number: int) -> bytes:
    # 0x00 to 0x3F and 0x80 to 0xBF are the loud halves of either sign.
    return bytes((kind | number & 0x1F, 0x80 | number >> 5 & 0x3F)) * (FRAME // 2)


def agent_delta(number: int) -> bytes:
    """100 ms of a word. Numbers below 2,048."""
    return _pair(_AGENT, number) * 5


def caller_frame(utterance: int, frame: int) -> bytes:
    """The nth frame of the caller's nth utterance: utterances below 16, frames below 128."""
    return _pair(_CALLER, utterance << 7 | frame)


def heard(frame: bytes) -> tuple[str, int]:
    """What a frame is: `word`, `caller`, `line` or `silence`, and its number."""
    if frame.count(0xFF) == len(frame):
        return "silence", 0
    low, high = frame[0], frame[1] if len(frame) > 1 else 0
    if low < 0x40 and high & 0xC0 == 0x80 and frame == bytes((low, high)) * (len(frame) // 2):
        return ("caller" if low & _CALLER else "word"), (high & 0x3F) << 5 | low & 0x1F
    return "line", 0


@dataclass(frozen=True, slots=True)
class Spell:
    """A stretch of one and the same, as the caller heard it: from when, for how long (seconds of the loop's clock)."""

    kind: str
    number: int
    began: float
    seconds: float


def spells(frames: list[tuple[float, str, int]]) -> list[Spell]:
    """Frames of (when, kind, number) as stretches."""
    found: list[Spell] = []
    for at, kind, number in frames:
        last = found[-1] if found else None
        if last is not None and (last.kind, last.number) == (kind, number):
            found[-1] = Spell(kind, number, last.began, last.seconds + FRAME_MS / 1_000)
        else:
            found.append(Spell(kind, number, at, FRAME_MS / 1_000))
    return found


def words_heard(found: list[Spell], *, at_least_ms: int = WORD_MS // 2) -> list[int]:
    """The agent's words, in order, of which at least so much was heard in one piece."""
    return [spell.number for spell in found if spell.kind == "word" and spell.seconds * 1_000 >= at_least_ms - 1]


def is_rising(numbers: list[int]) -> bool:
    """No word is said twice, and none after a later one."""
    return all(later > earlier for earlier, later in pairwise(numbers))
