"""Twilio's Media Streams on the wire: text to facts, orders to text. Pure; touches no socket (protocol: Twilio's documentation).

Rule 1: what cannot be read is `BadCarrierMessage`, which names a kind and never the content.
Rule 2: numbers come as strings, and fields may be added at any time: only what we use is looked at.
Rule 3: a mark's name is ours, and plain ASCII; the stream's sid is checked once, at `start`. So messages are put together as text.
"""

import re

import msgspec
import pybase64

from app.errors import BadCarrierMessage

STREAM_SID = re.compile(r"MZ[0-9a-zA-Z]{1,64}")


class Connected(msgspec.Struct, tag_field="event", tag="connected"):
    """The first message of a stream."""

    protocol: str = ""


class MediaFormat(msgspec.Struct, rename="camel", frozen=True):
    """What the stream carries; always mu-law at 8 kHz, one channel."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1


class StartFacts(msgspec.Struct, rename="camel"):
    """Whose stream it is."""

    account_sid: str
    call_sid: str
    custom_parameters: dict[str, str] = {}
    media_format: MediaFormat = MediaFormat()


class Start(msgspec.Struct, tag_field="event", tag="start", rename="camel"):
    """The second message of a stream, once."""

    stream_sid: str
    start: StartFacts
    sequence_number: str = "0"


class Sound(msgspec.Struct):
    """A stretch of the caller's sound. `payload` is mu-law, decoded from base64 on the way in."""

    payload: bytes
    track: str = "inbound"


class Media(msgspec.Struct, tag_field="event", tag="media", rename="camel"):
    """Mostly 20 ms of the caller's sound; the length is never promised."""

    media: Sound
    sequence_number: str = "0"


class MarkName(msgspec.Struct):
    """A bookmark's name."""

    name: str


class Mark(msgspec.Struct, tag_field="event", tag="mark"):
    """A bookmark of ours comes back."""

    mark: MarkName


class Key(msgspec.Struct):
    """A key of the telephone."""

    digit: str


class Dtmf(msgspec.Struct, tag_field="event", tag="dtmf"):
    """The caller pressed a key."""

    dtmf: Key


class Stop(msgspec.Struct, tag_field="event", tag="stop"):
    """The stream ends, which is not yet the end of the call."""


type Message = Connected | Start | Media | Mark | Dtmf | Stop


class _Kind(msgspec.Struct):
    event: str = ""


_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Connected | Start | Media | Mark | Dtmf | Stop)
_kind = msgspec.json.Decoder(_Kind)
KNOWN = frozenset({"connected", "start", "media", "mark", "dtmf", "stop"})
KEYS = frozenset("0123456789*#ABCD")


def decode(text: str | bytes) -> Message:
    """One message of the carrier.

    Raises:
        BadCarrierMessage: it is no JSON, of an unknown kind, or lacks what its kind must have.
    """
    try:
        message = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadCarrierMessage(_kind_of(text)) from None
    if type(message) is Start and not STREAM_SID.fullmatch(message.stream_sid):
        raise BadCarrierMessage("start")
    if type(message) is Dtmf and message.dtmf.digit not in KEYS:
        raise BadCarrierMessage("dtmf")
    return message


def _kind_of(text: str | bytes) -> str:
    try:
        kind = _kind.decode(text).event
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "malformed"
    return kind if kind in KNOWN else "unknown"


class Encoder:
    """Puts messages to the carrier together, for one stream."""

    __slots__ = ("_mark", "_media", "clear")

    def __init__(self, stream_sid: str) -> None:
        head = b'","streamSid":"' + stream_sid.encode() + b'"'
        self._media = b'{"event":"media' + head + b',"media":{"payload":"'
        self._mark = b'{"event":"mark' + head + b',"mark":{"name":"'
        self.clear = b'{"event":"clear' + head + b"}"
        """Throw away what is queued."""

    def media(self, mulaw: bytes) -> bytes:
        """Queue sound: mu-law at 8 kHz, of any length, without a header."""
        return self._media + pybase64.b64encode(mulaw) + b'"}}'

    def mark(self, name: str) -> bytes:
        """Put a bookmark behind what is queued."""
        return self._mark + name.encode() + b'"}}'
