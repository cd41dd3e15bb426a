"""The one place where words are looked for: in what was said and heard, and in the summary.

Rule 1: a call is found by whole words, all of them, in any order and in any case; accents, apostrophes and the 's of a name do not
count. There is no search by a part of a word and none for phrases: that would need the text itself, and with a key it is sealed.
Rule 2: kept is not the word but its `BlindWord`, alike with a key and without. With a key a copy of the database tells in how many
calls the same unknown word occurs, and no more. The commonest words, by which one would guess the others, are not kept.
Rule 3: a call is in here when its row is finished. `index_call` may be called again and again: what is in here afterwards is what
the call's texts have in them now.
Rule 4: a word of another key is never found. After a key has been set, `index_again` must run over the old calls.
"""

import re
import unicodedata
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import Database
from app.store.private import BlindWord
from app.store.tables import RowState, calls, search_tokens, utterances

MOST_WORDS = 12
"""Of a question; the rest is not looked at."""
FEW = 4_000
"""Calls that have a word: up to so many it is rare. There the two ways of `matching` cost about the same in a million calls."""

_NOT_KEPT = """
a about all am an and any are as at be because been but by can could did do does for from get go going got had has have he her here
hi him his how i id if ill im in is isnt it its ive just know let like me my now of oh ok okay on one or our out please really right
say see she should so some sure than thank thanks that the their them then there these they this to too uh um up us very want was we
well were what when where which who will with would yeah yes you your youre
"""
COMMON = frozenset(_NOT_KEPT.split())
"""English words that are in nearly every call, so that nobody looks for them. They would be a third of what is kept."""
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
POSSESSIVE = re.compile("['’]s$")
ACCENT = re.compile("[\u0300-\u036f]")
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]+")
"""Scripts that write no space between words: there every pair of neighbours is a word."""


def words(text: str) -> tuple[str, ...]:
    """The words by which a text is found, each once, in order. Empty: there is none in it that is kept."""
    plain = unicodedata.normalize("NFKC", ACCENT.sub("", unicodedata.normalize("NFKD", text.casefold())))
    found = (part for match in WORD.finditer(plain) for part in _parts(match[0]))
    return tuple(dict.fromkeys(word for word in found if word not in COMMON))


def _parts(word: str) -> list[str]:
    word = POSSESSIVE.sub("", word).replace("'", "").replace("’", "")
    if not UNSPACED.search(word):
        return [word]
    spaced = [part for part in UNSPACED.split(word) if part]
    return [*spaced, *(run[at : at + 2] for run in UNSPACED.findall(word) for at in range(max(1, len(run) - 1)))]


async def index_call(connection: AsyncConnection, call_id: str, texts: Iterable[str | None] | None = None) -> None:
    """Make a call findable by the words of its texts and by no others (rule 3), within the caller's transaction.

    `texts` are read from the tables if they are not given: all that was heard, and the summary. The call's row must be there.
    """
    given = await texts_of(connection, call_id) if texts is None else texts
    blind, dialect = BlindWord(), connection.dialect
    wanted = {blind.kept(word, dialect) for text in given if text for word in words(text)}
    begun = (await connection.execute(sa.select(calls.c.started_at).where(calls.c.call_id == call_id))).scalar_one()
    mine = search_tokens.c.call_id == call_id
    kept = set((await connection.execute(sa.select(search_tokens.c.token).where(mine))).scalars())
    if kept - wanted:
        gone = (search_tokens.c.token == sa.bindparam("gone")) & (search_tokens.c.started_at == begun) & mine
        await connection.execute(sa.delete(search_tokens).where(gone), [{"gone": token} for token in kept - wanted])
    if wanted - kept:
        insert = sqlite.insert(search_tokens) if dialect.name == "sqlite" else postgresql.insert(search_tokens)
        await connection.execute(
            insert.on_conflict_do_nothing(),
            [{"token": token, "started_at": begun, "call_id": call_id} for token in sorted(wanted - kept)],
        )


async def texts_of(connection: AsyncConnection, call_id: str) -> list[str | None]:
    """Everything of a call that is searched, as it stands."""
    summary = sa.select(calls.c.summary).where(calls.c.call_id == call_id)
    return [*await heard(connection, call_id), *(await connection.execute(summary)).scalars()]


async def heard(connection: AsyncConnection, call_id: str) -> list[str | None]:
    """Everything that was said and heard in a call."""
    query = sa.select(utterances.c.heard).where(utterances.c.call_id == call_id)
    return list((await connection.execute(query)).scalars())


async def index_again(database: Database, *, after: str = "", batch: int = 50) -> AsyncIterator[tuple[str, int]]:
    """Index all finished calls anew, in the order of their names; for calls older than this table, and after a key was set.

    Gives, after each committed batch, the last name and the number of calls: from there it may go on another time.
    """
    while True:
        async with database.write("index the words of calls") as connection:
            following = sa.select(calls.c.call_id).where(calls.c.call_id > after, calls.c.state == RowState.FINAL)
            names = (await connection.execute(following.order_by(calls.c.call_id).limit(batch))).scalars().all()
            for name in names:
                await index_call(connection, name)
        if not names:
            return
        after = names[-1]
        yield after, len(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How to find the calls that have the words: conditions on `calls`, and the columns by which they come in the order of time."""

    where: Sequence[sa.ColumnElement[bool]]
    started_at: sa.ColumnElement[datetime]
    call_id: sa.ColumnElement[str]


async def matching(
    connection: AsyncConnection, text: str, *, since: datetime | None = None, until: datetime | None = None, by_time: bool = True
) -> Found:
    """The calls that have all the words of a text. A text without any word that is kept is found nowhere.

    Asked for by time, the entries of the rarest word are followed: they lie in the order of time, and so the first page is read
    from their beginning however many there are. In another order (`by_time` false) the calls of a rare word are all looked up and
    sorted; for a frequent one the calls are walked in that order, and each is asked for the word.
    """
    asked = words(text)[:MOST_WORDS]
    by_rarity = sorted([(await _calls_with(connection, word), word) for word in asked])
    if not by_rarity or by_rarity[0][0] == 0:
        return Found(where=[sa.false()], started_at=calls.c.started_at, call_id=calls.c.call_id)
    (fewest, rarest), *others = by_rarity
    if not by_time and fewest > FEW:
        # OFFSET 0 keeps the planner from turning this around
        walked = [sa.exists(_has(word, calls).offset(sa.literal_column("0"))) for _, word in by_rarity]
        return Found(where=walked, started_at=calls.c.started_at, call_id=calls.c.call_id)
    entry = search_tokens.alias()
    where: list[sa.ColumnElement[bool]] = [entry.c.token == rarest, *(sa.exists(_has(word, entry)) for _, word in others)]
    where += [entry.c.started_at >= since] if since is not None else []
    where += [entry.c.started_at < until] if until is not None else []
    if not by_time:
        # the limit excludes nothing; it keeps the planner from turning this around and walking all calls
        few = calls.c.call_id.in_(sa.select(entry.c.call_id).where(*where).limit(2 * FEW))
        return Found(where=[few], started_at=calls.c.started_at, call_id=calls.c.call_id)
    return Found(where=[entry.c.call_id == calls.c.call_id, *where], started_at=entry.c.started_at, call_id=entry.c.call_id)


def _has(word: str, of: sa.FromClause) -> sa.Select[Any]:
    token = search_tokens.alias()
    same = (token.c.token == word, token.c.started_at == of.c.started_at, token.c.call_id == of.c.call_id)
    return sa.select(token.c.call_id).where(*same).correlate(of)


async def _calls_with(connection: AsyncConnection, word: str) -> int:
    """In how many calls the word is; `FEW` + 1 for more."""
    return await _count(connection, sa.select(search_tokens.c.call_id).where(search_tokens.c.token == word))


async def at_most(connection: AsyncConnection, which: sa.Select[Any]) -> bool:
    """Whether these are few rows: no more than `FEW`."""
    return await _count(connection, which) <= FEW


async def _count(connection: AsyncConnection, which: sa.Select[Any]) -> int:
    some = which.limit(FEW + 1).subquery()
    return int((await connection.execute(sa.select(sa.func.count()).select_from(some))).scalar_one())
