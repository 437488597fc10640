"""Flower's own requests on their way through an outage, and at the end of the process that makes them."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.message_pb2 import Message, ObjectTree
from httpcore._backends.sync import SyncStream

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import ServerUnreachable
from fltestbed.flower.bound import BoundBackend, bound_client
from fltestbed.flower.node import FleetNode
from fltestbed.flower.node_key import NodeKey
from tests.waiting import wait_until


class Server:
    """Takes connections and answers nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                self.taken.append(self._listener.accept()[0])

    def close(self) -> None:
        """Be gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for sock in (*self.taken, self._listener):
            sock.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that is there, and silent."""
    server = Server()
    yield server
    server.close()


class Asker:
    """Asks in a thread; `problem` is what came of it."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self.problem: Exception | None = None
        self.thread = threading.Thread(target=self._ask, args=(client, url))
        self.thread.start()

    def _ask(self, client: httpx.Client, url: str) -> None:
        try:
            client.get(url)
        except httpx.TransportError as error:
            self.problem = error


def is_probed(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def test_a_transfer_under_way_asks_whether_the_server_is_there(server: Server) -> None:
    """Connections that stand and those that are opened within the block; after it a radio may sleep."""
    backend = BoundBackend("lo")
    host, port = "127.0.0.1", int(server.url.rpartition(":")[2].strip("/"))
    before = backend.connect_tcp(host, port)
    sockets = [before.get_extra_info("socket")]
    assert not is_probed(sockets[0])
    with backend.probing():
        later = backend.connect_tcp(host, port)
        sockets.append(later.get_extra_info("socket"))
        assert [is_probed(sock) for sock in sockets] == [True, True]
        assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 2
    assert [is_probed(sock) for sock in sockets] == [False, False]
    before.close()
    later.close()
    with backend.probing():  # closed ones do not matter
        pass


def test_who_waits_for_an_answer_is_woken(server: Server) -> None:
    """The answer would be waited for half a minute; the connection is broken from another thread."""
    backend = BoundBackend("lo")
    with bound_client(httpx.Timeout(30.0), None, backend, lambda _: None) as client:
        asker = Asker(client, server.url)
        wait_until(lambda: bool(server.taken) and bool(server.taken[0].recv(1)), "the request")
        backend.abandon()
        asker.thread.join(10.0)
        assert not asker.thread.is_alive()
    assert isinstance(asker.problem, httpx.TransportError)


def test_tls_puts_another_socket_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is known first has no descriptor any more when the handshake is over."""
    ours, theirs = socket.socketpair()
    inner = SyncStream(theirs)
    monkeypatch.setattr(SyncStream, "start_tls", lambda *_: inner)
    kept: list[socket.socket] = []
    backend = BoundBackend("lo")
    monkeypatch.setattr(backend, "keep", kept.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream: Any = backend.connect_tcp("127.0.0.1", listener.getsockname()[1])
        stream.start_tls(None)
        assert kept == [stream.get_extra_info("socket"), theirs]
        stream.close()
    ours.close()
    theirs.close()


def test_a_transfer_ends_with_its_server_and_an_introduction_does_not(tmp_path: Path) -> None:
    """Nobody listens at the port: the objects of a message are asked for once, a registration for as long as it may be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    node = FleetNode(f"127.0.0.1:{port}", NodeKey(tmp_path / "node.key", SYSTEM_CLOCK), None, "lo", patience_s=3600.0)
    asked: list[str] = []

    def counted(name: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def called(request: Any) -> Any:
            asked.append(name)
            return call(request)

        return called

    for name in ("PullObject", "RegisterNode"):
        setattr(node._client, name, counted(name, getattr(node._client, name)))
    tree = ObjectTree(object_id="a" * 64)
    with pytest.raises(ServerUnreachable, match="no answer while trying to pull an object"):
        node.pull_objects(1, (Message(), tree))
    assert asked == ["PullObject"]
    with pytest.raises(ServerUnreachable, match="no answer while trying to register"):
        node.register(0.1)
    assert asked[1:] == ["RegisterNode"] * 2
    node.close()
