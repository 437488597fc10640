"""A run whose server fails goes on, with clients that nobody touches."""

import csv
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from analysis.derive import derive
from analysis.load import load_run
from fltestbed.server.checkpoint import load
from tests.faults.resumed_runs import Lab, ended, lab
from tests.waiting import wait_until

ROUNDS = 3


def manifest_of(made: Lab) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((made.run / "manifest.json").read_text())
    return manifest


def sessions_of(made: Lab) -> list[dict[str, str]]:
    with (made.run / "sessions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def server_app(server: "subprocess.Popen[str]") -> psutil.Process:
    """The ServerApp's process of a server."""
    (found,) = [child for child in psutil.Process(server.pid).children() if "app_process" in " ".join(child.cmdline())]
    return found


def resume(made: Lab, clients: list["subprocess.Popen[str]"], prefix: tuple[str, ...] = ()) -> str:
    """Resume the run to its end, which the clients that are there see; returns what the server said."""
    server = made.server("--resume", "run", prefix=prefix)
    said = ended(server)
    assert server.returncode == 0, said
    assert [client.wait(20) for client in clients] == [0] * len(clients)
    return said


def test_a_killed_server_is_resumed(tmp_path: Path) -> None:
    """SIGKILL in the second round's training: the run goes on with that round, and both clients, untouched, see its end. The
    gap is a row, the manifest lists both sessions, and of the broken round only what was made whole counts.
    """
    with lab(tmp_path, num_server_rounds=ROUNDS, seconds=0.5) as made:
        server, clients = made.server(), made.clients(2)
        wait_until(made.reached("run,2,pi-1,ethernet,train"), "the second round")
        before = (made.run / "phases.csv").read_bytes()
        killed_at = time.monotonic()
        server.kill()
        ended(server)
        assert manifest_of(made)["status"] == "running"
        said = resume(made, clients)
        gone_s = time.monotonic() - killed_at
        assert "resumed after round 1, from round-000001-" in said
        assert "the session before: killed" in said
        manifest = manifest_of(made)
        assert (manifest["status"], [each["status"] for each in manifest["sessions"]]) == (
            "complete",
            ["killed", "complete"],
        )
        first, second = sessions_of(made)
        assert (first["session"], first["first_round"], first["gap_s"]) == ("1", "1", "")
        assert (second["session"], second["first_round"], second["same_boot"], second["before"]) == ("2", "2", "1", "killed")
        assert 0 < float(second["gap_s"]) < gone_s + 1
        whole = before[: before.rfind(b"\n") + 1]
        assert (made.run / "phases.csv").read_bytes().startswith(whole)
        run = derive(load_run(made.run))
        counted = run["phases"].groupby(["round", "message_type", "client"])["message_id"].nunique()
        assert (counted == 1).all()
        assert len(counted) == ROUNDS * 2 * 2
        assert list(run["rounds"]["round"]) == [1, 2, 3]
        assert (run["rounds"]["clients_replied"] == 2).all()
        assert any("started again after round 1" in warning for warning in run.warnings)
        assert load(max((made.run / "checkpoints").iterdir())).round == ROUNDS


def test_a_client_that_is_about_to_join_waits_as_well(tmp_path: Path) -> None:
    """Its trainer still starts (it is stopped for that) when the server is killed: it joins the session that goes on."""
    with lab(tmp_path, num_server_rounds=1) as made:
        server, clients = made.server(), made.clients(2)
        late = psutil.Process(clients[1].pid)
        wait_until(lambda: bool(trainers(late)), "the trainer of the second client")
        trainers(late)[0].suspend()
        wait_until(lambda: "pi-0" in manifest_of(made).get("hosts", {}), "the first client to join")
        server.kill()
        ended(server)
        again = made.server("--resume", "run")
        wait_until(lambda: len(sessions_of(made)) == 2, "the second session")
        trainers(late)[0].resume()
        said = ended(again)
        assert again.returncode == 0, said
        assert [client.wait(20) for client in clients] == [0, 0]
        assert set(manifest_of(made)["hosts"]) == {"server", "pi-0", "pi-1"}


def trainers(client: psutil.Process) -> list[psutil.Process]:
    """The trainer of a client, once there is one."""
    return [child for child in client.children() if "fltestbed.client.trainer" in child.cmdline()]


def test_a_killed_server_app_is_said_and_resumed(tmp_path: Path) -> None:
    """SIGKILL of the ServerApp alone: the server says so and ends by itself, the manifest says failed; resumed, with the
    newest checkpoint damaged, the run goes on from the one before.
    """
    with lab(tmp_path, clients=1, min_nodes=1, num_server_rounds=ROUNDS, seconds=0.3) as made:
        server, clients = made.server(), made.clients(1)
        wait_until(made.reached("run,3,pi-0,ethernet,train"), "the third round")
        server_app(server).kill()
        said = ended(server)
        assert server.returncode == 1
        assert "the ServerApp's process was killed by SIGKILL" in said
        manifest = manifest_of(made)
        assert (manifest["status"], "SIGKILL" in manifest["reason"]) == ("failed", True)
        newest = max((made.run / "checkpoints").glob("round-000002-*"))
        newest.write_bytes(newest.read_bytes()[:-1] + b"?")
        said = resume(made, clients)
        assert f"{newest.name} is damaged; resumed after round 1" in said
        assert "reason" not in manifest_of(made)
        assert list(derive(load_run(made.run))["rounds"]["round"]) == [1, 2, 3]


def test_a_run_goes_on_after_its_host_was_started_again(tmp_path: Path) -> None:
    """The raw clock begins anew and the kernel has another boot identifier: the run's clock is continued, no stamp of the
    second session is earlier than one of the first, and phases on two hosts are placed by each session's own mapping.
    """
    if subprocess.run(["unshare", "--mount", "--time", "--monotonic", "-9", "true"], check=False).returncode:
        pytest.skip("this host lets nobody shift its clocks")
    with lab(tmp_path, clients=1, min_nodes=1, num_server_rounds=ROUNDS, seconds=0.3) as made:
        server, clients = made.server(), made.clients(1)
        wait_until(made.reached("run,2,pi-0,ethernet,train"), "the second round")
        server.kill()
        ended(server)
        (tmp_path / "boot_id").write_text("00000000-1111-2222-3333-444444444444\n")
        shell = f'mount --bind {tmp_path / "boot_id"} /proc/sys/kernel/random/boot_id && exec "$@"'
        shifted = ("unshare", "--mount", "--time", "--monotonic", "-5000", "--boottime", "-5000", "--fork", "--kill-child")
        resume(made, clients, prefix=(*shifted, "sh", "-c", shell, "sh"))
        assert sessions_of(made)[1]["same_boot"] == "0"
        run = derive(load_run(made.run))
        assert list(run["rounds"]["round"]) == [1, 2, 3]
        phases = run["timeline"]
        server_ns = phases["start_raw_ns"][phases["start_host"] == "server"]
        assert server_ns[phases["round"] >= 2].min() > server_ns[phases["round"] == 1].max()
        assert phases["duration_s"].abs().max() < 10
        assert (phases["duration_uncertainty_s"] < 0.1).all()
        assert np.isfinite(run["rounds"]["duration_s"]).all()
