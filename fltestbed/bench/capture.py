"""Packets as the witness: tcpdump at both ends of a link, and what its files say of HTTP messages.

tcpdump stamps packets with CLOCK_REALTIME. `WallClock` reads that clock between two looks at CLOCK_MONOTONIC_RAW while the
capture goes on, so every packet can be put on the raw clock, with a bound that was measured.

An HTTP message is found without its content: on a connection without pipelining, the side that speaks has heard all that the
other said before, so all packets with payload of one request carry one acknowledgement number, and so do those of one
response. What is sent again carries a later one only if the other side has spoken meanwhile, which it has not.
"""

import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import dpkt
import numpy as np

from fltestbed.clock import Clock
from fltestbed.errors import HostError
from fltestbed.links import Host

SNAP_BYTES = 96
"""Of each packet: Ethernet, IPv4 and TCP with options (14 + 20 + 60 bytes at most)."""
BUFFER_KB = 32_768
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 30.0
BLOCK_S = 1.2
"""tcpdump gets packets from the kernel block by block, one that is not full after a second; what it has not got is lost."""
SAMPLE_INTERVAL_S = 0.05

_PAYLOAD_ONLY = "(ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2)) != 0"
NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class HttpMessage:
    """One request or response on the wire, as one host's capture saw it.

    Attributes
    ----------
    sender, receiver : tuple of (str, int)
        Address and port.
    first_ns, last_ns : int
        CLOCK_MONOTONIC_RAW of its first and of its last packet that carried payload not seen before; so at the
        receiver of a message of which packets were lost the last is the one that fills the last gap.
    payload_bytes : int
        HTTP header and body, each byte once.
    packets : int
        Packets that carried payload, those that were sent again included.
    """

    sender: tuple[str, int]
    receiver: tuple[str, int]
    first_ns: int
    last_ns: int
    payload_bytes: int
    packets: int


class WallClock:
    """Puts CLOCK_REALTIME on CLOCK_MONOTONIC_RAW, from looks at both taken all the while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looks: list[tuple[int, int, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wall-clock", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def to_raw(self, wall_ns: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Moments of CLOCK_REALTIME on the raw clock, between the looks around them."""
        wall, ahead, _ = self._arrays()
        base = int(ahead[0])
        return np.asarray(
            wall_ns - base - np.interp(wall_ns - wall[0], wall - wall[0], ahead - base).round().astype(np.int64)
        )

    @property
    def bound_ns(self) -> int:
        """By how much `to_raw` can be wrong: half of the longest look, and the most that two looks in a row differ."""
        _, ahead, took = self._arrays()
        steps = np.abs(np.diff(ahead))
        return int(took.max() // 2 + (steps.max() if len(steps) else 0))

    def _arrays(self) -> "tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]":
        before, wall, after = np.array(self._looks, dtype=np.int64).T
        return wall, wall - (before + after) // 2, after - before

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        # Of a few looks the shortest: one that was interrupted says little.
        looks = [(self._clock.raw_ns(), self._clock.wall_ns(), self._clock.raw_ns()) for _ in range(5)]
        self._looks.append(min(looks, key=lambda look: look[2] - look[0]))


@contextmanager
def capturing(host: Host, interface: str, port: int, file: Path) -> Iterator[None]:
    """Capture the payload packets of a TCP port on one interface of a host, for as long as the block lasts.

    Raises
    ------
    HostError
        tcpdump is missing, may not capture, or lost packets.
    """
    with file.open("wb") as output:
        capture = _start(host, interface, port, output)
        try:
            yield
            time.sleep(BLOCK_S)
        finally:
            with suppress(ProcessLookupError):
                capture.terminate()
            _, said = capture.communicate(timeout=STOP_TIMEOUT_S)
    lost = _lost(said.decode(errors="replace"))
    if lost:
        raise HostError(f"{host.name}: the capture on {interface} lost {lost} packets: this machine was too busy to keep up")


def _start(host: Host, interface: str, port: int, output: IO[bytes]) -> "subprocess.Popen[bytes]":
    # Standard output is a file of ours: tcpdump, which gives up its rights, need not be able to write anywhere.
    command = [
        "tcpdump", "-n", "-p", "-i", interface, "-s", str(SNAP_BYTES), "-B", str(BUFFER_KB),
        "--time-stamp-precision=nano", "-w", "-", f"tcp port {port} and {_PAYLOAD_ONLY}",
    ]  # fmt: skip
    try:
        capture = host.popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise HostError(f"{host.name}: cannot start {error.filename}; install util-linux") from error
    said = b""
    deadline = time.monotonic() + START_TIMEOUT_S
    pipe = capture.stderr
    while pipe is not None and b"listening on" not in said:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(pipe.fileno(), 4096) if ready else b""
        said += piece
        if not piece:
            capture.kill()
            capture.communicate()
            raise HostError(why_no_capture(host.name, interface, said.decode(errors="replace")))
    return capture


def why_no_capture(host: str, interface: str, said: str) -> str:
    """One line that says what a capture lacks, from what tcpdump said."""
    last = (said.strip().splitlines() or ["it said nothing"])[-1].removeprefix("tcpdump: ").strip()
    if "tcpdump" in last and ("No such file" in last or "failed to execute" in last):
        return f"{host}: tcpdump is missing; install it with: apt install tcpdump"
    if "ermission" in said or "permitted" in said:
        return (
            f"{host}: no packets can be captured on {interface} ({last}); tcpdump needs the capability CAP_NET_RAW: run as "
            "root, or: setcap cap_net_raw=eip $(which tcpdump)"
        )
    return f"{host}: no packets can be captured on {interface}: {last}"


def _lost(said: str) -> int:
    lost = [line for line in said.splitlines() if "dropped by kernel" in line or "dropped by interface" in line]
    return sum(int(line.split()[0]) for line in lost)


def read_messages(file: Path, wall: WallClock) -> list[HttpMessage]:
    """Read the HTTP messages of a capture, in the order of their first packets.

    Raises
    ------
    HostError
        The file is no capture.
    """
    try:
        with file.open("rb") as capture:
            found = _gather(dpkt.pcap.Reader(capture))
    except (ValueError, dpkt.Error) as error:
        raise HostError(f"{file}: cannot be read as a capture: {error}") from error
    moments = np.array([(message.first_ns, message.last_ns) for message in found], dtype=np.int64).reshape(-1, 2)
    raw = np.stack([wall.to_raw(moments[:, 0]), wall.to_raw(moments[:, 1])], axis=1) if len(moments) else moments
    messages = [
        HttpMessage(m.sender, m.receiver, int(first), int(last), m.payload_bytes, m.packets)
        for m, (first, last) in zip(found, raw, strict=True)
    ]
    return sorted(messages, key=lambda message: message.first_ns)


@dataclass
class _Growing:
    """A message of which more packets may come; sequence numbers count from its first packet's."""

    sender: tuple[str, int]
    receiver: tuple[str, int]
    start: int
    first_ns: int
    last_ns: int
    low: int = 0
    high: int = 0
    packets: int = 0
    holes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def payload_bytes(self) -> int:
        """From the first to the last byte."""
        return self.high - self.low

    def take(self, begin: int, end: int, at_ns: int) -> None:
        """Account for a packet that carries the bytes from `begin` to `end`."""
        self.packets += 1
        filled = [hole for hole in self.holes if begin < hole[1] and end > hole[0]]
        if end > self.high or begin < self.low or filled:
            self.last_ns = max(self.last_ns, at_ns)
        if begin > self.high:
            self.holes.append((self.high, begin))
        for low, high in filled:
            self.holes.remove((low, high))
            self.holes += [piece for piece in ((low, begin), (end, high)) if piece[0] < piece[1]]
        self.low, self.high = min(self.low, begin), max(self.high, end)


def _gather(packets: "dpkt.pcap.Reader") -> list[_Growing]:
    messages: dict[tuple[bytes, bytes, int], _Growing] = {}
    for moment, data in packets:
        network = data[14:]
        header = (network[0] & 0xF) * 4
        total = struct.unpack_from("!H", network, 2)[0]
        sport, dport, sequence, acknowledged, offset = struct.unpack_from("!HHIIB", network, header)
        length = total - header - (offset >> 4) * 4
        at_ns = int(moment * NS_PER_S)
        key = (network[12:20], network[header : header + 4], acknowledged)
        message = messages.get(key)
        if message is None:
            sender, receiver = (socket.inet_ntoa(network[at : at + 4]) for at in (12, 16))
            message = messages[key] = _Growing((sender, sport), (receiver, dport), sequence, at_ns, at_ns)
        begin = (sequence - message.start + (1 << 31)) % (1 << 32) - (1 << 31)
        message.take(begin, begin + length, at_ns)
    return list(messages.values())
