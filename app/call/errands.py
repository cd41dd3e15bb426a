"""Tool calls out and back: which are out, and which have been answered. (Being written.)"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrandContext:
    """What an errand may know of the call it runs for: the server's state, never the model's word."""

    call_id: str
    epoch: int
    agent: str
    caller_number: str | None = field(repr=False)
    slots: Mapping[str, str] = field(repr=False)
