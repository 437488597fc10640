"""A host that means ill: sends what no client sends, for so many seconds, then says in JSON what it sent and was told.

As a program: host, port, seconds, folder for its keys, name of its interface.
"""

import contextlib
import itertools
import json
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import fltestbed.flower  # noqa: F401  # first: it switches Flower's telemetry off
from fltestbed.client.transport import REPLY_TO_HEADER, ServerConnection
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import TestbedError
from fltestbed.flower.node import FleetNode
from fltestbed.flower.node_key import NodeKey
from fltestbed.measure.host import toolkit_versions

TIMEOUT_S = 5.0
MEGABYTE = bytes(1 << 20)
NAMES = ("../../x", "=HYPERLINK(1)", "a/b", "server", "supernode-0", "x" * 65, "a\nb", "-rf", "client-0")


def header_flood() -> Iterator[bytes]:
    """A header of 32 MB."""
    yield b"POST /v1/fltestbed/client/hello HTTP/1.1\r\nx: "
    yield from itertools.repeat(MEGABYTE.replace(b"\0", b"a"), 32)


def random_bytes() -> Iterator[bytes]:
    """A megabyte of anything."""
    yield random.randbytes(1 << 20)


def half_request() -> Iterator[bytes]:
    """A request that stops in the middle of its header."""
    yield b"POST /v1/fltestbed/client/pull HTTP/1.1\r\nhost: x\r\nconte"


def wrong_length() -> Iterator[bytes]:
    """More announced than comes."""
    yield b"POST /v1/fltestbed/client/hello HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{}"


def large_body() -> Iterator[bytes]:
    """A body of 64 MB for Flower's registration, which Flower alone would read."""
    yield b"POST /v1/fleet/register-node HTTP/1.1\r\ncontent-type: application/protobuf\r\n"
    yield b"content-length: 67108864\r\n\r\n"
    yield from itertools.repeat(MEGABYTE, 64)


def chunks_without_end() -> Iterator[bytes]:
    """A chunked body of 32 MB."""
    yield b"POST /v1/fleet/push-object HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"100000\r\n" + MEGABYTE + b"\r\n", 32)


def smuggled() -> Iterator[bytes]:
    """Two lengths, and a request of the server's own behind them."""
    inner = b"POST /v1/control/start-run HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    yield b"POST /health HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + inner


def pipelined() -> Iterator[bytes]:
    """Ten thousand requests before an answer."""
    yield b"GET /v1/control/list-runs HTTP/1.1\r\nhost: x\r\n\r\n" * 10_000


def tls_garbage() -> Iterator[bytes]:
    """A handshake that is none."""
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500)


def deflated() -> Iterator[bytes]:
    """16 MB of zeros, compressed, for whoever would inflate them."""
    body = zlib.compress(bytes(16 << 20))
    yield (
        b"POST /v1/fltestbed/client/hello HTTP/1.1\r\ncontent-encoding: deflate\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
    )


def nothing() -> Iterator[bytes]:
    """A connection, and no more."""
    yield b""


RAW: tuple[Callable[[], Iterator[bytes]], ...] = (
    header_flood, random_bytes, half_request, wrong_length, large_body, chunks_without_end, smuggled, pipelined, tls_garbage,
    deflated, nothing,
)  # fmt: skip


class Peer:
    """All that one hostile host does, and a count of it."""

    def __init__(self, host: str, port: int, deadline: float) -> None:
        self._address = (host, port)
        self._deadline = deadline
        self.sent_bytes = 0
        self.tried: Counter[str] = Counter()
        self.told: Counter[str] = Counter()

    def send_raw(self, number: int) -> None:
        """One raw attack after another."""
        for attack in itertools.islice(itertools.cycle(RAW), number, None):
            if time.monotonic() > self._deadline:
                return
            with contextlib.suppress(OSError), socket.create_connection(self._address, TIMEOUT_S) as sock:
                for piece in attack():
                    left = memoryview(piece)
                    while left:
                        taken = sock.send(left)
                        self.sent_bytes += taken
                        left = left[taken:]
                sock.settimeout(0.2)
                self.told[sock.recv(12).decode(errors="replace")] += 1
            self.tried[attack.__name__] += 1

    def pretend(self, folder: Path, interface: str) -> None:
        """Register, and ask for everything in a client's name but with names, numbers and bundles that cannot be."""
        for number in itertools.count():
            if time.monotonic() > self._deadline:
                return
            key = NodeKey(folder / str(number % 4) / "node.key", SYSTEM_CLOCK)
            connection = ServerConnection(":".join(map(str, self._address)), interface, key, SYSTEM_CLOCK)
            with contextlib.suppress(OSError, TestbedError):
                self._pretend(connection, key, interface)
            connection.close()
            key.release()
            self.tried["pretended"] += 1

    def _pretend(self, connection: ServerConnection, key: NodeKey, interface: str) -> None:
        key.learn_time(connection.date(TIMEOUT_S))
        FleetNode(":".join(map(str, self._address)), key, None, interface).register()
        for name in NAMES:
            for facts in (
                {"versions": toolkit_versions(), "name": name},
                {
                    "name": name,
                    "link": name,
                    "interface": "lo",
                    "partition": 0,
                    "host": {"a": [[[[[[[[1]]]]]]]]},
                    "wall_offset_s": 0,
                },
                {
                    "name": name,
                    "link": "x",
                    "interface": name,
                    "partition": 10**30,
                    "host": {},
                    "wall_offset_s": float("nan"),
                },
            ):
                for path in ("hello", "join", "pull", "leave"):
                    reply = connection.post(path, [json.dumps(facts).encode()], TIMEOUT_S)
                    self.told[f"{path} {reply.status}"] += 1
        bundle = b"FLB1" + struct.pack(">I", 14) + b'{"messages":1}' + struct.pack(">I", 0xFFFFFFFF)
        for body in (bundle, MEGABYTE * 8):
            reply = connection.post("push", [body], TIMEOUT_S, {REPLY_TO_HEADER: "0" * 64})
            self.told[f"push {reply.status}"] += 1


def main(host: str, port: str, seconds: str, folder: str, interface: str) -> None:
    """Do it all at once."""
    peer = Peer(host, int(port), time.monotonic() + float(seconds))
    threads = [threading.Thread(target=peer.send_raw, args=(number * 3,)) for number in range(4)]
    threads.append(threading.Thread(target=peer.pretend, args=(Path(folder), interface)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"sent_bytes": peer.sent_bytes, "tried": peer.tried, "told": peer.told}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
