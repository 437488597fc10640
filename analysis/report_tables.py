"""The tables of the report, as text for its cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.load import Run
from analysis.tables import PHASES as SUMMARY_PHASES
from analysis.tables import Summary, seconds

PHASES = ("round", *SUMMARY_PHASES)

SECONDS_NOTE = (
    "Below each mean its interval over runs, where there are at least two, and what the clocks alone allow. A round ends "
    "when the new model is ready; phases are of the mean client."
)


@dataclass(frozen=True)
class RatioRow:
    """How many times as long one link takes as another, and how well that is known, in words."""

    what: str
    ratio: str
    interval: str
    clocks: str
    runs: str
    method: str


@dataclass(frozen=True)
class Cell:
    """A time in seconds with its interval over runs and what the clocks allow; "" where there is none."""

    mean: str
    interval: str = ""
    clocks: str = ""


@dataclass(frozen=True)
class SecondsRow:
    """The times of one configuration, one a phase of `PHASES`."""

    label: str
    cells: tuple[Cell, ...]


def note(warm_up: int) -> str:
    """What the reader of the ratios should know, with how many rounds of each run were left out."""
    first = "round" if warm_up == 1 else f"{warm_up} rounds"
    without = f", without the first {first} (warm-up) of a run that has more" if warm_up else ", warm-up included"
    return (
        f"Each run counts as one value, its mean over clients and rounds{without}. Means are geometric, over runs of one "
        "configuration; ratios are of such means. The interval, 95%, says how much runs vary. What the clocks alone allow "
        "(and stamps behind a lost packet) is systematic: repetition does not make it smaller, and it comes on top."
    )


def ratio_rows(summary: Summary) -> list[RatioRow]:
    """The links against each other, largest ratio of a phase first."""
    return [_ratio_row(pair) for pair in summary.ratios]


def seconds_rows(summary: Summary) -> list[SecondsRow]:
    """The mean times of each configuration."""
    estimates = [(str(group["label"]), group["estimates"]) for group in summary.groups]
    return [SecondsRow(label, tuple(_cell(each.get(f"{phase}_s")) for phase in PHASES)) for label, each in estimates]


def run_rows(summary: Summary, runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """One row a run: name, link, status, rounds, clients, last accuracy, backend, pacing, wall clock at its zero."""
    return [
        (
            row["run"],
            row["link"],
            run.manifest.status + (f": {run.manifest.reason}" if run.manifest.reason else ""),
            str(row["rounds"]),
            str(row["clients"]),
            "-" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
            run.manifest.backend or "real",
            "paced" if run.manifest.paced else "not paced",
            str(run.manifest.data.get("zero_wall") or "-")[:19].replace("T", " "),
        )
        for run, row in zip(runs, summary.runs, strict=True)
    ]


def _ratio_row(pair: dict[str, Any]) -> RatioRow:
    estimate = pair["estimate"]
    low, high = estimate["systematic_low"], estimate["systematic_high"]
    clocks = f"{low:.3g} to {'no bound' if high is None else f'{high:.3g}'}"
    return RatioRow(
        what=f"{pair['phase']} over {pair['slower']} against {pair['faster']}",
        ratio=f"{estimate['value']:.3g}",
        interval="none: one run" if estimate["low"] is None else f"{estimate['low']:.3g} to {estimate['high']:.3g}",
        clocks="exact: one clock" if low == high else clocks,
        runs=f"{estimate['runs'][0]} and {estimate['runs'][1]} runs",
        method=estimate["method"],
    )


def _cell(estimate: dict[str, Any] | None) -> Cell:
    if estimate is None:
        return Cell("-")
    low, high = estimate["systematic_low"], estimate["systematic_high"]
    interval = "" if estimate["low"] is None else f"{seconds(estimate['low'])} to {seconds(estimate['high'])}"
    return Cell(seconds(estimate["value"]), interval, "" if low == high else f"{seconds(low)} to {seconds(high)}")
