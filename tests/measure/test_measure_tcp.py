"""TCP_INFO of real connections over loopback."""

import ctypes
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fltestbed.measure.tcp import (
    TcpSnapshot,
    _TcpInfo,
    congestion_control,
    out_of_order_packets,
    sender_columns,
    set_congestion_control,
    tcp_settings,
    tcp_snapshot,
)
from tests.waiting import wait_until

PAYLOAD = 300_000
HEADERS = 14 + 20 + 32  # Ethernet, IPv4, TCP with timestamps
JIFFY_S = 0.01
"""Of the coarsest kernel: TCP counts idle time in them."""


def snapshot_of(sock: socket.socket) -> TcpSnapshot:
    snapshot = tcp_snapshot(sock)
    assert snapshot is not None
    return snapshot


def connect(family: socket.AddressFamily, address: str) -> tuple[socket.socket, socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
    return client, server


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, server = connect(socket.AF_INET, "127.0.0.1")
    with client, server:
        yield client, server


def send(source: socket.socket, target: socket.socket, count: int) -> None:
    """Move `count` bytes and wait until the last is acknowledged."""
    at = 0
    while at < count:
        source.sendall(b"x" * min(50_000, count - at))
        at += min(50_000, count - at)
        got = 0
        while got < min(50_000, count):
            got += len(target.recv(65536))
            if at == count and got >= count % 50_000 > 0:
                break
    wait_until(lambda: not _info(source).unacked)


def _info(sock: socket.socket) -> _TcpInfo:
    return _TcpInfo.from_buffer_copy(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ctypes.sizeof(_TcpInfo)))


def test_the_structure_is_a_prefix_of_the_kernels(pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel gives at least as many bytes, and its fields stand where linux/tcp.h puts them."""
    raw = pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1024)
    assert ctypes.sizeof(_TcpInfo) == 232 <= len(raw)
    offsets = {
        name: getattr(_TcpInfo, name).offset for name in ("rto", "rtt", "total_retrans", "bytes_acked", "rcv_ooopack")
    }
    assert offsets == {"rto": 8, "rtt": 68, "total_retrans": 100, "bytes_acked": 120, "rcv_ooopack": 224}
    assert out_of_order_packets(pair[0]) == 0


def test_bytes_are_payload_and_headers(pair: tuple[socket.socket, socket.socket]) -> None:
    """300,000 bytes in segments: the payload exactly, and 66 bytes of headers for each segment that carried data."""
    client, server = pair
    sent, received, info = snapshot_of(client), snapshot_of(server), _info(client)
    send(client, server, PAYLOAD)
    sent_after, received_after, info_after = snapshot_of(client), snapshot_of(server), _info(client)
    segments = info_after.data_segs_out - info.data_segs_out
    assert info_after.bytes_sent - info.bytes_sent - (info_after.bytes_retrans - info.bytes_retrans) == PAYLOAD
    assert sent_after.retransmissions == 0
    assert segments >= PAYLOAD // 65_535
    assert sent_after.data_out_bytes - sent.data_out_bytes == PAYLOAD + segments * HEADERS
    assert received_after.data_in_bytes - received.data_in_bytes == PAYLOAD + segments * HEADERS


def test_acknowledgements_count_on_the_wire_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    """The receiver sends headers and no data."""
    client, server = pair
    before, info = snapshot_of(server), _info(server)
    send(client, server, PAYLOAD)
    after, acknowledgements = snapshot_of(server), _info(server).segs_out - info.segs_out
    assert acknowledgements > 0
    assert after.wire_out_bytes - before.wire_out_bytes == acknowledgements * HEADERS
    assert after.data_out_bytes == before.data_out_bytes


def test_an_ipv6_header_is_twenty_bytes_longer() -> None:
    """One byte costs 1 + 14 + 40 + 32."""
    try:
        client, server = connect(socket.AF_INET6, "::1")
    except OSError as error:
        pytest.skip(f"this host has no IPv6 loopback: {error}")
    with client, server:
        before = snapshot_of(client)
        client.sendall(b"x")
        assert snapshot_of(client).data_out_bytes - before.data_out_bytes == 1 + 14 + 40 + 32


def test_an_ipv4_client_of_a_dual_stack_server_has_ipv4_headers() -> None:
    """The server's socket is of IPv6, the packets are of IPv4."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        client = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
        server, _ = listener.accept()
    with client, server:
        before = snapshot_of(server)
        server.sendall(b"x")
        assert snapshot_of(server).data_out_bytes - before.data_out_bytes == 1 + HEADERS


def test_round_trips_are_in_seconds() -> None:
    """On loopback at least a microsecond, and no more than everything took together."""
    start = time.monotonic()
    client, server = connect(socket.AF_INET, "127.0.0.1")
    with client, server:
        send(client, server, PAYLOAD)
        snapshot = snapshot_of(client)
    assert 1e-6 <= snapshot.min_rtt_s <= snapshot.rtt_s <= time.monotonic() - start
    assert snapshot.congestion_window_segments >= 2
    assert snapshot.delivery_rate_bps > 1e6


def test_idle_time_is_that_since_the_last_data(pair: tuple[socket.socket, socket.socket]) -> None:
    """It grows while nothing is sent, and begins again with the next byte."""
    client, _ = pair
    client.sendall(b"x")
    wait_until(lambda: snapshot_of(client).idle_s >= 0.05)
    again = time.monotonic()
    client.sendall(b"x")
    assert snapshot_of(client).idle_s <= time.monotonic() - again + JIFFY_S


def test_a_closed_socket_has_no_snapshot(pair: tuple[socket.socket, socket.socket]) -> None:
    """None, and an empty name of its congestion control: no exception in the middle of a round."""
    client, _ = pair
    client.close()
    assert tcp_snapshot(client) is None
    assert congestion_control(client) == ""
    assert not set_congestion_control(client, "cubic")


def test_congestion_control_is_set_or_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    """Reno is in every kernel; an unknown one leaves the socket as it was."""
    client, _ = pair
    assert set_congestion_control(client, "reno")
    assert congestion_control(client) == "reno"
    assert not set_congestion_control(client, "no-such-cc")
    assert congestion_control(client) == "reno"


def test_the_columns_of_an_exchange() -> None:
    """Retransmissions are of the exchange, idle time and what follows from it of its beginning, all else of its end."""
    before = TcpSnapshot(0.1, 0.01, 0.09, 3, 10, 1000, 1, 2, 3, 4, 7.5, 0.25)
    after = TcpSnapshot(0.2, 0.02, 0.08, 8, 20, 2000, 11, 12, 13, 14, 0.0, 0.3)
    assert sender_columns(before, after, restarts=True) == {
        "rtt_s": 0.2, "rtt_variance_s": 0.02, "min_rtt_s": 0.08, "retransmissions": 5, "congestion_window_segments": 20,
        "delivery_rate_bps": 2000, "idle_s": 7.5, "rto_s": 0.25,
        "congestion_window_start_segments": 10, "idle_restart": True,
    }  # fmt: skip


def test_a_restart_needs_a_pause_and_a_host_that_restarts() -> None:
    """A pause of 0.2 s is shorter than the timeout of 0.25 s; a host may keep its window, or not say what it does."""
    idle = TcpSnapshot(0.1, 0.01, 0.09, 3, 10, 1000, 1, 2, 3, 4, 7.5, 0.25)
    busy = replace(idle, idle_s=0.2)
    restarts = [
        sender_columns(before, idle, host)["idle_restart"] for host in (True, False, None) for before in (idle, busy)
    ]
    assert restarts == [True, False, False, False, None, None]


def test_the_settings_of_this_host_are_those_of_the_kernel() -> None:
    """Read where sysctl reads them; no_metrics_save is the contrary of a cache."""
    folder = Path("/proc/sys/net/ipv4")
    assert tcp_settings() == {
        "idle_restart": (folder / "tcp_slow_start_after_idle").read_text().strip() == "1",
        "metrics_cache": (folder / "tcp_no_metrics_save").read_text().strip() == "0",
    }
