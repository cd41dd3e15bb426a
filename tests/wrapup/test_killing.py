"""The short form of scripts/jobs-killed: the real jobs process, real calls, a receiver that looks at the keys."""

from pathlib import Path

import pytest

from tests.wrapup.killing import Plan, run


@pytest.mark.timeout(400)
async def test_kills_lose_no_row_and_double_no_effect(sqlite_url: str, tmp_path: Path):
    count = await run(Plan(url=sqlite_url, folder=tmp_path, kills=2, seed=4, calls_a_second=8))
    assert (count.lost, count.doubled) == (0, 0), count
    assert count.kills == 2
    assert count.analysed == count.calls > 0
    assert count.exit_codes == [0]
