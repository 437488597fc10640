"""`fltestbed client`."""

import os
import re
import socket
from pathlib import Path
from typing import Annotated

import typer

from fltestbed.collector import importing
from fltestbed.config_file import check_name
from fltestbed.errors import ConfigError


def client(
    server: Annotated[str, typer.Option(help="The server's address, HOST:PORT.")],
    interface: Annotated[str, typer.Option(help="The interface that all traffic with the server uses.")],
    link: Annotated[str, typer.Option(help="Name of the link in the results, for example 5g.")],
    partition: Annotated[int, typer.Option(min=0, help="Which part of the data is this client's, from 0.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the client in the results; this host's name if left out.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="Folder that keeps the client's key between runs.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="The testbed's CA certificate (ca.crt of `fltestbed certs`): speak TLS with the server."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The client's private key; if left out, one of its own in the folder of --state.")
    ] = None,
    clock_interface: Annotated[
        str | None, typer.Option(help="A second, quiet network: clock exchanges are made there as well.")
    ] = None,
    clock_server: Annotated[
        str | None, typer.Option(help="The server's address there, HOST:PORT; --server if left out.")
    ] = None,
    pin_route: Annotated[
        bool,
        typer.Option("--pin-route", help="If the route to the server leaves elsewhere, pin it to --interface for the run."),
    ] = False,
    trust_apps: Annotated[bool, typer.Option("--trust-apps", help="Run code that the server sends.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to go on trying when the server does not answer.")] = 60.0,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a server that has answered and goes away, to be resumed.")
    ] = 3600.0,
) -> None:
    """Take part in one run of a server: join, train when told to, send, leave when it is over.

    Example: fltestbed client --server 10.0.0.1:9092 --interface wwan0 --link 5g --partition 0 --ca ca.crt
    """
    with importing():
        from fltestbed.client.session import Session  # Flower's client takes a moment to import

    check_address("--server", server)
    if clock_server is not None:
        check_address("--clock-server", clock_server)
        if clock_interface is None:
            raise ConfigError(f"--clock-server {clock_server}: give --clock-interface as well, over which it is reached")
    name = name or socket.gethostname()
    check_name("--name", name)
    check_name("--link", link)
    Session(
        server, interface, link, partition, name, state or default_state() / name, trust_apps, timeout, ca=ca, key=key,
        clock_interface=clock_interface, clock_server=clock_server, pin_route=pin_route, patience_s=patience,
    ).run()  # fmt: skip


def check_address(option: str, address: str) -> None:
    """Raise `ConfigError` for an address that is not HOST:PORT."""
    if not re.fullmatch(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\s]+):\d{1,5}", address):
        raise ConfigError(f"{option} {address}: not an address; give HOST:PORT, for example 10.0.0.1:9092")


def default_state() -> Path:
    """Where clients of this user keep what outlives a run, each below its name."""
    base = os.environ.get("XDG_STATE_HOME")
    return Path(base) / "fltestbed" if base else Path.home() / ".local" / "state" / "fltestbed"
