"""A stock `flower-supernode`, as Flower ships it, told to join the toolkit's server."""

import os
import sys
from pathlib import Path


def supernode_command(
    server: str, partition: int, partitions: int, ca: Path | None = None, key: Path | None = None
) -> list[str]:
    """The command line of a stock SuperNode that joins `server` (host:port) with a partition of the data.

    With `ca` it speaks TLS and believes servers of this CA; with `key`, a private key in OpenSSH's format, it proves that it
    is the node that the server has on its list.
    """
    return [
        str(Path(sys.executable).parent / "flower-supernode"), "--superlink", server,
        *(["--insecure"] if ca is None else ["--root-certificates", str(ca)]),
        *(["--auth-supernode-private-key", str(key)] if key is not None else []),
        "--node-config", f"partition-id={partition} num-partitions={partitions}",
    ]  # fmt: skip


def supernode_environment(home: Path) -> dict[str, str]:
    """Its environment: a Flower home of its own, no telemetry, and the programs of this Python first in the path."""
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
