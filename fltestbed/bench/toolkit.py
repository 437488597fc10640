"""The toolkit in a benchmark: `fltestbed server` and `fltestbed client`, as a person would start them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from fltestbed.bench.place import CONGESTION_CONTROL, Processes
from fltestbed.links import Host

PORT = 9092
START_ALLOWANCE_S = 120.0
"""For a server and its clients to start, and to end."""
NO_PROBES = dict.fromkeys(("system", "throttling", "time-sync", "wifi", "modem"), False)
"""The section [probes] where each client would start a process that reads this one host."""
RUN = "run"
"""Name of the run folder."""

_PROGRAM = (sys.executable, "-m", "fltestbed")


def start_server(
    processes: Processes, host: Host, folder: Path, settings: Mapping[str, Any], options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Start the process `server`, whose run folder is `run` in `folder`.

    Parameters
    ----------
    settings : mapping
        The experiment, as in its file, without its name and the server's port; it goes without TLS unless this says so.
    options : sequence of str
        Added to the command.
    environment : mapping
        Of the process and what it starts; None leaves it as it is.
    """
    config = folder / "bench.toml"
    server = {"port": PORT, "tls": False, **settings.get("server", {})}
    config.write_text(
        tomli_w.dumps({"name": "bench", "congestion-control": CONGESTION_CONTROL, **settings, "server": server})
    )
    argv = [*_PROGRAM, "server", str(config), "--name", RUN, "--runs", str(folder), *options]
    processes.start(host, "server", argv, environment)


def client_command(host: Host, server: Host, link: str, number: int, folder: Path) -> list[str]:
    """The command of a client, which keeps its state in `folder`; `number` is its partition."""
    return [
        *_PROGRAM, "client", "--server", f"{server.address}:{PORT}", "--interface", host.interface, "--link", link,
        "--partition", str(number), "--name", host.name, "--state", str(folder / host.name),
    ]  # fmt: skip
