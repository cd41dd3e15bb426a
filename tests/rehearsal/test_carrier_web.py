"""What the pretend carrier signs, and whom it asks again."""

from hashlib import sha256

import pytest

from app.rehearsal.carrier_web import Origins, Overrides, Tampering, WebhookFailed, Webhooks, signature
from app.rehearsal.twiml import Target
from tests.rehearsal.small_service import TOKEN, Service, serving, twiml

OFFICIAL = [("CallSid", "CA1234567890ABCDE"), ("Caller", "+14158675309"), ("Digits", "1234"), ("From", "+14158675309")]
OTHER = [("CallSid", "CA1234567890ABCDE"), ("Caller", "+12349013030"), ("Digits", "1234"), ("From", "+12349013030")]
TO = ("To", "+18005551212")


@pytest.mark.parametrize(
    ("url", "fields", "expected"),
    [
        ("https://mycompany.com/myapp.php?foo=1&bar=2", [*OFFICIAL, TO], "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://calls.example.com/voice/incoming", [TO, *OTHER], "g9metIsZWfhICOSJyMsOe1y3Ydk="),
        ("https://calls.example.com/voice/incoming?CallSid=CA1&From=%2B15551230000", [], "DzqQLHlrryClBCbftwvE1z32O44="),
        ("wss://calls.example.com/media", [], "m+yylahm3KkzjghVZbNFHWVxaUI="),
        (
            "https://example.com/myapp?bodySHA256="
            + sha256(b'{"CallSid":"CA1234567890ABCDE","Caller":"+12349013030"}').hexdigest(),
            [],
            "hPXmLwIy3Fgqv1i9KPmH/HhQ6zo=",
        ),
    ],
)
def test_a_signature_is_the_one_of_the_public_test_vectors(url, fields, expected):
    assert signature(TOKEN, url, fields) == expected


def test_blank_fields_count_and_equal_values_of_one_name_count_once():
    url = "https://calls.example.com/x"
    assert signature(TOKEN, url, [("FromCity", ""), ("A", "1")]) == signature(TOKEN, url + "A1FromCity")
    assert signature(TOKEN, url, [("A", "2"), ("A", "1"), ("A", "2")]) == signature(TOKEN, url + "A1A2")


def test_the_public_address_is_signed_and_the_service_is_called():
    origins = Origins(public="https://calls.example.com", service="http://127.0.0.1:8000")
    assert origins.reach("https://calls.example.com/twilio/voice?a=1#rc=2") == "http://127.0.0.1:8000/twilio/voice?a=1"
    assert origins.reach("wss://calls.example.com/twilio/media") == "ws://127.0.0.1:8000/twilio/media"
    assert origins.reach("https://elsewhere.example.com/x") == "https://elsewhere.example.com/x"


def test_the_fragment_of_an_address_overrides_times_and_retries_within_their_limits():
    assert Overrides.of("https://a/b") == Overrides()
    assert Overrides.of("https://a/b#rc=9&rp=ct,5xx&ct=1&rt=4000&tt=99999") == Overrides(
        connect_ms=100, read_ms=4_000, total_ms=15_000, retries=5, retry_on=frozenset({"ct", "5xx"})
    )


async def asked(service: Service, fragment: str = "", method: str = "POST", **how):
    webhooks = Webhooks(TOKEN, Origins(public=service.url, service=service.url))
    try:
        return await webhooks.ask(Target(f"{service.url}/voice?x=1{fragment}", method), [("CallSid", "CA1"), ("City", "")], **how)
    finally:
        await webhooks.aclose()


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_request_is_signed_with_all_its_fields(method):
    async with serving(Service({"/voice": [twiml("")]})) as service:
        answer = await asked(service, method=method)
    assert answer.status == 200
    [request] = service.requests
    assert request.signed
    assert request.fields == {"CallSid": "CA1", "City": "", "x": "1"}


@pytest.mark.parametrize("how", ["missing", "wrong", "malformed"])
async def test_a_tampered_signature_does_not_pass(how):
    async with serving(Service({"/voice": [twiml("")]})) as service:
        await asked(service, tampering=Tampering(how))
    assert [request.signed for request in service.requests] == [False]


async def test_a_server_error_is_not_asked_again_by_default():
    async with serving(Service({"/voice": [twiml("")]})) as service:
        service.statuses["/voice"] = [500]
        with pytest.raises(WebhookFailed) as failed:
            await asked(service)
    assert (failed.value.code, failed.value.status) == (11200, 500)
    assert len(service.requests) == 1


async def test_a_server_error_is_asked_again_with_one_token_if_the_address_says_so():
    async with serving(Service({"/voice": [twiml("")]})) as service:
        service.statuses["/voice"] = [500, 503]
        answer = await asked(service, "#rc=2&rp=5xx")
    assert answer.status == 200
    first, second, third = service.requests
    assert first.token is None
    assert second.token is not None
    assert second.token == third.token
    assert first.signed and second.signed and third.signed


async def test_a_slow_answer_is_a_failure_within_the_address_own_time():
    async with serving(Service({"/voice": [twiml("")]})) as service:
        service.slow_s = 1.0
        with pytest.raises(WebhookFailed) as failed:
            await asked(service, "#rt=100")
    assert failed.value.code == 11200
    assert len(service.requests) == 1


async def test_nobody_there_is_another_failure_than_a_bad_answer():
    webhooks = Webhooks(TOKEN, Origins(public="http://127.0.0.1:9", service="http://127.0.0.1:9"))
    with pytest.raises(WebhookFailed) as failed:
        await webhooks.ask(Target("http://127.0.0.1:9/voice"), [])
    await webhooks.aclose()
    assert failed.value.code == 11205


async def test_a_redirect_is_followed_without_the_fields_and_a_307_is_a_failure():
    async with serving(Service({"/elsewhere": [twiml("")]})) as service:
        service.statuses["/voice"] = [302, 307]
        answer = await asked(service)
        with pytest.raises(WebhookFailed):
            await asked(service)
    assert answer.url == f"{service.url}/elsewhere"
    assert service.paths("/elsewhere")[0].fields == {}
    assert service.paths("/elsewhere")[0].signed
    assert len(service.paths("/elsewhere")) == 1
