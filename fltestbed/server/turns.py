"""Whose bytes the server reads first when more are there than it can keep up with.

An event loop reads a little of every socket that has something, so of a hundred uploads that come at once none is whole
before the end: until then all wait in memory, and the ServerApp has nothing to add up. Here the oldest of those whose bytes
are there is read on, and now and then another one in turn, so that nobody can keep the others waiting. Where the links are
what uploads wait for there is hardly ever more than one to be read, and nothing changes.
"""

import asyncio
import selectors

EVERY = 32
"""So often, of the times that several could be read, another than the oldest is read as well. More often costs time: what is
decoded of an upload has left the processor's caches when the rest comes."""

_Ready = list[tuple[selectors.SelectorKey, int]]


class OldestFirst(selectors.EpollSelector):
    """A selector that holds uploads back while older ones can be read."""

    def __init__(self) -> None:
        super().__init__()
        self._uploads: dict[int, None] = {}  # a set in the order of their beginning
        self._turn = 0

    def begin(self, descriptor: int) -> None:
        """An upload begins on this socket."""
        self._uploads[descriptor] = None

    def end(self, descriptor: int) -> None:
        """No upload is under way on it."""
        self._uploads.pop(descriptor, None)

    def select(self, timeout: float | None = None) -> _Ready:
        """What is ready, as the base class has it, but of uploads the oldest, and another one now and then."""
        ready = super().select(timeout)
        there = {key.fd for key, events in ready if events & selectors.EVENT_READ and key.fd in self._uploads}
        if len(there) <= 1:
            return ready
        oldest, *others = (descriptor for descriptor in self._uploads if descriptor in there)
        self._turn += 1
        if self._turn % EVERY == 0:
            there.remove(others[self._turn // EVERY % len(others)])
        return [(key, events) for key, events in ready if key.fd == oldest or key.fd not in there]


class ServerLoop(asyncio.SelectorEventLoop):
    """The server's event loop.

    Attributes
    ----------
    uploads : OldestFirst
        Is told of uploads when they begin and end.
    """

    def __init__(self) -> None:
        self.uploads = OldestFirst()
        super().__init__(self.uploads)
