"""One HTTP connection to the server, kept open, with a stamp at every end of an exchange.

Stamps are of the client's CLOCK_MONOTONIC_RAW:

``send_ns``
    The first byte of the request left this host, by the kernel's stamp; where there is none by the time that the last bytes
    are written, it was about to be handed to the kernel (the connection stands by then).
``sent_ns``
    The last byte of the request left this host for the first time, by the kernel's stamp; where the kernel gives none, it
    was handed to the kernel, which may still hold up to a send buffer of it.
``first_ns``
    The first byte of the response reached this host, by the kernel's stamp; where there is none, its header was read.
``end_ns``
    The last byte of the response reached this host, by the kernel's stamp; where there is none, it was read.
    `end_uncertainty_ns`: by how much that may be too late.

What the kernel's stamps are, and how they come to the raw clock, stands in `fltestbed.measure.kernel_stamps`.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fltestbed.client.patience import CONNECT_S, StallGuard
from fltestbed.client.response import MOST_BYTES, MOST_CONTROL_BYTES, read_body
from fltestbed.client.tls_socket import TlsSocket
from fltestbed.clock import Clock
from fltestbed.errors import ServerRefused
from fltestbed.flower.node_key import NodeKey
from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.tcp import TcpSnapshot, congestion_control, set_congestion_control, tcp_snapshot
from fltestbed.text import printable

PREFIX = "/v1/fltestbed/client/"
CONNECT_HEADER = "x-fltestbed-connect-ns"
REPLY_TO_HEADER = "x-fltestbed-reply-to"
ATTEMPT_HEADER = "x-fltestbed-attempt"
FIRST_SEND_HEADER = "x-fltestbed-first-send-raw-ns"
STAMPED_BYTES = 64
START_BYTES = 8
"""Of `send_ns` at the end of a body, big-endian: it is not known before the body is under way."""
MOST_REASON = 500
LONGEST_ANSWER_S = 3600.0
"""For the body of an answer that comes all the time, however slowly; the round's deadline is the server's to keep."""


@dataclass(frozen=True)
class Broken:
    """An attempt to send a request that failed.

    Attributes
    ----------
    start_ns : int or None
        When it began to be sent; None if no connection stood.
    end_ns : int
        When it was given up, or refused.
    reason : str
        The symptom.
    was_answered : bool
        The server has refused what came, and the connection stands.
    """

    start_ns: int | None
    end_ns: int
    reason: str
    was_answered: bool = False


@dataclass(frozen=True)
class Reply:
    """The answer to one request, and everything that the client knows of the exchange."""

    status: int
    body: bytearray
    send_ns: int
    sent_ns: int
    first_ns: int
    end_ns: int
    connect_ns: int
    """Time that was needed to open a connection; 0 when there was one."""
    before: TcpSnapshot | None
    after: TcpSnapshot | None
    end_uncertainty_ns: int = 0

    @property
    def data(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises
        ------
        ServerRefused
            It is none.
        """
        try:
            return dict(json.loads(self.body))
        except (ValueError, TypeError, RecursionError) as error:
            text = printable(bytes(self.body[:60]).decode(errors="replace"))
            raise ServerRefused(f"the server's answer is not JSON but {text!r}; does it run fltestbed?") from error


class ServerConnection:
    """The client's connection to the server, over one interface.

    Parameters
    ----------
    server : str
        host:port.
    interface : str
        The socket is bound to this interface: what it sends leaves there or not at all.
    key : NodeKey
        Signs the requests.
    clock : Clock
    tls : ssl.SSLContext or None
        None speaks plain HTTP. With TLS the stamps are of the encrypted bytes; the handshake belongs to `connect_ns`.
    count : callable (socket) -> None
        Shown each socket after an exchange and before it is closed.
    """

    def __init__(
        self,
        server: str,
        interface: str,
        key: NodeKey,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        count: Callable[[socket.socket | None], None] = lambda _: None,
    ) -> None:
        host, _, port = server.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._interface = interface
        self._key = key
        self._clock = clock
        self._tls = tls
        self._count = count
        self._http: http.client.HTTPConnection | None = None
        self.send_ns = 0
        """`send_ns` of the latest request as far as it came, whether it was answered or not."""
        self.broken: Broken | None = None
        """The latest request that got no answer."""
        self._guard = StallGuard()
        self.is_measured = True
        """Off, the kernel stamps nothing, no TCP_INFO is read and no stamp is told."""
        self.congestion_control = ""
        """Asked of new connections; empty leaves the host's own."""

    def date(self, timeout_s: float) -> str:
        """The server's Date header: shows that it is there, and what time it thinks it is."""
        try:
            connection = self._connect(timeout_s)
            connection.request("GET", "/health")
            response = connection.getresponse()
            read_body(response, MOST_CONTROL_BYTES, timeout_s)
            return response.getheader("date", "")
        finally:
            self._guard.end()

    def post(
        self,
        path: str,
        body: Sequence[bytes | memoryview],
        timeout_s: float,
        headers: dict[str, str] | None = None,
        *,
        tells_start: bool = False,
    ) -> Reply:
        """Send one request and read its answer. Its headers carry `connect_ns`.

        Parameters
        ----------
        path : str
            Below the toolkit's client routes.
        body : sequence of bytes
            Sent one after the other.
        timeout_s : float
            Longest silence of the socket.
        tells_start : bool
            `send_ns` follows the body, in `START_BYTES`.

        Raises
        ------
        OSError, http.client.HTTPException
            The connection broke; it is closed, and the next request opens another.
        """
        before_ns = self.send_ns
        try:
            return self._exchange(path, body, timeout_s, headers or {}, tells_start)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            start_ns = self.send_ns if self.send_ns != before_ns else None
            self.broken = Broken(start_ns, self._clock.raw_ns(), self._guard.reason or str(error) or type(error).__name__)
            raise
        finally:
            self._guard.end()

    def post_json(self, path: str, facts: dict[str, Any], timeout_s: float = 30.0) -> Reply:
        """Send a JSON object; an answer that is not 2xx is raised.

        Raises
        ------
        ServerRefused
            With the server's own reason.
        """
        reply = self.post(path, [json.dumps(facts).encode()], timeout_s)
        refuse(reply)
        return reply

    @property
    def congestion_control_in_use(self) -> str:
        """What the open connection uses; empty without one."""
        return congestion_control(self._socket) if self._socket is not None else ""

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._http is not None:
            self._count(self._socket)
            self._http.close()
            self._http = None

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._http is None or self._http.sock is None:  # never opened, or closed at the server's wish
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
            connection._create_connection = self._open  # type: ignore[attr-defined]  # its documented hook has no name
            connection.connect()
            self._http = connection
        self._http.sock.settimeout(timeout_s)
        if self._socket is not None:
            self._guard.begin(self._socket)
        return self._http

    @property
    def _socket(self) -> StampedSocket | None:
        """The open connection's."""
        sock = cast(StampedSocket | TlsSocket | None, self._http.sock if self._http is not None else None)
        return sock.stamped if isinstance(sock, TlsSocket) else sock

    def _open(self, address: tuple[str, int], timeout: float, source: object) -> StampedSocket | TlsSocket:
        sock = self._create_socket(address, timeout, source)
        if self._tls is None:
            return sock
        try:
            name = self._host.partition("%")[0]  # no certificate names the interface of a link-local address
            return TlsSocket(sock, self._tls, name)
        except BaseException:
            sock.close()
            raise

    def answers_with_tls(self, timeout_s: float) -> bool:
        """Whether somebody speaks TLS at the server's address; nothing is sent to him and nothing believed."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with context.wrap_socket(self._create_socket((self._host, self._port), timeout_s, None)):
                return True
        except OSError:
            return False

    def _create_socket(self, address: tuple[str, int], timeout: float, _: object) -> StampedSocket:
        problem: OSError = OSError(f"{self._host} has no address")
        for family, kind, number, _name, target in socket.getaddrinfo(self._host, address[1], type=socket.SOCK_STREAM):
            sock = StampedSocket(family, kind, number, clock=self._clock)
            try:
                sock.settimeout(min(timeout, CONNECT_S))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
                if self.congestion_control:
                    set_congestion_control(sock, self.congestion_control)
                sock.connect(target)
                sock.settimeout(timeout)
            except OSError as error:
                sock.close()
                problem = error
                continue
            return sock
        raise problem

    def _exchange(
        self, path: str, body: Sequence[bytes | memoryview], timeout_s: float, headers: dict[str, str], tells_start: bool
    ) -> Reply:
        was_open = self._http is not None and self._http.sock is not None
        start_ns = self._clock.raw_ns()
        connection = self._connect(timeout_s)
        connect_ns = 0 if was_open else self._clock.raw_ns() - start_ns
        length = sum(len(part) for part in body) + tells_start * START_BYTES
        fields = {**self._key.headers(), **headers, "content-length": str(length)}
        sock = self._stamped()
        before = tcp_snapshot(sock) if sock is not None else None
        if self.is_measured:
            fields[CONNECT_HEADER] = str(connect_ns)
        if sock is not None:
            sock.begin_sending()
        self.send_ns = self._clock.raw_ns()
        connection.request("POST", PREFIX + path, body=self._pieces(sock, body, tells_start), headers=fields)
        handed_ns = self._clock.raw_ns()
        response = connection.getresponse()
        first_ns = (sock and sock.first_ns) or self._clock.raw_ns()
        sent_ns = (sock and sock.left_ns()) or handed_ns
        if sock is not None:
            sock.stamp_sending(False)
        content = read_body(response, MOST_BYTES.get(path, MOST_CONTROL_BYTES), LONGEST_ANSWER_S)
        end_ns = (sock and sock.arrived_ns) or self._clock.raw_ns()
        late_ns = sock.arrival_uncertainty_ns if sock is not None else 0
        after = tcp_snapshot(sock) if sock is not None else None
        self._count(self._socket)
        return Reply(response.status, content, self.send_ns, sent_ns, first_ns, end_ns, connect_ns, before, after, late_ns)

    def _stamped(self) -> StampedSocket | None:
        """The connection's socket, if this round is measured."""
        sock = self._socket
        if sock is None:
            return None
        sock.switch(self.is_measured)
        sock.expect()
        return sock if self.is_measured else None

    def _pieces(
        self, sock: StampedSocket | None, body: Sequence[bytes | memoryview], tells_start: bool
    ) -> Iterator[bytes | memoryview]:
        """The pieces of a body. Of a stamped socket the header, which has been written by now, and the last few bytes are
        stamped; each is a write of its own.
        """
        if sock is not None:
            sock.stamp_sending(False)
        last = memoryview(body[-1])
        yield from body[:-1]
        yield last[:-STAMPED_BYTES]
        if sock is not None:
            self.send_ns = sock.began_ns() or self.send_ns
            sock.stamp_sending(True)
        end = bytes(last[-STAMPED_BYTES:])
        yield end + self.send_ns.to_bytes(START_BYTES, "big") if tells_start else end


class SessionLost(ServerRefused):
    """The server does not know this client (any more), or has failed: only a new introduction can help.

    Attributes
    ----------
    is_over : bool
        Whether the run's session on the server has ended: the server has to be started again first.
    """

    def __init__(self, reason: str, *, is_over: bool = False) -> None:
        super().__init__(reason)
        self.is_over = is_over


def refuse(reply: Reply) -> None:
    """Raise what the server said when it said no.

    Raises
    ------
    SessionLost
        It does not know this client: it has been started again since this client joined. Or it has failed.
    ServerRefused
        Any other reason.
    """
    if reply.status >= http.client.BAD_REQUEST:
        reason = said_no(reply)
        if reply.status == http.client.INTERNAL_SERVER_ERROR:
            raise SessionLost(f"the server has failed: {reason}", is_over=True)
        if reply.status == http.client.UNAUTHORIZED:
            raise SessionLost(f"the server refused: {reason}")
        raise ServerRefused(f"the server refused: {reason}")


def said_no(reply: Reply) -> str:
    """Why the server said no, in its own words, on one line."""
    try:
        return printable(str(reply.data["error"]), MOST_REASON)
    except (ServerRefused, KeyError):
        return f"HTTP status {reply.status}"
