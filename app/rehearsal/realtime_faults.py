"""What a session refuses, and how it misbehaves by script."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from app.errors import OurFault, TheirFault


class Refused(TheirFault):
    """A client's message that is answered with an `error` event; nothing of it is carried out."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        self.code, self.message, self.param = code, message, param
        super().__init__(code, message, param)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class BadScript(OurFault):
    """A script of misbehaviour that cannot be read."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong
        super().__init__(wrong)

    def __str__(self) -> str:
        return f"the misbehaviour is wrong: {self.wrong}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """What one connection does wrong on purpose. Numbers of responses count from 1, in the order in which they began."""

    refuse: int | None = None
    """HTTP status of the upgrade: 401, 429, 500, ..."""
    late_session_ms: int = 0
    """`session.created` comes so late."""
    no_session: bool = False
    """The socket is accepted, and that is all: a black hole from the beginning."""
    hole_after_deltas: int | None = None
    """After so many audio deltas nothing more is sent, read or answered, while the socket stays open: a black hole."""
    drop_at: tuple[str, int] | None = None
    """(a kind of event, a number): the socket is dropped, without a close frame, behind that many of our events of the kind."""
    drop_after_deltas: int | None = None
    """The socket is dropped, without a close frame, after so many audio deltas of the session."""
    close_after_deltas: tuple[int, int] | None = None
    """(audio deltas, close code): closed in mid-response."""
    fail: tuple[int, ...] = ()
    """These responses end `failed` with rate_limit_exceeded, before a word."""
    incomplete: tuple[int, ...] = ()
    """These are cut by max_output_tokens in the middle."""
    silent: tuple[int, ...] = ()
    """These begin and then nothing comes."""
    hush: tuple[int, ...] = ()
    """These come whole, and their sound is digital silence."""
    broken_arguments: tuple[int, ...] = ()
    """The tool calls of these have arguments that are no JSON."""
    two_messages: tuple[int, ...] = ()
    """These speak their text as two messages, a preamble and a final answer."""
    speed: float | None = None
    """Audio comes so many times as fast as it plays; below 1 the caller hears gaps."""
    late_deltas: int = 0
    """So many audio deltas still come after a cancelled response's `response.done`."""
    transcription: str | None = None
    """`missing`, `failed`, or `swapped`: each second one waits until the next has come."""
    transcription_ms: int | None = None
    """How late transcripts come."""
    unknown: bool = False
    """Unknown events and fields between the others."""
    forget_event_ids: bool = False
    """Errors do not say whose message they answer."""
    lasts_s: int | None = None
    """`expires_at` says that the session lasts so long; it need not be true."""
    expire_ms: int | None = None
    """The session expires after so long: session_expired, and close 1001."""

    @classmethod
    def read(cls, script: Mapping[str, Any]) -> Self:
        """From JSON. Raises BadScript for a word that is not known, or a value of another kind."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(script) - known):
            raise BadScript(f"{', '.join(unknown)} (known: {', '.join(sorted(known))})")
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in script.items()}
        for name in ("fail", "incomplete", "silent", "hush", "broken_arguments", "two_messages"):
            if isinstance(values.get(name), int):
                values[name] = (values[name],)
            if not all(isinstance(number, int) for number in values.get(name, ())):
                raise BadScript(f"{name} is a list of responses' numbers")
        if values.get("transcription") not in (None, "missing", "failed", "swapped"):
            raise BadScript("transcription is missing, failed or swapped")
        drop_at = values.get("drop_at")
        if drop_at is not None and [type(part) for part in drop_at] != [str, int]:
            raise BadScript("drop_at is a kind of event and a number")
        return cls(**values)


def scripts(text: str | None, connection: int) -> Misbehaviour:
    """The script of the nth connection (from 0): of a JSON object, which holds for all, or of a list, in which null and what is
    beyond the end mean none. `@file` is read anew for each connection. Raises BadScript."""
    if not text:
        return Misbehaviour()
    try:
        content = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (ValueError, OSError) as fault:
        raise BadScript(type(fault).__name__) from None
    if isinstance(content, list):
        content = content[connection] if connection < len(content) else None
    if content is None:
        return Misbehaviour()
    if not isinstance(content, dict):
        raise BadScript("it is no JSON object")
    return Misbehaviour.read(content)
