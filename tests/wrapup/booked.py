"""A pretend carrier whose books hold past calls, served over a real socket, and our rows of the same calls."""

import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.rehearsal import twiml
from app.rehearsal.carrier import Call, CallPlan, Number, Scripted
from app.rehearsal.carrier import Carrier as Peer
from app.rehearsal.carrier_plans import TERMINAL
from app.rehearsal.carrier_verbs import Leg
from app.settings import Settings
from app.store.after_tables import reconciliations
from app.store.calls import Calls
from app.store.engine import Database
from app.store.reconciling import Facts, Reconciling
from app.store.tables import calls as table
from app.twilio.carrier import Carrier
from app.wrapup.gaps import Reconciliation
from app.wrapup.reconcile import Reconciler
from tests.store.shelf import PRICED, Clock, filed, new_call

ACCOUNT, TOKEN = "AC" + "0" * 32, "12345"
PUBLIC = "https://calls.example.com"
OURS, THEIRS = "+15559870000", "+15559879999"
NOW = datetime(2024, 11, 20, 9, 0, tzinfo=UTC)
"""Long past: to the pretend carrier, whose clock is the real one, all of it has been rated."""
NEVER_RATED_MS = 10**12


def settings(api_url: str = "http://127.0.0.1:1", database_url: str = "sqlite:///unused.db") -> Settings:
    return Settings.from_env(environment(api_url, database_url))


def environment(api_url: str, database_url: str) -> dict[str, str]:
    return {
        "PUBLIC_URL": PUBLIC,
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_API_URL": api_url,
        "OPENAI_API_KEY": "sk-x",
        "DATABASE_URL": database_url,
    }


def pretend_carrier(**number: Any) -> Peer:
    ours = Number(phone_number=OURS, **{"voice_url": f"{PUBLIC}/twilio/voice"} | number)
    return Peer(auth_token=TOKEN, account_sid=ACCOUNT, service_url="http://127.0.0.1:1", public_url=PUBLIC, number=ours)


def took_place(
    peer: Peer,
    began: datetime,
    seconds: int | None = 60,
    status: str = "completed",
    *,
    caller: str = "+15551230000",
    number: Number | None = None,
    rated: bool = True,
) -> Call:
    """A call in the carrier's books. `seconds` from answer to end; None for one that was never answered."""
    call = Call(
        Scripted(),
        CallPlan(from_number=caller, rated_after_ms=0 if rated else NEVER_RATED_MS),
        account=peer.account,
        number=number or peer.number,
        origins=peer._origins,
        webhooks=peer._webhooks,
        dice=random.Random(0),
        on_event=lambda event: None,
    )
    call.created, call.status = began, status
    if seconds is not None:
        call.answered_at = began
    if status in TERMINAL:
        call.ended_at = began + timedelta(seconds=seconds or 20)
    peer.calls[call.sid] = call
    return call


def dialled(call: Call, after_s: int, seconds: int | None) -> Leg:
    """A leg that a transfer of this call dialled; `seconds` of talk, None if nobody took it."""
    leg = Leg(call, twiml.Dial(number="+15551230001", action=None), f"CA{secrets.token_hex(16)}")
    leg.created = call.created + timedelta(seconds=after_s)
    leg.status = "no-answer" if seconds is None else "completed"
    leg.answered_at = None if seconds is None else leg.created
    leg.ended_at = leg.created + timedelta(seconds=seconds or 25)
    call.legs.append(leg)
    return leg


class House:
    """The comparison between both, and rows to compare."""

    def __init__(self, database: Database, peer: Peer, carrier: Carrier) -> None:
        self.database, self.peer, self.carrier = database, peer, carrier
        self.clock = Clock()
        self.clock.now = NOW
        self.shelf = Reconciling(database, clock=self.clock)
        self.settings = settings(peer.api_url)

    async def run(self, hours: float = 24, **how: Any) -> Reconciliation:
        reconciler = Reconciler(self.database, self.carrier, self.settings, clock=self.clock)
        return await reconciler.run(self.clock.now - timedelta(hours=hours), self.clock.now, **how)

    def at(self, moment: datetime) -> Calls:
        return Calls(self.database, clock=lambda: moment)

    async def row_of(self, call: Call, *, claimed: bool = True, final: bool = True, status: bool = False, **how: Any) -> str:
        """Our row of a call: finished by its bridge when the call ended, unless `final` is not wanted."""
        calls = self.at(call.created)
        new = new_call(call.sid, account_sid=how.pop("account_sid", ACCOUNT), from_number=call.plan.from_number, to_number=OURS)
        state, _ = await calls.born(new)
        if claimed:
            await calls.claim(state.call_id, 1, worker="w1", stream_sid="MZ1")
        if status:
            await calls.carrier_status(call.sid, call.status, duration_s=call.duration_s)
        if final:
            assert call.ended_at is not None
            ended = {"ended_at": int((call.ended_at - call.created).total_seconds() * 1_000)} | how
            await self.at(call.ended_at).finish(state.call_id, filed(**ended), epoch=None, **PRICED)
        return state.call_id

    async def in_line(self, call: Call) -> str:
        """A row that says what the carrier says."""
        call_id = await self.row_of(call)
        shown = await self.carrier.fetch(call.sid)
        booked = (await self.shelf.by_sid([call.sid]))[call.sid]
        price = None if shown.price is None else float(shown.price)
        facts = Facts(status=shown.status, duration_s=shown.duration_s, price=price, price_unit="USD")
        assert await self.shelf.enter([(booked, facts)]) == {call_id}
        async with self.database.write() as connection:
            await connection.execute(sa.update(table).where(table.c.call_id == call_id).values(reconciled_at=None))
        return call_id

    async def vanished(self, began: datetime, **how: Any) -> str:
        """A row whose call is not in the carrier's books."""
        call = took_place(self.peer, began)
        call_id = await self.row_of(call, **how)
        del self.peer.calls[call.sid]
        return call_id

    async def column(self, call_id: str, *names: str) -> tuple[Any, ...]:
        async with self.database.read() as connection:
            return tuple(
                (await connection.execute(sa.select(*(table.c[it] for it in names)).where(table.c.call_id == call_id))).one()
            )

    async def everything(self) -> list[tuple[Any, ...]]:
        async with self.database.read() as connection:
            rows = await connection.execute(sa.select(table).order_by(table.c.call_id))
            return [tuple(row) for row in rows]

    async def kept(self) -> list[Any]:
        async with self.database.read() as connection:
            return list((await connection.execute(sa.select(reconciliations).order_by(reconciliations.c.id))).mappings())


@asynccontextmanager
async def house(database: Database) -> AsyncIterator[House]:
    async with pretend_carrier() as peer, Carrier(ACCOUNT, TOKEN, peer.api_url) as carrier:
        yield House(database, peer, carrier)


def counts(found: Reconciliation) -> dict[str, tuple[int, int]]:
    """By kind: found, repaired."""
    return {kind.value: (count, found.mended.get(kind, 0)) for kind, count in found.found.items()}
