"""The carrier's call log: pages, what is asked and left out, what cannot be read (Twilio's documentation)."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from urllib.parse import parse_qs

import httpx2
import pytest

from app.errors import BadCarrierMessage, CarrierRefused
from app.twilio import carrier as carrier_module
from app.twilio.parties import shown
from tests.twilio.test_carrier import ACCOUNT, SID, Api

SINCE, UNTIL = datetime(2026, 11, 19, 9, tzinfo=UTC), datetime(2026, 11, 20, 9, tzinfo=UTC)
MORE = f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json?Page=1&PageToken=PA{SID}"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(carrier_module, "FIRST_PAUSE_S", 0.0)


def entry(number=1, **changes):
    known = {
        "sid": f"CA{number:032x}",
        "parent_call_sid": None,
        "status": "completed",
        "direction": "inbound",
        "from": "+15551230000",
        "to": "+15559870000",
        "start_time": "Fri, 20 Nov 2026 08:00:00 +0000",
        "end_time": "Fri, 20 Nov 2026 08:01:01 +0000",
        "duration": "61",
        "price": "-0.01700",
        "price_unit": "USD",
        "answered_by": None,
    }
    return known | changes


def page(*entries, more=None):
    return httpx2.Response(200, json={"calls": list(entries), "next_page_uri": more})


async def read(api, since=SINCE, until=UNTIL):
    """The calls, and the log that was read."""
    async with api.carrier() as carrier:
        log = carrier.calls(since, until)
        return [call async for call in log], log


async def test_an_entry_of_the_log_is_read_whole():
    [call], log = await read(Api(page(entry(parent_call_sid=SID))))
    assert (call.status, call.direction, call.duration_s, call.parent_call_sid) == ("completed", "inbound", 61, SID)
    assert (call.from_, call.to) == ("+15551230000", "+15559870000")
    assert call.start_time == datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    assert call.ended_at == call.end_time == datetime(2026, 11, 20, 8, 1, 1, tzinfo=UTC)
    assert (call.price, call.price_unit) == (Decimal("0.017"), "USD")
    assert (log.pages, log.malformed, log.cut_off) == (1, 0, False)
    assert "+1555" not in repr(call)


async def test_the_carrier_is_asked_for_days_and_a_day_more_and_the_rest_is_left_out_here():
    outside = [
        entry(2, start_time="Thu, 19 Nov 2026 08:59:59 +0000"),
        entry(3, start_time="Fri, 20 Nov 2026 09:00:00 +0000"),
    ]
    inside = [entry(4, start_time="Thu, 19 Nov 2026 09:00:00 +0000"), entry(5, start_time="Fri, 20 Nov 2026 03:59:59 -0500")]
    api = Api(page(*outside, *inside))
    eastern = timezone(timedelta(hours=-5))
    calls, _ = await read(api, SINCE.astimezone(eastern), UNTIL.astimezone(eastern))
    assert [call.sid for call in calls] == [inside[0]["sid"], inside[1]["sid"]]
    asked = parse_qs(api.asked[0].url.query.decode())
    assert asked == {"StartTime>": ["2026-11-19"], "StartTime<": ["2026-11-21"], "PageSize": ["500"]}


async def test_the_log_is_read_page_by_page_as_it_is_asked_for():
    api = Api(page(entry(1), more=MORE), page(entry(2)))
    async with api.carrier() as carrier:
        calls = aiter(carrier.calls(SINCE, UNTIL))
        assert (await anext(calls)).sid == entry(1)["sid"]
        assert len(api.asked) == 1
        assert (await anext(calls)).sid == entry(2)["sid"]
        with pytest.raises(StopAsyncIteration):
            await anext(calls)
    assert str(api.asked[1].url).endswith(MORE)


@pytest.mark.parametrize("elsewhere", ["https://evil.example/more", "//evil.example/more", "http://127.0.0.1:9/more"])
async def test_a_page_on_another_host_is_not_asked_for_and_the_log_says_that_it_was_cut_off(elsewhere):
    api = Api(page(entry(), more=elsewhere))
    calls, log = await read(api)
    assert (len(calls), len(api.asked), log.cut_off) == (1, 1, True)


async def test_a_log_without_end_is_given_up_and_says_so(monkeypatch):
    monkeypatch.setattr(carrier_module, "MAX_LOG_PAGES", 3)
    api = Api(*[page(entry(), more=MORE)] * 5)
    calls, log = await read(api)
    assert (len(calls), len(api.asked), log.pages, log.cut_off) == (3, 3, 3, True)


async def test_a_log_as_long_as_may_be_is_not_cut_off(monkeypatch):
    monkeypatch.setattr(carrier_module, "MAX_LOG_PAGES", 2)
    _, log = await read(Api(page(entry(), more=MORE), page(entry(2))))
    assert (log.pages, log.cut_off) == (2, False)


NO_DAY = "Fri, 99 Nov 2026 08:00:00 +0000"
NO_NAME = (entry(sid="CA1"), entry(sid=None), entry(sid=["CA"]))
NO_TIME = (entry(start_time="yesterday"), entry(end_time=["now"]), entry(start_time=NO_DAY), entry(start_time=7))


@pytest.mark.parametrize("broken", ["nonsense", 7, None, [], {}, *NO_NAME, *NO_TIME])
async def test_an_entry_that_cannot_be_placed_is_counted_and_the_rest_is_read(broken):
    calls, log = await read(Api(page(entry(1), broken, entry(2))))
    assert [call.sid for call in calls] == [entry(1)["sid"], entry(2)["sid"]]
    assert log.malformed == 1


@pytest.mark.parametrize(
    ("wrong", "name", "value"),
    [
        ({"duration": ""}, "duration_s", None),
        ({"duration": "-1"}, "duration_s", None),
        ({"duration": "9" * 5_000}, "duration_s", None),
        ({"duration": "\u0661\u0662"}, "duration_s", None),
        ({"duration": 61}, "duration_s", 61),
        ({"duration": "0"}, "duration_s", 0),
        ({"price": None}, "price", None),
        ({"price": ""}, "price", None),
        ({"price": "free"}, "price", None),
        ({"price": "NaN"}, "price", None),
        ({"price": "-Infinity"}, "price", None),
        ({"price": "-1e12"}, "price", None),
        ({"price": -0.0085}, "price", Decimal("0.0085")),
        ({"price": "-0"}, "price", Decimal(0)),
        ({"price_unit": "usd"}, "price_unit", "USD"),
        ({"price_unit": "dollars"}, "price_unit", None),
        ({"price_unit": None}, "price_unit", None),
        ({"start_time": "Fri, 20 Nov 2026 08:00:00 -0000"}, "start_time", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ({"end_time": None}, "ended_at", datetime(2026, 11, 20, 8, 1, 1, tzinfo=UTC)),
        ({"end_time": "", "duration": None}, "ended_at", datetime(2026, 11, 20, 8, tzinfo=UTC)),
    ],
)
async def test_what_is_there_and_cannot_be_read_counts_as_not_there(wrong, name, value):
    [call], log = await read(Api(page(entry(**wrong))))
    assert (getattr(call, name), log.malformed) == (value, 0)


async def test_a_call_that_never_began_is_placed_by_its_end_and_one_without_any_time_is_in_no_window():
    never = entry(1, start_time=None, end_time="Fri, 20 Nov 2026 08:00:00 +0000", status="canceled", duration=None)
    calls, log = await read(Api(page(never, entry(2, start_time=None, end_time=None, status="queued"))))
    assert ([call.sid for call in calls], log.malformed) == ([never["sid"]], 0)


@pytest.mark.parametrize("body", [{}, {"calls": None}, {"calls": {"0": {}}}, {"calls": "none"}])
async def test_a_page_without_a_list_is_no_empty_log(body):
    with pytest.raises(BadCarrierMessage):
        await read(Api(httpx2.Response(200, json=body)))


async def test_a_page_that_is_refused_ends_the_reading():
    api = Api(page(entry(), more=MORE), httpx2.Response(401, json={"code": 20003}))
    with pytest.raises(CarrierRefused):
        await read(api)


async def test_a_page_that_is_late_is_asked_for_again():
    api = Api(httpx2.ReadTimeout("slow"), httpx2.Response(429, json={"code": 20429}), page(entry()))
    calls, _ = await read(api)
    assert (len(calls), len(api.asked)) == (1, 3)


async def test_the_legs_of_a_call_are_asked_for_by_its_name():
    api = Api(page(entry(2, parent_call_sid=SID, direction="outbound-dial"), "nonsense"))
    async with api.carrier() as carrier:
        [leg] = await carrier.legs(SID)
        with pytest.raises(ValueError, match="not a call sid"):
            await carrier.legs("CA1&Status=x")
    assert (leg.parent_call_sid, leg.direction) == (SID, "outbound-dial")
    assert parse_qs(api.asked[0].url.query.decode()) == {"ParentCallSid": [SID], "PageSize": ["100"]}


async def test_a_fetched_call_has_its_times_and_its_price():
    async with Api(httpx2.Response(200, json=entry(sid=SID))).carrier() as carrier:
        call = await carrier.fetch(SID)
    assert (call.sid, call.price, call.start_time) == (SID, Decimal("0.017"), datetime(2026, 11, 20, 8, tzinfo=UTC))


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("+15551230000", "+15551230000"),
        ("anonymous", None),
        ("Restricted", None),
        ("+266696687", None),
        ("+464", "+464"),
        (None, None),
    ],
)
def test_a_withheld_number_is_none(written, means):
    assert shown(written) == means
