"""`fltestbed report`: one page that can be mailed."""

from pathlib import Path
from typing import Annotated

import typer

from analysis.derive import derive_folders
from analysis.load import Refused, refusal
from analysis.measures import WARM_UP
from analysis.report import write_report


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/demo-5g.")],
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, metavar="N", help="Leave the first N rounds of each run out.")
    ] = WARM_UP,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: differences, ratios with intervals, figures, warnings, and the data.

    The page needs no network and runs no script; it can be read on a phone, printed and mailed. A folder that cannot be used
    is named there and left out; the status is 2 then.

    Example: fltestbed report runs/demo-5g runs/demo-wifi runs/demo-ethernet -o report.html
    """
    refused: Refused = {}
    write_report(derive_folders(runs, refused), out, warm_up, refused)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    if refused:
        raise refusal(refused)
