"""`fltestbed trace`: a run for Perfetto."""

from pathlib import Path
from typing import Annotated

import typer

from analysis.derive import derive_folders
from analysis.trace import write_trace


def trace(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/demo-5g.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = Path("trace.json"),
) -> None:
    """Write a run as a trace, which https://ui.perfetto.dev and Chrome's chrome://tracing open.

    Each host is a track, each phase a slice; processor load and signal are counters beside them.

    Example: fltestbed trace runs/demo-5g -o demo-5g.json
    """
    events = write_trace(derive_folders([run])[0], out)
    typer.echo(f"{out}: {events} events")
