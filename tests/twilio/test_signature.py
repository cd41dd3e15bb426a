"""Signatures: the carrier's own test vectors, and everything that is not quite a signature."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import ImmutableMultiDict

from app.twilio.signature import Signatures, Upgrade

PUBLIC = "https://calls.example.com"
FIELDS = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+12349013030",
    "Digits": "1234",
    "From": "+12349013030",
    "To": "+18005551212",
}
# Twilio's documentation, token 12345: reproduced from the carrier's documentation and its library's own unit test.
RIGHT = "g9metIsZWfhICOSJyMsOe1y3Ydk="
SOCKET = "m+yylahm3KkzjghVZbNFHWVxaUI="


def scope(path="/voice/incoming", query="", *signatures, kind="http", extra=()):
    return {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [
            *extra,
            *((b"x-twilio-signature", value if isinstance(value, bytes) else value.encode()) for value in signatures),
        ],
    }


def sign(token, url, fields=()):
    text = url + "".join(name + value for name, value in sorted(fields))
    return base64.b64encode(hmac.digest(token.encode(), text.encode(), hashlib.sha1)).decode()


@pytest.mark.parametrize(
    ("public", "path", "query", "fields", "signature"),
    [
        (PUBLIC, "/voice/incoming", "", FIELDS, RIGHT),
        (
            "https://mycompany.com",
            "/myapp.php",
            "foo=1&bar=2",
            {
                "CallSid": "CA1234567890ABCDE",
                "Caller": "+14158675309",
                "Digits": "1234",
                "From": "+14158675309",
                "To": "+18005551212",
            },
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        (PUBLIC, "/voice/incoming", "CallSid=CA1&From=%2B15551230000", None, "DzqQLHlrryClBCbftwvE1z32O44="),
    ],
)
def test_the_carriers_own_vectors_are_right(public, path, query, fields, signature):
    assert Signatures(["12345"], public).http(scope(path, query, signature), fields)


def test_the_socket_is_signed_under_its_wss_address():
    signatures = Signatures(["12345"], PUBLIC)
    assert signatures.upgrade(scope("/media", "", SOCKET, kind="websocket")) is Upgrade.RIGHT
    assert signatures.upgrade(scope("/media/", "", SOCKET, kind="websocket")) is Upgrade.RIGHT
    with_slash = sign("12345", "wss://calls.example.com/media/")
    assert signatures.upgrade(scope("/media", "", with_slash, kind="websocket")) is Upgrade.RIGHT


def test_the_https_form_of_the_socket_address_is_wrong_and_so_is_another_path():
    signatures = Signatures(["12345"], PUBLIC)
    https = sign("12345", "https://calls.example.com/media")
    assert signatures.upgrade(scope("/media", "", https, kind="websocket")) is Upgrade.WRONG
    assert signatures.upgrade(scope("/other", "", SOCKET, kind="websocket")) is Upgrade.WRONG
    assert signatures.upgrade(scope("/media", "", SOCKET, SOCKET, kind="websocket")) is Upgrade.WRONG
    assert signatures.upgrade(scope("/media", "", "", kind="websocket")) is Upgrade.WRONG
    assert signatures.upgrade(scope("/media", "", kind="websocket")) is Upgrade.ABSENT


def test_the_sha256_form_is_not_taken_because_a_request_asks_for_it():
    settings = [(b"x-twilio-webhooks-signature-settings", b"key=webhooks_sharedkey_1,algorithm=HMAC_SHA256")]
    sha256 = "85NaWOf38W/NaLsC5dywv2fRgCo9SqFZ8joVqJufcjE="
    assert not Signatures(["12345"], PUBLIC).http(scope("/voice/incoming", "", sha256, extra=settings), FIELDS)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("",),
        (RIGHT[:-1],),
        (RIGHT + "=",),
        (RIGHT.swapcase(),),
        (RIGHT, RIGHT),
        ("A" * 28,),
        (f"{RIGHT}, {RIGHT}",),
        (b"\xff" * 28,),
        (b"",),
        ("x" * 100_000,),
    ],
)
def test_anything_but_one_right_header_is_refused(headers):
    assert not Signatures(["12345"], PUBLIC).http(scope("/voice/incoming", "", *headers), FIELDS)


def test_the_host_header_says_nothing():
    hostile = [(b"host", b"evil.example"), (b"x-forwarded-host", b"evil.example"), (b"x-forwarded-proto", b"http")]
    signatures = Signatures(["12345"], PUBLIC)
    assert signatures.http(scope("/voice/incoming", "", RIGHT, extra=hostile), FIELDS)
    elsewhere = sign("12345", "https://evil.example/voice/incoming", FIELDS.items())
    assert not signatures.http(scope("/voice/incoming", "", elsewhere, extra=hostile), FIELDS)


def test_blank_fields_and_unknown_fields_are_signed_too():
    signatures = Signatures(["12345"], PUBLIC)
    fields = {**FIELDS, "FromCity": "", "Invented2027": "yes"}
    right = sign("12345", f"{PUBLIC}/voice/incoming", fields.items())
    assert signatures.http(scope("/voice/incoming", "", right), fields)
    assert not signatures.http(scope("/voice/incoming", "", right), {**FIELDS, "FromCity": ""})


def test_a_repeated_field_counts_with_all_its_values():
    pairs = [("Digits", "1"), ("Digits", "2")]
    right = sign("12345", f"{PUBLIC}/voice/incoming", pairs)
    assert Signatures(["12345"], PUBLIC).http(scope("/voice/incoming", "", right), ImmutableMultiDict(pairs))


def test_during_a_rotation_both_tokens_sign_and_a_third_does_not():
    signatures = Signatures(["new", "old"], PUBLIC)
    for token, expected in (("new", True), ("old", True), ("stranger", False), ("", False)):
        header = sign(token, f"{PUBLIC}/voice/incoming", FIELDS.items())
        assert signatures.http(scope("/voice/incoming", "", header), FIELDS) is expected


def test_an_empty_token_is_refused_at_start():
    for tokens in ([], [""], ["good", ""]):
        with pytest.raises(ValueError, match="anybody"):
            Signatures(tokens, PUBLIC)


def test_the_raw_path_is_signed_and_not_the_decoded_one():
    request = scope("/voice/incoming", "", sign("12345", f"{PUBLIC}/voice%2Fincoming"))
    assert not Signatures(["12345"], PUBLIC).http(request, None)
    request["raw_path"] = b"/voice%2Fincoming"
    assert Signatures(["12345"], PUBLIC).http(request, None)


def test_a_public_address_with_a_path_and_a_port_is_part_of_what_is_signed():
    public = "https://calls.example.com:8443/row"
    header = sign("12345", f"{public}/twilio/voice", FIELDS.items())
    assert Signatures(["12345"], public + "/").http(scope("/twilio/voice", "", header), FIELDS)
    assert not Signatures(["12345"], PUBLIC).http(scope("/twilio/voice", "", header), FIELDS)


@given(
    headers=st.lists(st.tuples(st.sampled_from([b"x-twilio-signature", b"host", b"X-Twilio-Signature"]), st.binary(max_size=60))),
    path=st.binary(max_size=40),
    query=st.binary(max_size=40),
    fields=st.dictionaries(st.text(max_size=8), st.text(st.characters(), max_size=8), max_size=4),
)
def test_whatever_arrives_nothing_is_raised_and_nothing_is_let_in(headers, path, query, fields):
    signatures = Signatures(["12345"], PUBLIC)
    request = {"type": "http", "path": "/x", "raw_path": path, "query_string": query, "headers": headers}
    assert signatures.http(request, fields) is False
    assert signatures.upgrade(request) in (Upgrade.ABSENT, Upgrade.WRONG)


def test_a_field_that_no_one_can_encode_is_refused_and_not_raised():
    assert not Signatures(["12345"], PUBLIC).http(scope("/voice/incoming", "", RIGHT), {"a": "\ud800"})
