"""Documents as the pretend carrier reads them."""

import pytest

from app.rehearsal.twiml import (
    Dial,
    Document,
    Gather,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Start,
    Stream,
    Target,
    Unreadable,
    parse,
)

BASE = "https://calls.example.com/twilio/voice"


def read(body: str) -> Document:
    return parse(f"<Response>{body}</Response>", BASE)


def codes(document: Document) -> list[int]:
    return [alert.code for alert in document.alerts]


@pytest.mark.parametrize(
    ("body", "verb"),
    [
        ("<Say> Hello\n there </Say>", Say("Hello there")),
        ('<Play loop="2">/a.wav</Play>', Play("https://calls.example.com/a.wav", loop=2)),
        ("<Pause/>", Pause(1_000)),
        ('<Pause length="3"/>', Pause(3_000)),
        ("<Redirect>/twilio/resume?epoch=2</Redirect>", Redirect(Target("https://calls.example.com/twilio/resume?epoch=2"))),
        ('<Redirect method="get">resume</Redirect>', Redirect(Target("https://calls.example.com/twilio/resume", "GET"))),
        ("<Hangup/>", Hangup()),
        ('<Reject reason="busy"/>', Reject("busy")),
        ('<Start><Recording channels="dual"/></Start>', Start()),
        ("<Dial>+15550001111</Dial>", Dial("+15550001111", None, status_events=("completed",))),
        (
            '<Dial answerOnBridge="true" timeout="20" action="/r"><Number statusCallback="/s" statusCallbackEvent="answered '
            'completed">+15550001111</Number></Dial>',
            Dial(
                "+15550001111",
                Target("https://calls.example.com/r"),
                timeout_ms=20_000,
                answer_on_bridge=True,
                status=Target("https://calls.example.com/s"),
                status_events=("answered", "completed"),
            ),
        ),
        (
            '<Connect action="/r"><Stream url="wss://h/m" name="n"><Parameter name="a" value="1"/></Stream></Connect>',
            Stream("wss://h/m", Target("https://calls.example.com/r"), name="n", parameters=(("a", "1"),)),
        ),
        (
            '<Gather input="dtmf" numDigits="4" timeout="8" finishOnKey="*" actionOnEmptyResult="true"><Say>Keys</Say></Gather>',
            Gather((Say("Keys"),), Target(BASE), timeout_ms=8_000, num_digits=4, finish_on_key="*", action_on_empty=True),
        ),
    ],
)
def test_a_verb_is_read_with_its_attributes_and_defaults(body, verb):
    document = read(body)
    assert document.verbs == (verb,)
    assert document.alerts == ()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<Sing/>", 12200),
        ("<Say></Say>", 13520),
        ("<Connect/>", 12200),
        ('<Connect><Stream url="wss://h/m" track="both_tracks"/></Connect>', 31941),
        ('<Connect><Stream url="wss://h/m"><Parameter name="a"/></Stream></Connect>', 12200),
        (f'<Connect><Stream url="wss://h/m"><Parameter name="a" value="{"x" * 499}"/></Stream></Connect>', 12200),
        ('<Connect><Stream url="wss://h/m" statusCallback="/relative"/></Connect>', 12200),
        ("<Say>a</Say><Reject/>", 12200),
        ("<Dial><Client>a</Client></Dial>", 12200),
        ('<Gather input="speech"/>', 12200),
        ('<Pause length="long"/>', 12200),
    ],
)
def test_what_the_carrier_would_only_warn_about_is_an_alert(body, code):
    assert codes(read(body)) == [code]


def test_a_parameter_of_499_characters_in_all_still_passes():
    document = read(f'<Connect><Stream url="wss://h/m"><Parameter name="a" value="{"x" * 498}"/></Stream></Connect>')
    [stream] = document.verbs
    assert isinstance(stream, Stream)
    assert len(stream.parameters[0][1]) == 498


def test_a_stream_does_not_show_its_parameters_when_printed():
    [stream] = read('<Connect><Stream url="wss://h/m"><Parameter name="token" value="secret"/></Stream></Connect>').verbs
    assert "secret" not in repr(stream)


@pytest.mark.parametrize(
    ("text", "code"), [("", 12100), ("<Response>", 12100), ("<Twiml/>", 12100), ("<Response>" + " " * 70_000, 11750)]
)
def test_what_ends_the_document_bears_the_carriers_code(text, code):
    with pytest.raises(Unreadable) as unreadable:
        parse(text, BASE)
    assert unreadable.value.code == code


def test_an_empty_document_has_no_verbs_and_nothing_wrong():
    assert parse("<Response/>", BASE) == Document(())
