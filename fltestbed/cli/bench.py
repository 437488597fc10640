"""`fltestbed bench`."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer
from rich.console import Console

from fltestbed.errors import ConfigError
from fltestbed.links import ensure_privilege

if TYPE_CHECKING:
    from fltestbed.bench.results import Findings

F = TypeVar("F", bound="Findings")

SCALE_ROUNDS = 4
MOST_CLIENTS = 250
BENCHMARKS = ("round", "accuracy", "scale", "memory", "analysis")


def bench(
    name: Annotated[str, typer.Argument(help="What to measure: round, accuracy, scale, memory or analysis.")],
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report to FILE as JSON, too.")] = None,
    links: Annotated[
        str | None,
        typer.Option(help="Links, with commas: loopback (round alone), 5g, wifi, ethernet, or TOML files; all if left out."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Models, with commas: mini (50 kB), small (2.9 MB), large (45 MB), tiny; or all: small and large. round "
            "takes small if it is left out, accuracy mini, small and large."
        ),
    ] = None,
    transfers: Annotated[
        int | None, typer.Option(min=1, help="accuracy: transfers each way; 100 if left out, 30 of the large model.")
    ] = None,
    parts: Annotated[
        str, typer.Option(help="accuracy: what to judge, with commas: stamps, clocks, second-network.")
    ] = "stamps,clocks,second-network",
    contenders: Annotated[
        str, typer.Option(help="Who takes part, with commas, of bundle, grpc, raw, objects and stock; bundle always does.")
    ] = "bundle,grpc,raw,objects,stock",
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Counted rounds of a start; a default for each model, 4 for scale.")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each contender is started, in turns.")] = 3,
    backend: Annotated[str, typer.Option(help="How links are emulated: auto, netem, wirefilter or tbf.")] = "auto",
    clients: Annotated[str, typer.Option(help="Of scale: numbers of clients, with commas, ascending.")] = "10,30,100",
) -> None:
    """Measure the toolkit itself; each figure is printed beside its bar, and the status is 1 when one is missed.

    round: a round's time, beside what else moves the same model. scale: how time and the server's memory grow with the
    number of clients. memory: what a client takes on its host. The options are those of round, unless they say otherwise.

    Example: fltestbed bench round --links loopback,5g --contenders bundle,grpc,raw --json round.json
    """
    from fltestbed.bench.contenders import CONTENDERS  # noqa: PLC0415  # Flower takes a second to import
    from fltestbed.bench.models import SIZES  # noqa: PLC0415
    from fltestbed.bench.place import LOOPBACK  # noqa: PLC0415
    from fltestbed.bench.round import Plan, measure  # noqa: PLC0415
    from fltestbed.bench.table import render  # noqa: PLC0415
    from fltestbed.links import load_link  # noqa: PLC0415

    _choose("NAME", name, BENCHMARKS)
    if name == "scale":
        _scale(clients, sizes or "small", rounds, json)
    if name == "memory":
        _memory(json)
    if name == "analysis":
        _bench_analysis(json)
    if name == "accuracy":
        _bench_accuracy(json, links, sizes, transfers, parts, backend)
    links, sizes = links or "loopback,5g,wifi,ethernet", sizes or "small"
    chosen_sizes = ["small", "large"] if sizes == "all" else _choose("--sizes", sizes, SIZES)
    chosen_contenders = {"bundle", *_choose("--contenders", contenders, CONTENDERS)}
    chosen_links = [link for link in links.split(",") if link]
    for link in chosen_links:
        if link != LOOPBACK:
            load_link(link)
    if not chosen_links:
        raise ConfigError("--links: is empty; give loopback, a shipped profile or a TOML file")
    ensure_privilege()
    plan = Plan(
        chosen_links, [SIZES[size] for size in chosen_sizes], sorted(chosen_contenders), repetitions, rounds, backend
    )
    _finish(measure(plan), render, json)


def _scale(clients: str, sizes: str, rounds: int | None, json: Path | None) -> NoReturn:
    from fltestbed.bench.models import SIZES  # noqa: PLC0415
    from fltestbed.bench.scale import Plan, measure  # noqa: PLC0415
    from fltestbed.bench.scale_report import render  # noqa: PLC0415

    numbers = [int(word) for word in clients.split(",") if word.isdecimal()]
    if not numbers or numbers != sorted(set(numbers)) or not 1 <= numbers[0] <= numbers[-1] <= MOST_CLIENTS:
        raise ConfigError(f"--clients {clients}: give numbers from 1 to {MOST_CLIENTS}, ascending, with commas")
    size, *others = _choose("--sizes", sizes, SIZES)
    if others:
        raise ConfigError(f"--sizes {sizes}: scale takes one size")
    ensure_privilege()
    _finish(measure(Plan(numbers, SIZES[size], rounds or SCALE_ROUNDS)), render, json)


def _memory(json: Path | None) -> NoReturn:
    from fltestbed.bench.memory import measure, render  # noqa: PLC0415

    ensure_privilege()
    _finish(measure(), render, json)


def _finish(report: F, render: Callable[[F, Console], None], json: Path | None) -> NoReturn:
    """Print a report, write it, and end with the status that its bars give."""
    from fltestbed.bench.results import write_json  # noqa: PLC0415

    render(report, Console(width=None if Console().is_terminal else 120))
    if json is not None:
        write_json(report, json)
    raise typer.Exit(0 if report.holds else 1)


def _bench_analysis(json: Path | None) -> NoReturn:
    from fltestbed.bench import analysis  # noqa: PLC0415  # pandas takes half a second to import

    figures = analysis.measure()
    analysis.render(figures, Console(width=None if Console().is_terminal else 120))
    if json is not None:
        analysis.write_json(figures, json)
    raise typer.Exit(0 if all(bar.holds for bar in figures.bars) else 1)


def _bench_accuracy(
    json: Path | None, links: str | None, sizes: str | None, transfers: int | None, parts: str, backend: str
) -> NoReturn:
    try:
        from fltestbed.bench import accuracy  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(f"bench accuracy needs {error.name}: pip install 'fltestbed[dev]'") from error
    from fltestbed.bench import accuracy_report  # noqa: PLC0415
    from fltestbed.bench.models import SIZES  # noqa: PLC0415
    from fltestbed.links import load_link  # noqa: PLC0415

    chosen_parts = _choose("--parts", parts, accuracy.PARTS)
    chosen_sizes = _choose("--sizes", sizes or "mini,small,large", SIZES)
    chosen_links = [link for link in (links or "5g,wifi,ethernet").split(",") if link]
    for link in chosen_links:
        load_link(link)
    ensure_privilege()
    plan = accuracy.Plan(chosen_links, [SIZES[size] for size in chosen_sizes], transfers, chosen_parts, backend)
    _finish(accuracy.measure(plan), accuracy_report.render, json)


def _choose(option: str, value: str, allowed: Collection[str]) -> list[str]:
    """The names of a list with commas.

    Raises
    ------
    ConfigError
        One of them is not allowed, or there is none.
    """
    names = [name for name in value.split(",") if name]
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        raise ConfigError(
            f"{option} {value}: {', '.join(unknown) or 'nothing'} is not known; choose of {', '.join(allowed)}"
        )
    return names
