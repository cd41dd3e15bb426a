"""Makes `grammars/line.npz`: how the recogniser's acoustic model differs for our callers' voices on a telephone line.

    python -m app.rehearsal.adapt        about five minutes on one core

A developer's tool; run it when the grammar's vocabulary, the voices or PocketSphinx's model have changed. It speaks sentences drawn
at random from the grammar's rules, over mu-law, at several paces and levels, aligns them with the model, and moves the model:

1. MLLR: one affine map for all means, one factor for all variances of a dimension (Leggetter and Woodland 1995).
2. Aligned again with that, MAP: each Gaussian's mean and variance, as far as it was used (Gauvain and Lee 1994).

Rule 1: what it speaks is drawn by a fixed seed from the rules; no scene is read.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from app.rehearsal import hearing, ulaw
from app.rehearsal.grammar import talk
from app.rehearsal.voice import say

type Array = NDArray[np.float64]

RULES = ("asked", "named", "numbered", "numbered", "affirmed", "denied", "because", "urgent", "when_suits", "chosen", "dictated",
         "aside", "digits", "person_name")  # fmt: skip
VOICES = ("klatt4", "klatt5", "klatt6")
PACES = (130, 145, 150, 165, 175)
SILENT_PHONE = "SIL"
ROUNDS = 3
RELUCTANCE = 10.0
"""MAP's tau: how many frames the prior is worth."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """One utterance: its cepstra, and (phone, first frame, frames)."""

    cepstra: Array
    phones: list[tuple[str, int, int]]


def written(words: list[str]) -> str:
    """A sentence for the synthesiser: digits in groups."""
    digits = {"zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
    parts, run = [], 0
    for at, word in enumerate(words):
        run = run + 1 if word in digits else 0
        comma = run and run % 3 == 0 and at + 1 < len(words) and words[at + 1] in digits
        parts.append({"mm-hm": "mm-hmm"}.get(word, word) + ("," if comma else ""))
    return " ".join(parts) + "."


def line_samples(text: str, voice: str, pace: int, level: float, dice: np.random.Generator) -> NDArray[np.int16]:
    """A sentence as it comes over the line, at no particular place in a frame, with quiet around it."""
    speech = say(text, voice=voice, rate=hearing.LINE_RATE, words_per_minute=pace) * level
    quiet = hearing.LINE_RATE // 4
    line = np.concatenate([np.zeros(quiet + int(dice.integers(160))), speech, np.zeros(quiet)])
    return ulaw.to_linear(ulaw.to_ulaw(np.clip(np.rint(line), -32_768, 32_767).astype(np.int16)))


def corpus(count: int, seed: int) -> Iterator[tuple[list[str], bytes]]:
    """Words, and their sound as the recogniser gets it."""
    dice, numbers = random.Random(seed), np.random.default_rng(seed)
    for number in range(count):
        words = talk().sentence(RULES[number % len(RULES)], dice)
        level = dice.choice((0.5, 1.0, 1.0, 1.5))
        samples = line_samples(written(words), VOICES[number % 3], dice.choice(PACES), level, numbers)
        noise = numbers.normal(0, dice.choice((0, 0, 20, 80)), len(samples))
        front = hearing.FrontEnd(number)
        yield words, front.silence(hearing.PADDING_MS) + front.feed(samples + noise) + front.silence(hearing.PADDING_MS)


def aligned(count: int, seed: int, **model: str) -> list[Aligned]:
    """The corpus, aligned by phones with a model."""
    found = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dict").write_text(hearing.pronunciations(talk().words))
        (folder / "cepstra").mkdir()
        decoder = hearing.decoder(dict=str(folder / "dict"), mfclogdir=str(folder / "cepstra"), **model)
        for words, sound in corpus(count, seed):
            decoder.set_align_text(" ".join(words))
            _decode(decoder, sound)
            if decoder.hyp() is not None:
                decoder.set_alignment()
                _decode(decoder, sound)
                last = max((folder / "cepstra").iterdir(), key=lambda path: path.stat().st_mtime_ns)
                raw = last.read_bytes()
                (length,) = struct.unpack(">i", raw[:4])
                cepstra = np.frombuffer(raw, ">f4", length, 4).reshape(-1, 13).astype(np.float64)
                phones = [(phone.name, phone.start, phone.duration) for word in decoder.get_alignment() for phone in word]
                found.append(Aligned(cepstra, phones))
            for path in (folder / "cepstra").iterdir():
                path.unlink()
    return found


def _decode(decoder: Any, sound: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(sound, full_utt=True)
    decoder.end_utt()


def features(cepstra: Array) -> Array:
    """Frame, stream (cepstra, first and second differences), dimension: the model's `1s_c_d_dd`."""
    still = cepstra - cepstra.mean(axis=0)
    padded = np.concatenate([np.repeat(still[:1], 3, 0), still, np.repeat(still[-1:], 3, 0)])

    def at(offset: int) -> Array:
        return padded[3 + offset : 3 + offset + len(still)]

    return np.stack([still, at(2) - at(-2), (at(3) - at(-1)) - (at(1) - at(-3))], axis=1)


@dataclass(slots=True)
class Counts:
    """How often each Gaussian was used, and the sums of what it stood for."""

    used: Array
    first: Array
    second: Array


def count(utterances: list[Aligned], phones: dict[str, int], means: Array, variances: Array, *, silence: bool) -> Counts:
    """Go through the corpus once; each frame is shared out over the Gaussians of its phone."""
    counts = Counts(np.zeros(means.shape[:3]), np.zeros_like(means), np.zeros_like(means))
    for utterance in utterances:
        frames = features(utterance.cepstra)
        for phone, start, length in utterance.phones:
            if length <= 0 or (phone == SILENT_PHONE and not silence):
                continue
            for stream in range(means.shape[1]):
                book = (phones[phone], stream)
                here = frames[start : start + length, stream]
                apart = (here[:, None, :] - means[book]) ** 2 / variances[book]
                likely = -0.5 * (apart.sum(axis=2) + np.log(variances[book]).sum(axis=1))
                share = np.exp(likely - likely.max(axis=1, keepdims=True))
                share /= share.sum(axis=1, keepdims=True)
                counts.used[book] += share.sum(axis=0)
                counts.first[book] += share.T @ here
                counts.second[book] += share.T @ here**2
    return counts


def spread(counts: Counts, means: Array) -> Array:
    """The summed squared distance of what was seen from some means."""
    used = counts.used[..., None]
    return np.asarray(counts.second - 2 * means * counts.first + means**2 * used)


def mllr(utterances: list[Aligned], phones: dict[str, int], means: Array, variances: Array) -> tuple[Array, Array]:
    """One affine map of all means for each stream, and the variances by one factor for each dimension."""
    moved = means
    dimensions = means.shape[3]
    for _ in range(ROUNDS):
        counts = count(utterances, phones, moved, variances, silence=False)
        moved = np.empty_like(means)
        for stream in range(means.shape[1]):
            flat = means[:, stream].reshape(-1, dimensions)
            known = np.concatenate([np.ones((len(flat), 1)), flat], axis=1)
            used = counts.used[:, stream].reshape(-1)
            sums = counts.first[:, stream].reshape(-1, dimensions)
            for dimension in range(dimensions):
                precise = 1 / variances[:, stream, :, dimension].reshape(-1)
                left = (known * (precise * used)[:, None]).T @ known + 1e-3 * np.eye(dimensions + 1)
                row = np.linalg.solve(left, known.T @ (precise * sums[:, dimension]))
                moved[:, stream, :, dimension] = (known @ row).reshape(means.shape[0], -1)
    factor = (spread(counts, moved) / variances).sum(axis=(0, 2)) / counts.used.sum(axis=(0, 2))[:, None]
    return moved, variances * factor[None, :, None, :]


def map_adapted(utterances: list[Aligned], phones: dict[str, int], means: Array, variances: Array) -> tuple[Array, Array]:
    """Each Gaussian by itself, held by where it was."""
    moved = means
    for _ in range(ROUNDS):
        counts = count(utterances, phones, moved, variances, silence=True)
        moved = (RELUCTANCE * means + counts.first) / (RELUCTANCE + counts.used[..., None])
    widened = (RELUCTANCE * variances + spread(counts, moved)) / (RELUCTANCE + counts.used[..., None])
    return moved, np.maximum(widened, 1e-3)


def phone_names() -> dict[str, int]:
    """The model's context-independent phones, in the order of its codebooks."""
    raw = (hearing.MODEL / "en-us" / "mdef").read_bytes()
    (described,) = struct.unpack_from("<i", raw, 8)
    (phones,) = struct.unpack_from("<i", raw, 12 + described)
    names = raw[raw.index(b"+NSN+\0") :].split(b"\0")[:phones]
    return {name.decode(): number for number, name in enumerate(names)}


def _steps(values: Array, step: float) -> NDArray[np.int8]:
    return np.clip(np.rint(values / step), -127, 127).astype(np.int8)


@click.command()
@click.option("--utterances", default=2_400, help="How many sentences to speak.")
@click.option("--seed", default=77, help="The dice's seed.")
def main(utterances: int, seed: int) -> None:
    """Adapt, and write grammars/line.npz."""
    stock = hearing.MODEL / "en-us"
    phones = phone_names()
    means = hearing.read_parameters(stock / "means").astype(np.float64)
    variances = np.maximum(hearing.read_parameters(stock / "variances").astype(np.float64), 1e-4)
    with TemporaryDirectory() as name:
        new = {"mean": f"{name}/means", "var": f"{name}/variances"}

        def keep(adapted: tuple[Any, Any]) -> tuple[Any, Any]:
            for path, values in zip(new.values(), adapted, strict=True):
                hearing.write_parameters(Path(path), values)
            return adapted

        keep(mllr(aligned(utterances // 3, seed), phones, means, variances))
        click.echo("first alignment done")
        found = aligned(utterances, seed, **new)
        click.echo(f"{len(found)} of {utterances} sentences aligned")
        moved, widened = keep(map_adapted(found, phones, *keep(mllr(found, phones, means, variances))))
    np.savez_compressed(
        hearing.ADAPTED,
        fingerprint=np.array(hearing.fingerprint()),
        mean=_steps((moved - means) / np.sqrt(variances), hearing.MEAN_STEP),
        log_variance=_steps(np.log(widened / variances), hearing.LOG_VARIANCE_STEP),
        cepstral_mean=np.mean([utterance.cepstra.mean(axis=0) for utterance in found], axis=0),
    )
    click.echo(f"wrote {hearing.ADAPTED.name}, {hearing.ADAPTED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
