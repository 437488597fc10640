"""Signs of life: what a node's request means where a round has gone on without it."""

from fltestbed.clock import Clock
from fltestbed.flower.superlink import Superlink
from fltestbed.server.presence import Line, Presence
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog


class Attendance:
    """Takes nodes back that were missing.

    Parameters
    ----------
    presence : Presence
        Knows who is away.
    superlink : Superlink
    roster : Roster
    log : RoundLog
        Has the record of who came back.
    clock : Clock
    """

    def __init__(self, presence: Presence, superlink: Superlink, roster: Roster, log: RoundLog, clock: Clock) -> None:
        self._presence = presence
        self._superlink = superlink
        self._roster = roster
        self._log = log
        self._clock = clock

    def heard(self, node_id: int, line: Line | None = None) -> int | None:
        """A node that has proved itself asks for something, over a connection as `Presence.heard` takes it.

        Returns
        -------
        int or None
            When the node had been lost (raw ns), if this is its first sign of life since.
        """
        lost_ns = self._presence.heard(node_id, line)
        if lost_ns is not None:
            self._superlink.revive(node_id)  # Flower's own heartbeat may be half a minute away
            self._log.absences.returned(self._roster.client(node_id), self._clock.raw_ns(), lost_ns)
        return lost_ns
