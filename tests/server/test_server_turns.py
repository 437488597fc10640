"""Of uploads that could all be read the oldest is read on, and no other is kept waiting for ever."""

import socket
from collections import Counter
from collections.abc import Iterator
from selectors import EVENT_READ

import pytest

from fltestbed.server.turns import EVERY, OldestFirst

UPLOADS = 4
TIMES = 3 * EVERY * (UPLOADS - 1)


class Sockets:
    """Connections that have something to read; nothing reads it."""

    def __init__(self, selector: OldestFirst) -> None:
        self.selector = selector
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def make(self) -> int:
        """A connection with a byte to read; its descriptor."""
        ours, theirs = socket.socketpair()
        theirs.send(b"x")
        self.selector.register(ours, EVENT_READ)
        self.pairs.append((ours, theirs))
        return ours.fileno()

    def read(self, times: int) -> Counter[int]:
        """How often each connection was said to be ready."""
        return Counter(key.fd for _ in range(times) for key, _ in self.selector.select(0))

    def close(self) -> None:
        """Close all."""
        for pair in self.pairs:
            for sock in pair:
                sock.close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with OldestFirst() as selector:
        made = Sockets(selector)
        yield made
        made.close()


def test_the_oldest_is_read_each_time_and_the_others_in_turn(sockets: Sockets) -> None:
    """In the order of their beginning, whatever their descriptors; what is no upload is read each time."""
    descriptors = [sockets.make() for _ in range(UPLOADS)]
    request = sockets.make()
    oldest, *others = reversed(descriptors)
    for descriptor in (oldest, *others):
        sockets.selector.begin(descriptor)
    assert sockets.read(TIMES) == {oldest: TIMES, request: TIMES, **dict.fromkeys(others, 3)}


def test_the_next_one_is_the_oldest_when_an_upload_is_over(sockets: Sockets) -> None:
    """Its connection is read as any other then."""
    first, second, third = (sockets.make() for _ in range(3))
    for descriptor in (first, second, third):
        sockets.selector.begin(descriptor)
    sockets.selector.end(first)
    read = sockets.read(TIMES)
    assert read[first] == read[second] == TIMES
    assert read[third] == TIMES // EVERY


def test_one_upload_alone_is_read_each_time(sockets: Sockets) -> None:
    """As is one whose elders have nothing to be read."""
    silent, _ = sockets.make(), sockets.make()
    sockets.pairs[0][0].recv(1)
    younger = sockets.pairs[1][0].fileno()
    sockets.selector.begin(silent)
    sockets.selector.begin(younger)
    assert sockets.read(TIMES) == {younger: TIMES}
