"""A stalled connection is given up; one that is merely slow, or waited on, is not."""

import gc
import socket
import threading
from collections.abc import Iterator

import pytest

from fltestbed.client import patience
from fltestbed.client.patience import StallGuard
from fltestbed.measure.tcp_path import PROBE_IDLE_S, PathState, path_state


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield client, server


def test_a_stalled_connection_wakes_who_reads_it(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent again and again, and nothing acknowledged for too long: the reader sees the end, and why is known."""
    client, _ = pair
    guard = StallGuard()
    guard.begin(client)
    guard.look()
    assert guard.reason is None
    monkeypatch.setattr(patience, "path_state", lambda _: PathState(4, 1000, 3, 3.25, 9.0, 0))
    guard.look()
    assert client.recv(1) == b""
    assert guard.reason == "stalled: the server's host acknowledged nothing for 3.2 s"
    guard.end()


@pytest.mark.parametrize(
    "path",
    [PathState(0, 90_000, 0, 60.0, 60.0, 0), PathState(4, 0, 0, 60.0, 60.0, 0), PathState(4, 0, 3, 2.9, 60.0, 0)],
    ids=["its window is closed", "nothing was sent twice", "not for long"],
)
def test_what_may_still_come_is_waited_for(path: PathState) -> None:
    """A receiver that is stopped or slow acknowledges what it has; a long way may take its time."""
    assert not path.is_stalled(3.0)
    assert PathState(4, 0, 3, 3.0, 60.0, 0).is_stalled(3.0)


def test_an_idle_connection_is_not_probed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Between two requests a radio may sleep: the kernel asks for the other host while a request is under way alone."""
    client, _ = pair
    guard = StallGuard()
    guard.begin(client)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == PROBE_IDLE_S
    guard.end()
    assert not client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_the_kernel_says_what_is_delivered(pair: tuple[socket.socket, socket.socket]) -> None:
    """What the other host has acknowledged; nothing of a socket that is closed."""
    client, server = pair
    client.sendall(b"x" * 100)
    assert server.recv(100) == b"x" * 100
    server.sendall(b"y")
    assert client.recv(1) == b"y"  # with it came the acknowledgement
    path = path_state(client)
    assert path is not None
    assert path.is_delivered
    client.close()
    assert path_state(client) is None


def test_the_guard_ends_with_its_connection(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread is left that watches for nobody."""
    monkeypatch.setattr(patience, "LOOK_S", 0.01)
    guard = StallGuard()
    guard.begin(pair[0])
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "stall-guard" and thread is guard._thread]
    guard.end()
    del guard
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
