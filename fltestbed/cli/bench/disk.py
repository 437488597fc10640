"""`fltestbed bench disk`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import Backend, JsonFile, choose_links, choose_size, finish
from fltestbed.links import ensure_privilege


def disk(
    json: JsonFile = None,
    links: Annotated[
        str, typer.Option(help="Links, with commas: loopback, 5g, wifi, ethernet, or TOML files.")
    ] = "ethernet",
    size: Annotated[str, typer.Option(help="The model: mini (50 kB), tiny, small (2.9 MB) or large (45 MB).")] = "small",
    pairs: Annotated[int, typer.Option(min=2, help="Give up after so many pairs of blocks of rounds.")] = 60,
    write_ms: Annotated[float, typer.Option(min=0, help="What a write takes on the slow disk.")] = 5.0,
    sync_ms: Annotated[float, typer.Option(min=0, help="What a sync, a rename or a removal takes there.")] = 50.0,
    rate_mb_s: Annotated[float, typer.Option(min=0.1, help="What it takes of the bytes that a sync brings to it.")] = 10.0,
    backend: Backend = "auto",
) -> None:
    """Measure what a slow disk (an SD card, NFS) costs a round: one run goes to and fro between a slow and a fast one.

    Example: fltestbed bench disk --sync-ms 100 --json disk.json
    """
    from fltestbed.bench.blocks import Plan
    from fltestbed.bench.disk import measure
    from fltestbed.bench.place import LOOPBACK
    from fltestbed.bench.slow_disk import DiskSpeed

    chosen_size = choose_size(size)
    chosen_links = choose_links(links, LOOPBACK)
    ensure_privilege()
    plan = Plan(chosen_links, chosen_size, most_pairs=pairs, backend=backend)
    finish(measure(plan, DiskSpeed(write_ms, sync_ms, rate_mb_s)), json)
