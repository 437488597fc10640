"""How each form of a panel is drawn. Nothing here knows what a link, a phase or a round is.

Each function draws rows of a table into axes and returns the names that need an entry in the legend.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analysis.specification import Form, Panel
from analysis.style import MARKS, Look

Looks = Mapping[str, Look]

AREAS = frozenset({"bars", "lanes", "cells"})
"""Forms that fill areas: their legend shows patches."""

ROW_HEIGHTS_IN = {"bars": 0.34, "lanes": 0.16, "cells": 0.17, "boxes": 0.2, "ranges": 0.24}
"""Height of one row, for the forms whose y axis has names."""

_VISIBLE = 0.003
"""Part of the axis from which a span is wide enough to be in the legend."""

_WRITABLE = 0.085
"""Part of the axis from which a bar is wide enough to be written into."""

_PALE = "#F4F4F4"

_MARKERS = 20
"""At most so many on a line: more hide it."""

NAME_LETTERS = 20
"""Longest name of a row and in a legend; a client may have 64 letters."""


def bars(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """Stacked horizontal bars with their sum behind them."""
    names = list(dict.fromkeys(rows[panel.y]))
    longest = rows.groupby(panel.y)[panel.x].sum().max()
    left = dict.fromkeys(names, 0.0)
    place = {name: number for number, name in enumerate(names)}
    for name, part, length, text in rows[[panel.y, panel.colour, panel.x, panel.text]].itertuples(index=False):
        axes.barh(place[name], length, left=left[name], height=0.74, **looks[part].area)
        if length > _WRITABLE * longest:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
            axes.text(left[name] + length / 2, place[name], text, ha="center", va="center", bbox=box)
        left[name] += length
    for name, length in left.items():
        axes.text(length + 0.012 * longest, place[name], f"{length:.3g} {panel.x_axis.unit}", va="center")
    _name_rows(axes, names)
    axes.set_xlim(0, 1.15 * longest)
    return set(rows[panel.colour])


def ecdf(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """Cumulative distributions, with a bar for the half-width of a value at the median."""
    for name, group in rows.groupby(panel.colour, sort=False):
        line = looks[str(name)].line
        values = np.sort(group[panel.x].to_numpy())
        share = np.arange(len(values) + 1) / len(values)
        axes.step([values[0], *values], share, where="post", **line | {"marker": ""})
        half_width = float(group[panel.error].mean())
        axes.errorbar(float(np.median(values)), 0.5, xerr=half_width, capsize=2.5, elinewidth=0.9, **line)
    return set(rows[panel.colour])


def boxes(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """One box a name: quartiles and median, whiskers at the 5th and 95th percentile, what is beyond as points."""
    groups = list(rows.groupby(panel.y, sort=False))
    for place, (_, group) in enumerate(groups):
        look = looks[str(group[panel.colour].iloc[0])]
        ink = {"color": look.colour, "linewidth": 1.0}
        axes.boxplot(
            group[panel.x].to_numpy(),
            positions=[place],
            orientation="horizontal",
            widths=0.55,
            whis=(5, 95),
            manage_ticks=False,
            boxprops=ink | {"linestyle": look.dashes},
            medianprops=ink | {"linewidth": 2.0},
            whiskerprops=ink,
            capprops=ink,
            flierprops={"marker": look.marker, "markersize": 2, "markerfacecolor": "none", "markeredgecolor": look.colour},
        )
    _name_rows(axes, [str(name) for name, _ in groups])
    return {str(name) for name in rows[panel.colour]}


def lines(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """One line a colour and series; in the background without markers, rings around chosen points, a dashed level."""
    keys = [name for name in (panel.colour, panel.series, panel.faint) if name]
    for key, group in rows.groupby(keys, sort=False):
        ordered = group.sort_values(panel.x, kind="stable")
        line = looks[str(key[0])].line
        faint = bool(panel.faint) and bool(key[-1])
        style: dict[str, Any] = {"markevery": math.ceil(len(ordered) / _MARKERS)}
        style |= {"alpha": 0.35, "linewidth": 0.6, "marker": ""} if faint else {}
        axes.plot(ordered[panel.x], ordered[panel.y], **line | style)
        if panel.low:
            below, above = ordered[panel.y] - ordered[panel.low], ordered[panel.high] - ordered[panel.y]
            ink = {"fmt": "none", "ecolor": line["color"], "elinewidth": 0.8, "capsize": 2}
            axes.errorbar(ordered[panel.x], ordered[panel.y], yerr=np.array([below, above]), **ink)
    if panel.ring:
        ringed = rows[rows[panel.ring].astype(bool)]
        axes.plot(ringed[panel.x], ringed[panel.y], "o", markersize=8, mfc="none", mec="#333333", mew=0.8, clip_on=False)
    if panel.level and rows.attrs.get(panel.level) is not None:
        axes.axhline(rows.attrs[panel.level], color="#333333", linewidth=0.7, linestyle=(0, (4, 3)))
    return set(rows[panel.colour])


def lanes(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """One lane with coloured spans a name."""
    names = list(dict.fromkeys(rows[panel.y]))
    place = {name: number for number, name in enumerate(names)}
    for name, group in rows.groupby(panel.colour, sort=False):
        lane = [place[lane] for lane in group[panel.y]]
        axes.barh(lane, group[panel.x], left=group[panel.start], height=0.78, **looks[str(name)].area)
    _name_rows(axes, names)
    axes.set_xlim(left=min(0.0, rows[panel.start].min()))
    end = (rows[panel.start] + rows[panel.x]).max()
    return set(rows.loc[rows[panel.x] > _VISIBLE * end, panel.colour])


def cells(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """A grid of cells, coloured where there is a name to colour them by, parted where `split` changes."""
    names = list(dict.fromkeys(rows[panel.y]))
    place = {name: number for number, name in enumerate(names)}
    left, right = rows[panel.x].min() - 0.5, rows[panel.x].max() + 0.5
    axes.add_patch(Rectangle((left, -0.5), right - left, len(names), facecolor=_PALE, zorder=0))
    coloured = rows[rows[panel.colour].notna()]
    for name, group in coloured.groupby(panel.colour, sort=False):
        lane = [place[lane] for lane in group[panel.y]]
        axes.barh(lane, 1.0, left=group[panel.x] - 0.5, height=1.0, zorder=1, **looks[str(name)].area)
    for x, lane, text in rows.loc[rows[panel.text] != "", [panel.x, panel.y, panel.text]].itertuples(index=False):
        axes.text(x, place[lane], text, ha="center", va="center")
    axes.hlines(np.arange(len(names) - 1) + 0.5, left, right, colors="white", linewidth=0.8, zorder=0.5)
    firsts = rows.drop_duplicates(panel.x).sort_values(panel.x)
    changes = firsts.loc[firsts[panel.split] != firsts[panel.split].shift(), panel.x].to_numpy()[1:]
    axes.vlines(changes - 0.5, -0.5, len(names) - 0.5, colors="#333333", linewidth=0.8, zorder=2)
    _name_rows(axes, names)
    axes.set_xlim(left, right)
    axes.grid(visible=False)
    return set(coloured[panel.colour])


def ranges(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """A row of marks a name, each with a bar where its row has both ends of one; the legend has the kinds of marks."""
    names = list(dict.fromkeys(rows[panel.y]))
    place = {name: number for number, name in enumerate(names)}
    columns = [panel.y, panel.x, panel.low, panel.high, panel.colour, panel.series]
    for name, x, low, high, colour, kind in rows[columns].itertuples(index=False):
        ink = looks[colour].colour
        if low < high:
            axes.hlines(place[name], low, high, colors=ink, linewidth=1.6, alpha=0.6)
        axes.plot(x, place[name], zorder=3, **mark_style(kind, ink))
    _name_rows(axes, names)
    return set(rows[panel.series])


def bands(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Looks) -> set[str]:
    """A line a colour, in a band of its half-width."""
    for name, group in rows.groupby(panel.colour, sort=False):
        look = looks[str(name)]
        line = look.line | {"marker": "", "linewidth": 0.9}
        axes.plot(group[panel.x], group[panel.y], **line)
        below, above = group[panel.y] - group[panel.error], group[panel.y] + group[panel.error]
        axes.fill_between(group[panel.x], below, above, color=look.colour, alpha=0.15, linewidth=0)
        for edge in (below, above):
            axes.plot(group[panel.x], edge, **line | {"linewidth": 0.4})
    return set(rows[panel.colour])


def shortened(name: str, letters: int) -> str:
    """A name with its middle left out where it is longer than so many letters: its ends tell names apart."""
    if len(name) <= letters:
        return name
    kept = letters - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"


def mark_style(kind: str, ink: str) -> dict[str, Any]:
    """Arguments of matplotlib for a mark of `ranges`: the first kind filled, a tick long and thick, others hollow."""
    size = {"markersize": 10, "mew": 2.2} if MARKS[kind] == "|" else {"markersize": 4.5, "mew": 0.8}
    fill = ink if kind == next(iter(MARKS)) else "white"
    return {"marker": MARKS[kind], "mec": ink, "mfc": fill} | size


def _name_rows(axes: Axes, names: list[str]) -> None:
    labels = ["\n".join(shortened(line, NAME_LETTERS) for line in name.split("\n")) for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


DRAW: dict[Form, Callable[[Axes, Panel, pd.DataFrame, Looks], set[str]]] = {
    "bars": bars,
    "ecdf": ecdf,
    "boxes": boxes,
    "lines": lines,
    "lanes": lanes,
    "cells": cells,
    "ranges": ranges,
    "bands": bands,
}
