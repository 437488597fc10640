"""Published figures beside measured ones: what `published.toml` says and what the runs that ask for it show.

A run asks through its campaign's manifest entry. Figures are set beside runs that differ in their link alone: pooled over
other factors, a measured figure would be of no condition at all.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.load import Run
from analysis.measures import WARM_UP, client_rounds, link_of, run_values, sample
from analysis.statistics import Estimate, mean, ratio

FILE = Path(__file__).with_name("published.toml")

EMULATED_NOTE = (
    "These links are emulated. Agreement of profiles that were calibrated to these figures shows that calibration and "
    "measurement hold; it reproduces nothing."
)


class Figure(BaseModel):
    """One published figure.

    Attributes
    ----------
    kind : {"ratio", "share"}
        Mean time of `phase` on `link` over that on `of`; or the share of `phase` in the mean round of `link`.
    phase : str
        A phase of a client.
    value : float
    condition : str
        Under which the figure holds, in the publication's words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ratio", "share"]
    phase: str
    link: str
    of: str | None = None
    value: Annotated[float, Field(gt=0)]
    condition: str = ""

    @property
    def name(self) -> str:
        """The figure in words."""
        if self.kind == "ratio":
            return f"{self.phase} of {self.link} over {self.of}'s"
        return f"share of {self.phase} in {self.condition or 'a round'} ({self.link})"


class Publication(BaseModel):
    """Figures of one publication, and where they stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    source: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Comparison:
    """A published figure and the measured one.

    Attributes
    ----------
    publication : Publication
    figure : Figure
    measured : Estimate or None
        None where the runs have not what it takes; `reason` says what.
    """

    publication: Publication
    figure: Figure
    measured: Estimate | None
    reason: str = ""

    @property
    def deviation(self) -> float | None:
        """Measured over published, minus one; for a share the difference, in parts of one."""
        if self.measured is None:
            return None
        if self.figure.kind == "share":
            return self.measured.value - self.figure.value
        return self.measured.value / self.figure.value - 1

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        measured = None if self.measured is None else self.measured.to_dict()
        facts = {"source": self.publication.source, "deviation": self.deviation, "reason": self.reason}
        return self.figure.model_dump() | facts | {"measured": measured}


def publications() -> dict[str, Publication]:
    """Everything in published.toml, by its key."""
    return {key: Publication.model_validate(table) for key, table in tomllib.loads(FILE.read_text()).items()}


def compare(runs: Sequence[Run], warm_up: int = WARM_UP) -> list[Comparison]:
    """Set the figures that the runs ask for beside what they show.

    Parameters
    ----------
    runs : sequence of Run
        Derived. Runs that ask for nothing, and runs that are not complete, do not count.
    warm_up : int
        Rounds at the start of each run that are left out.
    """
    known = publications()
    asked: dict[str, list[Run]] = {}
    for run in runs:
        key = (run.manifest.data.get("campaign") or {}).get("published")
        if key in known and run.manifest.status == "complete":
            asked.setdefault(str(key), []).append(run)
    found = []
    for key, asking in asked.items():
        values = run_values(client_rounds(asking, warm_up))
        found += [_compare(known[key], figure, asking, values) for figure in known[key].figures]
    return found


def unknown_publications(runs: Sequence[Run]) -> list[str]:
    """A warning for each key that a manifest asks for and published.toml has not."""
    known = publications()
    keys = {(run.manifest.data.get("campaign") or {}).get("published") for run in runs} - {None, *known}
    return [
        f"published figures {key!r}: unknown here; published.toml has {', '.join(known)}" for key in sorted(map(str, keys))
    ]


def render(comparisons: Sequence[Comparison], console: Console, *, emulated: bool) -> None:
    """Print a table of published and measured figures; nothing if there are none."""
    for publication in dict.fromkeys(comparison.publication for comparison in comparisons):
        table = Table(title=f"Beside {publication.source}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("", overflow="fold")
        for name in ("published", "measured", "95% interval", "clocks alone", "runs", "deviation"):
            table.add_column(name, justify="right")
        for comparison in comparisons:
            if comparison.publication == publication:
                table.add_row(*_cells(comparison))
        console.print(table)
        if emulated:
            console.print(EMULATED_NOTE, style="dim")


def _compare(publication: Publication, figure: Figure, runs: Sequence[Run], values: pd.DataFrame) -> Comparison:
    others = {key: {str(level) for level in levels} for key, levels in _levels(runs).items() if key != "link"}
    if mixed := [key for key, levels in others.items() if len(levels) > 1]:
        return Comparison(publication, figure, None, f"the runs differ in {', '.join(mixed)} too: give those of one level")
    names = {link: [run.manifest.run for run in runs if link_of(run) == link] for link in (figure.link, figure.of) if link}
    if absent := [link for link, own in names.items() if not own]:
        return Comparison(publication, figure, None, f"no complete run over {', '.join(absent)}")
    if figure.of is None:
        return Comparison(publication, figure, mean(sample(values, f"{figure.phase}_share", names[figure.link])))
    above, below = (sample(values, f"{figure.phase}_s", names[link]) for link in (figure.link, figure.of))
    estimate = ratio(above, below)
    return Comparison(publication, figure, estimate, "" if estimate else "a mean that is not positive has no ratio")


def _levels(runs: Sequence[Run]) -> dict[str, list[Any]]:
    levels: dict[str, list[Any]] = {}
    for run in runs:
        for key, level in run.manifest.data["campaign"]["levels"].items():
            levels.setdefault(key, []).append(level)
    return levels


def _cells(comparison: Comparison) -> list[str]:
    figure, measured, deviation = comparison.figure, comparison.measured, comparison.deviation
    share = figure.kind == "share"
    write = "{:.1%}".format if share else "{:.3g}".format
    name = escape(figure.name)
    if measured is None or deviation is None:
        return [name, write(figure.value), "-", escape(comparison.reason), "", "", ""]
    interval = (
        "one run: none"
        if measured.low is None or measured.high is None
        else f"{write(measured.low)} to {write(measured.high)}"
    )
    clocks = f"{write(measured.systematic_low)} to {write(measured.systematic_high)}"
    off = f"{deviation * 100:+.1f} points" if share else f"{deviation:+.1%}"
    return [name, write(figure.value), write(measured.value), interval, clocks, "+".join(map(str, measured.runs)), off]
