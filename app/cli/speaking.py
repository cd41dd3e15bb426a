"""`callrow lines`: have the model speak the house's own lines once, in the voice of every agent, and keep them as clips.

What is kept is checked: the words that the model says it spoke are the sentence, nothing more, and there is sound. The service
finds new clips when it starts.
"""

import asyncio
import re
from pathlib import Path

import click

from app.audio.lines import Lines, clip_name, is_plausible
from app.audio.path import audio_path
from app.call.agent import Agent
from app.call.commands import Speak
from app.call.events import AgentAudio, AgentWords, Event, ModelLost, ResponseEnded
from app.cli import reading
from app.errors import BadSetting, CallrowError
from app.realtime.leg import ModelLeg
from app.realtime.session import SessionOptions
from app.settings import Settings

TRIES = 3
SPOKEN_WITHIN_S = 30.0
READER = "You read sentences aloud for an announcement: calm and friendly, exactly the words you are given, and nothing else."


class NotSpoken(CallrowError):
    """The model did not speak a sentence as it stands. `why` is a short constant."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        super().__init__(name, why)

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@click.command("lines")
@click.option("--list", "only_list", is_flag=True, help="Only say what there is.")
@click.option("--again", is_flag=True, help="Also those that are there already.")
def lines_command(only_list: bool, again: bool) -> None:
    """Have the model speak what is said when no agent can, in your agents' voices. Exit code 0 if all of it is there.

    Each sentence is asked for once a voice, and costs a few tokens. Until then, and where it fails, a neutral voice is used. For
    words of your own, put a file sentences.toml into LINES_DIR.
    """
    settings = reading.settings_without_keys()
    voices = sorted({agent.voice or settings.realtime_voice for agent in reading.agents(settings).values()})
    if not only_list:
        if settings.openai_api_key.get_secret_value() == reading.NO_KEYS["OPENAI_API_KEY"]:
            raise BadSetting([("OPENAI_API_KEY", "is not set", "OPENAI_API_KEY=sk-...  (OpenAI console, API keys)")])
        for voice in voices:
            asyncio.run(_learn(settings, voice, again=again))
    lines = Lines(settings.lines_dir, settings.realtime_model)
    whole = True
    for voice in voices:
        for name, text in lines.texts.items():
            learned = lines.is_learned(name, voice)
            whole = whole and learned
            click.echo(f"{voice:10} {'learnt ' if learned else 'neutral'}  {name}: {text}")
    if not whole:
        raise SystemExit(1)


async def _learn(settings: Settings, voice: str, *, again: bool) -> None:
    lines = Lines(settings.lines_dir, settings.realtime_model)
    wanted = {name: text for name, text in lines.texts.items() if again or not lines.is_learned(name, voice)}
    if not wanted:
        return
    reader = Reader(settings, voice)
    await reader.open()
    try:
        for name, text in wanted.items():
            try:
                sound = await reader.read(name, text)
            except NotSpoken as fault:
                click.echo(f"{voice}: {fault}", err=True)
                continue
            keep(settings.lines_dir / clip_name(name, text, voice=voice, model=settings.realtime_model), sound)
            click.echo(f"{voice}: {name}, {len(sound) / 8_000:.1f} s", err=True)
    finally:
        await reader.close()


def keep(path: Path, sound: bytes) -> None:
    """Write a clip: whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(sound)
    unfinished.replace(path)


class Reader:
    """A session with the model in which it does nothing but read sentences aloud."""

    def __init__(self, settings: Settings, voice: str) -> None:
        self._agent = Agent(name="reader", instructions=READER, voice=voice)
        self._said: asyncio.Queue[Event] = asyncio.Queue()
        self._leg = ModelLeg(
            SessionOptions.of(settings),
            audio_path(settings.audio_path),
            self._said.put_nowait,
            agents={"reader": self._agent},
            url=settings.realtime_url,
            api_key=settings.openai_api_key.get_secret_value(),
        )

    async def open(self) -> None:
        """Raises ModelUnavailable."""
        await self._leg.open(self._agent)

    async def close(self) -> None:
        """End it."""
        await self._leg.close()

    async def read(self, name: str, text: str) -> bytes:
        """The sentence's sound, as line audio. Raises NotSpoken."""
        why = ""
        for _ in range(TRIES):
            self._leg.send(Speak(f'Say exactly: "{text}"'))
            try:
                async with asyncio.timeout(SPOKEN_WITHIN_S):
                    words, sound = await self._answer(name)
            except TimeoutError:
                raise NotSpoken(name, "no answer") from None
            if spelt(words) != spelt(text):
                why = "other words were spoken"
            elif not is_plausible(sound):
                why = "too short or too long"
            else:
                return sound
        raise NotSpoken(name, why)

    async def _answer(self, name: str) -> tuple[str, bytes]:
        words, sound = "", b""
        while True:
            match await self._said.get():
                case AgentWords(text=text):
                    words += text
                case AgentAudio(payload=payload):
                    sound += payload
                case ResponseEnded(status="completed"):
                    return words, sound
                case ResponseEnded(reason=reason):
                    raise NotSpoken(name, reason or "the answer failed")
                case ModelLost(reason=reason):
                    raise NotSpoken(name, reason)


def spelt(text: str) -> list[str]:
    """The words of a sentence, without what is not heard of them."""
    return re.findall(r"[^\W_]+", text.casefold().replace("'", "").replace("\u2019", ""))
