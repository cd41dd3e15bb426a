"""What the caller said, in writing: sent apart from the answer, late, and by script not at all, failed or out of order."""

from collections.abc import Callable
from typing import Any

from app.rehearsal.realtime_faults import Misbehaviour
from app.rehearsal.realtime_items import Item

LATE_MS = 250

_KIND = "conversation.item.input_audio_transcription"
_FAULT = {
    "type": "transcription_error",
    "code": "audio_unintelligible",
    "message": "The audio could not be transcribed.",
    "param": None,
}


class Transcripts:
    """One session's. `later` makes a call after so many seconds."""

    def __init__(
        self,
        emit: Callable[[dict[str, Any]], None],
        later: Callable[[float, Callable[[], None]], object],
        script: Misbehaviour,
    ) -> None:
        self._emit, self._later, self._script = emit, later, script
        self._held: tuple[Item, str] | None = None

    def write(self, item: Item, model: str) -> None:
        """The caller's item is to be transcribed by this model."""
        if self._script.transcription == "missing":
            return
        late_ms = LATE_MS if self._script.transcription_ms is None else self._script.transcription_ms
        self._later(late_ms / 1_000, lambda: self._due(item, model))

    def _due(self, item: Item, model: str) -> None:
        if self._script.transcription != "swapped":
            self._send(item, model)
        elif self._held is None:
            self._held = item, model
        else:
            held, self._held = self._held, None
            self._send(item, model)
            self._send(*held)

    def _send(self, item: Item, model: str) -> None:
        place = {"item_id": item.id, "content_index": 0}
        if self._script.transcription == "failed":
            self._emit({"type": f"{_KIND}.failed", **place, "error": _FAULT})
            return
        text = (item.heard or "")[:1].upper() + (item.heard or "")[1:]
        item.wire["content"][0]["transcript"] = text
        if text:
            self._emit({"type": f"{_KIND}.delta", **place, "delta": text})
        self._emit({"type": f"{_KIND}.completed", **place, "transcript": text, "usage": _usage(item.heard_ms, text, model)})


def _usage(heard_ms: int, text: str, model: str) -> dict[str, Any]:
    """The models of the 4o family count tokens, the others seconds."""
    if "4o" not in model:
        return {"type": "duration", "seconds": round(heard_ms / 1_000, 1)}
    audio, words = -(-heard_ms // 100), -(-len(text) // 4)
    return {
        "type": "tokens",
        "total_tokens": audio + words,
        "input_tokens": audio,
        "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
        "output_tokens": words,
    }
