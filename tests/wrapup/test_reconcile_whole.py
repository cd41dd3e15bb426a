"""A comparison as a whole: at once with another, over many pages and days, with a carrier that goes away; what is kept of it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import WorldFault
from app.rehearsal import carrier_books
from app.rehearsal.carrier import CallPlan
from app.rehearsal.carrier import Carrier as Peer
from app.store.engine import Database
from app.twilio import carrier as carrier_module
from app.twilio.carrier import Carrier, CarrierUnreachable
from app.wrapup import gaps, reconcile
from app.wrapup.reconcile import Reconciler, days
from tests.rehearsal.small_service import Service, serving, twiml
from tests.store.shelf import CALLER
from tests.wrapup import booked
from tests.wrapup.booked import ACCOUNT, NOW, OURS, TOKEN, counts, took_place

HOUR_AGO = NOW - timedelta(hours=1)


@pytest.fixture
async def house(database):
    async with booked.house(database) as opened:
        yield opened


@pytest.fixture
async def lite(sqlite_url):
    """For what is about the carrier's side alone."""
    database = Database(sqlite_url)
    async with booked.house(database) as opened:
        yield opened
    await database.close()


async def test_what_was_found_is_kept_by_ids_and_kinds_alone(house):
    took_place(house.peer, HOUR_AGO)
    await house.vanished(HOUR_AGO)
    await house.in_line(took_place(house.peer, HOUR_AGO))
    found = await house.run()
    [kept] = await house.kept()
    assert (kept["calls"], kept["gaps"], kept["repaired"], kept["at"]) == (1, 2, 1, NOW)
    assert (kept["since_at"], kept["until_at"]) == (NOW - timedelta(hours=24), NOW)
    assert kept["details"]["found"] == {"unknown_to_us": 1, "unknown_to_carrier": 1}
    assert [gap[1:3] for gap in kept["details"]["gaps"]] == [[gap.call_id, gap.sid] for gap in found.listed]
    assert not any(number in json.dumps(kept["details"]) for number in ("+1555", OURS, CALLER))
    at, last = await house.shelf.last()
    assert (at, last.gaps, last.repaired, last.details) == (NOW, 2, 1, kept["details"])


async def test_without_repair_nothing_is_written_anywhere(house):
    took_place(house.peer, HOUR_AGO)
    await house.vanished(HOUR_AGO)
    await house.row_of(took_place(house.peer, HOUR_AGO))
    await house.row_of(took_place(house.peer, HOUR_AGO), final=False)
    await house.in_line(took_place(house.peer, HOUR_AGO))
    before = await house.everything()
    found = await house.run(repair=False)
    assert {kind: repaired for kind, (_, repaired) in counts(found).items()} == dict.fromkeys(
        ("unknown_to_us", "status_differs", "duration_differs", "price_missing", "never_finished", "unknown_to_carrier"), 0
    )
    assert (found.gaps, found.remaining) == (6, 6)
    assert await house.everything() == before
    assert await house.kept() == []


async def test_two_comparisons_at_once_repair_everything_once(house):
    for number in range(8):
        took_place(house.peer, HOUR_AGO + timedelta(seconds=number))
        await house.row_of(took_place(house.peer, HOUR_AGO + timedelta(seconds=number)), status=True)
        await house.row_of(took_place(house.peer, HOUR_AGO + timedelta(seconds=number)), final=False)
    one, two = await asyncio.gather(house.run(), house.run())
    assert one.remaining == two.remaining == 0
    mended = [(gap.kind.value, gap.sid) for gap in one.listed + two.listed]
    assert len(mended) == len(set(mended))
    assert [kind for kind, _ in mended].count("unknown_to_us") == 8
    assert [kind for kind, _ in mended].count("never_finished") == 8
    assert len(await house.everything()) == 24
    assert (await house.run()).gaps == 0


async def test_who_loses_a_race_looks_again_and_finds_nothing_to_do(house, monkeypatch):
    call = took_place(house.peer, HOUR_AGO, rated=False)
    await house.row_of(call)
    enter = house.shelf.enter

    async def too_late(shelf, news):
        await house.at(NOW).carrier_status(call.sid, call.status, duration_s=60)  # the callback comes just now
        return await enter(news)

    monkeypatch.setattr(reconcile.Reconciling, "enter", too_late)
    found = await house.run()
    assert (found.compared, found.gaps) == (1, 0)


async def test_a_long_log_is_read_by_pages_and_days_and_every_call_once(house, monkeypatch):
    monkeypatch.setattr(carrier_module, "CALLS_PER_PAGE", 20)
    monkeypatch.setattr(reconcile, "PAGE", 7)
    for number in range(60):
        began = NOW - timedelta(hours=70) + timedelta(hours=number, seconds=number)
        await house.row_of(took_place(house.peer, began), status=True)
    midnight = NOW.replace(hour=0)
    crossing = took_place(house.peer, midnight - timedelta(seconds=1))
    crossing.answered_at = midnight + timedelta(seconds=1)  # born before midnight, begun after it for the carrier
    await house.row_of(crossing, status=True)
    fetched: list[str] = []
    monkeypatch.setattr(Carrier, "fetch", lambda carrier, sid: fetched.append(sid))
    look, found = await house.run(72, repair=False), await house.run(72)
    assert fetched == []
    for each in (look, found):
        assert (each.compared, each.gaps, each.found) == (61, 61, {gaps.Kind.PRICE_MISSING: 61})
    assert (found.remaining, (await house.run(72)).gaps) == (0, 0)


async def test_a_call_that_the_carrier_began_on_another_day_is_compared_there_and_once(lite):
    late = took_place(lite.peer, NOW.replace(hour=0) - timedelta(minutes=15))
    late.answered_at = NOW.replace(hour=0, minute=15)
    late.ended_at = NOW.replace(hour=0, minute=16)
    await lite.row_of(late, status=True)
    found = await lite.run(repair=False)
    assert (found.compared, counts(found)) == (1, {"price_missing": (1, 0)})
    assert counts(await lite.run(9.2)) == {"price_missing": (1, 1)}  # a window that begins between the two


async def test_a_call_that_is_listed_twice_is_one(lite, monkeypatch):
    took_place(lite.peer, HOUR_AGO)
    entries = carrier_books.entries
    monkeypatch.setattr(carrier_books, "entries", lambda call: [*entries(call)] * 2)
    assert counts(await lite.run(repair=False)) == {"unknown_to_us": (1, 0)}


async def test_beyond_a_number_gaps_are_counted_and_not_named(lite, monkeypatch):
    monkeypatch.setattr(gaps, "MAX_LISTED", 3)
    for number in range(5):
        took_place(lite.peer, HOUR_AGO + timedelta(seconds=number))
    await lite.vanished(HOUR_AGO)
    found = await lite.run()
    assert counts(found) == {"unknown_to_us": (5, 5), "unknown_to_carrier": (1, 0)}
    assert [gap.kind.value for gap in found.listed] == ["unknown_to_us"] * 3 + ["unknown_to_carrier"]
    assert found.as_json()["not_listed"] == 2


async def test_a_log_that_is_not_read_to_its_end_accuses_nobody_and_says_so(lite, monkeypatch):
    monkeypatch.setattr(carrier_module, "CALLS_PER_PAGE", 2)
    monkeypatch.setattr(carrier_module, "MAX_LOG_PAGES", 1)
    for number in range(5):
        await lite.in_line(took_place(lite.peer, HOUR_AGO + timedelta(seconds=number)))
    await lite.vanished(HOUR_AGO)
    found = await lite.run()
    assert found.cut_off
    assert (found.gaps, found.compared) == (0, 2)
    assert (await lite.kept())[0]["details"]["cut_off"] is True


async def test_an_entry_that_nobody_can_read_is_counted_and_its_row_is_asked_for_by_name(lite, monkeypatch):
    good, strange = (took_place(lite.peer, HOUR_AGO) for _ in range(2))
    for call in (good, strange):
        await lite.in_line(call)
    entries = carrier_books.entries

    def some_broken(call):
        yield from ([it | {"start_time": "yesterday"} for it in entries(call)] if call is strange else entries(call))

    monkeypatch.setattr(carrier_books, "asked_for", lambda query: lambda entry: True)
    monkeypatch.setattr(carrier_books, "entries", some_broken)
    found = await lite.run(8)
    assert (found.malformed, found.compared, found.gaps) == (1, 2, 0)


async def test_a_carrier_that_is_away_is_a_sentence_and_nothing_is_written(lite, monkeypatch):
    await lite.row_of(took_place(lite.peer, HOUR_AGO))
    before = await lite.everything()
    monkeypatch.setattr(carrier_module, "FIRST_PAUSE_S", 0.0)
    async with Carrier(ACCOUNT, TOKEN, "http://127.0.0.1:1") as nobody:
        lite.carrier = nobody
        with pytest.raises(CarrierUnreachable, match="the carrier cannot be reached") as away:
            await lite.run()
    assert isinstance(away.value, WorldFault)
    assert await lite.everything() == before
    assert await lite.kept() == []


async def test_when_the_carrier_goes_away_in_the_midst_what_was_repaired_is_whole_and_the_rest_is_for_next_time(lite, monkeypatch):
    monkeypatch.setattr(carrier_module, "CALLS_PER_PAGE", 4)
    monkeypatch.setattr(reconcile, "PAGE", 4)
    for number in range(10):
        took_place(lite.peer, HOUR_AGO + timedelta(seconds=number))
    page = Carrier.page

    async def second_page_fails(carrier, address):
        if "PageToken" in address:
            raise CarrierUnreachable("ReadTimeout", sent=True)
        return await page(carrier, address)

    with monkeypatch.context() as broken:
        broken.setattr(Carrier, "page", second_page_fails)
        with pytest.raises(CarrierUnreachable):
            await lite.run(9)
    assert len(await lite.everything()) == 4
    assert await lite.kept() == []
    found = await lite.run(9)
    assert (counts(found), found.compared) == ({"unknown_to_us": (6, 6)}, 4)


async def test_a_real_call_that_never_reached_us_is_found(database):
    """The pretend carrier calls a service that has no database; afterwards its log is compared with ours."""
    async with (
        serving(Service({"/twilio/voice": [twiml("<Say>We are closed.</Say>")]})) as service,
        Peer(auth_token=TOKEN, account_sid=ACCOUNT, service_url=service.url) as peer,
        Carrier(ACCOUNT, TOKEN, peer.api_url) as carrier,
    ):
        settings = booked.settings(peer.api_url).model_copy(update={"public_url": service.url})
        call = await peer.place(plan=CallPlan(from_number=CALLER, rated_after_ms=0))
        async with asyncio.timeout(60):
            await call.ended()
        later = datetime.now(UTC) + timedelta(minutes=3)
        reconciler = Reconciler(database, carrier, settings, clock=lambda: later)
        found = await reconciler.run(later - timedelta(hours=1), later)
        again = await reconciler.run(later - timedelta(hours=1), later)
    assert (counts(found), again.gaps, again.compared) == ({"unknown_to_us": (1, 1)}, 0, 1)
    [gap] = found.listed
    assert gap.sid == call.sid


async def test_a_window_without_time_is_refused(lite):
    with pytest.raises(ValueError, match="no time between"):
        await lite.run(0)


def test_a_window_is_cut_at_midnight_utc():
    zone = datetime.fromisoformat("2026-11-19T23:30:00+02:00")
    assert list(days(zone, datetime(2026, 11, 21, 1, tzinfo=UTC))) == [
        (datetime(2026, 11, 19, 21, 30, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)),
        (datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)),
        (datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 21, 1, tzinfo=UTC)),
    ]
