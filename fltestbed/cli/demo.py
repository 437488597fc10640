"""`fltestbed demo`."""

import itertools
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fltestbed.config import load_experiment
from fltestbed.links import ensure_privilege, load_link

LINKS = ("5g", "wifi", "ethernet")


def demo(
    config: Annotated[Path, typer.Option(help="The experiment: a shipped name or a TOML file.")] = Path("demo"),
    runs: Annotated[Path, typer.Option(help="Folder in which the run folders are made.")] = Path("runs"),
    plots: Annotated[Path, typer.Option(help="Folder in which the folder of the figures is made.")] = Path("plots"),
    backend: Annotated[str, typer.Option(help="How the links are emulated: auto, netem, wirefilter or tbf.")] = "auto",
) -> None:
    """Run an experiment over an emulated 5G cell, a WiFi access point and switched Ethernet, and compare.

    The shipped one trains SqueezeNet on digits with four clients.

    Example: fltestbed demo --runs /data/runs
    """
    from fltestbed.laptop import Laptop  # only now is it known that this process may make namespaces

    ensure_privilege()
    start = time.monotonic()
    console = Console(highlight=False)
    experiment = load_experiment(config)
    profiles = [load_link(link) for link in LINKS]
    name = _free_name(experiment.name, runs)
    console.rule(
        f"{experiment.model.name} on {experiment.data.name}, {experiment.clients} clients, {experiment.rounds} rounds"
    )
    folders = []
    for number, profile in enumerate(profiles, 1):
        console.print(f"\n{number} of {len(profiles)}: {profile.summary}; starting server and clients", markup=False)
        folders.append(Laptop(config, experiment, profile, backend).run(f"{name}-{profile.name}", runs))
    console.rule("comparison")
    compare(folders, plots / name, console)
    console.print(f"\ndone in {time.monotonic() - start:.0f} s; look at", markup=False)
    for path in (*folders, plots / name / "captions.md"):
        console.print(f"  {path}", markup=False, soft_wrap=True)


def compare(folders: list[Path], out: Path, console: Console) -> None:
    """Print the table of the runs and draw their figures."""
    from analysis.derive import derive_folders  # pandas and matplotlib, after the runs
    from analysis.plots import plot_all
    from analysis.tables import summarise
    from analysis.terminal import render

    runs = derive_folders(folders)
    render(summarise(runs), console)
    console.print()
    for figure in plot_all(runs, out):
        for path in figure.paths:
            console.print(str(path), markup=False, soft_wrap=True)


def _free_name(name: str, runs: Path) -> str:
    """The experiment's name, or with -2, -3... after earlier runs: what was measured is never overwritten."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not any((runs / f"{name}-{link}").exists() for link in LINKS))
