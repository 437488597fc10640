"""What hosts say of themselves reaches the run folder: programs stand in for a modem and for time synchronisation.

For a gNB that writes its log a thread stands in.
"""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.load import Run, load_run
from tests.e2e.conftest import fltestbed, numpy_app, write_experiment
from tests.measure.probes.test_probes_gnb_report import DOCUMENTED, FIGURES
from tests.measure.probes.test_probes_modem import CELLS, DESCRIPTION, LIST, SIGNAL
from tests.measure.probes.test_probes_time_sync import CHRONY

LINK = """name = "5g"
interface = "wwan0"
medium = "dedicated"

[uplink]
rate-mbit = 50
queue-kb = 100

[downlink]
rate-mbit = 100
queue-kb = 250
"""
MMCLI = f"""#!/bin/sh
case "$*" in
*-L) echo '{LIST}';;
*--signal-get) echo '{SIGNAL.replace("RATE", "1")}';;
*--get-cell-info) echo '{CELLS}';;
*) echo '{DESCRIPTION}';;
esac
"""


WRITTEN_S: list[float] = []
"""Wall clock of each report of the gNB."""


@contextlib.contextmanager
def gnb(log: Path) -> Iterator[None]:
    """Writes a report each 0.2 s, stamped by the wall clock."""
    is_over = threading.Event()

    def write() -> None:
        while not is_over.wait(0.2):
            WRITTEN_S.append(time.time())
            with log.open("a") as file:
                file.write(DOCUMENTED.replace("[NR_MAC]", f"{WRITTEN_S[-1]:.6f} [NR_MAC]") + "\n")

    log.touch()
    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two clients of the plain Flower app on hosts with a 5G modem and chrony; the server has chrony and a gNB."""
    folder = tmp_path_factory.mktemp("probes")
    for name, script in (("mmcli", MMCLI), ("chronyc", f"#!/bin/sh\nprintf '{CHRONY}'\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    (folder / "link.toml").write_text(LINK)
    app = numpy_app(folder, num_server_rounds=2, seconds=0.8)  # time for readings
    log = folder / "gnb.log"
    probes = {"interval_s": 0.2, "modem_interval_s": 1, "gnb_log": str(log)}
    config = write_experiment(folder, clients=2, probes=probes)
    with pytest.MonkeyPatch.context() as patch, gnb(log):
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        done = fltestbed(
            "run", config, "--link", folder / "link.toml", "--backend", "tbf", "--app", app,
            "--runs", folder, "--name", "probes",
        )  # fmt: skip
    assert done.status == 0, done.out + done.err
    return load_run(folder / "probes")


def test_each_clients_radio_is_recorded(run: Run) -> None:
    """Rows of both technologies from both clients, on their interface and on the server's time line."""
    rows = run["radio"][run["radio"]["host"] != "server"]
    assert set(zip(rows["host"], rows["technology"], strict=True)) == {
        (host, technology) for host in ("client-0", "client-1") for technology in ("5g", "lte")
    }
    assert set(rows["interface"]) == {"wwan0"}
    assert rows["time_s"].notna().all()
    of_5g = rows[rows["technology"] == "5g"]
    assert set(zip(of_5g["rsrp_dbm"], of_5g["channel"], of_5g["cell"], strict=True)) == {(-87.0, 627360, "00e000101")}


def test_the_gnbs_log_is_recorded(run: Run) -> None:
    """Its reports stand in the order and at the distance in which they were written, on the server's time line."""
    rows = run["radio"][run["radio"]["host"] == "server"]
    assert len(rows) >= 3
    assert set(zip(rows["interface"], rows["rnti"], rows["ul_harq_rounds"], strict=True)) == {
        ("gnb", FIGURES["rnti"], FIGURES["ul_harq_rounds"])
    }
    distances = rows["time_s"].diff().dropna().tolist()
    written = [later - earlier for earlier, later in itertools.pairwise(WRITTEN_S)]
    parts = (written[k : k + len(distances)] for k in range(len(written) - len(distances) + 1))
    assert any(distances == pytest.approx(part, abs=0.02) for part in parts)
    assert set(rows["ul_retransmissions"].dropna()) == {0}
    assert run.manifest.data["hosts"]["server"]["probes"]["gnb_log"]["stamped_by"] == {"wall": len(rows)}


def test_the_manifest_says_what_was_read_and_why_not(run: Run) -> None:
    """Every probe of every host is on with what it cost, or off with the reason; of radios the server has the gNB's log."""
    hosts = run.manifest.data["hosts"]
    assert set(hosts["server"]["probes"]) == {"system", "throttling", "time_sync", "gnb_log"}
    for name in ("client-0", "client-1"):
        probes = hosts[name]["probes"]
        assert {probe: facts["on"] for probe, facts in probes.items()} == {
            "system": True, "throttling": False, "time_sync": True, "wifi": False, "modem": True,
        }  # fmt: skip
        assert all(facts["reason"] for facts in probes.values() if not facts["on"])
        assert all(facts["samples"] > 0 < facts["cpu_s_per_sample"] for facts in probes.values() if facts["on"])
        assert probes["modem"]["modem"] == "Quectel RM500Q-GL"


def test_time_synchronisation_is_recorded_at_start_and_end(run: Run) -> None:
    """In the manifest of each host, and in its first row."""
    for name, host in run.manifest.data["hosts"].items():
        told = host["probes"]["time_sync"]
        for moment in ("start", "end"):
            (record,) = told[moment]
            assert (record["daemon"], record["source"], record["offset_s"]) == ("chrony", "203.0.113.15", -6.523e-6)
        rows = run["system"][run["system"]["host"] == name]
        asked = rows[rows["time_sync"].notna()]
        assert set(asked["time_sync"]) == {"chrony"}
        assert set(asked["wall_offset_s"]) == {-6.523e-6}
