"""What `fltestbed bench accuracy` found, as plain data and for a terminal."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fltestbed.bench.report import Report, show


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


@dataclass(frozen=True, kw_only=True)
class AccuracyReport(Report):
    """What `fltestbed bench accuracy` measured; `notes` say of each link what it is and what of it is not emulated."""

    benchmark = "accuracy"
    notes: dict[str, tuple[str, ...]]
    stamps: tuple[StampErrors, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with the figures that are printed."""
        return super().to_dict() | {"stamps": [errors.to_dict() for errors in self.stamps]}

    def render_findings(self, console: Console) -> None:
        """Print the errors of the stamps."""
        for link, notes in self.notes.items():
            for note in notes:
                show(console, f"{link}: {note}", style="dim")
        if self.stamps:
            table = Table(
                "link", "size", "direction", "stamp", "packet", "n", "median ms", "p95 ms", "max ms",
                title="stamp minus its own host's packet", title_justify="left",
            )  # fmt: skip
            for errors in self.stamps:
                table.add_row(
                    errors.link, errors.size, errors.direction, errors.stamp.removesuffix("_raw_ns"), errors.packet,
                    str(len(errors.errors_ms)), f"{errors.median_ms:.3f}", f"{errors.p95_ms:.3f}", f"{errors.max_ms:.3f}",
                )  # fmt: skip
            console.print()
            console.print(table)
        for errors in self.stamps:
            if errors.size == "large":
                each = " ".join(f"{error:.2f}" for error in errors.errors_ms)
                name = f"{errors.link}, {errors.direction}, {errors.stamp.removesuffix('_raw_ns')}"
                show(console, f"45 MB, {name}, each in ms: {each}", style="dim")
