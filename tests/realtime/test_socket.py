import asyncio
import datetime
import ipaddress
import random
import ssl
from collections.abc import Iterable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Close, Frame
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from app.realtime import socket
from app.realtime.socket import ABNORMAL, MAX_SIZE
from tests.realtime.peer import BINARY, CLOSE, CONT, PING, PONG, TEXT, Log, connected, frame, listening, unconnected

# ---- opening


async def test_the_request_carries_our_headers_and_offers_no_compression():
    async with connected(Log()) as (_, peer):
        headers = peer.request.headers
        assert headers["X-Who"] == "us"
        assert "Sec-WebSocket-Extensions" not in headers
        assert peer.request.path == "/v1/realtime?model=m"


async def test_what_comes_in_the_same_packet_as_the_handshake_is_not_lost():
    log = Log()
    async with listening() as (url, peers):
        opening = asyncio.ensure_future(socket.connect(url, {}, log.text, log.close))
        whole = frame(TEXT, b"second")
        await (await peers.get()).shake(with_bytes=frame(TEXT, b"first") + whole[:3])
        ours = await opening
        await log.until(texts=1)
        assert log.texts == [b"first"]
        ours.abort("test_over")


@pytest.mark.parametrize("cut", [1, 20, 10_000])
async def test_a_refusal_comes_with_its_explanation_however_it_is_cut(cut):
    log = Log()
    async with listening() as (url, peers):
        opening = asyncio.ensure_future(socket.connect(url, {}, log.text, log.close))
        peer = await peers.get()
        body = b'{"error":\r\n\r\n{"code":"invalid_api_key"}}'
        answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for at in range(0, len(answer), cut):
            peer.writer.write(answer[at : at + cut])
            await peer.writer.drain()
            await asyncio.sleep(0)
        with pytest.raises(InvalidStatus) as refusal:
            await opening
        assert refusal.value.response.status_code == 401
        assert bytes(refusal.value.response.body) == body
        await peer.gone()
    assert log.closes == [], "it was never open"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Swit", b"no such protocol\r\n\r\n", b"x" * 200_000])
async def test_an_answer_that_is_none_is_a_failed_handshake(answer):
    async with listening() as (url, peers):
        opening = asyncio.ensure_future(socket.connect(url, {}, Log().text, Log().close))
        peer = await peers.get()
        peer.writer.write(answer)
        peer.writer.close()
        with pytest.raises((InvalidHandshake, ConnectionError)):
            await opening


async def test_a_server_that_never_answers_is_given_up():
    async with listening() as (url, peers):
        opening = asyncio.ensure_future(socket.connect(url, {}, Log().text, Log().close, open_s=0.05))
        peer = await peers.get()
        with pytest.raises(TimeoutError):
            await opening
        await peer.gone()


async def test_nobody_there_is_an_error_of_the_system():
    async with listening() as (url, _):
        pass
    with pytest.raises(ConnectionRefusedError):
        await socket.connect(url, {}, Log().text, Log().close)


async def test_an_address_that_is_none_is_refused():
    with pytest.raises(InvalidURI):
        await socket.connect("http://127.0.0.1/", {}, Log().text, Log().close)


def certificate(folder) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "callrow test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "both.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return str(file)


async def test_a_wss_address_is_spoken_to_over_tls_and_only_if_it_is_trusted(tmp_path):
    file = certificate(tmp_path)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(file)
    log = Log()
    async with listening(theirs) as (url, peers):
        opening = asyncio.ensure_future(socket.connect(url, {}, log.text, log.close, tls=ssl.create_default_context(cafile=file)))
        peer = await peers.get()
        await peer.shake()
        ours = await opening
        ours.send_text(b"over TLS" * 100)
        assert await peer.frame() == (TEXT, b"over TLS" * 100)
        peer.writer.write(frame(TEXT, b"and back" * 9_000))
        await log.until(texts=1)
        assert log.texts == [b"and back" * 9_000]
        ours.close()
        assert (await peer.frame())[0] is CLOSE
        peer.writer.write(frame(CLOSE, Close(1000, "").serialize()))
        peer.writer.close()
        await log.until(closes=1)
        with pytest.raises(ssl.SSLCertVerificationError):
            await socket.connect(url, {}, log.text, log.close)


# ---- frames

SIZES = [0, 1, 125, 126, 127, 1_327, 65_535, 65_536, 300_000]


@pytest.mark.parametrize("size", SIZES)
async def test_a_text_of_any_size_arrives(size):
    log = Log()
    async with connected(log) as (ours, peer):
        text = bytes(random.Random(size).choices(range(32, 127), k=size))
        ours.send_text(text)
        assert await peer.frame() == (TEXT, text)
        peer.writer.write(frame(TEXT, text))
        await log.until(texts=1)
        assert log.texts == [text]


async def test_no_two_texts_are_masked_alike():
    transport, ours, _ = unconnected()
    for _ in range(64):
        ours.send_text(b"0" * 200)
    assert len({sent[4:8] for sent in transport.written}) == 64


def pieces(stream: bytes, seed: int) -> Iterable[bytes]:
    dice = random.Random(seed)
    at = 0
    while at < len(stream):
        size = dice.choice([1, 1, 2, 3, 7, 100, 4_000, 100_000])
        yield stream[at : at + size]
        at += size


def by_the_book(stream: bytes) -> tuple[list[bytes], list[bytes], bool]:
    """What the sans-I/O protocol alone makes of a stream: messages, what it answers, whether it would go on."""
    book = ClientProtocol(parse_uri("ws://model/"), state=State.OPEN, max_size=MAX_SIZE)
    book.receive_data(stream)
    messages, parts = [], []
    for event in book.events_received():
        if event.opcode in (TEXT, BINARY, CONT):
            parts.append(bytes(event.data))
            if event.fin:
                messages.append(b"".join(parts))
                parts.clear()
    return messages, [unmasked(data) for data in book.data_to_send()], book.state is State.OPEN


def unmasked(data: bytes) -> bytes:
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(data)
    return b"".join(Frame(event.opcode, event.data, event.fin).serialize(mask=False) for event in server.events_received())


STREAMS = {
    "texts": b"".join(frame(TEXT, b"t" * size) for size in SIZES),
    "pings between": frame(TEXT, b"a") + frame(PING, b"p") + frame(TEXT, b"b" * 130) + frame(PONG) + frame(PING) + frame(TEXT),
    "fragments": frame(TEXT, b"a" * 200, False) + frame(PING, b"!") + frame(CONT, b"b", False) + frame(CONT, b"c" * 70_000)
    + frame(TEXT, b"next"),
    "fragments of nothing": frame(TEXT, b"", False) + frame(CONT, b"") + frame(TEXT, b"next"),
    "binary": frame(BINARY, b"\x00\x01") + frame(TEXT, b"next"),
    "text within fragments": frame(TEXT, b"a", False) + frame(TEXT, b"b") + frame(CONT, b"c"),
    "continuation of nothing": frame(TEXT, b"a") + frame(CONT, b"b") + frame(TEXT, b"c"),
    "reserved bit": frame(TEXT, b"a") + b"\xc1\x01x" + frame(TEXT, b"c"),
    "no such opcode": frame(TEXT, b"a") + b"\x83\x01x" + frame(TEXT, b"c"),
    "masked": frame(TEXT, b"a") + Frame(TEXT, b"b").serialize(mask=True) + frame(TEXT, b"c"),
    "long ping": b"\x89\x7e\x00\x80" + b"p" * 128 + frame(TEXT, b"c"),
    "too big": frame(TEXT, b"a") + b"\x81\x7f" + (MAX_SIZE + 1).to_bytes(8) + b"x" * 500,
    "absurdly big": b"\x81\x7f" + b"\xff" * 8 + b"x" * 500,
    "close": frame(TEXT, b"a") + frame(CLOSE, Close(1001, "bye").serialize()) + frame(TEXT, b"late"),
    "empty close": frame(CLOSE) + frame(TEXT, b"late"),
    "short close": frame(CLOSE, b"\x03") + frame(TEXT, b"late"),
    "close within fragments": frame(TEXT, b"a", False) + frame(CLOSE, Close(1000, "").serialize()),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", STREAMS)
async def test_the_short_cuts_make_of_a_stream_what_the_protocol_makes_of_it(name, seed):
    transport, ours, log = unconnected()
    messages, answers, goes_on = by_the_book(STREAMS[name])
    for piece in pieces(STREAMS[name], seed):
        ours.data_received(piece)
    assert log.texts == messages
    assert [unmasked(data) for data in transport.written] == answers
    ours.send_text(b"still there?")
    assert (len(transport.written) == len(answers) + 1) is goes_on
    ours.connection_lost(None)


# ---- endings


async def test_the_peers_close_is_answered_and_told_once():
    log = Log()
    async with connected(log) as (ours, peer):
        peer.writer.write(frame(CLOSE, Close(1001, "Your session hit the maximum duration").serialize()))
        assert await peer.frame() == (CLOSE, Close(1001, "Your session hit the maximum duration").serialize())
        peer.writer.close()
        await log.until(closes=1)
        ours.close()
        ours.send_text(b"anyone?")
        await ours.closed
    assert log.closes == [(1001, "Your session hit the maximum duration")]


async def test_a_peer_that_says_close_and_does_not_go_is_left():
    log = Log()
    async with connected(log) as (_, peer):
        peer.writer.write(frame(CLOSE, Close(4000, "beta_api_shape_disabled").serialize()))
        await log.until(closes=1)
        await peer.gone()
    assert log.closes == [(4000, "beta_api_shape_disabled")]


async def test_our_close_is_said_and_what_comes_after_it_is_not_handed_on():
    log = Log()
    async with connected(log) as (ours, peer):
        ours.close()
        assert await peer.frame() == (CLOSE, Close(1000, "").serialize())
        peer.writer.write(frame(TEXT, b"late") + frame(CLOSE, Close(1000, "").serialize()))
        peer.writer.close()
        await log.until(closes=1)
    assert (log.texts, log.closes) == ([], [(1000, "")])


async def test_a_peer_that_does_not_answer_our_close_is_left():
    log = Log()
    async with connected(log) as (ours, peer):
        ours.close()
        await log.until(closes=1)
        await peer.gone()
    assert log.closes == [(ABNORMAL, "")]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_dropped_connection_is_told_once(how):
    log = Log()
    async with connected(log) as (ours, peer):
        getattr(peer.writer.transport, how)()
        await log.until(closes=1)
        await ours.closed
        ours.send_text(b"anyone?")
        ours.send_text(b"")
    assert log.closes == [(ABNORMAL, "")]


async def test_a_breach_of_the_protocol_is_told_as_one():
    log = Log()
    async with connected(log) as (_, peer):
        peer.writer.write(b"\x83\x01x")
        opcode, data = await peer.frame()
        assert (opcode, data[:2]) == (CLOSE, (1002).to_bytes(2))
        peer.writer.close()
        await log.until(closes=1)
    assert log.closes == [(ABNORMAL, "protocol_error")]


async def test_nothing_is_handed_on_after_an_abort_in_the_middle_of_a_packet():
    transport, ours, log = unconnected()
    ours._on_text = lambda text: (log.text(text), ours.abort("enough"))
    ours.data_received(frame(TEXT, b"one") + frame(TEXT, b"two"))
    ours.connection_lost(None)
    assert (transport.aborted, log.texts, log.closes) == (True, [b"one"], [(ABNORMAL, "enough")])


async def test_a_peer_that_takes_nothing_is_given_up():
    log = Log()
    async with connected(log, stall_s=0.2) as (ours, peer):
        peer.writer.transport.pause_reading()
        for _ in range(200):
            ours.send_text(b"s" * 60_000)
        assert ours.paused
        await log.until(closes=1)
    assert log.closes == [(ABNORMAL, "stalled")]


async def test_a_peer_that_takes_it_late_is_not_given_up():
    log = Log()
    async with connected(log, stall_s=600) as (ours, peer):
        sent = 0
        while not ours.paused:
            ours.send_text(b"s" * 60_000)
            sent += 1
        for _ in range(sent):
            assert await peer.frame() == (TEXT, b"s" * 60_000)
        ours.send_text(b"go on")
        assert await peer.frame() == (TEXT, b"go on")
        assert not ours.paused
    assert log.closes == [(ABNORMAL, "test_over")]


async def test_what_flows_again_is_not_given_up_later():
    _, ours, _ = unconnected()
    ours.pause_writing()
    deadline = ours._timers["stall"]
    ours.resume_writing()
    assert (ours.paused, deadline.cancelled()) == (False, True)
    ours.pause_writing()
    assert not ours._timers["stall"].cancelled()
    ours.connection_lost(None)


async def test_pings_are_sent_and_a_pong_keeps_the_connection():
    transport, ours, log = unconnected()
    ours._ping()
    ours.data_received(frame(TEXT, b"I talk") + frame(PONG))
    ours._ping()
    assert [unmasked(data) for data in transport.written] == [frame(PING), frame(PING)]
    assert not transport.aborted
    ours._ping()
    assert not transport.aborted, "it may lie unread in the socket, if we were the ones who paused"
    ours._last_chance()
    assert transport.aborted
    ours.connection_lost(None)
    assert log.closes == [(ABNORMAL, "no_pong")]


async def test_a_pong_that_was_only_not_read_yet_keeps_the_connection():
    transport, ours, _ = unconnected()
    ours._ping()
    ours._ping()
    ours.data_received(frame(PONG))
    ours._last_chance()
    assert not transport.aborted
    assert [unmasked(data) for data in transport.written] == [frame(PING), frame(PING)]
    ours.connection_lost(None)


async def test_the_first_ping_comes_by_itself_and_without_a_pong_the_end():
    log = Log()
    async with connected(log, ping_s=0.05) as (_, peer):
        assert await peer.frame() == (PING, b"")
        await log.until(closes=1)
    assert log.closes == [(ABNORMAL, "no_pong")]


async def test_no_timer_outlives_the_connection():
    _, ours, _ = unconnected()
    ours.pause_writing()
    ours.close()
    timers = list(ours._timers.values())
    ours.connection_lost(None)
    assert len(timers) == 3
    assert all(timer.cancelled() for timer in timers)


async def test_what_goes_over_the_wire_is_never_logged(caplog):
    caplog.set_level("DEBUG")
    log = Log()
    async with connected(log) as (ours, peer):
        ours.send_text(b"my card is 4111")
        peer.writer.write(frame(TEXT, b"your card is 4111"))
        await log.until(texts=1)
    assert "4111" not in caplog.text
