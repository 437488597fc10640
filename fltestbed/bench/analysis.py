"""`fltestbed bench analysis`: how long the analysis of a large run takes, and how much memory.

A run folder with a million rows in phases.csv, and with as many rows in the other files as real runs have, is made of random
durations. Then `fltestbed summary` is run on it twice, as a user does: the first time only the recorded files are there. A
process of its own, which the interpreter and the libraries belong to, takes the same steps one by one. Writing the derived
files of the whole folder, as `plot` does, is timed as well; it is no part of the bars.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fltestbed.bench.large_folder import ROWS_PER_ROUND, make_folder
from fltestbed.bench.report import Bar, Report, show
from fltestbed.errors import TestbedError
from fltestbed.measure.schema import RECORDED
from fltestbed.scratch import scratch_folder

MOST_S = 3.0
MOST_MB = 500.0

_CHILD = """
import json, resource, sys, time
started = time.perf_counter()
from pathlib import Path
from analysis.derive import SUMMARISED, derive, write
from analysis.load import load_run, load_runs
from analysis.tables import summarise
imported = time.perf_counter()
loaded = load_runs([Path(sys.argv[1])], SUMMARISED)
read = time.perf_counter()
derived = [derive(run) for run in loaded]
made = time.perf_counter()
summarise(derived)
done = time.perf_counter()
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
whole = derive(load_run(Path(sys.argv[1])))
whole_made = time.perf_counter()
write(whole)
written = time.perf_counter()
print(json.dumps({
    "import_s": imported - started, "load_s": read - imported, "derive_s": made - read, "summarise_s": done - made,
    "total_s": done - started, "peak_mb": peak_kb * 1024 / 1e6, "write_s": written - whole_made,
    "rows": len(derived[0]["phases"]),
}))
"""


@dataclass(frozen=True)
class Command:
    """What `fltestbed summary` took: seconds from its start to its end, and its largest resident memory."""

    total_s: float
    peak_mb: float


@dataclass(frozen=True)
class Figures:
    """What the analysis took.

    Attributes
    ----------
    rows : int
        Of phases.csv.
    csv_mb : float
        Size of all recorded files of the folder.
    commands : tuple of Command
        The first `fltestbed summary` of the folder, and the one after it.
    import_s, load_s, derive_s, summarise_s, total_s : float
        Seconds of each step, and of all from the start of the imports to the summary.
    write_s : float
        Seconds to write timeline.csv, clients.csv and rounds.csv afterwards.
    peak_mb : float
        Largest resident memory of the process until the summary, libraries included.
    """

    rows: int
    csv_mb: float
    commands: tuple[Command, ...]
    import_s: float
    load_s: float
    derive_s: float
    summarise_s: float
    total_s: float
    write_s: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class AnalysisReport(Report):
    """What `fltestbed bench analysis` measured."""

    benchmark = "analysis"
    figures: Figures

    def render_findings(self, console: Console) -> None:
        """Print what each step took."""
        figures = self.figures
        steps = ("import", "load", "derive", "summarise")
        taken = ", ".join(f"{step} {getattr(figures, f'{step}_s'):.2f}" for step in steps)
        about = f"{figures.rows:,} rows of phases.csv, {figures.csv_mb:.0f} MB of CSV in all; seconds: {taken}"
        show(console, f"{about}; and {figures.write_s:.2f} to write the derived files")
        first, again = (f"{each.total_s:.2f} s, {each.peak_mb:.0f} MB" for each in figures.commands)
        show(console, f"fltestbed summary, the first time: {first}; again: {again}")


def judge(figures: Figures) -> tuple[Bar, ...]:
    """Time and memory beside their bars: of the steps, and of the whole command, the larger of two calls."""
    where = f"{figures.rows:,} rows"
    return (
        Bar("load and summarise", where, figures.total_s, MOST_S, "s"),
        Bar("peak memory", where, figures.peak_mb, MOST_MB, "MB"),
        Bar("fltestbed summary", where, max(each.total_s for each in figures.commands), MOST_S, "s"),
        Bar("its peak memory", where, max(each.peak_mb for each in figures.commands), MOST_MB, "MB"),
    )


def measure(rows: int = 1_000_000) -> AnalysisReport:
    """Make a folder of so many rows, analyse it in a process of its own, and delete it.

    Raises
    ------
    TestbedError
        The process of the analysis failed.
    """
    with scratch_folder("bench") as place:
        folder = make_folder(place / "large", rounds=-(-rows // ROWS_PER_ROUND))
        commands = tuple(_summary(folder) for _ in range(2))
        done = subprocess.run([sys.executable, "-c", _CHILD, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise TestbedError(f"{folder}: the analysis of it failed: {done.stderr.strip().splitlines()[-1]}")
        csv_bytes = sum((folder / table.name).stat().st_size for table in RECORDED if (folder / table.name).is_file())
        figures = Figures(csv_mb=csv_bytes / 1e6, commands=commands, **json.loads(done.stdout))
        return AnalysisReport(figures=figures, bars=judge(figures))


def _summary(folder: Path) -> Command:
    """Run `fltestbed summary` on a folder.

    Raises
    ------
    TestbedError
        It failed.
    """
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "fltestbed", "summary", str(folder)], stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        total_s = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise TestbedError(f"{folder}: fltestbed summary failed: {said.read().decode(errors='replace').strip()}")
    return Command(total_s, used.ru_maxrss * 1024 / 1e6)
