"""The summary: what runs of one configuration say together, the links against each other, and what to know before.

`summarise` gathers it as plain data; `analysis.terminal` prints it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pandas as pd

from analysis.absences import absence_warnings
from analysis.asymmetry import asymmetries
from analysis.capacity import carried
from analysis.connections import connection_warnings
from analysis.groups import Group, differences, groups
from analysis.load import Refused, Run
from analysis.measures import (
    CROSS_HOST,
    WARM_UP,
    client_rounds,
    common_accuracy,
    link_of,
    only_warm_up,
    phase_statistics,
    round_parts,
    run_values,
    sample,
    time_to_accuracy,
)
from analysis.stamping import stamp_error
from analysis.statistics import Estimate, Sample, mean, ratio
from analysis.stragglers import stragglers

PHASES = ("downlink", "train", "evaluate", "uplink", "aggregate")
"""Phases that have a column of their own."""

COMPARED = ("uplink", "downlink", "round")
"""What the links are compared by."""

_AT_MOST = 5


@dataclass(frozen=True)
class Summary:
    """What `summarise` found.

    Attributes
    ----------
    warm_up : int
        Rounds at the start of each run that were left out of everything but `runs`' count of rounds.
    target_accuracy : float or None
        Accuracy whose time is given.
    runs : list of dict
        One a run; units are in the keys. ``<phase>_mean_s`` is over client-rounds, ``<phase>_sd_s`` the standard deviation
        over rounds of the round's mean, ``<phase>_clock_half_width_s`` the bound of the clocks' error in the mean; what its
        stragglers and its link were like, with the asymmetry of each client's path where a second network gave it. None
        where a value does not exist.
    groups : list of dict
        One a configuration: `label`, `link`, `runs` (names), `estimates` (by name, each as `Estimate.to_dict`; the
        systematic part stands apart from the interval over runs), `phases` (median, p95 and maximum over client-rounds).
    ratios : list of dict
        One a pair of links of the same configuration and each of `COMPARED`: `slower`, `faster`, `phase`, `estimate`.
    differences : list of str
        In what the configurations of the runs differ, but for name and link.
    refused : dict of str to str
        Folders that could not be used, and why.
    stamps : list of str
        How late the stamping processes of each run were, one line a run that measured it.
    warnings : list of str
        Incomplete runs, missing replies, durations smaller than their uncertainty, oddities of the files.
    """

    warm_up: int
    target_accuracy: float | None
    runs: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    ratios: list[dict[str, Any]]
    differences: list[str]
    warnings: list[str]
    refused: dict[str, str] = field(default_factory=dict)
    stamps: list[str] = field(default_factory=list)


def summarise(
    runs: Sequence[Run], warm_up: int = WARM_UP, target: float | None = None, refused: Refused | None = None
) -> Summary:
    """Summarise runs that were loaded and derived.

    Parameters
    ----------
    runs : sequence of Run
    warm_up : int
        Rounds at the start of each run that are left out.
    target : float, optional
        Accuracy whose time is wanted; the highest multiple of 0.05 that all runs reached if left out.
    refused : dict of Path to RunFolderError, optional
        Folders that could not be used.
    """
    rows = client_rounds(runs, warm_up)
    statistics = phase_statistics(rows, "run").set_index(["run", "phase"])
    shares = round_parts(rows, "run").set_index(["run", "part"])["share"]
    values = run_values(rows)
    target = common_accuracy(runs) if target is None else target
    if target is not None:
        values = values.join(
            pd.Series({run.manifest.run: time_to_accuracy(run, target) for run in runs}, name="target_s", dtype=float)
        )
    configurations = groups(runs)
    return Summary(
        warm_up=warm_up,
        target_accuracy=target,
        runs=[_row(run, rows, statistics, shares, warm_up) | _of_run(values, run) for run in runs],
        groups=[_group(group, rows, values) for group in configurations],
        ratios=list(_ratios(configurations, values)),
        differences=differences(runs),
        warnings=[f"{run.manifest.run}: {line}" for run in runs for line in _warnings(run, warm_up)],
        refused={str(path): str(error) for path, error in (refused or {}).items()},
        stamps=[f"{run.manifest.run}: {line}" for run in runs if (line := stamp_error(run)) is not None],
    )


def seconds(value: float | None, digits: int = 3) -> str:
    """Write a duration in seconds with so many significant digits, to the microsecond at most; "-" for None."""
    if value is None or not math.isfinite(value):
        return "-"
    decimals = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(decimals, 0), 6)}f}"


def _group(group: Group, rows: pd.DataFrame, values: pd.DataFrame) -> dict[str, Any]:
    names = ["round_s", *(f"{phase}_s" for phase in PHASES), "uplink_share", "downlink_share", "idle_s", "target_s"]
    estimates = {name: mean(sample(values, name, group.names)) for name in names if name in values}
    estimates["unexplained_s"] = mean(sample(values, "unexplained_s", group.names), "linear")
    own = rows[rows["run"].isin(group.names)].assign(link=group.label)
    over_client_rounds = phase_statistics(own).drop(columns=["link", "mean_s", "clock_half_width_s"])
    whole = own.drop_duplicates(["run", "round"])["duration_s"].dropna()
    spread = {"median_s": whole.median(), "p95_s": whole.quantile(0.95), "max_s": whole.max()}
    phases = {"round": {"count": len(whole)} | {name: _finite(value) for name, value in spread.items()}}
    for each in over_client_rounds.to_dict("records"):
        phases[str(each.pop("phase"))] = {str(name): _finite(value) for name, value in each.items()}
    return {
        "label": group.label,
        "link": group.link,
        "runs": group.names,
        "estimates": {name: _plain(estimate) for name, estimate in estimates.items()},
        "phases": phases,
    }


def _of_run(values: pd.DataFrame, run: Run) -> dict[str, float | None]:
    names = ("idle_s", "unexplained_s", "target_s")
    own = values.reindex([run.manifest.run]).iloc[0]
    return {name: _finite(own.get(name)) for name in names}


def _ratios(configurations: Sequence[Group], values: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Pairs of groups that differ in their link alone; of each, the larger ratio is given, largest first."""
    for phase in COMPARED:
        found: list[tuple[Estimate, str, str]] = []
        for one, other in combinations(configurations, 2):
            if one.setting != other.setting or one.link == other.link:
                continue
            samples = {group.label: sample(values, f"{phase}_s", group.names) for group in (one, other)}
            slower, faster = _by_mean(samples)
            estimate = ratio(samples[slower], samples[faster])
            if estimate is not None:
                found.append((estimate, slower, faster))
        for estimate, slower, faster in sorted(found, key=lambda pair: -pair[0].value):
            yield {"slower": slower, "faster": faster, "phase": phase, "estimate": estimate.to_dict()}


def _by_mean(samples: dict[str, Sample]) -> list[str]:
    """Labels, the larger mean first; one without a mean last."""
    means = {label: mean(each) for label, each in samples.items()}
    return sorted(samples, key=lambda label: -found.value if (found := means[label]) else math.inf)


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_dict()


def _row(run: Run, rows: pd.DataFrame, statistics: pd.DataFrame, shares: "pd.Series[float]", warm_up: int) -> dict[str, Any]:
    manifest, rounds = run.manifest, run["rounds"]
    rounds = rounds[rounds["round"] >= 1]
    counted = rounds if only_warm_up(run, warm_up) else rounds[rounds["round"] > warm_up]
    clients = run["clients"]
    row: dict[str, Any] = {
        "run": manifest.run,
        "link": link_of(run),
        "status": manifest.status,
        "rounds": int(rounds["duration_s"].notna().sum()),
        "clients": int(clients.loc[clients["round"] >= 1, "client"].nunique()),
        "round_mean_s": _finite(counted["duration_s"].mean()),
        "round_sd_s": _finite(counted["duration_s"].std()),
    }
    for phase in PHASES:
        key = (manifest.run, phase)
        row[f"{phase}_mean_s"] = _finite(statistics.loc[key, "mean_s"]) if key in statistics.index else None
        row[f"{phase}_sd_s"] = _finite(counted["aggregate_s" if phase == "aggregate" else f"{phase}_mean_s"].std())
        if phase in CROSS_HOST:
            mean = rows.loc[rows["run"] == manifest.run, f"{phase}_uncertainty_s"].mean()
            row[f"{phase}_clock_half_width_s"] = _finite(mean)
    row["uplink_share"] = _finite(shares.get((manifest.run, "uplink")))
    for metric in ("accuracy", "loss"):
        known = rounds.sort_values("round")[metric].dropna()
        row[metric] = _finite(known.iloc[-1]) if len(known) else None
    last = stragglers(run, 0 if only_warm_up(run, warm_up) else warm_up)
    row["straggler"] = None if last is None else vars(last)
    row["carried"] = [vars(each) for each in carried(run, 0 if only_warm_up(run, warm_up) else warm_up)]
    row["asymmetries"] = [vars(each) for each in asymmetries(run)]
    row |= compression(run)
    return row | {"backend": manifest.backend, "notes": list(manifest.notes), "paced": manifest.paced}


def compression(run: Run) -> dict[str, Any]:
    """How the run's tensors were compressed ("none", or for example "up int8, down fp16"), and the mean relative error that
    this made in each direction; None where nothing was measured.
    """
    metrics = run["metrics"]
    found: dict[str, Any] = {"compression": str(run.manifest.data.get("compression", "none"))}
    for direction in ("uplink", "downlink"):
        errors = metrics.loc[metrics["metric"] == f"{direction}-compression-error", "value"]
        found[f"{direction}_compression_error"] = _finite(errors.mean()) if len(errors) else None
    return found


def _warnings(run: Run, warm_up: int) -> Iterator[str]:
    yield from run.warnings
    yield from map(str, run.manifest.data.get("marks") or [])
    if only_warm_up(run, warm_up):
        yield f"all its rounds are among the {warm_up} of warm-up, which are left out elsewhere: they are counted here"
    clients, timeline = run["clients"], run["timeline"]
    asked = clients[clients["round"] >= 1]
    if run.manifest.status == "running":  # the replies of its last round may still come
        asked = asked[asked["round"] < asked["round"].max()]
    lost = asked[asked["status"] != "ok"]
    if len(lost):
        names = [f"{row.client} in round {row.round} ({row.status})" for row in lost.head(_AT_MOST).itertuples()]
        more = f" and {len(lost) - _AT_MOST} more" if len(lost) > _AT_MOST else ""
        yield f"{len(lost)} of {len(asked)} replies missing: {', '.join(names)}{more}"
    yield from absence_warnings(run)
    for phase in CROSS_HOST:
        flags = timeline.loc[timeline["phase"] == phase, "uncertain"]
        uncertain = int(flags.fillna(False).sum())
        if uncertain:
            yield f"{uncertain} of {len(flags)} {phase}s are shorter than the clocks' uncertainty: read them as 'at most'"
    yield from connection_warnings(run)
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


def _finite(value: Any) -> Any:
    """Return None for what JSON cannot say: NaN, NA and infinity."""
    if isinstance(value, str):
        return value
    return float(value) if value is not None and pd.notna(value) and math.isfinite(value) else None
