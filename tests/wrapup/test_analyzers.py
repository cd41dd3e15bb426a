"""Which analyzer the settings ask for, and a rubric of the business's own."""

from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.cli.reading import NO_KEYS
from app.errors import BadSetting
from app.settings import Settings
from app.wrapup.analyzers import FOUND_BY_RULES, NO_KEY, analyzer_of
from app.wrapup.facts import Lists
from app.wrapup.model import ModelAnalyzer
from app.wrapup.rubric import RUBRIC, Criterion, Rubric, read_rubric
from app.wrapup.rules import RulesAnalyzer
from tests.wrapup import provider as p
from tests.wrapup.scenery import talk

CALL = talk("caller: I'd like a quote for a new terrace. We have a budget.", "agent: Gladly.")
OWN = """
name = "rubric-2"
[[criteria]]
name = "wants_work"
points = 40
meaning = "wants work"
[[criteria]]
name = "budget"
points = 20
meaning = "names a budget"
"""


def settings(**more: str) -> Settings:
    return Settings.from_env({**NO_KEYS, **more})


@pytest.fixture
def rubric_file(tmp_path: Path) -> Path:
    path = tmp_path / "rubric.toml"
    path.write_text(OWN)
    return path


# ---- who reads


def test_without_a_key_the_rules_read_and_with_one_the_model():
    assert isinstance(analyzer_of(settings()), RulesAnalyzer) and NO_KEYS["OPENAI_API_KEY"] in NO_KEY
    assert isinstance(analyzer_of(settings(OPENAI_API_KEY="sk-1")), ModelAnalyzer)
    assert isinstance(analyzer_of(settings(OPENAI_API_KEY="sk-1", ANALYZER="rules")), RulesAnalyzer)


def test_the_model_without_a_key_is_a_wrong_setting():
    with pytest.raises(BadSetting, match="OPENAI_API_KEY: is not set, and ANALYZER=openai needs it"):
        analyzer_of(settings(ANALYZER="openai"))


@pytest.mark.parametrize(("effort", "sent"), [("none", None), ("high", {"effort": "high"})])
async def test_the_model_is_asked_where_and_how_the_settings_say(effort: str, sent: object):
    async with p.serving() as provider:
        provider.will(p.says(p.whole()))
        named = settings(OPENAI_API_KEY="sk-1", OPENAI_BASE_URL=provider.base_url, ANALYSIS_MODEL="a-model", ANALYSIS_EFFORT=effort)
        async with aclosing(analyzer_of(named)) as analyzer:
            analysis = await analyzer.analyze(CALL)
    assert (analysis.model, provider.requests[0]["model"], provider.requests[0].get("reasoning")) == ("a-model", "a-model", sent)
    assert provider.headers[0]["authorization"] == "Bearer sk-1"


# ---- a rubric of one's own


def test_a_rubric_is_read_from_its_file_and_counts(rubric_file: Path):
    assert read_rubric(rubric_file) == Rubric(
        "rubric-2", (Criterion("wants_work", 40, "wants work"), Criterion("budget", 20, "names a budget"))
    )
    lists = Lists.of(settings(RUBRIC_FILE=str(rubric_file)))
    analysis = RulesAnalyzer(lists).read(CALL)
    assert next(each.value for each in analysis.judgements if each.field == "lead_score") == 60
    assert Lists.of(settings()).rubric == RUBRIC


def test_the_shipped_rubric_can_be_written_as_a_file(tmp_path: Path):
    path = tmp_path / "rubric.toml"
    criteria = "".join(
        f'[[criteria]]\nname = "{each.name}"\npoints = {each.points}\nmeaning = "{each.meaning}"\n' for each in RUBRIC.criteria
    )
    path.write_text(f'name = "{RUBRIC.name}"\n{criteria}')
    assert read_rubric(path).version == RUBRIC.version


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("name = ", "is no TOML"),
        ("name = 'r'", "criteria: Field required"),
        ("name = 'r'\ncriteria = []", "criteria: List should have at least 1 item"),
        (OWN.replace("points = 20", "points = 200"), "criteria 2 points: Input should be less than or equal to 100"),
        (OWN.replace("points = 20", "points = '20'"), "criteria 2 points: Input should be a valid integer"),
        (OWN.replace("points = 20", "points = 20\nweight = 1"), "criteria 2 weight: Extra inputs are not permitted"),
        (OWN.replace('"budget"', '"Budget!"'), "criteria 2 name: String should match pattern"),
        (OWN.replace('"budget"', '"wants_work"'), "two criteria are called wants_work"),
        (OWN.replace("= 40", "= -1").replace("= 20", "= 0"), "no criterion speaks for a sale"),
        (OWN.replace('"rubric-2"', '"rubric 2"'), "name: String should match pattern"),
    ],
)
def test_a_wrong_rubric_is_refused_with_its_place(text: str, wrong: str, rubric_file: Path):
    rubric_file.write_text(text)
    with pytest.raises(BadSetting) as refused:
        read_rubric(rubric_file)
    assert str(refused.value).count("RUBRIC_FILE: rubric.toml") == 1 and wrong in str(refused.value)


def test_every_mistake_of_a_rubric_is_named_at_once(rubric_file: Path):
    rubric_file.write_text(OWN.replace("40", "400").replace("20", "200"))
    with pytest.raises(BadSetting) as refused:
        read_rubric(rubric_file)
    assert len(refused.value.complaints) == 2


def test_a_file_that_is_not_there_or_no_text_is_a_wrong_setting(tmp_path: Path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.toml", "binary.toml", "."):
        with pytest.raises(BadSetting):
            read_rubric(tmp_path / name)


def test_the_rules_say_which_criteria_they_cannot_find(rubric_file: Path):
    rubric_file.write_text(OWN.replace('"budget"', '"has_a_dog"'))
    with capture_logs() as logged:
        analyzer_of(settings(RUBRIC_FILE=str(rubric_file)))
    assert [line["criteria"] for line in logged if "criteria" in line] == [["has_a_dog"]]
    assert {each.name for each in RUBRIC.criteria} == FOUND_BY_RULES
