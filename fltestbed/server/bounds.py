"""What a request may take of the server before it is one: time and bytes.

uvicorn with httptools bounds neither: a header may grow without end, a request may come a byte an hour, header lines without
end may follow a chunked body, and an answer may never be read. Here each of these has a limit, after which the connection
ends.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fltestbed.server.turns import ServerLoop

HEAD_S = 30.0
"""From a connection, or the first byte of a request, to the end of its header."""
MOST_HEAD_BYTES = 64 << 10
SMALL_BYTES = 64 << 10
SMALL_S = 60.0
"""For a body of up to `SMALL_BYTES`; a larger one is a transfer."""
LONGEST_HOLD_S = 30.0
"""Longer than any request for work is held."""
MOST_PIPELINED = 4
MOST_DIGITS = 19
"""Of a content-length: what fits 64 bits. More of them may be zeros, which say nothing, and would be read as they like."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to everything that the other side can draw out.

    Attributes
    ----------
    transfer_s : float
        Longest time for a body larger than `SMALL_BYTES`, and for an answer to be read.
    """

    transfer_s = 600.0
    head_s = HEAD_S
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = False
    _is_awaited = False

    def connection_made(self, transport: Any) -> None:
        """A connection that sends nothing ends."""
        super().connection_made(transport)
        if isinstance(self.loop, ServerLoop):
            self._descriptor = transport.get_extra_info("socket").fileno()
        self._end_after(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to wait for."""
        self._end_after(None)
        self._upload_over()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A header that is too long is refused."""
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The header has more than {MOST_HEAD_BYTES} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a line of the header; one that comes after a chunked body is none."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head, self._is_awaited = True, True
        self._end_after(self.head_s)

    def on_headers_complete(self) -> None:
        """Its body begins, which has a time that goes with its size."""
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests before an answer")
        self._is_in_head = False
        said = dict(self.headers)
        announced = said.get(b"content-length", b"0")
        if not announced.isdigit() or len(announced) > MOST_DIGITS:
            raise ValueError("the content-length is not a number of bytes")
        is_large = int(announced) > SMALL_BYTES
        self._end_after(self.transfer_s if is_large else SMALL_S)
        if is_large and isinstance(self.loop, ServerLoop):
            self.loop.uploads.begin(self._descriptor)
        super().on_headers_complete()
        if b"transfer-encoding" in said:
            self.cycle.keep_alive = False  # nobody reads such a body: with the answer the connection ends

    def on_message_complete(self) -> None:
        """It is whole; now its answer has to be read."""
        self._upload_over()
        super().on_message_complete()
        self._is_awaited = False
        if self.cycle is None or self.cycle.response_complete:
            self._end_after(None)
        else:
            self._end_after(LONGEST_HOLD_S + self.transfer_s)

    def on_response_complete(self) -> None:
        """An answer has been handed over, all but the last few kilobytes."""
        if not self._is_awaited:
            self._end_after(None)
        super().on_response_complete()

    def _upload_over(self) -> None:
        if isinstance(self.loop, ServerLoop):
            self.loop.uploads.end(self._descriptor)

    def _end_after(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        self.transport.abort()
