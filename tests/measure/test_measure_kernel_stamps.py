"""Sockets that know when bytes crossed their host's edge."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.measure.kernel_stamps import StampedSocket

HOUR_NS = 3600 * 10**9
SO_TIMESTAMPING = 37
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
    """The stamp of the last byte, between writing it and reading it; afterwards the socket reads as ever."""
    near, far = pair
    before = SYSTEM_CLOCK.raw_ns()
    near.stamp_sending(True)
    near.sendall(b"x" * 1000)
    left = near.wait_left(5.0)
    near.stamp_sending(False)
    assert left is not None
    assert before - 100_000 <= left <= SYSTEM_CLOCK.raw_ns()
    far.sendall(b"answer")
    assert near.recv(1) + near.recv(10) == b"answer"


def test_an_answer_ends_the_wait_for_a_stamp(pair: Pair) -> None:
    """A kernel that stamps nothing (here: nothing was asked for) costs no time once the other side has spoken."""
    near, far = pair
    far.sendall(b"!")
    assert near.wait_left(5.0) is None
    with pytest.raises(TimeoutError):
        far.wait_left(0.01)


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
