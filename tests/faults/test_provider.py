"""The model's provider fails, in every way and at every moment: the call does not. Real sockets, the whole service, exact sound.

What is asserted here are facts and their order; the times are measured by `provider_figures.py`, and told.
"""

import asyncio
import random

import pytest

from app.call import answers, rollover
from app.realtime import breaker
from app.store.calls import Calls
from app.store.engine import Database
from app.web import sentences
from tests.faults.provider_figures import Figures
from tests.faults.provider_runs import Observed, Scenario, house, last_word, observe, play, scenarios, until, was_heard, wrongs
from tests.faults.voiceless import Fault, Script

PERSON = "sales=+15551230001"
SEED = 20


def kinds(observed: Observed) -> list[str]:
    """What the caller heard, stretch by stretch, without the silences."""
    found: list[str] = []
    for spell in observed.spells:
        if spell.kind != "silence" and found[-1:] != [spell.kind]:
            found.append(spell.kind)
    return found


def lines(observed: Observed) -> list[str]:
    """The words of the house's own lines, as the row has them."""
    return [said["heard"] for said in observed.row["utterances"] if said["key"].startswith("line-")]


async def reconnects(observed: Observed, database_url: str) -> int:
    database = Database(database_url)
    try:
        state = await Calls(database).find_by_sid(observed.phone.sid)
    finally:
        await database.close()
    return state.memory.reconnects


@pytest.mark.timeout(240)
async def test_a_session_that_is_lost_at_any_moment_costs_no_word_no_turn_and_no_effect(tmp_path, subtests):
    figures = Figures()
    async with house(tmp_path, TRANSFER_TO=PERSON) as it:
        places = asyncio.Semaphore(6)

        async def one(scenario: Scenario) -> Observed:
            async with places:
                return await play(it, scenario)

        played = await asyncio.gather(*(one(scenario) for scenario in scenarios(random.Random(SEED))))
    for observed in played:
        figures.add(observed)
        with subtests.test(scenario=observed.scenario.name):
            assert wrongs(observed) == []
            assert observed.phone.streams == 1, "the telephone never noticed"
            if observed.scenario.answered:
                turns = (0, *observed.scenario.utterances)
                assert observed.words == [number for turn in turns for number in range(turn * 100, last_word(turn) + 1)]
            if observed.scenario.name == "after the last tool":
                assert (observed.row["outcome"], observed.row["end_reason"]) == ("completed", "agent_ended")
                assert lines(observed) == ["Thank you for calling. Goodbye."] and observed.row["summary"] == "Done."
            if observed.scenario.name == "during a transfer":
                assert (observed.row["outcome"], observed.phone.dialled) == ("transferred", ["+15551230001"])
            if observed.scenario.name.startswith("while what is generated"):
                assert lines(observed) == [], "nobody waited, so nobody was told to"
            if observed.scenario.name == "when the answer is asked for":
                assert kinds(observed) == ["word", "line", "word"] and lines(observed) == ["One moment, please."]
    assert (figures.doubled_words, figures.lost_words, figures.lost_turns) == (0, 0, 0)


# ---- an agent that is not heard


async def test_an_open_socket_that_says_nothing_is_noticed_and_left_for_another(tmp_path):
    async with house(tmp_path) as it:
        observed = await play(it, Scenario("hole", (Fault("response", 2, "hole"),)))
    assert wrongs(observed) == []
    assert kinds(observed) == ["word", "line", "word"]
    assert len(observed.phone.model.sessions) == 2 and await reconnects(observed, it.database_url) == 1


async def test_a_voice_of_digital_silence_is_silence(tmp_path):
    async with house(tmp_path) as it:
        observed = await play(it, Scenario("hush", (Fault("response", 2, "hush"),)))
    assert wrongs(observed) == []
    assert observed.words == [*range(0, last_word(0) + 1), *range(100, last_word(1) + 1)]
    first, second = observed.phone.model.sessions
    assert len(first.orders) == 3, "once more in the same session, and then in another"
    assert second.turns == [] and len(second.orders) == 1, "which had the question in words"
    assert kinds(observed) == ["word", "line", "word"], "silence is not played to its end before somebody speaks"


# ---- no agent to be had


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_that_would_be_repeated_leads_to_a_person_at_once(tmp_path, status):
    async with house(tmp_path, TRANSFER_TO=PERSON) as it:
        observed = await play(it, Scenario("refused", (Fault("refuse", status),) * 9, answered=False))
    assert wrongs(observed) == ["the caller's turns in the transcript: []"]
    assert observed.phone.model.attempts == 1 and observed.phone.dialled == ["+15551230001"]
    assert observed.row["outcome"] == "transferred" and kinds(observed) == ["line"]


async def test_when_all_tries_have_failed_the_caller_is_told_what_follows_and_the_row_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "GIVE_UP_MS", 4_000)
    async with house(tmp_path) as it:
        faults = (Fault("deltas", 30), *(Fault("refuse", 503),) * 20)
        observed = await play(it, Scenario("down", faults, answered=False))
    row = observed.row
    assert (row["outcome"], row["end_reason"]) == ("failed", "model_unavailable")
    assert lines(observed)[0] == "One moment, please." and lines(observed)[-1].startswith(
        "I am sorry, we cannot go on just now. Someone"
    )
    assert row["next_action"].startswith("Call the caller back")
    assert kinds(observed)[-1] == "line" and observed.phone.said == [], "the last word is ours, and it is heard"
    assert 2 <= observed.phone.model.attempts <= 8
    assert observed.differences == []


async def test_while_the_provider_is_down_new_calls_are_told_so_at_once_and_when_it_is_back_they_are_answered(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(breaker, "PROBE_EVERY_S", 0.5)
    monkeypatch.setattr(answers, "GIVE_UP_MS", 1_000)
    async with house(tmp_path) as it:
        it.provider.is_down = True
        early = [it.phone(Script()) for _ in range(5)]
        await asyncio.gather(*(phone.rings() for phone in early))
        await until(lambda: all(phone.is_over for phone in early))
        late = it.phone(Script())
        await late.rings()
        await until(lambda: late.is_over)
        assert (late.streams, late.said, late.model.attempts) == (0, [sentences.MODEL_UNAVAILABLE], 0)
        it.provider.is_down = False
        async with asyncio.timeout(30):
            while True:
                again = it.phone(Script())
                await again.rings()
                if again.streams:
                    break
                await until(lambda again=again: again.is_over)
                await asyncio.sleep(0.2)
        await until(lambda: was_heard(again, last_word(0)))
        await asyncio.sleep(0.6)
        await again.hangs_up()
        observed = await observe(it, Scenario("back", (), ()), again)
    assert observed.row["outcome"] == "abandoned" and observed.words == list(range(last_word(0) + 1))


# ---- the planned change


async def test_sessions_are_changed_while_nobody_speaks_and_nobody_hears_it(tmp_path):
    async with house(tmp_path, beyond={"session_rollover_minutes": 3 / 60}) as it:
        observed = await play(it, Scenario("rollover", (), (1, 3, 5), pause=2.2))
    sessions = observed.phone.model.sessions
    assert len(sessions) >= 3 and await reconnects(observed, it.database_url) == 0
    assert observed.phone.model.most_at_once == 2, "beside each other, for a moment"
    assert [wrong for wrong in wrongs(observed) if "connections" not in wrong] == []
    assert observed.words == [number for turn in (0, 1, 3, 5) for number in range(turn * 100, last_word(turn) + 1)]
    assert kinds(observed) == ["word"] and lines(observed) == []
    turns = [turn for session in sessions for turn in session.turns]
    assert turns == [1, 3, 5], "each was heard once, by whichever session was in force"


async def test_a_session_that_ends_before_there_was_a_pause_finds_the_next_one_ready(tmp_path, monkeypatch):
    monkeypatch.setattr(rollover, "SPREAD_MS", 0)
    async with house(tmp_path, beyond={"session_rollover_minutes": 0.8 / 60}) as it:
        observed = await play(it, Scenario("no pause", (Fault("quiet", 95, "expire"),), (1,)))
    assert [wrong for wrong in wrongs(observed) if "connections" not in wrong] == []
    assert observed.phone.model.sessions[1].began < observed.phone.model.faults_at[0], "it stood ready"
    assert lines(observed) == [] and observed.words == [*range(0, last_word(0) + 1), *range(100, last_word(1) + 1)]
