"""`fltestbed bench disk`: what a slow disk costs a round, as the ratio of round times on a slow and on a fast one.

The run folder and the clients' state folders lie on disks that are slow in every other block of rounds
(`fltestbed.bench.slow_disk`). How a ratio comes of that stands in `fltestbed.bench.pairs`, how many blocks in
`fltestbed.bench.blocks`. Checkpoints, rows, manifest and the clients' own copies are written as ever.

A library that delays nothing would show that a slow disk costs nothing: a folder without delays ends the benchmark.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fltestbed.bench.blocks import Plan, Task, measure_link
from fltestbed.bench.noise import CLIENTS
from fltestbed.bench.pairs import RESOLVED, Estimate
from fltestbed.bench.place import CONGESTION_CONTROL
from fltestbed.bench.ratio_report import LinkFinding, show_notes, show_ratios
from fltestbed.bench.report import Bar, Report
from fltestbed.bench.slow_disk import Count, DiskSpeed, DiskUse, SlowDisk
from fltestbed.bench.toolkit import RUN
from fltestbed.config import Instrumentation
from fltestbed.errors import TestbedError

MOST_RATIO = 1.01
RUN_FOLDER = "run folder"

ABOUT = (
    f"{CLIENTS} clients, fresh random weights each round, no training; congestion control {CONGESTION_CONTROL}",
    "checkpoints, rows, manifest and the clients' own copies are written as ever",
    "one run alternates between blocks of rounds with a slow and a fast disk; the first round of each is not counted",
    f"ratio: round time slow / fast, 95% interval over pairs of blocks; resolved if half of it is at most {RESOLVED:.1%}",
)


@dataclass(frozen=True, kw_only=True)
class Finding(LinkFinding):
    """What was found on one link.

    Attributes
    ----------
    slow_rounds : int
        In all runs, counted or not.
    use : dict of str to DiskUse
        What the disks saw in all runs: of the run folder, and of each client's state.
    """

    slow_rounds: int
    use: dict[str, DiskUse]


@dataclass(frozen=True, kw_only=True)
class DiskReport(Report):
    """What `fltestbed bench disk` measured."""

    benchmark = "disk"
    speed: DiskSpeed
    findings: tuple[Finding, ...]

    def render_findings(self, console: Console) -> None:
        """Print each ratio with its interval, and what the disks delayed."""
        show_ratios(console, "what a slow disk costs", "fast", self.findings)
        per_round = ("link", "disk of", "writes", "syncs", "renames", "delay, s", "of main threads, s")
        table = Table(*per_round, title="delayed in a slow round, on average", title_justify="left")
        for found in self.findings:
            for name, use in found.use.items():
                calls = (f"{count.delayed / found.slow_rounds:.2f}" for count in use.counts.values())
                seconds = (f"{value / found.slow_rounds:.4f}" for value in (use.delay_s, use.main_thread_s))
                table.add_row(found.link, name, *calls, *seconds)
        console.print(table)
        show_notes(console, self.findings)


def measure(plan: Plan, speed: DiskSpeed) -> DiskReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        A process failed, or a disk was not slow; the message says which.
    """
    findings = tuple(_measure_link(plan, link, speed) for link in plan.links)
    slow = f"slow: {speed.write_ms:g} ms a write, {speed.sync_ms:g} ms a sync, rename or removal, {speed.rate_mb_s:g} MB/s"
    return DiskReport(
        about=(*ABOUT, f"{slow}; one at a time on each host's disk"), speed=speed, findings=findings,
        bars=tuple(found.bar for found in findings),
    )  # fmt: skip


def find(
    link: str, notes: tuple[str, ...], counted_rounds: int, estimate: Estimate, slow_rounds: int,
    runs: list[dict[str, DiskUse]],
) -> Finding:  # fmt: skip
    """An estimate beside its bar, with what the disks of all runs saw."""
    bar = Bar("round slow / fast, upper end of the interval", link, estimate.high, MOST_RATIO)
    use = {name: _sum([run[name] for run in runs]) for name in runs[0]}
    return Finding(
        **vars(estimate), link=link, notes=notes, counted_rounds=counted_rounds, slow_rounds=slow_rounds, use=use, bar=bar
    )


def check_use(use: dict[str, DiskUse]) -> None:
    """See that each disk was slow, and was fast again.

    Raises
    ------
    TestbedError
        One was not: what was measured says nothing of slow disks.
    """
    for name, disk in use.items():
        calls = sum(count.calls for count in disk.counts.values())
        if not 0 < disk.delayed < calls:
            raise TestbedError(
                f"{name}: {disk.delayed} of {calls} calls were delayed, so no slow disk was compared with a fast one; is "
                "LD_PRELOAD ignored here (a program linked statically, or with other rights)?"
            )


def _measure_link(plan: Plan, link: str, speed: DiskSpeed) -> Finding:
    runs: list[dict[str, DiskUse]] = []
    slow_rounds = 0

    def run(task: Task) -> list[int]:
        nonlocal slow_rounds
        states = {host.name: task.folder / host.name for host in task.here.clients}
        disk = _slow_disk(task.folder, {RUN_FOLDER: task.folder / RUN, **states}, speed)
        starts_ns = task.starts_ns(environment=disk.environment, switch=disk.switch)
        runs.append(disk.use())
        check_use(runs[-1])
        schedule = Instrumentation.model_validate({"alternate-rounds": task.block + 1})
        slow_rounds += sum(map(schedule.is_measured, range(1, len(starts_ns) + 1)))
        return starts_ns

    measured = measure_link(plan, link, run)
    return find(measured.link, measured.notes, measured.counted_rounds, measured.estimate, slow_rounds, runs)


def _slow_disk(folder: Path, watched: dict[str, Path], speed: DiskSpeed) -> SlowDisk:
    own = folder / "disk"
    own.mkdir()
    return SlowDisk(own, watched, speed)


def _sum(uses: list[DiskUse]) -> DiskUse:
    counts = {
        kind: Count(
            sum(use.counts[kind].calls for use in uses),
            sum(use.counts[kind].delayed for use in uses),
            sum(use.counts[kind].delay_s for use in uses),
        )
        for kind in uses[0].counts
    }
    return DiskUse(counts, sum(use.main_thread_s for use in uses))
