"""`fltestbed summary`: the table."""

import dataclasses
import json as json_format
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from analysis.derive import derive_for_summary
from analysis.load import Refused, refusal
from analysis.measures import WARM_UP
from analysis.published import compare, unknown_publications
from analysis.published import render as render_published
from analysis.tables import summarise
from analysis.terminal import render
from fltestbed.errors import RunFolderError


def summary(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/demo-5g.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with units in the keys, in place of tables.")] = False,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, metavar="N", help="Leave the first N rounds of each run out.")
    ] = WARM_UP,
    target: Annotated[
        float | None,
        typer.Option(
            "--accuracy", min=0, max=1, help="Accuracy whose time is given; by default the highest that all reached."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to a file, not the terminal.")
    ] = None,
) -> None:
    """Compare runs: seconds of each phase with its uncertainty, ratios between the links, and what to be warned of.

    Reads the run folders and writes nothing into them. One that cannot be used is marked, and the status is 2 then.

    Example: fltestbed summary runs/demo-5g runs/demo-wifi runs/demo-ethernet
    """
    refused: Refused = {}
    derived = derive_for_summary(runs, refused)
    found = summarise(derived, warm_up, target, refused)
    published = compare(derived, warm_up)
    try:
        file = None if out is None else out.open("w", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be written: {error.strerror}; give another file with --out") from error
    console = Console(file=file, width=None if file is None else 100)
    try:
        if json:
            facts = dataclasses.asdict(found) | {"published": [each.to_dict() for each in published]}
            text = json_format.dumps(facts, indent=2, allow_nan=False)
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            render(found, console)
            render_published(published, console, emulated=any(run.manifest.backend for run in derived))
            for line in unknown_publications(derived):
                console.print(f"warning: {line}", style="yellow", markup=False, soft_wrap=True)
    finally:
        if file is not None:
            file.close()
    if refused:
        raise refusal(refused)
