"""One errand: who may run it, what becomes of it, and what the ledger says afterwards."""

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict

from app.errors import CarrierRefused, OurFault, StoreUnavailable, ToolRefused, WorldFault
from app.store.calls import Calls, NewCall
from app.tools import record, toolbox
from app.tools.arguments import Arguments
from tests.tools.conftest import Body, Scene, tool

SAY = frozenset({"say"})


async def refusal(running) -> str:
    with pytest.raises(ToolRefused) as caught:
        await running
    return str(caught.value)


async def test_a_tools_result_comes_back_as_json_and_stands_in_the_ledger(scene: Scene):
    body = Body({"said": "héllo"})
    order = scene.order(' {"word": " hello ", "times": 2} ')
    assert await scene.toolbox(tool(body)).run(order, scene.context, SAY) == '{"said":"héllo"}'
    ((arguments, errand),) = body.seen
    assert (arguments.word, arguments.times) == ("hello", 2)
    assert (errand.context, errand.tool_call) == (scene.context, order.tool_call)
    row = await scene.row()
    assert (row["name"], row["agent"], row["status"], row["result"]) == ("say", "front-desk", "done", '{"said":"héllo"}')
    assert (row["effect"], row["attempts"], row["epoch"]) == (False, 1, 1)
    assert row["arguments"] == order.arguments


@pytest.mark.parametrize(
    ("changed", "allowed", "sentence"),
    [
        ({"name": "shout"}, {"say", "shout"}, toolbox.UNKNOWN_TOOL),
        ({}, {"other"}, toolbox.NOT_ALLOWED),
        ({}, set(), toolbox.NOT_ALLOWED),
        ({"arguments": '{"word": "sesame"'}, SAY, "The arguments are not valid JSON."),
        ({"arguments": "sesame"}, SAY, "The arguments are not valid JSON."),
        ({"arguments": '{"word": "\\ud800"}'}, SAY, "The arguments are not valid JSON."),
        ({"arguments": '{"word": "sesame \ud800"}'}, SAY, "The arguments are not valid JSON."),
        ({"arguments": "[" * 10_000}, SAY, "The arguments are not valid JSON."),
        ({"arguments": '["sesame"]'}, SAY, "The arguments must be an object."),
        ({"arguments": "null"}, SAY, "The arguments must be an object."),
        ({"arguments": ""}, SAY, "word is missing."),
        ({"arguments": '{"word": 7}'}, SAY, "word must be a string."),
        ({"arguments": '{"word": "a", "times": "sesame"}'}, SAY, "times must be a whole number."),
        ({"arguments": '{"times": 1.5, "sesame": 1, "open": 2}'}, SAY,
         "word is missing. times must be a whole number. There is a field that this tool does not have. Its fields: word, times."),
        ({"arguments": json.dumps({"word": "x" * 2_001})}, SAY, "word must have at most 2000 characters."),
        ({"arguments": json.dumps({"word": "x" * 16_000})}, SAY, "The arguments are too long: at most 16,000 characters."),
    ],
)  # fmt: skip
async def test_what_breaks_the_rules_is_refused_in_a_sentence_and_never_begun(scene: Scene, changed, allowed, sentence):
    body = Body()
    said = await refusal(scene.toolbox(tool(body, effect=True)).run(scene.order(**changed), scene.context, allowed))
    assert said == sentence
    assert "sesame" not in said
    assert body.begun == 0
    row = await scene.row()
    assert (row["status"], row["reason"], row["attempts"]) == ("refused", sentence, 0)


async def test_the_name_of_a_tool_that_there_is_not_is_not_kept(scene: Scene):
    await refusal(scene.toolbox().run(scene.order(name="my name is\x00 Ada"), scene.context, SAY))
    assert (await scene.row())["name"] == "unknown_tool"


async def test_a_refusal_by_the_tool_reaches_the_model_word_by_word(scene: Scene):
    body = Body(ToolRefused("The pond is frozen."))
    assert await refusal(scene.toolbox(tool(body, effect=True)).run(scene.order(), scene.context, SAY)) == "The pond is frozen."
    row = await scene.row()
    assert (row["status"], row["reason"]) == ("failed", "The pond is frozen.")


@pytest.mark.parametrize(
    "fault", [ValueError("4111 1111"), KeyError("Ada"), TimeoutError(), asyncio.CancelledError(), OurFault("x")]
)
async def test_a_tool_that_raises_is_a_neutral_sentence_and_its_words_are_nowhere(scene: Scene, fault):
    said = await refusal(scene.toolbox(tool(Body(fault))).run(scene.order(), scene.context, SAY))
    assert said == toolbox.BROKEN
    row = await scene.row()
    assert (row["status"], row["reason"]) == ("failed", f"{toolbox.BROKEN} ({type(fault).__name__})")


async def test_an_effect_that_raises_may_have_happened(scene: Scene):
    said = await refusal(scene.toolbox(tool(Body(ValueError("4111")), effect=True)).run(scene.order(), scene.context, SAY))
    assert said == record.NOT_CERTAIN
    row = await scene.row()
    assert (row["status"], row["reason"]) == ("unknown", f"{record.NOT_CERTAIN} (ValueError)")


@pytest.mark.parametrize(
    ("effect", "sentence", "status"), [(False, toolbox.TOO_LATE, "failed"), (True, record.NOT_CERTAIN, "unknown")]
)
async def test_a_tool_that_hangs_is_given_up_when_its_budget_is_spent(scene: Scene, hang, effect, sentence, status):
    box = scene.toolbox(tool(Body(hang(5_001)), effect=effect, budget_ms=5_000))
    assert await refusal(box.run(scene.order(), scene.context, SAY)) == sentence
    row = await scene.row()
    assert (row["status"].value, row["reason"]) == (status, f"{sentence} (TimeoutError)")


async def test_the_orders_budget_holds_where_it_is_the_smaller(scene: Scene, hang):
    box = scene.toolbox(tool(Body(hang(5_001)), budget_ms=60_000))
    assert await refusal(box.run(scene.order(budget_ms=5_000), scene.context, SAY)) == toolbox.TOO_LATE


async def test_the_budget_holds_over_all_attempts_together(scene: Scene, hang):
    body = Body(StoreUnavailable("try"), hang(5_001))
    box = scene.toolbox(tool(body, safe_to_retry=True, budget_ms=5_000))
    assert await refusal(box.run(scene.order(), scene.context, SAY)) == toolbox.TOO_LATE
    assert (body.begun, (await scene.row())["attempts"]) == (2, 2)


async def test_what_is_safe_is_tried_again_while_the_world_says_not_now(scene: Scene):
    body = Body(CarrierRefused(503), StoreUnavailable("try"), {"ok": True})
    assert await scene.toolbox(tool(body, safe_to_retry=True)).run(scene.order(), scene.context, SAY) == '{"ok":true}'
    row = await scene.row()
    assert (row["status"], row["attempts"]) == ("done", 3)


async def test_at_most_three_times(scene: Scene):
    body = Body(StoreUnavailable("try"))
    assert await refusal(scene.toolbox(tool(body, safe_to_retry=True)).run(scene.order(), scene.context, SAY)) == toolbox.BROKEN
    assert body.begun == toolbox.ATTEMPTS == 3


@pytest.mark.parametrize(
    ("safe", "fault"),
    [
        (False, StoreUnavailable("try")),
        (True, CarrierRefused(404)),
        (True, ValueError()),
        (True, WorldFault()),
        (True, ToolRefused("No.")),
        (True, TimeoutError()),
    ],
)
async def test_nothing_else_is_tried_again(scene: Scene, safe, fault):
    body = Body(fault, {"ok": True})
    await refusal(scene.toolbox(tool(body, safe_to_retry=safe)).run(scene.order(), scene.context, SAY))
    assert body.begun == 1


async def test_a_repeat_gives_the_stored_result_and_does_nothing(scene: Scene):
    body, order = Body({"n": 1}, {"n": 2}), scene.order()
    box = scene.toolbox(tool(body, effect=True))
    assert await box.run(order, scene.context, SAY) == '{"n":1}'
    assert await box.run(order, scene.context, SAY) == '{"n":1}'
    another_worker = scene.toolbox(tool(body, effect=True))
    assert await another_worker.run(order, scene.context, SAY) == '{"n":1}'
    assert body.begun == 1


async def test_a_repeat_of_what_failed_fails_alike_and_does_nothing(scene: Scene):
    body, order = Body(ToolRefused("The pond is frozen."), {"ok": True}), scene.order()
    for box in (scene.toolbox(tool(body, effect=True)), scene.toolbox(tool(body, effect=True))):
        assert await refusal(box.run(order, scene.context, SAY)) == "The pond is frozen."
    assert body.begun == 1


async def test_a_repeat_of_what_was_refused_is_refused(scene: Scene):
    body, order = Body(), scene.order("broken")
    box = scene.toolbox(tool(body, effect=True))
    await refusal(box.run(order, scene.context, SAY))
    said = await refusal(box.run(replace(order, arguments='{"word": "hello"}'), scene.context, SAY))
    assert said == "The arguments are not valid JSON."
    assert body.begun == 0


async def test_the_same_order_while_it_is_out_is_told_to_wait(scene: Scene):
    gate = asyncio.Event()
    body, order = Body(gate), scene.order()
    box = scene.toolbox(tool(body, effect=True))
    async with asyncio.TaskGroup() as house:
        first = house.create_task(box.run(order, scene.context, SAY))
        await body.running.wait()
        assert await refusal(box.run(order, scene.context, SAY)) == toolbox.STILL_OUT
        gate.set()
    assert first.result() == '{"ok":true}'
    assert body.begun == 1


async def test_an_effect_whose_worker_died_is_unknown_and_not_done_again(scene: Scene):
    body, order = Body(), scene.order()
    await scene.ledger.intend(scene.context, order.tool_call, "say", order.arguments, True)  # and then the process was killed
    box = scene.toolbox(tool(body, effect=True))
    for _ in range(2):
        assert await refusal(box.run(order, scene.context, SAY)) == record.NOT_CERTAIN
        assert await scene.status() == "unknown"
    assert body.begun == 0


async def test_looking_something_up_again_does_no_harm_after_a_crash(scene: Scene):
    body, order = Body(), scene.order()
    await scene.ledger.intend(scene.context, order.tool_call, "say", order.arguments, False)
    assert await scene.toolbox(tool(body)).run(order, scene.context, SAY) == '{"ok":true}'
    assert (body.begun, await scene.status()) == (1, "done")


async def test_intended_is_committed_before_an_effect_begins(scene: Scene):
    gate = asyncio.Event()
    body = Body(gate)
    async with asyncio.TaskGroup() as house:
        house.create_task(scene.toolbox(tool(body, effect=True)).run(scene.order(), scene.context, SAY))
        await body.running.wait()
        assert await scene.status() == "intended"
        gate.set()
    assert await scene.status() == "done"


async def test_with_the_database_down_an_effect_does_not_begin_and_says_so(scene: Scene):
    body = Body()
    box = scene.toolbox(tool(body, effect=True), intend=1)
    assert await refusal(box.run(scene.order(), scene.context, SAY)) == record.NO_LEDGER
    assert body.begun == 0
    assert await scene.rows() == []


async def test_with_the_database_down_looking_something_up_goes_on_and_is_written_later(scene: Scene):
    body = Body()
    box = scene.toolbox(tool(body), intend=3)
    assert await box.run(scene.order(), scene.context, SAY) == '{"ok":true}'
    assert await scene.status() == "done"


async def test_an_outcome_is_written_when_the_database_is_back(scene: Scene):
    box = scene.toolbox(tool(Body(), effect=True), done=4)
    assert await box.run(scene.order(), scene.context, SAY) == '{"ok":true}'
    assert await scene.status() == "done"


async def test_a_database_that_stays_away_costs_the_result_nothing(scene: Scene):
    box = scene.toolbox(tool(Body(), effect=True), done=10_000)
    assert await box.run(scene.order(), scene.context, SAY) == '{"ok":true}'
    assert await scene.status() == "intended"  # which the store takes for unknown


async def test_a_call_that_has_moved_on_has_no_errands(scene: Scene):
    body = Body()
    box = scene.toolbox(tool(body, effect=True))
    assert await refusal(box.run(scene.order(), replace(scene.context, epoch=7), SAY)) == record.MOVED_ON
    assert await refusal(box.run(scene.order(), replace(scene.context, call_id="nobody"), SAY)) == record.MOVED_ON
    assert body.begun == 0


@pytest.mark.parametrize(("effect", "status"), [(False, "failed"), (True, "unknown")])
async def test_cancellation_is_let_through_after_it_was_written_down(scene: Scene, effect, status):
    body = Body(asyncio.Event())
    box = scene.toolbox(tool(body, effect=effect))
    errand = asyncio.create_task(box.run(scene.order(), scene.context, SAY))
    await body.running.wait()
    errand.cancel()
    with pytest.raises(asyncio.CancelledError):
        await errand
    assert await scene.status() == status


async def test_a_second_cancellation_does_not_lose_the_outcome(scene: Scene):
    body = Body(asyncio.Event())
    box = scene.toolbox(tool(body, effect=True))
    errand = asyncio.create_task(box.run(scene.order(), scene.context, SAY))
    await body.running.wait()
    while not errand.done():
        errand.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await errand
    assert await scene.status() == "unknown"


async def test_the_thirty_first_errand_of_a_call_is_refused(scene: Scene):
    body = Body()
    box = scene.toolbox(tool(body))
    for _ in range(30):
        await box.run(scene.order(), scene.context, SAY)
    for _ in range(20):
        assert await refusal(box.run(scene.order(), scene.context, SAY)) == toolbox.TOO_MANY
    assert body.begun == len(await scene.rows()) == 30


async def test_calls_are_counted_apart(scene: Scene):
    new = NewCall(carrier_call_sid="CA2", account_sid=None, from_number=None, to_number=None, agent="front-desk")
    other, _ = await Calls(scene.store).born(new)
    box = scene.toolbox(tool(Body()))
    for _ in range(30):
        await box.run(scene.order(), scene.context, SAY)
    assert await box.run(scene.order(), replace(scene.context, call_id=other.call_id), SAY) == '{"ok":true}'


@pytest.mark.parametrize("text", ["word " * 3_000, '"' * 9_000, "\u0001" * 9_000, "ä" * 9_000])
async def test_a_result_that_is_too_long_is_cut_and_says_so(scene: Scene, text):
    result = await scene.toolbox(tool(Body({"note": text}))).run(scene.order(), scene.context, SAY)
    assert 7_000 < len(result) <= 8_000
    cut = json.loads(result)
    assert cut["cut_short"] is True
    assert cut["beginning"].startswith('{"note":"')


@pytest.mark.parametrize(("effect", "sentence"), [(False, toolbox.BROKEN), (True, record.NOT_CERTAIN)])
@pytest.mark.parametrize("result", [{"x": object()}, {"x": "\ud800"}])
async def test_a_result_that_is_no_json_is_a_tool_that_broke(scene: Scene, effect, sentence, result):
    box = scene.toolbox(tool(Body(result), effect=effect))
    assert await refusal(box.run(scene.order(), scene.context, SAY)) == sentence


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    arguments=st.one_of(
        st.just('{"word": "hello"}'),
        st.text(),
        st.text(alphabet='{}[]":,word times0123456789\\utrfalsenl.-eE+ \x00'),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda part: st.one_of(st.lists(part), st.dictionaries(st.one_of(st.just("word"), st.text()), part)),
        ).map(json.dumps),
    ),
    safe=st.booleans(),
    fault=st.sampled_from(
        [None, ValueError("x"), StoreUnavailable("try"), ToolRefused("No."), CarrierRefused(503), RecursionError()]
    ),
)
async def test_whatever_the_model_sends_and_the_tool_does_only_a_refusal_comes_out(scene: Scene, arguments, safe, fault):
    box = scene.toolbox(tool(Body(fault or {"ok": True}), effect=True, safe_to_retry=safe))
    with contextlib.suppress(ToolRefused):
        assert json.loads(await box.run(scene.order(arguments), scene.context, SAY)) == {"ok": True}


class Open(Arguments):
    model_config = ConfigDict(extra="allow")


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "end_call"},
        {"name": "Say It"},
        {"budget_ms": 99},
        {"budget_ms": 60_001},
        {"description": " "},
        {"arguments": Open},
    ],
)
def test_a_tool_declared_wrongly_is_our_fault(changed):
    with pytest.raises(OurFault):
        tool(None, **changed)


def test_two_tools_cannot_have_one_name():
    with pytest.raises(OurFault, match="two tools have the name say"):
        toolbox.Toolbox(None, [tool(None), tool(None)])
