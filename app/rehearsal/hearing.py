"""The recogniser: PocketSphinx fed while the caller speaks, a small automaton of sentences for each state of the dialogue.

Rule 1: the binding holds the interpreter while it decodes. So it is fed 20 ms at a time (about half a millisecond each) and never
given a whole utterance at once, but where the client commits a buffer by itself.
Rule 2: it knows what may be said in a state (`talk.gram`) and never what a scene is going to say.
Rule 3: what is none of the sentences is not understood: a loop of any phones competes with them, and where that
wins there are no words.
Rule 4: no digital silence: dither under everything, and 200 ms of it before and after.

The stock acoustic model knows wide-band human speech and takes a sixth of what our callers say over the telephone for something
else. `line.npz` moves its means and variances to the line and the voices (`adapt.py` made it, from sentences drawn at random from
the grammar); then it is one word in two hundred.
"""

import atexit
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pocketsphinx
from numpy.typing import NDArray

from app.errors import OurFault
from app.rehearsal.grammar import FOLDER, Automaton, talk
from app.rehearsal.rates import Resampler

LINE_RATE = 8_000
RATE = 16_000
PADDING_MS = 200
DITHER = 16.0
"""Standard deviation, of 32,768: what a quiet line has."""

MODEL = Path(pocketsphinx.get_model_path()) / "en-us"
ADAPTED = FOLDER / "line.npz"
MEAN_STEP, LOG_VARIANCE_STEP = 1 / 32, 1 / 24
"""What one step of the stored differences is: a share of the stock deviation; a natural logarithm."""

_DIGITS = frozenset({"zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"})
_DIGIT_WEIGHT = 0.05
"""A digit is short, so one is easily heard where there is none: it has to earn its place."""
_PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K", "L", "M",
    "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
_ANYTHING = "~"
"""Begins the "word" of a single phone."""
_ANYTHING_WEIGHT = 3e-7
"""Any phones in any order compete with the sentences, at this price each. Heavier, and sentences that are there are refused;
lighter, and nonsense becomes a sentence. Measured: 1e-6 refuses 1 sentence of 220 and 67 of 72 that are none, 1e-7 refuses 0
and 57."""
# Wider than the defaults: a short last word is otherwise lost with the path that leads to it.
_BEAMS = {"beam": 1e-60, "pbeam": 1e-60, "wbeam": 1e-45}


class ModelMismatch(OurFault):
    """`line.npz` was made for other model files than PocketSphinx brought: run `python -m app.rehearsal.adapt`."""

    def __str__(self) -> str:
        return "grammars/line.npz does not fit this PocketSphinx model: run python -m app.rehearsal.adapt"


def read_parameters(path: Path) -> NDArray[np.float32]:
    """A `means` or `variances` file of the Sphinx-3 format: codebook, stream, density, dimension."""
    raw = path.read_bytes()
    at = raw.index(b"endhdr\n") + len(b"endhdr\n") + 4
    codebooks, streams, densities = np.frombuffer(raw, "<i4", 3, at)
    lengths = np.frombuffer(raw, "<i4", streams, at + 12)
    shape = (int(codebooks), int(streams), int(densities), int(lengths[0]))
    return np.frombuffer(raw, "<f4", int(np.prod(shape)), at + 16 + 4 * int(streams)).reshape(shape)


def write_parameters(path: Path, values: NDArray[Any]) -> None:
    """The same format, without the check sum, which is optional."""
    codebooks, streams, densities, length = values.shape
    head = np.array([codebooks, streams, densities, *[length] * streams, values.size], "<i4").tobytes()
    order = np.array([0x11223344], "<i4").tobytes()
    path.write_bytes(b"s3\nversion 1.0\nendhdr\n" + order + head + values.astype("<f4").tobytes())


def fingerprint() -> str:
    """What `line.npz` was made for."""
    folder = MODEL / "en-us"
    return hashlib.sha256((folder / "means").read_bytes() + (folder / "variances").read_bytes()).hexdigest()


def pronunciations(words: frozenset[str]) -> str:
    """A dictionary of these words, from `extra.dict` and PocketSphinx's cmudict. Raises OurFault naming words without one."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in (FOLDER / "extra.dict", MODEL / "cmudict-en-us.dict"):
        for line in path.read_text().splitlines():
            entry, _, phones = line.partition(" ")
            word = re.sub(r"\(\d+\)$", "", entry)
            if word in words:
                found[word].append(phones)
    if silent := sorted(words - found.keys()):
        raise OurFault(f"no pronunciation, so these words can never be heard: {', '.join(silent)}")
    lines = [
        f"{word}{f'({number})' if number > 1 else ''} {phones}"
        for word in sorted(found)
        for number, phones in enumerate(found[word], start=1)
    ]
    return "\n".join(lines) + "\n"


@cache
def _files() -> tuple[dict[str, str], str]:
    """The decoder's files for this process, and the cepstral mean of the line."""
    folder = TemporaryDirectory(prefix="callrow-ears-")
    atexit.register(folder.cleanup)
    place = Path(folder.name)
    phones = "".join(f"{_ANYTHING}{phone} {phone}\n" for phone in _PHONES)
    (place / "talk.dict").write_text(pronunciations(talk().words) + phones)
    stock = MODEL / "en-us"
    with np.load(ADAPTED) as adapted:
        if str(adapted["fingerprint"]) != fingerprint():
            raise ModelMismatch
        variances = read_parameters(stock / "variances")
        deviation = np.sqrt(np.maximum(variances, 1e-4))
        write_parameters(place / "means", read_parameters(stock / "means") + adapted["mean"] * (MEAN_STEP * deviation))
        write_parameters(place / "variances", variances * np.exp(adapted["log_variance"] * LOG_VARIANCE_STEP))
        cepstral_mean = ",".join(f"{value:.3f}" for value in adapted["cepstral_mean"])
    files = {"dict": str(place / "talk.dict"), "mean": str(place / "means"), "var": str(place / "variances")}
    return files, cepstral_mean


def decoder(**options: Any) -> Any:
    """A PocketSphinx decoder without any search, as this room configures them."""
    settings = {"hmm": str(MODEL / "en-us"), "lm": None, "fwdflat": False, "bestpath": False, "loglevel": "FATAL"}
    return pocketsphinx.Decoder(**settings | _BEAMS | options)


def transitions(automaton: Automaton) -> list[tuple[Any, ...]]:
    """An automaton as PocketSphinx takes it: from, to, weight, and a word unless none is needed. It ends behind its last state."""
    end = len(automaton.arcs)
    arcs: list[tuple[Any, ...]] = []
    for at, leads in enumerate(automaton.arcs):
        share = 1 / max(1, len(leads) + (at in automaton.ends))
        for word, onward in leads.items():
            arcs.append((at, onward, share * (_DIGIT_WEIGHT if word in _DIGITS else 1.0), word))
        if at in automaton.ends:
            arcs.append((at, end, share))
    anything = end + 1
    for phone in _PHONES:  # rule 3
        arcs += [(at, anything, _ANYTHING_WEIGHT, _ANYTHING + phone) for at in (0, anything)]
    return [*arcs, (anything, end, 1.0)]


class FrontEnd:
    """From line samples at 8 kHz to what the recogniser takes. One for each utterance; the same seed gives the same dither."""

    def __init__(self, seed: int = 0) -> None:
        self._dice = np.random.default_rng(seed)
        self._rate = Resampler(LINE_RATE, RATE)

    def feed(self, samples: NDArray[Any]) -> bytes:
        """The next stretch, 16 kHz, 16 bit."""
        sound = self._rate.feed(samples)
        sound += self._dice.normal(0.0, DITHER, len(sound))
        return np.clip(np.rint(sound), -32_768, 32_767).astype("<i2").tobytes()

    def silence(self, ms: int) -> bytes:
        """So much line without a voice."""
        return self.feed(np.zeros(ms * LINE_RATE // 1_000, np.float32))


class Recogniser:
    """Hears one utterance at a time."""

    def __init__(self) -> None:
        files, self._cepstral_mean = _files()
        self._decoder = decoder(cmn="live", cmninit=self._cepstral_mean, **files)
        self.searches: set[str] = set()
        """The states that have been prepared."""
        self._front: FrontEnd | None = None
        self._utterances = 0

    def prepare(self, state: str) -> None:
        """Get ready for a state of the dialogue (KeyError if there is none of the name): up to 0.1 s and 12 MB, once."""
        if state not in self.searches:
            automaton = talk().states[state]
            fsg = self._decoder.create_fsg(state, 0, len(automaton.arcs), transitions(automaton))
            self._decoder.add_fsg(state, fsg)
            self.searches.add(state)

    def begin(self, state: str) -> None:
        """An utterance begins, said in this state of the dialogue."""
        self.prepare(state)
        self._decoder.activate_search(state)
        # One caller's level and line do not carry over into what is heard next: utterances are short, and the mean of a cough is
        # nobody's.
        self._decoder.set_cmn(self._cepstral_mean)
        self._decoder.start_utt()
        self._utterances += 1
        self._front = FrontEnd(self._utterances)
        self._decoder.process_raw(self._front.silence(PADDING_MS))

    def feed(self, samples: NDArray[Any]) -> None:
        """The next stretch of the utterance, line samples at 8 kHz."""
        assert self._front is not None
        if sound := self._front.feed(samples):
            self._decoder.process_raw(sound)

    def end(self) -> str:
        """The utterance is over: its words, empty if it was none of the sentences."""
        assert self._front is not None
        self._decoder.process_raw(self._front.silence(PADDING_MS))
        self._front = None
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        words = hypothesis.hypstr if hypothesis is not None else ""
        return "" if _ANYTHING in words else words


class Utterance:
    """One utterance that is being heard; end it or drop it, or its recogniser is lost to the others."""

    def __init__(self, recogniser: Recogniser, give_back: Callable[[Recogniser], None]) -> None:
        self._recogniser, self._give_back = recogniser, give_back

    def feed(self, samples: NDArray[Any]) -> None:
        """The next stretch, line samples at 8 kHz."""
        self._recogniser.feed(samples)

    def end(self) -> str:
        """It is over: its words, empty if it was none of the sentences."""
        text = self._recogniser.end()
        self._give_back(self._recogniser)
        return text


class Recognisers:
    """Those of one process. One with all its states takes 60 MB and is needed only while somebody speaks: so callers share."""

    def __init__(self) -> None:
        self._idle: list[Recogniser] = []

    def warm(self) -> None:
        """Have one ready for everything, so that the first caller's first word need not wait."""
        recogniser = Recogniser()
        for state in talk().states:
            recogniser.prepare(state)
        self._idle.append(recogniser)

    def begin(self, state: str) -> Utterance:
        """Somebody begins to speak, in this state of the dialogue."""
        ready = next((one for one in self._idle if state in one.searches), None) or next(iter(self._idle), None)
        if ready is None:
            ready = Recogniser()
        else:
            self._idle.remove(ready)
        ready.begin(state)
        return Utterance(ready, self._idle.append)
