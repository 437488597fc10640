"""`fltestbed run`."""

from pathlib import Path
from typing import Annotated

import typer

from fltestbed.cli import ToldByParent
from fltestbed.config import load_experiment
from fltestbed.config_file import check_name
from fltestbed.errors import ConfigError
from fltestbed.links import ensure_privilege, load_link


def run(
    config: Annotated[Path, typer.Argument(help="The experiment: a TOML file, or a shipped name (demo, paper).")],
    link: Annotated[
        str | None, typer.Option(help="Link profile: 5g, wifi, ethernet or a TOML file; the experiment's own if left out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; EXPERIMENT-LINK if it is left out.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder in which the run folder is made.")] = Path("runs"),
    app: Annotated[Path | None, typer.Option(help="Folder of a Flower app to run instead of the toolkit's own.")] = None,
    backend: Annotated[str, typer.Option(help="How the link is emulated: auto, netem, wirefilter or tbf.")] = "auto",
    supernodes: Annotated[int, typer.Option(min=0, help="So many of the clients are stock flower-supernodes.")] = 0,
    inventory: Annotated[
        Path | None, typer.Option(help="Ansible inventory of real hosts: clients run there, over its link of that name.")
    ] = None,
    campaign: Annotated[Path | None, typer.Option(hidden=True, help="What the manifest says of the campaign.")] = None,
) -> None:
    """Run server and clients on this machine, each in a network namespace, over an emulated link; or clients on real hosts.

    Example: fltestbed run demo --link wifi

    Example: fltestbed run paper --link 5g --inventory deploy/ansible/lab.yml
    """
    if inventory is not None:
        if supernodes or backend != "auto":
            raise ConfigError("--supernodes and --backend are for emulated links; leave them out with --inventory")
        print(f"run folder: {_on_real_hosts(config, link, name, runs, app, inventory, campaign)}")
        return

    from fltestbed.laptop import Laptop  # only now is it known that this process may make namespaces

    ensure_privilege()
    experiment = load_experiment(config)
    profile = load_link(link or experiment.link)
    if supernodes > experiment.clients:
        raise ConfigError(
            f"--supernodes {supernodes}: {experiment.name} has {experiment.clients} clients in all; give at most so many"
        )
    if supernodes and not experiment.compression.is_off:
        raise ConfigError(
            f"--supernodes {supernodes}: a stock SuperNode does not understand compressed tensors "
            f"(compression: {experiment.compression.summary}); drop [compression], or the SuperNodes"
        )
    name = check_name("--name", name or f"{experiment.name}-{profile.name}")
    try:
        folder = Laptop(config, experiment, profile, backend, campaign).run(name, runs, app=app, supernodes=supernodes)
    except KeyboardInterrupt:
        if campaign is not None:
            raise ToldByParent from None
        raise
    print(f"run folder: {folder}")


def _on_real_hosts(
    config: Path, link: str | None, name: str | None, runs: Path, app: Path | None, inventory: Path, campaign: Path | None
) -> Path:
    from fltestbed.lab.inventory import load_inventory  # for real hosts alone
    from fltestbed.lab.remote import Remote
    from fltestbed.lab.run import LabRun

    experiment = load_experiment(config)
    link = link or experiment.link
    name = check_name("--name", name or f"{experiment.name}-{link}")
    lab = LabRun(config, experiment, load_inventory(inventory), link, Remote(inventory), campaign)
    return lab.run(name, runs, app=app)
