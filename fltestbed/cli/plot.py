"""`fltestbed plot`: the figures."""

from pathlib import Path
from typing import Annotated

import typer

from analysis.derive import derive_folders
from analysis.plots import FORMATS, plot_all


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/demo-5g.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the figures.")] = Path("figures"),
    pdf: Annotated[bool, typer.Option("--pdf", help="Write PDF files too.")] = False,
) -> None:
    """Draw the figures that the runs allow, as PNG and SVG, with their captions.

    Makes timeline.csv, clients.csv and rounds.csv of each run folder again.

    Example: fltestbed plot runs/demo-5g runs/demo-wifi runs/demo-ethernet -o figures
    """
    for figure in plot_all(derive_folders(runs), out, FORMATS if pdf else FORMATS[:2]):
        if figure.reason:
            typer.echo(f"{figure.name}: not drawn, {figure.reason}", err=True)
        for path in figure.paths:
            typer.echo(path)
