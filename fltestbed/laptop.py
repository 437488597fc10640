"""The laptop testbed: the lab's own commands, each in a network namespace of an emulated network.

Nothing here measures. It starts `fltestbed server` and `fltestbed client` as a person in the lab would, waits, and makes
sure that nothing is left.
"""

import contextlib
import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fltestbed.children import Process, ToldByChild, end, server_arguments
from fltestbed.client.journal import JOURNALS, SUFFIX
from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config import Experiment
from fltestbed.errors import TestbedError
from fltestbed.interrupts import STATUS as INTERRUPTED_STATUS
from fltestbed.links import EmulatedNetwork, LinkProfile
from fltestbed.links.competing import CompetingTraffic, check_iperf3
from fltestbed.links.topology import QUIET_INTERFACE, Host
from fltestbed.measure.manifest import amend, read_manifest, refuse_existing
from fltestbed.scratch import scratch_folder
from fltestbed.security.folder import CertificateFolder

END_TIMEOUT_S = 4.0
POLL_S = 0.1

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Laptop:
    """One emulated testbed.

    Attributes
    ----------
    config : Path
        The experiment's file, which the server reads.
    experiment : Experiment
    profile : LinkProfile
    backend : str
        "auto", "netem", "wirefilter" or "tbf".
    campaign : Path or None
        JSON file that says of which campaign this run is a part, for the manifest.
    """

    config: Path
    experiment: Experiment
    profile: LinkProfile
    backend: str = "auto"
    campaign: Path | None = None

    def run(self, name: str, runs: Path, *, app: Path | None = None, supernodes: int = 0) -> Path:
        """Run the experiment once; returns the run folder.

        The last `supernodes` clients are stock flower-supernodes.

        Raises
        ------
        TestbedError
            The server or a client failed. What they said stands on the terminal and in the run's folder `logs`.
        """
        folder = runs / name
        refuse_existing(folder)
        flow = self.experiment.competing_flow
        if flow is not None:
            check_iperf3()
        network = EmulatedNetwork(
            self.profile,
            self.experiment.clients,
            backend=self.backend,
            congestion_control=self.experiment.congestion_control,
            competitor=flow is not None,
            second_network=self.experiment.clock.second_network,
            sysctls=self.experiment.connection.sysctls,
        )
        with scratch_folder("run") as scratch, network:
            logs = scratch / "logs"
            logs.mkdir()
            traffic = None if flow is None else CompetingTraffic(flow, network)
            try:
                with traffic or contextlib.nullcontext():
                    self._run(network, name, runs, scratch, app, supernodes)
            finally:
                if folder.is_dir():
                    _say_how_it_ended(folder)
                    _keep_journals(folder, scratch)
                    counters = {host.name: asdict(host.counters()) for host in network.clients}
                    _keep(folder, logs, {"interface_counters": counters} | _flow_entry(traffic))
            if traffic is not None and traffic.ended_early:
                reason = "the competing flow ended before the run did"
                amend(folder, status="failed", reason=reason)
                raise TestbedError(f"{name}: {reason}")
        return folder

    def _run(
        self, network: EmulatedNetwork, name: str, runs: Path, scratch: Path, app: Path | None, supernodes: int
    ) -> None:
        emulation = scratch / "emulation.json"
        emulation.write_text(json.dumps({"name": self.profile.name, "emulated": True} | network.describe()))
        command = [*server_arguments(self.config, name, runs, app, self.campaign), "--emulation", str(emulation)]
        certificates = self._make_certificates(network, scratch)
        if certificates is not None:
            command += ["--certificates", str(certificates.path)]
            command += ["--node-keys", str(certificates.nodes)] if self.experiment.server.node_keys is not None else []
        with contextlib.ExitStack() as stack:
            started: list[Process] = []
            stack.callback(end, started, END_TIMEOUT_S)
            server = _start(started, network.server, command, None)
            clients = {}
            for number, host in enumerate(network.clients):
                output = stack.enter_context((scratch / "logs" / f"{host.name}.log").open("wb"))
                if number < len(network.clients) - supernodes:
                    argv = self._client(network, host, number, scratch, certificates, trust_apps=app is not None)
                    clients[host.name] = _start(started, host, argv, output)
                else:
                    clients[host.name] = self._supernode(started, network, host, number, scratch, certificates, output)
            network.start_trace()
            _watch(server, clients, scratch / "logs")

    def _make_certificates(self, network: EmulatedNetwork, scratch: Path) -> CertificateFolder | None:
        """Certificates and keys of this run alone, where TLS or node authentication is asked for."""
        if not self.experiment.server.tls and self.experiment.server.node_keys is None:
            return None
        certificates = CertificateFolder(scratch / "certs", SYSTEM_CLOCK)
        addresses = [address for address in (network.server.address, network.quiet_server) if address is not None]
        certificates.make(tuple(addresses), tuple(host.name for host in network.clients), found=())
        return certificates

    def _client(
        self,
        network: EmulatedNetwork,
        host: Host,
        number: int,
        scratch: Path,
        certificates: CertificateFolder | None,
        *,
        trust_apps: bool,
    ) -> list[str]:
        argv = [
            "client", "--server", f"{network.server.address}:{self.experiment.server.port}",
            "--interface", host.interface, "--link", self.profile.name, "--partition", str(number),
            "--name", host.name, "--state", str(scratch / host.name),
        ]  # fmt: skip
        if certificates is not None:
            argv += ["--ca", str(certificates.ca_certificate)] if self.experiment.server.tls else []
            argv += ["--key", str(certificates.node_key(host.name))]
        if network.quiet_server is not None:
            quiet = f"{network.quiet_server}:{self.experiment.server.port}"
            argv += ["--clock-interface", QUIET_INTERFACE, "--clock-server", quiet]
        return [*argv, "--trust-apps"] if trust_apps else argv

    def _supernode(
        self,
        started: list[Process],
        network: EmulatedNetwork,
        host: Host,
        number: int,
        scratch: Path,
        certificates: CertificateFolder | None,
        log: IO[bytes],
    ) -> Process:
        from fltestbed.flower.supernode import supernode_command, supernode_environment  # noqa: PLC0415  # Flower, for SuperNodes

        address = f"{network.server.address}:{self.experiment.server.port}"
        ca = certificates.ca_certificate if certificates is not None and self.experiment.server.tls else None
        key = certificates.node_key(host.name) if certificates is not None and ca is not None else None
        argv = supernode_command(address, number, self.experiment.clients, ca, key)
        home = scratch / f"{host.name}-flwr"
        home.mkdir()
        process = host.popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=supernode_environment(home))
        started.append(process)
        return process


def _flow_entry(traffic: CompetingTraffic | None) -> dict[str, Any]:
    return {} if traffic is None else {"competing_flow": traffic.facts}


def _say_how_it_ended(folder: Path) -> None:
    """A server that was killed has left its manifest as it was."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if read_manifest(folder)["status"] == "running":
            amend(folder, status="failed", reason="the server was killed")


def _keep_journals(folder: Path, scratch: Path) -> None:
    """Keep the clients' own copies of a run that did not end well: the folders of their state go with the network."""
    try:
        if read_manifest(folder)["status"] != "complete":
            for journal in scratch.glob(f"*/runs/*{SUFFIX}"):
                target = folder / JOURNALS / journal.parent.parent.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(journal, target)
    except (OSError, ValueError, KeyError):
        log.warning("%s: the clients' own copies could not be kept there; make room before the next run", folder)


def _keep(folder: Path, logs: Path, entries: dict[str, Any]) -> None:
    """Add the logs, and what is known only now to the manifest, to the run folder, if there is room."""
    try:
        shutil.copytree(logs, folder / "logs", dirs_exist_ok=True)
        amend(folder, **entries)
    except (OSError, shutil.Error):
        log.warning("%s: logs and counters of the interfaces could not be kept there; make room before the next run", folder)


def _start(started: list[Process], host: Host, arguments: Sequence[str], log: IO[bytes] | None) -> Process:
    """Start one of the toolkit's own commands on an emulated host."""
    process = host.popen([sys.executable, "-m", "fltestbed", *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    started.append(process)
    return process


def _watch(server: Process, clients: dict[str, Process], logs: Path) -> None:
    """Wait for the server's end. A client that fails before ends the run only if none is left."""
    told: set[str] = set()
    while server.poll() is None:
        for name, process in clients.items():
            if process.poll() not in (None, 0) and name not in told:
                told.add(name)
                log.warning("%s ended with status %s: %s", name, process.returncode, _last_line(logs / f"{name}.log"))
        if len(told) == len(clients):
            end([server], END_TIMEOUT_S)
            raise TestbedError(f"no client is left; the last one said: {_last_line(logs / f'{name}.log')}")
        time.sleep(POLL_S)
    if server.returncode == INTERRUPTED_STATUS:
        raise KeyboardInterrupt
    if server.returncode < 0:
        raise TestbedError(f"the server was killed by {signal.Signals(-server.returncode).name}")
    if server.returncode != 0:
        raise ToldByChild(server.returncode)
    deadline = time.monotonic() + END_TIMEOUT_S
    for process in clients.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"
