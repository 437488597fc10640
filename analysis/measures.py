"""Means, percentiles, shares and times, from the derived tables of one or several runs.

All of them are over *client-rounds*: one row a client and round whose reply was accepted, rounds from 1, without the first
rounds of each run (`WARM_UP`): they open connections and warm caches, and are not like those that follow. Two kinds of doubt
are kept apart: how much *runs* differ, from which `analysis.statistics` makes intervals, and the *clock half-width* of a
duration between two hosts, which repetition does not make smaller.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from analysis.client_rows import CLIENT_PHASES
from analysis.load import Run
from analysis.rounds import ACCURACY_NAMES, global_metric
from analysis.statistics import Sample

UNEXPLAINED = "unexplained"
ROUND_PARTS = (*CLIENT_PHASES, "aggregate", UNEXPLAINED)
"""What a round is made of for one client, in order. Evaluation on the server comes after the round."""

CROSS_HOST = ("downlink", "uplink")
"""Phases that lie between two clocks, and so have a half-width."""

WARM_UP = 1
"""Rounds at the start of each run that are left out. In round 1 connections are opened, PyTorch allocates, and congestion
windows are those of a new connection; from round 2 on nothing of that is left in the runs that were looked at."""

By = Literal["run", "link"]


def client_rounds(runs: Sequence[Run], warm_up: int = WARM_UP) -> pd.DataFrame:
    """Join clients.csv with facts of its round, for accepted replies in rounds from 1.

    Parameters
    ----------
    runs : sequence of Run
        Derived.
    warm_up : int
        Rounds at the start of each run that are left out; a run that has no others keeps them (`only_warm_up` tells).

    Returns
    -------
    DataFrame
        The columns of clients.csv, and `duration_s`, `aggregate_s` and `full` of the round: whether every client of the run
        replied. `run` is the name under which the run was loaded; a client without a link of its own has the run's.
    """
    frames = []
    for run in runs:
        clients, rounds = run["clients"], run["rounds"]
        first = 1 if only_warm_up(run, warm_up) else 1 + warm_up
        accepted = clients[(clients["status"] == "ok") & (clients["round"] >= first)]
        full = (rounds["clients_replied"] == clients.loc[clients["round"] >= 1, "client"].nunique()).fillna(False)
        facts = rounds[["round", "duration_s", "aggregate_s"]].assign(full=full.astype(bool))
        joined = accepted.merge(facts, on="round", how="left")
        frames.append(joined.assign(run=run.manifest.run, link=joined["link"].fillna(link_of(run))))
    return pd.concat(frames, ignore_index=True)


def only_warm_up(run: Run, warm_up: int = WARM_UP) -> bool:
    """Tell whether a run has accepted replies, but none after its first `warm_up` rounds."""
    accepted = run["clients"].loc[run["clients"]["status"] == "ok", "round"]
    return bool((accepted >= 1).any() and not (accepted > warm_up).any())


def link_of(run: Run) -> str:
    """Name the link of a run; of a run whose clients use several, all of them: ``5g+wifi``."""
    return "+".join(sorted(run["clients"]["link"].dropna().unique())) or run.manifest.link


def links(runs: Sequence[Run]) -> list[str]:
    """Name every link of clients and runs, in the order in which the runs were given."""
    return list(dict.fromkeys(link for run in runs for link in (*run["clients"]["link"].dropna(), link_of(run))))


def phase_statistics(rows: pd.DataFrame, by: By = "link") -> pd.DataFrame:
    """Summarise each phase over the client-rounds that have it.

    Parameters
    ----------
    rows : DataFrame
        As from `client_rounds`.
    by : {"link", "run"}
        What to group by.

    Returns
    -------
    DataFrame
        One row a group and phase: `count`, `mean_s`, `median_s`, `p95_s` (linear between order statistics, so the value at
        place ``0.95 * (count - 1)`` of the sorted ones), `max_s`, and `clock_half_width_s`: the mean of the half-widths,
        which bounds the error that the clocks put into `mean_s`; 0 for phases within one host.
    """
    found = []
    for name, group in rows.groupby(by):
        for phase in (*CLIENT_PHASES, "aggregate"):
            values = group[f"{phase}_s"].to_numpy(dtype=np.float64)
            values = values[~np.isnan(values)]
            if values.size:
                median, p95 = np.quantile(values, [0.5, 0.95])
                half_width = group[f"{phase}_uncertainty_s"].mean() if phase in CROSS_HOST else 0.0
                found.append((name, phase, values.size, values.mean(), median, p95, values.max(), half_width))
    columns = [by, "phase", "count", "mean_s", "median_s", "p95_s", "max_s", "clock_half_width_s"]
    return pd.DataFrame(found, columns=columns)


def round_parts(rows: pd.DataFrame, by: By = "link") -> pd.DataFrame:
    """Split the mean round of each group into its parts.

    ``mean_s(part) = sum of the part over client-rounds / number of client-rounds`` where a part that a client-round lacks
    counts 0, so that the parts add up to the mean round; ``unexplained`` is what the others leave of it. ``share`` is
    `mean_s` over the mean round. Only rounds at full participation count, as in the paper (arXiv 2504.04678): every client
    of the run replied. Those without an aggregation have no duration and are left out as well.

    Returns
    -------
    DataFrame
        One row a group and part of `ROUND_PARTS`: `mean_s`, `share`.
    """
    whole = rows[rows["full"] & rows["duration_s"].notna()]
    means = whole[[f"{part}_s" for part in ROUND_PARTS[:-1]]].fillna(0.0).groupby(whole[by]).mean()
    means.columns = pd.Index(ROUND_PARTS[:-1], name="part")
    duration = whole.groupby(by)["duration_s"].mean()
    means[UNEXPLAINED] = duration - means.sum(axis=1)
    table = means.reset_index().melt(id_vars=[by], var_name="part", value_name="mean_s")
    table["share"] = table["mean_s"] / table[by].map(duration).astype("float64")
    return table


def run_values(rows: pd.DataFrame) -> pd.DataFrame:
    """One value a run of everything that is compared over runs.

    Returns
    -------
    DataFrame
        By run: `round_s`, the mean duration of its rounds; `<phase>_s`, the mean of a phase over its client-rounds, and
        `<phase>_half_width_s`, the mean of their clock half-widths, for phases between two hosts; `<phase>_share`, that mean
        over the mean round, both at full participation, and `<phase>_share_half_width`; `idle_s`, the mean wait of the
        clients that were not the last of their round; `unexplained_s`.
    """
    grouped = rows.groupby("run")
    phases = (*CLIENT_PHASES, "aggregate")
    table = grouped[[f"{phase}_s" for phase in (*phases, UNEXPLAINED)]].mean()
    table["round_s"] = rows.drop_duplicates(["run", "round"]).groupby("run")["duration_s"].mean()
    table["idle_s"] = rows[rows["margin_s"] > 0].groupby("run")["wait_s"].mean()
    shares = round_parts(rows, "run").set_index(["run", "part"])["share"].unstack("part")
    full = rows[rows["full"]].groupby("run")
    for phase in phases:
        table[f"{phase}_share"] = shares.get(phase, pd.Series(dtype="float64"))
    for phase in CROSS_HOST:
        table[f"{phase}_half_width_s"] = grouped[f"{phase}_uncertainty_s"].mean()
        table[f"{phase}_share_half_width"] = full[f"{phase}_uncertainty_s"].mean() / full["duration_s"].mean()
    return table


def sample(values: pd.DataFrame, name: str, runs: Sequence[str]) -> Sample:
    """Take one column of `run_values` for some runs, with the clock half-widths that belong to it; runs without it lack."""
    widths = f"{name.removesuffix('_s')}_half_width_s" if name.endswith("_s") else f"{name}_half_width"
    own = values.reindex(list(runs))
    return Sample.of(own[name], own.get(widths))


def time_to_accuracy(run: Run, target: float) -> float | None:
    """Seconds from the start of round 1 until the global model's accuracy was first known to be at least `target`.

    Evaluation on the server is included. None if it never was, or if no accuracy is on record.
    """
    points = global_metric(run["metrics"], ACCURACY_NAMES)
    reached = points.loc[(points["value"] >= target) & (points["round"] >= 1), "time_s"]
    started_ns = run["timeline"].loc[run["timeline"]["round"] >= 1, "start_ns"].min()
    if reached.empty or pd.isna(started_ns):
        return None
    return float(reached.min()) - float(started_ns) / 1e9


def common_accuracy(runs: Sequence[Run]) -> float | None:
    """Return the largest multiple of 0.05 that every run with an accuracy reached; None without one above 0."""
    best = [global_metric(run["metrics"], ACCURACY_NAMES)["value"].max() for run in runs]
    known = [float(value) for value in best if pd.notna(value)]
    steps = int(min(known) / 0.05 + 1e-9) if known else 0
    return round(steps * 0.05, 2) if steps else None
