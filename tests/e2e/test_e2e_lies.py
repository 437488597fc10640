"""A client that tells garbage beside one that does not: the run is whole, and no lie is in a figure."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.derive import derive
from analysis.load import load_run
from analysis.tables import summarise
from tests.e2e.conftest import APPS, free_port, left_over, marked, write_experiment

LIAR = Path(__file__).with_name("lying_client.py")
HOUR_S = 3600.0


def test_lies_are_told_once_and_left_out(tmp_path: Path) -> None:
    """Three rounds with both replies in each; of the liar one line for each kind of lie, its phases of those rounds missing,
    and nothing in any file that is not finite or longer than an hour. Of the honest client nothing is missing.
    """
    mark, environment = marked()
    port = free_port()
    config = write_experiment(
        tmp_path, clients=2, server={"host": "127.0.0.1", "port": port, "tls": False}, probes={"interval_s": 0.2}
    )
    python: list[object] = [sys.executable, "-m", "fltestbed"]
    serve = [*python, "server", config, "--app", APPS / "numpy_app", "--runs", tmp_path, "--name", "lies"]
    options = ["--server", f"127.0.0.1:{port}", "--interface", "lo", "--link", "lo", "--trust-apps"]
    clients = [
        [*start, "client", *options, "--partition", number, "--name", name, "--state", tmp_path / name]
        for number, (name, start) in enumerate((("honest", python), ("liar", [sys.executable, LIAR])))
    ]
    processes = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for command in (serve, *clients)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert left_over(mark) == []

    lines = [line for line in said[0].splitlines() if "left out" in line]
    assert all("liar: " in line and line.endswith("; such facts are left out, and the run goes on") for line in lines)
    for once in (
        "transfers.tcp.rtt_s: input should be less than or equal to 10000000, not 1e+30",
        "system.cpu_percent: input should be a finite number, not nan",
        "the server's stamps of an exchange are not of the time of this run",
        "called_raw_ns: input should be greater than or equal to 0, not -5",
        "the client's stamps are not in the order in which things happen",
    ):
        assert sum(once in line for line in lines) == 1, said[0]
    assert len(lines) == 5

    run = derive(load_run(tmp_path / "lies"))
    assert run["rounds"]["clients_replied"].tolist() == [2, 2, 2]
    for name in ("phases", "timeline", "clients", "rounds", "transfers", "clock_samples", "clock", "system"):
        seconds = run[name].filter(regex="_s$").astype("float64").to_numpy()
        assert not np.isinf(seconds).any(), name
        assert np.nanmax(np.abs(seconds), initial=0.0) < HOUR_S, name
    phases = run["phases"]
    missing = phases[phases["status"] == "missing"]
    found = missing[["client", "round", "message_type"]].drop_duplicates().itertuples(index=False, name=None)
    assert set(found) == {("liar", 1, "evaluate"), ("liar", 2, "train")}  # its second reply and its third
    transfers = run["transfers"]
    assert transfers.loc[transfers["client"] == "liar", "rtt_s"].dropna().max() < 1
    assert pd.notna(transfers.loc[transfers["client"] == "honest", "client_start_raw_ns"]).all()
    assert set(run["system"]["host"]) == {"server", "honest"}
    json.dumps([vars(summarise([run]))], allow_nan=False)
