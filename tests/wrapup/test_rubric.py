"""The score is counted, and by nobody but the rubric."""

from itertools import combinations

import pytest

from app.wrapup.rubric import PER_LINE, RUBRIC, WARM, Criterion, Rubric, band


def test_points_add_up_within_0_and_100():
    everything = [criterion.name for criterion in RUBRIC.criteria if criterion.points > 0]
    assert RUBRIC.score(["wants_work", "next_step", "reachable"]) == 60
    assert RUBRIC.score(everything) == 100
    assert RUBRIC.score(["asks_price", "declines"]) == 0


def test_a_criterion_counts_once_and_one_that_is_not_there_not_at_all():
    assert RUBRIC.score(["wants_work", "wants_work", "rich_uncle"]) == 25


def test_where_nothing_speaks_for_a_sale_there_is_no_score():
    assert RUBRIC.score([]) is None
    assert RUBRIC.score(["just_looking"]) is None


def test_what_one_line_may_support_is_no_hot_lead():
    points = [criterion.points for criterion in RUBRIC.criteria]
    assert {band(sum(few)) for few in combinations(points, PER_LINE)} <= {"warm", "cold"}


@pytest.mark.parametrize(
    ("score", "word"), [(0, "cold"), (WARM - 1, "cold"), (WARM, "warm"), (69, "warm"), (70, "hot"), (100, "hot")]
)
def test_salespeople_have_a_word_for_a_score(score: int, word: str):
    assert band(score) == word


def test_another_point_is_another_version():
    assert Rubric("r", (Criterion("a", 1, "b"),)).version != Rubric("r", (Criterion("a", 2, "b"),)).version
