"""`fltestbed plot`: the figures."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from analysis.derive import derive_folders
from analysis.load import Refused, refusal
from analysis.measures import WARM_UP
from analysis.plots import FORMATS, plot_all
from fltestbed.errors import TestbedError


class Format(StrEnum):
    """What a figure can be written as."""

    PNG, SVG, PDF = FORMATS


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/demo-5g.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the figures.")] = Path("figures"),
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="May be given several times. [default: png, svg]")
    ] = None,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, metavar="N", help="Leave the first N rounds of each run out.")
    ] = WARM_UP,
    captions: Annotated[
        bool, typer.Option(help="Write the captions into the pictures too; captions.md and captions.json always have them.")
    ] = True,
) -> None:
    """Draw the figures that the runs allow, a column (3.5 inches) wide, with their captions.

    Makes timeline.csv, clients.csv and rounds.csv of each run folder again. A folder that cannot be used is left out; the
    status is 2 then.

    Example: fltestbed plot runs/demo-5g runs/demo-wifi runs/demo-ethernet -o figures --format pdf
    """
    refused: Refused = {}
    chosen = list(dict.fromkeys(formats or (Format.PNG, Format.SVG)))
    plotted = plot_all(derive_folders(runs, refused), out, chosen, captions=captions, warm_up=warm_up)
    for figure in plotted:
        if figure.reason:
            typer.echo(f"{figure.name}: not drawn, {figure.reason}", err=True)
        for path in figure.paths:
            typer.echo(path)
    if not any(figure.paths for figure in plotted):
        raise TestbedError(f"{', '.join(map(str, runs))}: there is nothing to draw, for the reasons above")
    if refused:
        raise refusal(refused)
