"""`callrow user ...`: accounts of the console from the command line."""

import asyncio

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from app.cli import main
from app.cli.users import demo_user
from app.store.audit import AuditLog
from app.store.console_tables import Role, SignedInBy
from app.store.engine import Database
from app.store.house_tables import audit_log
from app.store.users import Users

WORDS = "four words in a row"


@pytest.fixture
def user(clean, sqlite_url):
    """Run `callrow user ...`; `typed` is standard input."""

    def run(*arguments, typed=None, code=0):
        result = CliRunner().invoke(main, ["user", *arguments], input=typed, env={"DATABASE_URL": sqlite_url})
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


def ask(url, work):
    async def with_database():
        database = Database(url)
        try:
            return await work(Users(database), database)
        finally:
            await database.close()

    return asyncio.run(with_database())


def audit(url):
    async def lines(_users, database):
        assert (await AuditLog(database).verify()).broken_at is None
        async with database.read() as connection:
            found = await connection.execute(sa.select(audit_log).order_by(audit_log.c.seq))
            return [(line.action, line.subject, line.details) for line in found if line.actor.startswith("cli:")]

    return ask(url, lines)


def test_a_password_is_asked_for_twice_and_shown_nowhere(user, sqlite_url):
    result = user("add", "Ann", "--role", "admin", typed=f"{WORDS}\n{WORDS}\n")
    assert result.stdout == "ann may sign in to the console as admin\n"
    assert WORDS not in result.output
    assert ask(sqlite_url, lambda users, _: users.check("ann", WORDS)).role is Role.ADMIN
    assert audit(sqlite_url) == [("user.added", "ann", {"role": "admin"})]


def test_two_that_are_not_the_same_are_asked_for_again(user, sqlite_url):
    user("add", "ann", "--role", "operator", typed=f"{WORDS}\nsomething else\n{WORDS}\n{WORDS}\n")
    assert ask(sqlite_url, lambda users, _: users.check("ann", WORDS))


def test_a_password_comes_from_standard_input(user, sqlite_url):
    user("add", "ann", "--role", "reviewer", "--password-stdin", typed=f"{WORDS}\n")
    assert ask(sqlite_url, lambda users, _: users.check("ann", WORDS))


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (("add", "a b", "--role", "admin", "--password-stdin"), WORDS, "a name has at most 100 letters"),
        (("add", "bob", "--role", "admin", "--password-stdin"), "short", "a password has at least 12 characters"),
        (("add", "ann", "--role", "admin", "--password-stdin"), WORDS, "there is an account ann already"),
        (("role", "nobody", "admin"), None, "there is no account nobody"),
        (("password", "nobody"), None, "there is no account nobody"),
        (("disable", "ann"), None, "this is the last admin"),
        (("role", "ann", "operator"), None, "this is the last admin"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(user, sqlite_url, arguments, typed, said):
    user("add", "ann", "--role", "admin", "--password-stdin", typed=WORDS)
    before = audit(sqlite_url)
    result = user(*arguments, typed=typed, code=1)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert audit(sqlite_url) == before


def test_an_unknown_role_is_bad_input(user):
    assert "owner" in user("add", "ann", "--role", "owner", code=2).stderr


def test_the_list_says_who_may_do_what_and_how_they_sign_in(user, sqlite_url):
    assert "there is no account yet" in user("list").stderr
    user("add", "ann", "--role", "admin", "--password-stdin", typed=WORDS)
    user("add", "bob", "--role", "operator", "--no-password", "--email", "bob@example.com")
    user("add", "carol", "--role", "reviewer", "--password-stdin", typed=WORDS)
    user("disable", "carol")
    ann, bob, carol = user("list").stdout.splitlines()
    assert ann.split()[:3] == ["ann", "admin", "password"]
    assert ann.endswith("never signed in")
    assert "no way to sign in yet" in bob
    assert "disabled 20" in carol
    assert WORDS not in user("list").output


def test_a_role_a_password_and_an_account_are_changed(user, sqlite_url):
    user("add", "root", "--role", "admin", "--password-stdin", typed=WORDS)
    user("add", "ann", "--role", "operator", "--password-stdin", typed=WORDS)
    user("role", "ann", "reviewer")

    async def sign_in(users, _):
        found = await users.find("ann")
        return [(await users.begin(found.id, SignedInBy.PASSWORD))[0] for _ in range(2)]

    tokens = ask(sqlite_url, sign_in)
    assert "sessions ended: 2" in user("password", "ann", "--password-stdin", typed="another four words\n").stdout
    assert ask(sqlite_url, lambda users, _: users.session(tokens[0])) is None
    assert ask(sqlite_url, lambda users, _: users.check("ann", "another four words")).role is Role.REVIEWER
    ask(sqlite_url, sign_in)
    assert user("sign-out", "ann").stdout == "sessions ended: 2\n"
    user("disable", "ann")
    assert ask(sqlite_url, lambda users, _: users.check("ann", "another four words")) is None
    user("disable", "ann", "--undo")
    assert ask(sqlite_url, lambda users, _: users.check("ann", "another four words"))
    assert [line[0] for line in audit(sqlite_url)] == [
        *("user.added", "user.added", "user.role_changed", "password.changed", "session.ended", "user.disabled", "user.enabled")
    ]
    assert audit(sqlite_url)[2][2] == {"from": "operator", "to": "reviewer"}


async def test_a_rehearsal_has_an_admin_with_a_new_password_each_time(sqlite_url):
    database = Database(sqlite_url)
    users = Users(database)
    name, first = await demo_user(database)
    assert (await users.check(name, first)).role is Role.ADMIN
    again, second = await demo_user(database)
    assert again == name
    assert first != second
    assert await users.check(name, first) is None
    assert await users.check(name, second)
    await database.close()
