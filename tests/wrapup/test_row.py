"""The row as others get it: against its committed schema, from real rows of both databases."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.call.disposition import EndReason, Memory, Outcome, Slot
from app.store.after_tables import Source
from app.store.engine import Database
from app.store.judgements import Judgements
from app.wrapup.row import COMMITTED, Row, schema, schema_text
from tests.store.shelf import Clock, memory, utterance
from tests.wrapup.rows import finished, read, row_of


async def test_the_committed_schema_is_the_one_that_the_code_makes():
    assert COMMITTED.read_text("utf-8") == schema_text(), "run: callrow schema > app/wrapup/schemas/row-1.json"


def nodes(node: Any) -> list[dict[str, Any]]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [*([node] if isinstance(node, dict) else []), *(deeper for each in inner for deeper in nodes(each))]


def test_the_schema_keeps_its_promises():
    made = schema()
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for shape in (made, *made["$defs"].values()):
        if shape["type"] == "object":  # every field is always there, and new ones may come
            assert shape["required"] == list(shape["properties"])
            assert "additionalProperties" not in shape
            assert shape["description"]
    assert made["$defs"]["Outcome"]["enum"] == [outcome.value for outcome in Outcome]
    assert {node["$ref"] for node in nodes(made) if "$ref" in node} <= {f"#/$defs/{name}" for name in made["$defs"]}


def test_nothing_that_is_only_ours_is_in_it():
    ours = {"memory", "from_index", "to_index", "worker", "epoch", "claimed_epoch", "stream_sid", "account_sid", "utterances"}
    assert not ours & set(Row.model_fields)


def as_read_again(row: Row) -> Row:
    """From its JSON, strictly: no string for a number, no number for a word."""
    text = json.dumps(row.json_ready())
    again = Row.model_validate_json(text, strict=True)
    assert json.loads(text).keys() == schema()["properties"].keys()
    return again


async def test_a_call_that_was_read_is_told_with_what_each_value_rests_on(database: Database):
    call_id = await finished(database)
    await read(database, call_id)
    row = Row.of(await row_of(database, call_id))
    assert as_read_again(row) == row
    told = row.json_ready()
    assert (told["version"], told["call_id"], told["revision"], told["analysis"]) == (1, call_id, 2, "done")
    assert told["started_at"] == "2026-11-20T09:00:00Z"
    assert told["duration_ms"] == 61_500
    assert (told["summary"], told["lead_score"], told["urgency"]) == ("Maria wants her garden done.", 40, None)
    assert (told["escalated"], told["escalation_reason"]) == (True, "wants_a_person")
    assert (told["needs_review"], told["review_reasons"]) == (True, {"name": "values_differ"})
    heard = {
        "utterance": "1.u1",
        "at_ms": 2_000,
        "speaker": "caller",
        "heard": "Maria Lopez. Our whole garden needs doing, this month.",
    }
    assert told["judged"]["lead_score"] == {
        "value": 40,
        "source": "machine",
        "confidence": 0.8,
        "analyzer": "openai",
        "model": "test-model",
        "prompt_version": "analysis-1@0",
        "reasons": [{"name": "wants_work", "because": "the whole garden", "evidence": [heard]}],
        "evidence": [heard],
        "at": "2026-11-20T09:00:00Z",
    }
    assert [said["speaker"] for said in told["judged"]["disposition"]["evidence"]] == ["caller", "agent"]
    assert told["judged"]["urgency"]["value"] is None
    assert told["slots"]["name"] == {
        "value": "Maria Lopez",
        "confirmed": True,
        "source": "agent",
        "agent": "front-desk",
        "utterance": heard,
        "second_reading": {"value": "Maria Lopez", "confidence": 0.8, "evidence": [heard]},
        "noted": None,
    }
    assert told["slots"]["reason"]["source"] == "machine"
    assert told["usage"]["openai"]["audio_in"] == 2_000


async def test_what_was_said_and_rests_under_no_value_does_not_leave_the_house(database: Database):
    call_id = await finished(database)
    await read(database, call_id)
    assert "who is calling" not in json.dumps(Row.of(await row_of(database, call_id)).json_ready())


async def test_a_corrected_value_is_the_persons_and_what_the_agent_had_noted_lies_beside_it(database: Database):
    clock = Clock()
    call_id = await finished(database, clock=clock)
    judgements = await read(database, call_id, clock=clock)
    assert await judgements.correct(call_id, "name", "Marta Lopes", by="beatrix")
    assert await judgements.correct(call_id, "lead_score", 90, by="beatrix", note="she called before")
    row = Row.of(await row_of(database, call_id))
    assert as_read_again(row) == row
    told = row.json_ready()
    assert told["lead_score"] == told["judged"]["lead_score"]["value"] == 90
    assert told["judged"]["lead_score"]["source"] == "operator"
    assert (told["slots"]["name"]["value"], told["slots"]["name"]["source"]) == ("Marta Lopes", "operator")
    assert told["slots"]["name"]["noted"] == {"value": "Maria Lopez", "confirmed": True}
    assert "beatrix" not in json.dumps(told)  # who it was stays in the house


async def test_a_call_that_was_never_read_is_told_as_the_agent_left_it(database: Database):
    call_id = await finished(database)
    row = Row.of(await row_of(database, call_id))
    assert as_read_again(row) == row
    assert (row.analysis.value, row.disposition, row.slots["name"].value) == ("waiting", "sales_lead", "Maria Lopez")
    assert row.judged["disposition"].source.value == "agent"
    assert await Judgements(database).give_up(call_id, 1, "QuotaExhausted")
    failed = Row.of(await row_of(database, call_id))
    assert as_read_again(failed) == failed
    assert (failed.analysis.value, failed.analysis_fault) == ("failed", "QuotaExhausted")


@pytest.mark.parametrize("end_reason", [EndReason.NEVER_CONNECTED, EndReason.FULL_HOUSE, EndReason.WORKER_LOST])
async def test_a_call_of_which_nearly_nothing_is_known_has_a_row(database: Database, end_reason: EndReason):
    call_id = await finished(
        database, memory=Memory(agent="front-desk"), spoken=(), outcome=Outcome.FAILED, end_reason=end_reason, ended_at=0
    )
    row = Row.of(await row_of(database, call_id))
    assert as_read_again(row) == row
    assert (row.slots, row.disposition, row.lead_score, row.end_reason) == ({}, None, None, end_reason)


async def test_a_word_of_an_agents_that_is_in_no_closed_list_costs_no_row(database: Database):
    odd = memory(slots=(Slot(name="urgency", value="as soon as \ud800 you can"), Slot(name="plan", value="B")), disposition="odd")
    call_id = await finished(database, memory=odd)
    row = Row.of(await row_of(database, call_id))
    assert as_read_again(row) == row
    assert row.urgency is None
    assert row.slots["urgency"].value == "as soon as ? you can"
    assert (row.slots["plan"].value, row.disposition) == ("B", "odd")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
JUDGED = st.fixed_dictionaries(
    {"source": st.sampled_from([source.value for source in Source])},
    optional=dict.fromkeys(("value", "confidence", "reasons", "evidence"), ANYTHING),
)
SLOT = ANYTHING | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("value", "confirmed", "source", "agent", "utterance", "at", "second_reading", "noted"), ANYTHING)
)


@pytest.fixture(scope="module")
def a_row(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished row of the store."""

    async def made() -> dict[str, Any]:
        database = Database(f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path_factory.mktemp('row') / 'callrow.db')}")
        try:
            return await row_of(database, await finished(database))
        finally:
            await database.close()

    return asyncio.run(made())


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "slots": ANYTHING | st.dictionaries(st.text(max_size=3), SLOT, max_size=3),
            "judged": st.dictionaries(st.text(max_size=3), JUDGED, max_size=3),
            **dict.fromkeys(("usage", "review_reasons", "sentiment_course"), ANYTHING),
            **dict.fromkeys(("urgency", "escalation_reason", "disposition", "analyzer"), st.none() | st.text()),
        },
    )
)
@settings(max_examples=150, deadline=None)
def test_no_private_json_of_the_store_costs_a_row(a_row: dict[str, Any], changes: dict[str, Any]):
    row = Row.of(a_row | changes)
    assert as_read_again(row).call_id == a_row["call_id"]


async def test_a_slot_finds_its_utterance_among_those_of_the_same_key_on_another_stream(database: Database):
    call_id = await finished(database)
    row = await row_of(database, call_id)
    later = utterance("u1", 30_000, heard="Later.")
    row["utterances"].append(
        {"epoch": 2, "ref": "2.u1", "key": "u1", "speaker": "caller", "started_at_ms": later.started_at, "heard": later.heard}
    )
    noted_from = Row.of(row).slots["name"].utterance
    assert noted_from is not None
    assert noted_from.utterance == "1.u1"
    row["slots"]["name"]["at"] = 40_000
    noted_from = Row.of(row).slots["name"].utterance
    assert noted_from is not None
    assert noted_from.utterance == "2.u1"


async def test_strict_reading_does_refuse_what_is_wrong(database: Database):
    told = Row.of(await row_of(database, await finished(database))).json_ready()
    for wrong in (
        {"lead_score": 101},
        {"outcome": "splendid"},
        {"turns": "3"},
        {"started_at": "2026-11-20T09:00:00"},
        {"version": 2},
    ):
        with pytest.raises(ValidationError):
            Row.model_validate_json(json.dumps(told | wrong), strict=True)
