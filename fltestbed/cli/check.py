"""`fltestbed check`."""

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fltestbed.cli.client import check_address, default_state
from fltestbed.config import load_experiment
from fltestbed.config_file import check_name
from fltestbed.errors import ConfigError

if TYPE_CHECKING:
    from fltestbed.check.finding import Report

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def check(
    config: Annotated[
        Path | None,
        typer.Argument(help="On the server's host: the experiment, a TOML file or a shipped name (demo, paper)."),
    ] = None,
    server: Annotated[str | None, typer.Option(help="On a client's host: the server's address, HOST:PORT.")] = None,
    interface: Annotated[
        list[str] | None, typer.Option(help="On a client's host: an interface to reach it by; may be given several times.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the client (this host's if left out), or of the run.")] = None,
    state: Annotated[Path | None, typer.Option(help="The client's state folder, as for `fltestbed client`.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The testbed's CA certificate, as for `fltestbed client`.")] = None,
    key: Annotated[Path | None, typer.Option(help="The client's private key, as for `fltestbed client`.")] = None,
    pin_route: Annotated[
        bool, typer.Option("--pin-route", help="Pin the route to each interface while it is looked at, as the client will.")
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Measure ping and iperf3 over each interface and keep it for the next run; on the server: iperf3 -s.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to go on trying when the server does not answer.")] = 2.0,
    runs: Annotated[Path, typer.Option(help="On the server's host: the folder of the run folders.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Is this host ready for a run? Each line says ok, warning or error, and what to do.

    The status is 0 without errors, 1 with one. A client's host is compared with the server, which should be up.

    Example: fltestbed check configs/paper.toml

    On a Pi: fltestbed check --server 10.0.0.1:9092 --interface eth0 --interface wwan0 --ca ca.crt --baseline
    """
    report = _of_client(server, interface or [], name, state, ca, key, pin_route, baseline, timeout) if server else None
    if report is None:
        if config is None or interface:
            raise ConfigError("give CONFIG on the server's host, or --server HOST:PORT and --interface NAME on a client's")
        report = _of_server(config, name, runs)
    elif config is not None:
        raise ConfigError(f"{config}: give CONFIG on the server's host alone, without --server")
    if as_json:
        print(json.dumps(report.describe(), indent=2))
    else:
        render(report, Console())
    if not report.is_ready:
        raise typer.Exit(1)


def _of_client(
    server: str,
    interfaces: list[str],
    name: str | None,
    state: Path | None,
    ca: Path | None,
    key: Path | None,
    pin_route: bool,
    baseline: bool,
    timeout: float,
) -> "Report":
    from fltestbed.check.hosts import ClientCheck  # Flower's client takes a moment to import

    check_address("--server", server)
    if not interfaces:
        raise ConfigError(f"--server {server}: give --interface as well, by which it is reached")
    own = check_name("--name", name or socket.gethostname())
    checks = ClientCheck(server, interfaces, own, state or default_state() / own, ca, key, pin_route, baseline, timeout)
    return checks.run()


def _of_server(config: Path, name: str | None, runs: Path) -> "Report":
    from fltestbed.check.hosts import check_server  # Flower's server takes a second to import

    experiment = load_experiment(config)
    return check_server(experiment, check_name("--name", name or experiment.name), runs)


def render(report: "Report", console: Console) -> None:
    """Print the findings as a table, what to do below each, and how many there are."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("")
    table.add_column("found, and what to do", overflow="fold")
    for finding in report.findings:
        style = STYLES[finding.status]
        advice = f"\n[bold]→ {escape(finding.advice)}[/bold]" if finding.advice else ""
        table.add_row(escape(finding.check), f"[{style}]{finding.status}[/{style}]", escape(finding.said) + advice)
    console.print(table)
    for each in report.not_here:
        console.print(f"not looked at: {escape(each.check)}: {escape(each.reason)}", style="dim", soft_wrap=True)
    errors, warnings = report.count("error"), report.count("warning")
    verdict = "ready" if report.is_ready else "not ready"
    console.print(
        f"{verdict}: {errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}",
        style=STYLES["error"] if errors else STYLES["warning"] if warnings else STYLES["ok"],
    )
