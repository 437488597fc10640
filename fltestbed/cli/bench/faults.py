"""`fltestbed bench faults`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import JsonFile, finish
from fltestbed.links import ensure_privilege


def faults(
    json: JsonFile = None,
    cells: Annotated[
        str, typer.Option(help="Faults, phases or cells (client-killed/train), with commas; all if left out.")
    ] = "",
    at_once: Annotated[int, typer.Option(min=1, max=16, help="Cells that run at the same time.")] = 2,
) -> None:
    """Strike real runs, each fault in each phase of a round, and check what has to hold of them.

    Example: fltestbed bench faults --cells client-killed,server-killed/train --json faults.json
    """
    from fltestbed.bench.faults.matrix import choose_cells  # noqa: PLC0415
    from fltestbed.bench.faults.measure import measure  # noqa: PLC0415

    chosen = choose_cells([word for word in cells.split(",") if word])
    ensure_privilege()
    finish(measure(chosen, at_once), json)
