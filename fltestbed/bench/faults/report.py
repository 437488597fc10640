"""What `fltestbed bench faults` found."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from fltestbed.bench.faults.cell import RESUME_BAR_S, Outcome
from fltestbed.bench.faults.matrix import FAULTS, PHASES, Cell, Channel
from fltestbed.bench.report import Bar, Report, show

HOLDS, MISSES, IMPOSSIBLE, NOT_RUN = "holds", "MISSES", "cannot exist", ""


@dataclass(frozen=True, kw_only=True)
class FaultsReport(Report):
    """The matrix.

    Attributes
    ----------
    channel : Channel
        How server and clients spoke with each other.
    outcomes : tuple of Outcome
        Of the cells that were run.
    impossible : dict of str to str
        Cells that were chosen and cannot exist, and why.
    seconds : float
        What all of it took.
    """

    benchmark = "faults"
    channel: Channel
    outcomes: tuple[Outcome, ...]
    impossible: dict[str, str]
    seconds: float

    def render_findings(self, console: Console) -> None:
        """Print the matrix, and below it what does not hold and what cannot be."""
        found = {outcome.cell: outcome for outcome in self.outcomes}
        table = Table("fault", *PHASES, title="struck in this phase", title_justify="left")
        for fault in FAULTS:
            cells = [self._verdict(Cell(fault, phase), found) for phase in PHASES]
            if any(cells):
                table.add_row(fault.about, *cells)
        console.print()
        console.print(table)
        for outcome in self.outcomes:
            for reason in outcome.reasons:
                show(console, f"{outcome.cell} misses: {reason}", style="red")
        for reason in dict.fromkeys(self.impossible.values()):
            cells = [name for name, why in self.impossible.items() if why == reason]
            show(console, f"cannot exist: {', '.join(cells)}: {reason}", style="dim")

    def _verdict(self, cell: Cell, found: dict[str, Outcome]) -> str:
        if cell.name in self.impossible:
            return IMPOSSIBLE
        if cell.name not in found:
            return NOT_RUN
        outcome = found[cell.name]
        return f"{MISSES if outcome.reasons else HOLDS}, {outcome.seconds:.0f} s"


def judge(outcomes: tuple[Outcome, ...]) -> tuple[Bar, ...]:
    """How many cells hold, of those that can exist; and the slowest of what has limits of its own, for people."""
    held = sum(not outcome.reasons for outcome in outcomes)
    where = "emulated links, real processes"
    bars = [Bar("cells that hold", where, held, len(outcomes), f"of {len(outcomes)}", at_least=True)]
    resumed = [outcome.resumed_s for outcome in outcomes if outcome.resumed_s is not None]
    if resumed:
        bars.append(Bar("slowest transfer after an outage", where, max(resumed), RESUME_BAR_S, "s"))
    return tuple(bars)
