"""The ledger of errands: at most once, and only for who carries the call; on both databases."""

import asyncio

import pytest
import sqlalchemy as sa

from app.errors import Fenced, StoreUnavailable
from app.store.calls import Calls
from app.store.engine import Database
from app.store.ledger import Ledger, Standing, ToolStatus
from tests.store.shelf import KEY, PRICED, Clock, context, filed, new_call


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(database: Database, clock: Clock) -> Ledger:
    return Ledger(database, clock=clock)


@pytest.fixture
def calls(database: Database) -> Calls:
    return Calls(database)


@pytest.fixture
async def call_id(calls: Calls) -> str:
    return (await calls.born(new_call()))[0].call_id


async def intend(ledger: Ledger, call_id: str, tool_call: str = "t1", epoch: int = 1) -> Standing:
    return await ledger.intend(context(call_id, epoch), tool_call, "book_appointment", '{"day": "friday"}', effect=True)


async def test_what_is_intended_stands_in_the_row_before_it_is_done(ledger, calls, call_id, clock):
    assert await intend(ledger, call_id) == Standing(new=True, status=ToolStatus.INTENDED)
    (tool,) = (await calls.row(call_id))["tool_invocations"]
    assert (tool["name"], tool["status"], tool["kind"], tool["effect"]) == ("book_appointment", "intended", "errand", True)
    assert (tool["arguments"], tool["epoch"], tool["agent"]) == ({"day": "friday"}, 1, "front-desk")
    assert (tool["started_at"], tool["finished_at"], tool["attempts"]) == (clock.now.isoformat(), None, 0)


async def test_one_of_many_may_do_it(ledger, call_id):
    standings = await asyncio.gather(*(intend(ledger, call_id) for _ in range(25)))
    assert [standing.new for standing in standings].count(True) == 1
    assert {standing.status for standing in standings} == {ToolStatus.INTENDED}


async def test_the_same_again_gets_the_stored_result(ledger, calls, call_id, clock):
    await intend(ledger, call_id)
    clock.pass_(milliseconds=250)
    assert await ledger.done(context(call_id), "t1", '{"booked": true}', attempts=2)
    assert await intend(ledger, call_id) == Standing(new=False, status=ToolStatus.DONE, result='{"booked": true}')
    (tool,) = (await calls.row(call_id))["tool_invocations"]
    assert (tool["status"], tool["result"], tool["duration_ms"], tool["attempts"]) == ("done", {"booked": True}, 250, 2)


async def test_the_same_again_in_a_later_epoch_is_not_done_again(ledger, calls, call_id):
    await intend(ledger, call_id)
    await calls.advance(call_id, 1)
    assert await intend(ledger, call_id, epoch=2) == Standing(new=False, status=ToolStatus.INTENDED)


@pytest.mark.parametrize("outcome", ["failed", "unknown"])
async def test_what_failed_or_is_unknown_is_not_tried_again_blindly(ledger, call_id, outcome):
    await intend(ledger, call_id)
    assert await getattr(ledger, outcome)(context(call_id), "t1", "The calendar did not answer.")
    assert await intend(ledger, call_id) == Standing(new=False, status=ToolStatus(outcome), reason="The calendar did not answer.")


async def test_the_first_outcome_stands_and_only_the_unknown_may_become_known(ledger, call_id):
    await intend(ledger, call_id)
    assert await ledger.unknown(context(call_id), "t1", "lost")
    assert await ledger.done(context(call_id), "t1", '"found"')
    assert not await ledger.failed(context(call_id), "t1", "no")
    assert not await ledger.done(context(call_id), "t1", '"other"')
    assert await ledger.standing(call_id, "t1") == Standing(new=False, status=ToolStatus.DONE, result='"found"')


async def test_an_outcome_of_what_was_never_intended_is_not_invented(ledger, call_id):
    assert not await ledger.done(context(call_id), "t1", '"x"')
    assert await ledger.standing(call_id, "t1") is None


async def test_an_old_stream_may_begin_nothing_but_may_say_what_became_of_it(ledger, calls, call_id):
    await intend(ledger, call_id)
    await calls.advance(call_id, 1)
    with pytest.raises(Fenced):
        await intend(ledger, call_id, "t2")
    assert await ledger.standing(call_id, "t2") is None
    assert await ledger.done(context(call_id), "t1", '"yes"')


async def test_a_finished_call_and_an_unknown_call_begin_nothing(ledger, calls, call_id):
    await calls.finish(call_id, filed(), epoch=1, **PRICED)
    with pytest.raises(Fenced):
        await intend(ledger, call_id)
    with pytest.raises(Fenced):
        await intend(ledger, "nobody")
    with pytest.raises(Fenced):
        await ledger.refused(context("nobody"), "t1", "x", "{}", "no")


async def test_of_an_errand_and_the_next_epoch_at_once_one_comes_first(ledger, calls):
    """Either the errand was intended in the old epoch before the new one began, or it is fenced; never intended after."""
    for number in range(10):
        state, _ = await calls.born(new_call(f"CA{number}"))
        standing, advanced = await asyncio.gather(
            intend(ledger, state.call_id), calls.advance(state.call_id, 1), return_exceptions=True
        )
        assert advanced is True
        assert isinstance(standing, Fenced) or standing.new
        assert (await ledger.standing(state.call_id, "t1") is None) == isinstance(standing, Fenced)


async def test_a_refused_wish_is_written_down_once_and_never_begun(ledger, calls, call_id):
    wish = (context(call_id), "t1", "open_the_safe", "{}", "You cannot use this tool.")
    assert await ledger.refused(*wish)
    assert not await ledger.refused(*wish)
    assert await intend(ledger, call_id) == Standing(new=False, status=ToolStatus.REFUSED, reason="You cannot use this tool.")
    (tool,) = (await calls.row(call_id))["tool_invocations"]
    assert (tool["name"], tool["status"], tool["attempts"]) == ("open_the_safe", "refused", 0)


async def test_a_clock_set_back_makes_no_negative_duration(ledger, calls, call_id, clock):
    await intend(ledger, call_id)
    clock.pass_(hours=-1)
    assert await ledger.done(context(call_id), "t1", "1")
    assert (await calls.row(call_id))["tool_invocations"][0]["duration_ms"] == 0


async def test_the_same_tool_call_of_two_calls_is_two_errands(ledger, calls, call_id):
    other = (await calls.born(new_call("CA2")))[0].call_id
    assert (await intend(ledger, call_id)).new and (await intend(ledger, other)).new


async def test_with_a_key_the_ledger_holds_no_private_word(database_url):
    database = Database(database_url, KEY)
    ledger = Ledger(database)
    call_id = (await Calls(database).born(new_call()))[0].call_id
    await ledger.intend(context(call_id), "t1", "take_message", '"a-private-word"', effect=True)
    await ledger.done(context(call_id), "t1", '"a-private-word"')
    async with database.read() as connection:
        raw = (await connection.execute(sa.text("SELECT * FROM tool_invocations"))).all()
    assert len(raw) == 1 and "private-word" not in str(raw)
    assert (await ledger.standing(call_id, "t1")).result == '"a-private-word"'
    await database.close()


async def test_while_something_of_the_call_waits_for_the_database_no_errand_begins(database, calls):
    state, _ = await calls.born(new_call())
    behind = {state.call_id}
    ledger = Ledger(database, is_behind=behind.__contains__)
    with pytest.raises(StoreUnavailable):
        await ledger.intend(context(state.call_id), "t1", "book_appointment", "{}", effect=True)
    assert await ledger.standing(state.call_id, "t1") is None
    behind.clear()
    assert (await ledger.intend(context(state.call_id), "t1", "book_appointment", "{}", effect=True)).new
