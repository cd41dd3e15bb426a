"""The carrier's REST interface, against a transport that records and answers as the reference says (Twilio's documentation)."""

from base64 import b64encode
from urllib.parse import parse_qs

import httpx2
import pytest

from app.errors import BadCarrierMessage, CarrierRefused
from app.twilio import carrier as carrier_module
from app.twilio.carrier import Carrier, CarrierUnreachable

ACCOUNT = "AC" + "0" * 32
SID = "CA" + "1" * 32


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(carrier_module, "FIRST_PAUSE_S", 0.0)


class Api:
    """Answers in order; keeps what was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, request):
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def carrier(self):
        return Carrier(ACCOUNT, "secret", "http://127.0.0.1:8181", transport=httpx2.MockTransport(self))


def refusal(status, code=None):
    return httpx2.Response(status, json={"code": code, "message": "no", "status": status})


def over():
    return httpx2.Response(200, json={"sid": SID, "status": "completed"})


async def test_hanging_up_completes_the_call_with_the_accounts_password():
    api = Api(over())
    async with api.carrier() as carrier:
        assert await carrier.hang_up(SID) is True
    (request,) = api.asked
    assert (request.method, str(request.url)) == ("POST", f"http://127.0.0.1:8181/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json")
    assert parse_qs(request.content.decode()) == {"Status": ["completed"]}
    assert request.headers["authorization"] == "Basic " + b64encode(f"{ACCOUNT}:secret".encode()).decode()


async def test_a_redirect_gives_the_address_and_the_method():
    api = Api(over())
    async with api.carrier() as carrier:
        assert await carrier.redirect(SID, "https://calls.example.com/twilio/resume?epoch=3")
    assert parse_qs(api.asked[0].content.decode()) == {
        "Url": ["https://calls.example.com/twilio/resume?epoch=3"],
        "Method": ["POST"],
    }


@pytest.mark.parametrize("answer", [refusal(400, 21220), refusal(404, 20404), httpx2.Response(404, text="not here")])
async def test_a_call_that_is_already_over_is_no_failure(answer):
    for order in ("hang_up", "redirect"):
        async with Api(answer).carrier() as carrier:
            ask = carrier.hang_up(SID) if order == "hang_up" else carrier.redirect(SID, "https://x.example")
            assert await ask is False
    async with Api(answer).carrier() as carrier:
        if answer.status_code == 404:
            assert await carrier.fetch(SID) is None


async def test_a_refusal_keeps_the_status_and_the_carriers_code_and_is_not_repeated():
    api = Api(refusal(401, 20003))
    async with api.carrier() as carrier:
        with pytest.raises(CarrierRefused) as refused:
            await carrier.hang_up(SID)
    assert (refused.value.status, refused.value.code, refused.value.retryable) == (401, 20003, False)
    assert "secret" not in repr(refused.value)


@pytest.mark.parametrize(
    "fault", [refusal(429, 20429), refusal(503), refusal(500), httpx2.ReadTimeout("slow"), httpx2.ConnectError("no")]
)
async def test_hanging_up_is_tried_three_times_where_trying_again_can_help(fault):
    api = Api(fault, fault, over())
    async with api.carrier() as carrier:
        assert await carrier.hang_up(SID)
    assert len(api.asked) == 3


async def test_after_three_tries_the_failure_is_told_without_the_clients_exception():
    api = Api(*[httpx2.ConnectError("no")] * 3)
    async with api.carrier() as carrier:
        with pytest.raises(CarrierUnreachable) as gone:
            await carrier.hang_up(SID)
    assert str(gone.value) == "the carrier cannot be reached: ConnectError"
    assert gone.value.retryable
    assert gone.value.__cause__ is None
    assert gone.value.__suppress_context__


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (httpx2.ReadTimeout("slow"), 1),
        (refusal(500), 1),
        (refusal(503), 1),
        (refusal(429, 20429), 2),
        (httpx2.ConnectError("no"), 2),
    ],
)
async def test_a_redirect_that_may_have_happened_is_not_repeated(fault, times):
    api = Api(fault, over())
    async with api.carrier() as carrier:
        if times == 1:
            with pytest.raises(CarrierRefused):
                await carrier.redirect(SID, "https://calls.example.com/twilio/resume?epoch=3")
        else:
            assert await carrier.redirect(SID, "https://calls.example.com/twilio/resume?epoch=3")
    assert len(api.asked) == times


@pytest.mark.parametrize("sid", ["", "CA1", "../Recordings", SID + "/../x", SID.replace("1", "g"), "MZ" + "1" * 32, SID + "\n"])
async def test_only_a_call_sid_becomes_part_of_an_address(sid):
    api = Api()
    async with api.carrier() as carrier:
        with pytest.raises(ValueError, match="not a call sid"):
            await carrier.hang_up(sid)
    assert api.asked == []


async def test_a_call_is_fetched_as_the_carrier_has_it():
    body = {
        "sid": SID,
        "status": "completed",
        "duration": "42",
        "direction": "inbound",
        "answered_by": None,
        "from": "+1",
        "to": "+2",
    }
    async with Api(httpx2.Response(200, json=body)).carrier() as carrier:
        call = await carrier.fetch(SID)
    assert (call.status, call.duration_s, call.answered_by, call.direction) == ("completed", 42, None, "inbound")
    assert "+1" not in repr(call)


@pytest.mark.parametrize("duration", [None, "", "x", "-1"])
async def test_a_call_that_has_no_duration_has_none(duration):
    async with Api(httpx2.Response(200, json={"sid": SID, "status": "ringing", "duration": duration})).carrier() as carrier:
        assert (await carrier.fetch(SID)).duration_s is None


@pytest.mark.parametrize("answer", [httpx2.Response(200, text="<html>"), httpx2.Response(200, json=[])])
async def test_an_answer_that_is_no_object_is_the_carriers_fault(answer):
    async with Api(answer).carrier() as carrier:
        with pytest.raises(BadCarrierMessage):
            await carrier.fetch(SID)


async def test_all_numbers_are_listed_page_by_page():
    row = {"sid": "PN1", "phone_number": "+15550001", "voice_url": "https://a.example/twilio/voice", "voice_method": "GET"}
    first = {"incoming_phone_numbers": [row], "next_page_uri": f"/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json?Page=1"}
    last = {"incoming_phone_numbers": [{"sid": "PN2", "phone_number": "+15550002", "voice_url": None}], "next_page_uri": None}
    api = Api(httpx2.Response(200, json=first), httpx2.Response(200, json=last))
    async with api.carrier() as carrier:
        one, two = await carrier.number_configuration()
    assert (one.number, one.voice_url, one.voice_method) == ("+15550001", "https://a.example/twilio/voice", "GET")
    assert (two.number, two.voice_url, two.voice_method, two.voice_fallback_url) == ("+15550002", "", "POST", "")
    assert str(api.asked[1].url).endswith("IncomingPhoneNumbers.json?Page=1")


async def test_the_password_never_goes_to_another_host():
    page = {"incoming_phone_numbers": [], "next_page_uri": "https://evil.example/more"}
    api = Api(httpx2.Response(200, json=page))
    async with api.carrier() as carrier:
        assert await carrier.number_configuration() == []
    redirecting = Api(httpx2.Response(302, headers={"location": "https://evil.example/"}))
    async with redirecting.carrier() as carrier:
        with pytest.raises(CarrierRefused):
            await carrier.fetch(SID)
    assert [request.url.host for request in api.asked + redirecting.asked] == ["127.0.0.1", "127.0.0.1"]


async def test_pages_without_end_are_not_followed_for_ever():
    page = {"incoming_phone_numbers": [], "next_page_uri": "/again"}
    api = Api(*[httpx2.Response(200, json=page)] * (carrier_module.MAX_PAGES + 5))
    async with api.carrier() as carrier:
        await carrier.number_configuration()
    assert len(api.asked) == carrier_module.MAX_PAGES
