"""What the links carry: transfer times, and goodput against capacity."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.capacity import capacity_bps, shared_bps
from analysis.load import Run
from analysis.measures import CROSS_HOST, WARM_UP, client_rounds, link_of, links, only_warm_up
from analysis.series.names import milliseconds
from analysis.style import MARKS

ONE, TOGETHER, CAPACITY = MARKS
_MBIT = 1e6


def transfers(runs: Sequence[Run], warm_up: int = WARM_UP) -> pd.DataFrame:
    """Every accepted client's transfers: `link`, `direction`, `seconds`, `half_width_s`."""
    rows = client_rounds(runs, warm_up)
    frames = []
    for direction in CROSS_HOST:
        columns = {f"{direction}_s": "seconds", f"{direction}_uncertainty_s": "half_width_s"}
        frames.append(rows[["link", *columns]].rename(columns=columns).assign(direction=direction))
    table = pd.concat(frames, ignore_index=True).dropna(subset=["seconds"])
    order = {link: place for place, link in enumerate(links(runs))}
    table = table.sort_values("link", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    means = table.groupby("link")["half_width_s"].mean()
    table.attrs["half_widths"] = ", ".join(f"{milliseconds(means[link])} ({link})" for link in links(runs) if link in means)
    return table


def goodput(runs: Sequence[Run], warm_up: int = WARM_UP) -> pd.DataFrame:
    """Payload bits a second beside what the link could carry: `place`, `link`, `kind`, `mbit`, `low`, `high`.

    ``one transfer`` is the median of client-rounds with their 5th and 95th percentile, ``all clients together`` the mean of
    runs of `analysis.capacity.shared_bps`, ``capacity`` what `analysis.capacity.capacity_bps` knows, each value once.
    """
    rows = client_rounds(runs, warm_up)
    marks: list[dict[str, Any]] = []
    without, per_client = [], []
    for link in links(runs):
        of_link = [run for run in runs if link_of(run) == link]
        for direction in reversed(CROSS_HOST):
            mark = {"place": f"{link}\n{direction}", "link": link}
            each = rows.loc[rows["link"] == link, f"{direction}_goodput_bps"].dropna() / _MBIT
            if each.empty:
                continue
            low, middle, high = each.quantile([0.05, 0.5, 0.95])
            marks.append(mark | {"kind": ONE, "mbit": middle, "low": low, "high": high})
            together = pd.Series([_together_bps(run, direction, warm_up) for run in of_link], dtype="float64").mean() / _MBIT
            if pd.notna(together):
                marks.append(mark | {"kind": TOGETHER, "mbit": together, "low": together, "high": together})
            known = sorted({rate / _MBIT for run in of_link if (rate := capacity_bps(run, direction)[0]) is not None})
            marks += [mark | {"kind": CAPACITY, "mbit": rate, "low": rate, "high": rate} for rate in known]
            if not known:
                without.append(f"{link} {direction}")
            elif any((run.manifest.data.get("link") or {}).get("medium") == "dedicated" for run in of_link):
                per_client.append(link)
    table = pd.DataFrame(marks, columns=["place", "link", "kind", "mbit", "low", "high"])
    table.attrs["per_client"] = f" (of each client: {', '.join(dict.fromkeys(per_client))})" if per_client else ""
    table.attrs["without"] = f"No capacity is known of {', '.join(without)}." if without else ""
    return table


def _together_bps(run: Run, direction: str, warm_up: int) -> float:
    rows = run["timeline"]
    first = 1 if only_warm_up(run, warm_up) else 1 + warm_up
    return shared_bps(rows[(rows["phase"] == direction) & (rows["status"] == "ok") & (rows["round"] >= first)])
