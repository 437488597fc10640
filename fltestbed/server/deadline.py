"""When a round goes on without a client, and what becomes of connections that carry nothing any more."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from fltestbed.clock import Clock
from fltestbed.config import Deadlines, Experiment
from fltestbed.server.exchange import Exchange
from fltestbed.server.presence import Presence
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Batch, Task
from fltestbed.server.transfers import TransferLog

TICK_S = 0.2


@dataclass(frozen=True)
class Limit:
    """A limit that a task is under.

    Attributes
    ----------
    name : str
        The key that sets it, for people.
    seconds : float
    end_ns : int
        Server's raw clock when it is over.
    """

    name: str
    seconds: float
    end_ns: int

    def __str__(self) -> str:
        return f"{self.name} = {self.seconds:.3g}"


class LearnedDeadline:
    """A deadline from how long clients took to answer in the last rounds.

    ``deadline = factor * Q(times)``, with Q the `quantile` (linear between order statistics: type 7 of Hyndman and Fan, The
    American Statistician 50(4), 1996) of the times from the message's readiness to the reply's last byte in the last
    `rounds` rounds, over all clients. It is never below `least_s`, and the round's own deadline bounds it from above. To act
    when a request has been outstanding for longer than a high quantile of what was observed is the rule of Dean and Barroso
    (The Tail at Scale, Communications of the ACM 56(2), 2013).

    A reply that never came counts with the deadline that it missed: it would have taken longer, so each miss makes the next
    deadline longer, and a client that is slow rather than dead is not left out for ever.
    """

    def __init__(self, settings: Deadlines) -> None:
        self._settings = settings
        self._rounds: deque[tuple[int, list[float]]] = deque()
        self._limit_s = math.inf

    @property
    def limit_s(self) -> float:
        """The deadline now; infinite before the first round is over, and where none is to be learned."""
        return self._limit_s

    def learn(self, round_: int, times_s: list[float]) -> None:
        """Replies of a round took so long."""
        if not self._settings.learned or not times_s:
            return
        if self._rounds and self._rounds[-1][0] == round_:
            self._rounds[-1][1].extend(times_s)
        else:
            self._rounds.append((round_, list(times_s)))
        while len(self._rounds) > self._settings.rounds:
            self._rounds.popleft()
        every = [time_s for _, times in self._rounds for time_s in times]
        quantile_s = float(np.quantile(every, self._settings.quantile))
        self._limit_s = max(self._settings.least_s, self._settings.factor * quantile_s)


class DeadlineWatch:
    """Looks at every message that is not answered, several times a second, for as long as `run` runs.

    Parameters
    ----------
    experiment : Experiment
    log : RoundLog
    exchange : Exchange
    transfers : TransferLog
    presence : Presence
    run_id : int
    clock : Clock
    """

    def __init__(
        self, experiment: Experiment, log: RoundLog, exchange: Exchange, transfers: TransferLog, presence: Presence,
        run_id: int, clock: Clock,
    ) -> None:  # fmt: skip
        settings = experiment.deadlines
        self._limits_s = {
            "queue": settings.queue_s, "downlink": settings.downlink_s, "train": settings.train_s,
            "evaluate": settings.evaluate_s, "uplink": settings.uplink_s,
        }  # fmt: skip
        self._round_deadline_s = experiment.server.round_deadline_s
        self._log = log
        self._exchange = exchange
        self._transfers = transfers
        self._presence = presence
        self._run_id = run_id
        self._clock = clock
        self._learned = LearnedDeadline(settings)
        self._phases: dict[str, tuple[str, int]] = {}
        """Phase in which each message was last seen, and since when."""
        self._given_up: set[str] = set()
        log.watchers.append(self._gathered)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(TICK_S)

    def look(self) -> None:
        """Give up what is over its limit, and connections over which nothing goes any more."""
        self._presence.abandon_stalled()
        now_ns = self._clock.raw_ns()
        pending = self._log.pending()
        before, self._phases = self._phases, {}
        for task in pending:
            phase, since_ns = before.get(task.message_id, ("", 0))
            seen = self._presence.phase_of(task)
            self._phases[task.message_id] = (seen, since_ns if phase == seen else now_ns)
            limit = self.limit_of(task)
            if now_ns >= limit.end_ns:
                self._give_up(task, now_ns, limit)

    def limit_of(self, task: Task) -> Limit:
        """The limit that ends first for a message that is not answered."""
        limits = [Limit("server.round-deadline-s", self._round_deadline_s, _after(task.ready_ns, self._round_deadline_s))]
        if math.isfinite(self._learned.limit_s):
            limits.append(Limit("learned deadline", self._learned.limit_s, _after(task.ready_ns, self._learned.limit_s)))
        phase, since_ns = self._phases.get(task.message_id, (task.state, task.ready_ns))
        limit_s = self._limits_s.get(phase)
        if limit_s is not None:
            limits.append(Limit(f"deadlines.{phase}-s", limit_s, _after(since_ns, limit_s)))
        return min(limits, key=lambda limit: limit.end_ns)

    def _give_up(self, task: Task, now_ns: int, limit: Limit) -> None:
        self._given_up.add(task.message_id)
        self._log.lose(task, now_ns, str(limit))
        self._presence.lose(task.node_id)
        self._exchange.expire(task.message_id, self._run_id)

    def _gathered(self, batch: Batch) -> None:
        """The app waits no longer: also where its own timeout was shorter, or Flower gave a node up."""
        times_s = []
        for task in batch.tasks.values():
            if task.lost is not None:
                self._transfers.lost(task, task.lost)
                if task.message_id not in self._given_up:
                    self._presence.lose(task.node_id)
                times_s.append(min(self._learned.limit_s, self._round_deadline_s))
            elif task.uplink_end_ns is not None and not task.failed:
                times_s.append((task.uplink_end_ns - task.ready_ns) / 1e9)
        self._given_up -= batch.tasks.keys()
        self._learned.learn(batch.round, times_s)


def _after(start_ns: int, seconds: float) -> int:
    return start_ns + int(seconds * 1e9)
