"""Specification and table into a picture. Nothing here knows what a link, a phase or a round is."""

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.figures import Axis, Figure, Form, Panel
from analysis.style import RC, Look

WIDTH_IN = 7.0
"""Width of two columns of a paper."""

_CAPTION_CHARACTERS = 122
_LEGEND_COLUMNS = 7

_HEIGHTS_IN = {"bars": 0.42, "lanes": 0.2}
"""Height of one bar or lane, for the forms that are areas."""

_VISIBLE = 0.003
"""Part of the axis from which a span is wide enough to be in the legend."""


def draw(figure: Figure, table: pd.DataFrame, caption: str, looks: Mapping[str, Look]) -> Picture:
    """Draw a figure.

    Parameters
    ----------
    figure : Figure
        The specification.
    table : DataFrame
        What its `table` returned, not empty.
    caption : str
        Rendered below the axes, wrapped.
    looks : mapping of str to Look
        For every value of the panels' `colour` columns.
    """
    with mpl.rc_context(RC):
        panels = list(_panels(figure, table))
        stacked = bool(figure.facet)
        heights = [_height_in(panel, rows) for panel, rows in panels]
        lines = textwrap.wrap(caption, _CAPTION_CHARACTERS)
        below_in = 0.1 + 0.13 * len(lines)
        above_in = (sum(heights) if stacked else max(heights)) + 0.9
        picture = Picture(figsize=(WIDTH_IN, above_in + below_in), layout="constrained")
        above, below = picture.subfigures(2, 1, squeeze=False, height_ratios=[above_in, below_in]).flat
        shape = {"nrows": len(panels), "height_ratios": heights} if stacked else {"ncols": len(panels)}
        one_x = len({panel.x for panel, _ in panels}) == 1
        grid = above.subplots(squeeze=False, sharex=one_x, sharey=not stacked, **shape)
        shown: set[str] = set()
        for axes, (panel, rows) in zip(grid.flat, panels, strict=True):
            shown |= _DRAW[panel.form](axes, panel, rows, looks)
            _label(axes, panel, rows if not one_x else table)
            axes.label_outer()
        above.suptitle(figure.title, x=0.01, ha="left", fontweight="bold", fontsize=9.5)
        names = [name for name in looks if name in shown]
        handles = [_handle(looks[name], figure.panels[0].form) for name in names]
        columns = math.ceil(len(names) / math.ceil(len(names) / _LEGEND_COLUMNS))
        above.legend(handles, names, loc="outside lower center", ncols=columns, columnspacing=1.4, handletextpad=0.5)
        below.text(0.01, 1.0, "\n".join(lines), va="top", fontsize=7.5, color="#333333")
    return picture


def save(picture: Picture, stem: Path, formats: Iterable[str]) -> list[Path]:
    """Write a picture as ``stem.<format>`` for each format (png, svg, pdf) and return the paths."""
    paths = []
    for name in formats:
        path = stem.with_name(f"{stem.name}.{name}")
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(name)
        with mpl.rc_context(RC):
            picture.savefig(path, dpi=200, metadata=metadata)
        paths.append(path)
    return paths


def _panels(figure: Figure, table: pd.DataFrame) -> Iterable[tuple[Panel, pd.DataFrame]]:
    for panel in figure.panels:
        if figure.facet:
            for value, rows in table.groupby(figure.facet, sort=False):
                yield replace(panel, title=str(value)), rows
        elif panel.where is not None:
            column, value = panel.where
            yield panel, table[table[column] == value]
        else:
            yield panel, table


def _height_in(panel: Panel, rows: pd.DataFrame) -> float:
    if panel.form not in _HEIGHTS_IN:
        return 2.2
    count = rows[panel.y].nunique()
    return 0.35 + min(_HEIGHTS_IN[panel.form], 5 / count) * count


def _label(axes: Axes, panel: Panel, rows: pd.DataFrame) -> None:
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.x_axis.text)
    axes.set_ylabel(panel.y_axis.text)
    if panel.y_axis.limits:
        axes.set_ylim(*panel.y_axis.limits)
    if _is_log(panel.x_axis, rows[panel.x]):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter("")
    elif pd.api.types.is_float_dtype(rows[panel.x]) and (rows[panel.x] % 1 == 0).all():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _is_log(axis: Axis, values: "pd.Series[float]") -> bool:
    return axis.log and bool((values > 0).all()) and bool(values.max() > 20 * values.min())


def _handle(look: Look, form: Form) -> Patch | Line2D:
    return Patch(**look.area) if form in _HEIGHTS_IN else Line2D([], [], **look.line)


def _bars(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Mapping[str, Look]) -> set[str]:
    names = list(dict.fromkeys(rows[panel.y]))
    longest = rows.groupby(panel.y)[panel.x].sum().max()
    left = dict.fromkeys(names, 0.0)
    for name, part, length, text in rows[[panel.y, panel.colour, panel.x, panel.text]].itertuples(index=False):
        axes.barh(name, length, left=left[name], height=0.72, **looks[part].area)
        if length > 0.045 * longest:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
            axes.text(left[name] + length / 2, name, text, ha="center", va="center", fontsize=7, bbox=box)
        left[name] += length
    for name, length in left.items():
        axes.text(length + 0.01 * longest, name, f"{length:.3g} {panel.x_axis.unit}", va="center", fontsize=7.5)
    axes.set_xlim(0, 1.09 * longest)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return set(rows[panel.colour])


def _ecdf(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Mapping[str, Look]) -> set[str]:
    for name, group in rows.groupby(panel.colour, sort=False):
        line = looks[str(name)].line
        values = np.sort(group[panel.x].to_numpy())
        share = np.arange(len(values) + 1) / len(values)
        axes.step([values[0], *values], share, where="post", **line | {"marker": ""})
        half_width = float(group[panel.error].mean())
        axes.errorbar(float(np.median(values)), 0.5, xerr=half_width, capsize=3, elinewidth=1, **line)
    return set(rows[panel.colour])


def _lines(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Mapping[str, Look]) -> set[str]:
    for (name, _), group in rows.groupby([panel.colour, panel.series], sort=False):
        ordered = group.sort_values(panel.x)
        axes.plot(ordered[panel.x], ordered[panel.y], **looks[str(name)].line)
    return set(rows[panel.colour])


def _lanes(axes: Axes, panel: Panel, rows: pd.DataFrame, looks: Mapping[str, Look]) -> set[str]:
    names = list(dict.fromkeys(rows[panel.y]))
    place = {name: number for number, name in enumerate(names)}
    for name, group in rows.groupby(panel.colour, sort=False):
        lanes = [place[lane] for lane in group[panel.y]]
        axes.barh(lanes, group[panel.x], left=group[panel.start], height=0.78, **looks[str(name)].area)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    end = (rows[panel.start] + rows[panel.x]).max()
    return set(rows.loc[rows[panel.x] > _VISIBLE * end, panel.colour])


_DRAW = {"bars": _bars, "ecdf": _ecdf, "lines": _lines, "lanes": _lanes}
