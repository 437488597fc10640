"""For whom a round waits, and until when: in words, for the terminal."""

import time

from fltestbed.clock import Clock
from fltestbed.errors import TestbedError
from fltestbed.server.deadline import DeadlineWatch
from fltestbed.server.presence import Presence
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog

PATIENCE_S = 5.0
"""A wait is told when it has lasted longer."""
_MOST_NAMES = 5


class Waiting:
    """Says for whom a round, or the app before a round, waits; and ends the run when the app waits too long.

    Parameters
    ----------
    log : RoundLog
    roster : Roster
    presence : Presence
    watch : DeadlineWatch
    return_s : float
        `deadlines.return-s`.
    clock : Clock
    """

    def __init__(
        self, log: RoundLog, roster: Roster, presence: Presence, watch: DeadlineWatch, return_s: float, clock: Clock
    ) -> None:
        self._log = log
        self._roster = roster
        self._presence = presence
        self._watch = watch
        self._return_s = return_s
        self._clock = clock
        self._asked_ns: int | None = None
        self._there = 0

    def asked(self, there: int) -> None:
        """The app has asked which nodes there are, and has got so many; it does so again and again while they are too few.

        Raises
        ------
        TestbedError
            It has waited for too long.
        """
        self._there = there
        self._asked_ns = self._clock.raw_ns() if self._asked_ns is None else self._asked_ns
        if (self._clock.raw_ns() - self._asked_ns) / 1e9 > self._return_s:
            raise TestbedError(
                f"the app has waited for more than {there} clients for {self._return_s:g} s (deadlines.return-s)"
                f"{self._away()}; bring them back, or let the strategy do with fewer (its min-* arguments)"
            )

    def sent(self) -> None:
        """The app has sent its messages: it has the nodes that it wants."""
        self._asked_ns = None

    def __str__(self) -> str:
        """One line; empty while there is nothing to tell."""
        return self._for_nodes() or self._for_replies()

    @property
    def key(self) -> tuple[object, ...]:
        """The same as long as the wait is the same."""
        if self._asked_ns is not None:
            return ("nodes", self._asked_ns, self._there)
        return ("replies", *sorted(task.message_id for task in self._log.pending()))

    def _for_nodes(self) -> str:
        now_ns = self._clock.raw_ns()
        if self._asked_ns is None or now_ns - self._asked_ns < PATIENCE_S * 1e9:
            return ""
        number = 1 if self._log.batch is None else self._log.batch.round + 1
        end_ns = self._asked_ns + int(self._return_s * 1e9)
        there = f"{self._there} client{' is' if self._there == 1 else 's are'} there"
        return f"round {number} waits for more clients, {there}{self._away()}; until {self._moment(end_ns)}"

    def _for_replies(self) -> str:
        batch, pending = self._log.batch, self._log.pending()
        now_ns = self._clock.raw_ns()
        if batch is None or not pending or now_ns - batch.start_ns < PATIENCE_S * 1e9:
            return ""
        arrived = [task.uplink_end_ns for task in batch.tasks.values() if task.uplink_end_ns is not None]
        alone_s = (now_ns - max(arrived)) / 1e9 if arrived else 0.0
        others_s = (max(arrived) - batch.start_ns) / 1e9 if arrived else 0.0
        limits = {task.message_id: self._watch.limit_of(task) for task in pending}
        waited_ns = {task.message_id: now_ns - task.ready_ns for task in pending}
        is_late = any(
            max(PATIENCE_S * 1e9, (limits[name].end_ns - now_ns + waited) / 2) < waited for name, waited in waited_ns.items()
        )
        is_odd = any(
            self._presence.observe(task).kind != "silence" and self._presence.silence_s(task.node_id) > PATIENCE_S
            for task in pending
        )
        if not (is_late or is_odd or alone_s > max(PATIENCE_S, others_s / 2)):
            return ""
        names = [
            f"{task.client.name} ({(seen := self._presence.observe(task)).phase}: {seen.detail})"
            for task in pending[:_MOST_NAMES]
        ]
        more = f" and {len(pending) - _MOST_NAMES} more" if len(pending) > _MOST_NAMES else ""
        last = max(limits.values(), key=lambda limit: limit.end_ns)
        return f"round {batch.round} waits for {', '.join(names)}{more}; until {self._moment(last.end_ns)}, {last}"

    def _away(self) -> str:
        names = self._roster.names_of(self._presence.away() | self._roster.offline_nodes())
        return f"; away: {', '.join(names)}" if names else ""

    def _moment(self, raw_ns: int) -> str:
        left_s = (raw_ns - self._clock.raw_ns()) / 1e9
        wall_s = self._clock.wall_ns() / 1e9 + left_s
        return f"{time.strftime('%H:%M:%S', time.localtime(wall_s))} ({max(0.0, left_s):.0f} s more)"
