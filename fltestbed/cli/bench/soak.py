"""`fltestbed bench soak`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import JsonFile, finish
from fltestbed.links import ensure_privilege


def soak(
    json: JsonFile = None,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of the run.")] = 1000,
    clients: Annotated[int, typer.Option(min=1, max=250, help="Light clients, all in one process.")] = 10,
) -> None:
    """Run a thousand rounds of a tiny model: memory, open files and threads of each process level off.

    Example: fltestbed bench soak --rounds 1000 --clients 10 --json soak.json
    """
    from fltestbed.bench.soak import measure

    ensure_privilege()
    finish(measure(rounds, clients), json)
