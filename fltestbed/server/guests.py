"""Connections of the server, and how many of them anybody may hold.

A connection is a stranger's until a request of it was signed with a key that is known. Strangers together, each node, and
all nodes together may hold so many; the one that has been there longest goes when another comes, of all nodes that of the
one which has the most. So neither a flood of connections nor nodes that mean ill take the descriptors that the run needs,
and nobody who signs his first request is kept out by those who never do.
"""

import contextlib
import resource
import socket
from collections import OrderedDict
from typing import Any

from fltestbed.clock import Clock
from fltestbed.measure.kernel_stamps import StampedSocket
from fltestbed.measure.tcp import TcpSnapshot, tcp_snapshot
from fltestbed.measure.tcp_path import PathState, path_state

MOST_STRANGERS = 256
MOST_OF_A_NODE = 24
"""A stock SuperNode pulls eight objects at once, over a connection each."""
MOST_OF_ALL_NODES = 4096
MOST_DESCRIPTORS = 8192


class Guest(StampedSocket):
    """An accepted connection.

    Attributes
    ----------
    last_path : PathState or None
        The way to the other side when the socket was closed: asyncio's TLS tells of that afterwards. None before.
    last_snapshot : TcpSnapshot or None
        TCP_INFO at that time.
    """

    guests: "Guests"
    last_path: PathState | None = None
    last_snapshot: TcpSnapshot | None = None

    def close(self) -> None:
        """Close it, and remember how it was."""
        if self.fileno() >= 0:
            self.last_path, self.last_snapshot = path_state(self), tcp_snapshot(self)
        super().close()

    def prove(self, node_id: int) -> None:
        """A request on it was signed by this node."""
        self.guests.proved(self, node_id)


class Guests:
    """The open connections of one listener, by whose they are."""

    def __init__(
        self,
        most_strangers: int = MOST_STRANGERS,
        most_of_a_node: int = MOST_OF_A_NODE,
        most_of_all_nodes: int = MOST_OF_ALL_NODES,
    ) -> None:
        self._most_strangers = most_strangers
        self._most_of_a_node = most_of_a_node
        self._most_of_all_nodes = most_of_all_nodes
        self._strangers: OrderedDict[int, Guest] = OrderedDict()
        self._of_node: dict[int, OrderedDict[int, Guest]] = {}

    def arrived(self, guest: Guest) -> None:
        """Somebody has connected."""
        guest.guests = self
        self._strangers[id(guest)] = guest
        _make_room(self._strangers, self._most_strangers)

    def proved(self, guest: Guest, node_id: int) -> None:
        """A stranger has turned out to be a node."""
        if self._strangers.pop(id(guest), None) is not None:
            of_node = self._of_node.setdefault(node_id, OrderedDict())
            of_node[id(guest)] = guest
            _make_room(of_node, self._most_of_a_node)
            if self._count() > self._most_of_all_nodes:
                for guests in self._of_node.values():
                    _forget_closed(guests)
                if self._count() > self._most_of_all_nodes:
                    largest = max(self._of_node.values(), key=len)
                    _make_room(largest, len(largest) - 1)

    def _count(self) -> int:
        return sum(map(len, self._of_node.values()))


def allow_descriptors(most: int = MOST_DESCRIPTORS) -> int:
    """Raise this process's own limit of open files, as far as the host lets it; returns what it is now.

    Debian's 1,024 would hold a few hundred clients, or the strangers beside them, and not both.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft


def _forget_closed(guests: OrderedDict[int, Guest]) -> None:
    for name in [name for name, guest in guests.items() if guest.fileno() < 0]:
        del guests[name]


def _make_room(guests: OrderedDict[int, Guest], most: int) -> None:
    if len(guests) <= most:
        return
    _forget_closed(guests)
    while len(guests) > most:
        _, oldest = guests.popitem(last=False)
        with contextlib.suppress(OSError):  # closed a moment ago
            oldest.shutdown(socket.SHUT_RDWR)  # its owner, the event loop, sees the end and closes it


class Listener(StampedSocket):
    """A listening socket whose connections are counted."""

    def __init__(self, *arguments: Any, clock: Clock | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named, **({} if clock is None else {"clock": clock}))
        self.guests = Guests()

    def accept(self) -> tuple[Guest, Any]:
        """Accept a connection."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]  # as socket.accept does
        guest = Guest(self.family, self.type, self.proto, fileno=descriptor, clock=self.clock)
        self.guests.arrived(guest)
        return guest, address
