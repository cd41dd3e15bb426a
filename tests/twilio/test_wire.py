"""The carrier's wire, from messages of every kind."""

import base64
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadCarrierMessage
from app.twilio.wire import Connected, Dtmf, Encoder, Mark, Media, Start, Stop, decode

WIRE = Path(__file__).parents[1] / "wire" / "twilio"


def recorded(name: str) -> str:
    return (WIRE / f"{name}.json").read_text().strip()


def test_a_stream_says_whose_it_is():
    start = decode(recorded("start"))
    assert isinstance(start, Start)
    assert start.stream_sid == "MZ18ad3ab5a668481ce02b83e7395059f0"
    assert start.start.call_sid == "CA00000000000000000000000000000002"
    assert start.start.custom_parameters == {"call_id": "01J0", "epoch": "1", "token": "abc"}
    assert (start.start.media_format.encoding, start.start.media_format.sample_rate) == ("audio/x-mulaw", 8000)


def test_sound_comes_byte_for_byte():
    media = decode(recorded("media_20ms"))
    assert isinstance(media, Media) and media.media.payload == bytes(range(160))


@pytest.mark.parametrize(("name", "kind"), [("connected", Connected), ("mark", Mark), ("dtmf", Dtmf), ("stop", Stop)])
def test_every_other_message_is_understood(name, kind):
    assert type(decode(recorded(name))) is kind


def test_a_mark_and_a_key_bring_what_they_stand_for():
    mark, key = decode(recorded("mark")), decode(recorded("dtmf"))
    assert isinstance(mark, Mark) and mark.mark.name == "0.7.4960"
    assert isinstance(key, Dtmf) and key.dtmf.digit == "1"


@pytest.mark.parametrize("name", ["connected", "start", "media_20ms", "mark", "dtmf", "stop"])
def test_fields_that_are_new_are_not_minded(name):
    message = json.loads(recorded(name)) | {"somethingNew": {"deep": [1, 2, {"x": None}]}}
    assert type(decode(json.dumps(message))) is type(decode(recorded(name)))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"event":"dance","secret":"4111"}', "unknown"),
        ('{"secret":"4111"}', "unknown"),
        ("{", "malformed"),
        ("", "malformed"),
        ("[" * 10_000, "malformed"),
        ('{"event":"media","media":{"payload":"4111!"}}', "media"),
        ('{"event":"media","media":{"payload":4111}}', "media"),
        ('{"event":"media"}', "media"),
        ('{"event":"mark","mark":{}}', "mark"),
        ('{"event":"dtmf","dtmf":{"digit":"41"}}', "dtmf"),
        ('{"event":"start","streamSid":"MZ\\",x","start":{"accountSid":"A","callSid":"C"}}', "start"),
        ('{"event":"start","streamSid":"MZ1"}', "start"),
    ],
)
def test_what_cannot_be_read_is_their_fault_and_its_content_stays_out_of_the_error(text, kind):
    with pytest.raises(BadCarrierMessage) as raised:
        decode(text)
    assert raised.value.kind == kind
    assert "4111" not in str(raised.value) and raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__


@given(st.one_of(st.text(), st.binary(), st.dictionaries(st.text(max_size=8), st.text(max_size=8)).map(json.dumps)))
def test_nothing_but_their_fault_leaves_the_wire(text):
    with contextlib.suppress(BadCarrierMessage):
        decode(text)


def test_orders_are_what_the_carrier_expects():
    encoder = Encoder("MZ1")
    sound = bytes(range(256))
    media = json.loads(encoder.media(sound))
    assert media == {"event": "media", "streamSid": "MZ1", "media": {"payload": base64.b64encode(sound).decode()}}
    assert json.loads(encoder.mark("0.1.160")) == {"event": "mark", "streamSid": "MZ1", "mark": {"name": "0.1.160"}}
    assert json.loads(encoder.clear) == {"event": "clear", "streamSid": "MZ1"}
