"""HTTP/1.1 as uvicorn speaks it, with the connection's socket within reach of the application.

An ASGI application sees requests, not connections. The stamps need both: TCP_INFO is the connection's, and so is the
congestion control.
"""

import socket
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fltestbed.measure.tcp import TcpSnapshot, congestion_control, set_congestion_control, tcp_snapshot

SCOPE_KEY = "fltestbed.connection"
UNWRITTEN_BYTES = 64 << 10
FAREWELL_S = 0.2
"""For the last bytes of an answer, once the server has closed a connection."""


class Connection:
    """One TCP connection of the server."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.mark = tcp_snapshot(sock)
        """TCP_INFO when the connection was made, or when `set_mark` was last called."""

    def snapshot(self) -> TcpSnapshot | None:
        """TCP_INFO now; None when the connection is closed."""
        return tcp_snapshot(self._socket)

    def set_mark(self) -> None:
        """Remember TCP_INFO as it is now."""
        self.mark = self.snapshot()

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

        def shutdown(self) -> None:
            super().shutdown()
            if self.transport.is_closing() and self.transport.get_extra_info("sslcontext") is not None:
                # TLS would wait half a minute for a word of farewell that a client, who waits for nothing, does not send.
                self.loop.call_later(FAREWELL_S, self.transport.abort)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            cast(dict[str, Any], self.scope)[SCOPE_KEY] = self.connection

    return Protocol
