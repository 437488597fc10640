"""Where the time of rounds goes: anatomy, timeline, stragglers, number of clients."""

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.csv_file import DTYPES
from analysis.load import Run
from analysis.measures import ROUND_PARTS, WARM_UP, client_rounds, link_of, links, round_parts
from analysis.series.names import milliseconds, natural

SMALL_SHARE = 0.01
"""Parts of a round that are smaller than this in every bar are drawn as one, "other"."""

_SHOWN_SHARE = 0.03
"""Phases below this share of the round are left out of the figure over numbers of clients."""


def anatomy(runs: Sequence[Run], warm_up: int = WARM_UP) -> pd.DataFrame:
    """Parts of a round per link, of the mean client and of the last one: `bar`, `link`, `part`, `mean_s`, `share`, `label`.

    The last client of a round is the one whose reply ended it. The parts of a bar add up to the mean round.
    """
    rows = client_rounds(runs, warm_up).dropna(subset=["duration_s"])
    if rows.empty:
        return pd.DataFrame()
    whose = {"mean": rows, "last": rows[rows["margin_s"] == 0]}
    parts = pd.concat([round_parts(group).assign(client=name) for name, group in whose.items()], ignore_index=True)
    largest = parts.groupby("part")["share"].agg(lambda shares: shares.abs().max())
    small = [part for part in ROUND_PARTS if largest.get(part, 0.0) < SMALL_SHARE]
    merged = parts.assign(part=parts["part"].mask(parts["part"].isin(small), "other"))
    table = merged.groupby(["link", "client", "part"])[["mean_s", "share"]].sum().reset_index()
    table["label"] = table["share"].map("{:.0%}".format)
    table["bar"] = table["link"] + "\n" + table["client"] + " client"
    order = {part: place for place, part in enumerate([*ROUND_PARTS, "other"])}
    order |= {link: place for place, link in enumerate(links(runs))} | {"mean": 0, "last": 1}
    table = table[table["mean_s"] != 0].sort_values(["link", "client", "part"], key=lambda names: names.map(order))
    hidden = [part for part in small if largest.get(part, 0.0) > 0]
    table.attrs["other"] = f"other: {', '.join(hidden)}, each under {SMALL_SHARE:.0%}." if hidden else ""
    return table.reset_index(drop=True)


def timeline(runs: Sequence[Run]) -> pd.DataFrame:
    """One round of the first run of each link: `panel`, `lane`, `phase`, `start_s` in the round, `seconds`."""
    frames, half_widths_s = [], []
    for link, run in _first_of_each_link(runs):
        rounds = run["rounds"].dropna(subset=["duration_s"]).sort_values("duration_s", kind="stable")
        rounds = rounds[rounds["round"] >= 1]
        typical = int(rounds["round"].iloc[(len(rounds) - 1) // 2])
        rows = run["timeline"]
        rows = rows[(rows["round"] == typical) & rows["start_ns"].notna() & rows["end_ns"].notna()]
        began_ns = rows["start_ns"].min()
        names = rows[["client", "phase"]].astype(DTYPES["str"])  # those of one round, not categories of a whole run
        spans = pd.DataFrame(
            {
                "panel": f"{link}: round {typical} of {run.manifest.run}",
                "lane": names["client"].fillna("server"),
                "phase": names["phase"],
                "start_s": (rows["start_ns"] - began_ns).astype("float64") / 1e9,
                "seconds": (rows["end_ns"] - rows["start_ns"]).astype("float64") / 1e9,
            }
        )
        frames.append(spans.sort_values("lane", key=lambda lanes: lanes.map(natural), kind="stable"))
        half_widths_s.append(rows["placement_uncertainty_s"].max())
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    table.attrs["placement"] = milliseconds(max(half_widths_s, default=0.0))
    return table


def stragglers(runs: Sequence[Run]) -> pd.DataFrame:
    """Who ended each round: `link`, `run`, `column` (rounds of a link's runs in a row), `client`, `phase`, `mark`.

    `phase` is the one that made the client last, NA for all the others; `mark` is "x" where no reply was accepted.
    """
    frames: list[pd.DataFrame] = []
    used: dict[str, int] = {}
    for run in runs:
        link, clients = link_of(run), run["clients"]
        rows = clients[clients["round"] >= 1][["round", "client", "status"]].dropna()
        if rows.empty:
            continue
        ended = run["rounds"].set_index("round")[["ended_by", "ended_in_phase"]]
        rows = rows.join(ended, on="round")
        last = (rows["client"] == rows["ended_by"]).fillna(False)
        column = rows["round"].rank(method="dense").astype("float64") + used.get(link, 0)
        used[link] = int(column.max())
        rows = rows.assign(link=link, run=run.manifest.run, column=column, phase=rows["ended_in_phase"].where(last))
        frames.append(rows.assign(mark=(rows["status"] == "ok").map({True: "", False: "x"})))
    if not frames:
        return pd.DataFrame()
    table = pd.concat(frames, ignore_index=True)
    table = table.sort_values(
        ["client", "column"], key=lambda names: names.map(natural) if names.name == "client" else names
    )
    order = {link: place for place, link in enumerate(links(runs))}
    table = table.sort_values("link", key=lambda names: names.map(order), kind="stable")
    by_link = table.groupby("link", sort=False)
    table.attrs["persistence"] = "; ".join(f"{link}: {_most_often_last(rows)}" for link, rows in by_link)
    return table[["link", "run", "column", "client", "phase", "mark"]].reset_index(drop=True)


def clients(runs: Sequence[Run], warm_up: int = WARM_UP) -> pd.DataFrame:
    """Phases against the number of clients: `link`, `clients`, `phase`, `mean_s`, and the runs' extremes `low_s`, `high_s`.

    Empty unless the runs of one link at least differ in their number of clients.
    """
    rows = client_rounds(runs, warm_up).dropna(subset=["duration_s"])
    if rows.empty:
        return pd.DataFrame()
    number = {run.manifest.run: float(run["clients"]["client"].nunique()) for run in runs}
    parts = round_parts(rows, "run")
    parts = parts.assign(link=parts["run"].map({run.manifest.run: link_of(run) for run in runs}))
    parts = parts.assign(clients=parts["run"].map(number)).dropna(subset=["mean_s"])
    differing = parts.groupby("link")["clients"].nunique()
    parts = parts[parts["link"].isin(differing[differing > 1].index)]
    shown = parts.groupby("part")["share"].max()
    parts = parts[parts["part"].isin(shown[shown >= _SHOWN_SHARE].index)]
    over_runs = parts.groupby(["link", "clients", "part"], sort=False)["mean_s"]
    table = over_runs.agg(mean_s="mean", low_s="min", high_s="max").reset_index().rename(columns={"part": "phase"})
    hidden = [part for part in ROUND_PARTS if 0 < shown.get(part, 0.0) < _SHOWN_SHARE]
    table.attrs["hidden"] = f"Not shown, each under {_SHOWN_SHARE:.0%} of a round: {', '.join(hidden)}." if hidden else ""
    return table


def _first_of_each_link(runs: Sequence[Run]) -> Iterator[tuple[str, Run]]:
    """The first run of each link in which a round has come to its end."""
    shown: set[str] = set()
    for run in runs:
        rounds, link = run["rounds"], link_of(run)
        if link not in shown and rounds.loc[rounds["round"] >= 1, "duration_s"].notna().any():
            shown.add(link)
            yield link, run


def _most_often_last(rows: pd.DataFrame) -> str:
    """For the caption: which client ended most rounds of a link."""
    ended = rows[rows["phase"].notna()]
    if ended.empty:
        return "no client was last"
    counts = ended["client"].value_counts(sort=True)
    return f"{counts.index[0]} ended {int(counts.iloc[0])} of {len(ended)} rounds"
