"""What the link itself takes: the same bytes over bare TCP sockets, as a program.

One long-lived connection a client. In each round the server sends `down_bytes` to all clients at once, each client pauses
`turnaround_s` and sends `up_bytes`, and `gap_s` after the last of them the next round begins: so congestion windows have
idled as long as in the run that this one is compared with. The program writes its stamps, raw ns in JSON, a pair a round:
the server, for each client, first byte sent and last byte received; a client, last byte received and first byte sent.
"""

import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.tcp import set_congestion_control

CONNECT_TIMEOUT_S = 30.0
RETRY_S = 0.05

Stamps = list[tuple[int, int]]


@dataclass(frozen=True)
class Order:
    """What one process of the transfer does; `number` is the client's, from 0, which it says when it connects."""

    role: Literal["server", "client"]
    address: str
    port: int
    clients: int
    rounds: int
    down_bytes: int
    up_bytes: int
    turnaround_s: float
    gap_s: float
    congestion_control: str
    stamps: str
    number: int = 0

    def to_json(self) -> str:
        """As the program's argument."""
        return json.dumps(asdict(self))


def serve(order: Order) -> list[Stamps]:
    """Serve all rounds; returns for each client what its thread stamped."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        set_congestion_control(listener, order.congestion_control)
        listener.bind((order.address, order.port))
        listener.listen(order.clients)
        connections = {}
        for _ in range(order.clients):
            connection, _ = listener.accept()
            connections[connection.recv(1)[0]] = connection
    together = threading.Barrier(order.clients)
    with ThreadPoolExecutor(order.clients) as threads:
        waiting = [threads.submit(_serve_one, connections[number], order, together) for number in range(order.clients)]
        return [future.result() for future in waiting]


def _serve_one(connection: socket.socket, order: Order, together: threading.Barrier) -> Stamps:
    model, update = bytes(order.down_bytes), bytearray(order.up_bytes)
    stamps = []
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(order.rounds):
            together.wait()
            time.sleep(order.gap_s)
            start_ns = SYSTEM_CLOCK.raw_ns()
            connection.sendall(model)
            _receive(connection, update)
            stamps.append((start_ns, SYSTEM_CLOCK.raw_ns()))
    return stamps


def join(order: Order) -> Stamps:
    """Take part in all rounds; returns what this client stamped."""
    model, update = bytearray(order.down_bytes), bytes(order.up_bytes)
    stamps = []
    with _connect(order) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(bytes([order.number]))
        for _ in range(order.rounds):
            _receive(sock, model)
            end_ns = SYSTEM_CLOCK.raw_ns()
            time.sleep(order.turnaround_s)
            stamps.append((end_ns, SYSTEM_CLOCK.raw_ns()))
            sock.sendall(update)
    return stamps


def _connect(order: Order) -> socket.socket:
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        sock = socket.socket()
        set_congestion_control(sock, order.congestion_control)
        try:
            sock.connect((order.address, order.port))
        except ConnectionRefusedError:
            sock.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_S)  # the server is not up yet
        else:
            return sock


def _receive(sock: socket.socket, buffer: bytearray) -> None:
    view = memoryview(buffer)
    while view:
        count = sock.recv_into(view, 0, socket.MSG_WAITALL)
        if count == 0:
            raise ConnectionError(f"the other end closed with {len(view)} of {len(buffer)} bytes to come")
        view = view[count:]


if __name__ == "__main__":
    given = Order(**json.loads(sys.argv[1]))
    Path(given.stamps).write_text(json.dumps(serve(given) if given.role == "server" else join(given)))
