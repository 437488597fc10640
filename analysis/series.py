"""The tidy tables that the figures draw, from runs that were derived.

Each function returns one row a mark, in the order in which marks are drawn, or an empty table if the runs have nothing to
show. Facts for the caption are in its `attrs`.
"""

import re
from collections.abc import Sequence

import pandas as pd

from analysis.load import Run
from analysis.measures import CROSS_HOST, ROUND_PARTS, client_rounds, link_of, links, round_parts
from analysis.rounds import ACCURACY_NAMES, global_metric

SMALL_SHARE = 0.01
"""Parts of a round that are smaller than this on every link are drawn as one, "other"."""


def anatomy(runs: Sequence[Run]) -> pd.DataFrame:
    """Mean parts of a round per link: `link`, `part`, `mean_s`, `share`, `label`; a link's parts add up to its round."""
    parts = round_parts(client_rounds(runs))
    largest = parts.groupby("part")["share"].agg(lambda shares: shares.abs().max())
    small = [part for part in ROUND_PARTS if largest.get(part, 0.0) < SMALL_SHARE]
    merged = parts.assign(part=parts["part"].mask(parts["part"].isin(small), "other"))
    table = merged.groupby(["link", "part"])[["mean_s", "share"]].sum().reset_index()
    table["label"] = table["share"].map("{:.0%}".format)
    order = {part: place for place, part in enumerate([*ROUND_PARTS, "other"])}
    order |= {link: place for place, link in enumerate(links(runs))}
    table = table[table["mean_s"] != 0].sort_values(["link", "part"], key=lambda names: names.map(order))
    hidden = [part for part in small if largest.get(part, 0.0) > 0]
    table.attrs["other"] = (
        f"other, each under {SMALL_SHARE:.0%} of a round on every link: {', '.join(hidden)}." if hidden else ""
    )
    return table.reset_index(drop=True)


def transfers(runs: Sequence[Run]) -> pd.DataFrame:
    """Every accepted client's transfers: `link`, `direction`, `seconds`, `half_width_s`."""
    rows = client_rounds(runs)
    frames = []
    for direction in CROSS_HOST:
        columns = {f"{direction}_s": "seconds", f"{direction}_uncertainty_s": "half_width_s"}
        frames.append(rows[["link", *columns]].rename(columns=columns).assign(direction=direction))
    table = pd.concat(frames, ignore_index=True).dropna(subset=["seconds"])
    means = table.groupby("link")["half_width_s"].mean()
    table.attrs["half_widths"] = ", ".join(
        f"{_milliseconds(means[link])} on {link}" for link in links(runs) if link in means
    )
    return table


def accuracy(runs: Sequence[Run]) -> pd.DataFrame:
    """Accuracy of the global model: `run`, `link`, `round`, `accuracy`, `time_s` since round 1 began (0 for round 0)."""
    frames = []
    for run in runs:
        rows = run["timeline"]
        started_ns = rows.loc[rows["round"] >= 1, "start_ns"].min()
        points = global_metric(run["metrics"], ACCURACY_NAMES).rename(columns={"value": "accuracy"})
        if pd.notna(started_ns):
            since = points["time_s"] - float(started_ns) / 1e9
            points["time_s"] = since.mask(points["round"].eq(0).to_numpy(dtype=bool), 0.0)
        frames.append(points.assign(run=run.manifest.run, link=link_of(run)))
    return pd.concat(frames, ignore_index=True).dropna(subset=["accuracy"]).astype({"round": "float64"})


def timeline(runs: Sequence[Run]) -> pd.DataFrame:
    """One round of the first run of each link: `panel`, `lane`, `phase`, `start_s` in the round, `seconds`."""
    frames, half_widths_s, shown = [], [], set()
    for run in runs:
        rounds = run["rounds"].dropna(subset=["duration_s"]).sort_values("duration_s", kind="stable")
        rounds = rounds[rounds["round"] >= 1]
        link = link_of(run)
        if rounds.empty or link in shown:
            continue
        shown.add(link)
        typical = int(rounds["round"].iloc[(len(rounds) - 1) // 2])
        rows = run["timeline"]
        rows = rows[(rows["round"] == typical) & rows["start_ns"].notna() & rows["end_ns"].notna()]
        began_ns = rows["start_ns"].min()
        spans = pd.DataFrame(
            {
                "panel": f"{link}: round {typical} of {run.manifest.run}",
                "lane": rows["client"].fillna("server"),
                "phase": rows["phase"],
                "start_s": (rows["start_ns"] - began_ns).astype("float64") / 1e9,
                "seconds": (rows["end_ns"] - rows["start_ns"]).astype("float64") / 1e9,
            }
        )
        frames.append(spans.sort_values("lane", key=lambda lanes: lanes.map(_natural), kind="stable"))
        half_widths_s.append(rows["placement_uncertainty_s"].max())
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    table.attrs["placement"] = _milliseconds(max(half_widths_s, default=0.0))
    return table


def _natural(name: str) -> str:
    """Key that puts the server first and client-2 before client-10."""
    return "" if name == "server" else re.sub(r"\d+", lambda digits: digits.group().zfill(9), name)


def _milliseconds(value_s: float) -> str:
    return f"{value_s * 1e3:.2g} ms" if value_s < 0.1 else f"{value_s:.2g} s"
