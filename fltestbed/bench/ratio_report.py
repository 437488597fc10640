"""What is told of a ratio of round times (`fltestbed.bench.pairs`), link by link, whatever it is that costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from fltestbed.bench.pairs import Estimate
from fltestbed.bench.report import Bar, show


@dataclass(frozen=True, kw_only=True)
class LinkFinding(Estimate):
    """What was found on one link; `bar` is beside `high`, its upper end, and `counted_rounds` are those of a block."""

    link: str
    notes: tuple[str, ...]
    counted_rounds: int
    bar: Bar


def show_ratios(console: Console, title: str, off: str, findings: Sequence[LinkFinding]) -> None:
    """Print each ratio with its interval; `off` is the name of a round that is off."""
    columns = ("link", "pairs", "rounds of a half", f"round {off}, s", "ratio", "95% interval", "", "of plain means")
    table = Table(*columns, title=title, title_justify="left")
    for found in findings:
        table.add_row(
            found.link, str(len(found.pairs)), str(found.counted_rounds), f"{found.off_s:.4f}", f"{found.ratio:.4f}",
            f"{found.low:.4f} to {found.high:.4f}", "resolved" if found.resolved else "not resolved",
            f"{found.plain_ratio:.4f}",
        )  # fmt: skip
    console.print(table)


def show_notes(console: Console, findings: Sequence[LinkFinding]) -> None:
    """Print what there is to know of each link's emulation."""
    for found in findings:
        for note in found.notes:
            show(console, f"  {found.link}: {note}", style="dim")
