"""`fltestbed bench analysis`: how long the analysis of a large run takes, and how much memory.

A run folder with a million rows in phases.csv, and with as many rows in the other files as real runs have, is made of random
durations. Then a process of its own, which the interpreter and the libraries belong to, loads what a summary needs of it, as
`fltestbed summary` does where the derived files are up to date, derives its tables and summarises it. Writing the derived
files of the whole folder is timed as well; it is no part of the bar.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fltestbed.bench.large_folder import ROWS_PER_ROUND, make_folder
from fltestbed.bench.report import Bar, Report, show
from fltestbed.errors import TestbedError
from fltestbed.measure.schema import DERIVED

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
class Figures:
    """What the process of the analysis took.

    Attributes
    ----------
    rows : int
        Of phases.csv.
    csv_mb : float
        Size of all recorded files of the folder.
    import_s, load_s, derive_s, summarise_s, total_s : float
        Seconds of each step, and of all from the start of the imports to the summary.
    write_s : float
        Seconds to write timeline.csv, clients.csv and rounds.csv afterwards.
    peak_mb : float
        Largest resident memory of the process until the summary, libraries included.
    """

    rows: int
    csv_mb: float
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


def judge(figures: Figures) -> tuple[Bar, ...]:
    """Time and memory beside their bars."""
    where = f"{figures.rows:,} rows"
    return (
        Bar("load and summarise", where, figures.total_s, MOST_S, "s"),
        Bar("peak memory", where, figures.peak_mb, MOST_MB, "MB"),
    )


def measure(rows: int = 1_000_000) -> AnalysisReport:
    """Make a folder of so many rows, analyse it in a process of its own, and delete it.

    Raises
    ------
    TestbedError
        The process of the analysis failed.
    """
    with tempfile.TemporaryDirectory(prefix="fltestbed-") as place:
        folder = make_folder(Path(place) / "large", rounds=-(-rows // ROWS_PER_ROUND))
        done = subprocess.run([sys.executable, "-c", _CHILD, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise TestbedError(f"{folder}: the analysis of it failed: {done.stderr.strip().splitlines()[-1]}")
        derived = {table.name for table in DERIVED}
        csv_bytes = sum(table.stat().st_size for table in folder.glob("*.csv") if table.name not in derived)
        figures = Figures(csv_mb=csv_bytes / 1e6, **json.loads(done.stdout))
        return AnalysisReport(figures=figures, bars=judge(figures))
