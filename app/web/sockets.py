"""uvicorn's HTTP protocol with an end to its patience: `Config(http=GuardedHttp)`.

uvicorn limits neither the time nor the size of a request's head, and a header sent drop by drop holds a connection for as long as
its sender likes. Bodies are limited behind it, in `guard.py`.

Rule 1: a request's whole head is here within `head_seconds` of the connection, or of the answer before it, and within `max_head`.
Rule 2: nothing is answered to one who breaks rule 1: the connection is cut.
Rule 3: once a socket is upgraded, it is the media leg's own.
It leans on names inside uvicorn; `tests/web/test_sockets.py` holds the measured table against the installed version.
"""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class GuardedHttp(HttpToolsProtocol):
    """One connection of HTTP/1.1, on httptools."""

    head_seconds = 5.0
    max_head = 64 * 1024
    max_raw = 1024 * 1024
    """Bytes of a whole request on the wire: in chunks, each byte of a body may bring five more; trailers come on top."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: TimerHandle | None = None
        self._received = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_a_head(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self._received > (self.max_raw if self._late is None else self.max_head):
            self._cut()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_is_here()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            # uvicorn's own limit for an idle connection ends with the first byte of the next request; this one does not.
            self._expect_a_head(max(self.head_seconds, self.timeout_keep_alive))

    def _expect_a_head(self, seconds: float) -> None:
        self._head_is_here()
        self._received = 0
        self._late = self.loop.call_later(seconds, self._cut)

    def _head_is_here(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cut(self) -> None:
        self._head_is_here()
        if not self.transport.is_closing():
            self.transport.abort()
