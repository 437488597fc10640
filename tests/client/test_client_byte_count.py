"""What an interface carried against what the client's sockets did, by hand and over real links."""

import socket
import threading
from typing import Any

import pytest

from fltestbed.client.byte_count import ByteCount, Bytes, SocketBytes, find_mismatch
from fltestbed.links.privilege import may_make_namespaces
from tests.client.three_networks import three_networks

MB = 10**6


@pytest.mark.parametrize(
    ("counted", "says"),
    [
        (Bytes(100 * MB, 50 * MB), None),
        (Bytes(95 * MB, 48 * MB), None),
        (Bytes(104 * MB, 52 * MB), None),
        (Bytes(90 * MB, 50 * MB), "sent 100000000 bytes, but wifi0 counted 90000000: the rest left by eth0"),
        (Bytes(100 * MB, 0), "received 50000000 bytes, but wifi0 counted 0: the rest came in another way"),
        (Bytes(125 * MB, 50 * MB), "wifi0 sent 25000000 bytes that were not the client's (20% of all)"),
        (Bytes(100 * MB, 100 * MB), "wifi0 received 50000000 bytes that were not the client's (50% of all)"),
    ],
)
def test_mismatch_is_told_with_what_is_missing(counted: Bytes, says: str | None) -> None:
    """Up to 6% may be missing and up to 5% more be there; of 100 MB sent, 10 MB are at eth0."""
    assert find_mismatch("wifi0", Bytes(100 * MB, 50 * MB), counted, {"eth0": Bytes(10 * MB, MB)}) == says


def test_little_is_of_no_consequence() -> None:
    """A run of a few kilobytes beside a login by ssh is not marked; 70 kB that are nowhere are."""
    assert find_mismatch("wifi0", Bytes(60_000, 0), Bytes(0, 900_000), {}) is None
    assert find_mismatch("wifi0", Bytes(70_000, 0), Bytes(0, 0), {}) is not None


def test_sockets_are_added_up_once() -> None:
    """Two sockets, one of them read twice and then closed: each byte counts once, its headers with it."""
    count = SocketBytes()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as first, listener.accept()[0] as peer:
            first.sendall(bytes(MB // 100))
            count.take(first)
            first.sendall(bytes(MB // 100))
            assert len(_read(peer, 20_000)) == 20_000
            count.take(first)
        with socket.create_connection(listener.getsockname()) as second, listener.accept()[0] as peer:
            second.sendall(bytes(5000))
            assert len(_read(peer, 5000)) == 5000
            count.take(second)
            sent = count.total().sent
    assert 25_000 < sent < 25_000 + 40 * 80
    count.take(None)
    assert count.total().sent == sent


def _read(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += sock.recv(length - len(data))
    return data


def _carry(length: int, interface: str) -> dict[str, Any]:
    """Send and receive `length` bytes over an interface, whatever the route, and count against wifi0."""
    count = ByteCount("wifi0")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.connect((f"10.0.{int(interface == 'wifi0')}.1", 9000))
        sender = threading.Thread(target=sock.sendall, args=(bytes(length),))
        sender.start()
        assert len(_read(sock, length)) == length
        sender.join()
        count.sockets.take(sock)
    return count.describe()


def _echo(length: int) -> threading.Thread:
    listener = socket.create_server(("0.0.0.0", 9000))

    def echo() -> None:
        with listener, listener.accept()[0] as peer:
            left = length
            while left:
                data = peer.recv(min(left, 1 << 16))
                peer.sendall(data)
                left -= len(data)
            peer.recv(1)

    thread = threading.Thread(target=echo)
    thread.start()
    return thread


@pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")
@pytest.mark.parametrize(("interface", "mismatch"), [("wifi0", None), ("eth0", "the rest left by eth0")])
def test_an_interface_that_carried_nothing_is_found_out(interface: str, mismatch: str | None) -> None:
    """3 MB there and back over real links, with segmentation offload: they match wifi0 if they went there alone."""
    with three_networks() as networks:
        echo = networks.host.call(_echo, 3 * MB)
        told = networks.pi.call(_carry, 3 * MB, interface)
        echo.join()
    interfaces = told["interfaces"]
    assert set(interfaces) == {"eth0", "wifi0", "wwan0"}
    assert interfaces[interface]["sent_bytes"] > 3 * MB
    others = [carried["sent_bytes"] for name, carried in interfaces.items() if name != interface]
    assert max(others) < 0.01 * 3 * MB
    assert (told["mismatch"] or "").endswith(mismatch or "")
    assert (told["mismatch"] is None) == (mismatch is None)
