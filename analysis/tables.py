"""The summary: one row a run, the links against each other, and what a reader has to know before believing it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.load import Run
from analysis.measures import CROSS_HOST, client_rounds, link_of, phase_statistics, ratios, round_parts

PHASES = ("downlink", "train", "evaluate", "uplink", "aggregate")
"""Phases that have a column of their own."""

_AT_MOST = 5


@dataclass(frozen=True)
class Summary:
    """What `summarise` found.

    Attributes
    ----------
    runs : list of dict
        One a run; units are in the keys. ``<phase>_mean_s`` is over client-rounds, ``<phase>_sd_s`` the standard deviation
        over rounds of the round's mean, ``<phase>_clock_half_width_s`` the bound of the clocks' error in the mean. None
        where a value does not exist.
    ratios : list of dict
        One a pair of links, as from `analysis.measures.ratios`.
    differences : list of str
        In what the configurations of the runs differ, but for name and link.
    warnings : list of str
        Incomplete runs, missing replies, durations smaller than their uncertainty, oddities of the files.
    """

    runs: list[dict[str, Any]]
    ratios: list[dict[str, Any]]
    differences: list[str]
    warnings: list[str]


def summarise(runs: Sequence[Run]) -> Summary:
    """Summarise runs that were loaded and derived."""
    rows = client_rounds(runs)
    statistics = phase_statistics(rows, "run").set_index(["run", "phase"])
    shares = round_parts(rows, "run").set_index(["run", "part"])["share"]
    pairs = [{str(key): _finite(value) for key, value in pair.items()} for pair in ratios(rows).to_dict("records")]
    return Summary(
        runs=[_row(run, rows, statistics, shares) for run in runs],
        ratios=pairs,
        differences=differences(runs),
        warnings=[f"{run.manifest.run}: {line}" for run in runs for line in _warnings(run)],
    )


def differences(runs: Sequence[Run]) -> list[str]:
    """Name each setting that is not the same in all runs, with its value in each."""
    settings = [dict(_settings(run)) for run in runs]
    lines = []
    for key in dict.fromkeys(key for each in settings for key in each):
        by_value: dict[str, list[str]] = {}
        for run, each in zip(runs, settings, strict=True):
            by_value.setdefault(str(each.get(key, "not set")), []).append(run.manifest.run)
        if len(by_value) > 1:
            lines.append(f"{key}: " + ", ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items()))
    return lines


def render(summary: Summary, console: Console) -> None:
    """Print the summary as tables and lines."""
    console.print(_runs_table(summary))
    console.print(_seconds_table(summary))
    console.print(
        "Means over clients and rounds. clock ±: half-width of the clock mapping, which repetition does not make smaller. "
        "spread: standard deviation of the rounds' means. A round ends when the new model is ready.",
        style="dim",
    )
    for pair in summary.ratios:
        high = "no upper bound" if pair["high"] is None else f"{pair['high']:.3g}"
        text = f"{pair['slower']} {pair['phase']} takes {pair['ratio']:.3g} times as long as {pair['faster']}'s"
        console.print(escape(f"{text} (the clocks alone allow {pair['low']:.3g} to {high})"), soft_wrap=True)
    if summary.differences:
        console.print("the runs differ in more than their link:", style="yellow")
    for line in summary.differences:
        console.print(escape(f"  {line}"), soft_wrap=True)
    for line in summary.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(line)}", soft_wrap=True)


def seconds(value: float | None, digits: int = 3) -> str:
    """Write a duration in seconds with so many significant digits, to the microsecond at most; "-" for None."""
    if value is None or not math.isfinite(value):
        return "-"
    decimals = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(decimals, 0), 6)}f}"


def _runs_table(summary: Summary) -> Table:
    table = Table(title="Runs", title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in ("run", "link", "status", "rounds", "clients", "accuracy", "backend", "paced"):
        table.add_column(name, justify="right" if name in {"rounds", "clients", "accuracy"} else "left", overflow="fold")
    for row in summary.runs:
        table.add_row(
            escape(row["run"]),
            escape(row["link"]),
            row["status"],
            str(row["rounds"]),
            str(row["clients"]),
            "-" if row["accuracy"] is None else f"{row['accuracy']:.3f}",
            escape(row["backend"] or "real"),
            "yes" if row["paced"] else "no",
            style="" if row["status"] == "complete" else "red",
        )
    return table


def _seconds_table(summary: Summary) -> Table:
    table = Table(title="Seconds of a round", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    for name in ("round", *PHASES):
        table.add_column(name, justify="right")
    table.add_column("uplink share", justify="right")
    links = [row["link"] for row in summary.runs]
    for row in summary.runs:
        name = row["link"] if links.count(row["link"]) == 1 else row["run"]
        share = "-" if row["uplink_share"] is None else f"{row['uplink_share']:.1%}"
        table.add_row(f"[bold]{escape(name)}[/bold]", *_cells(row, "mean_s", 3), share)
        table.add_row("  clock ±", *_cells(row, "clock_half_width_s", 2), style="dim")
        table.add_row("  spread", *_cells(row, "sd_s", 2), style="dim")
    return table


def _cells(row: dict[str, Any], figure: str, digits: int) -> Iterator[str]:
    """The same figure of the round and of each phase; blank where a phase has none by its nature."""
    keys = [f"{phase}_{figure}" for phase in ("round", *PHASES)]
    return (seconds(row[key], digits) if key in row else "" for key in keys)


def _row(run: Run, rows: pd.DataFrame, statistics: pd.DataFrame, shares: "pd.Series[float]") -> dict[str, Any]:
    manifest, rounds = run.manifest, run["rounds"]
    rounds = rounds[rounds["round"] >= 1]
    clients = run["clients"]
    row: dict[str, Any] = {
        "run": manifest.run,
        "link": link_of(run),
        "status": manifest.status,
        "rounds": int(rounds["duration_s"].notna().sum()),
        "clients": int(clients.loc[clients["round"] >= 1, "client"].nunique()),
        "round_mean_s": _finite(rounds["duration_s"].mean()),
        "round_sd_s": _finite(rounds["duration_s"].std()),
    }
    for phase in PHASES:
        key = (manifest.run, phase)
        row[f"{phase}_mean_s"] = _finite(statistics.loc[key, "mean_s"]) if key in statistics.index else None
        row[f"{phase}_sd_s"] = _finite(rounds["aggregate_s" if phase == "aggregate" else f"{phase}_mean_s"].std())
        if phase in CROSS_HOST:
            mean = rows.loc[rows["run"] == manifest.run, f"{phase}_uncertainty_s"].mean()
            row[f"{phase}_clock_half_width_s"] = _finite(mean)
    row["uplink_share"] = _finite(shares.get((manifest.run, "uplink")))
    for metric in ("accuracy", "loss"):
        known = rounds.sort_values("round")[metric].dropna()
        row[metric] = _finite(known.iloc[-1]) if len(known) else None
    return row | {"backend": manifest.backend, "notes": list(manifest.notes), "paced": manifest.paced}


def _warnings(run: Run) -> Iterator[str]:
    yield from run.warnings
    clients, timeline = run["clients"], run["timeline"]
    asked = clients[clients["round"] >= 1]
    if run.manifest.status == "running":  # the replies of its last round may still come
        asked = asked[asked["round"] < asked["round"].max()]
    lost = asked[asked["status"] != "ok"]
    if len(lost):
        names = [f"{row.client} in round {row.round} ({row.status})" for row in lost.head(_AT_MOST).itertuples()]
        more = f" and {len(lost) - _AT_MOST} more" if len(lost) > _AT_MOST else ""
        yield f"{len(lost)} of {len(asked)} replies missing: {', '.join(names)}{more}"
    for phase in CROSS_HOST:
        rows = timeline[timeline["phase"] == phase]
        uncertain = int(rows["uncertain"].fillna(False).sum())
        if uncertain:
            yield f"{uncertain} of {len(rows)} {phase}s are shorter than the clocks' uncertainty: read them as 'at most'"
    late, paced = missed_pace(run)
    if late:
        yield f"the pace was missed in {late} of {paced} client rounds: training took over 5% longer than emulated"


def missed_pace(run: Run) -> tuple[int, int]:
    """How many client rounds trained more than 5% longer than the pace of their client, and how many were paced.

    A paced epoch takes *at least* ``pacing.seconds-per-epoch``: where the machine is too busy to keep it, training tells of
    the machine. Paces for a batch are not judged, since the number of batches is not on record.
    """
    experiment = run.manifest.data.get("experiment") or {}
    paces = (experiment.get("pacing") or {}).get("seconds-per-epoch")
    if not paces:
        return 0, 0
    hosts = run.manifest.data.get("hosts") or {}
    epochs = experiment["training"]["local-epochs"]
    partition = run["clients"]["client"].map({name: host.get("partition") for name, host in hosts.items()})
    pace_s = partition.map(lambda number: paces[int(number) % len(paces)] * epochs, na_action="ignore").astype("Float64")
    ratio = (run["clients"]["train_s"] / pace_s).dropna()
    return int((ratio > 1.05).sum()), len(ratio)


def _settings(run: Run) -> Iterator[tuple[str, Any]]:
    """Everything that should be the same in runs that are compared, as dotted keys."""
    data = run.manifest.data
    yield from _flat({key: value for key, value in run.manifest.experiment.items() if key not in {"name", "link"}}, "")
    yield from ((key, data[key]) for key in ("app", "transport", "paced") if key in data)
    yield from _flat({"backend": run.manifest.backend or "real", "versions": data.get("versions") or {}}, "")


def _flat(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _finite(value: Any) -> Any:
    """Return None for what JSON cannot say: NaN, NA and infinity."""
    if isinstance(value, str):
        return value
    return float(value) if value is not None and pd.notna(value) and math.isfinite(value) else None
