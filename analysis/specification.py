"""What a figure is: a table, and what its columns mean on the page. Plain data; `analysis.draw` makes a picture of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis.load import Run

Form = Literal["bars", "ecdf", "boxes", "lines", "lanes", "cells", "ranges", "bands"]
"""Stacked horizontal bars; a cumulative distribution; boxes; one line a series; one lane with coloured spans a row; a
grid of coloured cells; a median with its range and single marks a row; a line in a band."""

Palette = Literal["link", "phase", "client"]
"""Kinds of things that have a look: the first two have the same one in every figure."""


@dataclass(frozen=True)
class Axis:
    """What stands at an axis.

    Attributes
    ----------
    label, unit : str
        Written as ``label [unit]``; no unit for names and pure numbers.
    limits : tuple of (float or None) or None
        Fixed range; a None end is that of the data.
    log : bool
        Logarithmic when all values are positive and span a factor of more than 20.
    """

    label: str
    unit: str = ""
    limits: tuple[float | None, float | None] | None = None
    log: bool = False

    @property
    def text(self) -> str:
        """The label as it is written."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Columns are those of the figure's table; order on the page is order in the table.

    A panel whose rows have no value to draw is left out of the picture.

    Attributes
    ----------
    form : Form
    x, y : str
        Column of the values along x, and of the values or names along y ("" for ``ecdf``, which makes its own).
    colour : str
        Column whose values have a look; "" or NA in a cell of ``cells`` leaves it empty.
    palette : Palette
        What the values of `colour` are.
    series : str
        For ``lines``: column that tells lines of one colour apart. For ``ranges``: column of the kind of mark, of
        `analysis.style.MARKS`.
    faint : str
        For ``lines``: column that is True for lines in the background; "" if there are none.
    ring : str
        For ``lines``: column that is True for points with a ring around them.
    level : str
        For ``lines``: key of the table's `attrs` at whose value (along y) a dashed line is drawn; None there draws none.
    start : str
        For ``lanes``: column of a span's left end; `x` is its length.
    text : str
        For ``bars`` and ``cells``: column of what is written into a piece that has room for it.
    split : str
        For ``cells``: column; a line parts columns of cells in which it differs.
    error : str
        For ``ecdf``: column of the half-width of a value; its mean is drawn as a bar at the median. For ``bands``: half the
        height of the band.
    low, high : str
        For ``lines`` and ``ranges``: columns of the ends of a bar through a point.
    where : tuple of str or None
        ``(column, value)``: the rows that belong here.
    height_in : float
        Height of the axes in inches, for the forms that do not take theirs from the number of rows.
    """

    form: Form
    x: str
    y: str
    colour: str
    x_axis: Axis
    y_axis: Axis
    palette: Palette = "link"
    title: str = ""
    series: str = ""
    faint: str = ""
    ring: str = ""
    level: str = ""
    start: str = ""
    text: str = ""
    split: str = ""
    error: str = ""
    low: str = ""
    high: str = ""
    where: tuple[str, str] | None = None
    height_in: float = 1.5

    @property
    def columns(self) -> set[str]:
        """Every column of the table that the panel names."""
        named = {self.x, self.y, self.colour, self.series, self.faint, self.ring, self.start, self.text, self.split}
        named |= {self.error, self.low, self.high, self.where[0] if self.where else ""}
        return named - {""}


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes
    ----------
    name : str
        File name without suffix.
    title : str
        What it shows, in a reader's words.
    table : callable (runs, warm_up) -> DataFrame
        Makes the tidy table without the first rounds of each run, where it `leaves_out` them; else of (runs). Its `attrs`
        fill fields of `caption`.
    caption : str
        Template of what is special to this figure; `analysis.captions` adds how the runs were made.
    needs : str
        What the runs must have, for the message when they have not.
    panels : tuple of Panel
        In reading order.
    columns : int
        So many panels stand side by side.
    facet : str
        Column with one panel a value, one below the other; "" for `panels` as they are.
    leaves_out : bool
        Whether warm-up rounds are left out; the caption says how many.
    """

    name: str
    title: str
    table: Callable[..., pd.DataFrame]
    caption: str
    needs: str
    panels: tuple[Panel, ...]
    columns: int = 1
    facet: str = ""
    leaves_out: bool = False

    def of(self, runs: Sequence[Run], warm_up: int) -> pd.DataFrame:
        """Make the table of runs that were derived."""
        return self.table(runs, warm_up) if self.leaves_out else self.table(runs)
