"""All checks of a server's host, and of a client's."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fltestbed.check.arrival import check_arrival
from fltestbed.check.baseline import Baseline, check_baseline, measure_baseline
from fltestbed.check.finding import Finding, Report, Said, error, warning
from fltestbed.check.machine import check_machine
from fltestbed.check.network import check_interface, check_path_mtu, check_route
from fltestbed.check.radio import check_modem, check_wifi
from fltestbed.check.software import check_software
from fltestbed.client.introduction import Introduction
from fltestbed.client.path import ServerPath, host_of
from fltestbed.client.pin import remove_abandoned
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.config import Experiment
from fltestbed.errors import TestbedError
from fltestbed.measure.host import describe_host, package_versions
from fltestbed.measure.probes.tools import Toolbox

TIMEOUT_S = 2.0
TOOL_LIMIT_S = 5.0
BASELINE_LIMIT_S = 30.0


def check_server(experiment: Experiment, name: str, runs: Path, clock: Clock = SYSTEM_CLOCK) -> Report:
    """Whether `fltestbed server` could start on this host."""
    from fltestbed.check.server import (  # noqa: PLC0415  # not on a Pi
        check_admission,
        check_gnb_log,
        check_port,
        check_run_folder,
    )

    tools = Toolbox(threading.Lock(), TOOL_LIMIT_S)
    host = describe_host(clock)

    def look() -> Iterator[Said]:
        yield from check_software()
        yield from check_machine(host, runs, tools)
        for interface, facts in host["interfaces"].items():
            if interface != "lo" and facts["up"] and facts["addresses"]:
                yield from check_interface(interface, host["interfaces"])
        yield check_port(experiment)
        yield from check_admission(experiment, clock)
        yield check_run_folder(runs, name)
        if experiment.probes.gnb_log is not None:
            yield check_gnb_log(experiment.probes.gnb_log, clock)

    return Report.of("server", look(), package_versions())


@dataclass(frozen=True)
class ClientCheck:
    """Whether `fltestbed client` could take part, over each of its interfaces.

    Attributes
    ----------
    server : str
        HOST:PORT.
    interfaces : sequence of str
    name : str
        Of the client.
    state : Path
        Its state folder.
    ca, key : Path or None
        As for `fltestbed.client.session.Session`.
    pin_route : bool
        Whether a route that leaves elsewhere is pinned, as long as the check takes.
    baseline : bool
        Whether ping and iperf3 are measured, and kept in the state folder.
    timeout_s : float
        How long to go on trying when the server does not answer.
    """

    server: str
    interfaces: Sequence[str]
    name: str
    state: Path
    ca: Path | None = None
    key: Path | None = None
    pin_route: bool = False
    baseline: bool = False
    timeout_s: float = TIMEOUT_S
    clock: Clock = SYSTEM_CLOCK
    _tools: Toolbox = field(default_factory=lambda: Toolbox(threading.Lock(), TOOL_LIMIT_S))

    def run(self) -> Report:
        """Look at everything; one interface after the other."""
        host = describe_host(self.clock)
        baselines: dict[str, dict[str, Any]] = {}

        def look() -> Iterator[Said]:
            yield from check_software()
            yield from check_machine(host, self.state, self._tools)
            yield from _check_abandoned()
            for interface in self.interfaces:
                yield from self._look_at(interface, host["interfaces"], baselines)

        return Report.of("client", look(), package_versions(), baselines)

    def _look_at(
        self, interface: str, interfaces: dict[str, dict[str, Any]], baselines: dict[str, dict[str, Any]]
    ) -> Iterator[Said]:
        findings = list(check_interface(interface, interfaces))
        yield from findings
        if interface in interfaces:
            yield from check_wifi(interface)
            yield from check_modem(interface, self._tools)
        if any(isinstance(each, Finding) and each.status == "error" for each in findings):
            return
        try:
            with ExitStack() as stack:
                path = stack.enter_context(ServerPath(self.server, interface, self.pin_route))
                yield check_route(path.routes, interface, self.pin_route)
                yield from self._meet(path, interfaces[interface], baselines)
        except TestbedError as problem:
            yield error(f"route by {interface}", str(problem))

    def _meet(self, path: ServerPath, facts: dict[str, Any], baselines: dict[str, dict[str, Any]]) -> Iterator[Said]:
        address = path.routes[0].address
        yield check_path_mtu(address, path.interface, int(facts["mtu"]), self._tools)
        hello: dict[str, Any] = {}
        try:
            introduction = Introduction(self.server, self.name, self.state, path, self.clock, self.ca, self.key)
        except TestbedError as problem:
            yield error("key", str(problem))
        else:
            try:
                hello = yield from check_arrival(path.interface, introduction, self.timeout_s)
            finally:
                introduction.close()
        if self.baseline:
            congestion_control = str(hello.get("congestion_control", ""))
            said, found = check_baseline(
                lambda: self._measure(address, path.interface, congestion_control), path.interface, self._host
            )
            yield from said
            if found is not None:
                found.keep(self.state)
                baselines[path.interface] = found.describe()

    def _measure(self, address: str, interface: str, congestion_control: str) -> Baseline:
        tools = Toolbox(threading.Lock(), BASELINE_LIMIT_S)
        return measure_baseline(self._host, address, interface, tools, self.clock, congestion_control)

    @property
    def _host(self) -> str:
        return host_of(self.server)


def _check_abandoned() -> Iterator[Said]:
    try:
        for address in remove_abandoned():
            yield warning("pinned routes", f"a client that was killed had pinned the route to {address}", "it is free again")
    except TestbedError as problem:
        yield error("pinned routes", str(problem))
