"""Sockets that know when bytes crossed their host's edge."""

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.measure.kernel_stamps import StampedSocket

HOUR_NS = 3600 * 10**9
SO_TIMESTAMPING = 37
WALL_NS = 1_700_000_000 * 10**9
CARRIED_NS = 200_000
"""What a look at both clocks may leave open on a machine that is busy."""
Pair = tuple[StampedSocket, StampedSocket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a TCP connection over loopback: who connected, and who accepted."""
    with StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near = StampedSocket(socket.AF_INET, socket.SOCK_STREAM)
        near.settimeout(10)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        far.settimeout(10)
        with near, far:
            wait_for_stamps(near, far)
            yield near, far


def wait_for_stamps(near: StampedSocket, far: StampedSocket) -> None:
    """The kernel begins to stamp a moment after the machine's first socket has asked for it."""
    for _ in range(100_000):
        near.sendall(b"?")
        arrived = SYSTEM_CLOCK.raw_ns()  # loopback delivers within the call
        far.recv(1)
        if far.arrived_ns is not None and far.arrived_ns < arrived:
            far.expect()
            return
    raise AssertionError("this kernel stamps nothing")


def test_an_arrival_is_stamped_before_it_is_read(pair: Pair) -> None:
    """What waited in the kernel until it was read has the stamp of its arrival, not of its reading."""
    near, far = pair
    before = SYSTEM_CLOCK.raw_ns()
    near.sendall(b"abc")
    sent = SYSTEM_CLOCK.raw_ns()
    while SYSTEM_CLOCK.raw_ns() < sent + 5_000_000:  # a reader that is late by 5 ms
        pass
    assert far.recv(10) == b"a"  # the first byte by itself: its stamp is the message's first
    assert far.recv(10) == b"bc"
    assert far.first_ns is not None
    assert far.arrived_ns is not None
    assert before - 100_000 <= far.first_ns <= far.arrived_ns <= sent + 2_000_000


def test_reading_into_a_buffer_stamps_as_well(pair: Pair) -> None:
    """`makefile`, which http.client uses, reads so."""
    near, far = pair
    near.sendall(b"line\nrest")
    with far.makefile("rb") as file:
        assert file.readline() == b"line\n"
        assert file.read(4) == b"rest"
    assert far.first_ns is not None
    assert far.arrived_ns is not None
    assert far.first_ns <= far.arrived_ns <= SYSTEM_CLOCK.raw_ns()


def test_expect_begins_another_message(pair: Pair) -> None:
    """The first byte after it, and no other, gives a new `first_ns`."""
    near, far = pair
    near.sendall(b"1")
    far.recv(1)
    first = far.first_ns
    near.sendall(b"2")
    far.recv(1)
    assert far.first_ns == first
    far.expect()
    near.sendall(b"3")
    far.recv(1)
    assert first is not None
    assert far.first_ns is not None
    assert far.first_ns > first


def test_what_has_left_is_stamped_and_nothing_is_left_in_the_way(pair: Pair) -> None:
    """The stamps of the first and of the last write, between writing and reading; afterwards the socket reads as ever."""
    near, far = pair
    before = SYSTEM_CLOCK.raw_ns()
    near.begin_sending()
    near.sendall(b"header")
    near.stamp_sending(False)
    between = SYSTEM_CLOCK.raw_ns()
    near.sendall(b"x" * 1000)
    near.stamp_sending(True)
    near.sendall(b"end")
    began, left = near.began_ns(), near.left_ns()
    near.stamp_sending(False)
    assert began is not None
    assert left is not None
    assert before - CARRIED_NS <= began <= between <= left + CARRIED_NS
    assert left <= SYSTEM_CLOCK.raw_ns()
    far.sendall(b"answer")
    assert near.recv(1) + near.recv(10) == b"answer"


def test_a_message_whose_last_bytes_have_not_left_has_no_end(pair: Pair) -> None:
    """The stamp of its first write is no stamp of its last, unless that was all."""
    near, _ = pair
    near.begin_sending()
    near.sendall(b"header")
    assert near.began_ns() is not None
    assert near.left_ns() == near.began_ns()
    near.stamp_sending(False)
    near.sendall(b"end")
    assert near.left_ns() is None


def test_each_message_has_stamps_of_its_own(pair: Pair) -> None:
    """The next one begins later, and what the last one left behind does not count."""
    near, _ = pair
    near.begin_sending()
    near.sendall(b"one")
    first = near.began_ns()
    near.begin_sending()
    assert near.began_ns() is None
    near.sendall(b"two")
    second = near.began_ns()
    assert first is not None
    assert second is not None
    assert first < second


def test_stamps_are_told_apart_by_their_place_in_the_stream(pair: Pair) -> None:
    """Of a write that is sent again the first departure counts, also when the place passes 2**32."""
    near, _ = pair

    def leave(place: int, seconds_ago: float) -> None:
        left_ns = SYSTEM_CLOCK.wall_ns() - int(seconds_ago * 1e9)
        stamp = struct.pack("@qq", *divmod(left_ns, 10**9))
        error = struct.pack("@IBBBBII", 42, 4, 0, 0, 0, 0, place % 2**32)
        near._note_departure([(socket.SOL_SOCKET, SO_TIMESTAMPING, stamp), (socket.IPPROTO_IP, 11, error)])

    now = SYSTEM_CLOCK.raw_ns()
    header = 2**32 - 10
    near.begin_sending()
    near._written = 1000
    leave(header, 0.5)
    leave(header + 1000, 0.3)
    leave(header, 0.1)  # lost, and sent again after the end had left
    began, left = near.began_ns(), near.left_ns()
    assert began is not None
    assert left is not None
    assert abs(began - (now - 500_000_000)) < 50_000_000
    assert abs(left - (now - 300_000_000)) < 50_000_000


def test_sending_costs_no_cpu_while_a_stamp_is_there(pair: Pair) -> None:
    """A stamp that comes while the other side does not read: the sender waits all the same, and the stamp is not lost."""
    near, far = pair
    reader = threading.Timer(0.5, read_all, [far, 8_000_000])
    reader.start()
    near.begin_sending()
    before_s = time.thread_time()
    near.sendall(b"x" * 8_000_000)
    assert time.thread_time() - before_s < 0.25
    reader.join()
    assert near.began_ns() is not None


def read_all(sock: StampedSocket, count: int) -> None:
    while count > 0:
        count -= len(sock.recv(1 << 20))


def test_a_reader_that_never_reads_ends_the_sending(pair: Pair) -> None:
    """After the socket's timeout."""
    near, _ = pair
    near.settimeout(0.05)
    with pytest.raises(TimeoutError):
        near.sendall(b"x" * 50_000_000)
    assert near.gettimeout() == 0.05


def test_what_is_not_known_of_a_look_is_never_against_a_bound(pair: Pair) -> None:
    """A clock that is read slowly: an arrival is the latest that it can be, a departure the earliest."""
    near, far = pair
    ticks = iter(range(0, 10**12, 30_000))
    start_ns = SYSTEM_CLOCK.raw_ns()
    slow = Clock(raw_ns=lambda: start_ns + next(ticks), wall_ns=lambda: WALL_NS + next(ticks))
    for sock, latest in ((near, False), (far, True)):
        sock.clock = slow
        stamp = struct.pack("@qq", *divmod(WALL_NS, 10**9))
        read = sock._read_stamp([(socket.SOL_SOCKET, SO_TIMESTAMPING, stamp)], latest=latest)
        assert read == start_ns + (30_000 if latest else -30_000)


def test_what_waited_for_a_gap_arrived_when_it_was_filled(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """While packets come out of order the moment of reading counts, until all has been read and nothing is held; after that
    the kernel's stamps are believed again.
    """
    near, far = pair
    counts = iter([0, 2, 2, 2, None])
    held = iter([True, False, False])
    monkeypatch.setattr("fltestbed.measure.kernel_stamps.out_of_order_packets", lambda _: next(counts))
    monkeypatch.setattr(StampedSocket, "_holds_bytes", lambda _: next(held))
    believed = []
    for _ in range(5):
        near.sendall(b"abc")
        sent = SYSTEM_CLOCK.raw_ns()  # loopback delivers within the call
        while (read := SYSTEM_CLOCK.raw_ns()) < sent + 2_000_000:
            pass
        far.recv_into(bytearray(100))
        assert far.arrived_ns is not None
        believed.append(far.arrived_ns < read)
    # in order; two out of order, and bytes are held; still, and none are held; in order again; a kernel that cannot say
    assert believed == [True, False, False, True, False]


def test_what_is_held_behind_a_gap_is_seen(pair: Pair) -> None:
    """By the memory that the kernel counts: something before it is read, nothing after."""
    near, far = pair
    near.sendall(b"abc")
    assert far._holds_bytes()
    far.recv_into(bytearray(1))
    far.recv_into(bytearray(100))
    assert not far._holds_bytes()


def test_an_arrival_is_never_before_the_one_before_it(pair: Pair) -> None:
    """One packet that is read in two parts, its stamp carried to the raw clock twice."""
    near, far = pair
    near.sendall(b"abcdef")
    moments = []
    for _ in range(6):
        far.recv(1)
        moments.append(far.arrived_ns)
    assert moments == sorted(moments, key=lambda moment: moment or 0)


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS])
def test_a_wall_clock_that_stepped_moves_no_stamp(pair: Pair, step_ns: int) -> None:
    """The kernel's stamp cannot be carried to the raw clock then: the moment of reading counts."""
    near, far = pair
    far.clock = Clock(wall_ns=lambda: SYSTEM_CLOCK.wall_ns() + step_ns)
    near.sendall(b"a")
    before = SYSTEM_CLOCK.raw_ns()
    far.recv(1)
    assert far.arrived_ns is not None
    assert before <= far.arrived_ns <= SYSTEM_CLOCK.raw_ns()


def test_an_end_of_the_stream_is_one(pair: Pair) -> None:
    """Nothing more to read: no byte, no error."""
    near, far = pair
    near.close()
    assert far.recv(10) == b""


def test_off_it_is_a_socket_like_any_other(pair: Pair) -> None:
    """Nothing is stamped, and what comes is read whole at once; on again, the next byte is a message's first again."""
    near, far = pair
    near.sendall(b"a")
    far.recv(1)
    far.switch(False)
    far.expect()
    near.sendall(b"bc")
    assert far.recv(10) == b"bc"
    assert (far.first_ns, far.arrived_ns) == (None, None)
    assert far.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING) == 0
    far.switch(True)
    near.sendall(b"d")
    assert far.recv(10) == b"d"
    assert far.first_ns is not None
    assert far.first_ns == far.arrived_ns


def test_waiting_for_bytes_costs_no_cpu_while_a_stamp_is_there(pair: Pair) -> None:
    """A stamp of sending that nobody has asked for makes the socket count as ready; the reader waits all the same."""
    near, far = pair
    near.stamp_sending(True)
    near.sendall(b"x")
    answer = threading.Timer(0.5, far.sendall, [b"answer"])
    answer.start()
    before_s = time.thread_time()
    buffer = bytearray(6)
    assert near.recv_into(buffer) == 1  # the first byte by itself
    assert time.thread_time() - before_s < 0.25
    answer.join()
