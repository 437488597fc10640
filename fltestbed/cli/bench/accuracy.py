"""`fltestbed bench accuracy`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import Backend, JsonFile, choose, choose_links, finish
from fltestbed.errors import ConfigError
from fltestbed.links import ensure_privilege


def accuracy(
    json: JsonFile = None,
    links: Annotated[str, typer.Option(help="Links, with commas: 5g, wifi, ethernet, or TOML files.")] = "5g,wifi,ethernet",
    sizes: Annotated[
        str, typer.Option(help="Models, with commas: mini (50 kB), small (2.9 MB), large (45 MB).")
    ] = "mini,small,large",
    transfers: Annotated[
        int | None, typer.Option(min=1, help="Transfers each way; 100 if left out, 30 of the large model.")
    ] = None,
    parts: Annotated[
        str, typer.Option(help="What to judge, with commas: stamps, clocks, second-network.")
    ] = "stamps,clocks,second-network",
    backend: Backend = "auto",
    tls: Annotated[bool, typer.Option("--tls", help="Let the transfers go over TLS.")] = False,
) -> None:
    """Hold stamps against packets, and clock mappings against known clocks.

    Example: fltestbed bench accuracy --links 5g --sizes mini,small --transfers 10 --json accuracy.json
    """
    try:
        from fltestbed.bench.accuracy import PARTS, Plan, measure
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench accuracy needs {error.name}: pip install 'fltestbed[dev]'") from error
    from fltestbed.bench.models import SIZES

    chosen_parts = choose("--parts", parts, PARTS)
    chosen_sizes = [SIZES[size] for size in choose("--sizes", sizes, SIZES)]
    chosen_links = choose_links(links)
    ensure_privilege()
    finish(measure(Plan(chosen_links, chosen_sizes, transfers, chosen_parts, backend, tls)), json, width=160)
