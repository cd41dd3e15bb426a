"""Makes the house's own lines in a neutral voice: espeak-ng's sound of each sentence in a TOML file, as mu-law clips beside it.

    python -m app.rehearsal.make_lines FOLDER

Run by `scripts/make-lines`, when a sentence has changed; what it makes is shipped. The same sentences give the same bytes.
"""

import sys
import tomllib
from pathlib import Path

from app.rehearsal import ulaw, voice

VOICE = "marin"
WORDS_PER_MINUTE = 155


def make(folder: Path) -> list[Path]:
    """Write `<name>.ulaw` for each sentence of `sentences.toml` in the folder; gives the files."""
    made = []
    for name, text in tomllib.loads((folder / "sentences.toml").read_text("utf-8")).items():
        path = folder / f"{name}.ulaw"
        path.write_bytes(ulaw.to_ulaw(voice.say(text, voice=VOICE, rate=8_000, words_per_minute=WORDS_PER_MINUTE)))
        made.append(path)
    return made


if __name__ == "__main__":
    for made in make(Path(sys.argv[1])):
        print(f"{made}: {made.stat().st_size / 8_000:.1f} s")
