"""WebSocket frames (RFC 6455), written by hand: no more than two scripted peers need, and cheap.

Rule 1: a frame we mask is masked with zeros, which is legal and leaves the payload as it is. The peer unmasks it all the same.
Rule 2: what a peer masks is unmasked here, whatever its key.
Rule 3: a message comes in one frame. No stack under test splits its messages; one that does stops the run.
"""

import base64
import hashlib
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_MASK_BIT: Final = 0x80
_FIN: Final = 0x80
_ACCEPT_KEY: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class BrokenFrame(Exception):
    """A peer sent what is no frame, or a message in pieces."""


def frame(payload: bytes, opcode: int = TEXT, *, masked: bool = False) -> bytes:
    """One whole frame."""
    mask_bit, key = (_MASK_BIT, b"\0\0\0\0") if masked else (0, b"")
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, mask_bit | size)) + key + payload
    if size < 65_536:
        return b"%c%c%b%b%b" % (_FIN | opcode, mask_bit | 126, size.to_bytes(2), key, payload)
    return b"%c%c%b%b%b" % (_FIN | opcode, mask_bit | 127, size.to_bytes(8), key, payload)


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames at the front of what was received, as (opcode, payload), and the rest that is no whole frame yet."""
    found: list[tuple[int, bytes]] = []
    at, end = 0, len(data)
    while end - at >= 2:
        first, second = data[at], data[at + 1]
        if first & 0x70 or not first & _FIN:
            raise BrokenFrame(f"first byte {first:#x}")
        size, begin = second & 0x7F, at + 2
        if size == 126:
            size, begin = int.from_bytes(data[begin : begin + 2]), begin + 2
        elif size == 127:
            size, begin = int.from_bytes(data[begin : begin + 8]), begin + 8
        if second & _MASK_BIT:
            key, begin = data[begin : begin + 4], begin + 4
            stop = begin + size
            if stop > end:
                break
            found.append((first & 0x0F, apply_mask(data[begin:stop], key)))
        else:
            stop = begin + size
            if stop > end:
                break
            found.append((first & 0x0F, data[begin:stop]))
        at = stop
    return found, data[at:]


def accept_key(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _ACCEPT_KEY).digest())
