"""`fltestbed certs`."""

from pathlib import Path
from typing import Annotated

import typer

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config_file import check_name


def certs(
    folder: Annotated[Path, typer.Argument(help="Folder of the certificates and keys.")] = Path("certs"),
    address: Annotated[
        list[str] | None,
        typer.Option(help="A name or address by which clients reach the server; this host's own are found. Repeatable."),
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="Name of a client that gets a key (its --name). Repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long a new server certificate is valid.")] = 365,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make the server's certificate again, with a new key and the old addresses too.")
    ] = False,
) -> None:
    """Make a testbed's CA, the server's certificate and the clients' keys; what is there is kept.

    Run it on the server. Each client gets ca.crt (--ca) and, where the server has a list of keys (server.node-keys =
    "certs/nodes"), its own key (--key). Run it again to add clients, and with --renew before the certificate ends.

    Example: fltestbed certs --address radio-host --address 10.0.0.1 --node pi-0 --node pi-1
    """
    from fltestbed.security.addresses import check_address  # cryptography takes a moment to import
    from fltestbed.security.folder import CertificateFolder

    addresses = tuple(check_address("--address", given) for given in address or ())
    nodes = tuple(check_name("--node", name) for name in node or ())
    for step in CertificateFolder(folder, SYSTEM_CLOCK).make(addresses, nodes, days=days, renew=renew):
        print(f"{step.done:<8}  {step.path}" + (f"  ({step.detail})" if step.detail else ""))
