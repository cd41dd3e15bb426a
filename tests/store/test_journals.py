"""Journals, a piece at a time."""

import pytest

from app.call.journal import Line
from app.store.calls import Calls
from app.store.journals import FIRST, Journals, NotReplayable, compare, streams
from app.store.writer import Writer
from tests.call.test_journal import played
from tests.store.shelf import new_call


async def kept(database, sid, journal):
    """A call with these lines; its name."""
    state, _ = await Calls(database).born(new_call(sid))
    writer = Writer(database)
    for epoch, line in journal:
        writer.put(state.call_id, epoch, line)
    await writer.flush()
    return state.call_id


def line(seq, at):
    return Line(
        seq,
        at,
        "opened" if seq == 1 else "StreamStarted",
        {"n": seq},
        {"said": "x"} if seq % 2 else None,
        "" if seq == 1 else "abcd",
    )


@pytest.fixture
async def call_id(database):
    """Two streams, of 7 and of 5 lines; another call has lines of its own."""
    await kept(database, "CA2", [(1, line(seq, 5)) for seq in range(1, 4)])
    first, second = [(1, line(seq, 10 * seq)) for seq in range(1, 8)], [(2, line(seq, 500 + seq)) for seq in range(1, 6)]
    return await kept(database, "CA1", first + second)


PLACES = [(1, seq) for seq in range(1, 8)] + [(2, seq) for seq in range(1, 6)]


async def test_pages_follow_each_other_over_all_streams_there_and_back(database, call_id):
    journals, place, seen, begun = Journals(database), FIRST, [], []
    while page := await journals.page(call_id, place, 5):
        begun.append(place)
        seen.append([(each["epoch"], each["seq"]) for each in page])
        place = seen[-1][-1]
    assert seen == [PLACES[:5], PLACES[5:10], PLACES[10:]]
    assert [await journals.before(call_id, page[0], 5) for page in seen[1:]] == begun[:2]
    assert await journals.before(call_id, PLACES[0], 5) == FIRST
    assert await journals.page(call_id, (9, 9)) == []


async def test_a_page_holds_what_the_whole_journal_holds(database, call_id):
    whole = await Calls(database).events(call_id)
    page = await Journals(database).page(call_id)
    assert [{name: each[name] for name in whole[0]} for each in page] == whole


async def test_the_streams_of_a_call_and_when_they_were_opened(database, call_id):
    journals = Journals(database)
    found = [(stream.epoch, stream.lines, stream.from_ms, stream.until_ms) for stream in await journals.streams(call_id)]
    assert found == [(1, 7, 10, 70), (2, 5, 501, 505)]
    assert await journals.opened(call_id) == {1: 10, 2: 501}
    assert await journals.streams("nobody") == []
    assert await journals.replayed("nobody") == []


async def test_a_call_is_played_again_stream_by_stream(database):
    journal = played().journal()
    changed = [
        each if each.name != "ModelReady" else Line(each.seq, each.at, each.name, each.data, each.private, "deadbeef")
        for each in journal
    ]
    call_id = await kept(database, "CA3", [(1, each) for each in journal] + [(2, each) for each in changed] + [(3, journal[1])])
    same, other, broken = await Journals(database).replayed(call_id)
    assert (same.same, same.lines, same.differences) == (True, len(journal), ())
    assert [(each.name, each.recorded) for each in other.differences] == [("ModelReady", "deadbeef")]
    assert not other.same
    assert other.at_ms == next(each.at for each in journal if each.name == "ModelReady")
    assert not broken.same
    assert str(broken.fault) == "stream 3 cannot be replayed: the journal does not begin with its opening line"


async def test_a_journal_in_one_piece_is_the_same_journal(database, call_id):
    by_stream = streams(await Calls(database).events(call_id))
    assert {epoch: len(lines) for epoch, lines in by_stream.items()} == {1: 7, 2: 5}
    with pytest.raises(NotReplayable, match="does not have the shape"):
        compare(1, by_stream[1])
