"""The pretend carrier's REST interface, over real HTTP: who may ask, what an update does to a running
call, what is complained of.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2
import pytest

from app.rehearsal.carrier import CallPlan, Carrier, DialPlan, Number, Scripted
from tests.rehearsal.small_service import ACCOUNT, BOUND, TOKEN, Service, serving, twiml

QUICK = {"callback_delay_ms": 20, "callback_duplicates": 0.0, "recover_ms": 0, "action_after_hang_up": 0.0}


def carrier(service: Service, **how) -> Carrier:
    return Carrier(auth_token=TOKEN, account_sid=ACCOUNT, service_url=service.url, **how)


def rest(peer: Carrier, sid: str = ACCOUNT, token: str = TOKEN) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"{peer.api_url}/2010-04-01/Accounts/{ACCOUNT}", auth=(sid, token), trust_env=False)


async def over(call):
    async with asyncio.timeout(BOUND):
        return await call.ended()


async def streaming_call(service: Service, peer: Carrier):
    service.documents["/twilio/voice"] = [service.connect(after="<Say>never</Say>")]
    call = await peer.place(plan=CallPlan(**QUICK))
    async with asyncio.timeout(BOUND):
        await call.streaming()
    return call


@pytest.mark.parametrize("how", [("nobody", TOKEN), (ACCOUNT, "wrong")])
async def test_who_does_not_know_the_token_gets_20003(how):
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer, *how) as client:
        answer = await client.get("/Calls.json")
    assert (answer.status_code, answer.json()["code"]) == (401, 20003)


async def test_a_call_that_nobody_knows_is_20404_in_the_carriers_shape():
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer) as client:
        answer = await client.get("/Calls/CA0.json")
        path = answer.request.url.path
        elsewhere = await client.get("/Queues.json")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": 20404,
        "message": f"The requested resource {path} was not found",
        "more_info": "https://www.twilio.com/docs/errors/20404",
        "status": 404,
    }
    assert elsewhere.json()["code"] == 20404


async def test_a_completed_update_hangs_up_and_another_is_21220():
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer) as client:
        call = await streaming_call(service, peer)
        path = f"/Calls/{call.sid}.json"
        assert (await client.get(path)).json()["status"] == "in-progress"
        updated = await client.post(path, data={"Status": "completed"})
        await over(call)
        again = await client.post(path, data={"Status": "completed"})
        shown = (await client.get(path)).json()
    assert updated.status_code == 200
    assert (again.status_code, again.json()["code"]) == (400, 21220)
    assert shown["status"] == "completed"
    assert int(shown["duration"]) >= 1
    assert parsedate_to_datetime(shown["start_time"]) <= parsedate_to_datetime(shown["end_time"])
    assert service.sockets[0].clean
    assert len(service.sockets[0].of("stop")) == 1
    assert service.paths("/twilio/resume") == []
    assert call.announced == []


@pytest.mark.parametrize("how", ["Url", "Twiml"])
async def test_an_update_abandons_the_document_and_runs_the_new_one(how):
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer) as client:
        service.documents["/twilio/resume"] = [twiml("<Hangup/>")]
        call = await streaming_call(service, peer)
        new = f"{service.url}/twilio/resume?epoch=1" if how == "Url" else twiml("<Redirect>/twilio/resume?epoch=1</Redirect>")
        await client.post(f"/Calls/{call.sid}.json", data={how: new})
        await over(call)
    [resume] = service.paths("/twilio/resume")
    assert resume.signed
    assert resume.fields["CallStatus"] == "in-progress"
    assert len(service.sockets[0].of("stop")) == 1
    assert call.announced == []
    assert peer.rest.updates == [(call.sid, {how: new})]


async def test_canceled_does_nothing_to_a_call_in_progress():
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer) as client:
        call = await streaming_call(service, peer)
        answer = await client.post(f"/Calls/{call.sid}.json", data={"Status": "canceled"})
        assert answer.json()["status"] == "in-progress"
        assert not call.finished
        call.hang_up()
        await over(call)


async def test_what_cannot_be_an_update_is_refused():
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer) as client:
        call = await streaming_call(service, peer)
        codes = [
            (await client.post(f"/Calls/{call.sid}.json", data=data)).json()["code"]
            for data in ({}, {"Status": "dancing"}, {"Url": "http://a", "Twiml": "<Response/>"}, {"Twiml": "<no"})
        ]
        call.hang_up()
        await over(call)
    assert codes == [20001, 20001, 21218, 12100]


async def test_calls_can_be_listed_by_status_and_number():
    async with serving(Service({"/twilio/voice": [twiml("<Hangup/>")]})) as service, carrier(service) as peer, rest(peer) as client:
        for number in ("+15550000001", "+15550000002"):
            await over(await peer.place(Scripted(), CallPlan(**QUICK, from_number=number)))
        everything = (await client.get("/Calls.json", params={"Status": "completed"})).json()
        one = (await client.get("/Calls.json", params={"From": "+15550000002", "PageSize": 1})).json()
        none = (await client.get("/Calls.json", params={"Status": "in-progress"})).json()
    assert [call["from"] for call in everything["calls"]] == ["+15550000002", "+15550000001"]
    assert [call["from"] for call in one["calls"]] == ["+15550000002"]
    assert none["calls"] == []


async def some_calls(peer: Carrier, count: int = 1, **plan):
    """Calls that have ended, one after the other."""
    calls = []
    for _ in range(count):
        calls.append(await peer.place(Scripted(), CallPlan(**(QUICK | plan))))
        await over(calls[-1])
    return calls


async def test_a_list_comes_in_pages_that_begin_behind_the_last_call_shown():
    async with serving(Service({"/twilio/voice": [twiml("<Hangup/>")]})) as service, carrier(service) as peer, rest(peer) as client:
        calls = await some_calls(peer, 3)
        first = (await client.get("/Calls.json", params={"PageSize": 2, "Status": "completed"})).json()
        await some_calls(peer, 1)  # comes in front, and moves nothing
        second = (await client.get(f"{peer.api_url}{first['next_page_uri']}")).json()
        bad = await client.get("/Calls.json", params={"PageSize": "many"})
    assert [it["sid"] for it in first["calls"]] == [calls[2].sid, calls[1].sid]
    assert [it["sid"] for it in second["calls"]] == [calls[0].sid]
    assert (first["page"], second["page"], second["next_page_uri"]) == (0, 1, None)
    assert "Status=completed" in first["next_page_uri"]
    assert (bad.status_code, bad.json()["code"]) == (400, 20001)


async def test_a_list_is_filtered_by_dates_alone_and_on_or_before_midnight_is_meant_in_the_narrow_way():
    async with serving(Service({"/twilio/voice": [twiml("<Hangup/>")]})) as service, carrier(service) as peer, rest(peer) as client:
        [old, new] = await some_calls(peer, 2)
        old.answered_at, new.answered_at = (datetime(2026, 11, day, 8, tzinfo=UTC) for day in (19, 20))

        async def listed(**query):
            return [it["sid"] for it in (await client.get("/Calls.json", params=query)).json()["calls"]]

        assert await listed(**{"StartTime": "2026-11-20"}) == [new.sid]
        assert await listed(**{"StartTime>": "2026-11-20"}) == [new.sid]
        assert await listed(**{"StartTime>": "2026-11-19T23:00:00Z"}) == [new.sid, old.sid]
        assert await listed(**{"StartTime<": "2026-11-20"}) == [old.sid]
        assert await listed(**{"StartTime>": "2026-11-19", "StartTime<": "2026-11-21"}) == [new.sid, old.sid]
        answer = await client.get("/Calls.json", params={"StartTime>": "soon"})
    assert (answer.status_code, answer.json()["code"]) == (400, 20001)


async def test_a_price_comes_some_time_after_the_end_and_never_for_a_call_that_nobody_answered():
    said = {"/twilio/voice": [twiml("<Say>Goodbye.</Say>")]}
    async with serving(Service(said)) as service, carrier(service) as peer, rest(peer) as client:
        [call] = await some_calls(peer, 1, rated_after_ms=3_600_000)
        early = (await client.get(f"/Calls/{call.sid}.json")).json()
        call.ended_at -= timedelta(hours=2)
        call.answered_at = call.ended_at - timedelta(seconds=61)
        late = (await client.get(f"/Calls/{call.sid}.json")).json()
        service.documents["/twilio/voice"] = [twiml('<Reject reason="busy"/>')]
        [rejected] = await some_calls(peer, 1, rated_after_ms=0)
        never = (await client.get(f"/Calls/{rejected.sid}.json")).json()
    assert (early["duration"], early["price"], early["price_unit"]) == ("1", None, "USD")
    assert (late["duration"], late["price"]) == ("61", "-0.0170")
    assert (never["status"], never["duration"], never["price"]) == ("busy", None, None)


@pytest.mark.parametrize(("outcome", "status", "talked"), [("answered", "completed", True), ("busy", "busy", False)])
async def test_a_dialed_leg_is_a_call_of_its_own_in_the_list(outcome, status, talked):
    body = '<Dial action="/twilio/resume?epoch=1"><Number>+15550001111</Number></Dial>'
    async with (
        serving(Service({"/twilio/voice": [twiml(body)], "/twilio/resume": [twiml("<Hangup/>")]})) as service,
        carrier(service) as peer,
        rest(peer) as client,
    ):
        dials = {"any": DialPlan(outcome=outcome, ring_ms=20, talk_ms=20)}
        [call] = await some_calls(peer, 1, dials=dials, rated_after_ms=0)
        everything = (await client.get("/Calls.json")).json()["calls"]
        [leg] = (await client.get("/Calls.json", params={"ParentCallSid": call.sid})).json()["calls"]
        alone = (await client.get(f"/Calls/{leg['sid']}.json")).json()
        refused = await client.post(f"/Calls/{leg['sid']}.json", data={"Status": "completed"})
    assert [it["sid"] for it in everything] == [leg["sid"], call.sid]
    assert (leg["to"], leg["direction"], leg["status"]) == ("+15550001111", "outbound-dial", status)
    assert (leg["duration"], leg["price"]) == (("1", "-0.0140") if talked else (None, None))
    assert alone == leg
    assert service.paths("/twilio/resume")[0].fields["DialCallSid"] == leg["sid"]
    assert refused.json()["code"] == 21220


async def test_a_leg_ends_with_the_call_that_dialed_it():
    body = "<Dial><Number>+15550001111</Number></Dial>"
    async with serving(Service({"/twilio/voice": [twiml(body)]})) as service, carrier(service) as peer, rest(peer) as client:
        dials = {"any": DialPlan(outcome="answered", ring_ms=20, talk_ms=None)}
        call = await peer.place(plan=CallPlan(**QUICK, dials=dials))
        async with asyncio.timeout(BOUND):
            await call.happened("dial_answered")
        [during] = (await client.get("/Calls.json", params={"ParentCallSid": call.sid})).json()["calls"]
        call.hang_up()
        await over(call)
        [after] = (await client.get("/Calls.json", params={"ParentCallSid": call.sid})).json()["calls"]
    assert (during["status"], during["end_time"]) == ("in-progress", None)
    assert (after["status"], after["duration"]) == ("completed", "1")


async def test_a_finished_call_can_be_struck_out_of_the_books_and_no_other():
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer) as client:
        call = await streaming_call(service, peer)
        path = f"/Calls/{call.sid}.json"
        early = await client.delete(path)
        call.hang_up()
        await over(call)
        struck, gone = await client.delete(path), await client.get(path)
    assert (early.status_code, struck.status_code, gone.status_code) == (400, 204, 404)


async def test_the_numbers_configuration_can_be_read():
    async with serving(Service({})) as service, carrier(service) as peer, rest(peer) as client:
        numbers = (await client.get("/IncomingPhoneNumbers.json", params={"PhoneNumber": "+15559870000"})).json()
        unknown = (await client.get("/IncomingPhoneNumbers.json", params={"PhoneNumber": "+15550000000"})).json()
        peer.configure(Number(voice_url=None))
        bare = (await client.get("/IncomingPhoneNumbers.json")).json()
        account = (await client.get(f"{peer.api_url}/2010-04-01/Accounts/{ACCOUNT}.json")).json()
    [number] = numbers["incoming_phone_numbers"]
    assert number["voice_url"] == f"{service.url}/twilio/voice"
    assert number["voice_method"] == "POST"
    assert number["status_callback"] == f"{service.url}/twilio/status"
    assert unknown["incoming_phone_numbers"] == []
    assert bare["incoming_phone_numbers"][0]["voice_url"] == ""
    assert account["status"] == "active"
