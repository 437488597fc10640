"""Specification and table into a picture. Nothing here knows what a link, a phase or a round is."""

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.forms import AREAS, DRAW, NAME_LETTERS, ROW_HEIGHTS_IN, mark_style, shortened
from analysis.specification import Axis, Figure, Panel
from analysis.style import MARKS, RC, Look, Palettes

WIDTH_IN = 3.5
"""Width of a column of a paper, of which letters have their size."""

_CAPTION_CHARACTERS = 66
_TALLEST_IN = 5.5
_LINE_IN = 0.105
_TITLE_LETTERS = 44
_ENTRY_IN, _LETTER_IN = 0.32, 0.066
"""What an entry of the legend takes without its letters, and each of those."""


def draw(figure: Figure, table: pd.DataFrame, palettes: Palettes, caption: str = "") -> Picture:
    """Draw a figure.

    Parameters
    ----------
    figure : Figure
        The specification.
    table : DataFrame
        What its `table` returned, not empty.
    palettes : Palettes
        Looks of every value of the panels' `colour` columns.
    caption : str
        Rendered below the axes, wrapped; "" for none.
    """
    with mpl.rc_context(RC):
        panels = list(_panels(figure, table))
        columns = min(figure.columns, len(panels))
        lines = textwrap.wrap(caption, _CAPTION_CHARACTERS)
        shown: dict[str, Patch | Line2D] = {}
        named = sum(rows[panel.y].nunique() for panel, rows in panels if panel.form in ROW_HEIGHTS_IN)
        heights = [_height_in(panel, rows, _TALLEST_IN / max(named, 1)) for panel, rows in panels]
        by_row = [max(heights[first : first + columns]) for first in range(0, len(panels), columns)]
        legend_in, below_in = 0.25, 0.06 + 0.125 * len(lines)
        above_in = sum(by_row) + 0.34 * len(by_row) + 0.45 + legend_in
        picture = Picture(figsize=(WIDTH_IN, above_in + below_in), layout="constrained")
        above, below = picture.subfigures(2, 1, squeeze=False, height_ratios=[above_in, below_in]).flat
        grid = above.subplots(len(by_row), columns, squeeze=False, height_ratios=by_row)
        for number, (panel, rows) in enumerate(panels):
            axes, looks = grid.flat[number], palettes[panel.palette]
            same_x = [other for other, (earlier, _) in enumerate(panels) if _shared_x(earlier, panel)]
            if same_x and same_x[0] < number:
                axes.sharex(grid.flat[same_x[0]])
            beside = number % columns > 0 and _shared_y(panels[number - 1][0], panel)
            if beside:
                axes.sharey(grid.flat[number - 1])
            names = DRAW[panel.form](axes, panel, rows, looks)
            shown |= _handles(panel, names, looks)
            _label(axes, panel, rows)
            _range(axes, panel, pd.concat([panels[other][1][panel.x] for other in same_x or [number]]))
            _thin_out(axes, panel, heights[number])
            under = number + columns
            if under < len(panels) and panels[under][0].x_axis == panel.x_axis:
                axes.set_xlabel("")
                axes.tick_params(labelbottom=not _shared_x(panels[under][0], panel))
            if beside:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        above.suptitle(figure.title, x=0.01, ha="left", fontweight="bold", fontsize=8)
        shown = _in_order(shown, palettes)
        entries = [shortened(name, NAME_LETTERS) for name in shown]
        width = _legend_columns(entries)
        picture.set_figheight(above_in + below_in + 0.14 * (math.ceil(len(shown) / width) - 1))
        areas = any(isinstance(handle, Patch) for handle in shown.values())
        space = {"columnspacing": 1.0, "handletextpad": 0.4, "handlelength": 1.5 if areas else 2.4}
        above.legend(shown.values(), entries, loc="outside lower center", ncols=width, **space)
        below.text(0.01, 1.0, "\n".join(lines), va="top", color="#333333")
        picture.draw_without_rendering()
        _freeze(picture)
    return picture


def save(picture: Picture, stem: Path, formats: Iterable[str]) -> list[Path]:
    """Write a picture as ``stem.<format>`` for each format (png, svg, pdf) and return the paths."""
    paths = []
    for name in formats:
        path = stem.with_name(f"{stem.name}.{name}")
        path.write_bytes(rendered(picture, name))
        paths.append(path)
    return paths


def rendered(picture: Picture, format_name: str, *, letters: bool = True) -> bytes:
    """Return a picture as the bytes of a PNG, SVG or PDF file, the same for the same picture.

    Without `letters` an SVG holds outlines in place of text: it looks the same where the font is missing.
    """
    metadata: dict[str, Any] | None = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format_name)
    file = BytesIO()
    with mpl.rc_context(RC if letters else RC | {"svg.fonttype": "path"}):
        picture.savefig(file, format=format_name, dpi=300, metadata=metadata)
    return file.getvalue()


def _panels(figure: Figure, table: pd.DataFrame) -> Iterable[tuple[Panel, pd.DataFrame]]:
    """The panels that have something to draw, with their rows."""
    for panel in figure.panels:
        drawable = table if panel.form == "cells" else table.dropna(subset=[panel.x])
        if panel.where is not None:
            column, value = panel.where
            drawable = drawable[drawable[column] == value]
        if figure.facet:
            for facet, rows in drawable.groupby(figure.facet, sort=False):
                yield replace(panel, title=shortened(str(facet), _TITLE_LETTERS)), rows
        elif not drawable.empty:
            yield panel, drawable


def _height_in(panel: Panel, rows: pd.DataFrame, most_in: float) -> float:
    """Height of the axes; a row of a panel with names takes `most_in` at most."""
    if panel.form not in ROW_HEIGHTS_IN:
        return panel.height_in
    return 0.1 + min(ROW_HEIGHTS_IN[panel.form], most_in) * rows[panel.y].nunique()


def _thin_out(axes: Axes, panel: Panel, height_in: float) -> None:
    """Name every second, third... row where there is no room to name each."""
    if panel.form in ROW_HEIGHTS_IN:
        places, labels = list(axes.get_yticks()), [label.get_text() for label in axes.get_yticklabels()]
        lines = max((label.count("\n") + 1 for label in labels), default=1)
        step = math.ceil(_LINE_IN * lines * len(places) / height_in)
        axes.set_yticks(places[::step], labels[::step])


def _label(axes: Axes, panel: Panel, rows: pd.DataFrame) -> None:
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.x_axis.text)
    axes.set_ylabel(panel.y_axis.text)
    if panel.y_axis.limits:
        bottom, top = panel.y_axis.limits
        axes.set_ylim(bottom, top if top is not None else 1.08 * axes.dataLim.y1 or 1.0)
    if panel.form == "lines" and (rows[panel.y] % 1 == 0).all():
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _range(axes: Axes, panel: Panel, values: "pd.Series[float]") -> None:
    """Range, scale and ticks along x, from all values that share it."""
    if panel.x_axis.limits:
        axes.set_xlim(*panel.x_axis.limits)
    if _is_log(panel.x_axis, values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter("")
    elif (values % 1 == 0).all():
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _is_log(axis: Axis, values: "pd.Series[float]") -> bool:
    return axis.log and bool((values > 0).all()) and bool(values.max() > 20 * values.min())


def _freeze(picture: Picture) -> None:
    """Keep the layout, rounded: its solver is off by another 1e-13 each time, and names in an SVG come from that."""
    picture.set_layout_engine("none")
    for part in picture.subfigs:
        for axes in part.axes:
            left, bottom, width, height = (round(float(edge), 6) for edge in axes.get_position().bounds)
            axes.set_position((left, bottom, width, height))


def _shared_x(one: Panel, other: Panel) -> bool:
    return (one.x, one.x_axis) == (other.x, other.x_axis) and "cells" not in {one.form, other.form}


def _shared_y(one: Panel, other: Panel) -> bool:
    return (one.y, one.y_axis) == (other.y, other.y_axis)


def _handles(panel: Panel, names: set[str], looks: Mapping[str, Look]) -> dict[str, Patch | Line2D]:
    """What the legend shows for each of the names, in the order of the looks."""
    if panel.form == "ranges":
        return {kind: Line2D([], [], linestyle="none", **mark_style(kind, "#333333")) for kind in MARKS if kind in names}
    if panel.form in AREAS:
        return {name: Patch(**looks[name].area) for name in looks if name in names}
    return {name: Line2D([], [], **looks[name].line) for name in looks if name in names}


def _in_order(shown: Mapping[str, Patch | Line2D], palettes: Palettes) -> dict[str, Patch | Line2D]:
    """The entries of the legend, in the order of their palettes."""
    every = [*dict.fromkeys(itertools.chain(*palettes.values(), MARKS))]
    return {name: shown[name] for name in sorted(shown, key=every.index)}


def _legend_columns(names: list[str]) -> int:
    """As many columns as fit into the width, in rows of even length; entries run down the columns."""
    for rows in range(1, len(names)):
        columns = [names[first : first + rows] for first in range(0, len(names), rows)]
        if sum(_ENTRY_IN + _LETTER_IN * max(map(len, column)) for column in columns) <= WIDTH_IN:
            return len(columns)
    return 1
