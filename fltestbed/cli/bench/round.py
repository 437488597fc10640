"""`fltestbed bench round`."""

from typing import Annotated

import typer

from fltestbed.cli.bench import Backend, JsonFile, choose, choose_links, finish
from fltestbed.links import ensure_privilege


def round(  # noqa: A001  # the command's name
    json: JsonFile = None,
    links: Annotated[
        str, typer.Option(help="Links, with commas: loopback, 5g, wifi, ethernet, or TOML files.")
    ] = "loopback,5g,wifi,ethernet",
    sizes: Annotated[
        str, typer.Option(help="Models, with commas: small (2.9 MB), large (45 MB), tiny; or all: small and large.")
    ] = "small",
    contenders: Annotated[
        str, typer.Option(help="Who takes part, with commas, of bundle, grpc, raw, objects and stock; bundle always does.")
    ] = "bundle,grpc,raw,objects,stock",
    rounds: Annotated[int | None, typer.Option(min=1, help="Counted rounds of a start; a default for each model.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each contender is started, in turns.")] = 3,
    backend: Backend = "auto",
) -> None:
    """Measure a round without training, beside what else moves the same model.

    Example: fltestbed bench round --links loopback,5g --contenders bundle,grpc,raw --json round.json
    """
    from fltestbed.bench.contenders import CONTENDERS  # Flower takes a second to import
    from fltestbed.bench.models import SIZES
    from fltestbed.bench.place import LOOPBACK
    from fltestbed.bench.round import Plan, measure

    chosen_sizes = ["small", "large"] if sizes == "all" else choose("--sizes", sizes, SIZES)
    chosen_contenders = {"bundle", *choose("--contenders", contenders, CONTENDERS)}
    chosen_links = choose_links(links, LOOPBACK)
    ensure_privilege()
    plan = Plan(
        chosen_links, [SIZES[size] for size in chosen_sizes], sorted(chosen_contenders), repetitions, rounds, backend
    )
    finish(measure(plan), json)
