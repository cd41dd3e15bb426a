"""Mail by SMTP, against real servers: what they take, what they refuse, and what is never said without TLS."""

import asyncio
import email
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.store.after_tables import DeliveryKind
from app.wrapup import mailing, posting
from app.wrapup.mailing import LOGIN_REFUSED, NO_TLS, MailServer, greeting_name, mail
from app.wrapup.outbox import compact
from app.wrapup.posting import Sent
from tests.store.shelf import Clock
from tests.wrapup.receivers import Authority, Mailbox, authority, mailbox
from tests.wrapup.rows import settings
from tests.wrapup.test_delivering import WIDE_S, attempt

TEXT = "Call: 01HZ\nZoë said\n.\nRCPT TO:<else@example.com>\n"
BODY = compact({"subject": "Callrow: a call is urgent", "text": TEXT})
TO = ("sales@example.com", "owner@example.com")


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path)


def to(box: Mailbox, user: str = "", scheme: str = "smtp") -> Settings:
    return settings(SMTP_URL=f"{scheme}://{user}127.0.0.1:{box.port}", MAIL_FROM="callrow@example.com", MAIL_TO=",".join(TO))


async def sending(of: Settings, **options: Any) -> Sent:
    return Sent(**await attempt(of, DeliveryKind.MAIL, BODY, **options))


def letter() -> EmailMessage:
    return mailing.message(sender="callrow@example.com", to=TO, subject="A call", text=TEXT, message_id="01HZ", at=Clock().now)


def server(port: int, **other: Any) -> MailServer:
    return MailServer(host="127.0.0.1", port=port, **({"tls_at_once": False, "tls_by_command": False} | other))


async def by(of: MailServer, trusting: Authority | None = None, limit_s: float = WIDE_S) -> Sent:
    tls = trusting.client() if trusting else posting.tls()
    return await mail(of, letter(), us="calls.example.com", limit_s=limit_s, tls=tls)


async def test_a_mail_arrives_as_it_was_written():
    async with mailbox() as box:
        assert await sending(to(box)) == Sent(status=250)
    (envelope,) = box.letters
    assert (envelope.mail_from, tuple(envelope.rcpt_tos)) == ("callrow@example.com", TO)
    assert isinstance(envelope.content, bytes)
    read = email.message_from_bytes(envelope.content, policy=default)
    assert isinstance(read, EmailMessage)
    assert read.get_content().replace("\r\n", "\n") == TEXT
    assert read["Subject"] == "Callrow: a call is urgent"
    assert read["Message-ID"] == "<01HZZZZZZZZZZZZZZZZZZZZZZZ@example.com>"


async def test_a_mail_that_is_put_off_comes_again_under_the_same_message_id():
    async with mailbox() as box:
        box.refuse("DATA", "451 4.7.1 Later, please")
        assert await sending(to(box)) == Sent(status=451, fault="refused")
        assert await sending(to(box)) == Sent(status=250)
        box.refuse("DATA", "")  # it takes the mail, and we do not hear of it: so it comes twice
        assert await sending(to(box)) == Sent(status=250)
    ids = {email.message_from_bytes(bytes(envelope.content or b""))["Message-ID"] for envelope in box.letters}
    assert (len(box.letters), len(ids)) == (2, 1)


@pytest.mark.parametrize(
    ("command", "replies", "sent"),
    [
        ("MAIL", ["550 No"], Sent(status=550, fault="refused", final=True)),
        ("MAIL", ["450 Later"], Sent(status=450, fault="refused")),
        ("RCPT", ["550 No", "550 No"], Sent(status=550, fault="refused", final=True)),
        ("RCPT", ["550 No", "450 Later"], Sent(status=450, fault="refused")),
        ("RCPT", ["421 Going down"], Sent(status=421, fault="refused")),
        ("DATA", ["554 No"], Sent(status=554, fault="refused", final=True)),
    ],
)
async def test_a_servers_no_is_for_good_or_for_now(command: str, replies: list[str], sent: Sent):
    async with mailbox() as box:
        box.refuse(command, *replies)
        assert await sending(to(box)) == sent
    assert box.letters == []


async def test_some_recipients_are_better_than_none_and_the_others_are_counted(capsys: pytest.CaptureFixture[str]):
    async with mailbox() as box:
        box.refuse("RCPT", "550 No such person")
        assert await sending(to(box)) == Sent(status=250)
    assert [envelope.rcpt_tos for envelope in box.letters] == [["owner@example.com"]]
    said = "".join(capsys.readouterr())
    assert "refused=1" in said or '"refused": 1' in said
    assert "example.com" not in said


async def test_we_log_in_if_we_have_a_name_there():
    async with mailbox(login=True) as box:
        assert await sending(to(box, "us%40example.com:p%40ss@")) == Sent(status=250)
        assert await sending(to(box, "us:wrong@")) == Sent(status=535, fault=LOGIN_REFUSED)
        assert await sending(to(box)) == Sent(status=530, fault="refused")
    assert set(box.logins) == {(b"us@example.com", b"p@ss"), (b"us", b"wrong")}
    assert len(box.letters) == 1


async def test_a_password_that_smtp_cannot_say_is_a_fault_and_no_crash():
    async with mailbox(login=True) as box:
        assert (await sending(to(box, "us:p%C3%A4ss@"))).fault == "UnicodeEncodeError"


async def test_tls_from_the_first_byte_is_verified(ours: Authority):
    async with mailbox(tls=ours.server()) as box:
        assert await sending(to(box, scheme="smtps"), tls=ours.client) == Sent(status=250)
        assert (await sending(to(box, scheme="smtps"))).fault == "SSLCertVerificationError"
    assert (len(box.letters), box.tls) == (1, [True])


async def test_starttls_is_verified(ours: Authority):
    async with mailbox(tls=ours.server(), by_command=True) as box:
        there = server(box.port, tls_by_command=True)
        assert await by(there, ours) == Sent(status=250)
        assert (await by(there)).fault == "SSLCertVerificationError"
    assert (len(box.letters), box.tls) == (1, [True])


async def test_where_there_must_be_tls_and_is_none_nothing_is_said():
    async with mailbox(login=True) as box:
        assert await by(server(box.port, tls_by_command=True, user="us", password="p@ss")) == Sent(fault=NO_TLS)
    assert (box.letters, box.logins) == ([], [])


@pytest.mark.parametrize(
    ("url", "port", "at_once", "by_command"),
    [
        ("smtp://mail.example.com", 587, False, True),
        ("smtp://mail.example.com:25", 25, False, True),
        ("smtp://127.0.0.1", 25, False, False),
        ("smtp://localhost:2525", 2525, False, False),
        ("smtps://mail.example.com", 465, True, False),
        ("smtps://localhost", 465, True, False),
    ],
)
def test_without_tls_mail_goes_to_this_machine_only(url: str, port: int, at_once: bool, by_command: bool):
    of = MailServer.of(url)
    assert (of.port, of.tls_at_once, of.tls_by_command) == (port, at_once, by_command)


@pytest.mark.parametrize("greeting", [b"", b"220-a\r\n", b"554 Not you\r\n", b"250 not a greeting\r\n"])
async def test_a_server_that_does_not_greet_is_left(greeting: bytes):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof() and not writer.is_closing():
            writer.write(greeting)  # drips for ever
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening, asyncio.timeout(WIDE_S):
        port = listening.sockets[0].getsockname()[1]
        sent = await by(server(port), limit_s=0.4)
        listening.close_clients()
    assert sent.fault is not None
    assert not sent.final
    expected = {b"": "timeout", b"220-a\r\n": "timeout"}
    if greeting in expected:
        assert sent.fault == expected[greeting]
    else:
        assert sent.status == int(greeting[:3])


async def test_nobody_is_there():
    async with mailbox() as box:
        pass
    assert await by(server(box.port)) == Sent(fault="ConnectionRefusedError")


@pytest.mark.parametrize(
    ("host", "name"), [("calls.example.com", "calls.example.com"), ("127.0.0.1", "[127.0.0.1]"), ("::1", "[IPv6:::1]")]
)
def test_we_greet_by_the_name_under_which_we_are_known(host: str, name: str):
    assert greeting_name(host) == name
