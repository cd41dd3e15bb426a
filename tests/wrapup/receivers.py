"""Whoever takes deliveries in: an HTTP server that checks signatures and can misbehave to the byte, and mail servers."""

import asyncio
import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import struct
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

type Answer = Callable[["Request", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """What came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer as it should be."""

    async def answer(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}", *lines, "", ""])
        writer.write(head.encode() + body)
        await writer.drain()

    return answer


def is_reset() -> Answer:
    """The connection ends without a word."""

    async def answer(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
        writer.transport.abort()

    return answer


def drips(first: bytes, each: bytes, every_s: float = 0.01) -> Answer:
    """For ever a little more, until the other side has had enough."""

    async def answer(_: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while not writer.is_closing() and not reader.at_eof():
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(every_s)

    return answer


def hangs() -> Answer:
    """Takes everything in and says nothing."""

    async def answer(_: Request, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    return answer


@dataclass
class Receiver:
    """Verifies what comes by the secret it knows and takes each message in once. The last answer is repeated."""

    secret: str | None = None
    answers: deque[Answer] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    refused: int = 0
    """Requests whose signature was none of ours."""
    taken: dict[str, Any] = field(default_factory=dict)
    """In effect: by id, what came first under it."""
    url: str = ""

    def will(self, *answers: Answer) -> None:
        """Set the answers."""
        self.answers = deque(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(head[0], headers, body)
            self.requests.append(request)
            if self._genuine(request):
                self.taken.setdefault(headers["idempotency-key"], json.loads(body))
            answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
            await answer(request, reader, writer)
        writer.close()

    def _genuine(self, request: Request) -> bool:
        if self.secret is None:
            return True
        try:
            Webhook(self.secret).verify(request.body, request.headers)
        except WebhookVerificationError:
            self.refused += 1
            return False
        return True


@contextlib.asynccontextmanager
async def receiving(secret: str | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver that can be reached."""
    receiver = Receiver(secret)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        receiver.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=t"
        yield receiver
        server.close_clients()


# ---- mail


class Mailbox:
    """Takes mail in, after the refusals it was told to make: by command, each once, then no more."""

    def __init__(self) -> None:
        self.letters: list[Envelope] = []
        self.refusals: dict[str, list[str]] = {}
        self.logins: list[tuple[bytes, bytes]] = []
        self.tls: list[bool] = []
        self.port = 0

    def refuse(self, command: str, *replies: str) -> None:
        """Answer the next such commands (`MAIL`, `RCPT`, `DATA`) with these. An empty one lets it pass."""
        self.refusals[command] = list(replies)

    def _refusal(self, command: str) -> str | None:
        waiting = self.refusals.get(command)
        return (waiting.pop(0) or None) if waiting else None

    async def handle_MAIL(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: Sequence[str]) -> str:
        if refusal := self._refusal("MAIL"):
            return refusal
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: Sequence[str]) -> str:
        if refusal := self._refusal("RCPT"):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if refusal := self._refusal("DATA"):
            return refusal
        self.tls.append(session.ssl is not None or server.transport.get_extra_info("ssl_object") is not None)
        self.letters.append(envelope)
        return "250 OK"

    def authenticate(self, _: SMTP, __: Session, ___: Envelope, ____: str, given: Any) -> AuthResult:
        self.logins.append((given.login, given.password))
        return AuthResult(success=given.password == b"p@ss", handled=False)


@contextlib.asynccontextmanager
async def mailbox(*, tls: ssl.SSLContext | None = None, by_command: bool = False, login: bool = False) -> AsyncIterator[Mailbox]:
    """A mail server: plain, under TLS from the first byte, or with STARTTLS."""
    box = Mailbox()
    options: dict[str, Any] = {"hostname": "mail.example.com"}
    if by_command:
        options |= {"tls_context": tls, "require_starttls": True}
    if login:
        options |= {"authenticator": box.authenticate, "auth_required": True, "auth_require_tls": False}
    loop = asyncio.get_running_loop()

    def made() -> SMTP:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that a login without TLS is nothing for a network
            return SMTP(box, loop=loop, **options)

    server = await loop.create_server(made, "127.0.0.1", 0, ssl=None if by_command else tls)
    async with server:
        box.port = server.sockets[0].getsockname()[1]
        yield box
        server.close_clients()


# ---- TLS


@dataclass(frozen=True)
class Authority:
    """A certificate that signs itself, for 127.0.0.1 and localhost."""

    path: Path

    def server(self) -> ssl.SSLContext:
        """What a server shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context

    def client(self) -> ssl.SSLContext:
        """What a client that trusts it verifies by."""
        return ssl.create_default_context(cafile=self.path)


def authority(folder: Path) -> Authority:
    """A new one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "authority.pem"
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return Authority(path)
