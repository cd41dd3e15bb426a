"""One e-mail out of the house, by SMTP in a thread, and what came of it.

Rule 1: over a network only under TLS that is verified: `smtps://` from the first byte, `smtp://` by STARTTLS, without which
nothing is said. On this machine alone plain SMTP will do.
Rule 2: a 5xx to the message is for good (the same message will meet the same answer). A 5xx to us, at the greeting or the login,
is a matter of settings: somebody can put it right, and the message is tried again.
Rule 3: the Message-ID is the delivery's: a message that comes twice (the connection broke before the server's last word) is known
for one by whoever looks.
Rule 4: an address is never in a fault nor in a log, a server's words neither: codes, counts and names of classes.
"""

import asyncio
import contextlib
import ipaddress
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Self
from urllib.parse import unquote, urlsplit

from app import logs
from app.wrapup.posting import REFUSED, TIMEOUT, Sent

log = logs.logger("wrapup")

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NO_TLS, LOGIN_REFUSED = "no STARTTLS", "login refused"
ABOUT_US = (530, 534, 535, 538)
"""Replies that want another login (RFC 4954, 6), whichever command they answer."""
SMTPS, SUBMISSION, PLAIN = 465, 587, 25


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mail is handed in, and as whom."""

    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)
    tls_at_once: bool
    tls_by_command: bool
    """STARTTLS, and nothing without it."""

    @classmethod
    def of(cls, url: str) -> Self:
        """From `smtp://` or `smtps://`, with `user:password@` if the server asks for it (percent-encoded where needed)."""
        parts = urlsplit(url)
        host, at_once = parts.hostname or "", parts.scheme == "smtps"
        here = host in LOOPBACK
        return cls(
            host=host,
            port=parts.port or (SMTPS if at_once else PLAIN if here else SUBMISSION),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
            tls_at_once=at_once,
            tls_by_command=not at_once and not here,
        )


def message(*, sender: str, to: Sequence[str], subject: str, text: str, message_id: str, at: datetime) -> EmailMessage:
    """A plain message. A header is one line, whatever stands in `subject`."""
    made = EmailMessage(policy=SMTP)
    made["From"] = sender
    made["To"] = ", ".join(to)
    made["Subject"] = " ".join("".join(c if c.isprintable() else " " for c in subject).split())
    made["Date"] = format_datetime(at.astimezone(UTC))
    made["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office note comes back
    made.set_content(text)
    return made


async def mail(server: MailServer, letter: EmailMessage, *, us: str, limit_s: float, tls: ssl.SSLContext) -> Sent:
    """Hand a message in and say what came of it. `us` is the host that greets. Raises nothing but cancellation."""
    connection = _Connection(server, us, limit_s, tls)
    try:
        async with asyncio.timeout(limit_s):
            return await asyncio.to_thread(connection.hand_in, letter)
    except TimeoutError:
        return Sent(fault=TIMEOUT)
    finally:
        connection.cut()


class _Connection:
    """One visit to the server. Everything but `cut` runs in a thread of its own."""

    def __init__(self, server: MailServer, us: str, limit_s: float, tls: ssl.SSLContext) -> None:
        self._server, self._us, self._limit_s, self._tls = server, us, limit_s, tls
        self._smtp: smtplib.SMTP | None = None

    def hand_in(self, letter: EmailMessage) -> Sent:
        try:
            with contextlib.closing(self._open()) as smtp:
                if (fault := self._introduce(smtp)) is not None:
                    return fault
                return self._give(smtp, letter)
        except smtplib.SMTPResponseException as said:
            return Sent(status=said.smtp_code, fault=REFUSED)
        except (OSError, ValueError) as wrong:  # of smtplib's own all are OSErrors; a password that is not ASCII is a ValueError
            return Sent(fault=TIMEOUT if isinstance(wrong, TimeoutError) else type(wrong).__name__)

    def cut(self) -> None:
        """End the thread's waiting, if it waits. From outside of it."""
        open_socket = self._smtp.sock if self._smtp is not None else None
        if open_socket is not None:
            with contextlib.suppress(OSError):  # it is closed already, and that is what we want
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)  # beneath TLS, which the thread may be in

    def _open(self) -> smtplib.SMTP:
        made: smtplib.SMTP
        if self._server.tls_at_once:
            made = smtplib.SMTP_SSL(timeout=self._limit_s, local_hostname=self._us, context=self._tls)
        else:
            made = smtplib.SMTP(timeout=self._limit_s, local_hostname=self._us)
        made._host = self._server.host  # type: ignore[attr-defined]  # the name to verify; set only by the constructor that connects
        self._smtp = made
        code, _ = made.connect(self._server.host, self._server.port)
        if code != 220:
            made.close()
            raise smtplib.SMTPConnectError(code, b"")
        return made

    def _introduce(self, smtp: smtplib.SMTP) -> Sent | None:
        """Greeting, TLS, login; None when all is well."""
        smtp.ehlo_or_helo_if_needed()
        if self._server.tls_by_command:
            if not smtp.has_extn("starttls"):
                return Sent(fault=NO_TLS)
            smtp.starttls(context=self._tls)
            smtp.ehlo_or_helo_if_needed()
        if self._server.user is not None:
            try:
                smtp.login(self._server.user, self._server.password)
            except smtplib.SMTPAuthenticationError as said:
                return Sent(status=said.smtp_code, fault=LOGIN_REFUSED)
        return None

    def _give(self, smtp: smtplib.SMTP, letter: EmailMessage) -> Sent:
        try:
            refused = smtp.send_message(letter)
        except smtplib.SMTPRecipientsRefused as said:
            codes = [code for code, _ in said.recipients.values()]
            again = [code for code in codes if not _for_good(code)]
            return Sent(status=(again or codes)[0], fault=REFUSED, final=not again)
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as said:
            return Sent(status=said.smtp_code, fault=REFUSED, final=_for_good(said.smtp_code))
        if refused:
            log.warning("mail reached some of its recipients only", refused=len(refused))
        with contextlib.suppress(OSError):  # the message is taken; how the server says goodbye changes nothing
            smtp.quit()
        return Sent(status=250)


def _for_good(code: int) -> bool:
    """Whether a reply to the message is the last word on it (rule 2)."""
    return code >= 500 and code not in ABOUT_US


def greeting_name(host: str) -> str:
    """A host as EHLO names it: an address in brackets (RFC 5321, 4.1.3)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
