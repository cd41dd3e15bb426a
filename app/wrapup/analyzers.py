"""Which analyzer the settings ask for.

Rule 1: `auto` is the model where there is a key for it, and the rules where there is none; whichever it is says so in every value.
Rule 2: what is wrong with a setting is said when the analyzer is made, and not when the first call has ended.
Close what you are given: `async with contextlib.aclosing(analyzer_of(settings)) as analyzer`.
"""

from app.errors import BadSetting
from app.logs import logger
from app.settings import AnalyzerName, Settings
from app.wrapup.facts import Analyzer, Lists
from app.wrapup.model import ModelAnalyzer, ModelOptions
from app.wrapup.phrases import CRITERIA
from app.wrapup.rules import RulesAnalyzer

log = logger("wrapup")

NO_KEY = ("", "not-set")
"""What stands for a key where a command needs none (`app/cli/reading.py`)."""
NO_EFFORT = "none"
FOUND_BY_RULES = frozenset((*CRITERIA, "wants_work", "next_step", "reachable"))
"""The criteria that the rule set can find."""


def analyzer_of(settings: Settings, lists: Lists | None = None) -> Analyzer:
    """The analyzer of a configuration. `lists` are the configuration's own unless given.

    Raises:
        BadSetting: ANALYZER asks for the model and there is no key, or the file of the rubric is wrong.
    """
    lists = lists or Lists.of(settings)
    key = settings.openai_api_key.get_secret_value().strip()
    if settings.analyzer is AnalyzerName.OPENAI and key in NO_KEY:
        raise BadSetting(
            [
                (
                    "OPENAI_API_KEY",
                    "is not set, and ANALYZER=openai needs it",
                    "OPENAI_API_KEY=sk-..., or ANALYZER=rules",
                )
            ]
        )
    if settings.analyzer is AnalyzerName.RULES or key in NO_KEY:
        if unknown := [each.name for each in lists.rubric.criteria if each.name not in FOUND_BY_RULES]:
            log.warning("the rules cannot find some criteria of the rubric: they count for no call", criteria=unknown)
        return RulesAnalyzer(lists)
    effort = settings.analysis_effort
    options = ModelOptions(
        model=settings.analysis_model,
        base_url=settings.openai_base_url,
        api_key=key,
        reasoning_effort=None if effort == NO_EFFORT else effort,
    )
    return ModelAnalyzer(options, lists)
