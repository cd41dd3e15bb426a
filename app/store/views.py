"""The call list as somebody wants it: views that were saved, one's own and those of others who share them, and the columns.

Rule 1: whose view it is, is asked in the statement itself: what is not theirs is not changed, and answered like what is not there.
Rule 2: a view is a query as it stands in the list's address. It may hold words that somebody looked for, and so is `Private`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from app.errors import OurFault
from app.store.console_tables import preferences, saved_views, users
from app.store.engine import Database
from app.store.facts import utc_now
from app.store.identity import new_call_id

LONGEST_NAME = 60
LONGEST_QUERY = 2_000
MOST_VIEWS = 50
"""Of one owner: they stand above the list."""


class BadView(OurFault):
    """A view cannot be kept like that. `why` is a sentence for whoever wants it."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A list that was saved under a name."""

    id: str
    owner_id: str
    owner: str
    """The owner's name."""
    name: str
    query: str = field(repr=False)
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Desktop:
    """All that somebody has arranged for themselves."""

    views: tuple[View, ...]
    """One's own by name, then those that others share."""
    columns: tuple[str, ...] | None
    """None: as they come."""
    default: View | None
    """What the list begins with. A view that is no longer shared is none."""


class Views:
    """All saved views of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database, self._clock = database, clock

    async def of(self, user_id: str) -> Desktop:
        """What a user sees."""
        named = sa.select(saved_views, users.c.name.label("owner")).join_from(saved_views, users)
        visible = named.where((saved_views.c.owner_id == user_id) | saved_views.c.shared.is_(sa.true()))
        chosen = sa.select(preferences.c.columns, preferences.c.default_view_id).where(preferences.c.user_id == user_id)
        async with self._database.read("read somebody's views") as connection:
            rows = (await connection.execute(visible)).mappings().all()
            mine = (await connection.execute(chosen)).one_or_none()
        views = [View(**{name: row[name] for name in ("id", "owner_id", "owner", "name", "query", "shared")}) for row in rows]
        views.sort(key=lambda view: (view.owner_id != user_id, view.name.casefold(), view.owner))
        columns, default = (None, None) if mine is None else mine
        return Desktop(
            views=tuple(views),
            columns=None if columns is None else tuple(columns),
            default=next((view for view in views if view.id == default), None),
        )

    async def save(self, owner_id: str, name: str, query: str, *, shared: bool = False) -> str:
        """Keep a view and give its id; one of that name, of the same owner, is replaced.

        Raises:
            BadView: it has no name, or is too long, or they have too many.
        """
        name, query, now = _name(name), _query(query), self._clock()
        row = {"id": new_call_id(now), "owner_id": owner_id, "name": name, "query": query, "shared": shared}
        insert = self._database.insert(saved_views).values(row | {"created_at": now, "updated_at": now})
        new = {"query": query, "shared": shared, "updated_at": now}
        kept = insert.on_conflict_do_update(index_elements=["owner_id", "name"], set_=new).returning(saved_views.c.id)
        mine = sa.select(sa.func.count()).select_from(saved_views).where(saved_views.c.owner_id == owner_id)
        async with self._database.write("save a view") as connection:
            kept_id = str((await connection.execute(kept)).scalar_one())
            if (await connection.execute(mine)).scalar_one() > MOST_VIEWS:
                raise BadView(f"You have {MOST_VIEWS} views. Delete one that you no longer need.")
        return kept_id

    async def change(self, view_id: str, owner_id: str, *, name: str, shared: bool) -> bool:
        """Give a view another name, and share it or not. False: they have no such view.

        Raises:
            BadView: it has no name, or they have another of that name.
        """
        name = _name(name)
        mine = (saved_views.c.id == view_id) & (saved_views.c.owner_id == owner_id)
        update = sa.update(saved_views).where(mine).values(name=name, shared=shared, updated_at=self._clock())
        same = sa.select(saved_views.c.id).where(
            saved_views.c.owner_id == owner_id, saved_views.c.name == name, saved_views.c.id != view_id
        )
        try:
            async with self._database.write("change a view") as connection:
                if (await connection.execute(same)).first() is not None:
                    raise BadView("You have another view of that name.")
                return (await connection.execute(update)).rowcount == 1
        except sa.exc.IntegrityError:  # on PostgreSQL somebody was quicker
            raise BadView("You have another view of that name.") from None

    async def delete(self, view_id: str, owner_id: str | None) -> bool:
        """Delete a view; whoever began with it begins with all calls. `owner_id` None: whoever's it is, if it is shared.
        False: there is no such view.
        """
        whose = saved_views.c.shared.is_(sa.true()) if owner_id is None else saved_views.c.owner_id == owner_id
        async with self._database.write("delete a view") as connection:
            return (await connection.execute(sa.delete(saved_views).where(saved_views.c.id == view_id, whose))).rowcount == 1

    async def begin_with(self, user_id: str, view_id: str | None) -> bool:
        """The list begins with this view from now on; None: with all calls. False: they see no such view."""
        visible = sa.select(saved_views.c.id).where(
            saved_views.c.id == view_id, (saved_views.c.owner_id == user_id) | saved_views.c.shared.is_(sa.true())
        )
        async with self._database.write("choose a view") as connection:
            if view_id is not None and (await connection.execute(visible)).first() is None:
                return False
            await connection.execute(self._preference(user_id, default_view_id=view_id))
        return True

    async def show_columns(self, user_id: str, columns: Sequence[str] | None) -> None:
        """The columns that somebody wants to see, in that order; None: as they come."""
        async with self._database.write("choose columns") as connection:
            await connection.execute(self._preference(user_id, columns=None if columns is None else list(columns)))

    def _preference(self, user_id: str, **chosen: object) -> sa.Executable:
        insert = self._database.insert(preferences).values(user_id=user_id, **chosen)
        return insert.on_conflict_do_update(index_elements=["user_id"], set_=chosen)


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise BadView("A view needs a name.")
    if len(name) > LONGEST_NAME:
        raise BadView(f"A name has at most {LONGEST_NAME} letters.")
    return name


def _query(query: str) -> str:
    if len(query) > LONGEST_QUERY:
        raise BadView("There is too much in this view to keep it.")
    return query
