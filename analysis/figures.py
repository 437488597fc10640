"""Which figures there are: specifications as data.

A specification says which tidy table it draws (a function of `analysis.series`), which of its columns mean what, and what
stands at the axes and below the picture. `analysis.draw` turns it into a picture without knowing what a link or a phase is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis import series
from analysis.load import Run

Form = Literal["bars", "ecdf", "lines", "lanes"]
"""Stacked horizontal bars; a cumulative distribution; one line a series; one lane with coloured spans a row."""


@dataclass(frozen=True)
class Axis:
    """What stands at an axis.

    Attributes
    ----------
    label, unit : str
        Written as ``label [unit]``; no unit for names and pure numbers.
    limits : tuple of float or None
        Fixed range; None for that of the data.
    log : bool
        Logarithmic when all values are positive and span a factor of more than 20.
    """

    label: str
    unit: str = ""
    limits: tuple[float, float] | None = None
    log: bool = False

    @property
    def text(self) -> str:
        """The label as it is written."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Columns are those of the figure's table; order on the page is order in the table.

    Attributes
    ----------
    form : Form
    x, y : str
        Column of the values along x, and of the values or names along y ("" for ``ecdf``, which makes its own).
    colour : str
        Column whose values (links, phases) have a colour.
    series : str
        Column that tells lines of one colour apart; "" if there is one line a colour.
    start : str
        For ``lanes``: column of a span's left end; `x` is its length.
    text : str
        For ``bars``: column of what is written into a piece that has room for it.
    error : str
        For ``ecdf``: column of the half-width of a value; its mean is drawn as a bar at the median.
    where : tuple of str or None
        ``(column, value)``: the rows that belong here.
    """

    form: Form
    x: str
    y: str
    colour: str
    x_axis: Axis
    y_axis: Axis
    title: str = ""
    series: str = ""
    start: str = ""
    text: str = ""
    error: str = ""
    where: tuple[str, str] | None = None


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes
    ----------
    name : str
        File name without suffix.
    title : str
        What it shows, in a reader's words.
    table : callable (runs) -> DataFrame
        Makes the tidy table; its `attrs` fill fields of `caption`.
    caption : str
        Template of what is special to this figure; `analysis.captions` adds how the runs were made.
    needs : str
        What the runs must have, for the message when they have not.
    panels : tuple of Panel
        Side by side.
    facet : str
        Column with one panel a value, one below the other; "" for `panels` as they are.
    """

    name: str
    title: str
    table: Callable[[Sequence[Run]], pd.DataFrame]
    caption: str
    needs: str
    panels: tuple[Panel, ...]
    facet: str = ""


def _transfer(direction: str) -> Panel:
    return Panel(
        form="ecdf",
        x="seconds",
        y="",
        colour="link",
        error="half_width_s",
        where=("direction", direction),
        title=f"{direction}: {'client to server' if direction == 'uplink' else 'server to client'}",
        x_axis=Axis("transfer time of the model", "s", log=True),
        y_axis=Axis("share of transfers", limits=(0.0, 1.02)),
    )


def _accuracy(x: str, x_axis: Axis) -> Panel:
    return Panel(
        form="lines",
        x=x,
        y="accuracy",
        colour="link",
        series="run",
        x_axis=x_axis,
        y_axis=Axis("accuracy of the global model", limits=(0.0, 1.0)),
    )


FIGURES = (
    Figure(
        name="anatomy",
        title="Where the time of a round goes",
        table=series.anatomy,
        caption="Mean over all clients and rounds of the time that a client spends in each phase of a round; the pieces add "
        "up to the mean round, which ends when the new model is ready. Percentages are of that round. "
        "wait: until the last client's reply is there. {other}",
        needs="a round whose aggregation ended",
        panels=(
            Panel(
                form="bars",
                x="mean_s",
                y="link",
                colour="part",
                text="label",
                x_axis=Axis("time in a round", "s"),
                y_axis=Axis("link"),
            ),
        ),
    ),
    Figure(
        name="transfers",
        title="How long the model takes over each link",
        table=series.transfers,
        caption="Cumulative distribution over all clients and rounds, first byte sent to last byte received, thus across "
        "two clocks. The horizontal bar at the median is the half-width of the clock mapping, in the mean {half_widths}.",
        needs="a downlink or an uplink with stamps at both ends",
        panels=(_transfer("uplink"), _transfer("downlink")),
    ),
    Figure(
        name="accuracy",
        title="What the model has learnt by when",
        table=series.accuracy,
        caption="One point a round; round 0 is the model before training. Time counts from the start of the first round and "
        "includes the evaluation on the server.",
        needs="an accuracy of the global model in metrics.csv",
        panels=(
            _accuracy("time_s", Axis("time since the first round began", "s")),
            _accuracy("round", Axis("round")),
        ),
    ),
    Figure(
        name="timeline",
        title="One round, client by client",
        table=series.timeline,
        caption="For each link the round of median duration of its first run, on the server's clock. The phases of a client "
        "are placed to within {placement} (half-width of the clock mapping). Blank is time that no phase explains. "
        "wait: until the last client's reply is there.",
        needs="a round whose aggregation ended",
        panels=(
            Panel(
                form="lanes",
                x="seconds",
                y="lane",
                colour="phase",
                start="start_s",
                x_axis=Axis("time since the round began", "s"),
                y_axis=Axis(""),
            ),
        ),
        facet="panel",
    ),
)
