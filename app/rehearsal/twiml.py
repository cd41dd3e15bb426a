"""TwiML as the pretend carrier reads it: a document's text to verbs, or a refusal with the carrier's own error code.

Nothing here runs anything. Attribute names, defaults and codes are those of the carrier's public documentation
(TwiML Voice pages and error dictionary), written apart from the service's own templates.

Rule 1: what the carrier only warns about (an unknown verb or noun) is skipped and reported as an `Alert`.
Rule 2: what ends the document (not XML, not a `<Response>`) raises `Unreadable` with the carrier's code.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

MAX_BYTES = 64 * 1024
PARAMETER_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Alert:
    """One line of the carrier's debugger: a code of its error dictionary and what it was about."""

    code: int
    about: str

    def __str__(self) -> str:
        return f"{self.code}: {self.about}"


class Unreadable(Exception):
    """A document that cannot be carried out. `code` is the carrier's: 12100 bad XML, 12300 wrong type, 11750 too long."""

    def __init__(self, code: int, about: str) -> None:
        self.code, self.about = code, about
        super().__init__(f"{code}: {about}")


@dataclass(frozen=True, slots=True)
class Target:
    """An address to ask for the next document."""

    url: str
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Say:
    text: str
    loop: int = 1


@dataclass(frozen=True, slots=True)
class Play:
    url: str | None
    digits: str = ""
    loop: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    ms: int = 1_000


@dataclass(frozen=True, slots=True)
class Gather:
    nested: tuple[Say | Play | Pause, ...]
    action: Target
    timeout_ms: int = 5_000
    num_digits: int | None = None
    finish_on_key: str = "#"
    action_on_empty: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    to: Target


@dataclass(frozen=True, slots=True)
class Hangup:
    pass


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str = "rejected"


@dataclass(frozen=True, slots=True)
class Start:
    """`<Start>`: accepted and ignored; it never blocks the document."""


@dataclass(frozen=True, slots=True)
class Stream:
    """`<Connect><Stream>`. `action` is where to go when the socket has ended; None means the next verb."""

    url: str
    action: Target | None
    name: str | None = None
    track: str = "inbound_track"
    status: Target | None = None
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Dial:
    """`<Dial>` with one number (a `<Number>` or the bare text)."""

    number: str
    action: Target | None
    timeout_ms: int = 30_000
    answer_on_bridge: bool = False
    caller_id: str | None = None
    status: Target | None = None
    status_events: tuple[str, ...] = ()


type Verb = Say | Play | Pause | Gather | Redirect | Hangup | Reject | Start | Stream | Dial


@dataclass(frozen=True, slots=True)
class Document:
    """The verbs in order, and what the debugger would have said about the text."""

    verbs: tuple[Verb, ...]
    alerts: tuple[Alert, ...] = ()


def parse(text: bytes | str, base: str) -> Document:
    """Read a document that was fetched from `base`; relative addresses resolve against it. Raises `Unreadable`."""
    if len(text) > MAX_BYTES:
        raise Unreadable(11750, "the document is longer than 64 KB")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - it is the answer of the service under rehearsal
    except ElementTree.ParseError as fault:
        raise Unreadable(12100, f"the document is not XML: {fault}") from None
    if root.tag != "Response":
        raise Unreadable(12100, f"the document's root is <{root.tag}>, not <Response>")
    return _Reader(base).read(root)


class _Reader:
    def __init__(self, base: str) -> None:
        self._base = base
        self._alerts: list[Alert] = []
        self._known: dict[str, Callable[[ElementTree.Element], Verb | None]] = {
            "Say": self._say,
            "Play": self._play,
            "Pause": self._pause,
            "Gather": self._gather,
            "Redirect": lambda it: Redirect(self._target(_text(it), it.get("method"))),
            "Hangup": lambda it: Hangup(),
            "Reject": lambda it: Reject(it.get("reason", "rejected")),
            "Start": lambda it: Start(),
            "Stop": lambda it: Start(),
            "Connect": self._connect,
            "Dial": self._dial,
        }

    def read(self, root: ElementTree.Element) -> Document:
        verbs: list[Verb] = []
        for element in root:
            if (read := self._known.get(element.tag)) is None:
                self._warn(12200, f"<{element.tag}> is no verb that can stand here")
            elif (verb := read(element)) is not None:
                if isinstance(verb, Reject) and verbs:
                    self._warn(12200, "<Reject> is not the first verb")
                verbs.append(verb)
        return Document(tuple(verbs), tuple(self._alerts))

    def _warn(self, code: int, about: str) -> None:
        self._alerts.append(Alert(code, about))

    def _target(self, url: str, method: str | None) -> Target:
        return Target(urljoin(self._base, url), (method or "POST").upper())

    def _number(self, element: ElementTree.Element, name: str, default: int) -> int:
        try:
            return int(element.get(name, default))
        except ValueError:
            self._warn(12200, f"<{element.tag} {name}> is not a number")
            return default

    def _say(self, it: ElementTree.Element) -> Say | None:
        if not (text := _text(it)):
            self._warn(13520, "<Say> has no text")
            return None
        if len(text) > 4_096:
            self._warn(13522, "<Say> is longer than 4,096 characters")
        return Say(text, self._number(it, "loop", 1))

    def _play(self, it: ElementTree.Element) -> Play | None:
        text = _text(it)
        if not text and not it.get("digits"):
            self._warn(13420, "<Play> has neither an address nor digits")
            return None
        return Play(urljoin(self._base, text) if text else None, it.get("digits", ""), self._number(it, "loop", 1))

    def _pause(self, it: ElementTree.Element) -> Pause:
        return Pause(self._number(it, "length", 1) * 1_000)

    def _gather(self, it: ElementTree.Element) -> Gather:
        nested: list[Say | Play | Pause] = []
        for element in it:
            verb = self._known[element.tag](element) if element.tag in ("Say", "Play", "Pause") else None
            if isinstance(verb, Say | Play | Pause):
                nested.append(verb)
            elif element.tag not in ("Say", "Play", "Pause"):
                self._warn(12200, f"<{element.tag}> cannot stand in <Gather>")
        if "dtmf" not in it.get("input", "dtmf").split():
            self._warn(12200, "this carrier gathers keys only, no speech")
        digits = it.get("numDigits")
        return Gather(
            nested=tuple(nested),
            action=self._target(it.get("action", self._base), it.get("method")),
            timeout_ms=self._number(it, "timeout", 5) * 1_000,
            num_digits=None if digits is None else self._number(it, "numDigits", 0) or None,
            finish_on_key=it.get("finishOnKey", "#"),
            action_on_empty=it.get("actionOnEmptyResult", "false").lower() == "true",
        )

    def _connect(self, it: ElementTree.Element) -> Stream | None:
        nouns = list(it)
        if len(nouns) != 1 or nouns[0].tag != "Stream":
            self._warn(12200, "<Connect> needs exactly one <Stream>")
            return None
        noun = nouns[0]
        parameters: list[tuple[str, str]] = []
        for element in noun:
            name, value = element.get("name"), element.get("value")
            if element.tag != "Parameter" or name is None or value is None:
                self._warn(12200, f"<{element.tag}> in <Stream> is no <Parameter name value>")
            elif len(name) + len(value) >= PARAMETER_LIMIT:
                self._warn(12200, f"<Parameter {name}> is 500 characters or longer")
            else:
                parameters.append((name, value))
        if noun.get("track", "inbound_track") != "inbound_track":
            self._warn(31941, "a bidirectional stream receives the inbound track only")
        status = noun.get("statusCallback")
        if status is not None and not urlsplit(status).scheme:
            self._warn(12200, "<Stream statusCallback> must be absolute")
            status = None
        action = it.get("action")
        return Stream(
            url=noun.get("url", ""),
            action=None if action is None else self._target(action, it.get("method")),
            name=noun.get("name"),
            track=noun.get("track", "inbound_track"),
            status=None if status is None else Target(status, noun.get("statusCallbackMethod", "POST").upper()),
            parameters=tuple(parameters),
        )

    def _dial(self, it: ElementTree.Element) -> Dial | None:
        nouns = list(it)
        if any(noun.tag != "Number" for noun in nouns) or len(nouns) > 1:
            self._warn(12200, "this carrier dials one <Number>")
            return None
        number = _text(nouns[0]) if nouns else _text(it)
        noun = nouns[0] if nouns else it
        action, status = it.get("action"), noun.get("statusCallback")
        return Dial(
            number=number,
            action=None if action is None else self._target(action, it.get("method")),
            timeout_ms=self._number(it, "timeout", 30) * 1_000,
            answer_on_bridge=it.get("answerOnBridge", "false").lower() == "true",
            caller_id=it.get("callerId"),
            status=None if status is None else self._target(status, noun.get("statusCallbackMethod")),
            status_events=tuple(noun.get("statusCallbackEvent", "completed").split()),
        )


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())
