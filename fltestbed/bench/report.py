"""What every benchmark reports: figures beside their bars, the host and the versions, for a terminal and as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.errors import ConfigError
from fltestbed.measure.host import describe_host, package_versions

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Bar:
    """A figure beside what it may be at most, or has to be at least.

    Attributes
    ----------
    what, where : str
        What the figure is, and of which link, model or host.
    limit : float or None
        The bar; None for a figure that is shown and not judged.
    """

    what: str
    where: str
    figure: float
    limit: float | None
    unit: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side of its limit; True without one."""
        if self.limit is None:
            return True
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    @property
    def verdict(self) -> str:
        """Holds or missed; empty for a figure that is not judged."""
        return "" if self.limit is None else "holds" if self.holds else "missed"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one command measured; each benchmark adds its own findings.

    Attributes
    ----------
    about : tuple of str
        What was measured, and how.
    host, versions : dict
        Where, and with which packages.
    """

    benchmark: ClassVar[str]

    about: tuple[str, ...] = ()
    host: dict[str, Any] = field(default_factory=lambda: describe_host(SYSTEM_CLOCK))
    versions: dict[str, str] = field(default_factory=package_versions)
    bars: tuple[Bar, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether all bars hold."""
        return all(bar.holds for bar in self.bars)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; each bar says whether it holds."""
        bars = [asdict(bar) | {"holds": bar.holds} for bar in self.bars]
        head = {"benchmark": self.benchmark, "schema_version": SCHEMA_VERSION}
        return head | asdict(self) | {"bars": bars, "holds": self.holds}

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises
        ------
        ConfigError
            The file cannot be written.
        """
        try:
            path.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise ConfigError(f"--json {path}: cannot be written: {error.strerror}; give another file") from error

    def render(self, console: Console) -> None:
        """Print it: what was measured, the findings, and each figure beside its bar."""
        for line in self.about:
            show(console, line, style="dim")
        self.render_findings(console)
        table = Table("what", "where", "figure", "bar", "", title="bars", title_justify="left")
        for bar in self.bars:
            limit = "none, shown" if bar.limit is None else f"{'>=' if bar.at_least else '<='} {bar.limit:.5g} {bar.unit}"
            table.add_row(bar.what, bar.where, f"{bar.figure:.4g} {bar.unit}".strip(), limit.strip(), bar.verdict)
        console.print()
        console.print(table)
        show(console, *(("all bars hold", "green") if self.holds else ("NOT all bars hold", "red")))

    def render_findings(self, console: Console) -> None:
        """Print what is its own."""
        raise NotImplementedError


def show(console: Console, text: str, style: str = "") -> None:
    """Print a line as it is."""
    console.print(text, style=style, markup=False, highlight=False)
