"""What can be heard: the grammar's file, its automata, and that every line of every shipped scene is in it."""

import random

import pytest

from app.rehearsal.grammar import BadGrammar, Grammar, spoken_words, states_for, talk
from app.rehearsal.hearing import pronunciations, transitions
from app.rehearsal.scenes import load, shipped


def test_rules_become_the_sentences_they_describe():
    grammar = Grammar("public <s> = [please] (<go> | stop) now | wait; <go> = go [on];")
    accepts = grammar.states["s"].accepts
    for sentence in ("go now", "please go on now", "stop now", "wait"):
        assert accepts(sentence.split()), sentence
    for sentence in ("", "go", "please wait", "go stop now", "now", "wait wait"):
        assert not accepts(sentence.split()), sentence


def test_automata_are_minimal():
    grammar = Grammar("public <s> = a x | b x | c x | a y | b y | c y;")
    assert len(grammar.states["s"].arcs) == 3


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("public <s> = a | <nowhere>;", "<nowhere> is not there"),
        ("public <s> = a <s>;", "<s> contains itself"),
        ("public <s> = (a | b;", "no '\\)' after"),
        ("public <s> a;", "no '=' after"),
    ],
)
def test_a_wrong_grammar_is_refused_with_what_is_wrong(text, wrong):
    with pytest.raises(BadGrammar, match=wrong):
        Grammar(text)


def test_every_sentence_that_is_drawn_is_accepted_again():
    dice = random.Random(1)
    for state, automaton in talk().states.items():
        for _ in range(40):
            words = talk().sentence(state, dice)
            assert automaton.accepts(words), (state, words)


def test_every_word_has_a_pronunciation_and_one_without_is_named():
    lines = pronunciations(talk().words).splitlines()
    assert {line.split(" ")[0].split("(")[0] for line in lines} == talk().words
    with pytest.raises(Exception, match="never be heard: qwertz"):
        pronunciations(frozenset({"hello", "qwertz"}))


def test_nothing_leads_away_from_a_states_one_end():
    for automaton in talk().states.values():
        arcs = transitions(automaton)
        assert {at for at, *_ in arcs} == set(range(len(automaton.arcs))) | {len(automaton.arcs) + 1}
        assert all(0 < weight <= 1 for _, _, weight, *_ in arcs)


def test_written_words_are_read_as_they_are_spoken():
    assert spoken_words("Mm-hmm. I'd like 5 o'clock!") == ["mm-hm", "i'd", "like", "five", "o'clock"]
    assert "readback" in states_for("No, it's 555 123 4567.")
    assert states_for("The weather is fine today.") == []


@pytest.mark.parametrize("name", shipped())
def test_every_line_of_a_shipped_scene_can_be_heard(name):
    assert [line for line in load(name).lines if not states_for(line)] == []
