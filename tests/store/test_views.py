"""Saved views and chosen columns, on both databases."""

import pytest
import sqlalchemy as sa

from app.store.console_tables import Role, saved_views
from app.store.engine import Database
from app.store.filters import Filters
from app.store.listing import Listing
from app.store.users import Users
from app.store.views import LONGEST_NAME, LONGEST_QUERY, MOST_VIEWS, BadView, Views
from tests.store.listed import put, row
from tests.store.shelf import CALLER, KEY, Clock


@pytest.fixture
def views(database):
    return Views(database, clock=Clock())


@pytest.fixture
async def ann(database):
    return (await Users(database, clock=Clock()).add("ann", Role.OPERATOR)).id


@pytest.fixture
async def ben(database):
    return (await Users(database, clock=Clock()).add("ben", Role.OPERATOR)).id


async def seen(views, user_id):
    return [(view.owner, view.name, view.query, view.shared) for view in (await views.of(user_id)).views]


async def test_nobody_has_arranged_anything_at_first(views, ann):
    desktop = await views.of(ann)
    assert (desktop.views, desktop.columns, desktop.default) == ((), None, None)


async def test_a_view_is_kept_and_seen_by_its_owner_only(views, ann, ben):
    await views.save(ann, "  Hot   leads ", "score_from=70")
    assert await seen(views, ann) == [("ann", "Hot leads", "score_from=70", False)]
    assert await seen(views, ben) == []


async def test_a_shared_view_is_seen_by_everybody_behind_their_own(views, ann, ben):
    await views.save(ann, "A shared one", "outcome=failed", shared=True)
    await views.save(ben, "zebra", "q=zebra")
    assert [name for _, name, _, _ in await seen(views, ben)] == ["zebra", "A shared one"]
    assert [name for _, name, _, _ in await seen(views, ann)] == ["A shared one"]


async def test_saving_under_the_same_name_replaces_the_view_and_keeps_its_id(views, ann, ben):
    first = await views.save(ann, "Today", "period=today")
    of_ben = await views.save(ben, "Today", "period=7d")
    assert await views.save(ann, "Today", "period=yesterday", shared=True) == first != of_ben
    assert await seen(views, ann) == [("ann", "Today", "period=yesterday", True)]


@pytest.mark.parametrize(
    ("name", "query", "why"),
    [("  ", "", "needs a name"), ("x" * (LONGEST_NAME + 1), "", "at most"), ("x", "q=" + "x" * LONGEST_QUERY, "too much")],
)
async def test_a_view_that_cannot_be_kept_is_refused_with_a_sentence(views, ann, name, query, why):
    with pytest.raises(BadView, match=why):
        await views.save(ann, name, query)
    assert await seen(views, ann) == []


async def test_nobody_keeps_views_without_end(views, ann):
    for number in range(MOST_VIEWS):
        await views.save(ann, f"view {number}", "")
    with pytest.raises(BadView, match="Delete one"):
        await views.save(ann, "one more", "")
    await views.save(ann, "view 7", "period=today")
    assert len((await views.of(ann)).views) == MOST_VIEWS


async def test_the_owner_gives_it_another_name_and_shares_it(views, ann, ben):
    view = await views.save(ann, "old", "q=roof")
    assert await views.change(view, ann, name="new", shared=True)
    assert await seen(views, ben) == [("ann", "new", "q=roof", True)]


async def test_what_is_somebody_elses_is_not_changed_and_not_deleted(views, ann, ben):
    view = await views.save(ann, "mine", "q=roof", shared=True)
    assert not await views.change(view, ben, name="stolen", shared=False)
    assert not await views.delete(view, ben)
    assert await seen(views, ann) == [("ann", "mine", "q=roof", True)]


async def test_two_views_of_one_owner_have_two_names(views, ann):
    await views.save(ann, "one", "")
    other = await views.save(ann, "other", "")
    with pytest.raises(BadView, match="another view"):
        await views.change(other, ann, name="one", shared=False)


async def test_an_admin_may_delete_what_is_shared_and_nothing_else(views, ann):
    private, shared = await views.save(ann, "private", ""), await views.save(ann, "shared", "", shared=True)
    assert not await views.delete(private, None)
    assert await views.delete(shared, None)
    assert [name for _, name, _, _ in await seen(views, ann)] == ["private"]


async def test_the_list_begins_with_the_view_that_was_chosen_as_long_as_it_is_seen(views, ann, ben):
    view = await views.save(ann, "to review", "review=yes", shared=True)
    assert await views.begin_with(ben, view)
    assert (await views.of(ben)).default.query == "review=yes"
    assert (await views.of(ann)).default is None
    await views.change(view, ann, name="to review", shared=False)
    assert (await views.of(ben)).default is None
    await views.change(view, ann, name="to review", shared=True)
    await views.delete(view, ann)
    assert (await views.of(ben)).default is None
    assert await views.begin_with(ben, None)


async def test_nobody_begins_with_what_they_do_not_see(views, ann, ben):
    view = await views.save(ann, "mine", "")
    assert not await views.begin_with(ben, view)
    assert not await views.begin_with(ben, "nothing\x00such")


async def test_columns_are_remembered_in_their_order_beside_the_default_view(views, ann):
    view = await views.save(ann, "mine", "")
    await views.begin_with(ann, view)
    await views.show_columns(ann, ["number", "time"])
    desktop = await views.of(ann)
    assert desktop.columns == ("number", "time")
    assert desktop.default.id == view
    await views.show_columns(ann, None)
    assert (await views.of(ann)).columns is None


async def test_what_somebody_looked_for_is_sealed(database_url):
    database = Database(database_url, KEY)
    try:
        ann = (await Users(database).add("ann", Role.OPERATOR)).id
        await Views(database).save(ann, "mine", "q=garden")
        async with database.read() as connection:
            kept = (await connection.execute(sa.select(sa.type_coerce(saved_views.c.query, sa.Text)))).scalar_one()
        assert "garden" not in kept and kept.startswith("sealed:")
        assert (await Views(database).of(ann)).views[0].query == "q=garden"
    finally:
        await database.close()


async def test_a_number_is_found_by_its_index_and_anything_else_finds_nothing(database):
    (call_id,) = await put(database, row(database))
    index = database.blind_index(CALLER)
    page = await Listing(database).page(Filters(number_index=index))
    assert [row["call_id"] for row in page.rows] == [call_id]
    for nothing in (CALLER, index.upper(), index + "0", "\x00", ""):
        assert (await Listing(database).page(Filters(number_index=nothing))).rows == []
