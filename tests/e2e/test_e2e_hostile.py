"""A real server with two honest clients, and a third host that means ill for as long as the run lasts."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from fltestbed.bench.footprint import kilobytes
from fltestbed.config_file import NAME_PATTERN
from fltestbed.links import EmulatedNetwork, load_link
from fltestbed.links.privilege import may_make_namespaces
from tests.e2e.conftest import left_over, marked, numpy_app, write_experiment
from tests.e2e.test_e2e_security import PORT, Started
from tests.waiting import wait_until

PEER = Path(__file__).with_name("hostile_peer.py")
FLTESTBED = [sys.executable, "-m", "fltestbed"]
SECONDS = 8
ROUNDS = 5
MOST_PEAK_BYTES = 260e6
LEAST_SENT_BYTES = 5e6

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")


@dataclass
class Attacked:
    """What is left of the run, and what the peer says of itself."""

    folder: Path
    manifest: dict[str, Any]
    peer: dict[str, Any]
    peak_bytes: int
    statuses: set[int]
    said: str


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    """One run, whose client works while the peer attacks."""
    folder = tmp_path_factory.mktemp("attacked")
    mark, environment = marked()
    for name in ("home", "place", "runs", "tools"):
        (folder / name).mkdir()
    tools = folder / "tools"
    environment |= {"HOME": str(folder / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    config = write_experiment(tools, clients=2, server={"round_deadline_s": 60.0, "tls": False})
    app = numpy_app(tools, num_server_rounds=ROUNDS, parameters=250_000)
    with EmulatedNetwork(load_link("ethernet"), 3, backend="tbf") as network:
        *honest, hostile = network.clients
        address = f"{network.server.address}:{PORT}"
        server = Started(network.server, [
            "env", "-C", folder / "place", *FLTESTBED, "server", config, "--app", app, "--runs", folder / "runs",
            "--name", "run",
        ], tools / "server.log", environment)  # fmt: skip
        wait_until(lambda: "waiting for" in server.said or server.process.poll() is not None)
        peer = Started(hostile, [
            sys.executable, PEER, network.server.address, PORT, SECONDS, tools / "keys", hostile.interface,
        ], tools / "peer.log", environment)  # fmt: skip
        wait_until(lambda: psutil.Process(server.process.pid).net_connections() or peer.process.poll() is not None)
        clients = [Started(host, [
            *FLTESTBED, "client", "--server", address, "--interface", host.interface, "--link", "wifi",
            "--partition", number, "--name", host.name, "--state", tools / host.name, "--trust-apps",
        ], tools / f"{host.name}.log", environment) for number, host in enumerate(honest)]  # fmt: skip
        peak = 0

        def ended() -> bool:
            nonlocal peak
            if server.process.poll() is None:
                peak = kilobytes(Path(f"/proc/{server.process.pid}/status").read_text()).get("VmHWM", 0) * 1024 or peak
            return server.process.poll() is not None

        wait_until(ended)
        statuses = {one.wait() for one in (server, *clients)}
        peer.process.wait(60)
    assert left_over(mark) == []
    manifest = json.loads((folder / "runs" / "run" / "manifest.json").read_text())
    told = json.loads(peer.said.splitlines()[-1])
    (folder / "tools" / "peak").write_text(str(peak))  # for who wants the figure
    said = server.said + "".join(client.said for client in clients)
    return Attacked(folder, manifest, told, peak, statuses, said)


def test_the_run_is_complete(attacked: Attacked) -> None:
    """All commands end well, every round has its replies, and no phase of a client failed."""
    assert attacked.statuses == {0}, attacked.said
    assert attacked.manifest["status"] == "complete"
    rows = [line.split(",") for line in (attacked.folder / "runs" / "run" / "phases.csv").read_text().splitlines()]
    column = {name: rows[0].index(name) for name in ("round", "client", "phase", "status")}
    uplinks = [row for row in rows[1:] if row[column["phase"]] == "uplink"]
    assert {row[column["round"]] for row in uplinks} == {str(number) for number in range(1, ROUNDS + 1)}
    assert {row[column["client"]] for row in uplinks} == {"client-0", "client-1"}
    assert {row[column["status"]] for row in rows[1:] if row[column["client"]]} == {"ok"}


def test_the_peer_tried_everything_and_got_nothing(attacked: Attacked) -> None:
    """Every attack at least once, tens of megabytes, and not one answer that says yes to what only a client may ask."""
    assert attacked.peer["sent_bytes"] > LEAST_SENT_BYTES
    assert {"header_flood", "large_body", "chunks_without_end", "smuggled", "pipelined", "pretended"} <= attacked.peer[
        "tried"
    ].keys()
    refused = {"join", "pull", "push", "leave"}
    answers = {answer for answer in attacked.peer["told"] if answer.split()[0] in refused}
    assert answers
    assert not {answer for answer in answers if answer.endswith("200")}


def test_memory_stayed_bounded(attacked: Attacked) -> None:
    """The SuperLink's peak is that of a run without a peer (about 155 MB) and some slack."""
    assert 100e6 < attacked.peak_bytes < MOST_PEAK_BYTES, f"{attacked.peak_bytes / 1e6:.0f} MB"


def test_nothing_is_written_outside_the_run_folder(attacked: Attacked) -> None:
    """Neither where the server was started nor in its home; in the run folder only what belongs there, under safe names."""
    assert list((attacked.folder / "place").iterdir()) == []
    assert list((attacked.folder / "home").rglob("*.csv")) == []
    assert [path.name for path in (attacked.folder / "runs").iterdir()] == ["run"]
    assert sorted(attacked.manifest["hosts"]) == ["client-0", "client-1", "server"]
    for path in (attacked.folder / "runs" / "run").rglob("*"):
        assert re.fullmatch(NAME_PATTERN, path.name), path
