"""`fltestbed server`."""

from pathlib import Path
from typing import Annotated

import typer

from fltestbed.cli import ToldByParent
from fltestbed.collector import importing
from fltestbed.config import load_experiment
from fltestbed.config_file import check_name, find_config, read_json
from fltestbed.errors import ConfigError


def server(
    config: Annotated[Path, typer.Argument(help="The experiment: a TOML file, or a shipped name (demo, paper).")],
    name: Annotated[str | None, typer.Option(help="Name of the run; the experiment's own if it is left out.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder in which the run folder is made.")] = Path("runs"),
    app: Annotated[Path | None, typer.Option(help="Folder of a Flower app to run instead of the toolkit's own.")] = None,
    certificates: Annotated[
        Path | None, typer.Option(help="Folder of the server's certificate; server.certificates if left out.")
    ] = None,
    node_keys: Annotated[
        Path | None, typer.Option(help="Public keys of the clients that may join; server.node-keys if left out.")
    ] = None,
    metrics_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics there.")] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics; who reaches it reads them.")] = "127.0.0.1",
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run, whose server failed: its name below --runs, or its folder."),
    ] = None,
    resume_failed: Annotated[
        bool,
        typer.Option(
            "--resume-failed",
            help="Go on with the newest run of CONFIG below --runs if its server failed; else begin --name.",
        ),
    ] = False,
    join_timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds to wait for the clients; server.join-timeout-s if left out.")
    ] = None,
    emulation: Annotated[Path | None, typer.Option(hidden=True, help="Description of the emulated link.")] = None,
    campaign: Annotated[Path | None, typer.Option(hidden=True, help="What the manifest says of the campaign.")] = None,
) -> None:
    """Serve one run of an experiment: wait for the clients, train, write the run folder, end.

    Example: fltestbed server configs/paper.toml --name paper-5g

    After a crash: fltestbed server configs/paper.toml --resume paper-5g
    """
    if resume is not None and name is not None:
        raise ConfigError(f"--name {name}: a run that is resumed keeps its name; leave it out")
    if resume is not None and resume_failed:
        raise ConfigError(f"--resume {resume}: names the run to go on with; leave --resume-failed out")
    experiment = load_experiment(config).with_server(
        certificates=certificates, node_keys=node_keys, join_timeout_s=join_timeout
    )
    folder = runs / check_name("--name", name or experiment.name)
    if resume is not None:
        folder = runs / resume if (runs / resume).is_dir() else resume
    if resume_failed:
        from fltestbed.server.resume import find_broken_off  # reads checkpoints, by NumPy

        resume = find_broken_off(runs, experiment)
        folder = resume or folder
    link = read_json(emulation) if emulation is not None else None
    part_of = read_json(campaign) if campaign is not None else None
    given = find_config(config, ".").read_text()

    with importing():
        from fltestbed.server.session import Session  # Flower's server takes a second to import

    metrics = None if metrics_port is None else (metrics_host, metrics_port)
    try:
        Session(experiment, folder, app, link, given, part_of, metrics, is_resumed=resume is not None).run()
    except KeyboardInterrupt:
        if emulation is not None:
            raise ToldByParent from None
        raise
