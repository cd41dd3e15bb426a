"""The doctor: each check against a peer that is well and against peers that are not."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from app.cli.addresses import Addresses
from app.cli.doctor import Finding, Verdict, check_dates, check_mail, check_number, examine, rings_here
from app.settings import Settings
from app.twilio.carrier import NumberConfiguration
from tests.cli.conftest import ACCOUNT, LIVE, Run, World, number, wait
from tests.wrapup.receivers import authority, mailbox

NUMBERS = f"/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json"
MODELS = {"data": [{"id": "gpt-realtime-2.1"}, {"id": "gpt-transcribe"}, {"id": "gpt-6-luna"}]}


@pytest.fixture
def well(world: World, sqlite_url: str) -> dict[str, str]:
    """Settings of a world in which all is well."""
    world.answers["/health/live"] = (200, {"status": "live"})
    world.answers["/v1/models"] = (200, MODELS)
    world.answers[NUMBERS] = (200, {"incoming_phone_numbers": [number(world.url)], "next_page_uri": None})
    return LIVE | {
        "PUBLIC_URL": world.url,
        "OPENAI_BASE_URL": f"{world.url}/v1",
        "TWILIO_API_URL": world.url,
        "DATABASE_URL": sqlite_url,
    }


def findings(env: dict[str, str]) -> list[Finding]:
    return wait(examine(Settings.from_env(env), today=date(2026, 11, 20)))


def wrong(env: dict[str, str]) -> list[tuple[str, str, str]]:
    return [(found.name, found.what, found.remedy) for found in findings(env) if found.verdict is Verdict.WRONG]


def test_where_all_is_well_nothing_is_wrong(run: Run, well: dict[str, str], world: World):
    result = run("doctor", **well)
    assert result.exit_code == 0, result.output
    assert all(line.startswith("ok ") for line in result.stdout.splitlines())
    for name in (
        "settings",
        "database",
        "migrations",
        "agents",
        "transfer",
        "model dates",
        "model",
        "session",
        "carrier",
        "public address",
        "analyzer",
        "webhook",
        "mail",
        "chat",
        "alerts",
    ):
        assert f"ok            {name}: " in result.stdout
    assert {("/v1/models", "Bearer a-key"), ("/v1/realtime", "Bearer a-key")} <= set(world.asked)
    assert "a-key" not in result.output
    assert "a-token" not in result.output


def test_missing_settings_are_wrong_and_what_needs_them_cannot_be_checked(run: Run, sqlite_url: str):
    result = run("doctor", DATABASE_URL=sqlite_url, OPENAI_API_KEY="k", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert result.exit_code == 2
    assert "wrong         setting PUBLIC_URL: is not set" in result.stdout
    assert "-> TWILIO_AUTH_TOKEN=" in result.stdout
    assert "cannot check  carrier: TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN and PUBLIC_URL must be set right first" in result.stdout
    assert "ok            database: " in result.stdout
    assert "wrong         model: http://127.0.0.1:9/v1/models: no answer (ConnectError)" in result.stdout
    assert "wrong         session: ws://127.0.0.1:9/v1/realtime: no session (ConnectionRefusedError)" in result.stdout


def test_a_database_that_was_never_migrated(well: dict[str, str], tmp_path: Any):
    ((name, what, remedy),) = wrong(well | {"DATABASE_URL": f"sqlite:///{tmp_path}/none.db"})
    assert (name, remedy) == ("database", "run: callrow migrate")
    assert "no tables yet" in what
    assert not (tmp_path / "none.db").exists()


def test_a_database_that_is_away(well: dict[str, str]):
    ((name, what, _),) = wrong(well | {"DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:9/none?connect_timeout=2"})
    assert (name, what) == ("database", "PostgreSQL, 127.0.0.1:9/none cannot be reached")


def test_an_agent_file_that_is_wrong(well: dict[str, str], tmp_path: Any):
    (tmp_path / "desk.md").write_text('+++\nname = "desk"\nhands_off_to = ["ghost"]\n+++\nBe kind.\n')
    ((name, what, _),) = wrong(well | {"AGENTS_DIR": str(tmp_path), "FIRST_AGENT": "desk"})
    assert name == "agents"
    assert "desk.md:3: unknown agent ghost" in what


def test_a_first_agent_that_there_is_not(well: dict[str, str]):
    ((name, _, remedy),) = wrong(well | {"FIRST_AGENT": "ghost"})
    assert (name, remedy) == ("first agent", "FIRST_AGENT=one of front-desk, sales")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"error": {}}), "the provider refuses the key (HTTP 401)"),
        ((404, {}), "answers HTTP 404"),
        ((200, b"<html>"), "not with a list of models"),
        ((200, {"data": "none"}), "not with a list of models"),
        ((200, {"data": [{"id": "gpt-transcribe"}, {"id": "gpt-6-luna"}]}), "gpt-realtime-2.1 is not there for this key"),
        ((200, {"data": [{"id": "gpt-transcribe"}, {"id": "gpt-realtime-2.1"}]}), "gpt-6-luna is not there for this key"),
    ],
)
def test_a_provider_that_is_not_as_it_should_be(well: dict[str, str], world: World, answer: tuple[int, Any], said: str):
    world.answers["/v1/models"] = answer
    ((name, what, remedy),) = wrong(well)
    assert name == "model"
    assert said in what
    assert remedy


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"type": "error", "error": {"code": "model_not_found"}}, "gpt-realtime-2.1 opens none: model_not_found"),
        ({"type": "error"}, "gpt-realtime-2.1 opens none: None"),
        ("[]", "gpt-realtime-2.1 opens none: no event"),
        ("<html>", "no session (JSONDecodeError)"),
    ],
)
def test_a_provider_that_lists_the_model_and_opens_no_session(well: dict[str, str], world: World, event: Any, said: str):
    world.first_event = event
    ((name, what, remedy),) = wrong(well)
    assert name == "session"
    assert what.endswith(said)
    assert remedy


def test_a_provider_that_refuses_the_socket(well: dict[str, str], world: World):
    world.answers["/v1/realtime"] = (403, {})
    ((name, what, _),) = wrong(well)
    assert name == "session"
    assert what.endswith("refuses a session (HTTP 403)")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"code": 20003}), "refuses the account (HTTP 401)"),
        ((200, b"<html>"), "unreadable REST message"),
        ((200, {"incoming_phone_numbers": []}), "no number of the account calls"),
    ],
)
def test_a_carrier_that_is_not_as_it_should_be(well: dict[str, str], world: World, answer: tuple[int, Any], said: str):
    world.answers[NUMBERS] = answer
    ((name, what, remedy),) = wrong(well)
    assert name == "carrier"
    assert said in what
    assert remedy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"voice_url": "HOST/voice"}, "a call comes in: another address is set"),
        ({"voice_method": "GET"}, "a call comes in: the method is GET"),
        ({"voice_fallback_url": ""}, "primary handler fails: nothing is set"),
        ({"status_callback": "https://elsewhere.example.com/status"}, "call status changes: another address is set"),
        ({"voice_application_sid": "AP1"}, "a TwiML App is set, so its own addresses are not used"),
        ({"trunk_sid": "TK1"}, "it belongs to a SIP trunk, so its addresses are not used"),
    ],
)
def test_a_number_that_is_configured_otherwise(well: dict[str, str], world: World, change: dict[str, str], said: str):
    changed = {name: value.replace("HOST", world.url) for name, value in change.items()}
    world.answers[NUMBERS] = (200, {"incoming_phone_numbers": [number(world.url, **changed)]})
    ((name, what, _),) = wrong(well)
    assert (name, what) == ("number +15550100199", said)


def test_a_number_of_somebody_elses_service_is_left_alone(well: dict[str, str], world: World):
    other = number("https://other.example.com", phone_number="+15550100188")
    world.answers[NUMBERS] = (200, {"incoming_phone_numbers": [other, number(world.url)]})
    assert wrong(well) == []
    addresses = Addresses.of(Settings.from_env(well))
    assert not rings_here(NumberConfiguration(sid="PN2", number="", voice_url="https://other.example.com/voice"), addresses)


def test_every_fault_of_a_number_is_named():
    wanted = Addresses("https://a.example/twilio/voice", "https://a.example/twilio/fallback", "https://a.example/twilio/status")
    bare = NumberConfiguration(sid="PN1", number="+15550100199", voice_url="https://a.example/old", voice_method="GET")
    assert len(check_number(bare, wanted)) == 3


@pytest.mark.parametrize(("answer", "said"), [((404, b"no"), "answers HTTP 404"), ((200, {"status": "other"}), "answers HTTP 200")])
def test_a_public_address_that_leads_elsewhere(well: dict[str, str], world: World, answer: tuple[int, Any], said: str):
    world.answers["/health/live"] = answer
    ((name, what, _),) = wrong(well)
    assert name == "public address"
    assert said in what


def test_a_loopback_address_is_of_no_use_to_the_real_carrier(well: dict[str, str]):
    found = wrong(well | {"TWILIO_API_URL": "https://twilio.invalid"})
    assert [name for name, _, _ in found] == ["carrier", "public address"]
    assert "means this machine alone" in found[1][1]


@pytest.mark.parametrize(
    ("model", "today", "verdict"),
    [
        ("gpt-realtime-2.1", date(2026, 11, 20), Verdict.OK),
        ("gpt-realtime", date(2026, 1, 1), Verdict.OK),
        ("gpt-realtime", date(2026, 11, 20), Verdict.WRONG),
        ("gpt-realtime-mini", date(2027, 1, 20), Verdict.WRONG),
        ("gpt-4o-realtime-preview-2025-06-03", date(2026, 11, 20), Verdict.WRONG),
    ],
)
def test_announced_ends_of_models(well: dict[str, str], model: str, today: date, verdict: Verdict):
    settings = Settings.from_env(well | {"REALTIME_MODEL": model})
    (of_model, of_transcription) = check_dates(settings, today)
    assert of_model.verdict is verdict
    assert of_transcription.verdict is Verdict.OK
    if verdict is Verdict.WRONG:
        assert "REALTIME_MODEL=gpt-realtime-2.1" in of_model.remedy


# ---- what comes after a call

SECRET = "whsec_" + "QUFB" * 8


def said(env: dict[str, str], name: str) -> list[str]:
    return [found.what for found in findings(env) if found.name == name]


def test_which_analyzer_reads_is_said(well: dict[str, str]):
    assert said(well, "analyzer") == ["calls are read by the model gpt-6-luna; leads are scored by rubric-1"]
    by_rules = "calls are read by the rules, by English phrases and without a model; leads are scored by rubric-1"
    assert said(well | {"ANALYZER": "rules"}, "analyzer") == [by_rules]
    assert said(well | {"ANALYZER": "auto", "OPENAI_API_KEY": "not-set"}, "analyzer") == [by_rules]


def test_a_house_that_reads_by_rules_needs_no_model_for_it(well: dict[str, str], world: World):
    world.answers["/v1/models"] = (200, {"data": [{"id": "gpt-realtime-2.1"}, {"id": "gpt-transcribe"}]})
    assert wrong(well | {"ANALYZER": "rules"}) == []


def test_a_rubric_that_is_wrong(well: dict[str, str], tmp_path: Path):
    (tmp_path / "rubric.toml").write_text("no rubric")
    ((name, what, _),) = wrong(well | {"RUBRIC_FILE": str(tmp_path / "rubric.toml")})
    assert (name, what.startswith("RUBRIC_FILE: ")) == ("analyzer", True)


def test_what_is_not_configured_is_said_and_is_not_wrong(well: dict[str, str]):
    assert "callrow export" in said(well, "webhook")[0]
    assert said(well, "alerts") == ["escalation, callback: but nobody is told, for neither SMTP_URL nor CHAT_WEBHOOK_URL is set"]
    assert said(well | {"ALERTS": "none"}, "alerts") == ["ALERTS=none: people are told of nothing"]
    assert wrong(well) == []


def test_who_takes_rows_and_alerts_in_is_reached_and_sent_nothing(well: dict[str, str], world: World):
    host = world.url.removeprefix("http://")
    configured = well | {
        "WEBHOOK_URL": f"{world.url}/private-path",
        "WEBHOOK_SECRET": f"{SECRET},{SECRET}",
        "CHAT_WEBHOOK_URL": f"{world.url}/private-path",
        "SMTP_URL": f"smtp://user:private-password@{host}",
        "MAIL_FROM": "callrow@example.com",
        "MAIL_TO": "private-person@example.com",
    }
    assert wrong(configured) == []
    assert said(configured, "webhook") == [f"{host} can be reached; rows are signed with 2 secrets"]
    assert said(configured, "mail") == [f"{host} can be reached; alerts go to 1 address; the login is not tried"]
    assert said(configured, "chat") == [f"{host} can be reached; alerts go there"]
    assert said(configured, "alerts") == ["escalation, callback: without anything that was said"]
    assert "/private-path" not in [path for path, _ in world.asked]
    assert "private" not in repr(findings(configured))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_is_not_there(well: dict[str, str], scheme: str):
    gone = f"{scheme}://127.0.0.1:9/hook"
    found = wrong(well | {"WEBHOOK_URL": gone, "WEBHOOK_SECRET": SECRET, "CHAT_WEBHOOK_URL": gone})
    assert [(name, what) for name, what, _ in found] == [
        ("webhook", "127.0.0.1:9: no connection (ConnectionRefusedError)"),
        ("chat", "127.0.0.1:9: no connection (ConnectionRefusedError)"),
    ]


def test_a_mail_server_whose_certificate_nobody_knows(well: dict[str, str], tmp_path: Path):
    async def examined() -> list[Finding]:
        async with mailbox(tls=authority(tmp_path).server()) as box:
            mail = {"SMTP_URL": f"smtps://127.0.0.1:{box.port}", "MAIL_FROM": "a@example.com", "MAIL_TO": "b@example.com"}
            return await check_mail(Settings.from_env(well | mail))

    (found,) = wait(examined())
    assert found.verdict is Verdict.WRONG
    assert "(SSLCertVerificationError)" in found.what


def test_a_wrong_address_is_said_and_not_reached(run: Run, well: dict[str, str]):
    result = run("doctor", **(well | {"WEBHOOK_URL": "ftp://crm.example.com"}))
    assert result.exit_code == 2
    assert "wrong         setting WEBHOOK_URL: " in result.stdout
    assert "cannot check  webhook: WEBHOOK_URL must be set right first" in result.stdout


@pytest.mark.parametrize(
    ("env", "missing", "name"),
    [
        ({"WEBHOOK_URL": "https://crm.example.com"}, "WEBHOOK_SECRET", "webhook"),
        ({"SMTP_URL": "smtp://mail.example.com", "MAIL_FROM": "a@example.com"}, "MAIL_TO", "mail"),
        ({"SMTP_URL": "smtp://mail.example.com", "MAIL_FROM": "nobody", "MAIL_TO": "a@example.com"}, "MAIL_FROM", "mail"),
    ],
)
def test_what_is_wanted_because_of_another_setting_stops_no_other_check(
    run: Run, well: dict[str, str], env: dict[str, str], missing: str, name: str
):
    result = run("doctor", **(well | env))
    assert result.exit_code == 2
    assert f"wrong         setting {missing}: " in result.stdout
    assert f"cannot check  {name}: {missing} must be set right first" in result.stdout
    assert "ok            database: " in result.stdout
