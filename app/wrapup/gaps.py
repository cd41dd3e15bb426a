"""What a comparison with the carrier finds: kinds of gaps, what a row and the carrier's books say differently, the result. Pure.

Rule: a gap names a call by ids; values are told to people only where they are the carrier's own measures, and never kept.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.store.reconciling import UNKNOWN_TO_CARRIER, Booked, Compared
from app.twilio.carrier import CarrierCall

MAX_LISTED = 200
"""Of each kind, so many gaps are kept by name; beyond that they are counted."""
HALF_A_MILLIONTH = 5e-7


class Kind(StrEnum):
    """What can differ."""

    UNKNOWN_TO_US = "unknown_to_us"
    NEVER_FINISHED = "never_finished"
    UNKNOWN_TO_CARRIER = UNKNOWN_TO_CARRIER
    STATUS_DIFFERS = "status_differs"
    DURATION_DIFFERS = "duration_differs"
    PRICE_MISSING = "price_missing"
    PRICE_DIFFERS = "price_differs"


@dataclass(frozen=True, slots=True)
class Gap:
    """One difference."""

    kind: Kind
    call_id: str | None
    """None for a call that has no row (and got none)."""
    sid: str
    repaired: bool
    about: str = ""
    """For people: the two values, where they may be told."""


@dataclass(slots=True, kw_only=True)
class Reconciliation:
    """What a comparison found."""

    since: datetime
    until: datetime
    repair: bool
    compared: int = 0
    """Calls that stood beside a row of ours."""
    under_way: int = 0
    """Not over, or not long enough (rule 1)."""
    others: int = 0
    """Calls of the account that are not ours."""
    unrated: int = 0
    """The carrier has no price for them (yet), and neither have we."""
    forgotten: int = 0
    """Compared once, and not in the carrier's books any more: it keeps them for a time only."""
    accepted: int = 0
    """Unknown to the carrier, flagged, and seen by a person since."""
    malformed: int = 0
    """Entries of the log that cannot be read."""
    cut_off: bool = False
    """The log was not read to its end; what is not in it was not looked for."""
    found: dict[Kind, int] = field(default_factory=dict)
    mended: dict[Kind, int] = field(default_factory=dict)
    listed: list[Gap] = field(default_factory=list)
    """The gaps by name, at most `MAX_LISTED` of each kind."""

    @property
    def gaps(self) -> int:
        """How many differences there were."""
        return sum(self.found.values())

    @property
    def repaired(self) -> int:
        """How many of them are no more."""
        return sum(self.mended.values())

    @property
    def remaining(self) -> int:
        """The aim is 0."""
        return self.gaps - self.repaired

    def note(self, gap: Gap) -> None:
        """One gap more."""
        self.found[gap.kind] = self.found.get(gap.kind, 0) + 1
        if gap.repaired:
            self.mended[gap.kind] = self.mended.get(gap.kind, 0) + 1
        if self.found[gap.kind] <= MAX_LISTED:
            self.listed.append(gap)

    def as_json(self) -> dict[str, Any]:
        """All of it, for a program."""
        counts = ("compared", "under_way", "others", "unrated", "forgotten", "accepted", "malformed", "cut_off")
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "repair": self.repair,
            **{name: getattr(self, name) for name in counts},
            "gaps": self.gaps,
            "repaired": self.repaired,
            "remaining": self.remaining,
            "kinds": {kind.value: {"found": n, "repaired": self.mended.get(kind, 0)} for kind, n in self.found.items()},
            "listed": [
                {"kind": gap.kind.value, "call_id": gap.call_id, "sid": gap.sid, "repaired": gap.repaired, "about": gap.about}
                for gap in self.listed
            ],
            "not_listed": self.gaps - len(self.listed),
        }

    def kept(self) -> Compared:
        """For the shelf: counts, ids and kinds."""
        gaps = [[gap.kind.value, gap.call_id, gap.sid, gap.repaired] for gap in self.listed]
        left = {name: getattr(self, name) for name in ("under_way", "others", "unrated", "forgotten", "accepted", "malformed")}
        details = {
            **left,
            "cut_off": self.cut_off,
            "found": {kind.value: count for kind, count in self.found.items()},
            "repaired": {kind.value: count for kind, count in self.mended.items()},
            "gaps": gaps,
        }
        counts = {"calls": self.compared, "gaps": self.gaps, "repaired": self.repaired}
        return Compared(since=self.since, until=self.until, details=details, **counts)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the carrier's books say otherwise than the row."""

    kind: Kind
    about: str


def differences(row: Booked, call: CarrierCall) -> list[Difference]:
    """What the carrier's books say of a call that is over, and its row does not. What they do not say differs from nothing."""
    found = []
    if row.carrier_status != call.status:
        found.append(Difference(Kind.STATUS_DIFFERS, f"{row.carrier_status or 'none'} here, {call.status} there"))
    if call.duration_s is not None and row.carrier_duration_s != call.duration_s:
        here = "none" if row.carrier_duration_s is None else f"{row.carrier_duration_s} s"
        found.append(Difference(Kind.DURATION_DIFFERS, f"{here} here, {call.duration_s} s there"))
    if call.price is not None:
        there = f"{call.price} {call.price_unit or ''}".strip()
        if row.carrier_price is None:
            found.append(Difference(Kind.PRICE_MISSING, f"{there} there"))
        elif (
            abs(row.carrier_price - float(call.price)) > HALF_A_MILLIONTH
            or (call.price_unit or row.carrier_price_unit) != row.carrier_price_unit
        ):
            found.append(Difference(Kind.PRICE_DIFFERS, f"{row.carrier_price} {row.carrier_price_unit or ''} here, {there} there"))
    return found
