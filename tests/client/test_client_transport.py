"""One connection, stamped at every end of an exchange, against a server that does as it is told."""

import http.client
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fltestbed.client.stamps import LateStamps
from fltestbed.client.told import ServerStamps, read_told
from fltestbed.client.transport import CONNECT_HEADER, START_BYTES, Reply, ServerConnection, refuse
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.errors import ServerRefused
from fltestbed.flower.node_key import NodeKey
from fltestbed.server.late_facts import read_late_facts

TIMEOUT_S = 5.0


def answering(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)


class Script:
    """A server: each connection reads one request for each of its answers, sends it, and closes after the last."""

    def __init__(self, connections: list[list[bytes]]) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections = connections
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answers in self._connections:
            sock, _ = self._listener.accept()
            with sock:
                for answer in answers:
                    self.requests.append(self._request(sock))
                    sock.sendall(answer)

    @staticmethod
    def _request(sock: socket.socket) -> bytes:
        got = b""
        while b"\r\n\r\n" not in got and (piece := sock.recv(65536)):
            got += piece
        head, _, body = got.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        while len(body) < length and (piece := sock.recv(65536)):
            body += piece
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        """Wait until every answer has been given."""
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(*connections: list[bytes]) -> Script:
        scripts.append(Script(list(connections)))
        return scripts[-1]

    yield start
    for script in scripts:
        script.close()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[Script], ServerConnection]]:
    """Connections whose clock gains 1 ns with each look; a wall clock in 1970 makes the kernel's stamps unbelievable."""
    ticks = itertools.count(1)
    clock = Clock(raw_ns=lambda: next(ticks), wall_ns=lambda: 0)
    opened: list[ServerConnection] = []

    def start(script: Script) -> ServerConnection:
        opened.append(ServerConnection(script.address, "lo", NodeKey(tmp_path / "node.key", Clock()), clock))
        return opened[-1]

    yield start
    for connection in opened:
        connection.close()


Serve = Callable[..., Script]
Connect = Callable[[Script], ServerConnection]


def test_stamps_are_in_the_order_in_which_things_happen(serve: Serve, connect: Connect) -> None:
    """Sent, handed over, answered, read; the first exchange opened the connection, the second found it open."""
    script = serve([answering(b"{}"), answering(b"{}")])
    connection = connect(script)
    first, second = (connection.post("pull", [b"ab", b"c"], TIMEOUT_S) for _ in range(2))
    assert first.send_ns < first.sent_ns < first.first_ns < first.end_ns < second.send_ns
    assert first.connect_ns > 0
    assert second.connect_ns == 0
    assert script.requests[0].endswith(b"\r\n\r\nabc")


def test_a_request_carries_its_own_stamps(serve: Serve, connect: Connect) -> None:
    """The header says how long connecting took, and eight bytes after the body when the header left."""
    script = serve([answering(b"{}")])
    connection = connect(script)
    reply = connection.post("push", [b"ab", b"c"], TIMEOUT_S, {"x-more": "7"}, tells_start=True)
    head, body = script.requests[0].split(b"\r\n\r\n", 1)
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /v1/fltestbed/client/push http/1.1"
    assert {f"{CONNECT_HEADER}: {reply.connect_ns}", "x-more: 7", f"content-length: {3 + START_BYTES}"} <= set(lines)
    assert body == b"abc" + reply.send_ns.to_bytes(START_BYTES, "big")


@pytest.mark.parametrize("size", [1, 64, 5_000_000])
def test_a_request_is_stamped_where_it_leaves_the_host(serve: Serve, tmp_path: Path, size: int) -> None:
    """By the kernel: its first bytes after the connection stood and before the server had them all, then its last ones,
    before the answer.
    """
    script = serve([answering(b"{}"), answering(b"{}")])
    connection = ServerConnection(script.address, "lo", NodeKey(tmp_path / "node.key", Clock()), Clock())
    connection.post("clock", [b"{}"], TIMEOUT_S)
    asked_ns = SYSTEM_CLOCK.raw_ns()
    reply = connection.post("push", [b"head", b"x" * size], TIMEOUT_S, tells_start=True)
    connection.close()
    assert int.from_bytes(script.requests[1][-START_BYTES:], "big") == reply.send_ns
    assert asked_ns < reply.send_ns <= reply.sent_ns < reply.first_ns <= reply.end_ns < SYSTEM_CLOCK.raw_ns()


def test_wire_bytes_contain_payload_and_headers(serve: Serve, connect: Connect) -> None:
    """Of the exchange alone: 200,000 bytes down are at least that on the wire, and at most 5% more on loopback."""
    body = b"x" * 200_000
    script = serve([answering(b"{}"), answering(body)])
    connection = connect(script)
    connection.post("pull", [b""], TIMEOUT_S)
    reply = connection.post("pull", [b""], TIMEOUT_S)
    assert bytes(reply.body) == body
    assert reply.before is not None
    assert reply.after is not None
    assert 200_000 < reply.after.wire_in_bytes - reply.before.wire_in_bytes < 210_000


def test_a_connection_that_the_server_closed_is_replaced(serve: Serve, connect: Connect) -> None:
    """The request on the dead connection fails, as nobody can know whether it was read; the next one opens another."""
    connection = connect(serve([answering(b"{}")], [answering(b"{}")]))
    connection.post("clock", [b"{}"], TIMEOUT_S)
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.post("clock", [b"{}"], TIMEOUT_S)
    assert connection.post("clock", [b"{}"], TIMEOUT_S).connect_ns > 0


def test_a_server_that_says_it_closes_is_believed(serve: Serve, connect: Connect) -> None:
    """After `Connection: close` the next request opens another connection."""
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    script = serve([closing], [closing])
    connection = connect(script)
    connection.post("clock", [b"{}"], TIMEOUT_S)
    try:
        assert connection.post("clock", [b"{}"], TIMEOUT_S).connect_ns > 0
    except AttributeError:
        connection.close()
        connection.post("clock", [b"{}"], TIMEOUT_S)  # the script waits for it
        raise


def test_an_answer_that_is_cut_is_an_error(serve: Serve, connect: Connect) -> None:
    """100 bytes announced, 40 sent: IncompleteRead, and the connection is not used again."""
    connection = connect(serve([answering(b"x" * 100)[:-60]], [answering(b"{}")]))
    with pytest.raises(http.client.IncompleteRead, match="40 bytes read, 60 more expected"):
        connection.post("pull", [b"{}"], TIMEOUT_S)
    assert connection.post("pull", [b"{}"], TIMEOUT_S).connect_ns > 0


def test_an_answer_that_never_begins_is_an_error(serve: Serve, connect: Connect) -> None:
    """The server closes in place of an answer."""
    with pytest.raises(http.client.RemoteDisconnected):
        connect(serve([b""])).post("pull", [b"{}"], TIMEOUT_S)


def test_a_silent_server_is_given_up(connect: Connect) -> None:
    """After the time that was given, not before it and not never."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = Script.__new__(Script)
        silent.address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            connect(silent).post("pull", [b"{}"], 0.1)


def test_what_the_server_says_when_it_says_no(serve: Serve, connect: Connect) -> None:
    """The reason it gave; without one, its status."""
    said = b'HTTP/1.1 400 Bad Request\r\ncontent-length: 21\r\n\r\n{"error": "too many"}'
    mute = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\n<ht>"
    connection = connect(serve([said, mute]))
    with pytest.raises(ServerRefused, match="the server refused: too many"):
        connection.post_json("join", {})
    with pytest.raises(ServerRefused, match="HTTP status 502"):
        connection.post_json("join", {})


def test_an_answer_that_is_not_an_object_is_refused_readably() -> None:
    """An error page that is JSON, but a list or a number, is not a traceback."""
    for body in (b"7", b"[1]", b"null"):
        with pytest.raises(ServerRefused):
            refuse(Reply(500, bytearray(body), 1, 2, 3, 4, 0, None, None))


def test_the_date_is_the_servers(serve: Serve, connect: Connect) -> None:
    """From its Date header, asked of /health."""
    script = serve([b"HTTP/1.1 200 OK\r\ndate: Sun, 15 Jun 2025 15:06:40 GMT\r\ncontent-length: 0\r\n\r\n"])
    assert connect(script).date(TIMEOUT_S) == "Sun, 15 Jun 2025 15:06:40 GMT"
    assert script.requests[0].startswith(b"GET /health")


def test_nobody_there_is_an_error(connect: Connect) -> None:
    """A port where nobody listens, and an interface that does not exist: OSError, for the session to explain."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = Script.__new__(Script)
        nobody.address = f"127.0.0.1:{listener.getsockname()[1]}"
    connection = connect(nobody)
    with pytest.raises(ConnectionRefusedError):
        connection.date(TIMEOUT_S)
    connection._interface = "no-such-if"
    with pytest.raises(OSError, match="No such device"):
        connection.date(TIMEOUT_S)


def test_congestion_control_is_asked_of_new_connections(serve: Serve, connect: Connect) -> None:
    """The name is the socket's own answer; empty without a connection."""
    connection = connect(serve([answering(b"{}")]))
    assert connection.congestion_control_in_use == ""
    connection.congestion_control = "reno"
    connection.post("clock", [b"{}"], TIMEOUT_S)
    assert connection.congestion_control_in_use == "reno"


def test_late_stamps_are_what_the_server_reads(serve: Serve, connect: Connect) -> None:
    """What the client gathers passes the server's own check, with every stamp in its place; it is handed out once."""
    script = serve([answering(b'{"server_receive_raw_ns": 70, "server_send_raw_ns": 71}')])
    reply = connect(script).post("clock", [b"{}"], TIMEOUT_S)
    late = LateStamps()
    late.clock_sample("clock", reply, read_told(ServerStamps, reply.data))
    late.downlink("m", reply)
    late.uplink("m", reply, "cubic")
    facts = read_late_facts(late.take())
    ((sample, _, _),) = facts.clock_samples
    assert (sample.client_send_raw_ns, sample.client_receive_raw_ns) == (reply.send_ns, reply.first_ns)
    assert (sample.server_receive_raw_ns, sample.server_send_raw_ns) == (70, 71)
    down, up = facts.transfers
    assert (down.client_start_raw_ns, down.client_end_raw_ns) == (reply.first_ns, reply.end_ns)
    assert (up.client_start_raw_ns, up.client_end_raw_ns, up.client_response_raw_ns) == (
        reply.send_ns, reply.sent_ns, reply.first_ns,
    )  # fmt: skip
    assert up.tcp is not None
    assert (up.new_connection, up.connect_s) == (True, reply.connect_ns / 1e9)
    assert not any(late.take().values())
