"""The transfer over bare sockets."""

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from fltestbed.bench import raw


def test_all_clients_get_and_send_all_bytes_in_every_round() -> None:
    """Each transfer ends after it starts, in every round, and the pauses are at least as long as ordered."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    order = raw.Order(
        "server", "127.0.0.1", port, clients=2, rounds=3, down_bytes=300_000, up_bytes=200_000, turnaround_s=0.01,
        gap_s=0.02, congestion_control="reno", stamps="",
    )  # fmt: skip
    with ThreadPoolExecutor(3) as threads:
        server = threads.submit(raw.serve, order)
        joining = [threads.submit(raw.join, replace(order, role="client", number=number)) for number in (1, 0)]
        clients = [future.result(30) for future in reversed(joining)]
        served = server.result(30)
    assert [len(stamps) for stamps in served + clients] == [3] * 4
    for at_server, at_client in zip(served, clients, strict=True):
        for (sent, received), (arrived, answered) in zip(at_server, at_client, strict=True):
            assert sent < arrived < answered < received
            assert answered - arrived >= 10_000_000
    starts = [min(stamps[number][0] for stamps in served) for number in range(3)]
    ends = [max(stamps[number][1] for stamps in served) for number in range(3)]
    assert all(start - end >= 20_000_000 for start, end in zip(starts[1:], ends[:-1], strict=True))
