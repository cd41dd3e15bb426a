"""One thread, one epoll, a tick of a millisecond: the ground the peers stand on.

Asyncio would do, but the peers must be far cheaper than what they measure and must know when a frame really left: here a write is a
system call at once, and its time is the time of the frame.

Rule 1: a tick that comes late is made up for, never dropped: media time does not slip.
Rule 2: between two ticks only a bounded number of sockets is served, so that a flood of arrivals does not hold the frames up.
"""

import heapq
import os
import select
import socket
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from itertools import count

TICK = 0.001
_SOCKETS_A_ROUND = 64
_BUFFER = bytearray(1 << 18)
_VIEW = memoryview(_BUFFER)

now = time.perf_counter


class Link:
    """One TCP connection; a subclass says what to do with what arrives."""

    __slots__ = ("_loop", "_out", "fd", "peer_closed", "sock")

    def __init__(self, loop: "Loop", sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop, self.sock, self.fd = loop, sock, sock.fileno()
        self._out = bytearray()
        self.peer_closed = False
        loop.watch(self)

    def received(self, data: bytes, at: float) -> None:
        """Bytes arrived."""
        raise NotImplementedError

    def ended(self, at: float) -> None:
        """The peer closed or reset the connection; called once, unless we closed first."""

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes, the rest when it takes more."""
        if self._out:
            self._out += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader's side learns of it by `ended`
        if sent < len(data):
            self._out += data[sent:]
            self._loop.watch_writing(self, True)

    def unsent(self) -> int:
        return len(self._out)

    def writable(self) -> None:
        try:
            del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()
        if not self._out:
            self._loop.watch_writing(self, False)

    def readable(self, at: float) -> None:
        try:
            size = self.sock.recv_into(_BUFFER)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self.received(bytes(_VIEW[:size]), at)
        else:
            self.close()
            self.peer_closed = True
            self.ended(at)

    def close(self) -> None:
        """Close our side; nothing arrives after it."""
        if self.fd >= 0:
            self._loop.forget(self)
            self.sock.close()
            self.fd = -1


class Listener:
    """A listening socket on loopback."""

    def __init__(self, loop: "Loop", port: int, accepted: Callable[[socket.socket], None]) -> None:
        self.sock = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.sock.setblocking(False)
        self.fd, self._accepted = self.sock.fileno(), accepted
        loop.watch(self)

    def readable(self, at: float) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except BlockingIOError:
                return
            self._accepted(sock)

    def writable(self) -> None:
        raise NotImplementedError


class Loop:
    """Sockets, timers and the tick."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._links: dict[int, Link | Listener] = {}
        self._timers: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._turn = count()
        self._stopping = False
        self.ticks: list[Callable[[int, float], None]] = []
        self.lateness = array("d")
        """How late each tick came, in seconds: the peers' own part in every latency."""

    def watch(self, link: Link | Listener) -> None:
        self._links[link.fd] = link
        self._epoll.register(link.fd, select.EPOLLIN)

    def watch_writing(self, link: Link, wanted: bool) -> None:
        if link.fd >= 0:
            self._epoll.modify(link.fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def forget(self, link: Link) -> None:
        self._epoll.unregister(link.fd)
        del self._links[link.fd]

    def after(self, seconds: float, func: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._timers, (now() + seconds, next(self._turn), func, args))

    def at(self, when: float, func: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._timers, (when, next(self._turn), func, args))

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until `stop`."""
        ticker = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        os.timerfd_settime(ticker, initial=TICK, interval=TICK)
        self._epoll.register(ticker, select.EPOLLIN)
        began, tick = now(), 0
        timers, links, poll = self._timers, self._links, self._epoll.poll
        while not self._stopping:
            for fd, events in poll(-1, _SOCKETS_A_ROUND):
                if fd == ticker:
                    with suppress(BlockingIOError):
                        os.read(ticker, 8)
                elif link := links.get(fd):
                    if events & select.EPOLLOUT:
                        link.writable()
                    if events & ~select.EPOLLOUT:
                        link.readable(now())
            at = now()
            while timers and timers[0][0] <= at:
                _, _, func, args = heapq.heappop(timers)
                func(*args)
            while began + tick * TICK <= at:
                self.lateness.append(at - began - tick * TICK)
                for listener in self.ticks:
                    listener(tick, at)
                tick += 1
        os.close(ticker)
        self._epoll.close()
