"""A server with TLS and a list of keys, on every address of its host; who gets in, who does not, and what each is told."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import fltestbed.flower  # noqa: F401  # first: it switches Flower's telemetry off
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.links import EmulatedNetwork, Host, load_link
from fltestbed.links.privilege import may_make_namespaces
from fltestbed.security.folder import CertificateFolder
from tests.e2e.conftest import left_over, marked, numpy_app, write_experiment
from tests.waiting import wait_until

COMPILER = shutil.which("cc")
SHIM = Path(__file__).with_name("wrong_clock.c")
PROBE = Path(__file__).with_name("path_probe.py")
PORT = 9092
TWO_DAYS_S = 2 * 86400
PATIENCE_S = 60.0
FLTESTBED = [sys.executable, "-m", "fltestbed"]
TEN_YEARS_AGO = Clock(wall_ns=lambda: int((datetime.now(UTC) - timedelta(days=3651)).timestamp() * 1e9))

pytestmark = [
    pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler for the shim that makes a clock wrong"),
]


@dataclass
class Secured:
    """One run, with everything that was tried against it before it began."""

    folder: Path
    certificates: CertificateFolder
    said: dict[str, tuple[int, str]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    processes: set[str] = field(default_factory=set)
    logs: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest's text."""
        return dict(json.loads((self.folder / "run" / "manifest.json").read_text()))


class Started:
    """A program on a host; what it says goes to a file."""

    def __init__(self, host: Host, argv: list[Any], log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = host.popen(
                list(map(str, argv)), env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        """Everything so far."""
        return self._log.read_text(errors="replace")

    def wait(self) -> int:
        """Its exit status."""
        return int(self.process.wait(PATIENCE_S))


class Lab:
    """Hosts in namespaces, and the commands that a person in the lab types."""

    def __init__(self, network: EmulatedNetwork, folder: Path, environment: dict[str, str]) -> None:
        self.network = network
        self.folder = folder
        self.address = f"{network.server.address}:{PORT}"
        self._environment = environment
        self._count = 0

    def client(self, number: int, *options: object, wrong_clock_s: int | None = None) -> Started:
        """Start `fltestbed client`; an option given again takes the place of the first."""
        host = self.network.clients[number]
        argv = [
            "client", "--server", self.address, "--interface", host.interface, "--link", "wifi", "--partition", number,
            "--name", host.name, "--state", self.folder / host.name, "--timeout", 5, "--trust-apps", *options,
        ]  # fmt: skip
        shim = {"LD_PRELOAD": str(self.folder / "wrong_clock.so"), "WRONG_CLOCK_S": str(wrong_clock_s)}
        return self.start(host, [*FLTESTBED, *argv], shim if wrong_clock_s is not None else {})

    def start(self, host: Host, argv: list[Any], more: dict[str, str] | None = None) -> Started:
        """Start a program on a host."""
        self._count += 1
        return Started(host, argv, self.folder / f"{self._count}.log", self._environment | (more or {}))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Two clients run an app, one two days behind, one two days ahead; before them others have tried."""
    folder = tmp_path_factory.mktemp("secured")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", folder / "wrong_clock.so", SHIM], check=True)
    mark, environment = marked()
    with EmulatedNetwork(load_link("ethernet"), 4, backend="tbf") as network:
        names = tuple(client.name for client in network.clients)
        old = CertificateFolder(folder / "certs", TEN_YEARS_AGO)
        old.make((network.server.address,), names[:2], days=1, found=())
        shutil.copy(old.ca_certificate, folder / "old-ca.crt")
        certificates = CertificateFolder(old.path, SYSTEM_CLOCK)
        certificates.make(renew=True, found=())
        CertificateFolder(folder / "others", SYSTEM_CLOCK).make(("x",), found=())
        result = Secured(folder, certificates)
        lab = Lab(network, folder, environment)
        config = write_experiment(folder, clients=2, server={"node_keys": str(certificates.nodes)})
        app = numpy_app(folder, num_server_rounds=1)
        server = lab.start(network.server, [
            *FLTESTBED, "server", config, "--app", app, "--runs", folder, "--name", "run",
            "--certificates", certificates.path,
        ])  # fmt: skip
        wait_until(lambda: "listening on 0.0.0.0:9092 with TLS" in server.said or server.process.poll() is not None)
        assert server.process.poll() is None, server.said
        _try_in_vain(lab, result, server)
        _take_part(lab, result, server, mark)
        yield result
    assert left_over(mark) == []


def _try_in_vain(lab: Lab, result: Secured, server: Started) -> None:
    ca = result.certificates.ca_certificate
    probe = lab.start(lab.network.clients[3], [sys.executable, PROBE, lab.address, json.dumps(_paths())])
    attempts = {
        "without TLS": lab.client(0),
        "another CA": lab.client(1, "--ca", lab.folder / "others" / "ca.crt"),
        "an expired CA": lab.client(2, "--ca", lab.folder / "old-ca.crt"),
        "an unregistered key": lab.client(3, "--ca", ca, "--partition", 0),
        "another's key": lab.client(3, "--ca", ca, "--key", result.certificates.node_key("client-0"), "--partition", 0),
    }
    assert probe.wait() == 0, probe.said + server.said
    result.statuses = json.loads(probe.said)
    result.said = {name: (attempt.wait(), attempt.said) for name, attempt in attempts.items()}


def _take_part(lab: Lab, result: Secured, server: Started, mark: str) -> None:
    certificates, ca = result.certificates, result.certificates.ca_certificate
    parts = {
        "client-0": lab.client(0, "--ca", ca, "--key", certificates.node_key("client-0"), wrong_clock_s=-TWO_DAYS_S),
        "client-1": lab.client(1, "--ca", ca, "--key", certificates.node_key("client-1"), wrong_clock_s=TWO_DAYS_S),
    }

    def is_over() -> bool:
        result.processes.update(left_over(mark))
        return server.process.poll() is not None

    wait_until(is_over)
    result.ended = {name: part.wait() for name, part in {"server": server, **parts}.items()}
    result.logs = "".join(part.said for part in (server, *parts.values()))
    result.logs += "".join(file.read_text() for file in (lab.folder / "run" / "logs").iterdir())


def _paths() -> list[str]:
    """Every path of Flower's SuperLink, and the toolkit's own."""
    from flwr.superlink.main import create_app  # noqa: PLC0415  # after its telemetry is off

    own = [
        "/v1/fltestbed/client/hello",
        "/v1/fltestbed/grid/push",
        "/v1/fltestbed/grid/marks",
        "/docs",
        "/openapi.json",
        "/",
    ]
    return sorted(create_app().openapi()["paths"]) + own


def test_they_took_part(secured: Secured) -> None:
    """The run is complete: two clients with wrong clocks, over TLS, each with its registered key."""
    assert secured.ended == {"server": 0, "client-0": 0, "client-1": 0}, secured.logs
    assert secured.manifest["status"] == "complete"
    assert "marks" not in secured.manifest
    assert secured.manifest["security"]["registered_nodes"] == ["client-0", "client-1"]
    rows = (secured.folder / "run" / "phases.csv").read_text()
    assert all(f",{name}," in rows for name in ("client-0", "client-1"))
    assert ",failed," not in rows


def test_the_manifest_says_how_far_off_a_clock_was(secured: Secured) -> None:
    """Server minus client: plus and minus two days; and by whose clock the certificate was judged."""
    hosts = secured.manifest["hosts"]
    offsets = [hosts[name]["wall_offset_s"] for name in ("client-0", "client-1")]
    assert offsets == [pytest.approx(TWO_DAYS_S, abs=3), pytest.approx(-TWO_DAYS_S, abs=3)]
    assert hosts["client-0"]["tls"] == {"clock_synchronised": False, "dates_checked_by": "the server's Date header"}


def test_only_fleet_client_routes_and_health_answer_outside(secured: Secured) -> None:
    """Every Control and Runtime path, the grid's and the documentation answer 403, whatever the method."""
    is_open = {path for path, statuses in secured.statuses.items() if 403 not in statuses}
    forbidden = {path for path, statuses in secured.statuses.items() if set(statuses) == {403}}
    assert is_open | forbidden == set(secured.statuses)
    assert is_open == {
        path for path in secured.statuses if path.startswith(("/v1/fleet/", "/v1/fltestbed/client/")) or path == "/health"
    }
    kinds = {path.split("/")[2] for path in forbidden if path.startswith("/v1/")}
    assert {"control", "runtime", "fltestbed"} <= kinds


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        ("without TLS", "the server speaks TLS; give --ca with a copy of its ca.crt"),
        ("another CA", "the server's certificate was not signed by the CA in "),
        ("an expired CA", "old-ca.crt: the CA's certificate expired on "),
        ("an unregistered key", "this client's key is not registered; add its public key (node.pub) to server.node-keys"),
        ("another's key", "this key is registered for client-0, not for client-3; give the client --name client-0"),
    ],
)
def test_who_is_refused_is_told_why(secured: Secured, attempt: str, says: str) -> None:
    """Status 1 and one line in the client's terminal."""
    status, said = secured.said[attempt]
    assert status == 1, said
    assert says in said
    assert said.count("\n") == 1, said


def test_no_secret_is_told(secured: Secured) -> None:
    """No line of a private key in a log, in the run folder or in the arguments of a process; no token in arguments."""
    secrets = {
        line for file in secured.folder.rglob("*.key") for line in file.read_text().splitlines()
        if "-----" not in line and len(line) > 30
    }  # fmt: skip
    assert len(secrets) > 10
    run = "".join(file.read_text(errors="replace") for file in (secured.folder / "run").rglob("*") if file.is_file())
    arguments = "\n".join(secured.processes)
    assert "fltestbed.server.app_process" in arguments
    everything = secured.logs + run + arguments + "".join(said for _, said in secured.said.values())
    assert [line for line in secrets if line in everything] == []
    assert "PRIVATE KEY" not in everything
    assert "token" not in arguments


def test_keys_stay_their_owners(secured: Secured) -> None:
    """Also the one that the refused client made for itself."""
    made = [*secured.folder.rglob("*.key")]
    assert len(made) >= 6
    assert {file.stat().st_mode & 0o777 for file in made} == {0o600}
    assert (secured.folder / "client-3" / "node.pub").stat().st_mode & 0o777 == 0o644
