"""What the server tells people while a run goes on: a table on a terminal, plain lines in a log."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fltestbed.clock import Clock
from fltestbed.config import Experiment
from fltestbed.server.roster import Roster
from fltestbed.server.rounds import RoundLog

INTERVAL_S = 0.25


@dataclass(frozen=True)
class View:
    """Where the progress is read from."""

    run: str
    experiment: Experiment
    log: RoundLog
    roster: Roster
    clock: Clock


class Progress:
    """Shows the round, the clients done, the accuracy, the seconds and the phase under way, until the block ends."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        self._start_ns = view.clock.raw_ns()
        self._said: set[int] = set()
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
        self._console.print(f"[{self._view.run}] {text}", markup=False)

    async def _watch(self) -> None:
        while True:
            batch = self._view.log.batch
            if batch is not None:
                self._say_rounds(but=batch.round)
            if self._live is not None:
                self._live.update(Text(self._now()), refresh=True)
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

    def _now(self) -> str:
        view, log = self._view, self._view.log
        seconds = (view.clock.raw_ns() - (self._start_ns if log.batch is None else log.batch.start_ns)) / 1e9
        if log.batch is None:
            return f"[{view.run}] {view.roster.count()}/{view.experiment.clients} clients, {seconds:.0f} s"
        states = " ".join(f"{task.client.name}:{task.state}" for task in log.batch.tasks.values())
        done = sum(task.held_ns is not None for task in log.batch.tasks.values())
        return (
            f"[{view.run}] round {log.batch.round}/{view.experiment.rounds}  {done}/{len(log.batch.tasks)} clients done  "
            f"{log.stage}  {seconds:.1f} s  {states}"
        )
