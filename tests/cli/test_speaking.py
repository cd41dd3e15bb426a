"""`callrow lines`, against the rehearsal's pretend model."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.audio.lines import Lines
from app.cli.speaking import spelt
from app.rehearsal.model import Model


class Provider:
    """The pretend model, on a loop of its own."""

    def __init__(self, script: str | None = None) -> None:
        self.told: list[dict] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._model = Model(tell=self.told.append, script=script, speed=40.0)
        asyncio.run_coroutine_threadsafe(self._model.start(), self._loop).result(60)
        self.env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": self._model.base_url}

    def said(self) -> list[str]:
        return [event["text"] for event in self.told if event["event"] == "agent_says"]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._model.close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


def test_every_line_is_spoken_once_and_found_by_the_service(run, provider, tmp_path: Path):
    done = run("lines", LINES_DIR=str(tmp_path / "lines"), **provider.env)
    assert done.exit_code == 0, done.output
    lines = Lines(tmp_path / "lines", "gpt-realtime-2.1")
    assert sorted(provider.said()) == sorted(lines.texts.values())
    neutral = Lines(None, "gpt-realtime-2.1")
    for name in lines.texts:
        assert lines.is_learned(name, "marin") and not lines.is_learned(name, "cedar")
        assert lines.find(name, "marin").sound != neutral.find(name, "marin").sound
        assert lines.find(name, "cedar") == neutral.find(name, "cedar")
    assert run("lines", LINES_DIR=str(tmp_path / "lines"), **provider.env).exit_code == 0
    assert len(provider.said()) == len(lines.texts), "what is learnt is not asked for again"


def test_words_of_ones_own_are_learnt_and_told_as_they_are(run, provider, tmp_path: Path):
    folder = tmp_path / "lines"
    folder.mkdir()
    (folder / "sentences.toml").write_text('one_moment = "Bear with me for a second."\n')
    assert run("lines", LINES_DIR=str(folder), **provider.env).exit_code == 0
    lines = Lines(folder, "gpt-realtime-2.1")
    assert lines.find("one_moment", "marin").text == "Bear with me for a second."
    assert lines.find("one_moment", "cedar").text == "One moment, please.", "the words that are told are those that are said"


@pytest.mark.parametrize("wrong", ["one_moment = ", 'no_such_line = "Hello."'])
def test_a_wrong_file_of_words_is_named(run, tmp_path: Path, wrong: str):
    (tmp_path / "sentences.toml").write_text(wrong)
    done = run("lines", "--list", LINES_DIR=str(tmp_path))
    assert done.exit_code == 2 and "sentences.toml" in done.output


def test_what_the_model_did_not_say_as_it_stands_is_not_kept(run, tmp_path: Path):
    provider = Provider(json.dumps({"fail": [1], "incomplete": [2]}))
    try:
        done = run("lines", LINES_DIR=str(tmp_path / "lines"), **provider.env)
    finally:
        provider.close()
    assert done.exit_code == 1
    assert len(list((tmp_path / "lines").glob("*.ulaw"))) == 5, "two of seven were spoilt"
    assert "neutral" in done.output


def test_without_a_key_nothing_is_asked(run):
    done = run("lines")
    assert done.exit_code == 2 and "OPENAI_API_KEY" in done.output
    assert run("lines", "--list").exit_code == 1, "and the list says that nothing is learnt"


def test_a_sentence_is_compared_by_its_words_alone():
    assert spelt("We're sorry, one moment!") == spelt("we\u2019re SORRY one moment") != spelt("We are sorry, one moment.")
