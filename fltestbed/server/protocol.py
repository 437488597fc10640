"""HTTP/1.1 as uvicorn speaks it, with the connection's socket within reach of the application.

An ASGI application sees requests, not connections. The stamps need both: TCP_INFO is the connection's, and so are the
congestion control and the kernel's stamps (`fltestbed.measure.kernel_stamps`).
"""

import socket
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.tcp import TcpSnapshot, congestion_control, set_congestion_control, tcp_snapshot

SCOPE_KEY = "fltestbed.connection"
UNWRITTEN_BYTES = 64 << 10
FAREWELL_S = 0.2
"""For the last bytes of an answer, once the server has closed a connection."""


class Connection:
    """One TCP connection of the server."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # asyncio hands out a wrapper of the socket that it reads from
        inner = getattr(sock, "_sock", sock)
        self._stamped = inner if isinstance(inner, StampedSocket) else None
        self._sends_message = False
        self._message_left_ns: int | None = None
        self.mark = tcp_snapshot(sock)
        """TCP_INFO when the connection was made, or when `set_mark` was last called."""

    def snapshot(self) -> TcpSnapshot | None:
        """TCP_INFO now; None when the connection is closed."""
        return tcp_snapshot(self._socket)

    def set_mark(self) -> None:
        """Remember TCP_INFO as it is now."""
        self.mark = self.snapshot()

    def switch(self, on: bool) -> None:
        """Let the kernel stamp what comes and goes, or nothing at all."""
        if self._stamped is not None and self._stamped.fileno() >= 0:
            self._stamped.switch(on)

    def expect(self) -> None:
        """The next byte is the first of a request."""
        if self._stamped is not None:
            self._stamped.expect()

    def begin_sending(self, *, is_message: bool) -> None:
        """The next byte is the first of an answer, which carries a message or does not; let the kernel stamp what is sent
        until `end_sending`.
        """
        if self._sends_message:
            self._message_left_ns = self._left_ns()
        self._sends_message = is_message
        if self._stamped is not None and self._stamped.fileno() >= 0:
            self._stamped.begin_sending()

    def end_sending(self) -> None:
        """Let the kernel stamp no more of what is sent."""
        if self._stamped is not None and self._stamped.fileno() >= 0:
            self._stamped.stamp_sending(False)

    @property
    def first_ns(self) -> int | None:
        """Raw clock when the request's first byte reached this host; None if the kernel does not say."""
        return None if self._stamped is None else self._stamped.first_ns

    @property
    def arrived_ns(self) -> int | None:
        """Raw clock when the last byte that was read reached this host; None if the kernel does not say."""
        return None if self._stamped is None else self._stamped.arrived_ns

    @property
    def began_ns(self) -> int | None:
        """Raw clock when the first byte since `begin_sending` left this host; None if the kernel has not said."""
        return None if self._stamped is None or self._stamped.fileno() < 0 else self._stamped.began_ns()

    @property
    def left_ns(self) -> int | None:
        """Raw clock when the last byte of the latest message left this host; None if the kernel does not say."""
        return self._left_ns() if self._sends_message else self._message_left_ns

    def _left_ns(self) -> int | None:
        return None if self._stamped is None or self._stamped.fileno() < 0 else self._stamped.left_ns()

    @property
    def congestion_control(self) -> str:
        """Name of the connection's congestion control."""
        return congestion_control(self._socket)


def protocol(algorithm: str) -> type[HttpToolsProtocol]:
    """The protocol class for `uvicorn.Config(http=...)`; connections get this congestion control if it is allowed."""

    class Protocol(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            sock = cast(socket.socket, transport.get_extra_info("socket"))
            set_congestion_control(sock, algorithm)
            if transport.get_extra_info("sslcontext") is not None:
                # As without TLS, where a write is done when all but 64 KiB are with the kernel; asyncio's TLS holds 512.
                transport.set_write_buffer_limits(high=UNWRITTEN_BYTES)
            self.connection = Connection(sock)
            self.connection.expect()  # with TLS there has been a handshake

        def shutdown(self) -> None:
            super().shutdown()
            if self.transport.is_closing() and self.transport.get_extra_info("sslcontext") is not None:
                # TLS would wait half a minute for a word of farewell that a client, who waits for nothing, does not send.
                self.loop.call_later(FAREWELL_S, self.transport.abort)

        def on_response_complete(self) -> None:
            self.connection.expect()
            super().on_response_complete()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            cast(dict[str, Any], self.scope)[SCOPE_KEY] = self.connection

    return Protocol
