"""Means, percentiles, shares and ratios, from the derived tables of one or several runs.

All of them are over *client-rounds*: one row a client and round whose reply was accepted, rounds from 1. Runs of one link
are pooled. Two kinds of doubt are kept apart: the *spread* over client-rounds, which more rounds make better known, and the
*clock half-width* of a duration between two hosts, which repetition does not make smaller.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import pandas as pd

from analysis.load import Run
from analysis.rounds import CLIENT_PHASES

UNEXPLAINED = "unexplained"
ROUND_PARTS = (*CLIENT_PHASES, "aggregate", UNEXPLAINED)
"""What a round is made of for one client, in order. Evaluation on the server comes after the round."""

CROSS_HOST = ("downlink", "uplink")
"""Phases that lie between two clocks, and so have a half-width."""

By = Literal["run", "link"]


def client_rounds(runs: Sequence[Run]) -> pd.DataFrame:
    """Join clients.csv with the `duration_s` and `aggregate_s` of each round, for accepted replies in rounds from 1.

    `run` is the name under which the run was loaded; a client without a link of its own has the run's.
    """
    frames = []
    for run in runs:
        clients, rounds = run["clients"], run["rounds"]
        accepted = clients[(clients["status"] == "ok") & (clients["round"] >= 1)]
        joined = accepted.merge(rounds[["round", "duration_s", "aggregate_s"]], on="round", how="left")
        frames.append(joined.assign(run=run.manifest.run, link=joined["link"].fillna(link_of(run))))
    return pd.concat(frames, ignore_index=True)


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
    phases = [*CLIENT_PHASES, "aggregate"]
    long = rows.melt(id_vars=[by], value_vars=[f"{phase}_s" for phase in phases], var_name="phase", value_name="seconds")
    long["phase"] = pd.Categorical(long["phase"].str.removesuffix("_s"), categories=phases, ordered=True)
    grouped = long.dropna(subset=["seconds"]).groupby([by, "phase"], observed=True)["seconds"]
    table = grouped.agg(count="count", mean_s="mean", median_s="median", max_s="max")
    table.insert(3, "p95_s", grouped.quantile(0.95))
    half_widths = rows.groupby(by)[[f"{phase}_uncertainty_s" for phase in CROSS_HOST]].mean()
    half_widths.columns = pd.Index(CROSS_HOST, name="phase")
    table["clock_half_width_s"] = half_widths.stack().reindex(table.index, fill_value=0.0)
    return table.reset_index().astype({"phase": "string"})


def round_parts(rows: pd.DataFrame, by: By = "link") -> pd.DataFrame:
    """Split the mean round of each group into its parts.

    ``mean_s(part) = sum of the part over client-rounds / number of client-rounds`` where a part that a client-round lacks
    counts 0, so that the parts add up to the mean round; ``unexplained`` is what the others leave of it. ``share`` is
    `mean_s` over the mean round. Client-rounds of a round without an aggregation have no duration and are left out.

    Returns
    -------
    DataFrame
        One row a group and part of `ROUND_PARTS`: `mean_s`, `share`.
    """
    whole = rows.dropna(subset=["duration_s"])
    means = whole[[f"{part}_s" for part in ROUND_PARTS[:-1]]].fillna(0.0).groupby(whole[by]).mean()
    means.columns = pd.Index(ROUND_PARTS[:-1], name="part")
    duration = whole.groupby(by)["duration_s"].mean()
    means[UNEXPLAINED] = duration - means.sum(axis=1)
    table = means.reset_index().melt(id_vars=[by], var_name="part", value_name="mean_s")
    table["share"] = table["mean_s"] / table[by].map(duration)
    return table


def ratios(rows: pd.DataFrame, phase: str = "uplink") -> pd.DataFrame:
    """Compare the links by the mean time of a phase.

    Returns
    -------
    DataFrame
        One row a pair: `slower` and `faster` link, ``ratio = mean(slower) / mean(faster)``, and between which values the
        clocks alone leave it: ``low = (mean - half-width of slower) / (mean + half-width of faster)``, ``high`` with the
        signs exchanged, infinite when the faster link's mean is not larger than its half-width. Links whose mean is not
        positive are left out. Largest ratio first.
    """
    means = phase_statistics(rows).query("phase == @phase and mean_s > 0").sort_values("mean_s", ascending=False)
    pairs = []
    for slower, faster in combinations(means.to_dict("records"), 2):
        slow_s, slow_error_s = slower["mean_s"], slower["clock_half_width_s"]
        fast_s, fast_error_s = faster["mean_s"], faster["clock_half_width_s"]
        high = (slow_s + slow_error_s) / (fast_s - fast_error_s) if fast_s > fast_error_s else float("inf")
        low = (slow_s - slow_error_s) / (fast_s + fast_error_s)
        names = {"slower": slower["link"], "faster": faster["link"]}
        pairs.append(names | {"phase": phase, "ratio": slow_s / fast_s, "low": low, "high": high})
    columns = ["slower", "faster", "phase", "ratio", "low", "high"]
    return pd.DataFrame(pairs, columns=columns).sort_values("ratio", ascending=False, ignore_index=True)
