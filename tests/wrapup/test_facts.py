"""The transcript as it is read."""

from app.settings import Settings
from app.wrapup.facts import Line, Lists, Transcript
from tests.wrapup.scenery import said, talk


def test_what_the_caller_never_heard_is_not_in_the_transcript():
    transcript = Transcript.of(
        [
            said("agent", "We have Tuesday", key="a", unheard="or Wednesday at nine.", interrupted=True),
            said("agent", "", key="b", unheard="Anything else?", interrupted=True),
            said("caller", "Tuesday.", key="c"),
        ]
    )
    assert transcript.lines == (
        Line(1, "agent", "We have Tuesday", "a", interrupted=True),
        Line(2, "caller", "Tuesday.", "c"),
    )


def test_a_caller_whose_words_are_unknown_has_a_line_without_words():
    transcript = Transcript.of([said("caller", None, key="a", untranscribed=True), said("agent", "Pardon?", key="b")])
    assert [line.text for line in transcript.lines] == [None, "Pardon?"]
    assert not transcript.caller_spoke


def test_a_key_that_comes_twice_stands_for_both_lines():
    transcript = Transcript.of([said("caller", "One.", key="keys-1"), said("caller", "Two.", key="keys-1", at=9)])
    assert [line.text for line in transcript.of_key("keys-1")] == ["One.", "Two."]


def test_numbers_of_lines_that_do_not_exist_name_no_utterance():
    transcript = talk("caller: Hello.", "agent: Hello.")
    assert [transcript.key_of(number) for number in (-1, 0, 1, 2, 3, 10**30)] == [None, None, "u1", "u2", None, None]


def test_nothing_that_was_said_shows_when_a_transcript_is_printed():
    assert "secret" not in repr(talk("caller: My secret is safe."))


def test_the_lists_come_from_the_settings_with_the_region_of_the_country_code():
    settings = Settings.from_env(
        {
            "PUBLIC_URL": "https://calls.example.com",
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "TWILIO_AUTH_TOKEN": "t",
            "OPENAI_API_KEY": "k",
            "DISPOSITIONS": "sold,lost",
            "INTENTS": "buy",
            "DEFAULT_COUNTRY_CODE": "44",
        }
    )
    lists = Lists.of(settings)
    assert (lists.dispositions, lists.intents, lists.region) == (("sold", "lost"), ("buy",), "GB")
