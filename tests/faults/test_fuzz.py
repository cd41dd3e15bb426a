"""Some of the nonsense that `scripts/fuzz` sends at length: nothing of ours breaks, and the next call is answered."""

import asyncio
import logging
import random

from structlog.testing import capture_logs

from tests.faults import fuzz
from tests.faults.fuzzing import OURS
from tests.faults.in_process import service


async def test_nonsense_breaks_nothing_of_ours(sqlite_url, tmp_path, caplog):
    unhandled = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context["message"]))
    caplog.set_level(logging.ERROR)
    with capture_logs() as logged:
        async with service(sqlite_url, tmp_path, MAX_CALLS="500", REJECT_ABOVE="2000", TRANSFER_TO="sales=+15551230001") as house:
            found = await fuzz.run(house, seed=20_261_120, runs=600)
            phone, session = await house.call()
            await phone.heard_out(session, 1)
            await session.caller_says("hello")
            await phone.heard_out(session, 2)
            await phone.hangs_up()
    assert found.frames >= 300 and found.requests >= 300
    assert (found.bad_answers, found.bad_documents) == ([], [])
    assert [entry["event"] for entry in logged if entry["event"] in OURS] == []
    assert [record.getMessage() for record in caplog.records if "ASGI" in record.getMessage()] == []
    assert unhandled == []
    assert found.answers[200] > 20 and found.answers[403] > 20 and found.answers[400] > 20


def test_a_seed_names_what_is_sent():
    one, same, other = (random.Random(seed) for seed in (1, 1, 2))
    assert [fuzz.frame(one) for _ in range(50)] == [fuzz.frame(same) for _ in range(50)]
    assert fuzz.request(one, "http://x") == fuzz.request(same, "http://x")
    assert [fuzz.frame(other) for _ in range(50)] != [fuzz.frame(one) for _ in range(50)]


def test_a_document_that_none_of_ours_would_be_is_seen():
    ours = "http://127.0.0.1:1"
    assert (
        list(fuzz.wrong(b"<Response><Say>Hello.</Say><Redirect>http://127.0.0.1:1/twilio/resume</Redirect></Response>", ours)) == []
    )
    for document in (
        b"<Response><Dial><Number>+19005550100</Number></Dial></Response>",
        b"<Response><Redirect>https://evil.example/</Redirect></Response>",
        b"<Response><Play>x</Play></Response>",
        b"<Response>",
    ):
        assert list(fuzz.wrong(document, ours))
