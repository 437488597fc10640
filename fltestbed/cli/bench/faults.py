"""`fltestbed bench faults`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import JsonFile, finish
from fltestbed.errors import ConfigError
from fltestbed.links import ensure_privilege


def faults(
    json: JsonFile = None,
    cells: Annotated[
        str, typer.Option(help="Faults, phases or cells (client-killed/train), with commas; all if left out.")
    ] = "",
    at_once: Annotated[int, typer.Option(min=1, max=16, help="Cells that run at the same time.")] = 2,
    transport: Annotated[str, typer.Option(help="How models move in the matrix: bundle or objects.")] = "bundle",
    tls: Annotated[bool, typer.Option("--tls", help="Let server and clients of the matrix speak TLS.")] = False,
    random: Annotated[
        int | None, typer.Option(min=1, help="In place of the matrix: so many random faults against one long run.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is drawn at random depends on it alone.")] = 1,
) -> None:
    """Strike real runs, each fault in each phase of a round, and check what has to hold of them.

    Example: fltestbed bench faults --cells client-killed,server-killed/train --json faults.json

    Example: fltestbed bench faults --transport objects --tls

    Example: fltestbed bench faults --random 100 --seed 1
    """
    from fltestbed.bench.faults.matrix import TRANSPORTS, Channel, choose_cells

    chosen = choose_cells([word for word in cells.split(",") if word])
    if random is not None and cells:
        raise ConfigError(f"--cells {cells}: cells are of the matrix; leave them out with --random")
    if random is not None and (transport != "bundle" or tls):
        raise ConfigError("--transport, --tls: are of the matrix; leave them out with --random")
    if transport not in TRANSPORTS:
        raise ConfigError(f"--transport {transport}: is not known; choose {' or '.join(TRANSPORTS)}")
    ensure_privilege()
    if random is not None:
        from fltestbed.bench.faults.random_faults import run_apart
        from fltestbed.bench.faults.random_report import ABOUT, RandomReport, judge

        outcome = run_apart(random, seed)
        finish(RandomReport(about=ABOUT, seed=seed, outcome=outcome, bars=judge(random, outcome)), json)

    from fltestbed.bench.faults.measure import measure

    finish(measure(chosen, at_once, Channel(transport, tls)), json)
