"""By how much an arrival may be too late of which the kernel does not say when it was."""

import socket
import struct

import pytest

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.measure import kernel_stamps
from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.tcp import longest_silence_ns
from tests.measure.gaps import BEHIND, LOST, fill_late
from tests.measure.test_measure_kernel_stamps import SO_TIMESTAMPING, Pair, pair

__all__ = ["pair"]

WALL_NS = 1_700_000_000 * 10**9
LATE_NS = 30_000_000


def wait_until(raw_ns: int) -> None:
    while SYSTEM_CLOCK.raw_ns() < raw_ns:
        pass


def read_all(sock: StampedSocket, count: int) -> None:
    while count > 0:
        count -= sock.recv_into(bytearray(4000))


def arrived(sock: StampedSocket) -> tuple[int, int]:
    """The earliest and the latest moment of the last arrival."""
    assert sock.arrived_ns is not None
    return sock.arrived_ns - sock.arrival_uncertainty_ns, sock.arrived_ns


@pytest.mark.parametrize("late_ns", [0, LATE_NS])
def test_a_gap_was_filled_within_the_uncertainty(pair: Pair, late_ns: int) -> None:
    """However late the reader is; and the gap's own length, in which nobody read, is no part of it."""
    near, far = pair
    sent, least, most = fill_late(near, far)
    wait_until(most + late_ns)
    read_all(far, LOST + BEHIND)
    earliest, latest = arrived(far)
    assert earliest <= most
    assert latest >= max(least, most + late_ns)
    assert sent < earliest


def test_the_next_message_after_a_gap_is_certain_again(pair: Pair) -> None:
    """The kernel's stamp counts, and nothing is left open of it, late as it is read."""
    near, far = pair
    fill_late(near, far)
    read_all(far, LOST + BEHIND)
    assert far.arrival_uncertainty_ns > 0
    near.sendall(b"next")
    sent = SYSTEM_CLOCK.raw_ns()
    wait_until(sent + 5_000_000)
    read_all(far, 4)
    assert arrived(far)[0] == arrived(far)[1] < sent + 2_000_000


def test_without_a_gap_nothing_more_is_asked(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kernel; and nothing is left open."""
    near, far = pair
    monkeypatch.setattr(kernel_stamps, "longest_silence_ns", None)
    near.sendall(b"x" * 100_000)
    read_all(far, 100_000)
    assert far.arrival_uncertainty_ns == 0


class Scripted:
    """A socket whose clocks, gaps and stamps are made by hand; all moments are in ms."""

    def __init__(self, sock: StampedSocket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sock, self.now_ms, self.silence_ms, self.packets = sock, 1000.0, 500.0, 0
        sock.clock = Clock(raw_ns=lambda: self._ns(self.now_ms), wall_ns=lambda: WALL_NS + self._ns(self.now_ms))
        sock.arrived_ns, sock._arrived_after_ns, sock._drained_ns = None, 0, 0
        sock._out_of_order = 0
        monkeypatch.setattr(kernel_stamps, "out_of_order_packets", lambda _: self.packets)
        monkeypatch.setattr(kernel_stamps, "longest_silence_ns", lambda _: self._ns(self.silence_ms))
        monkeypatch.setattr(StampedSocket, "_holds_bytes", lambda _: False)

    @staticmethod
    def _ns(milliseconds: float) -> int:
        return round(milliseconds * 1e6)

    def read(
        self, now_ms: float, stamp_ms: float | None, *, began_ms: float = 0, drained: bool = True
    ) -> tuple[float, float]:
        """Read at a moment what has that stamp; the last arrival and by how much it may be too late, in ms."""
        self.now_ms = now_ms
        ancillary: list[tuple[int, int, bytes]] = []
        if stamp_ms is not None:
            stamp = struct.pack("@qq", *divmod(WALL_NS + self._ns(stamp_ms), 10**9))
            ancillary = [(socket.SOL_SOCKET, SO_TIMESTAMPING, stamp)]
        self.sock._note_arrival(ancillary, self._ns(began_ms or now_ms), drained=drained)
        assert self.sock.arrived_ns is not None
        return self.sock.arrived_ns / 1e6, self.sock.arrival_uncertainty_ns / 1e6


@pytest.fixture
def scripted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(pair[1], monkeypatch)


def test_of_what_is_known_the_latest_bounds_an_arrival(scripted: Scripted) -> None:
    """Read at 1100 ms behind a gap: not before its stamp at 1060, nor before the reading at 1080 that found no more; a
    silence of at most 10 ms says more, and a stamp of 1095 more than that.
    """
    assert scripted.read(1081, 1040, began_ms=1080) == (1040, 0)
    scripted.packets = 1
    assert scripted.read(1100, 1060) == (1100, 20)
    scripted.packets, scripted.silence_ms = 2, 10
    assert scripted.read(1110, 1070, drained=False) == (1110, 10)
    assert scripted.read(1120, 1115) == (1120, 5)


def test_a_reading_that_left_something_bounds_nothing(scripted: Scripted) -> None:
    """What it left had come before it; the reading that drained the socket was the one at 1010 ms."""
    scripted.read(1010, 1005, began_ms=1008)
    scripted.read(1050, 1045, began_ms=1049, drained=False)
    scripted.packets = 1
    assert scripted.read(1060, None) == (1060, 15)  # not before the stamp that was read before, which is of the same message


def test_the_last_of_several_arrivals_is_no_earlier_than_any_of_them(scripted: Scripted) -> None:
    """First what came between 1010 and 1050, then a stamp of 1030: the later of the two came between 1030 and 1050."""
    scripted.read(1010, 1010)
    scripted.packets = 1
    assert scripted.read(1050, 1005) == (1050, 40)
    assert scripted.read(1060, 1030) == (1050, 20)
    assert scripted.read(1070, 1065) == (1065, 0)


def test_an_arrival_without_a_stamp_is_as_uncertain(scripted: Scripted) -> None:
    """As with a device that stamps nothing: since the socket was drained."""
    scripted.read(1010, 1010)
    assert scripted.read(1030, None) == (1030, 20)


def test_nothing_known_is_never_before_the_socket(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed already says nothing, and what it says is never in the future."""
    scripted.packets, scripted.silence_ms = 1, -5
    assert scripted.read(1030, None) == (1030, 0)
    monkeypatch.setattr(kernel_stamps, "longest_silence_ns", lambda _: None)
    scripted.packets = 2
    assert scripted.read(1040, 1035) == (1040, 5)


def test_switched_off_there_is_no_uncertainty(pair: Pair) -> None:
    """Nor a stamp that it could be of."""
    near, far = pair
    fill_late(near, far)
    read_all(far, LOST + BEHIND)
    far.switch(False)
    assert (far.arrived_ns, far.arrival_uncertainty_ns) == (None, 0)


def test_the_kernel_says_how_long_ago_data_came(pair: Pair) -> None:
    """At least as long as it was, whenever it is asked; nothing of a connection that is closed."""
    near, far = pair
    for after_ns in range(0, 30_000_000, 3_000_000):
        near.sendall(b"x")
        sent = SYSTEM_CLOCK.raw_ns()  # loopback delivers within the call
        wait_until(sent + after_ns)
        asked = SYSTEM_CLOCK.raw_ns()
        silence_ns = longest_silence_ns(far)
        assert silence_ns is not None
        assert silence_ns >= asked - sent
    far.close()
    assert longest_silence_ns(far) is None
