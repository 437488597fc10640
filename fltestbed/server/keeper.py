"""The ServerApp's side of checkpoints: takes one after each round, and lets a run go on from one."""

from pathlib import Path
from threading import Event

from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fltestbed.clock import Clock
from fltestbed.errors import RunFolderError
from fltestbed.flower.strategy_state import NotCovered, restore, snapshot
from fltestbed.measure.schema import CHECKPOINT_PAUSE, CHECKPOINT_TIME
from fltestbed.server.checkpoint import UNREADABLE, Checkpoint, CheckpointWriter, load
from fltestbed.server.grid import BundleGrid
from fltestbed.text import printable


class Keeper:
    """Keeps the model and the strategy's state of each round that is over.

    Parameters
    ----------
    folder : Path
        The run folder's `checkpoints`.
    source : Path or None
        The checkpoint to go on from; None begins the run.
    grid : BundleGrid
        Gets the marks: how long a checkpoint took, and what of a strategy is not in it.
    clock : Clock
    idle : Event
        Set while the grid waits for replies.
    """

    def __init__(self, folder: Path, source: Path | None, grid: BundleGrid, clock: Clock, idle: Event) -> None:
        self._writer = CheckpointWriter(folder, clock, idle)
        self._source = source
        self._grid = grid
        self._clock = clock
        self._has_told = False

    def begin(self, strategy: Strategy) -> tuple[int, ArrayRecord] | None:
        """Put the strategy's state back; returns the last round that is over and its model, None for a new run."""
        if self._source is None:
            return None
        checkpoint = load(self._source)
        try:
            restore(strategy, checkpoint.state.tree, checkpoint.state.blobs)
        except (NotCovered, *UNREADABLE) as error:
            raise RunFolderError(f"{self._source}: cannot go on from it: {printable(str(error), 200)}") from error
        return checkpoint.round, checkpoint.arrays

    def round_over(self, round_: int, arrays: ArrayRecord, strategy: Strategy) -> None:
        """Take a snapshot, and leave it to the writer."""
        start_ns = self._clock.raw_ns()
        state = snapshot(strategy)
        self._writer.put(Checkpoint(round_, arrays, state))
        end_ns = self._clock.raw_ns()
        self._mark(round_, {CHECKPOINT_PAUSE: (end_ns - start_ns) / 1e9}, end_ns)
        self._mark_written()
        if not self._has_told:
            self._has_told = True
            self._grid.mark("checkpoints", left_out=state.left_out)
        self._grid.flush()  # a checkpoint counts from when its rows are on the disk, and the next request may be late

    def close(self) -> None:
        """Wait for the last one to be on the disk."""
        self._writer.close()
        self._mark_written()

    def _mark_written(self) -> None:
        for written in self._writer.take_written():
            self._mark(written.round, {CHECKPOINT_TIME: written.seconds}, self._clock.raw_ns())

    def _mark(self, round_: int, values: dict[str, float], raw_ns: int) -> None:
        self._grid.mark("metrics", round=round_, source="server", values=values, raw_ns=raw_ns)
