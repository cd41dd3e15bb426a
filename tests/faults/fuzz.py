"""Nonsense at the carrier's doors, seeded: frames on the media socket, and requests. `scripts/fuzz --help` says how.

What may come of it: a message is skipped, a socket is closed, a request is refused. What may not: an error of ours (HTTP 500, an
exception that leaves a handler), a worker that dies, a document that says what it should not, a call that suffers for another.
"""

import asyncio
import contextlib
import json
import os
import random
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from tests.faults.in_process import FRAME, Phone, Service
from tests.twilio.test_wire import recorded
from tests.web.house import ACCOUNT, STANDARD, sign

PATIENCE_S = 20.0
UNFINISHED_S = 0.5
FRAMES_A_SOCKET = 120
DOORS = ("voice", "resume?epoch=1", "fallback", "left?call=x", "status", "stream-status")
VERBS = {"Response", "Connect", "Stream", "Parameter", "Redirect", "Say", "Hangup", "Pause", "Gather", "Dial", "Number", "Reject"}
MESSAGES = [json.loads(recorded(name)) for name in ("connected", "start", "media_20ms", "mark", "dtmf", "stop")]
STATUSES = {200, 204, 400, 403, 404, 405, 408, 411, 413, 417, 426, 431, 501, 505}
"""What may be answered. 0 stands for a connection that was cut without a word."""

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 2**200, 1e308, float("nan"), float("inf"), "", "x", "\x00", "\ud800", "é" * 40, "9" * 400,
    "<Dial>+19005550100</Dial>", "'; DROP TABLE calls --", "../../etc", "%00", "\r\nX: y", [], {}, [[]], {"a": {"b": [1]}},
    "A" * 5_000, "+15551230000", "completed", "in-progress", "MZ1", "1.1.160",
)  # fmt: skip


@dataclass
class Found:
    """What came of it."""

    frames: int = 0
    sockets: int = 0
    requests: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    closes: Counter[int] = field(default_factory=Counter)
    bad_documents: list[str] = field(default_factory=list)
    bad_answers: list[str] = field(default_factory=list)


# ---- nonsense


def scrambled(dice: random.Random, value: Any, chance: float = 0.15) -> Any:
    """The same shape, with odd values in some places, keys lost and keys added."""
    if dice.random() < chance:
        return dice.choice(ODD)
    if isinstance(value, dict):
        kept = {key: scrambled(dice, part, chance) for key, part in value.items() if dice.random() > chance / 4}
        if dice.random() < chance:
            kept["".join(dice.choices(string.printable, k=4))] = dice.choice(ODD)
        return kept
    return [scrambled(dice, part, chance) for part in value] if isinstance(value, list) else value


def bitten(dice: random.Random, data: bytes) -> bytes:
    """Bytes turned over, cut off, put in, said twice."""
    harmed = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(harmed) + 1)
        match dice.randrange(4):
            case 0 if place < len(harmed):
                harmed[place] = dice.randrange(256)
            case 1:
                del harmed[place : place + dice.randrange(1, 40)]
            case 2:
                harmed[place:place] = dice.randbytes(dice.randrange(1, 20))
            case _:
                harmed += harmed[place : place + 200]
    return bytes(harmed)


def message(dice: random.Random) -> bytes:
    """A message of the carrier's, more or less."""
    like = dice.choice(MESSAGES) if dice.random() < 0.6 else {"event": "media", "media": {"payload": FRAME}}
    match dice.randrange(6):
        case 0:
            return json.dumps(like).encode()
        case 1 | 2 | 3:
            return json.dumps(scrambled(dice, like)).encode("utf-8", "surrogatepass")
        case 4:
            return bitten(dice, json.dumps(like).encode())
        case _:
            return dice.choice((b"", b"[" * dice.randrange(20_000), dice.randbytes(dice.randrange(300)), b'{"event":"dance"}'))


def frame(dice: random.Random) -> bytes:
    """A frame of RFC 6455, mostly sound; some are no frame at all."""
    payload, roll = message(dice), dice.random()
    opcode, fin, masked, reserved, lie = 1, 0x80, True, 0, 0
    if roll > 0.995:
        return dice.randbytes(dice.randrange(1, 60))
    if roll > 0.985:
        opcode, fin, masked = dice.randrange(16), dice.choice((0, 0x80)), dice.random() > 0.3
        reserved, lie = dice.choice((0, 0, 0x40)), dice.choice((0, 0, 1, -1, 70_000))
    elif roll > 0.96:
        opcode, payload = dice.choice((2, 9, 10)), payload[:120]
    size = max(0, len(payload) + lie)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65_536 else b"\x7f" + size.to_bytes(8)
    head = bytes([opcode | fin | reserved, length[0] | (0x80 if masked else 0)]) + length[1:]
    if not masked:
        return head + payload
    mask = dice.randbytes(4)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def request(dice: random.Random, url: str) -> tuple[str, bytes]:
    """A request, more or less: its path, and all its bytes."""
    door = dice.choice(DOORS)
    if dice.random() < 0.3:
        door = (
            door.partition("?")[0]
            + "?"
            + urlencode({dice.choice(("epoch", "call", "again", "agent")): str(dice.choice(ODD[:25]))}, errors="replace")
        )
    path = f"/twilio/{door}" if dice.random() < 0.93 else quote(str(dice.choice(ODD)), safe="/?=", errors="replace") or "/"
    form = {
        **STANDARD,
        "CallSid": f"CA{dice.randrange(400):032x}",
        "CallStatus": dice.choice(("ringing", "in-progress", "completed")),
    }
    for _ in range(dice.randrange(4)):
        name = dice.choice(
            (
                *form,
                "Digits",
                "DialCallStatus",
                "ErrorUrl",
                "ErrorCode",
                "ParentCallSid",
                "StreamEvent",
                "CallDuration",
                "SequenceNumber",
                "ForwardedFrom",
            )
        )
        form[name] = str(dice.choice(ODD))
    pairs = list(form.items()) + ([("CallSid", "CA" + "f" * 32)] if dice.random() < 0.05 else [])
    body = urlencode(pairs, errors="replace").encode()
    read = [(name, value.encode("utf-8", "replace").decode()) for name, value in pairs]
    headers = {
        "Host": urlsplit(url).netloc,
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "X-Twilio-Signature": sign(url + path, read) if dice.random() < 0.8 else dice.choice(("", "A" * 27 + "=", "é")),
        "Connection": "close",
        "Content-Length": str(len(body)),
    }
    method, roll = "POST", dice.random()
    if roll > 0.9:
        name = dice.choice(("Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "X-Forwarded-Host", "Host"))
        headers[name] = dice.choice(
            ("", "0", "-1", "99999999999", "chunked", "application/json", "100-continue", "websocket", "evil.example")
        )
    elif roll > 0.87:
        method = dice.choice(("GET", "PUT", "HEAD", "BREW", "POST POST", "OPTIONS"))
    elif roll > 0.85:
        body = body * dice.choice((20, 300))
        headers["Content-Length"] = str(len(body))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    data = head.encode("latin-1", "replace") + body
    return path, bitten(dice, data) if dice.random() < 0.08 else data


# ---- how it is sent


async def frames(house: Service, dice: random.Random, found: Found, *, stranger: bool, count: int, number: int) -> None:
    """One socket: of a call that was answered, or of a stranger's."""
    phone = Phone(house, f"CA{number:032d}", f"+1555{number % 10**7:07d}")
    parameters: dict[str, str] = {}
    if not stranger:
        answer = await phone.post("voice")
        parameters = {it.attrib["name"]: it.attrib["value"] for it in ElementTree.fromstring(answer.content).iter("Parameter")}
    target = urlsplit(house.url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    found.sockets += 1
    try:
        writer.write(
            f"GET /twilio/media HTTP/1.1\r\nHost: {target.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        async with asyncio.timeout(PATIENCE_S):
            await reader.readuntil(b"\r\n\r\n")
        draining = asyncio.create_task(_drain(reader, found))
        if not stranger:
            facts = {"accountSid": ACCOUNT, "callSid": phone.sid, "customParameters": parameters}
            text = json.dumps({"event": "start", "streamSid": "MZ1", "start": facts}).encode()
            size = b"\xfe" + len(text).to_bytes(2) if len(text) > 125 else bytes([len(text) | 0x80])
            writer.write(b"\x81" + size + b"\0\0\0\0" + text)
            await asyncio.sleep(0)
        for _ in range(count):
            if draining.done() or writer.is_closing():
                break
            data = frame(dice)
            if dice.random() < 0.05:  # in two pieces
                half = dice.randrange(len(data) + 1)
                writer.write(data[:half])
                await asyncio.sleep(0)
                data = data[half:]
            writer.write(data)
            found.frames += 1
            if dice.random() < 0.2:
                await writer.drain()
                await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            await draining
    except (ConnectionError, OSError, asyncio.IncompleteReadError):
        found.closes[0] += 1
    finally:
        writer.transport.abort()
        if not stranger:
            phone.status = "completed"
            await phone.post("status", CallDuration="1", SequenceNumber="9")


async def _drain(reader: asyncio.StreamReader, found: Found) -> None:
    last = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            last = (last + data)[-200:]
    place = last.rfind(b"\x88")
    found.closes[int.from_bytes(last[place + 2 : place + 4]) if 0 <= place <= len(last) - 4 else 0] += 1


async def ask(house: Service, dice: random.Random, found: Found) -> None:
    """One request on a connection of its own."""
    path, data = request(dice, house.url)
    target = urlsplit(house.url)
    came = b""
    try:
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        try:
            writer.write(data)
            reading = asyncio.create_task(reader.read())
            await asyncio.wait({reading}, timeout=UNFINISHED_S)
            if not reading.done():  # half a request: there will be no more of it
                writer.write_eof()
            async with asyncio.timeout(PATIENCE_S):
                came = await reading
        finally:
            writer.transport.abort()
    except (ConnectionError, OSError):
        pass
    found.requests += 1
    head, _, body = came.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    found.answers[status] += 1
    if status not in STATUSES | {0}:
        found.bad_answers.append(f"{status} {path[:80]}")
    if status == 200 and b"text/xml" in head.lower() and body:
        found.bad_documents += [f"{path[:60]}: {why}" for why in wrong(body, house.url)]


def wrong(document: bytes, url: str) -> Iterator[str]:
    """What a document says that none of ours says."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        yield "no XML"
        return
    for element in root.iter():
        if element.tag not in VERBS:
            yield f"<{element.tag}>"
        for value in (*element.attrib.values(), element.text or ""):
            if "://" in value and not value.startswith((url, url.replace("http", "ws", 1))):
                yield "a foreign address"
    if any(number.text != "+15551230001" for number in root.iter("Number")):
        yield "a foreign number"


async def run(house: Service, *, seed: int, runs: int, at_once: int = 8) -> Found:
    """So many frames and requests, half of each; `seed` names all of them."""
    found, dice = Found(), random.Random(seed)
    number = 10_000

    async def a_socket(number: int, dice: random.Random) -> None:
        await frames(house, dice, found, stranger=dice.random() < 0.25, count=min(FRAMES_A_SOCKET, runs), number=number)

    async def some_requests(dice: random.Random) -> None:
        for _ in range(min(50, runs)):
            await ask(house, dice, found)

    while found.frames < runs // 2 or found.requests < runs - runs // 2:
        number += at_once
        work = [a_socket(number + place, random.Random(dice.random())) for place in range(at_once) if found.frames < runs // 2]
        work += [some_requests(random.Random(dice.random())) for _ in range(at_once) if found.requests < runs - runs // 2]
        await asyncio.gather(*work)
    return found


def resident_mb(pid: int) -> float:
    """Megabytes of a process's own memory."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
