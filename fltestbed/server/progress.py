"""What the server tells people while a run goes on: a table on a terminal, plain lines in a log."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fltestbed.clock import Clock
from fltestbed.config import Experiment
from fltestbed.server.latest import Known, Latest
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Task
from fltestbed.server.waiting import Waiting

INTERVAL_S = 0.5
MOST_LINES = 24
"""Clients of the table: what is drawn on the event loop must not grow with them."""


@dataclass(frozen=True)
class View:
    """Where the progress is read from."""

    run: str
    experiment: Experiment
    log: RoundLog
    roster: Roster
    latest: Latest
    waiting: Waiting
    clock: Clock


class Progress:
    """Shows the round, what each client is at, its last uplink and its signal, until the block ends."""

    def __init__(self, view: View, console: Console | None = None) -> None:
        self._view = view
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        self._start_ns = view.clock.raw_ns()
        self._said: set[int] = set()
        self._told: tuple[object, ...] = ()
        """The wait that was told last."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._say_rounds(but=None)
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.out(f"[{self._view.run}] {text}", highlight=False)

    async def _watch(self) -> None:
        while True:
            batch = self._view.log.batch
            if batch is not None:
                self._say_rounds(but=batch.round)
            waiting, key = str(self._view.waiting), self._view.waiting.key
            if waiting and key != self._told:
                self._told = key
                self.say(waiting)
            if self._live is not None:
                now = self._now()
                self._live.update(Group(now, Text(waiting)) if waiting else now, refresh=True)
            await asyncio.sleep(INTERVAL_S)

    def _say_rounds(self, but: int | None) -> None:
        """A line for each round that is over; `but` is under way."""
        for number, state in self._view.log.rounds.items():
            if number == but or number in self._said or not state.selected:
                continue
            self._said.add(number)
            replied = f"{state.replied}/{state.selected} clients" if state.is_measured else "not measured"
            parts = [f"round {number}/{self._view.experiment.rounds}", replied]
            if state.accuracy is not None:
                parts.append(f"accuracy {state.accuracy:.3f}")
            parts.append(f"{(state.end_ns - state.start_ns) / 1e9:.1f} s")
            self.say(", ".join(parts))

    def _now(self) -> Group:
        view, log = self._view, self._view.log
        seconds = (view.clock.raw_ns() - (self._start_ns if log.batch is None else log.batch.start_ns)) / 1e9
        if log.batch is None:
            return Group(Text(f"[{view.run}] {view.roster.count()}/{view.experiment.clients} clients, {seconds:.0f} s"))
        tasks = list(log.batch.tasks.values())
        done = sum(task.held_ns is not None for task in tasks)
        head = (
            f"[{view.run}] round {log.batch.round}/{view.experiment.rounds}  {done}/{len(tasks)} clients done  "
            f"{log.stage}  {seconds:.1f} s"
        )
        return Group(self._table(tasks), Text(head))

    def _table(self, tasks: list[Task]) -> Table:
        """Those who are awaited first."""
        table = Table("client", "link", "phase", box=None, pad_edge=False)
        for name in ("last downlink", "last train", "last uplink", "signal"):
            table.add_column(name, justify="right")
        awaited = sorted(tasks, key=lambda task: (task.held_ns is not None, task.client.name))
        for task in awaited[:MOST_LINES]:
            known = self._view.latest.clients.get(task.client.name, Known())
            table.add_row(
                task.client.name, task.client.link, task.state,
                *(_seconds(known, phase) for phase in ("downlink", "train", "uplink")), _signal(known),
            )  # fmt: skip
        if len(awaited) > MOST_LINES:
            table.add_row(f"and {len(awaited) - MOST_LINES} more")
        return table


def _seconds(known: Known, phase: str) -> str:
    timed = known.phases.get(phase)
    return "" if timed is None else f"{timed.last_s:.3g} s"


def _signal(known: Known) -> str:
    return ", ".join(f"{technology} {dbm:.0f} dBm" for technology, dbm in known.signal_dbm.items())
