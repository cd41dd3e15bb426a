"""The operator's word on the command line, what was told and is told again, and calls that are read again."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.store.calls import Calls
from app.store.deliveries import Deliveries
from app.store.engine import Database
from app.store.judgements import Judgements
from app.wrapup.correction import FIELDS, NotAllowed, corrected
from app.wrapup.facts import Field, Lists
from tests.cli.conftest import Run, wait
from tests.store import afterwards
from tests.store.shelf import Clock, new_call

WEBHOOK = {"WEBHOOK_URL": "https://crm.example.com/hook", "WEBHOOK_SECRET": "whsec_" + "QUJD" * 10}
LISTS = Lists(dispositions=("sales_lead", "other"), intents=("buy", "other"), region="US")

type Do = Callable[[Callable[[Database], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def do(sqlite_url: str) -> Do:
    """Do something with the database, and close it."""

    def _do(act: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
        async def opened() -> Any:
            database = Database(sqlite_url)
            try:
                return await act(database)
            finally:
                await database.close()

        return wait(opened())

    return _do


@pytest.fixture
def call(do: Do) -> str:
    """A call that was read."""

    async def act(database: Database) -> str:
        clock = Clock()
        call_id = await afterwards.finished(database, clock)
        judgements = Judgements(database, afterwards.tell_crm, clock=clock)
        assert await judgements.settle(call_id, await judgements.keep(afterwards.reading(call_id)))
        return call_id

    return str(do(act))


@pytest.fixture
def row(do: Do) -> Callable[[str], Any]:
    return lambda name: do(lambda database: Calls(database).row(name))


def give_up(do: Do, sid: str) -> str:
    async def act(database: Database) -> str:
        clock = Clock()
        call_id = await afterwards.finished(database, clock, sid)
        assert await Judgements(database, afterwards.tell_crm, clock=clock).give_up(call_id, 1, "QuotaExhausted")
        return call_id

    return str(do(act))


# ---- what may be said


@pytest.mark.parametrize(
    ("field", "typed", "kept"),
    [
        (Field.DISPOSITION, "Sales_Lead", "sales_lead"),
        (Field.SENTIMENT, "negative", "negative"),
        (Field.URGENCY, "high", "high"),
        (Field.ESCALATION, "yes", True),
        (Field.ESCALATION, "NO", False),
        (Field.LEAD_SCORE, " 100 ", 100),
        (Field.CALLBACK_NUMBER, "(555) 010-0001", "+15550100001"),
        (Field.CALLBACK_NUMBER, "+44 20 7946 0000", "+442079460000"),
        (Field.NAME, "  Maria   Lopez ", "Maria Lopez"),
        (Field.SUMMARY, " One line.\nAnother. ", "One line.\nAnother."),
    ],
)
def test_what_is_typed_is_kept_in_the_words_of_its_field(field: Field, typed: str, kept: object):
    value = corrected(field, typed, LISTS)
    assert value == kept and type(value) is type(kept)


@pytest.mark.parametrize(
    ("field", "typed", "told"),
    [
        (Field.DISPOSITION, "sold", "sales_lead, other"),
        (Field.INTENT, "", "buy, other"),
        (Field.SENTIMENT, "happy", "negative, neutral, positive"),
        (Field.URGENCY, "now", "low, normal, high"),
        (Field.ESCALATION, "maybe", "yes, no"),
        (Field.LEAD_SCORE, "101", "0 to 100"),
        (Field.LEAD_SCORE, "-1", "0 to 100"),
        (Field.LEAD_SCORE, "7.5", "0 to 100"),
        (Field.LEAD_SCORE, "٧", "0 to 100"),
        (Field.CALLBACK_NUMBER, "555 01", "telephone number"),
        (Field.NAME, "   ", "1 to 2,000"),
        (Field.SUMMARY, "x" * 2_001, "1 to 2,000"),
        (Field.SENTIMENT_COURSE, "neutral", "not corrected by hand"),
    ],
)
def test_what_a_field_cannot_have_is_refused_with_what_it_can_and_not_repeated(field: Field, typed: str, told: str):
    with pytest.raises(NotAllowed, match=told) as refused:
        corrected(field, typed, LISTS)
    assert not typed.strip() or typed not in str(refused.value).removeprefix(field)


# ---- correct


def test_a_correction_shows_before_and_after_and_whose_word_it_is(run: Run, sqlite_url: str, call: str, row, do: Do):
    result = run("correct", "CA1", "disposition", "sales_lead", "--by", "ann", "--note", "She rang.", DATABASE_URL=sqlite_url)
    assert result.exit_code == 0
    assert result.stdout == "disposition: callback_requested (machine) -> sales_lead (ann)\n"
    assert "callback_number (values differ)" in result.stderr
    assert row(call)["disposition"] == "sales_lead"
    kept = do(lambda database: Judgements(database).of_call(call))
    assert (kept[-1]["said_by"], kept[-1]["note"]) == ("ann", "She rang.")
    again = run("correct", call, "disposition", "sales_lead", "--by", "ben", DATABASE_URL=sqlite_url)
    assert again.exit_code == 0 and "nothing is changed" in again.stdout
    back = run("correct", call, "disposition", "--retract", "--by", "ann", DATABASE_URL=sqlite_url)
    assert back.stdout == "disposition: sales_lead (ann) -> callback_requested (machine)\n"
    assert "nobody has corrected it" in run("correct", call, "disposition", "--retract", DATABASE_URL=sqlite_url).stdout


def test_a_slot_is_corrected_in_the_numbers_of_the_world_and_needs_no_look_then(run: Run, sqlite_url: str, call: str, row):
    result = run("correct", call, "callback_number", "555 010 0007", "--by", "ann", DATABASE_URL=sqlite_url)
    assert result.stdout == f"callback_number: {afterwards.NUMBER} (agent) -> +15550100007 (ann)\n"
    assert result.stderr == ""
    assert row(call)["needs_review"] is False


def test_nothing_and_no_are_words_too(run: Run, sqlite_url: str, call: str):
    assert run("correct", call, "lead_score", "--none", "--by", "ann", DATABASE_URL=sqlite_url).stdout == (
        "lead_score: 65 (machine) -> none (ann)\n"
    )
    assert run("correct", call, "escalation", "yes", "--by", "ann", DATABASE_URL=sqlite_url).stdout == (
        "escalation: none (machine) -> yes (ann)\n"
    )


def test_the_login_name_says_it_unless_another_is_given(run: Run, sqlite_url: str, call: str, clean: pytest.MonkeyPatch, row):
    clean.setenv("LOGNAME", "zoe")
    assert run("correct", call, "intent", "other", DATABASE_URL=sqlite_url).exit_code == 0
    assert row(call)["judged"]["intent"]["said_by"] == "zoe"

    def nobody() -> str:
        raise OSError

    clean.setattr("getpass.getuser", nobody)
    result = run("correct", call, "intent", "buy", DATABASE_URL=sqlite_url)
    assert result.exit_code == 2 and "--by" in result.stderr and "who you are" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("disposition", "sold"), "appointment_booked, message_taken"),
        (("outcome", "failed"), "'lead_score'"),
        (("intent",), "give a VALUE"),
        (("intent", "buy", "--retract"), "give a VALUE"),
        (("intent", "--none", "--retract"), "give a VALUE"),
        (("intent", "--retract", "--note", "why"), "a note goes with a correction"),
        (("escalation", "--none"), "yes or no"),
        (("sentiment_course", "neutral"), "'sentiment'"),
    ],
)
def test_bad_input_says_what_is_good_and_changes_nothing(run: Run, sqlite_url: str, call: str, row, arguments, told: str):
    before = row(call)
    result = run("correct", call, *arguments, "--by", "ann", DATABASE_URL=sqlite_url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.split())
    assert row(call) == before


def test_every_field_that_can_be_corrected_is_named_in_the_help(run: Run):
    said = " ".join(run("correct", "--help").output.split())
    assert all(field in said for field in FIELDS)


def test_a_call_that_is_unknown_or_still_going_on_is_a_sentence(run: Run, sqlite_url: str, do: Do):
    do(lambda database: Calls(database).born(new_call("CA-live")))
    for command in (("correct", "CA-live", "intent", "buy"), ("reviewed", "CA-live"), ("analyse", "CA-live")):
        result = run(*command, DATABASE_URL=sqlite_url)
        assert (result.exit_code, result.stdout) == (1, "") and "still going on" in result.stderr
    for command in (
        ("correct", "CA-9", "intent", "buy"),
        ("reviewed", "CA-9"),
        ("analyse", "CA-9"),
        ("deliveries", "--call", "CA-9"),
    ):
        result = run(*command, DATABASE_URL=sqlite_url)
        assert (result.exit_code, result.stdout) == (1, "") and "no call is known" in result.stderr


def test_the_crm_is_told_of_a_correction_by_the_rules_of_the_settings(run: Run, sqlite_url: str, call: str, do: Do):
    assert run("correct", call, "disposition", "sales_lead", DATABASE_URL=sqlite_url, **WEBHOOK).exit_code == 0
    news = do(lambda database: Deliveries(database).list(call_id=call))
    assert [(each["event"], each["revision"], each["state"]) for each in news if each["kind"] == "webhook"][:1] == [
        ("call.changed", 3, "pending")
    ]


# ---- reviewed


def test_a_row_is_reviewed_once(run: Run, sqlite_url: str, call: str, row):
    result = run("reviewed", "CA1", "--by", "ann", DATABASE_URL=sqlite_url)
    assert result.stdout == "reviewed by ann; it was to be looked at for callback_number (values differ)\n"
    assert (row(call)["needs_review"], row(call)["reviewed_by"]) == (False, "ann")
    assert "already, by ann" in run("reviewed", call, "--by", "ben", DATABASE_URL=sqlite_url).stdout


# ---- deliveries, resend, analyse


def test_what_was_told_is_listed_and_what_is_dead_is_sent_again(run: Run, sqlite_url: str, call: str, do: Do):
    def named() -> dict[str, str]:
        news = json.loads(run("deliveries", "--json", DATABASE_URL=sqlite_url).stdout)
        return {each["kind"]: each["id"] for each in news}

    ids = named()
    assert set(ids) == {"webhook", "mail"}

    async def kill(database: Database) -> None:
        await Deliveries(database).record(ids["webhook"], 1, status=410, fault="gone", again_at=None)
        await Deliveries(database).record(ids["mail"], 1, status=None, fault=None, again_at=None)

    do(kill)
    shown = run("deliveries", "--call", "CA1", DATABASE_URL=sqlite_url)
    header, *lines = shown.stdout.splitlines()
    assert header.split()[:3] == ["id", "state", "kind"]
    assert sorted(line.split()[:3] for line in lines) == sorted(
        [[ids["webhook"], "dead", "webhook"], [ids["mail"], "delivered", "mail"]]
    )
    assert "gone" in shown.stdout and "Maria" not in shown.stdout
    assert shown.stderr == "in all 0 pending, 1 delivered, 1 dead\n"
    dead = json.loads(run("deliveries", "--state", "dead", "--json", DATABASE_URL=sqlite_url).stdout)
    assert [each["id"] for each in dead] == [ids["webhook"]]

    assert run("resend", "--dead", "--by", "ann", DATABASE_URL=sqlite_url).stdout == "1 to be sent again\n"
    assert run("resend", "--dead", "--by", "ann", DATABASE_URL=sqlite_url).stdout == "0 to be sent again\n"
    assert do(lambda database: Deliveries(database).due(10)) == [(ids["webhook"], 2)]
    both = run("resend", ids["mail"], "nobody", "--by", "ann", DATABASE_URL=sqlite_url)
    assert (both.exit_code, both.stdout) == (1, "1 to be sent again\n")
    assert both.stderr == "nobody: is unknown, or on its way anyway\n"
    assert do(lambda database: Deliveries(database).counts())["pending"] == 2


def test_without_a_delivery_there_is_no_table(run: Run, sqlite_url: str):
    result = run("deliveries", DATABASE_URL=sqlite_url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert run("deliveries", "--json", DATABASE_URL=sqlite_url).stdout == "[]\n"


def test_calls_whose_reading_was_given_up_are_read_again(run: Run, sqlite_url: str, call: str, do: Do, row):
    first, second, third = (give_up(do, sid) for sid in ("CA2", "CA3", "CA4"))
    assert run("analyse", "CA2", "--by", "ann", DATABASE_URL=sqlite_url).stdout == "1 to be read again\n"
    assert row(first)["analysis"] == "waiting"
    assert run("analyse", "--failed", "--by", "ann", DATABASE_URL=sqlite_url).stdout == "2 to be read again\n"
    due = do(lambda database: Judgements(database).due(10))
    assert sorted(due) == sorted([(first, 2), (second, 2), (third, 2)])
    refused = run("analyse", call, "--by", "ann", DATABASE_URL=sqlite_url)
    assert (refused.exit_code, refused.stdout) == (1, "0 to be read again\n")
    assert "was read" in refused.stderr


@pytest.mark.parametrize("command", ["resend", "analyse"])
def test_what_is_meant_must_be_said(run: Run, sqlite_url: str, command: str):
    everything = {"resend": "--dead", "analyse": "--failed"}[command]
    for arguments in ((), ("one", everything)):
        result = run(command, *arguments, DATABASE_URL=sqlite_url)
        assert (result.exit_code, result.stdout) == (2, "")
