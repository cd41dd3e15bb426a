"""A scene's caller on a telephone whose clock the test turns by hand: no sockets, no waiting."""

import asyncio

import numpy as np
import pytest

from app.rehearsal.carrier_caller import Handset, LineDead
from app.rehearsal.carrier_scene import VOICE_LEVEL, SceneCaller, noise_bed
from app.rehearsal.line import FRAME
from app.rehearsal.scenes import Noise, read

LOUD = b"\x10" * FRAME
FRAME_MS = 20


class Switch:
    def __init__(self) -> None:
        self.keys, self.down, self.told = "", False, []

    def press(self, digit: str) -> None:
        self.keys += digit

    def hang_up(self) -> None:
        self.down = True

    def tell(self, kind, facts=None) -> None:
        self.told.append((kind, facts))


class Room:
    """A caller with a telephone, and the clock. A caller's sentence lasts 20 ms a character."""

    def __init__(self, steps: str, noise: str = "none") -> None:
        scene = read(f'title = "t"\ncaller = {{ noise = {{ kind = "{noise}" }} }}\n{steps}', "test")
        self.switch = Switch()
        self.said: list[str] = []
        self.caller = SceneCaller(scene, lambda text, person: b"\x20" * FRAME * len(text), self._tell)
        self.phone = Handset(self.switch, self.caller.noise)
        self.frames: list[bytes] = []
        self.at = 0
        self.task = asyncio.create_task(self.caller.run(self.phone))

    def _tell(self, kind, facts) -> None:
        if kind == "caller_says":
            self.said.append(facts["text"])

    async def pass_ms(self, ms: int, agent: bool = False) -> None:
        for _ in range(ms // FRAME_MS):
            self.frames.append(self.phone.frame())
            if agent:
                self.phone.hear(self.at, LOUD)
            self.at += FRAME
            self.phone.tick(self.at)
            for _ in range(6):  # let the script go as far as it can
                await asyncio.sleep(0)

    async def agent_says(self, text: str, ms: int = 1_000, then_quiet_ms: int = 1_000) -> None:
        self.caller.agent_said(text)
        await self.pass_ms(ms, agent=True)
        await self.pass_ms(then_quiet_ms)

    async def end(self) -> None:
        self.phone.dead()
        await asyncio.wait({self.task})
        if self.task.exception() is not None and not isinstance(self.task.exception(), LineDead):
            raise self.task.exception()


async def test_the_caller_waits_until_the_agent_has_spoken_and_is_quiet():
    room = Room('step = [{ wait_for_agent = 700 }, { say = "hi" }]')
    await room.pass_ms(2_000)
    assert room.said == []
    await room.pass_ms(1_000, agent=True)
    await room.pass_ms(680)
    assert room.said == []
    await room.pass_ms(60)
    assert room.said == ["hi"]
    assert room.frames.count(b"\x20" * FRAME) == 2
    await room.end()


async def test_an_interruption_comes_so_long_after_the_agent_began():
    room = Room('step = [{ interrupt = "stop", after = 600 }]')
    await room.pass_ms(400)
    await room.pass_ms(580, agent=True)
    assert room.said == []
    await room.pass_ms(60, agent=True)
    assert room.said == ["stop"]
    await room.end()


async def test_nobody_can_be_interrupted_who_does_not_speak():
    room = Room('step = [{ interrupt = "stop", after = 600, within = 2_000 }]')
    await room.pass_ms(2_100)
    [trouble] = room.caller.troubles
    assert "did not speak for 600 ms within 2000 ms" in trouble
    assert room.switch.down
    await room.end()


async def test_the_caller_hangs_up_in_mid_word():
    room = Room('step = [{ say = "a long sentence", hang_up_after = 100 }]')
    await room.pass_ms(400)
    assert room.switch.down
    assert 0 < room.frames.count(b"\x20" * FRAME) <= 20
    await room.end()


async def test_keys_are_pressed_one_after_the_other():
    room = Room('step = [{ press = "12#" }, { hang_up = true }]')
    await room.pass_ms(100)
    assert room.switch.keys == "1"
    await room.pass_ms(1_000)
    assert room.switch.keys == "12#"
    assert room.switch.down
    await room.end()


ASKED = """
[[step]]
converse = true
until = "goodbye"
[[step]]
hang_up = true
[[answer]]
when = "your name"
say = ["anna miller", "anna"]
[[answer]]
when = "number"
press = "123#"
"""


async def test_a_question_gets_its_answer_and_asked_again_the_next_one():
    room = Room(ASKED)
    await room.agent_says("Hello. May I have your name?")
    await room.pass_ms(500)
    await room.agent_says("Sorry, your name please?")
    await room.pass_ms(500)
    await room.agent_says("And your number?")
    await room.pass_ms(1_500)
    await room.agent_says("Your name again?")
    await room.pass_ms(500)
    await room.agent_says("Goodbye!")
    assert room.said == ["anna miller", "anna", "anna"]
    assert room.switch.keys == "123#"
    assert room.switch.down
    await room.end()


async def test_a_caller_who_is_asked_the_same_again_and_again_gives_up():
    room = Room(ASKED)
    for _ in range(7):
        await room.agent_says("Your name?", ms=400)
        await room.pass_ms(500)
    [trouble] = room.caller.troubles
    assert "asked for the same thing 7 times: 'Your name?'" in trouble
    assert room.switch.down
    await room.end()


async def test_what_is_no_question_is_waited_through():
    room = Room(ASKED)
    await room.agent_says("One moment.")
    assert room.said == []
    await room.agent_says("What is your name?")
    assert room.said == ["anna miller"]
    await room.end()


async def test_where_nobody_tells_what_the_agent_said_answers_come_in_their_order():
    room = Room(ASKED)
    for _ in range(2):
        await room.pass_ms(1_000, agent=True)
        await room.pass_ms(1_800)
    assert room.said == ["anna miller"]
    assert room.switch.keys == "123#"
    await room.end()


async def test_an_agent_who_says_nothing_any_more_is_a_trouble():
    room = Room(ASKED)
    await room.agent_says("Your name?")
    await room.pass_ms(21_000)
    assert room.caller.troubles == ["the agent was not heard within 20000 ms"]
    assert room.switch.down
    await room.end()


async def test_expected_silence_holds_or_is_a_trouble():
    quiet = Room("step = [{ expect_silence = 1_000 }, { hang_up = true }]")
    await quiet.pass_ms(1_200)
    assert quiet.switch.down
    assert quiet.caller.troubles == []
    await quiet.end()
    loud = Room("step = [{ expect_silence = 1_000 }]")
    await loud.pass_ms(400)
    await loud.pass_ms(100, agent=True)
    assert "of expected silence" in loud.caller.troubles[0]
    await loud.end()


async def test_a_caller_stops_when_the_line_is_dead():
    room = Room('step = [{ wait_for_agent = 700 }, { say = "hi" }]')
    await room.pass_ms(100)
    await room.end()
    assert room.said == []


async def test_the_telephone_reports_when_the_agent_begins_and_ends_and_how_long_the_caller_waited():
    room = Room('step = [{ say = "hello" }]')
    await room.pass_ms(500)
    await room.agent_says("Yes?", ms=300, then_quiet_ms=600)
    [(_, audible)] = [told for told in room.switch.told if told[0] == "agent_audible"]
    [(_, quiet)] = [told for told in room.switch.told if told[0] == "agent_quiet"]
    last_word = max(at for at, frame in enumerate(room.frames) if frame == b"\x20" * FRAME)
    assert audible["after_caller_ms"] == 500 - (last_word + 1) * FRAME_MS
    assert quiet["spoke_ms"] == 299
    await room.end()


@pytest.mark.parametrize(("kind", "snr_db"), [("room", 46.0), ("white", 20.0), ("pink", 15.0)])
def test_a_noise_bed_is_as_loud_as_it_says_and_the_same_for_the_same_seed(kind, snr_db):
    bed = noise_bed(Noise(kind, snr_db), 7)
    assert np.array_equal(bed, noise_bed(Noise(kind, snr_db), 7))
    assert not np.array_equal(bed, noise_bed(Noise(kind, snr_db), 8))
    level = 20 * np.log10(VOICE_LEVEL / bed.astype(float).std())
    assert level == pytest.approx(snr_db, abs=0.2)


def test_pink_noise_falls_three_decibels_an_octave():
    bed = noise_bed(Noise("pink", 10.0), 1).astype(float)
    power = np.abs(np.fft.rfft(bed)) ** 2
    hertz = np.fft.rfftfreq(len(bed), 1 / 8_000)

    def band(low, high):
        return power[(hertz >= low) & (hertz < high)].mean()

    assert 10 * np.log10(band(200, 400) / band(1_600, 3_200)) == pytest.approx(9.0, abs=1.0)


async def test_noise_is_heard_under_the_caller_all_the_time():
    room = Room("step = [{ pause = 5_000 }]", noise="pink")
    await room.pass_ms(200)
    assert all(len(set(frame)) > 10 for frame in room.frames)
    await room.end()
