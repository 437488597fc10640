"""What the server knows of clients, messages and rounds while they are under way."""

import logging
from dataclasses import dataclass, field

from fltestbed.measure.mapping import ClockMapping

log = logging.getLogger("fltestbed")

MOST_DOUBTS = 8

SERVER = "server"
"""What the server is called as a host; no client may have this name."""


@dataclass
class Client:
    """What the server knows of one node."""

    name: str
    link: str
    interface: str = ""
    is_ours: bool = True
    """False for a stock SuperNode, of which only the server's side is seen."""
    mapping: ClockMapping = field(default_factory=ClockMapping)
    """From the exchanges over all its interfaces: a bound holds whatever the path."""
    paths: dict[str, ClockMapping] = field(default_factory=dict)
    """The same from the exchanges over one interface alone, by its name: their difference is the asymmetry of a path."""
    doubts: set[str] = field(default_factory=set)
    """What it says that cannot be true, as far as this has been told."""

    def doubt(self, reason: str) -> None:
        """Say, once for each kind of reason, that something it says cannot be true; after `MOST_DOUBTS` kinds no more."""
        kind = reason.partition(":")[0]
        if kind not in self.doubts and len(self.doubts) < MOST_DOUBTS:
            self.doubts.add(kind)
            log.warning("%s: %s; such facts are left out, and the run goes on", self.name, reason)


@dataclass(frozen=True)
class Stamp:
    """A moment on one host's raw clock."""

    host: str
    raw_ns: int


@dataclass
class Task:
    """One message to one client and what is known of it so far."""

    round: int
    message_type: str
    message_id: str
    node_id: int
    client: Client
    ready_ns: int
    state: str = "queue"
    attempt: int = 0
    downlink_start_ns: int | None = None
    downlink_payload_bytes: int = 0
    uplink_end_ns: int | None = None
    held_ns: int | None = None
    failed: bool = False
    """Whether the reply is an error."""
    is_measured: bool = True


@dataclass
class Batch:
    """The messages of one round and type, from the first sent to the last answered."""

    round: int
    message_type: str
    tasks: dict[str, Task] = field(default_factory=dict)
    start_ns: int = 0
    gathered_ns: int | None = None


@dataclass(frozen=True)
class ReplyFacts:
    """What a client says of one message in its reply's prologue; ns of its own raw clock.

    Attributes
    ----------
    downlink_end_ns : int
        Last byte of the message read.
    called_ns, returned_ns : int
        The ClientApp was called, and returned.
    spans : tuple of (phase, start, end, detail)
        What the app reported, or its whole call.
    send_ns : int
        Just before the first byte of the reply was written.
    connect_ns : int
        Time that was needed to open a connection for the reply; 0 when there was one.
    error : str or None
        Reason of an error reply.
    """

    downlink_end_ns: int
    called_ns: int
    returned_ns: int
    spans: tuple[tuple[str, int, int, str], ...]
    send_ns: int
    connect_ns: int
    error: str | None = None


@dataclass(frozen=True)
class WireBytes:
    """Bytes on the wire of a message and of its reply: data segments with retransmissions and headers; None if unknown."""

    downlink: int | None
    uplink: int | None


@dataclass
class RoundState:
    """A round as people follow it; ns of the server's raw clock."""

    start_ns: int
    end_ns: int
    replied: int = 0
    selected: int = 0
    is_measured: bool = True
    accuracy: float | None = None
