"""Web workers are replaced while people telephone: real processes, real sockets.

Kills, freezes and PostgreSQL with several workers (`--database postgres`) are in the long form alone, `scripts/faults`, until its
peers have been seen to hold on a busy machine.
"""

from dataclasses import replace

from tests.faults.house import Plan, run

SHORT = {"calls": 4, "turns": 3, "seed": 3, "every_s": 1.0}


def sound(count):
    """Nothing was lost, doubled or forgotten; and every caller was talked with to the end."""
    assert count.wrong == 0, count.faults
    assert count.calls > 0
    assert set(count.ended) == {"hung up"}, count.faults
    assert count.exit_code == 0
    return True


async def test_a_rolling_restart_hands_live_calls_over_and_cuts_none(sqlite_url, tmp_path):
    plan = Plan(url=sqlite_url, folder=tmp_path, rolls=2, env={"DRAIN_SECONDS": "0"}, **SHORT)
    count = await run(replace(plan, turns=12))
    assert sound(count)
    assert count.handed_over > 0
