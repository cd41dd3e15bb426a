"""The recogniser: how much of what may be said is understood, and the tool that adapted it to the line."""

import itertools
import random

import numpy as np
import pytest

from app.rehearsal import adapt, hearing
from app.rehearsal.grammar import talk

RULES = {
    "request": "asked", "name": "named", "number": "numbered", "readback": "affirmed", "yesno": "denied", "reason": "because",
    "day": "when_suits", "choice": "chosen", "message": "dictated", "more": "aside",
}  # fmt: skip


def test_of_sentences_drawn_at_random_nearly_all_are_understood_word_for_word(recognisers):
    # By another seed than the adaptation's, in three voices and paces; everything is seeded, so the count is the same each time.
    dice, numbers = random.Random(20_251), np.random.default_rng(20_251)
    missed = []
    for number, (state, rule) in zip(range(60), itertools.cycle(RULES.items()), strict=False):
        words = talk().sentence(rule, dice)
        samples = adapt.line_samples(adapt.written(words), adapt.VOICES[number % 3], dice.choice((140, 150, 165)), 1.0, numbers)
        utterance = recognisers.begin(state)
        for at in range(0, len(samples), 160):
            utterance.feed(samples[at : at + 160])
        if (heard := utterance.end()) != " ".join(words):
            missed.append((" ".join(words), heard))
    assert len(missed) <= 3, missed


def test_parameters_are_written_as_they_are_read(tmp_path):
    means = hearing.read_parameters(hearing.MODEL / "en-us" / "means")
    assert means.shape == (42, 3, 128, 13)
    hearing.write_parameters(tmp_path / "means", means)
    assert np.array_equal(hearing.read_parameters(tmp_path / "means"), means)


def test_an_adaptation_for_another_model_is_refused(monkeypatch):
    monkeypatch.setattr(hearing, "fingerprint", lambda: "another")
    with pytest.raises(hearing.ModelMismatch, match=r"python -m app\.rehearsal\.adapt"):
        hearing._files.__wrapped__()


def test_the_corpus_is_the_same_each_time_and_keeps_to_the_grammar():
    first, again = list(adapt.corpus(6, 3)), list(adapt.corpus(6, 3))
    assert first == again
    assert all(set(words) <= talk().words for words, _ in first)


def test_digits_are_written_in_groups():
    words = ["my", "number", "is", *["five"] * 7]
    assert adapt.written(words) == "my number is five five five, five five five, five."


def test_adapting_makes_the_model_fit_what_was_said_better():
    phones = adapt.phone_names()
    assert phones["SIL"] < len(phones) == 42
    stock = hearing.MODEL / "en-us"
    means = hearing.read_parameters(stock / "means").astype(np.float64)
    variances = np.maximum(hearing.read_parameters(stock / "variances").astype(np.float64), 1e-4)
    utterances = adapt.aligned(8, 1)
    assert len(utterances) == 8

    def distance(fitted):
        counts = adapt.count(utterances, phones, fitted, variances, silence=False)
        return (adapt.spread(counts, fitted) / variances).sum() / counts.used.sum()

    moved, _ = adapt.mllr(utterances, phones, means, variances)
    closer, _ = adapt.map_adapted(utterances, phones, moved, variances)
    assert distance(means) > distance(moved) > distance(closer)
