"""What `fltestbed bench accuracy` found, as plain data and for a terminal."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StampErrors:
    """One stamp minus its own host's packet, over the transfers of one link, size and direction.

    Attributes
    ----------
    stamp : str
        Column of transfers.csv.
    packet : str
        first or last packet with payload of the transfer, at the host of the stamp.
    errors_ms : tuple of float
        Each transfer's, in order; negative when the stamp is earlier.
    """

    link: str
    size: str
    direction: str
    stamp: str
    packet: str
    errors_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Median, with its sign."""
        return float(np.median(self.errors_ms))

    @property
    def p95_ms(self) -> float:
        """95th percentile of the magnitude."""
        return float(np.percentile(np.abs(self.errors_ms), 95))

    @property
    def max_ms(self) -> float:
        """Largest magnitude."""
        return float(np.max(np.abs(self.errors_ms)))

    def share_within(self, limit_ms: float) -> float:
        """Part of the transfers whose magnitude is at most that."""
        return float(np.mean(np.abs(self.errors_ms) <= limit_ms))

    def to_dict(self) -> dict[str, Any]:
        """With the figures that are printed."""
        return asdict(self) | {"median_ms": self.median_ms, "p95_ms": self.p95_ms, "max_ms": self.max_ms}


@dataclass(frozen=True)
class AccuracyBar:
    """A figure beside what it may be at most, or has to be at least."""

    bar: str
    what: str
    where: str
    figure: float
    limit: float | None
    unit: str
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side; True for one that is shown and not judged."""
        if self.limit is None:
            return True
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


@dataclass(frozen=True)
class AccuracyReport:
    """All that one command measured."""

    about: tuple[str, ...]
    notes: dict[str, tuple[str, ...]]
    host: dict[str, Any]
    versions: dict[str, str]
    stamps: tuple[StampErrors, ...]
    bars: tuple[AccuracyBar, ...]

    @property
    def holds(self) -> bool:
        """Whether all bars hold."""
        return all(bar.holds for bar in self.bars)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; each bar says whether it holds."""
        return {
            "benchmark": "accuracy",
            "schema_version": SCHEMA_VERSION,
            "about": self.about,
            "notes": self.notes,
            "host": self.host,
            "versions": self.versions,
            "stamps": [errors.to_dict() for errors in self.stamps],
            "bars": [asdict(bar) | {"holds": bar.holds} for bar in self.bars],
            "holds": self.holds,
        }


def render(report: AccuracyReport, console: Console) -> None:
    """Print a report."""
    for line in report.about:
        console.print(line, style="dim", markup=False, highlight=False)
    for link, notes in report.notes.items():
        for note in notes:
            console.print(f"{link}: {note}", style="dim", markup=False, highlight=False)
    if report.stamps:
        table = Table(
            "link", "size", "direction", "stamp", "packet", "n", "median ms", "p95 ms", "max ms",
            title="stamp minus its own host's packet", title_justify="left",
        )  # fmt: skip
        for errors in report.stamps:
            table.add_row(
                errors.link, errors.size, errors.direction, errors.stamp.removesuffix("_raw_ns"), errors.packet,
                str(len(errors.errors_ms)), f"{errors.median_ms:.3f}", f"{errors.p95_ms:.3f}", f"{errors.max_ms:.3f}",
            )  # fmt: skip
        console.print()
        console.print(table)
    for errors in report.stamps:
        if errors.size == "large":
            each = " ".join(f"{error:.2f}" for error in errors.errors_ms)
            name = f"{errors.link}, {errors.direction}, {errors.stamp.removesuffix('_raw_ns')}"
            console.print(f"45 MB, {name}, each in ms: {each}", style="dim", markup=False, highlight=False)
    bars = Table("bar", "what", "where", "figure", "limit", "", title="bars", title_justify="left")
    for bar in report.bars:
        limit = "none, shown" if bar.limit is None else f"{'>=' if bar.at_least else '<='} {bar.limit:g} {bar.unit}"
        verdict = "" if bar.limit is None else "holds" if bar.holds else "missed"
        bars.add_row(bar.bar, bar.what, bar.where, f"{bar.figure:.4g} {bar.unit}", limit, verdict)
    console.print()
    console.print(bars)
    verdict = "all bars hold" if report.holds else "NOT all bars hold"
    console.print(verdict, markup=False, style="green" if report.holds else "red")
