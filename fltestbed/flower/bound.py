"""Flower's HTTP client over sockets that are bound to one interface."""

import contextlib
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator

import httpcore
import httpx
from httpcore._backends.sync import SyncStream

from fltestbed.flower.fleet_transport import FleetTransport
from fltestbed.measure.tcp_path import probe_while_waiting

KEEP_ALIVE_S = 3600.0
USER_TIMEOUT = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4000)
"""A connection on which nothing sent has been acknowledged for so many ms breaks, which TCP alone would do after minutes."""
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP, where httpx asks for one all the same and would read all of the host's certificates: trusts nobody."""
CountSocket = Callable[[socket.socket | None], None]


class BoundBackend(httpcore.SyncBackend):
    """Opens connections from one interface: what they send leaves there or not at all, their first packet included.

    httpcore itself sets a socket's options when it is connected, which is too late.

    Parameters
    ----------
    interface : str
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface.encode()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()  # objects are pulled by several threads
        self._is_probing = False

    @contextlib.contextmanager
    def probing(self) -> Iterator[None]:
        """Within the block the kernel asks, on every connection, whether the server's host is there while nothing comes.

        A request that was acknowledged and an answer that got lost in an outage leave nothing to be sent again here, and the
        server's TCP may wait for as long again as the outage took.
        """
        self._probe(True)
        try:
            yield
        finally:
            self._probe(False)

    def _probe(self, on: bool) -> None:
        self._is_probing = on
        for sock in self._all():
            with contextlib.suppress(OSError):  # one that has just been closed
                probe_while_waiting(sock, on)

    def _all(self) -> list[socket.socket]:
        with self._lock:
            return list(self._open)

    def abandon(self) -> None:
        """Break every connection: whoever waits for an answer is woken."""
        for sock in self._all():
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # past TLS, which would let a thread go on in plain text

    def keep(self, sock: socket.socket) -> None:
        """Know a connection that was opened."""
        with self._lock:
            self._open.add(sock)
        if self._is_probing:
            probe_while_waiting(sock, True)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002  # httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002  # httpcore's signature
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the host that answers."""
        problem: OSError = OSError(f"{host} has no address")
        try:
            targets = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(error) from error
        for family, kind, number, _, target in targets:
            sock = socket.socket(family, kind, number)
            try:
                sock.settimeout(timeout)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(*USER_TIMEOUT)
                sock.connect(target)
            except OSError as error:
                sock.close()
                problem = error
                continue
            return _Stream(sock, self.keep)
        if isinstance(problem, TimeoutError):
            raise httpcore.ConnectTimeout(problem) from problem
        raise httpcore.ConnectError(problem) from problem


class _Stream(SyncStream):
    """A connection whose socket is known, also when TLS has put another in its place."""

    def __init__(self, sock: socket.socket, keep: Callable[[socket.socket], None]) -> None:
        super().__init__(sock)
        self._keep = keep
        keep(sock)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """As httpcore does it."""
        stream = super().start_tls(ssl_context, server_hostname, timeout)
        self._keep(stream.get_extra_info("socket"))
        return stream


def bound_client(
    timeout: httpx.Timeout, tls: ssl.SSLContext | None, backend: BoundBackend, count: CountSocket
) -> httpx.Client:
    """A client whose connections leave by one interface, past any proxy, and are kept when they are idle.

    Parameters
    ----------
    timeout : httpx.Timeout
    tls : ssl.SSLContext or None
        None for plain HTTP.
    backend : BoundBackend
        Opens them.
    count : callable (socket) -> None
        Shown the socket of each answer.
    """
    transport = FleetTransport(tls or PLAIN, KEEP_ALIVE_S)
    transport._pool = httpcore.ConnectionPool(  # httpx has no parameter for it
        ssl_context=tls, keepalive_expiry=KEEP_ALIVE_S, network_backend=backend
    )
    hooks = {"response": [lambda response: count(_socket_of(response))]}
    return httpx.Client(timeout=timeout, transport=transport, event_hooks=hooks, trust_env=False)


def _socket_of(response: httpx.Response) -> socket.socket | None:
    sock = response.extensions["network_stream"].get_extra_info("socket")
    return sock if isinstance(sock, socket.socket) else None
