"""Whose fault is it?

* CallrowError
    * OurFault            we broke our own rule: a developer or an admin is needed
        * BadSetting      a setting is missing or wrong
        * BadAgent        an agent file is wrong
    * TheirFault          a peer broke its protocol: skip it, the call lives on
        * BadCarrierMessage
        * BadModelMessage
    * WorldFault          carrier, model, network or database said no
        * CarrierRefused
        * ModelUnavailable
        * StoreUnavailable
        * Fenced          another worker carries this call now; what we were about to do is not ours any more
        * ToolRefused     a tool may not, or cannot, do what it was asked

Rule 1: an error keeps its facts as attributes and makes its sentence in `__str__`.
Rule 2: no error carries what a person said, pressed or is called.
"""


class CallrowError(Exception):
    """The root of all errors that Callrow raises on purpose."""


class OurFault(CallrowError):
    """We broke our own rule."""


class TheirFault(CallrowError):
    """A peer broke its protocol. The call lives on."""


class WorldFault(CallrowError):
    """The carrier, the model, the network or the database said no."""

    retryable = False


class BadSetting(OurFault):
    """One or more settings are missing or wrong; all of them are named at once.

    `complaints` is a list of (setting, what is wrong, how to set it).
    """

    def __init__(self, complaints: list[tuple[str, str, str]]) -> None:
        self.complaints = complaints
        super().__init__(complaints)

    def __str__(self) -> str:
        lines = [f"  {name}: {wrong}\n      {remedy}" for name, wrong, remedy in self.complaints]
        return "the settings are not complete:\n" + "\n".join(lines)


class BadAgent(OurFault):
    """An agent file is wrong. `complaints` is a list of (file, line from 1, what is wrong)."""

    def __init__(self, complaints: list[tuple[str, int, str]]) -> None:
        self.complaints = complaints
        super().__init__(complaints)

    def __str__(self) -> str:
        return "\n".join(f"{file}:{line}: {wrong}" for file, line, wrong in self.complaints)


class BadCarrierMessage(TheirFault):
    """A message on the carrier's socket that we cannot read. Holds its kind, never its content."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)

    def __str__(self) -> str:
        return f"unreadable {self.kind} message from the carrier"


class BadModelMessage(TheirFault):
    """A message on the model's socket that we cannot read. Holds its kind, never its content."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)

    def __str__(self) -> str:
        return f"unreadable {self.kind} message from the model"


class CarrierRefused(WorldFault):
    """The carrier's REST interface answered with an error."""

    def __init__(self, status: int, code: int | None = None) -> None:
        self.status, self.code = status, code
        self.retryable = status in (429, 503)
        super().__init__(status, code)

    def __str__(self) -> str:
        return f"the carrier refused with HTTP {self.status}" + (f", code {self.code}" if self.code else "")


class ModelUnavailable(WorldFault):
    """No session with the model could be had, or it ended.

    `reason` is a short constant such as `refused`, `timeout`, `closed`, `rejected_session`; `code` is the provider's own code.
    """

    def __init__(self, reason: str, code: str | None = None, *, retryable: bool = True) -> None:
        self.reason, self.code, self.retryable = reason, code, retryable
        super().__init__(reason, code)

    def __str__(self) -> str:
        return f"the model is unavailable: {self.reason}" + (f" ({self.code})" if self.code else "")


class StoreUnavailable(WorldFault):
    """The database cannot be reached or is locked. `doing` says what we wanted of it."""

    retryable = True

    def __init__(self, doing: str) -> None:
        self.doing = doing
        super().__init__(doing)

    def __str__(self) -> str:
        return f"the database is unavailable while we {self.doing}"


class Fenced(WorldFault):
    """The call has moved on to a higher epoch; this worker may no longer write or act for it."""

    def __init__(self, call_id: str, epoch: int) -> None:
        self.call_id, self.epoch = call_id, epoch
        super().__init__(call_id, epoch)

    def __str__(self) -> str:
        return f"call {self.call_id} has left epoch {self.epoch}"


class ToolRefused(WorldFault):
    """A tool says no. `reason` is a sentence that the model may read; it holds nothing private."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return self.reason
