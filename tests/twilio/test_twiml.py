"""The documents: exactly the expected verbs, whatever the values are."""

from pathlib import Path
from shutil import copytree
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadSetting
from app.rehearsal import twiml as carrier
from app.twilio.twiml import DOCUMENTS, TEMPLATES, Twiml

PUBLIC = "https://calls.example.com"
STREAM = "wss://calls.example.com/twilio/media"
TWIML = Twiml(PUBLIC, STREAM)
HOSTILE = st.text(st.characters(), max_size=60) | st.sampled_from(
    [
        '"/></Stream></Connect><Dial>+19005550100</Dial><Connect><Stream url="',
        "</Say><Dial>+19005550100</Dial><Say>",
        "<![CDATA[", "]]>", "&#0;", "&lol;", "$token", "${call_id}", "$", "\x00\x01\ufffe\ud800", "-->", "<?xml?>",
        '<!DOCTYPE x [<!ENTITY a "b">]>',
    ]
)  # fmt: skip


def shape(document):
    """The document as nested (tag, children)."""

    def walk(element):
        return (element.tag, [walk(child) for child in element])

    return walk(ElementTree.fromstring(document))


def test_the_answer_opens_one_stream_and_leads_back_to_resume_twice():
    root = ElementTree.fromstring(TWIML.answer("01J", 2, "tok"))
    connect, redirect = root
    (stream,) = connect
    resume = f"{PUBLIC}/twilio/resume?epoch=2"
    assert (connect.tag, connect.attrib) == ("Connect", {"action": resume, "method": "POST"})
    assert (redirect.tag, redirect.attrib, redirect.text) == ("Redirect", {"method": "POST"}, resume)
    assert stream.attrib == {
        "name": "callrow-2",
        "url": STREAM,
        "statusCallback": f"{PUBLIC}/twilio/stream-status",
        "statusCallbackMethod": "POST",
    }
    assert [(it.tag, it.get("name"), it.get("value")) for it in stream] == [
        ("Parameter", "call_id", "01J"),
        ("Parameter", "epoch", "2"),
        ("Parameter", "token", "tok"),
    ]


def test_a_transfer_dials_one_number_and_comes_back_to_resume():
    (dial,) = ElementTree.fromstring(TWIML.dial("+15551230001", 4))
    (number,) = dial
    assert dial.get("answerOnBridge") == "true"
    assert dial.get("action") == f"{PUBLIC}/twilio/resume?epoch=4"
    assert dial.get("method") == "POST"
    assert 5 <= int(dial.get("timeout")) <= 60
    assert number.text == "+15551230001"
    assert number.get("statusCallback") == f"{PUBLIC}/twilio/status"


def test_a_number_may_be_left_by_keys_and_none_is_told_too():
    gather, redirect = ElementTree.fromstring(TWIML.leave_number("Press keys.", "01J & Co"))
    assert gather.get("input") == "dtmf"
    assert gather.get("actionOnEmptyResult") == "true"
    assert gather.get("action") == redirect.text == f"{PUBLIC}/twilio/left?call=01J%20%26%20Co"
    assert [(it.tag, it.text) for it in gather] == [("Say", "Press keys.")]


def test_the_short_documents_are_what_they_say():
    assert shape(TWIML.nothing()) == ("Response", [])
    assert shape(TWIML.hang_up()) == ("Response", [("Hangup", [])])
    assert shape(TWIML.reject()) == ("Response", [("Reject", [])])
    assert shape(TWIML.say("Bye.")) == ("Response", [("Say", []), ("Hangup", [])])
    assert shape(TWIML.say_and_resume("One moment.", 3)) == ("Response", [("Say", []), ("Pause", []), ("Redirect", [])])


def test_the_pretend_carrier_which_read_the_reference_for_itself_has_nothing_to_complain_of():
    documents = [
        TWIML.answer("01J", 2, "tok"),
        TWIML.dial("+15551230001", 4),
        TWIML.leave_number("Press keys.", "01J"),
        TWIML.say("Bye."),
        TWIML.say_and_resume("One moment.", 3, 1),
        TWIML.hang_up(),
        TWIML.nothing(),
        TWIML.reject(),
    ]
    assert len(documents) == len(DOCUMENTS)
    read = [carrier.parse(document, f"{PUBLIC}/twilio/voice") for document in documents]
    assert [document.alerts for document in read] == [()] * len(documents)
    stream, redirect = read[0].verbs
    assert (stream.url, stream.action, redirect.to) == (STREAM, redirect.to, carrier.Target(f"{PUBLIC}/twilio/resume?epoch=2"))
    assert stream.parameters == (("call_id", "01J"), ("epoch", "2"), ("token", "tok"))
    assert stream.status == carrier.Target(f"{PUBLIC}/twilio/stream-status")
    dial = read[1].verbs[0]
    assert (dial.number, dial.answer_on_bridge, dial.status_events) == ("+15551230001", True, ("answered",))
    assert read[2].verbs[0].action_on_empty
    assert read[4].verbs[-1].to.url == f"{PUBLIC}/twilio/resume?epoch=3&again=1"


@given(HOSTILE, HOSTILE, st.integers(0, 10**6))
def test_no_value_becomes_markup(one, other, epoch):
    answer = TWIML.answer(one, epoch, other)
    parameters = [("Parameter", [])] * 3
    assert shape(answer) == ("Response", [("Connect", [("Stream", parameters)]), ("Redirect", [])])
    stream = ElementTree.fromstring(answer)[0][0]
    assert stream.get("url") == STREAM
    assert shape(TWIML.say(one)) == ("Response", [("Say", []), ("Hangup", [])])
    assert shape(TWIML.dial(one, epoch)) == ("Response", [("Dial", [("Number", [])])])
    assert shape(TWIML.leave_number(one, other)) == ("Response", [("Gather", [("Say", [])]), ("Redirect", [])])
    assert shape(TWIML.say_and_resume(one, epoch)) == ("Response", [("Say", []), ("Pause", []), ("Redirect", [])])


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=40))
def test_what_xml_can_hold_arrives_unchanged(value):
    stream = ElementTree.fromstring(TWIML.answer(value, 1, "$token ${epoch} $$"))[0][0]
    assert stream[0].get("value") == value
    assert stream[2].get("value") == "$token ${epoch} $$"


def test_no_document_nears_the_carriers_limit_and_every_file_is_a_known_one():
    assert {file.stem for file in TEMPLATES.glob("*.xml")} == set(DOCUMENTS)
    assert len(TWIML.answer("0" * 36, 10**6, "t" * 80)) < 2_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(copytree(TEMPLATES, tmp_path / "twiml"))


def test_every_broken_template_is_named_at_start(folder: Path):
    (folder / "say.xml").write_text("<Response><Say>Good day</Say></Response>")
    (folder / "dial.xml").write_text("<Response>")
    (folder / "nothing.xml").unlink()
    (folder / "hang-up.xml").write_text("<Answer/>")
    (folder / "reject.xml").write_text("<Response><Reject reason='$ '/></Response>")
    with pytest.raises(BadSetting) as bad:
        Twiml(PUBLIC, STREAM, folder)
    assert {name for name, _, _ in bad.value.complaints} == {
        f"twiml/{name}.xml" for name in ("say", "dial", "nothing", "hang-up", "reject")
    }
    assert "sentence" in str(bad.value)


def test_an_edited_template_keeps_its_words(folder: Path):
    text = "<Response><Say voice='Polly.Joanna'>Hello. <break/> $sentence <emphasis>bye</emphasis> now $sentence</Say></Response>"
    (folder / "say.xml").write_text(text)
    (say,) = ElementTree.fromstring(Twiml(PUBLIC, STREAM, folder).say("A<B"))
    assert "".join(say.itertext()) == "Hello.  A<B bye now A<B"
    assert say.get("voice") == "Polly.Joanna"


def test_filling_leaves_the_template_as_it_was():
    assert TWIML.say("one") != TWIML.say("two")
    assert b"two" in TWIML.say("two")
