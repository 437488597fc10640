"""Which clients are there, as far as the server can see: who asked last, over which connection, and how that one ended."""

from dataclasses import dataclass
from typing import Protocol

from fltestbed.clock import Clock
from fltestbed.measure.tcp_path import PathState
from fltestbed.server.tasks import Symptom, Task

QUIET_S = 1.0
"""A connection that its client has replaced has been quiet for longer: nobody opens another before an outage is noticed."""


class Line(Protocol):
    """What is asked of a connection; `fltestbed.server.protocol.Connection` is one."""

    ended: str | None
    requests: int
    """How many requests are under way on it."""

    @property
    def path(self) -> PathState | None:
        """The way to the client."""

    @property
    def has_delivered(self) -> bool:
        """Whether the client's host has acknowledged all of the latest message."""

    def abandon(self, reason: str) -> None:
        """Give it up."""

    def abandon_if_stalled(self) -> None:
        """Give it up if the client's host acknowledges nothing."""


@dataclass
class _Contact:
    heard_ns: int
    line: Line | None = None
    lost_ns: int | None = None


class Presence:
    """The last sign of life of every node.

    Parameters
    ----------
    clock : Clock
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._contacts: dict[int, _Contact] = {}

    def heard(self, node_id: int, line: Line | None) -> int | None:
        """A node has asked for something that a client asks for when it is ready to work, or is at it.

        A client of ours has one connection for such requests, so an older one with a request under way, on which nothing
        comes, is dead for it: it is given up, with whatever half a transfer it holds. `line` is None where nothing is known
        of the connection.

        Returns
        -------
        int or None
            When the node had been lost (raw ns), if this is its first sign of life since.
        """
        now_ns = self._clock.raw_ns()
        contact = self._contacts.setdefault(node_id, _Contact(now_ns))
        if line is not None and contact.line is not line:
            if contact.line is not None and contact.line.requests and _is_quiet(contact.line):
                contact.line.abandon("connection replaced: the client has opened another")
            contact.line = line
        contact.heard_ns = now_ns
        lost_ns, contact.lost_ns = contact.lost_ns, None
        return lost_ns

    def lose(self, node_id: int) -> None:
        """A round went on without the node: it counts as away until it is heard again."""
        now_ns = self._clock.raw_ns()
        self._contacts.setdefault(node_id, _Contact(now_ns)).lost_ns = now_ns

    def away(self) -> set[int]:
        """Nodes that a round went on without, and that have not been heard since."""
        return {node_id for node_id, contact in self._contacts.items() if contact.lost_ns is not None}

    def silence_s(self, node_id: int) -> float:
        """Seconds since anything was heard of the node: a request, or data on its connection."""
        contact = self._contacts.get(node_id)
        if contact is None:
            return 0.0
        since_request_s = (self._clock.raw_ns() - contact.heard_ns) / 1e9
        path = None if contact.line is None or contact.line.ended is not None else contact.line.path
        return since_request_s if path is None else min(since_request_s, path.data_silence_s)

    def phase_of(self, task: Task) -> str:
        """The latest phase of a message that the server knows to have begun.

        A downlink is over when the client's host has acknowledged all of it, which is later than its last byte was handed to
        the kernel here, and may be earlier than the client has read it: its host takes what its buffers hold, also for a
        process that stands still. What has been seen to be over stays over, whatever the connection carries next.
        """
        line = task.downlink_line
        if line is None or task.state not in ("train", "evaluate"):
            return task.state
        if not line.has_delivered:
            return "downlink"
        task.downlink_line = None
        return task.state

    def observe(self, task: Task) -> Symptom:
        """What can be seen of a client that owes a reply: its phase, as `phase_of` says, and the symptom."""
        contact = self._contacts.get(task.node_id)
        line = None if contact is None else contact.line
        phase = self.phase_of(task)
        if contact is None or line is None:
            return Symptom(phase, "silence", f"nothing heard for {self.silence_s(task.node_id):.1f} s")
        if line.ended is not None:
            return Symptom(phase, line.ended.partition(":")[0], line.ended)
        silence_s = self.silence_s(task.node_id)
        path = line.path
        if path is not None and path.timeouts and not path.is_delivered:
            return Symptom(phase, "silence", f"nothing acknowledged for {path.ack_silence_s:.1f} s")
        return Symptom(phase, "silence", f"nothing heard for {silence_s:.1f} s")

    def abandon_stalled(self) -> None:
        """Give up connections whose other side acknowledges nothing."""
        for contact in self._contacts.values():
            if contact.line is not None:
                contact.line.abandon_if_stalled()


def _is_quiet(line: Line) -> bool:
    return line.ended is None and line.path is not None and line.path.data_silence_s > QUIET_S
