"""The server with TLS and a list of keys, and clients with clocks that are right, behind and ahead."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.errors import HostError, ServerRefused
from fltestbed.flower.bundle import read_head
from fltestbed.flower.node_key import NodeKey
from fltestbed.measure.host import toolkit_versions
from fltestbed.security.folder import CertificateFolder
from fltestbed.security.node_keys import read_registered
from fltestbed.server.protocol import protocol
from tests.server.lab import Lab, Running
from tests.server.pi import TIMEOUT_S, Pi, collect, instruct, message_in

DAY_NS = 86400 * 10**9


@pytest.fixture
def certificates(tmp_path: Path) -> CertificateFolder:
    """For loopback, and the keys of pi-0 and pi-1 where those clients look for them."""
    folder = CertificateFolder(tmp_path / "certs", SYSTEM_CLOCK)
    folder.make(("127.0.0.1",), ("pi-0", "pi-1"), found=())
    for name in ("pi-0", "pi-1"):
        (tmp_path / name).mkdir()
        folder.node_key(name).rename(tmp_path / name / "node.key")
    return folder


@pytest.fixture
def secure(tmp_path: Path, certificates: CertificateFolder) -> Iterator[Running]:
    """A server that speaks TLS and takes those two keys."""
    lab = Lab(tmp_path, registered=read_registered(certificates.nodes))
    with contextlib.closing(lab.desk), Running(lab, certificates.server_context()) as running:
        yield running


@contextlib.contextmanager
def joined(running: Running, folder: Path, number: int, clock: Clock = SYSTEM_CLOCK) -> Iterator[Pi]:
    pi = Pi(running, folder, number, clock, folder / "certs" / "ca.crt")
    try:
        pi.join()
        yield pi
    finally:
        pi.leave()


@pytest.mark.parametrize("off_days", [-2, 0, 2])
def test_a_message_and_its_reply_cross_over_tls(secure: Running, tmp_path: Path, off_days: int) -> None:
    """From a client with a registered key, whose wall clock may be two days off; what is off is known to a second or two."""
    clock = Clock(wall_ns=lambda: SYSTEM_CLOCK.wall_ns() + off_days * DAY_NS)
    with joined(secure, tmp_path, 0, clock) as pi:
        assert pi.key.wall_offset_s == pytest.approx(-off_days * 86400, abs=2)
        (message_id,) = instruct(secure, secure.lab, pi.node_id)
        pulled = pi.pull()
        reply = pi.push(message_id, pi.facts(pulled), pi.answer(message_in(pulled), 0.25))
        assert reply.status == 200
        assert collect(secure, secure.lab, message_id).has_content()


def test_stamps_and_tcp_info_are_there_under_tls(secure: Running, tmp_path: Path) -> None:
    """Connecting includes the handshake and is no part of the exchange; bytes on the wire are TCP's, records included."""
    with joined(secure, tmp_path, 0) as pi:
        instruct(secure, secure.lab, pi.node_id)
        pi.connection.close()
        pulled = pi.pull()
        assert 0 < pulled.connect_ns < pulled.send_ns
        assert pulled.send_ns <= pulled.sent_ns <= pulled.first_ns <= pulled.end_ns
        assert pulled.before is not None
        assert pulled.after is not None
        received = pulled.after.data_in_bytes - pulled.before.data_in_bytes
        assert received > len(pulled.body) + 22  # at least one TLS record: 5 bytes of header, 1 of type, 16 of tag
        assert pulled.after.rtt_s > 0
        stamps = pi.connection.post_json("clock", {}).data
        assert stamps["server_receive_raw_ns"] <= stamps["server_send_raw_ns"]


def test_transfers_are_stamped_by_the_kernel_under_tls(secure: Running, tmp_path: Path) -> None:
    """At both ends and both ways; the first request after the handshake does not begin with the handshake."""
    with joined(secure, tmp_path, 0) as pi:
        instruct(secure, secure.lab, pi.node_id)
        pi.connection.close()
        asked_ns = SYSTEM_CLOCK.raw_ns()
        pulled = pi.pull()
        sock = pi.connection._socket
        assert sock is not None
        assert (sock.first_ns, sock.arrived_ns, sock.began_ns()) == (pulled.first_ns, pulled.end_ns, pulled.send_ns)
        received_ns = read_head(pulled.body)[0]["server_receive_raw_ns"]
        assert asked_ns + pulled.connect_ns < pulled.send_ns < received_ns < pulled.first_ns


def test_the_server_holds_no_more_under_tls_than_without() -> None:
    """Or its stamp of a downlink's end would be early by what asyncio's TLS holds back; plain connections are left alone."""
    assert limits_set(sslcontext=ssl.create_default_context()) == [64 * 1024]
    assert limits_set(sslcontext=None) == []


def limits_set(**extra: Any) -> list[int]:
    """What the server's protocol asks of a transport when a connection is made."""
    asked: list[int] = []

    async def make() -> None:
        config = uvicorn.Config(lambda: None, ws="none", lifespan="off", log_config=None)
        config.load()
        with socket.socket() as sock:
            transport = SimpleNamespace(
                get_extra_info=(extra | {"socket": sock}).get,
                set_write_buffer_limits=lambda **limits: asked.append(limits["high"]),
            )
            protocol("cubic")(config, ServerState(), {}).connection_made(cast(asyncio.Transport, transport))

    asyncio.run(make())
    return asked


def test_a_server_ends_beside_a_connection_that_is_closing(certificates: CertificateFolder) -> None:
    """Asyncio's TLS forgets its connection when it is closed twice; the server's end asks nothing of it and leaves none."""

    async def end() -> None:
        config, state = uvicorn.Config(lambda: None, ws="none", lifespan="off", log_config=None), ServerState()
        config.load()
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(
            lambda: protocol("cubic")(config, state, {}), "127.0.0.1", 0, ssl=certificates.server_context()
        )
        trust = ssl.create_default_context(cafile=certificates.ca_certificate)
        async with listening, asyncio.timeout(TIMEOUT_S):
            address = listening.sockets[0].getsockname()
            _, writer = await asyncio.open_connection(*address, ssl=trust)
            while not state.connections:
                await asyncio.sleep(0)
            (connection,) = state.connections
            connection.transport.close()
            connection.shutdown()
            while state.connections:
                await asyncio.sleep(0.01)
            writer.close()

    asyncio.run(end())


@pytest.mark.parametrize(
    "text",
    [b"POST /v1/fltestbed/client/hello HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(500), b"\xff" * 70_000],
    ids=["http", "half a hello", "noise"],
)
def test_what_is_no_tls_ends_there(secure: Running, tmp_path: Path, text: bytes) -> None:
    """An alert at most, and the connection is closed; a client that speaks TLS is served afterwards."""
    with socket.create_connection(("127.0.0.1", secure.port), TIMEOUT_S) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(text)
        sock.shutdown(socket.SHUT_WR)
        said = b""
        while piece := sock.recv(65536):
            said += piece
        assert len(said) < 100
        assert b"HTTP" not in said
    with joined(secure, tmp_path, 0) as pi:
        assert pi.pull().status == 204


def test_a_key_that_is_not_on_the_list_is_refused(secure: Running, tmp_path: Path) -> None:
    """With what to do; the node is not registered by asking."""
    with pytest.raises(ServerRefused, match=r"this client's key is not registered; add its public key \(node.pub\)"):
        Pi(secure, tmp_path, 2, ca=tmp_path / "certs" / "ca.crt")


def test_a_key_of_another_client_is_refused(secure: Running, tmp_path: Path) -> None:
    """pi-1 with the key of pi-0: both are named, at the first word and when it joins."""
    pi = Pi(secure, tmp_path, 0, ca=tmp_path / "certs" / "ca.crt")
    with pytest.raises(ServerRefused, match="this key is registered for pi-0, not for pi-1; give the client --name pi-0"):
        pi.connection.post_json("hello", {"versions": toolkit_versions(), "name": "pi-1"})
    pi.name = "pi-1"
    with pytest.raises(ServerRefused, match="registered for pi-0, not for pi-1"):
        pi.join()
    pi.leave()


def test_a_signature_of_another_key_is_refused(secure: Running, tmp_path: Path) -> None:
    """The public key of pi-1, signed with that of pi-0."""
    pi = Pi(secure, tmp_path, 0, ca=tmp_path / "certs" / "ca.crt")
    pi.key.public = NodeKey(tmp_path / "pi-1" / "node.key", SYSTEM_CLOCK).public
    pi.key.learn_time(pi.connection.date(TIMEOUT_S))  # it signs anew
    reply = pi.connection.post("hello", [b"{}"], TIMEOUT_S)
    assert (reply.status, reply.data) == (401, {"error": "Invalid SuperNode authentication"})
    pi.leave()


def test_a_key_is_kept_to_its_owner(tmp_path: Path) -> None:
    """A new one has mode 0600, and its public half beside it with its name; one that all can read is refused."""
    path = tmp_path / "state" / "node.key"
    key = NodeKey(path, SYSTEM_CLOCK, "pi-7")
    assert path.stat().st_mode & 0o777 == 0o600
    (registered,) = read_registered(path.with_suffix(".pub"))
    assert (registered.public, registered.name) == (key.public, "pi-7")
    path.chmod(0o604)
    key.release()
    with pytest.raises(HostError, match=r"node\.key: a secret that everybody on this host may read \(mode 0604\)"):
        NodeKey(path, SYSTEM_CLOCK)
