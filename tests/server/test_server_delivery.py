"""Whether a client's host has got a message, as the server's connection tells over real TCP."""

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.flower.bundle import Bundle
from fltestbed.measure.tcp_path import path_state
from fltestbed.security.folder import CertificateFolder
from fltestbed.server.listening import listen
from fltestbed.server.protocol import Connection
from fltestbed.server.tasks import Symptom
from tests.flower.flower_messages import instruction, tensors
from tests.server.lab import Lab, Running
from tests.server.pi import Pi, header_text
from tests.waiting import wait_until

BUFFER_BYTES = 16 << 10
MESSAGE_BYTES = 256 << 10
PARAMETERS = 2_000_000
"""8 MB, more than any buffer on the way holds."""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end of a connection, which takes a whole message, and the client's, which takes a part of it."""
    with listen("127.0.0.1", 0) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_BYTES)
            yield server, client


def test_a_message_is_delivered_when_the_other_host_has_acknowledged_it(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """The kernel here took all of it at once; a client that reads nothing gets as much as its buffers hold."""
    server, client = ends
    connection = Connection(server)
    assert connection.has_delivered  # nothing was sent
    connection.begin_message(MESSAGE_BYTES)
    server.sendall(bytes(MESSAGE_BYTES))
    assert not connection.has_delivered
    read_bytes = 0
    while read_bytes < MESSAGE_BYTES:
        read_bytes += len(client.recv(1 << 16))
    wait_until(lambda: connection.has_delivered, "the last acknowledgement")
    connection.begin_message(1)
    assert not connection.has_delivered


def test_a_connection_that_was_reset_has_delivered_what_it_had(ends: tuple[socket.socket, socket.socket]) -> None:
    """The kernel throws away what was in flight: nothing waits to be acknowledged any more, and yet it never was."""
    server, client = ends
    connection = Connection(server)
    connection.begin_message(MESSAGE_BYTES)
    server.sendall(bytes(MESSAGE_BYTES))
    client.close()  # with bytes that were not read: a reset
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    connection.end("connection reset by the client")
    path = connection.path
    assert path is not None
    assert path.unacked_segments == 0
    assert 0 < path.acked_bytes < MESSAGE_BYTES
    connection.last_path = replace(path, unsent_bytes=0)
    assert not connection.has_delivered


def test_a_socket_that_is_closed_already_has_left_word(ends: tuple[socket.socket, socket.socket]) -> None:
    """As with TLS, where the end of a connection is told afterwards: what was acknowledged by then counts."""
    server, _ = ends
    connection = Connection(server)
    connection.begin_message(MESSAGE_BYTES)
    server.sendall(bytes(MESSAGE_BYTES))
    server.close()
    connection.end("connection reset by the client")
    assert not connection.has_delivered
    assert connection.last_snapshot is not None


def test_one_that_had_delivered_before_it_was_closed_has(ends: tuple[socket.socket, socket.socket]) -> None:
    """A client that is gone while it trains: nobody has looked since its host acknowledged the last byte."""
    server, client = ends
    connection = Connection(server)
    connection.begin_message(BUFFER_BYTES // 4)
    server.sendall(bytes(BUFFER_BYTES // 4))
    received = client.recv(BUFFER_BYTES // 4, socket.MSG_WAITALL)
    wait_until(lambda: (path := path_state(server)) is not None and path.unacked_segments == 0, "the last acknowledgement")
    server.close()
    connection.end("connection closed by the client")
    assert len(received) == BUFFER_BYTES // 4
    assert connection.has_delivered


@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "tls"])
def test_a_client_that_is_gone_in_its_downlink_is_missed_there(tmp_path: Path, lab: Lab, has_tls: bool) -> None:
    """Of 8 MB it has read a kilobyte when its connection is reset; what uvicorn throws away then was not sent."""
    certificates = CertificateFolder(tmp_path / "certs", SYSTEM_CLOCK)
    if has_tls:
        certificates.make(("127.0.0.1",), found=())
    with Running(lab, certificates.server_context() if has_tls else None) as running:
        pi = Pi(running, tmp_path, 0, ca=certificates.ca_certificate if has_tls else None)
        pi.join()
        bundle = Bundle.of([instruction(pi.node_id, tensors(1, PARAMETERS))])
        (message_id,) = running.call(lab.exchange.send, bundle)
        running.call(lab.log.sent, 1, "train", [(message_id, pi.node_id, lab.roster.client(pi.node_id))], 1, 2)
        context = ssl.create_default_context(cafile=certificates.ca_certificate) if has_tls else None
        break_off(running, header_text(pi, "pull", **{"content-length": "2"}) + b"{}", context)

        def symptom() -> Symptom:
            task = lab.log.task_of(message_id)
            assert task is not None
            seen: Symptom = running.call(lab.presence.observe, task)
            return seen

        wait_until(lambda: symptom().kind.startswith("connection"), "the server to see the reset")
        assert symptom().phase == "downlink"
        pi.leave()


def break_off(running: Running, request: bytes, context: ssl.SSLContext | None) -> None:
    """Send a request, read the first of its answer, and reset the connection."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        sock.connect(("127.0.0.1", running.port))
        if context is not None:
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
        sock.sendall(request)
        assert sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
