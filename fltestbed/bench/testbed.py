"""One run of the real server and clients over an emulated link, with a packet capture at each end.

Real commands, real trainers, no training: the app of `fltestbed.bench.noise`, which answers with fresh random weights.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fltestbed.bench.capture import HttpMessage, WallClock, capturing, read_messages
from fltestbed.bench.models import Size
from fltestbed.bench.noise import write_app
from fltestbed.bench.place import Processes
from fltestbed.bench.toolkit import PORT, RUN, START_ALLOWANCE_S, client_command, start_server
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.links import EmulatedNetwork
from fltestbed.security.folder import CertificateFolder

ROUND_ALLOWANCE_S = 20.0
SLOWEST_BYTES_PER_S = 300_000.0


@dataclass(frozen=True)
class Oddity:
    """What is odd about one client's host.

    Attributes
    ----------
    prefix : sequence of str
        Put before the client's command.
    environment : dict
        Added to its environment.
    options : sequence of str
        Added to its command.
    """

    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Witnessed:
    """A run and what the captures saw of it.

    Attributes
    ----------
    folder : Path
        The run folder.
    at_server : list of HttpMessage
        Of all clients, in the order of their first packets.
    at_client : dict of str to list of HttpMessage
        By the client's name.
    addresses : dict of str to str
        Each client's address on the link, by its name.
    bound_ns : int
        By how much the packets' stamps can be wrong on the raw clock.
    """

    folder: Path
    at_server: list[HttpMessage]
    at_client: dict[str, list[HttpMessage]]
    addresses: dict[str, str]
    bound_ns: int


def run(
    network: EmulatedNetwork,
    size: Size,
    rounds: int,
    folder: Path,
    *,
    pause_s: float = 0.0,
    oddities: Mapping[str, Oddity] | None = None,
    captured: bool = True,
    tls: bool = False,
    midway: Path | None = None,
) -> Witnessed:
    """Run the toolkit once on an emulated network.

    Parameters
    ----------
    network : EmulatedNetwork
        Entered; all its clients take part.
    size : Size
    rounds : int
    folder : Path
        Empty; gets the run folder, the logs and the captures.
    pause_s : float
        How long a client's app waits before it answers.
    oddities : mapping of str to Oddity
        By the client's name.
    captured : bool
        Whether packets are captured.
    tls : bool
        Whether clients and server speak TLS.
    midway : Path or None
        Is made when half of the rounds are over, with the raw clock of that moment as text.

    Raises
    ------
    TestbedError
        The run failed; the message says what the process that failed said last.
    """
    oddities = oddities or {}
    app = write_app(
        folder / "app", size=size.name, rounds=rounds, stamps=folder / "stamps.json", clients=len(network.clients),
        pause_s=pause_s,
    )  # fmt: skip
    timeout_s = START_ALLOWANCE_S + rounds * (
        ROUND_ALLOWANCE_S + pause_s + 2 * size.model_bytes * len(network.clients) / SLOWEST_BYTES_PER_S
    )
    settings = {
        "rounds": rounds, "clients": len(network.clients), "server": {"tls": tls, "round-deadline-s": timeout_s},
    }  # fmt: skip
    certificates = CertificateFolder(folder / "certs", SYSTEM_CLOCK)
    if tls:
        certificates.make((network.server.address,), found=())
    ca = ("--ca", str(certificates.ca_certificate)) if tls else ()
    options = ["--app", str(app), *(("--certificates", str(certificates.path)) if tls else ())]
    logs = folder / "logs"
    logs.mkdir()
    processes = Processes(logs)
    files = {host.name: folder / f"{host.name}.pcap" for host in (network.server, *network.clients)}
    with ExitStack() as stack:
        wall = stack.enter_context(WallClock(SYSTEM_CLOCK))
        if captured:
            for host in (network.server, *network.clients):
                stack.enter_context(capturing(host, host.interface, PORT, files[host.name]))
        start_server(processes, network.server, folder, settings, options)
        for number, host in enumerate(network.clients):
            oddity = oddities.get(host.name, Oddity())
            command = client_command(host, network.server, network.profile.name, number, folder)
            argv = [*oddity.prefix, *command, "--trust-apps", *oddity.options, *ca]
            processes.start(host, host.name, argv, {**os.environ, **oddity.environment} if oddity.environment else None)
        network.start_trace()
        if midway is not None:
            half_over = f"round {rounds // 2}/{rounds},"
            processes.wait_until(lambda: half_over in (logs / "server.log").read_text(errors="replace"), timeout_s)
            unfinished = midway.with_suffix(".unfinished")
            unfinished.write_text(str(SYSTEM_CLOCK.raw_ns()))
            unfinished.rename(midway)
        processes.wait(["server", *(host.name for host in network.clients)], timeout_s, told="server")
    seen = {name: read_messages(file, wall) for name, file in files.items()} if captured else {}
    for file in files.values():
        file.unlink(missing_ok=True)  # hundreds of megabytes
    return Witnessed(
        folder / RUN,
        seen.pop(network.server.name, []),
        seen,
        {host.name: host.address for host in network.clients},
        wall.bound_ns,
    )
