"""The bench of the database, with few calls: the year can be made, and everything that it asks is answered."""

import pytest

from app.store.engine import migration_engine
from tests.bench import database as bench

ROWS = 3_000


@pytest.fixture
def filled(empty_url):
    assert bench.fill(empty_url, ROWS) > 0
    return empty_url


async def test_a_year_is_made_and_every_question_answered(filled):
    engine = migration_engine(filled)
    with engine.connect() as connection:
        counted = connection.exec_driver_sql("SELECT count(*), count(DISTINCT call_id), count(DISTINCT outcome) FROM calls").one()
        assert tuple(counted) == (ROWS, ROWS, 6)
        disorder = "SELECT count(*) FROM (SELECT call_id, lag(call_id) OVER (ORDER BY started_at) AS before FROM calls) AS c"
        assert connection.exec_driver_sql(f"{disorder} WHERE before >= call_id").scalar_one() == 0, "names sort as calls began"
    engine.dispose()
    answers = {(found.question.group, found.question.name): found for found in await bench.measure(filled, ROWS, times=1)}
    assert all(found.milliseconds > 0 and found.plan for found in answers.values())
    pages = [found for (group, _), found in answers.items() if group in ("first page", "deep page")]
    assert {found.rows for found in pages} == {50}
    assert answers["filter", "live"].rows == 12 and answers["filter", "what no call has"].rows == 0
    assert answers["search", "a word in 300,000"].rows == 50 and answers["search", "a word nobody said"].rows == 0
    assert answers["report of a year", "activity"].rows == ROWS
    assert 0 < answers["report of 30 days", "latency"].rows < answers["report of 30 days", "activity"].rows


def test_what_is_asked_for_is_checked():
    for wrong in (["--rows", "5"], ["--rows", "99999999"], ["--only", "mysql"]):
        with pytest.raises(SystemExit):
            bench.parse(["--database", *wrong])
    assert bench.parse(["--database"]).rows == 1_000_000
