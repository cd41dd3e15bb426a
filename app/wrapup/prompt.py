"""What a model is told: the instructions, a file that is never changed but replaced by another version, and the call, as data.

Rule 1: nothing of a call is ever part of the instructions, and nothing of either is put together with the other: they are two
fields of the request.
Rule 2: each utterance is one JSON object on one line. No character of an utterance can end its line or its string.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.wrapup.facts import Transcript

FOLDER = Path(__file__).parent / "prompts"
CURRENT = "analysis-1"
# What ends lines for somebody, and the invisible tag characters, in which text can be smuggled past a human reader.
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\U000e0000-\U000e007f]+")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Instructions under a version: the file's name and a hash of its bytes."""

    text: str
    version: str

    @classmethod
    def read(cls, name: str = CURRENT, folder: Path = FOLDER) -> Self:
        """The prompt of a name."""
        content = (folder / f"{name}.md").read_bytes()
        return cls(content.decode("utf-8"), f"{name}@{hashlib.sha256(content).hexdigest()[:12]}")


def as_data(transcript: Transcript) -> str:
    """The transcript as JSON, one object a line."""
    lines = []
    for line in transcript.lines:
        text = None if line.text is None else UNFIT.sub(" ", line.text).encode("utf-8", "replace").decode("utf-8")
        told = {"line": line.number, "speaker": line.speaker, "text": text, **({"interrupted": True} if line.interrupted else {})}
        lines.append(json.dumps(told, ensure_ascii=False))
    return "\n".join(lines)
