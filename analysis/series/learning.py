"""What the model has learnt by when."""

from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from analysis.load import Run
from analysis.measures import common_accuracy, link_of, links, time_to_accuracy
from analysis.rounds import ACCURACY_NAMES, LOSS_NAMES, global_metric
from analysis.series.names import milliseconds


def learning(runs: Sequence[Run]) -> pd.DataFrame:
    """Accuracy and loss of the global model: `metric`, `link`, `run`, `round`, `value`, `time_s`, `faint`, `reached`.

    `time_s` counts from the start of round 1 (0 for round 0). Where several runs of a link have a metric, each of them is
    faint and their mean per round is a line of its own, with an empty `run`. `reached` marks where that line (or the only
    run's) first is at the target: ``attrs["target"]``, as from `analysis.measures.common_accuracy`. ``attrs["reached"]``
    says after how many seconds, in the mean over runs.
    """
    frames = [frame for run in runs for frame in _of_run(run)]
    single = pd.concat([frame for frame in frames if not frame.empty] or [pd.DataFrame(columns=_COLUMNS)], ignore_index=True)
    counts = single.groupby(["metric", "link"])["run"].transform("nunique")
    several = single[counts > 1]
    means = several.groupby(["metric", "link", "round"], sort=False)[["value", "time_s"]].mean().reset_index().assign(run="")
    table = pd.concat([single.assign(faint=counts > 1), means.assign(faint=False)], ignore_index=True)
    order = {link: place for place, link in enumerate(links(runs))}
    table = table.sort_values(["link", "run", "round"], key=lambda keys: keys.map(order) if keys.name == "link" else keys)
    lines = table[(table["metric"] == "accuracy") & ~table["faint"].astype(bool)]
    target = common_accuracy(runs)
    firsts = lines.head(0) if target is None else lines[lines["value"] >= target].drop_duplicates("link")
    table["reached"] = table.index.isin(firsts.index)
    table.attrs["target"] = target
    if target is None:
        table.attrs["reached"] = "No accuracy of 0.05 was reached by all runs."
    else:
        times = {link: [time_to_accuracy(run, target) for run in runs if link_of(run) == link] for link in links(runs)}
        known = {link: [time_s for time_s in each if time_s is not None] for link, each in times.items()}
        said = [f"{milliseconds(fmean(each))} ({link})" for link, each in known.items() if each]
        table.attrs["reached"] = (
            f"Dashed and ringed: accuracy {target:.2f}, the highest that all runs reached; "
            f"on average after {', '.join(said)}."
        )
    return table.reset_index(drop=True)


_COLUMNS = ["metric", "link", "run", "round", "value", "time_s"]


def _of_run(run: Run) -> list[pd.DataFrame]:
    rows = run["timeline"]
    started_ns = rows.loc[rows["round"] >= 1, "start_ns"].min()
    frames = []
    for metric, names in (("accuracy", ACCURACY_NAMES), ("loss", LOSS_NAMES)):
        points = global_metric(run["metrics"], names).dropna(subset=["value"])
        if pd.notna(started_ns):
            since = points["time_s"] - float(started_ns) / 1e9
            points["time_s"] = since.mask(points["round"].eq(0).to_numpy(dtype=bool), 0.0)
        points = points.assign(metric=metric, link=link_of(run), run=run.manifest.run)
        frames.append(points.astype({"round": "float64"})[_COLUMNS])
    return frames
