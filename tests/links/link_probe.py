"""What the tests run on the hosts of an emulated network: a server of TCP and UDP, and clients that time it.

``python link_probe.py serve ADDRESS`` says "ready" and serves until it is killed; ``send``, ``receive`` and ``ping`` print
one JSON object. Server and clients share this machine's clock, so one-way times are exact.
"""

import json
import socket
import statistics
import struct
import sys
import threading
import time
from typing import Any

PORT = 7000
BLOCK = bytes(64 * 1024)
STAMP = struct.Struct("!dd")


def rate_of(connection: socket.socket) -> dict[str, Any]:
    """Receive until the end; goodput over the second half of the time, when TCP has found its rate."""
    marks = [(time.monotonic(), 0)]
    while block := connection.recv(len(BLOCK)):
        marks.append((time.monotonic(), marks[-1][1] + len(block)))
    middle = (marks[0][0] + marks[-1][0]) / 2
    start = next(mark for mark in marks if mark[0] >= middle)
    seconds = marks[-1][0] - start[0]
    return {"bytes": marks[-1][1], "mbit": (marks[-1][1] - start[1]) * 8 / seconds / 1e6 if seconds else 0.0}


def flood(connection: socket.socket, seconds: float, size: int) -> None:
    """Send for so many seconds, or so many bytes if `size` is not 0."""
    end, left = time.monotonic() + seconds, size
    while (left > 0) if size else (time.monotonic() < end):
        connection.sendall(BLOCK[: left or None] if size else BLOCK)
        left -= len(BLOCK)
    connection.shutdown(socket.SHUT_WR)


def serve(address: str) -> None:
    """Answer TCP transfers and UDP pings."""
    listener = socket.create_server((address, PORT))
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind((address, PORT))
    threading.Thread(target=answer_pings, args=(echo,), daemon=True).start()
    print("ready", flush=True)  # noqa: T201
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answer(connection: socket.socket) -> None:
    """Serve one transfer: a line that says which, then the data."""
    with connection:
        way, seconds, size = connection.recv(64, socket.MSG_PEEK).split(b"\n")[0].split()
        connection.recv(len(b" ".join((way, seconds, size))) + 1)
        if way == b"send":
            result = rate_of(connection) | {"server_congestion_control": congestion_control(connection)}
            connection.sendall(json.dumps(result).encode())
        else:
            flood(connection, float(seconds), int(size))
            connection.recv(1)


def answer_pings(echo: socket.socket) -> None:
    """Send every datagram back, with the time of its arrival."""
    while True:
        data, sender = echo.recvfrom(64)
        echo.sendto(STAMP.pack(STAMP.unpack(data)[0], time.monotonic()), sender)


def congestion_control(connection: socket.socket) -> str:
    """Algorithm of a TCP socket."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).split(b"\0")[0].decode()


def transfer(way: str, address: str, seconds: str, size: str) -> dict[str, Any]:
    """One transfer, timed where it arrives."""
    with socket.create_connection((address, PORT), timeout=20) as connection:
        connection.sendall(f"{way} {seconds} {size}\n".encode())
        result = {"congestion_control": congestion_control(connection)}
        if way == "receive":
            return result | rate_of(connection)
        flood(connection, float(seconds), int(size))
        return {**result, **json.loads(connection.recv(1024))}


def ping(address: str, count: str, timeout: str) -> dict[str, Any]:
    """One datagram after the other; milliseconds each way."""
    up, down = [], []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(float(timeout))
        for _ in range(int(count)):
            probe.sendto(STAMP.pack(time.monotonic(), 0.0), (address, PORT))
            try:
                sent, arrived = STAMP.unpack(probe.recv(64))
            except TimeoutError:
                continue
            up.append((arrived - sent) * 1e3)
            down.append((time.monotonic() - arrived) * 1e3)
    medians = {"up_ms": statistics.median(up), "down_ms": statistics.median(down)} if up else {}
    return medians | {"lost": int(count) - len(up)}


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "serve":
        serve(*arguments)
    else:
        print(json.dumps(ping(*arguments) if command == "ping" else transfer(command, *arguments)))  # noqa: T201
