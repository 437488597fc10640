"""HTTP/1.1 as uvicorn speaks it, with the connection's socket within reach of the application.

An ASGI application sees requests, not connections. The stamps need both: TCP_INFO is the connection's, and so are the
congestion control and the kernel's stamps (`fltestbed.measure.kernel_stamps`).
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, cast

from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.tcp import TcpSnapshot, congestion_control, set_congestion_control, tcp_snapshot
from fltestbed.measure.tcp_path import STALL_S, PathState, abandon, path_state
from fltestbed.server.bounds import BoundedProtocol
from fltestbed.server.guests import Guest

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
        self._guest = inner if isinstance(inner, Guest) else None
        self._sends_message = False
        self._message_left_ns: int | None = None
        self._message_end = 0
        self.mark = tcp_snapshot(sock)
        """TCP_INFO when the connection was made, or when `set_mark` was last called."""
        self.requests = 0
        """How many requests of clients are under way."""
        self.ended: str | None = None
        """How the connection ended, in a few words; None while it stands."""
        self.last_path: PathState | None = None
        """The way to the other side when the connection ended."""
        self.last_snapshot: TcpSnapshot | None = None
        """TCP_INFO at that time."""

    def snapshot(self) -> TcpSnapshot | None:
        """TCP_INFO now, or when the connection ended."""
        snapshot = self.last_snapshot or tcp_snapshot(self._socket)
        return self._guest.last_snapshot if snapshot is None and self._guest is not None else snapshot

    @property
    def path(self) -> PathState | None:
        """The way to the other side now, or when the connection ended."""
        path = self.last_path or path_state(self._socket)
        return self._guest.last_path if path is None and self._guest is not None else path

    def end(self, reason: str) -> None:
        """The connection is no more; the first reason counts."""
        if self.ended is None:
            self.ended = reason
            self.last_path = self.path
            self.last_snapshot = self.snapshot()

    def abandon(self, reason: str) -> None:
        """Give the connection up: what is still to be sent is not sent any more, and its request ends."""
        self.end(reason)
        abandon(getattr(self._socket, "_sock", self._socket))

    def abandon_if_stalled(self) -> None:
        """Give the connection up when the client's host acknowledges nothing: TCP alone may wait far longer than the outage,
        and a client that is back finds out by its next probe and asks again.
        """
        path = None if self.ended is not None else path_state(self._socket)
        if path is not None and path.is_stalled(STALL_S):
            self.abandon(f"connection stalled: nothing acknowledged for {path.ack_silence_s:.1f} s")

    def begin_message(self, size_bytes: int) -> None:
        """The next bytes that are sent are a message, of so many bytes at least."""
        path = self.path
        self._message_end = 0 if path is None else path.acked_bytes + size_bytes

    @property
    def has_delivered(self) -> bool:
        """Whether the client's host has acknowledged all of the latest message; True where the kernel does not say.

        A connection that has ended holds nothing any more: then what was acknowledged by that time counts alone.
        """
        path = self.path
        if path is None:
            return True
        return path.acked_bytes >= self._message_end and (self.ended is not None or path.is_delivered)

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """A request of a client is under way within the block."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    def set_mark(self) -> None:
        """Remember TCP_INFO as it is now."""
        self.mark = self.snapshot()

    def prove(self, node_id: int) -> None:
        """A request on this connection was signed by a node that is known."""
        if self._guest is not None:
            self._guest.prove(node_id)

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
    def arrival_uncertainty_ns(self) -> int:
        """By how much `arrived_ns` may be too late."""
        return 0 if self._stamped is None else self._stamped.arrival_uncertainty_ns

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


def protocol(algorithm: str, longest_s: float = BoundedProtocol.transfer_s) -> type[BoundedProtocol]:
    """The protocol class for `uvicorn.Config(http=...)`; connections get this congestion control if it is allowed, and
    `longest_s` for a transfer.
    """

    class Protocol(BoundedProtocol):
        transfer_s = longest_s

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            sock = cast(socket.socket, transport.get_extra_info("socket"))
            set_congestion_control(sock, algorithm)
            self._has_tls = transport.get_extra_info("sslcontext") is not None
            if self._has_tls:
                # As without TLS, where a write is done when all but 64 KiB are with the kernel; asyncio's TLS holds 512.
                transport.set_write_buffer_limits(high=UNWRITTEN_BYTES)
            self.connection = Connection(sock)
            self.connection.expect()  # with TLS there has been a handshake

        def connection_lost(self, exc: Exception | None) -> None:
            self.connection.end(_how_it_ended(exc))
            super().connection_lost(exc)

        def _end(self) -> None:
            self.connection.end("the server's limit of time for a request was over")
            super()._end()

        def shutdown(self) -> None:
            # One that is closing already is not closed again: asyncio's TLS would then know nothing of its connection.
            if not (self._has_tls and self.transport.is_closing()):
                super().shutdown()
            if self._has_tls and self.transport.is_closing():
                # TLS would wait half a minute for a word of farewell that a client, who waits for nothing, does not send.
                self.loop.call_later(FAREWELL_S, self.transport.abort)

        def on_response_complete(self) -> None:
            self.connection.expect()
            super().on_response_complete()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            cast(dict[str, Any], self.scope)[SCOPE_KEY] = self.connection

    return Protocol


def _how_it_ended(error: Exception | None) -> str:
    if error is None:
        return "connection closed by the client"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset by the client"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    return f"connection broken: {error}"
