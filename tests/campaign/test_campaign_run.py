"""A campaign of real runs that is killed, goes on, loses a run, and is completed by the same command."""

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fltestbed.campaign.plan import load_plan
from fltestbed.campaign.run import run_campaign
from fltestbed.campaign.schedule import schedule
from fltestbed.errors import RunFolderError
from fltestbed.links.privilege import may_make_namespaces
from tests.campaign.campaign_files import write_campaign, write_link
from tests.e2e.conftest import Outcome, left_over, marked, numpy_app
from tests.waiting import wait_until

PATIENCE_S = 120.0

SERVER_APP = """
import os, time
from pathlib import Path
from flwr.serverapp import ServerApp
from numpy_app.server_app import main as train

app = ServerApp()

@app.main()
def main(grid, context):
    faults = Path(os.environ["FAULTS"])
    fault, _, rest = faults.read_text().partition(" ")
    faults.write_text(rest)
    if fault == "fail":
        raise RuntimeError("told to fail")
    if fault == "hang":
        faults.with_name("hanging").touch()
        time.sleep(600)
    train(grid, context)
"""
"""Does what the next word of a file says; a run finds the file through the environment."""

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="this user may not make network namespaces")


@dataclass(frozen=True)
class Lab:
    """One campaign of three runs beside a flow, and the command that makes it."""

    folder: Path
    config: Path

    @property
    def runs(self) -> Path:
        """The campaign's folder."""
        return self.folder / "runs" / "lab"

    def command(self, *more: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "fltestbed", "campaign", str(self.config), "--runs", str(self.folder / "runs"), *more]

    def environment(self, faults: str) -> tuple[str, dict[str, str]]:
        """A mark, and the environment that carries it and leads to what the runs shall do."""
        mark, environment = marked()
        (self.folder / "faults").write_text(faults)
        return mark, environment | {"FAULTS": str(self.folder / "faults"), "COLUMNS": "150"}

    def call(self, faults: str, *more: str) -> Outcome:
        """The campaign to its end; nothing that it started is left."""
        mark, environment = self.environment(faults)
        done = subprocess.run(self.command(*more), env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert left_over(mark) == []
        return Outcome(done.returncode, done.stdout, done.stderr)

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Manifest of each run in the campaign's folder."""
        return {file.parent.name: json.loads(file.read_text()) for file in self.runs.glob("*/manifest.json")}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    app = numpy_app(tmp_path, num_server_rounds=1, min_nodes=1)
    (app / "numpy_app" / "faulty.py").write_text(SERVER_APP)
    pyproject = app / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("numpy_app.server_app:app", "numpy_app.faulty:app"))
    links = [write_link(tmp_path, name, up=50, down=50) for name in ("a", "b", "c")]
    flow = {"direction": "uplink", "protocol": "udp", "rate-mbit": 4.0}
    config = write_campaign(
        tmp_path, factors={"link": links, "competing-flow": [True]}, experiment={"clients": 1, "competing-flow": flow},
        repetitions=1, backend="tbf", app="numpy_app",
    )  # fmt: skip
    return Lab(tmp_path, config)


def test_a_campaign_survives_its_death_and_a_failing_run(lab: Lab) -> None:
    """Nothing complete is made again, nothing incomplete is lost, one failure costs one run, and flows are on record."""
    order = [run.name for run in schedule(load_plan(lab.config))]
    assert sorted(order) == ["a-flow-r1", "b-flow-r1", "c-flow-r1"]
    mark, environment = lab.environment("ok hang")
    with subprocess.Popen(
        lab.command(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        wait_until(lambda: process.poll() is not None or (lab.folder / "hanging").exists(), timeout_s=PATIENCE_S)
        assert process.poll() is None
        with pytest.raises(RunFolderError, match="another campaign is at work there"):
            run_campaign(load_plan(lab.config), lab.runs, Console(file=io.StringIO()))
        process.kill()
    wait_until(lambda: left_over(mark) == [])
    first = lab.manifests()[order[0]]
    assert first["status"] == "complete"
    assert {name: first["campaign"][name] for name in ("name", "levels", "repetition", "place", "places")} == {
        "name": "lab", "levels": {"link": order[0][0], "competing-flow": True}, "repetition": 1, "place": 1, "places": 3,
    }  # fmt: skip
    assert lab.manifests()[order[1]]["status"] == "running"
    listing = lab.call("", "--dry-run")
    assert listing.status == 0
    assert sorted(order, key=listing.out.index) == order
    assert "2 of 3 runs to make" in listing.out
    assert "killed: will be put aside and made again" in listing.out

    done = lab.call("fail ok")
    assert done.status == 1, done.out + done.err
    assert f"1 of 3 runs are missing: {order[1]} (failed: {order[1]}: the ServerApp failed" in done.err
    assert {name: manifest["status"] for name, manifest in lab.manifests().items()} == {
        order[0]: "complete", order[1]: "failed", order[2]: "complete",
    }  # fmt: skip

    done = lab.call("ok")
    assert done.status == 0, done.out + done.err
    manifests = lab.manifests()
    assert {manifest["status"] for manifest in manifests.values()} == {"complete"}
    assert manifests[order[0]] == first
    assert manifests[order[2]]["campaign"]["elapsed_s"] > 0
    aside = sorted(path.name for path in lab.runs.with_name("lab-incomplete").iterdir())
    assert aside == [f"{order[1]}-failed-1", f"{order[1]}-killed-1"]
    records_its_flow(lab.runs / order[2], manifests[order[2]])


def records_its_flow(folder: Path, manifest: dict[str, Any]) -> None:
    """The flow was there from before the first phase until after the last; the manifest has what it really sent."""
    flow = manifest["competing_flow"]
    assert 3.5 < flow["uplink_mean_mbit"] < 4.8
    assert flow["ended_early"] is False
    rows = [line.split(",") for line in (folder / "phases.csv").read_text().splitlines()]
    start, end = (rows[0].index(name) for name in ("start_ns", "end_ns"))
    zero_ns = manifest["zero_raw_ns"]
    assert flow["started_raw_ns"] < min(int(row[start]) for row in rows[1:] if row[start]) + zero_ns
    assert flow["ended_raw_ns"] > max(int(row[end]) for row in rows[1:] if row[end]) + zero_ns
    assert manifest["experiment"]["competing-flow"]["rate-mbit"] == 4.0
