"""Runs the cells of the matrix, each in a process and a mount namespace of its own, a few at a time."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from fltestbed.bench.faults.cell import RESUME_BAR_S, Outcome
from fltestbed.bench.faults.matrix import CLIENTS, ROUNDS, STRUCK, Cell, Channel
from fltestbed.bench.faults.report import FaultsReport, judge
from fltestbed.scratch import scratch_folder

CELL_TIMEOUT_S = 400.0

ABOUT = (
    f"{CLIENTS} real clients and a server in network namespaces, 50 Mbit/s (2 for a transfer that is struck), a model of "
    f"0.4 MB; {ROUNDS} rounds, struck in round {STRUCK}",
    "a cell holds when nothing hangs past its deadline plus 10 s, each whole row that a witness saw is there afterwards, "
    "who is missing is named with phase and symptom, the manifest's status is right, nothing is left running, mounted or "
    "in temporary folders, routes are as before, and a later run in the same folders completes",
    f"and: a client that can come back does, as the same; after an outage a transfer goes on within {RESUME_BAR_S:g} s",
)

log = logging.getLogger("fltestbed")


def measure(cells: Sequence[Cell], at_once: int, channel: Channel) -> FaultsReport:
    """Run cells over a channel, so many at once; nothing is left running."""
    start = time.monotonic()
    possible = [cell for cell in cells if not cell.impossible]
    running: set[subprocess.Popen[str]] = set()
    over = threading.Event()

    def run(cell: Cell) -> Outcome:
        return Outcome(cell.name, ("interrupted",)) if over.is_set() else _run_apart(cell, channel, folder, running)

    with scratch_folder("bench") as folder, ThreadPoolExecutor(at_once) as pool:
        try:
            outcomes = tuple(pool.map(run, possible))
        except BaseException:  # Ctrl-C: nobody waits for cells
            over.set()
            for process in list(running):
                process.terminate()
            raise
    return FaultsReport(
        about=(*ABOUT, str(channel)), channel=channel, outcomes=outcomes,
        impossible={cell.name: cell.impossible for cell in cells if cell.impossible},
        seconds=time.monotonic() - start, bars=judge(outcomes),
    )  # fmt: skip


def _run_apart(cell: Cell, channel: Channel, folder: Path, running: "set[subprocess.Popen[str]]") -> Outcome:
    own = folder / cell.name.replace("/", "-")
    own.mkdir()
    # What a cell mounts is seen by it alone, and gone with it, however it ends.
    argv = ["-m", "fltestbed.bench.faults.cell", cell.name, str(own), json.dumps(asdict(channel))]
    command = ["unshare", "--mount", "--", sys.executable, *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        running.add(process)
        try:
            out, err = process.communicate(timeout=CELL_TIMEOUT_S)
            outcome = Outcome(**json.loads(out))
        except subprocess.TimeoutExpired:
            process.kill()
            outcome = Outcome(cell.name, (f"not over after {CELL_TIMEOUT_S:g} s",), CELL_TIMEOUT_S)
        except ValueError:
            last = "".join(err.strip().splitlines()[-1:])
            outcome = Outcome(cell.name, (f"the cell's process ended with status {process.returncode}: {last}",))
        finally:
            running.discard(process)
    told = f"misses: {'; '.join(outcome.reasons)}" if outcome.reasons else "holds"
    log.info("%s %s (%.0f s)", cell.name, told, outcome.seconds)
    return outcome
