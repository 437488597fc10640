"""A client on a host with three networks up runs over the one that it was told, by the real command line.

One session of a person in the lab: the client refuses a route that leaves elsewhere; one with --pin-route is killed; the
check of that host removes what it has left; a run goes over the pinned route.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from analysis.capacity import capacity_bps
from analysis.derive import derive
from analysis.load import load_run
from fltestbed.check.baseline import Baseline, Rate, RoundTrips, _boot_id
from fltestbed.links.privilege import may_make_namespaces
from tests.client.three_networks import ThreeNetworks, three_networks
from tests.e2e.conftest import left_over, marked, numpy_app, write_experiment
from tests.waiting import wait_until

COMPILER = shutil.which("cc")
SHIM = Path(__file__).with_name("wrong_clock.c")
SERVER, NOBODY = "10.0.0.1:9092", "10.0.0.1:9"
TWO_DAYS_S = 2 * 86400
INTERFACES = ("wifi0", "wwan0")
"""Of the clients pi-0 and pi-1, which are on one host."""
PARAMETERS = 727_624
PATIENCE_S = 60.0

pytestmark = [
    pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler for the shim that makes a clock wrong"),
]


@dataclass
class Told:
    """What each command said, and what the host looked like in between."""

    refused: tuple[int, str] = (0, "")
    routing: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] = field(default_factory=dict)
    check_status: int = -1
    clients: list[tuple[int, str]] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    folder: Path = Path()


class Desk:
    """Starts commands on either host."""

    def __init__(self, networks: ThreeNetworks, folder: Path) -> None:
        self.networks = networks
        self.folder = folder
        self.mark, self._environment = marked()

    def start(self, host: Any, *argv: object, **more: str) -> "subprocess.Popen[str]":
        """Start a command of the toolkit."""
        return host.popen(  # type: ignore[no-any-return]
            [sys.executable, "-m", "fltestbed", *map(str, argv)], env=self._environment | more, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def client(self, number: int, *options: object) -> "subprocess.Popen[str]":
        """Start a client over wifi0 or wwan0, to a server whose route leaves by eth0."""
        name = f"pi-{number}"
        return self.start(
            self.networks.pi, "client", "--server", SERVER, "--interface", INTERFACES[number], "--link", "wifi",
            "--partition", number, "--name", name, "--state", self.folder / name, "--trust-apps", *options,
        )  # fmt: skip


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a command; its status and what it said."""
    said = process.communicate(timeout=PATIENCE_S)[0]
    return process.returncode, said


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The session."""
    folder = tmp_path_factory.mktemp("path")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", folder / "wrong_clock.so", SHIM], check=True)
    result = Told(folder=folder)
    with three_networks() as networks:
        desk = Desk(networks, folder)
        result.routing["before"] = networks.routing()
        server = _start_server(desk)
        refused = desk.client(1, "--server", "10.0.1.1:9092")
        killed = desk.client(0, "--pin-route", "--server", NOBODY)  # it goes on trying
        wait_until(lambda: networks.routing() != result.routing["before"] or killed.poll() is not None)
        result.refused = end(refused)  # before the kill: whoever starts after it removes what is left
        killed.send_signal(signal.SIGKILL)
        end(killed)
        result.routing["killed"] = networks.routing()
        _run(desk, result, server)
        result.routing["after"] = networks.routing()
    yield result
    assert left_over(desk.mark) == []


def _start_server(desk: Desk) -> "subprocess.Popen[str]":
    config = write_experiment(desk.folder, clients=2, server={"tls": False})
    app = numpy_app(desk.folder, num_server_rounds=2, parameters=PARAMETERS)
    return desk.start(desk.networks.host, "server", config, "--app", app, "--runs", desk.folder, "--name", "run")


def _run(desk: Desk, result: Told, server: "subprocess.Popen[str]") -> None:
    folder, pi = desk.folder, desk.networks.pi
    assert server.stdout is not None
    assert "listening on 0.0.0.0:9092" in server.stdout.readline()
    shim = {"LD_PRELOAD": str(folder / "wrong_clock.so"), "WRONG_CLOCK_S": str(-TWO_DAYS_S)}
    looked = desk.start(
        pi, "check", "--server", SERVER, "--interface", "wifi0", "--interface", "wwan0", "--pin-route", "--json",
        "--name", "pi-0", "--state", folder / "pi-0", **shim,
    )  # fmt: skip
    result.check_status, said = end(looked)
    result.check = json.loads(said)
    _keep_baseline(folder / "pi-0")
    before = {name: desk.networks.sent(name) for name in ("eth0", "wifi0", "wwan0")}
    clients = [desk.client(number, "--pin-route") for number in range(2)]
    result.clients = [end(client) for client in clients]
    server.communicate(timeout=PATIENCE_S)
    result.sent = {name: desk.networks.sent(name) - count for name, count in before.items()}
    result.manifest = json.loads((folder / "run" / "manifest.json").read_text())


def _keep_baseline(state: Path) -> None:
    """As if it had been measured just now."""
    rate = Rate(50e6, 0, "cubic")
    with Path("/proc/uptime").open() as file:
        boot_s = float(file.read().split()[0])
    Baseline("10.0.0.1", "wifi0", RoundTrips(1, 1, 0.1, 0.1, 0.1, 0.0), rate, rate, _boot_id(), boot_s, 0).keep(state)


def test_a_route_that_leaves_elsewhere_is_refused(told: Told) -> None:
    """Status 1 and one line, which names the interface and what to do."""
    status, said = told.refused
    assert status == 1
    assert "--interface wwan0: this host's route to 10.0.1.1 leaves by wifi0; --pin-route pins it to wwan0" in said
    assert said.count("\n") == 1


def test_a_killed_client_leaves_its_route_until_the_next_command(told: Told) -> None:
    """A kill -9 undoes nothing; the check removes it and says so; at the end rules and routes are what they were."""
    assert told.routing["killed"] != told.routing["before"]
    (line,) = [finding for finding in told.check["findings"] if finding["check"] == "pinned routes"]
    assert line["said"] == "a client that was killed had pinned the route to 10.0.0.1"
    assert told.routing["after"] == told.routing["before"]


def test_the_check_finds_the_host_ready(told: Told) -> None:
    """Over both interfaces: route pinned, server reached, packets of full size, versions compared; no error."""
    findings = {finding["check"]: finding for finding in told.check["findings"]}
    assert (told.check_status, told.check["ready"]) == (0, True), findings
    for interface, gateway in (("wifi0", "10.0.1.1"), ("wwan0", "10.0.2.1")):
        assert findings[f"interface {interface}"]["status"] == "ok"
        assert f"10.0.0.1 via {gateway}" in findings[f"route by {interface}"]["said"]
        assert findings[f"server over {interface}"]["said"] == "answers without TLS"
        assert findings[f"path MTU by {interface}"]["status"] in {"ok", "not here"}
    assert findings["admission"]["said"] == "run run, 2 clients"
    assert "flwr 1.41.0 on both" in findings["versions"]["said"]


def test_a_clock_that_is_two_days_behind_is_a_warning(told: Told) -> None:
    """It says by how much, that the client joins all the same, and how to mend it."""
    found = [each for each in told.check["findings"] if each["check"] == "clock beside the server's"]
    assert len(found) == len(INTERFACES)
    for each in found:
        assert each["status"] == "warning"
        assert abs(int(each["said"].split()[0]) - TWO_DAYS_S) < 5
        assert each["said"].endswith(" s behind (2.0 days)")
        assert "joins all the same" in each["advice"]


def test_the_run_goes_over_the_pinned_route(told: Told) -> None:
    """Two clients of one host, each over its own; it is complete, nothing is marked, and the manifest has the routes."""
    assert [status for status, _ in told.clients] == [0, 0], told.clients
    assert told.manifest["status"] == "complete"
    assert "marks" not in told.manifest
    for number, interface in enumerate(INTERFACES, start=1):
        path = told.manifest["hosts"][f"pi-{number - 1}"]["path"]
        assert (path["interface"], path["pinned"], path["mismatch"]) == (interface, True, None)
        assert path["routes"] == [{"address": "10.0.0.1", "gateway": f"10.0.{number}.1", "source": f"10.0.{number}.2"}]


def test_other_interfaces_carry_less_than_one_percent(told: Told) -> None:
    """By the kernel's counters: two models of 2.9 MB left by each client's interface; the manifest says the same."""
    for number, interface in enumerate(INTERFACES):
        assert told.sent[interface] > 2 * 4 * PARAMETERS
        assert told.sent["eth0"] < 0.01 * told.sent[interface]
        path = told.manifest["hosts"][f"pi-{number}"]["path"]
        counted = path["interfaces"]
        assert counted[interface]["sent_bytes"] == pytest.approx(told.sent[interface], rel=0.02)
        assert path["sent_bytes"] == pytest.approx(told.sent[interface], rel=0.06)
        assert counted["eth0"]["sent_bytes"] < 0.01 * counted[interface]["sent_bytes"]


def test_the_baseline_comes_into_the_manifest_and_into_the_analysis(told: Told) -> None:
    """What was kept in the state folder is the capacity that the run's goodput is held against."""
    baseline = told.manifest["hosts"]["pi-0"]["baseline"]
    assert (baseline["interface"], baseline["uplink"]["rate_bps"]) == ("wifi0", 50e6)
    assert 0 <= baseline["age_s"] < 120
    run = derive(load_run(told.folder / "run"))
    assert capacity_bps(run, "uplink") == (50e6, "baseline")
