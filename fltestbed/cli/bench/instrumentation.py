"""`fltestbed bench instrumentation`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import Backend, JsonFile, choose_links, choose_size, finish
from fltestbed.links import ensure_privilege


def instrumentation(
    json: JsonFile = None,
    links: Annotated[
        str, typer.Option(help="Links, with commas: loopback, 5g, wifi, ethernet, or TOML files.")
    ] = "loopback,5g,wifi,ethernet",
    size: Annotated[str, typer.Option(help="The model: mini (50 kB), tiny, small (2.9 MB) or large (45 MB).")] = "small",
    pairs: Annotated[int, typer.Option(min=2, help="Give up after so many pairs of blocks of rounds.")] = 60,
    backend: Backend = "auto",
) -> None:
    """Measure what measuring costs: one run goes to and fro between rounds with and without instrumentation.

    Example: fltestbed bench instrumentation --links ethernet --json instrumentation.json
    """
    from fltestbed.bench.blocks import Plan  # Flower takes a second to import
    from fltestbed.bench.instrumentation import measure
    from fltestbed.bench.place import LOOPBACK

    chosen_size = choose_size(size)
    chosen_links = choose_links(links, LOOPBACK)
    ensure_privilege()
    finish(measure(Plan(chosen_links, chosen_size, most_pairs=pairs, backend=backend)), json)
