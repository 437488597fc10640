"""What idle connections do, and how late stamps are, is on record; what was asked for is set on every emulated host."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import fltestbed, numpy_app, write_experiment
from tests.e2e.test_e2e_collect import rows_of

CLOCK_EXCHANGES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds with a second of training each, kept warm, over a link with a round trip of 24 ms and jitter."""
    folder = tmp_path_factory.mktemp("warm")
    settings = {"idle_restart": False, "metrics_cache": False, "keep_warm_s": 0.2}
    config = write_experiment(folder, clients=2, connection=settings, probes={"interval_s": 0.3})
    app = numpy_app(folder, num_server_rounds=2, parameters=50_000, seconds=1.0)
    done = fltestbed("run", config, "--link", "5g", "--app", app, "--runs", folder, "--name", "run")
    assert done.status == 0, done.out + done.err
    assert "stamps of run: " in (said := fltestbed("summary", folder / "run").out), said
    return folder / "run"


def hosts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text())["hosts"])


def test_emulated_hosts_are_set_as_asked(folder: Path) -> None:
    """Server and clients say what their kernel does, and it is what the experiment wants."""
    settings = {name: host["tcp"] for name, host in hosts(folder).items()}
    assert sorted(settings) == ["client-0", "client-1", "server"]
    assert all(value == {"idle_restart": False, "metrics_cache": False} for value in settings.values())


def test_a_second_of_training_is_no_silence(folder: Path) -> None:
    """Exchanges go on while the app trains: the uplink's connection has not been idle for as long as training took."""
    rows = rows_of(folder / "transfers.csv")
    uplinks = [row for row in rows if row["direction"] == "uplink"]
    assert len(uplinks) >= 4
    assert all(float(row["idle_s"]) < 0.9 for row in uplinks)
    assert {row["idle_restart"] for row in rows if row["rtt_s"]} == {"0"}
    assert all(float(row["rto_s"]) > float(row["min_rtt_s"]) > 0.012 for row in uplinks)
    assert all(int(row["congestion_window_start_segments"]) >= 10 for row in uplinks)
    clock = [row for row in rows_of(folder / "clock_samples.csv") if row["exchange"] == "clock"]
    assert len(clock) >= 2 * (CLOCK_EXCHANGES + 4)


def test_the_stamping_processes_error_is_on_record(folder: Path) -> None:
    """The server's loop lag and every host's wait for a CPU: in the manifest, and in rows while the run goes on."""
    found = {name: host["stamp_error"] for name, host in hosts(folder).items()}
    lag = found["server"]["loop_lag"]
    assert lag["count"] > 50
    assert 0 < lag["p50_s"] <= lag["p95_s"] <= lag["p99_s"] <= lag["max_s"]
    assert all(facts["scheduling"]["time_slices"] > 0 for facts in found.values())
    rows = rows_of(folder / "system.csv")
    for name in found:
        waited = [row["sched_delay_s"] for row in rows if row["host"] == name]
        assert len(waited) >= 2
        assert all(float(value) >= 0 for value in waited)
    assert {row["host"] for row in rows if row["loop_lag_max_s"]} == {"server"}
