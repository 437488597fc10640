"""Flower's HTTP client over sockets that are bound to one interface."""

import socket
import ssl
from collections.abc import Callable, Iterable

import httpcore
import httpx
from httpcore._backends.sync import SyncStream

from fltestbed.flower.fleet_transport import FleetTransport

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
            return SyncStream(sock)
        if isinstance(problem, TimeoutError):
            raise httpcore.ConnectTimeout(problem) from problem
        raise httpcore.ConnectError(problem) from problem


def bound_client(timeout: httpx.Timeout, tls: ssl.SSLContext | None, interface: str, count: CountSocket) -> httpx.Client:
    """A client whose connections leave by one interface, past any proxy, and are kept when they are idle.

    Parameters
    ----------
    timeout : httpx.Timeout
    tls : ssl.SSLContext or None
        None for plain HTTP.
    interface : str
    count : callable (socket) -> None
        Shown the socket of each answer.
    """
    transport = FleetTransport(tls or PLAIN, KEEP_ALIVE_S)
    transport._pool = httpcore.ConnectionPool(  # httpx has no parameter for it
        ssl_context=tls, keepalive_expiry=KEEP_ALIVE_S, network_backend=BoundBackend(interface)
    )
    hooks = {"response": [lambda response: count(_socket_of(response))]}
    return httpx.Client(timeout=timeout, transport=transport, event_hooks=hooks, trust_env=False)


def _socket_of(response: httpx.Response) -> socket.socket | None:
    sock = response.extensions["network_stream"].get_extra_info("socket")
    return sock if isinstance(sock, socket.socket) else None
