"""What the server knows of clients, messages and rounds while they are under way."""

import logging
from dataclasses import dataclass, field
from typing import Any

from fltestbed.measure.mapping import ClockMapping

log = logging.getLogger("fltestbed")

MOST_DOUBTS = 8
ROWS_AT_ONCE, ROWS_A_SECOND = 50_000, 200.0
"""Of one client: it makes a few each second and each round, and after an outage it brings what has gathered."""

SERVER = "server"
"""What the server is called as a host; no client may have this name."""


@dataclass
class Allowance:
    """How many rows a client may still bring: some at once, and some more each second."""

    left: float = ROWS_AT_ONCE
    counted_ns: int = 0

    def take(self, rows: int, now_ns: int) -> bool:
        """Whether so many more are allowed, at a moment of the server's raw clock; if so they are used up."""
        since_s = max(0, now_ns - self.counted_ns) / 1e9
        self.left, self.counted_ns = min(ROWS_AT_ONCE, self.left + ROWS_A_SECOND * since_s), now_ns
        if rows > self.left:
            return False
        self.left -= rows
        return True


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
    joins: int = 0
    """How often a process of it has joined."""
    allowance: Allowance = field(default_factory=Allowance)
    """Of rows in the run folder, which a client alone could fill."""
    boot: str = ""
    """Names the time since its host was last started; empty if it does not say."""

    def join(self, boot: str) -> None:
        """A process of the client joins. Since another start of its host, its raw clock counts from another zero."""
        self.joins += 1
        if boot != self.boot:
            self.mapping, self.paths = ClockMapping(), {}
        self.boot = boot

    def warn(self, what: str, now_ns: int) -> None:
        """Say what became of a transfer, at a moment of the server's raw clock; a line counts as a row that it brings."""
        if self.allowance.take(1, now_ns):
            log.warning("%s: %s", self.name, what)

    def doubt(self, reason: str) -> None:
        """Say, once for each kind of reason, that something it says cannot be true; after `MOST_DOUBTS` kinds no more."""
        kind = reason.partition(":")[0]
        if kind not in self.doubts and len(self.doubts) < MOST_DOUBTS:
            self.doubts.add(kind)
            log.warning("%s: %s; such facts are left out, and the run goes on", self.name, reason)


@dataclass(frozen=True)
class Stamp:
    """A moment on one host's raw clock; it may have been earlier by as much as `uncertainty_ns`."""

    host: str
    raw_ns: int
    uncertainty_ns: int = 0


@dataclass(frozen=True)
class Symptom:
    """Why a reply is missing, as far as it could be seen.

    Attributes
    ----------
    phase : str
        The latest that the server knows to have begun (`fltestbed.server.presence.Presence.phase_of`).
    kind : str
        In a word or two, to be counted: connection reset by the client, connection closed by the client, connection stalled,
        silence, error reply...
    detail : str
        In full.
    """

    phase: str
    kind: str
    detail: str


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
    uplink_end_uncertainty_ns: int = 0
    """By how much that may be too late."""
    held_ns: int | None = None
    failed: bool = False
    """Whether the reply is an error."""
    is_measured: bool = True
    lost: Symptom | None = None
    """Why the round went on without a reply; None as long as it has not."""
    downlink_line: Any = None
    """The connection that carries the message; None when it is known that the client's host has got all of it."""


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
    first_send_ns : int or None
        The same as `send_ns` of the first attempt to send the reply, if that one failed.
    downlink_end_uncertainty_ns : int
        By how much `downlink_end_ns` may be too late.
    """

    downlink_end_ns: int
    called_ns: int
    returned_ns: int
    spans: tuple[tuple[str, int, int, str], ...]
    send_ns: int
    connect_ns: int
    error: str | None = None
    first_send_ns: int | None = None
    downlink_end_uncertainty_ns: int = 0


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

    def gathered(self, batch: Batch) -> None:
        """The app has the replies of one of the round's batches; of several, the worst counts."""
        replied = sum(task.held_ns is not None and not task.failed for task in batch.tasks.values())
        self.replied = min(self.replied, replied) if self.selected else replied
        self.selected = max(self.selected, len(batch.tasks))
