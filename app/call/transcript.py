"""Who said what, and what of it was heard.

Rule 1: an agent's words are heard when their audio was acknowledged; the rest is kept apart, as unheard.
Rule 2: a caller's utterance stands in the transcript from the moment it is committed; its words may come much later, or never.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from app.call.disposition import Utterance
from app.call.playout import BYTES_PER_MS
from app.call.words import split_heard


@dataclass(slots=True)
class _Speech:
    """An utterance of the agent, as it grows."""

    agent: str
    response: str
    began: int
    text: list[str] = field(default_factory=list)
    generated: int = 0  # bytes of line audio, the dropped ones included
    complete: bool = False
    cut_at: int | None = None
    heard: int = 0  # bytes, known once it was cut
    unspoken: str = ""  # text without audio, known once it was broken off
    silent: bool = True  # nothing of it has sounded: then its words were not heard, however long it played


class Transcript:
    """The utterances of one stream."""

    def __init__(self) -> None:
        self._speech: dict[str, _Speech] = {}
        self._caller: dict[str, Utterance] = {}

    # ---- the agent

    def generated(self, utterance: str, *, response: str, agent: str, size: int, at: int, silent: bool = False) -> None:
        """More of an utterance's audio was generated, played or not; `silent`: and still nothing sounds."""
        speech = self._speech.get(utterance)
        if speech is None:
            speech = self._speech[utterance] = _Speech(agent, response, at)
        speech.generated += size
        speech.silent = speech.silent and silent

    def worded(self, utterance: str, text: str, *, response: str, agent: str, at: int) -> None:
        """More of an utterance's text was generated; text may come before its audio."""
        if utterance not in self._speech:
            self._speech[utterance] = _Speech(agent, response, at)
        self._speech[utterance].text.append(text)

    def completed(self, utterance: str) -> None:
        """All of the utterance's audio was generated."""
        if utterance in self._speech:
            self._speech[utterance].complete = True

    def heard_whole(self, utterance: str, *, heard: int, at: int) -> Utterance | None:
        """The caller heard the utterance to its end: what goes to the transcript, once."""
        speech = self._speech.get(utterance)
        if speech is None or not speech.complete or heard < speech.generated or speech.cut_at is not None:
            return None
        speech.heard = heard
        return self._utterance(utterance, speech, ended=at)

    def cut(self, utterance: str, *, heard: int, at: int) -> Utterance | None:
        """The utterance was thrown out of the queue after `heard` bytes."""
        speech = self._speech.get(utterance)
        if speech is None or speech.cut_at is not None:
            return None
        speech.cut_at, speech.heard = at, heard
        return self._utterance(utterance, speech, ended=at)

    def never_played(self, response: str, *, at: int) -> list[Utterance]:
        """Utterances of a response that ended: those cut, now that their whole text is known, and those that had only text."""
        ended = []
        for key, speech in self._speech.items():
            if speech.response == response and (speech.cut_at is not None or not speech.generated) and speech.text:
                speech.cut_at = speech.cut_at if speech.cut_at is not None else at
                ended.append(self._utterance(key, speech, ended=speech.cut_at))
        return ended

    def unplayed(self, response: str, played: Collection[str]) -> list[str]:
        """The utterances of a response that had audio of which nothing was queued, since the response had been cut."""
        return [
            key
            for key, speech in self._speech.items()
            if speech.response == response and speech.generated and speech.cut_at is None and key not in played
        ]

    def break_off(self, played: Collection[str], *, at: int) -> tuple[list[str], list[Utterance]]:
        """The session is gone: nothing more of any utterance will come.

        Returns:
            Those that end here, with the text that there is sound of; and those of which nothing was queued.
        """
        ended, unheard = [], []
        for key, speech in self._speech.items():
            if speech.cut_at is not None:
                continue
            if key not in played:
                speech.cut_at = at
                unheard.append(self._utterance(key, speech, ended=at))
            elif not speech.complete:
                spoken, speech.unspoken = self._with_sound(speech)
                speech.text, speech.complete = [spoken], True
                ended.append(key)
        return ended, unheard

    def said(self, key: str) -> tuple[bool, str, bool] | None:
        """Whether it was the caller, the words (of the agent's, those that there is sound of), and whether they were cut."""
        if (caller := self._caller.get(key)) is not None:
            return (True, caller.heard, False) if caller.heard else None
        if (speech := self._speech.get(key)) is None or speech.silent:
            return None
        cut = speech.cut_at is not None
        text = (self._utterance(key, speech, ended=0).heard or "") if cut else self._with_sound(speech)[0].strip()
        return (False, text, cut) if text else None

    def says(self, response: str) -> bool:
        """There is sound of at least a word of this response."""
        return any(speech.response == response and self.said(key) is not None for key, speech in self._speech.items())

    def _with_sound(self, speech: _Speech) -> tuple[str, str]:
        generated_ms = speech.generated // BYTES_PER_MS
        return split_heard("".join(speech.text), heard_ms=generated_ms, generated_ms=generated_ms, complete=speech.complete)

    def _utterance(self, key: str, speech: _Speech, *, ended: int) -> Utterance:
        cut = speech.cut_at is not None
        heard_ms, generated_ms = speech.heard // BYTES_PER_MS, speech.generated // BYTES_PER_MS
        text = "".join(speech.text).strip()
        if speech.silent:
            heard, unheard = "", text
        elif cut:
            heard, unheard = split_heard(text, heard_ms=heard_ms, generated_ms=generated_ms, complete=speech.complete)
        else:
            heard, unheard = text, ""
        return Utterance(
            key=key,
            speaker="agent",
            agent=speech.agent,
            started_at=max(0, ended - heard_ms) if heard_ms else min(ended, speech.began),  # sound plays in real time
            ended_at=ended,
            heard=heard,
            unheard=f"{unheard}{speech.unspoken}".strip() or None,
            heard_ms=heard_ms,
            generated_ms=generated_ms,
            interrupted=cut,
        )

    # ---- the caller

    def committed(self, utterance: str, *, began: int, ended: int) -> Utterance:
        """The caller's utterance became a part of the conversation; its words are still to come."""
        known = self._caller.get(utterance)
        text = known.heard if known else None
        self._caller[utterance] = Utterance(key=utterance, speaker="caller", started_at=began, ended_at=ended, heard=text)
        return self._caller[utterance]

    def transcribed(self, utterance: str, text: str, *, at: int) -> Utterance:
        """The caller's words are here."""
        known = self._caller.get(utterance) or Utterance(key=utterance, speaker="caller", started_at=at, ended_at=at)
        self._caller[utterance] = replace(known, heard=text.strip())
        return self._caller[utterance]

    def pressed(self, key: str, text: str, *, at: int) -> Utterance:
        """The caller typed on the keypad; `text` is masked."""
        self._caller[key] = Utterance(key=key, speaker="caller", started_at=at, ended_at=at, heard=text)
        return self._caller[key]

    def untranscribed(self, utterance: str) -> Utterance | None:
        """The caller's words will not come."""
        known = self._caller.get(utterance)
        if known is None or known.heard is not None:
            return None
        self._caller[utterance] = replace(known, untranscribed=True)
        return self._caller[utterance]

    @property
    def last_caller(self) -> str | None:
        """The caller's newest utterance."""
        return next(reversed(self._caller), None)

    @property
    def waiting(self) -> list[str]:
        """The caller's utterances whose words have neither come nor been given up."""
        return [key for key, utterance in self._caller.items() if utterance.heard is None and not utterance.untranscribed]
