"""Accounts, passwords, sessions and the limits of tries, on both databases."""

import asyncio
import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher

from app.store.console_tables import Role, SignedInBy, sessions, users
from app.store.engine import Database
from app.store.limits import Limits, Rate
from app.store.passwords import AT_ONCE, BadPassword, Passwords
from app.store.users import BadAccount, Users
from tests.store.shelf import Clock

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
WORDS = "four words in a row"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf(database: Database, clock: Clock) -> Users:
    return Users(database, passwords=Passwords(QUICK), clock=clock, idle=timedelta(minutes=30), longest=timedelta(hours=12))


async def kept(database, column, name):
    async with database.read() as connection:
        return (await connection.execute(sa.select(column).where(users.c.name == name))).scalar_one()


# ---- accounts


async def test_who_is_added_is_found_by_name_and_by_id(shelf):
    ann = await shelf.add(" Ann ", Role.REVIEWER, password=WORDS, email="Ann@Example.com")
    assert (ann.name, ann.role, ann.email, ann.has_password, ann.has_provider) == (
        "ann",
        Role.REVIEWER,
        "ann@example.com",
        True,
        False,
    )
    assert await shelf.find("ANN") == await shelf.find(ann.id) == ann
    assert await shelf.find("bob") is None
    assert [user.name for user in await shelf.all()] == ["ann"]


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a" * 101, "äpfel", "a/b", "a\nb", "\x00", "'; DROP TABLE users"])
async def test_a_name_that_is_none_is_refused(shelf, name):
    with pytest.raises(BadAccount):
        await shelf.add(name, Role.OPERATOR, password=WORDS)
    assert await shelf.all() == []


async def test_a_name_or_an_address_is_taken_once(shelf):
    await shelf.add("ann", Role.OPERATOR, password=WORDS, email="a@example.com")
    for name, email in (("ANN", None), ("bob", "A@example.com")):
        with pytest.raises(BadAccount):
            await shelf.add(name, Role.OPERATOR, password=WORDS, email=email)
    carl = await shelf.add("carl", Role.OPERATOR)
    with pytest.raises(BadAccount, match="another account"):
        await shelf.change(carl.id, email="a@example.com")
    assert (await shelf.change(carl.id, email="c@example.com")).email == "c@example.com"
    assert (await shelf.change(carl.id, email="")).email is None


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "y" * 40, "ann", "ann12345", "abcabcabcabc", "z" * 201])
async def test_a_password_that_will_not_do_is_refused_with_a_sentence(shelf, password):
    with pytest.raises(BadPassword) as refused:
        await shelf.add("ann", Role.OPERATOR, password=password)
    assert refused.value.why
    assert password == "" or password not in str(refused.value).split()


def test_a_role_includes_those_before_it():
    assert [[one.includes(other) for other in Role] for one in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


async def test_the_last_admin_stays_one(shelf):
    ann, bob = await shelf.add("ann", Role.ADMIN, password=WORDS), await shelf.add("bob", Role.ADMIN, password=WORDS)
    await shelf.disable(bob.id)
    for doing in (shelf.disable(ann.id), shelf.change(ann.id, role=Role.OPERATOR)):
        with pytest.raises(BadAccount, match="last admin"):
            await doing
    assert (await shelf.change(ann.id, role=Role.ADMIN)).role is Role.ADMIN
    await shelf.enable(bob.id)
    assert (await shelf.change(ann.id, role=Role.OPERATOR)).role is Role.OPERATOR


async def test_two_admins_who_disable_each_other_at_once_are_not_both_gone(shelf, database_url, clock):
    ann, bob = await shelf.add("ann", Role.ADMIN, password=WORDS), await shelf.add("bob", Role.ADMIN, password=WORDS)
    second = Database(database_url)
    other = Users(second, passwords=Passwords(QUICK), clock=clock)
    done = await asyncio.gather(shelf.disable(ann.id), other.disable(bob.id), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["BadAccount", "User"]
    await second.close()


async def test_there_is_nothing_to_change_about_nobody(shelf):
    for doing in (
        shelf.change("01NOBODY", role=Role.ADMIN), shelf.disable("01NOBODY"), shelf.enable("01NOBODY"),
        shelf.set_password("01NOBODY", WORDS), shelf.begin("01NOBODY", SignedInBy.PASSWORD),
    ):  # fmt: skip
        with pytest.raises(BadAccount):
            await doing


# ---- passwords


async def test_only_the_right_password_is_right(shelf):
    ann = await shelf.add("ann", Role.OPERATOR, password=WORDS)
    assert (await shelf.check("Ann ", WORDS)).id == ann.id
    for name, password in (("ann", WORDS + " "), ("ann", WORDS.upper()), ("ann", ""), ("bob", WORDS), ("", ""), ("ann\x00", WORDS)):
        assert await shelf.check(name, password) is None, (name, password)


async def test_a_password_means_the_same_however_it_is_typed(shelf):
    await shelf.add("ann", Role.OPERATOR, password="vier Wörter im Café")
    assert await shelf.check("ann", "vier Wo\u0308rter im Cafe\u0301")


async def test_a_very_long_password_is_read_as_far_as_it_could_be_right(shelf):
    longest = "".join(chr(97 + number % 26) for number in range(200))
    await shelf.add("ann", Role.OPERATOR, password=longest)
    assert await shelf.check("ann", longest)
    assert await shelf.check("ann", longest + "!" * 100_000) is None


async def test_the_database_holds_argon2id_and_no_password(shelf, database):
    await shelf.add("ann", Role.OPERATOR, password=WORDS)
    stored = await kept(database, users.c.password_hash, "ann")
    assert stored.startswith("$argon2id$")
    assert WORDS not in stored


async def test_a_hash_of_old_parameters_is_renewed_at_the_next_sign_in(database, clock):
    old = Users(database, passwords=Passwords(QUICK), clock=clock)
    await old.add("ann", Role.OPERATOR, password=WORDS)
    new = Users(database, passwords=Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)), clock=clock)
    assert await new.check("ann", "wrong all the same") is None
    assert "t=1" in await kept(database, users.c.password_hash, "ann")
    assert await new.check("ann", WORDS)
    assert "m=16,t=2" in await kept(database, users.c.password_hash, "ann")
    assert await new.check("ann", WORDS)


class Counting(PasswordHasher):
    """Counts the work that was done, and how much of it at a time."""

    def __init__(self):
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified, self.now, self.most, self.threads = 0, 0, 0, set()
        self._lock = threading.Lock()

    def verify(self, hash, password):
        with self._lock:
            self.verified += 1
            self.now += 1
            self.most = max(self.most, self.now)
            self.threads.add(threading.current_thread())
        time.sleep(0.005)
        try:
            return super().verify(hash, password)
        finally:
            with self._lock:
                self.now -= 1


async def test_a_name_that_there_is_not_costs_the_same_work_as_a_wrong_password(database, clock):
    hasher = Counting()
    shelf = Users(database, passwords=Passwords(hasher), clock=clock)
    await shelf.add("ann", Role.ADMIN, password=WORDS)
    await shelf.add("by-provider", Role.OPERATOR)
    gone = await shelf.add("gone", Role.OPERATOR, password=WORDS)
    await shelf.disable(gone.id)
    for name in ("ann", "nobody", "by-provider", "gone", "not even a name!"):
        before = hasher.verified
        assert await shelf.check(name, "not that password") is None
        assert hasher.verified == before + 1, name
    assert await shelf.check("gone", WORDS) is None


async def test_no_more_than_two_are_computed_at_a_time_and_none_on_the_loop(database, clock):
    hasher = Counting()
    shelf = Users(database, passwords=Passwords(hasher), clock=clock)
    await shelf.add("ann", Role.OPERATOR, password=WORDS)
    found = await asyncio.gather(*(shelf.check("ann", WORDS) for _ in range(12)))
    assert all(found)
    assert hasher.most <= AT_ONCE
    assert threading.current_thread() not in hasher.threads


def test_the_real_parameters_are_those_of_rfc_9106():
    """Its second recommended option (section 4): argon2id, t=3, p=4, 64 MiB."""
    hasher = Passwords()._hasher
    assert (hasher.time_cost, hasher.memory_cost, hasher.parallelism, hasher.type.name) == (3, 65_536, 4, "ID")


# ---- sessions


async def test_a_session_is_found_by_its_word_and_by_nothing_else(shelf, database):
    ann = await shelf.add("ann", Role.OPERATOR, password=WORDS)
    token, begun = await shelf.begin(ann.id, SignedInBy.PASSWORD, browser="Chrome on Linux")
    assert (await shelf.session(token)).id == begun.id
    assert begun.user.last_sign_in_at == begun.created_at
    async with database.read() as connection:
        row = (await connection.execute(sa.select(sessions))).mappings().one()
    assert len(token) >= 43
    assert token not in str(dict(row))
    for other in (begun.id, row["token_hash"], token[:-1], token + "=", "", "\x00", "é", token.swapcase()):
        assert await shelf.session(other) is None, other


async def test_a_session_that_is_not_used_is_over(shelf, clock):
    ann = await shelf.add("ann", Role.OPERATOR, password=WORDS)
    token, _ = await shelf.begin(ann.id, SignedInBy.PASSWORD)
    for _ in range(5):
        clock.pass_(minutes=29)
        assert await shelf.session(token)
    clock.pass_(minutes=29)
    assert await shelf.session(token, use=False)
    clock.pass_(minutes=1)
    assert await shelf.session(token) is None
    assert await shelf.sessions_of(ann.id) == []


async def test_a_session_that_is_old_is_over_however_much_it_is_used(shelf, clock):
    ann = await shelf.add("ann", Role.OPERATOR, password=WORDS)
    token, _ = await shelf.begin(ann.id, SignedInBy.PASSWORD)
    for _ in range(12 * 3 - 1):
        clock.pass_(minutes=20)
        assert await shelf.session(token)
    clock.pass_(minutes=20)
    assert await shelf.session(token) is None


async def test_the_use_of_a_session_is_not_written_at_every_request(shelf, clock):
    ann = await shelf.add("ann", Role.OPERATOR, password=WORDS)
    token, begun = await shelf.begin(ann.id, SignedInBy.PASSWORD)
    clock.pass_(seconds=50)
    await shelf.session(token)
    assert (await shelf.session(token)).seen_at == begun.created_at
    clock.pass_(seconds=50)
    await shelf.session(token)
    assert (await shelf.session(token)).seen_at == clock()


async def test_sessions_are_revoked_one_by_one_or_all(shelf):
    ann, bob = await shelf.add("ann", Role.OPERATOR, password=WORDS), await shelf.add("bob", Role.OPERATOR, password=WORDS)
    begun = [await shelf.begin(ann.id, SignedInBy.PASSWORD) for _ in range(3)]
    others, _ = await shelf.begin(bob.id, SignedInBy.PROVIDER)
    assert not await shelf.end(bob.id, begun[0][1].id)
    assert await shelf.end(ann.id, begun[0][1].id)
    assert not await shelf.end(ann.id, begun[0][1].id)
    assert [await shelf.session(token) is not None for token, _ in begun] == [False, True, True]
    assert await shelf.end_all(ann.id, keep=begun[1][1].id) == 1
    assert [session.id for session in await shelf.sessions_of(ann.id)] == [begun[1][1].id]
    assert await shelf.end_all(ann.id) == 1
    assert await shelf.session(others)


async def test_a_disabled_account_is_signed_out_at_once_and_stays_so(shelf):
    await shelf.add("root", Role.ADMIN, password=WORDS)
    ann = await shelf.add("ann", Role.ADMIN, password=WORDS)
    token, _ = await shelf.begin(ann.id, SignedInBy.PASSWORD)
    assert (await shelf.disable(ann.id)).disabled_at
    assert await shelf.session(token) is None
    assert await shelf.check("ann", WORDS) is None
    with pytest.raises(BadAccount):
        await shelf.begin(ann.id, SignedInBy.PASSWORD)
    assert (await shelf.enable(ann.id)).disabled_at is None
    assert await shelf.session(token) is None
    assert await shelf.check("ann", WORDS)


async def test_a_new_password_ends_every_other_session(shelf):
    ann = await shelf.add("ann", Role.OPERATOR, password=WORDS)
    here, session = await shelf.begin(ann.id, SignedInBy.PASSWORD)
    there, _ = await shelf.begin(ann.id, SignedInBy.PASSWORD)
    assert await shelf.set_password(ann.id, "another four words", keep_session=session.id) == 1
    assert await shelf.session(here)
    assert await shelf.session(there) is None
    assert await shelf.check("ann", WORDS) is None
    assert await shelf.check("ann", "another four words")


async def test_a_role_holds_from_the_next_request_on(shelf):
    await shelf.add("root", Role.ADMIN, password=WORDS)
    ann = await shelf.add("ann", Role.ADMIN, password=WORDS)
    token, _ = await shelf.begin(ann.id, SignedInBy.PASSWORD)
    await shelf.change(ann.id, role=Role.OPERATOR)
    assert (await shelf.session(token)).user.role is Role.OPERATOR


async def test_what_is_over_is_deleted(shelf, database, clock):
    ann = await shelf.add("ann", Role.OPERATOR, password=WORDS)
    await shelf.begin(ann.id, SignedInBy.PASSWORD)
    clock.pass_(minutes=31)
    token, _ = await shelf.begin(ann.id, SignedInBy.PASSWORD)  # beginning one clears away the others
    assert await shelf.forget_ended() == 0
    clock.pass_(minutes=31)
    assert await shelf.forget_ended() == 1
    async with database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(sessions))).scalar_one() == 0
    assert await shelf.session(token) is None


# ---- who the identity provider says it is

AT = {"issuer": "https://id.example", "email": None, "name": "Ann Smith", "new_role": None}


async def of(shelf, subject="s1", **other):
    return await shelf.of_provider(subject=subject, **(AT | other))


async def test_an_account_is_matched_by_address_once_and_by_subject_for_ever(shelf):
    ann = await shelf.add("ann", Role.REVIEWER, password=WORDS, email="ann@example.com")
    assert await of(shelf) is None
    found, new = await of(shelf, email="ANN@example.com")
    assert (found.id, new, found.has_provider) == (ann.id, False, True)
    assert (await of(shelf, email="changed@example.com"))[0].id == ann.id
    # another person at the provider who has got that address since does not get the account
    assert await of(shelf, "s2", email="ann@example.com") is None


async def test_the_same_subject_at_another_provider_is_somebody_else(shelf):
    await shelf.add("ann", Role.OPERATOR, email="ann@example.com")
    assert await of(shelf, email="ann@example.com")
    assert await of(shelf, issuer="https://other.example", email="ann@example.com") is None


async def test_who_is_new_gets_an_account_only_with_a_role(shelf):
    found, new = await of(shelf, new_role=Role.OPERATOR, email="ann@example.com")
    assert (found.name, found.role, found.email, found.has_password, new) == (
        "ann-smith",
        Role.OPERATOR,
        "ann@example.com",
        False,
        True,
    )
    assert await of(shelf, new_role=Role.REVIEWER) == (found, False)
    assert await shelf.check("ann-smith", "") is None


@pytest.mark.parametrize("name", ["admin", "", "../../etc", "a" * 300, "😀", "ADMIN "])
async def test_a_new_account_never_takes_over_one_that_there_is(shelf, name):
    admin = await shelf.add("admin", Role.ADMIN, password=WORDS, email="root@example.com")
    await of(shelf, "first", email="root@example.com")
    found, new = await of(shelf, "second", name=name, email="root@example.com", new_role=Role.OPERATOR)
    assert new
    assert found.id != admin.id
    assert (found.role, found.email) == (Role.OPERATOR, None)


async def test_a_disabled_account_is_not_signed_in_by_the_provider_either(shelf):
    await shelf.add("root", Role.ADMIN, password=WORDS)
    ann = await shelf.add("ann", Role.OPERATOR, email="ann@example.com")
    await of(shelf, email="ann@example.com")
    await shelf.disable(ann.id)
    assert await of(shelf, email="ann@example.com", new_role=Role.OPERATOR) is None


# ---- how often somebody may try

FIVE = Rate(burst=5, every_s=60)


async def test_a_burst_and_then_one_at_a_time(database, clock):
    limits = Limits(database, clock=clock)
    assert [await limits.take("ann", FIVE) for _ in range(5)] == [None] * 5
    assert await limits.take("ann", FIVE) == 60
    assert await limits.take("bob", FIVE) is None
    clock.pass_(seconds=20)
    assert await limits.take("ann", FIVE) == 40
    clock.pass_(seconds=40)
    assert await limits.take("ann", FIVE) is None
    assert await limits.take("ann", FIVE) == 60


async def test_tries_that_are_refused_do_not_make_it_worse(database, clock):
    limits = Limits(database, clock=clock)
    for _ in range(200):
        await limits.take("ann", FIVE)
    assert await limits.take("ann", FIVE) == 60


async def test_the_limit_holds_over_many_processes(database_url, clock):
    stores = [Database(database_url) for _ in range(4)]
    limits = [Limits(store, clock=clock) for store in stores]
    answers = await asyncio.gather(*(limits[number % 4].take("ann", FIVE) for number in range(60)))
    assert answers.count(None) == 5
    for store in stores:
        await store.close()


async def test_a_try_that_was_right_does_not_count(database, clock):
    limits = Limits(database, clock=clock)
    for _ in range(30):
        assert await limits.take("ann", FIVE) is None
        await limits.give_back("ann", FIVE)
    assert [await limits.take("ann", FIVE) for _ in range(6)] == [None] * 5 + [60]
    await limits.give_back("nobody", FIVE)


async def test_what_is_paid_off_is_cleared_and_what_is_not_stays(database, clock):
    limits = Limits(database, clock=clock)
    await limits.take("old", FIVE)
    clock.pass_(seconds=61)
    for _ in range(5):
        await limits.take("ann", FIVE)
    assert await limits.clear() == 1
    assert await limits.take("ann", FIVE) is not None


async def test_nothing_that_was_typed_is_kept(database, clock):
    from app.store.console_tables import sign_in_limits

    limits = Limits(database, clock=clock)
    await limits.take("name:my password by mistake", FIVE)
    await limits.take("name:\ud800", FIVE)
    async with database.read() as connection:
        keys = (await connection.execute(sa.select(sign_in_limits.c.key))).scalars().all()
    assert len(keys) == 2
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)
