"""Stream addresses that the carrier cannot use: it says so, and the call goes on."""

import pytest

from app.rehearsal.carrier import CallPlan
from tests.rehearsal.small_service import Service, serving, twiml
from tests.rehearsal.test_carrier_call import QUICK, carrier, over


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("ws://example.com/twilio/media", 31922),
        ("https://example.com/twilio/media", 31922),
        ("/twilio/media", 31923),
        ("wss://127.0.0.1/twilio/media?token=1", 31923),
        ("ws://127.0.0.1:9/twilio/media", 31902),
    ],
)
async def test_an_unfit_stream_address_is_refused_and_the_call_goes_on(address, code):
    body = f'<Connect><Stream url="{address}"/></Connect><Redirect>/next</Redirect>'
    async with (
        serving(Service({"/twilio/voice": [twiml(body)], "/next": [twiml("<Hangup/>")]})) as service,
        carrier(service) as peer,
    ):
        call = await over(await peer.place(plan=CallPlan(**QUICK)))
    assert [alert.code for alert in call.violations] == [code]
    assert len(service.paths("/next")) == 1
