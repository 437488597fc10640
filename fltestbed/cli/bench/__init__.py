"""`fltestbed bench`: the toolkit measured, each figure beside its bar."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NoReturn

import typer
from rich.console import Console

from fltestbed.cli.lazy import LazyGroup
from fltestbed.errors import ConfigError

if TYPE_CHECKING:
    from fltestbed.bench.models import Size
    from fltestbed.bench.report import Report

JsonFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report to FILE as JSON, too.")]
Backend = Annotated[str, typer.Option(help="How links are emulated: auto, netem, wirefilter or tbf.")]


class Benchmarks(LazyGroup):
    """The benchmarks."""

    package = "fltestbed.cli.bench"
    listed: ClassVar = {
        "round": "A round's time, beside what else moves the same model.",
        "scale": "How a round's time and the server's memory grow with the number of clients.",
        "memory": "What a client takes on its host.",
        "instrumentation": "What measuring costs, as the ratio of round times with and without it.",
        "disk": "What a slow disk costs a round, as the ratio of round times on a slow and a fast one.",
        "accuracy": "Stamps and clocks, against packets and known clocks.",
        "analysis": "Time and memory of analysing a million phases.",
        "fuzz": "What server and client read from the network, under made-up bytes.",
        "faults": "Real runs that are struck: what was lost, who is named, what is left.",
        "soak": "A thousand rounds: memory, open files and threads of each process.",
    }


bench = typer.Typer(cls=Benchmarks, name="bench", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@bench.callback()
def about() -> None:
    """Measure the toolkit itself; each figure is printed beside its bar, and the status is 1 when one is missed.

    Example: fltestbed bench round --links loopback,5g --contenders bundle,grpc,raw --json round.json
    """


def finish(report: "Report", json: Path | None, *, width: int = 120) -> NoReturn:
    """Print a report, write it, and end with the status that its bars give."""
    report.render(Console(width=None if Console().is_terminal else width))
    if json is not None:
        report.write(json)
    raise typer.Exit(0 if report.holds else 1)


def choose(option: str, value: str, allowed: Collection[str]) -> list[str]:
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


def choose_size(size: str) -> "Size":
    """The model of a name.

    Raises
    ------
    ConfigError
        There is none.
    """
    from fltestbed.bench.models import SIZES

    if size not in SIZES:
        raise ConfigError(f"--size {size}: is not known; choose of {', '.join(SIZES)}")
    return SIZES[size]


def choose_links(links: str, *others: str) -> list[str]:
    """The links of a list with commas: shipped profiles, TOML files, or one of `others`.

    Raises
    ------
    ConfigError
        A profile is missing or unusable, or there is none.
    """
    from fltestbed.links import load_link

    names = [link for link in links.split(",") if link]
    for name in names:
        if name not in others:
            load_link(name)
    if not names:
        raise ConfigError(f"--links: is empty; give {', '.join((*others, 'a shipped profile or a TOML file'))}")
    return names
