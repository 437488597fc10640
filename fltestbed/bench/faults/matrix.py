"""The matrix: which fault strikes in which phase, and what has to hold afterwards.

One client of two, `VICTIM`, is struck, or the server, in round `STRUCK` of `ROUNDS`. A fault of a client may cost that round
its reply, or, where the client owed none by then, the next; the table below says in which phase and with which symptom it
has to be named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fltestbed.errors import ConfigError

CLIENTS = 2
VICTIM = 0
ROUNDS = 4
STRUCK = 2
PHASES = ("queue", "downlink", "train", "uplink", "aggregate")
"""In which a fault strikes."""

CLOSED = ("connection closed by the client", "connection reset by the client")
SILENT = ("silence", "connection stalled", "connection timed out")
ERROR = ("error reply",)

TRANSPORTS = ("bundle", "objects")

SHORT_S, LONG_S = 4.0, 50.0
"""Limits of a phase: for most faults, and where an outage of half a minute has to be survived."""
ROUND_BEYOND_S = 8.0
"""What a round's deadline is beyond the limit of a phase."""


@dataclass(frozen=True)
class Channel:
    """How the server and its clients speak with each other; the same for all cells of a matrix.

    Attributes
    ----------
    transport : str
        One of `TRANSPORTS`.
    has_tls : bool
    """

    transport: str = "bundle"
    has_tls: bool = False

    def __str__(self) -> str:
        return f"transport {self.transport}, {'with' if self.has_tls else 'without'} TLS"


@dataclass(frozen=True)
class Absence:
    """How a reply that a fault costs has to be on record.

    Attributes
    ----------
    round : int
        In which the reply is missing.
    phase : str
        In which phase.
    symptoms : tuple of str
        One of them is right.
    asks_again : bool
        With the transport `objects` the phase is right as well before which the client has to ask for its message.
    """

    round: int
    phase: str
    symptoms: tuple[str, ...]
    asks_again: bool = False

    def phases(self, channel: Channel) -> tuple[str, ...]:
        """Those that are right over this channel."""
        return ("queue", self.phase) if self.asks_again and channel.transport == "objects" else (self.phase,)


@dataclass(frozen=True)
class Fault:
    """One row of the matrix.

    Attributes
    ----------
    name : str
        As `--cells` takes it.
    about : str
        For people.
    absences : mapping of str to Absence
        By the phase in which it strikes; none where it costs time alone.
    sessions : tuple of str
        How the server's sessions end, in order.
    limit_s : float
        Limit of each phase.
    impossible : mapping of str to str
        Phases in which it cannot strike, and why.
    returns : bool
        Whether the victim takes part again before the run is over.
    """

    name: str
    about: str
    absences: Mapping[str, Absence] = field(default_factory=dict)
    sessions: tuple[str, ...] = ("complete",)
    limit_s: float = SHORT_S
    impossible: Mapping[str, str] = field(default_factory=dict)
    returns: bool = True

    @property
    def round_deadline_s(self) -> float:
        """`server.round-deadline-s` of its runs."""
        return self.limit_s + ROUND_BEYOND_S

    @property
    def status(self) -> str:
        """The manifest's in the end."""
        return {"killed": "running"}.get(self.sessions[-1], self.sessions[-1])


@dataclass(frozen=True)
class Cell:
    """A fault in a phase."""

    fault: Fault
    phase: str

    @property
    def name(self) -> str:
        """As `--cells` takes it."""
        return f"{self.fault.name}/{self.phase}"

    @property
    def impossible(self) -> str:
        """Why it cannot exist; empty if it can."""
        return self.fault.impossible.get(self.phase, "")

    @property
    def absence(self) -> Absence | None:
        """The reply that it costs."""
        return self.fault.absences.get(self.phase)


def _absences(symptoms: tuple[str, ...], aggregate: str) -> dict[str, Absence]:
    """Replies of the struck round, missing in the phase in which it was struck. In its aggregation they are there, and those
    of the next round are missing, in the phase `aggregate`: its downlink where the client had asked for the message already.
    """
    now = {phase: Absence(STRUCK, phase, symptoms) for phase in PHASES if phase != "aggregate"}
    return now | {"aggregate": Absence(STRUCK + 1, aggregate, symptoms, asks_again=aggregate == "downlink")}


_TRAINER_GONE = {phase: Absence(STRUCK, "train", ERROR) for phase in ("queue", "downlink", "train")} | {
    phase: Absence(STRUCK + 1, "train", ERROR) for phase in ("uplink", "aggregate")
}
_NOTHING_TRAINS = "nothing trains then: a trainer that hangs is noticed when it is given a message, which is its train phase"
_RESUMED_AFTER_KILL, _RESUMED_AFTER_FAILURE = ("killed", "complete"), ("failed", "complete")

FAULTS = (
    Fault(
        "client-killed", "client killed (SIGKILL), started again when it is missed",
        _absences(CLOSED, aggregate="queue"),
    ),
    Fault(
        "client-stopped", "client stopped (SIGSTOP), goes on when it is missed",
        _absences(SILENT, aggregate="downlink"),
    ),
    Fault("link-down-1s", "link down for 1 s"),
    Fault("link-down-30s", "link down for 30 s", limit_s=LONG_S),
    Fault(
        "link-down", "link down for good",
        _absences(SILENT, aggregate="downlink"), returns=False,
    ),
    Fault(
        "trainer-hung", "trainer hung (SIGSTOP)", {"train": Absence(STRUCK, "train", ERROR)},
        impossible={phase: _NOTHING_TRAINS for phase in PHASES if phase != "train"},
    ),
    Fault("trainer-crashed", "trainer crashed (SIGSEGV)", _TRAINER_GONE),
    Fault("disk-full-client", "disk full on the client"),
    Fault("disk-full-server", "disk full on the server, resumed with room", sessions=_RESUMED_AFTER_FAILURE),
    Fault("server-killed", "server killed (both processes), resumed", sessions=_RESUMED_AFTER_KILL),
    Fault("serverapp-crashed", "ServerApp crashed (SIGSEGV), resumed", sessions=_RESUMED_AFTER_FAILURE),
    Fault("superlink-killed", "SuperLink killed, not resumed", sessions=("killed",), returns=False),
    Fault("clock-stepped", "client's wall clock stepped by +1 h"),
)  # fmt: skip

CELLS = tuple(Cell(fault, phase) for fault in FAULTS for phase in PHASES)


def choose_cells(words: Sequence[str]) -> list[Cell]:
    """The cells that some words name: a fault, a phase, or ``fault/phase``; all of them without a word.

    Raises
    ------
    ConfigError
        A word names none.
    """
    unknown = [word for word in words if not any(word in _names(cell) for cell in CELLS)]
    if unknown:
        faults = ", ".join(fault.name for fault in FAULTS)
        raise ConfigError(
            f"--cells {','.join(words)}: {', '.join(unknown)} is not known; choose of the faults {faults}, of the phases "
            f"{', '.join(PHASES)}, and of cells such as {CELLS[0].name}"
        )
    return [cell for cell in CELLS if not words or any(word in _names(cell) for word in words)]


def _names(cell: Cell) -> tuple[str, str, str]:
    return cell.fault.name, cell.phase, cell.name
