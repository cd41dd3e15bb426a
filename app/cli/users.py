"""`callrow user ...`: who may sign in to the console.

Rule 1: a password comes from a prompt that shows nothing, or from standard input; never from an option, which the shell would keep.
Rule 2: every change is a line in the audit log, by `cli:` and the name of whoever is logged in to this machine.
"""

import asyncio
import getpass
import os
import secrets
import sys
from collections.abc import Awaitable, Callable

import click

from app.cli import reading
from app.store.audit import AuditLog
from app.store.console_tables import Role
from app.store.engine import Database
from app.store.passwords import SHORTEST
from app.store.users import BadAccount, User, Users

type Work[T] = Callable[[Users, AuditLog], Awaitable[T]]

ROLE = click.Choice([role.value for role in Role])
DEMO = "demo"


@click.group("user")
def user() -> None:
    """Accounts of the console: add, list, change, disable."""


@user.command()
@click.argument("name")
@click.option("--role", type=ROLE, required=True, help="What they may do; each role includes those before it.")
@click.option("--email", help="Their address at the identity provider, if they sign in by it.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@click.option("--no-password", is_flag=True, help="They sign in by the identity provider only.")
def add(name: str, role: str, email: str | None, password_stdin: bool, no_password: bool) -> None:
    """Add an account. The password is asked for twice."""
    password = None if no_password else _password(password_stdin)

    async def work(users: Users, audit: AuditLog) -> User:
        added = await users.add(name, Role(role), password=password, email=email)
        await audit.append(_actor(), "user.added", added.name, {"role": role})
        return added

    click.echo(f"{_run(work).name} may sign in to the console as {role}")


@user.command("list")
def list_() -> None:
    """List the accounts: name, role, how they sign in, when they last did."""

    async def work(users: Users, _audit: AuditLog) -> list[User]:
        return await users.all()

    found = _run(work)
    widest = max((len(one.name) for one in found), default=0)
    for one in found:
        ways = " and ".join(filter(None, ("password" if one.has_password else "", "provider" if one.has_provider else "")))
        seen = f"last {one.last_sign_in_at:%Y-%m-%d %H:%M} UTC" if one.last_sign_in_at else "never signed in"
        state = f"disabled {one.disabled_at:%Y-%m-%d}" if one.disabled_at else seen
        click.echo(f"{one.name:<{widest}}  {one.role.value:<8}  {ways or 'no way to sign in yet':<21}  {state}")
    if not found:
        click.echo("there is no account yet; add one: callrow user add NAME --role admin", err=True)


@user.command()
@click.argument("name")
@click.argument("new_role", type=ROLE, metavar="ROLE")
def role(name: str, new_role: str) -> None:
    """Give NAME another role, from their next click on."""

    async def work(users: Users, audit: AuditLog) -> None:
        found = await _found(users, name)
        await users.change(found.id, role=Role(new_role))
        await audit.append(_actor(), "user.role_changed", found.name, {"from": found.role.value, "to": new_role})

    _run(work)
    click.echo(f"{name} is {new_role}")


@user.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="Enable the account again.")
def disable(name: str, undo: bool) -> None:
    """Let NAME sign in no more, and end their sessions."""

    async def work(users: Users, audit: AuditLog) -> None:
        found = await _found(users, name)
        await (users.enable if undo else users.disable)(found.id)
        await audit.append(_actor(), "user.enabled" if undo else "user.disabled", found.name)

    _run(work)
    click.echo(f"{name} may sign in again" if undo else f"{name} is disabled and signed out everywhere")


@user.command()
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
def password(name: str, password_stdin: bool) -> None:
    """Set a new password for NAME, and end their sessions."""

    async def look(users: Users, _audit: AuditLog) -> User:
        return await _found(users, name)

    found = _run(look)  # before anybody types a password for nobody
    new = _password(password_stdin)

    async def work(users: Users, audit: AuditLog) -> int:
        ended = await users.set_password(found.id, new)
        await audit.append(_actor(), "password.changed", found.name)
        return ended

    click.echo(f"{name} has a new password; sessions ended: {_run(work)}")


@user.command("sign-out")
@click.argument("name")
def sign_out(name: str) -> None:
    """End every session of NAME."""

    async def work(users: Users, audit: AuditLog) -> int:
        found = await _found(users, name)
        ended = await users.end_all(found.id)
        await audit.append(_actor(), "session.ended", found.name, {"which": "all"})
        return ended

    click.echo(f"sessions ended: {_run(work)}")


async def demo_user(database: Database) -> tuple[str, str]:
    """An admin for trying the console in a rehearsal: name and a password made for this once. A second time it is a new password.

    Raises:
        StoreUnavailable, BadAccount.
    """
    users, audit = Users(database), AuditLog(database)
    word = secrets.token_urlsafe(12)
    found = await users.find(DEMO)
    if found is None:
        await users.add(DEMO, Role.ADMIN, password=word)
        await audit.append(_actor(), "user.added", DEMO, {"role": Role.ADMIN.value, "for": "a rehearsal"})
    else:
        await users.set_password(found.id, word)
        await audit.append(_actor(), "password.changed", DEMO, {"for": "a rehearsal"})
    return DEMO, word


async def _found(users: Users, name: str) -> User:
    found = await users.find(name)
    if found is None:
        raise BadAccount(f"there is no account {name}; callrow user list shows those there are")
    return found


def _run[T](work: Work[T]) -> T:
    async def with_database() -> T:
        async with reading.database(reading.settings_without_keys()) as database:
            return await work(Users(database), AuditLog(database))

    return asyncio.run(with_database())


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt(f"Password (at least {SHORTEST} characters)", hide_input=True, confirmation_prompt=True, err=True))


def _actor() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except OSError:  # a user id without a name, as in many containers
        return f"cli:{os.getuid()}"
