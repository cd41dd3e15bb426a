"""What the doors have on their desk: the settings, the book of calls, the switchboard and the papers of the carrier."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Receive, Scope, Send

from app.call.agent import Agent
from app.settings import Settings
from app.store.calls import Calls
from app.twilio.signature import Signatures
from app.twilio.token import StreamTokens
from app.web.admission import Admission


class Switchboard(Protocol):
    """All live calls of this process, as the doors need them."""

    @property
    def live(self) -> int:
        """Calls that have a bridge or a reserved slot here."""

    @property
    def draining(self) -> bool:
        """No new calls; those that are live go on."""

    @property
    def model_available(self) -> bool:
        """Whether the model's provider was reachable of late."""

    def admit(self, call_id: str, epoch: int) -> bool:
        """Keep a slot for a stream of this call, for 60 s. Asked again for the same call it is no second slot. False: full."""

    def release(self, call_id: str) -> None:
        """Give back a slot that was kept and will not be used."""

    def carrier_ended(self, call_id: str, status: str) -> bool:
        """The carrier says that a call is over. True: a live bridge here takes care of its row."""

    def carries(self, call_id: str) -> bool:
        """A bridge here carries this call."""

    def moved_on(self, call_id: str, epoch: int) -> None:
        """This call has gone on to a new epoch: a bridge here of an older one has no say any more."""

    async def media(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one media socket, not yet accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """`clock` tells milliseconds since 1970. `lives_elsewhere` says whether that is the id of another worker than this, that lives;
    None where there is no other.
    """

    settings: Settings
    calls: Calls
    switchboard: Switchboard
    signatures: Signatures
    tokens: StreamTokens = field(repr=False)
    agents: Mapping[str, Agent]
    clock: Callable[[], int]
    admission: Admission
    lives_elsewhere: Callable[[str], Awaitable[bool]] | None = None
